//! What the gateway says of answers that are odd in the ways of real sources (`docs/sandbox.md`): each kind is switched on by name.

use crate::support::{CITIZEN, ENTERPRISE, PARCEL, Stage, VERIFY, approved_grant};
use ndxp_gateway::sandbox::FaultKind;
use ndxp_gateway::sandbox::samples::{holds, samples};
use serde_json::Value;
use unicode_normalization::UnicodeNormalization;

const RECORD: &str = "/ndxp.civilstatus.v1.CivilStatusService/GetRecord";
const PERSON: &str = "/ndxp.insurance.v1.InsuranceService/GetHousehold";
const LIST: &str = "/ndxp.business.v1.BusinessService/ListRegistrations";

/// Each lie with the operations that were tried, and what the gateway says of it: a reason, or nothing where the answer is as it
/// should be.
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
async fn each_lie_is_met_as_the_docs_say() {
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
                // A code that no list has costs its own field alone, and its text is kept.
                Some(message) if *wanted == "gender" => match (&message["gender"], &message["genderText"]) {
                    (Value::Null, Value::String(text)) if text == "97" => "gender".to_owned(),
                    other => format!("{other:?}"),
                },
                // Letters come as they are; who compares them does so in one form.
                Some(message) if holds(&composed(message), &sample(path).expect) => {
                    // A list is whole, however its source cuts the pages.
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
    // What is not as a contract says is counted by field, never by what stood there.
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

/// What a hub's token endpoint says is the hub's, never the source's, and never "no such record".
#[tokio::test(flavor = "multi_thread")]
async fn lies_of_a_token_endpoint_are_the_hubs() {
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
    // What was said in place of a token is not kept as one.
    stage.sandbox.faults.clear("ndxp");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !actor.call(ENTERPRISE, sample.requests[0].clone()).await.reason().is_empty() {
        assert!(std::time::Instant::now() < end, "the hub is well again, and its source is not reached");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

/// The page for developers of provinces names every kind, and every name on it is one.
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
