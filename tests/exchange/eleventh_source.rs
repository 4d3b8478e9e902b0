//! Adding a source takes a `.proto`, a connection entry and seed records: no Rust, no rebuild, no restart.

use crate::support::{Actor, Outside, Running, Stage, UNIT, show, until};
use ndxp_gateway::config::Config;
use ndxp_gateway::sandbox::folder::DevFolder;
use serde_json::json;
use std::time::Duration;

const TIDE: &str = "/ndxp.tide.v1.TideService/GetTide";
const WARNINGS: &str = "/ndxp.tide.v1.TideService/ListWarnings";

/// The three code blocks of docs/adding-a-source.md, taken from there.
fn from_the_docs() -> (String, String, String) {
    let text = include_str!("../../docs/adding-a-source.md");
    let block = |language: &str| {
        let (_, rest) = text.split_once(&format!("```{language}\n")).unwrap_or_else(|| panic!("no {language} block"));
        rest.split_once("```").unwrap().0.to_owned()
    };
    (block("proto"), block("toml"), block("json"))
}

fn records(folder: &DevFolder) {
    std::fs::write(folder.path.join("records/tide.json"), from_the_docs().2).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eleventh_source_is_added_while_the_gateway_runs() {
    let stage = Stage::prepared(&records);
    let actor = stage.system("port-authority");
    let (proto, entry, _) = from_the_docs();
    let contracts = stage.folder.path.join("contracts/ndxp/tide/v1");
    std::fs::create_dir_all(&contracts).unwrap();
    std::fs::write(contracts.join("tide.proto"), proto).unwrap();
    std::fs::write(stage.folder.path.join("sources/tide.toml"), entry).unwrap();

    let config = Config::load(&stage.folder.gateway_config()).map_err(show).unwrap();
    let contracts = config.catalogue().map_err(show).unwrap().contracts;
    assert_eq!(contracts.sources().len(), 11);
    crate::support::add_grant(&stage.store, &contracts, "port-authority", &["tide:read"], |_| {});
    let actor = Actor { contracts, ..actor };
    let token = stage.token("port-authority", Duration::from_secs(600), Duration::ZERO);
    let actor = Actor { token, ..actor };
    // Without a reload command: the gateway checks its files once a second.
    let mut told =
        actor.call(TIDE, json!({ "station": "HON-DAU", "day": { "year": 2026, "month": 11, "day": 25 } })).await;
    for _ in 0..50 {
        if told.reason() != "OPERATION_UNKNOWN" && told.reason() != "SCOPE_NOT_GRANTED" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        told = actor.call(TIDE, json!({ "station": "HON-DAU", "day": { "year": 2026, "month": 11, "day": 25 } })).await;
    }
    let told = told.ok();
    assert_eq!(
        told.messages[0],
        json!({ "station": "HON-DAU", "highM": 3.62, "lowM": 0.71, "highAt": "2026-11-25T09:40:00Z", "spring": true })
    );
    let entry = stage.entry(&told.exchange()).entry;
    assert_eq!((entry.source.as_str(), entry.hub.as_str()), ("tide", "ndop"));
    let warnings = actor.call(WARNINGS, json!({})).await.ok();
    assert_eq!(warnings.messages.len(), 2);
    let unknown =
        actor.call(TIDE, json!({ "station": "NOWHERE", "day": { "year": 2026, "month": 11, "day": 25 } })).await;
    assert_eq!(unknown.reason(), "RECORD_NOT_FOUND");
    let wrong = actor.call(TIDE, json!({ "station": "hòn dấu", "day": { "year": 2026, "month": 13, "day": 1 } })).await;
    assert_eq!(wrong.reason(), "FIELD_INVALID");
    // The ten others continue.
    actor.call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_contract_changes_nothing_and_is_reported_with_file_line_and_reason() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let wrong = "syntax = \"proto3\";\npackage x.v1;\nimport \"ndxp/contract/v1/contract.proto\";\nservice S {\n  \
                 option (ndxp.contract.v1.source) = { id: \"x\" };\n  rpc A(M) returns (M);\n}\nmessage M {}\n";
    std::fs::write(stage.folder.path.join("contracts/x.proto"), wrong).unwrap();
    let error = stage.gateway.as_ref().unwrap().reload().unwrap_err().to_string();
    assert!(error.contains("x.proto:6: x.v1.S.A: has no (ndxp.contract.v1.operation) option"), "{error}");
    actor.call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn soap_1_2_is_used_if_the_contract_requires_it() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let text = include_str!("../../proto/ndxp/population/v1/population.proto");
    // The same source under another name, in SOAP 1.2, at its direct endpoint with WS-Security.
    let text = text
        .replace("ndxp.population.v1", "ndxp.population12.v1")
        .replace("id: \"population\"", "id: \"population12\"")
        .replace("scope: \"population:", "scope: \"population12:")
        .replace("soap: {\n", "soap: {\n        version: SOAP_1_2\n");
    let folder = stage.folder.path.join("contracts/ndxp/population12/v1");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("population12.proto"), text).unwrap();
    let sandbox = std::fs::read_to_string(stage.folder.sandbox_config()).unwrap();
    let address = sandbox.split("[sources.population]").nth(1).unwrap().split('"').nth(1).unwrap().to_owned();
    let entry = |user: &str| {
        format!(
            "source = \"population12\"\naddress = \"https://{address}\"\npath = \"/dancu\"\n[tls]\nca = \"../pki/ca.pem\"\n\
             [credentials]\nkind = \"username-token\"\nusername = \"{user}\"\n\
             password = {{ file = \"../secrets/population\" }}\n[settings]\naccount = \"A\"\nphone = \"02033\"\n"
        )
    };
    let file = stage.folder.path.join("sources/population12.toml");
    std::fs::write(&file, entry("quangninh")).unwrap();
    stage.gateway.as_ref().unwrap().reload().unwrap();
    let config = Config::load(&stage.folder.gateway_config()).map_err(show).unwrap();
    let contracts = config.catalogue().map_err(show).unwrap().contracts;
    crate::support::add_grant(&stage.store, &contracts, "one-stop-shop", &["population12:verify"], |_| {});
    let token = stage.token("one-stop-shop", Duration::from_secs(600), Duration::ZERO);
    let actor = Actor { contracts, token, ..actor };
    stage.settle();
    let verify = "/ndxp.population12.v1.PopulationService/VerifyCitizen";
    let person = &stage.sandbox.province.people[0];
    let claim = json!({ "citizenId": person.citizen_id, "fullName": person.full_name(), "birthDate": { "year": person.birth.0 } });
    let told = actor.call(verify, claim.clone()).await.ok();
    assert_eq!(told.messages[0], json!({ "matched": true }));
    // A fault of SOAP 1.2, with its subcode.
    std::fs::write(&file, entry("nobody")).unwrap();
    stage.gateway.as_ref().unwrap().reload().unwrap();
    let end = std::time::Instant::now() + Duration::from_secs(3);
    let mut reason = actor.call(verify, claim.clone()).await.reason();
    while reason.is_empty() && std::time::Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(50)).await;
        reason = actor.call(verify, claim.clone()).await.reason();
    }
    assert_eq!(reason, "SOURCE_CREDENTIALS_REFUSED");
    until("the log is whole", || stage.verify() > 0);
}

/// Files change for years: a revocation list alone each hour.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_contract_is_gone_after_a_reload() {
    let outside = Outside::new();
    let gateway = Running::start(&outside.folder, &[]);
    let actor = outside.actor();
    let reload = async || {
        gateway.signal(rustix::process::Signal::HUP);
        tokio::time::sleep(Duration::from_millis(700)).await;
        actor.call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
        crate::support::memory(&gateway, "VmRSS")
    };
    for _ in 0..3 {
        reload().await;
    }
    let before = reload().await;
    for _ in 0..11 {
        reload().await;
    }
    let after = reload().await;
    assert!(after < before + 10_000, "memory grew from {before} to {after} kB");
}

/// Two versions of one source's wire format are two contracts; the connection entry selects one, and only that one is served.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_entry_chooses_between_two_versions_of_a_contract() {
    let stage = Stage::prepared(&records);
    let (proto, entry, _) = from_the_docs();
    // The second version has other names for everything.
    let second = proto
        .replace("ndxp.tide.v1", "ndxp.tide.v2")
        .replace("/tide/1.0/stations/", "/tide/2.0/stations/")
        .replace("response_root: \"data/tide\"", "response_root: \"ketQua\"");
    for (version, text) in [("v1", &proto), ("v2", &second)] {
        let folder = stage.folder.path.join(format!("contracts/ndxp/tide/{version}"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("tide.proto"), text).unwrap();
    }
    let file = stage.folder.path.join("sources/tide.toml");
    std::fs::write(
        stage.folder.path.join("records/tide.json"),
        r#"[
        { "path": "/tide/1.0/stations/X", "json": { "status": "OK", "data": { "tide": { "maTram": "one" } } } },
        { "path": "/tide/2.0/stations/X", "json": { "status": "OK", "ketQua": { "maTram": "two" } } }
    ]"#,
    )
    .unwrap();
    stage.client("port-authority");
    let path = |version: &str| format!("/ndxp.tide.{version}.TideService/GetTide");
    let request = json!({ "station": "X", "day": { "year": 2026, "month": 11, "day": 25 } });
    let config = Config::load(&stage.folder.gateway_config()).map_err(show).unwrap();
    let mut granted = false;
    for (line, chosen, other, station) in [("", "v1", "v2", "one"), ("contract = \"v2\"\n", "v2", "v1", "two")] {
        std::fs::write(&file, format!("{entry}{line}")).unwrap();
        stage.gateway.as_ref().unwrap().reload().unwrap();
        let contracts = config.catalogue().map_err(show).unwrap().contracts;
        assert_eq!(contracts.versions("tide"), ["v1", "v2"]);
        if !granted {
            crate::support::add_grant(&stage.store, &contracts, "port-authority", &["tide:read"], |_| {});
            granted = true;
        }
        let actor = Actor { contracts, ..stage.actor("port-authority") };
        stage.settle();
        let told = actor.call(&path(chosen), request.clone()).await.ok();
        assert_eq!(told.messages[0]["station"], station);
        let told = actor.call(&path(other), request.clone()).await;
        assert!(!told.reason().is_empty() && told.reason() != "RECORD_NOT_FOUND", "{other} is not served");
    }
    std::fs::write(&file, format!("{entry}contract = \"v3\"\n")).unwrap();
    let error = stage.gateway.as_ref().unwrap().reload().unwrap_err().to_string();
    assert!(error.contains("there is no contract \"v3\" of it: v1, v2"), "{error}");
}
