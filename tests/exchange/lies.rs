//! The gateway's reaction to malformed and unusual responses of real sources (`docs/sandbox.md`): each kind is switched on by name.

use crate::support::{CITIZEN, ENTERPRISE, PARCEL, Stage, VERIFY, approved_grant};
use ndxp_gateway::sandbox::FaultKind;
use ndxp_gateway::sandbox::samples::{holds, samples};
use serde_json::Value;
use unicode_normalization::UnicodeNormalization;

const RECORD: &str = "/ndxp.civilstatus.v1.CivilStatusService/GetRecord";
const PERSON: &str = "/ndxp.insurance.v1.InsuranceService/GetHousehold";
const LIST: &str = "/ndxp.business.v1.BusinessService/ListRegistrations";

/// Each malformed response with the tested operations and the gateway's reason, or none if the response is still right.
const SAID: &[(FaultKind, &[(&str, &str)])] = &[
    (
        FaultKind::NotFoundPage,
        &[(ENTERPRISE, "SOURCE_PROTOCOL_ERROR"), (CITIZEN, "SOURCE_PROTOCOL_ERROR"), (PARCEL, "SOURCE_PROTOCOL_ERROR")],
    ),
    (
        FaultKind::EmptyBody,
        &[
            (ENTERPRISE, "SOURCE_PROTOCOL_ERROR"),
            (CITIZEN, "SOURCE_PROTOCOL_ERROR"),
            (PARCEL, "SOURCE_PROTOCOL_ERROR"),
            (PERSON, "SOURCE_PROTOCOL_ERROR"),
        ],
    ),
    (
        FaultKind::GatewayFault,
        &[(ENTERPRISE, "SOURCE_PROTOCOL_ERROR"), (PERSON, "SOURCE_PROTOCOL_ERROR"), (CITIZEN, "SOURCE_PROTOCOL_ERROR")],
    ),
    (FaultKind::OtherStatus, &[(ENTERPRISE, "SOURCE_PROTOCOL_ERROR"), (CITIZEN, "SOURCE_PROTOCOL_ERROR")]),
    (FaultKind::BusyUntil, &[(ENTERPRISE, "SOURCE_UNAVAILABLE")]),
    (FaultKind::ByteOrderMark, &[(ENTERPRISE, ""), (CITIZEN, "")]),
    (FaultKind::DuplicateNames, &[(ENTERPRISE, "SOURCE_PROTOCOL_ERROR")]),
    (
        FaultKind::OtherNames,
        &[
            (ENTERPRISE, "SOURCE_PROTOCOL_ERROR"),
            (CITIZEN, "SOURCE_PROTOCOL_ERROR"),
            (PERSON, "SOURCE_PROTOCOL_ERROR"),
            (LIST, "SOURCE_PROTOCOL_ERROR"),
        ],
    ),
    (FaultKind::NoVerdict, &[(VERIFY, "SOURCE_PROTOCOL_ERROR"), (ENTERPRISE, "SOURCE_PROTOCOL_ERROR")]),
    (FaultKind::UnknownCodes, &[(CITIZEN, "gender"), (PERSON, "gender")]),
    (FaultKind::Whitespace, &[(ENTERPRISE, ""), (VERIFY, ""), (PERSON, ""), (RECORD, "")]),
    (FaultKind::Decomposed, &[(ENTERPRISE, ""), (PERSON, "")]),
    (FaultKind::CutLists, &[(LIST, "")]),
    (FaultKind::ListsAsObjects, &[(ENTERPRISE, "")]),
    (FaultKind::Utf16, &[(CITIZEN, ""), (VERIFY, "")]),
    (
        FaultKind::Sentinels,
        &[
            (CITIZEN, "SOURCE_PROTOCOL_ERROR"),
            (ENTERPRISE, "SOURCE_PROTOCOL_ERROR"),
            (PERSON, "SOURCE_PROTOCOL_ERROR"),
            (PARCEL, "SOURCE_PROTOCOL_ERROR"),
            // Its dates may be left out.
            (RECORD, ""),
            // Without a date, nothing is changed.
            (VERIFY, ""),
        ],
    ),
    (FaultKind::UnrequestedGzip, &[(ENTERPRISE, ""), (CITIZEN, ""), (PARCEL, ""), (VERIFY, "")]),
    (FaultKind::LostZeros, &[(PERSON, ""), (RECORD, "")]),
    (FaultKind::AddedNames, &[(ENTERPRISE, ""), (CITIZEN, ""), (PARCEL, ""), (PERSON, ""), (LIST, "")]),
    (FaultKind::OtherTypes, &[(ENTERPRISE, "SOURCE_PROTOCOL_ERROR"), (PERSON, "SOURCE_PROTOCOL_ERROR")]),
    (
        FaultKind::SecondResponse,
        &[
            (ENTERPRISE, "SOURCE_PROTOCOL_ERROR"),
            (CITIZEN, "SOURCE_PROTOCOL_ERROR"),
            (VERIFY, "SOURCE_PROTOCOL_ERROR"),
            (PERSON, "SOURCE_PROTOCOL_ERROR"),
            (PARCEL, "SOURCE_PROTOCOL_ERROR"),
        ],
    ),
    (FaultKind::DanglingReference, &[(CITIZEN, "SOURCE_PROTOCOL_ERROR"), (VERIFY, "SOURCE_PROTOCOL_ERROR")]),
    (FaultKind::RepeatedPages, &[(LIST, "SOURCE_PROTOCOL_ERROR")]),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_malformed_response_has_its_documented_status() {
    let stage = Stage::start();
    stage.client("one-stop-shop");
    approved_grant(&stage, "one-stop-shop", &["*"]);
    let actor = stage.actor("one-stop-shop");
    let all = samples(&stage.sandbox.province);
    let sample = |path: &str| all.iter().find(|one| format!("/{}", one.operation) == path).unwrap();
    let mut wrong = Vec::new();
    for (kind, tried) in SAID {
        for (path, wanted) in *tried {
            let source = path.split('.').nth(1).unwrap();
            stage.sandbox.faults.set(source, *kind);
            let told = actor.call(path, sample(path).requests[0].clone()).await;
            stage.sandbox.faults.clear(source);
            let came = match told.messages.first() {
                _ if !told.reason().is_empty() => told.reason(),
                // An unknown code affects only its own field, and its text is kept.
                Some(message) if *wanted == "gender" => match (&message["gender"], &message["genderText"]) {
                    (Value::Null, Value::String(text)) if text == "97" => "gender".to_owned(),
                    other => format!("{other:?}"),
                },
                // Letters are returned unchanged; comparisons use one form.
                Some(message) if holds(&composed(message), &sample(path).expect) => {
                    // A list is complete, whatever its source's page size.
                    let whole = told.messages.len() >= sample(path).messages;
                    if whole { String::new() } else { format!("only {} messages", told.messages.len()) }
                }
                other => format!("{other:?}"),
            };
            if came != *wanted {
                wrong.push(format!("{kind:?} at {path}: {wanted:?} wanted, {came} came"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // A difference from the contract is counted by field, never by value.
    let metrics = crate::support::ops_text(&stage, "/metrics");
    let drift: Vec<&str> = metrics.lines().filter(|line| line.starts_with("ndxp_response_drift_total{")).collect();
    for operation in [CITIZEN, PERSON] {
        let named =
            format!("operation=\"{}\",field=\"gender\",kind=\"unknown_code\"}} 1", operation.trim_start_matches('/'));
        assert!(drift.iter().any(|line| line.ends_with(&named)), "{named}\n{}", drift.join("\n"));
    }
    assert!(drift.iter().all(|line| !line.contains("97")), "{}", drift.join("\n"));
    stage.verify();
}

fn composed(value: &Value) -> Value {
    serde_json::from_str(&value.to_string().nfc().collect::<String>()).unwrap()
}

/// An error of a hub's token endpoint is the hub's fault, never the source's, and never "no such record".
#[tokio::test(flavor = "multi_thread")]
async fn malformed_tokens_are_the_hub_s_fault() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let sample =
        samples(&stage.sandbox.province).into_iter().find(|one| one.operation.ends_with("GetEnterprise")).unwrap();
    for kind in [FaultKind::TokenError, FaultKind::NotFoundPage, FaultKind::EmptyBody] {
        stage.sandbox.faults.set("ndxp", FaultKind::CredentialsExpired);
        stage.sandbox.faults.set("ndxp", kind);
        let told = actor.call(ENTERPRISE, sample.requests[0].clone()).await;
        assert!(!["", "RECORD_NOT_FOUND"].contains(&told.reason().as_str()), "{kind:?}: {}", told.reason());
    }
    stage.sandbox.faults.set("ndxp", FaultKind::CredentialsExpired);
    stage.sandbox.faults.set("ndxp", FaultKind::TokenMalformed);
    assert_eq!(actor.call(ENTERPRISE, sample.requests[0].clone()).await.reason(), "", "read as careful clients do");
    // An error instead of a token is not cached as a token.
    stage.sandbox.faults.clear("ndxp");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !actor.call(ENTERPRISE, sample.requests[0].clone()).await.reason().is_empty() {
        assert!(std::time::Instant::now() < end, "the hub is well again, and its source is not reached");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

/// docs/sandbox.md names every kind, and every name on it exists.
#[test]
fn the_docs_name_every_fault() {
    let page = include_str!("../../docs/sandbox.md");
    let mut named: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")).filter_map(|rest| rest.split('`').next()).collect();
    let mut known = FaultKind::names();
    named.sort_unstable();
    known.sort_unstable();
    assert_eq!(named, known);
}
