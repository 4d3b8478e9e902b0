//! X-Road's own example messages, which are not in this repository: `NDXP_XROAD_EXAMPLES=FOLDER cargo test --test exchange
//! xroad_examples -- --ignored`.

use ndxp_gateway::contract::settings::CallContext;
use ndxp_gateway::contract::{Binding, ContractSet};
use ndxp_gateway::drivers::http::HttpResponse;
use ndxp_gateway::drivers::soap::read_response;
use ndxp_gateway::status::Refusal;
use std::path::{Path, PathBuf};

const CONTRACT: &str = r#"
syntax = "proto3";
package examples.v1;
import "ndxp/contract/v1/contract.proto";
service Examples {
  option (ndxp.contract.v1.source) = { id: "examples" outcome: { absent_is_success: true } };
  rpc Get(Ask) returns (Answer) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (ndxp.contract.v1.operation) = {
      scope: "examples:read" data_class: OPEN
      xroad: { service_code: "get" soap: {
        request: "Get" namespace: "urn:in"
        response: ["getStateResponse", "testResponse", "testQueryResponse", "clientRegResponse"]
      } }
    };
  }
}
message Ask {}
message Answer {
  string response = 1 [(ndxp.contract.v1.field) = { name: ["response", "."] }];
  string answer = 2 [(ndxp.contract.v1.field) = { name: "answer" }];
  string request_id = 3 [(ndxp.contract.v1.field) = { name: "requestId" }];
  bytes data = 4 [(ndxp.contract.v1.field) = { name: "data" }];
}
"#;

fn folder() -> PathBuf {
    let named = std::env::var_os("NDXP_XROAD_EXAMPLES").map(PathBuf::from);
    named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/xroad/examples"))
}

/// The media type that a message in parts has: its boundary stands in its first line.
fn media_type(body: &[u8]) -> String {
    let first = body.split(|byte| *byte == b'\n').next().unwrap_or_default();
    match std::str::from_utf8(first).unwrap_or("").trim().strip_prefix("--") {
        Some(boundary) => format!("multipart/related; boundary=\"{boundary}\""),
        None => "text/xml; charset=UTF-8".to_owned(),
    }
}

#[test]
#[ignore = "X-Road's examples are not in this repository: NDXP_XROAD_EXAMPLES names a folder of them"]
fn x_roads_own_examples_are_read_if_present() {
    let files = std::fs::read_dir(folder()).expect("NDXP_XROAD_EXAMPLES names a folder of X-Road's examples");
    let contracts = tempfile::tempdir().unwrap();
    std::fs::write(contracts.path().join("examples.proto"), CONTRACT).unwrap();
    let set = ContractSet::with_folder(contracts.path()).unwrap();
    let operation = set.operation("/examples.v1.Examples/Get").unwrap();
    let Binding::XRoadSoap { soap, .. } = &operation.binding else { panic!("X-Road") };
    let (mut read, mut wrong) = (0, Vec::new());
    for file in
        files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some_and(|ext| ext == "answer"))
    {
        let body = std::fs::read(&file).unwrap();
        // Its last boundary does not close it: it may have been cut.
        if file.ends_with("soapfault-mtom.answer") {
            continue;
        }
        // One is in the encoding that its name says, which the header alone tells.
        let kind = match file.to_str().unwrap().contains("iso88591") {
            true => "text/xml; charset=ISO-8859-1".to_owned(),
            false => media_type(&body),
        };
        let mut headers = http::HeaderMap::new();
        headers.insert("content-type", kind.parse().unwrap());
        let answer = HttpResponse { status: http::StatusCode::OK, headers, body: body.into() };
        let said = read_response(operation, soap, answer, &CallContext::default()).map(|(message, _)| message.len());
        read += 1;
        let Err(refusal) = said.map_err(Refusal::from) else { continue };
        // A fault with its code is read; so is an answer that holds nothing, of which nothing is believed.
        if refusal.source_code.is_none() && !refusal.detail.contains("nothing of the contract is found") {
            wrong.push(format!("{}: {}", file.file_name().unwrap().to_string_lossy(), refusal.detail));
        }
    }
    assert!(read > 20 && wrong.is_empty(), "{read}\n{}", wrong.join("\n"));
}
