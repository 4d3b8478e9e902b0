//! What developers of provincial systems get described, and Connect's GET: of open data only.

use super::criminal_records;
use super::web_calls::{System, system};
use crate::support::{Stage, UNIT, VERIFY};
use ndxp_gateway::sandbox::samples;
use serde_json::{Value, json};

const SCHEMA: &str = "/ndxp.catalogue.v1.CatalogueService/GetSchema";
const DOCUMENT: &str = "/v1/openapi.json";

fn query(message: &Value) -> String {
    let encoded: String = form_urlencoded::byte_serialize(message.to_string().as_bytes()).collect();
    format!("?connect=v1&encoding=json&message={encoded}")
}

#[tokio::test(flavor = "multi_thread")]
async fn open_data_is_read_by_get_and_nothing_about_people_is() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let system = system(&stage, &actor);
    let request = &samples::of(SCHEMA.trim_start_matches('/')).unwrap().requests[0];
    let by_post = system.call(SCHEMA, request).await;
    let query = query(request);
    let by_get = system.send("GET", &format!("{SCHEMA}{query}"), &[], "").await;
    assert_eq!((by_get.status, by_post.status, by_get.json()), (200, 200, by_post.json()), "{by_get:?}");
    assert_eq!((by_get.text("content-type"), by_get.text("cache-control")), ("application/json", "no-store"));
    let entry = system.entry(&by_get);
    assert_eq!((entry.protocol.as_str(), entry.reason.as_str()), ("connect", ""));
    // The token is needed here as well, and a query that says too little has an entry, too.
    let nobody = System { token: String::new(), stage: &stage, id: Some("one-stop-shop") };
    let refused = nobody.send("GET", &format!("{SCHEMA}{query}"), &[], "").await;
    assert_eq!((refused.status, refused.error().1.as_str()), (401, "TOKEN_MISSING"));
    let malformed = system.send("GET", SCHEMA, &[], "").await;
    assert_eq!((malformed.status, system.entry(&malformed).reason.as_str()), (400, "REQUEST_MALFORMED"));
    let verify = system.send("GET", &format!("{}{query}", VERIFY), &[], "").await;
    assert_eq!((verify.status, verify.text("allow")), (405, "POST"));
    let put = system.send("PUT", SCHEMA, &[("content-type", "application/json")], "{}").await;
    assert_eq!((put.status, put.text("allow")), (405, "GET, POST"));
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_is_for_who_has_a_certificate_and_its_examples_are_calls_that_succeed() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let system = system(&stage, &actor);
    let stranger = System { token: String::new(), stage: &stage, id: None };
    assert_eq!(stranger.send("GET", DOCUMENT, &[], "").await.status, 401);
    let reply = system.send("GET", DOCUMENT, &[], "").await;
    let document = reply.json();
    assert_eq!((reply.status, document["openapi"].as_str()), (200, Some("3.1.1")));
    for path in ["/v1/budgetunit/GetUnit", "/v1/population/VerifyCitizen"] {
        let post = &document["paths"][path]["post"];
        let example = post["requestBody"]["content"]["application/json"]["example"].clone();
        let reply = system.send("POST", path, &[("content-type", "application/json")], example.to_string()).await;
        assert_eq!(reply.status, 200, "{path} {example}: {reply:?}");
        let name = post["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].as_str().unwrap();
        let schema = document.pointer(name.trim_start_matches('#')).unwrap();
        for (field, _) in reply.json().as_object().unwrap() {
            assert!(schema["properties"].get(field).is_some(), "{path}: {field}");
        }
    }
    assert!(document["paths"].get(UNIT).is_none());
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_path_leads_to_the_contract_that_the_connection_entry_has_chosen() {
    let (stage, raw, _) = super::source_fixtures::stage("criminalrecord", &[], "").await;
    let actor = criminal_records::chosen(&stage);
    raw.set(criminal_records::answer(&json!({ "status": 1, "errorCode": "", "errorDescription": null })));
    let system = system(&stage, &actor);
    let path = "/v1/criminalrecord/SubmitRequest";
    let json = [("content-type", "application/json")];
    let reply = system.send("POST", path, &json, criminal_records::submission().to_string()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(system.entry(&reply).operation, "ndxp.criminalrecord.v2.CriminalRecordService/SubmitRequest");
    let document = system.send("GET", DOCUMENT, &[], "").await.json();
    let described = &document["paths"][path]["post"]["operationId"];
    assert_eq!(described, "ndxp_criminalrecord_v2_CriminalRecordService_SubmitRequest");
}
