//! The main job: every operation of every source, end to end, and the fields that a grant allows.

use crate::support::{Actor, CITIZEN, LIMIT, SECOND, Stage, VERIFY, approved_grant, cancelled_when, ops_text};
use ndxp_gateway::contract::options::DataClass;
use ndxp_gateway::exchange_log::Kind;
use ndxp_gateway::sandbox::samples::{holds, samples};
use serde_json::json;
use std::time::{Duration, Instant};
use tonic::Code;

fn citizen(stage: &Stage) -> serde_json::Value {
    samples(&stage.sandbox.province).into_iter().find(|one| one.operation.ends_with("GetCitizen")).unwrap().requests[0]
        .clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_of_every_source_returns_the_seeded_records_and_is_logged() {
    let stage = Stage::start();
    stage.client("one-stop-shop");
    approved_grant(&stage, "one-stop-shop", &["*"]);
    let actor = stage.actor("one-stop-shop");
    let all = samples(&stage.sandbox.province);
    for operation in stage.contracts.operations() {
        assert!(all.iter().any(|one| one.operation == operation.full_name), "{} has no sample", operation.full_name);
    }
    for sample in &all {
        let path = format!("/{}", sample.operation);
        let operation = stage.contracts.operation(&path).unwrap();
        let metadata = [("ndxp-purpose", sample.purpose.as_str()), ("ndxp-official", sample.official.as_str())];
        let requests: Vec<_> = sample.requests.iter().map(|one| actor.encode(&path, one)).collect();
        let told = actor.raw(&path, &metadata, requests).await.unwrap().ok();
        assert!(told.messages.len() >= sample.messages, "{path}: {} messages", told.messages.len());
        assert!(holds(&told.messages[0], &sample.expect), "{path}: {} lacks {}", told.messages[0], sample.expect);
        // The entry exists before the response: no wait here.
        let entry = stage.entry(&told.exchange()).entry;
        assert_eq!(
            (entry.kind(), entry.status, entry.operation.as_str()),
            (Kind::Exchange, 0, operation.full_name.as_str())
        );
        assert_eq!((entry.client.as_str(), entry.agency.as_str()), ("one-stop-shop", "H49.12"));
        assert_eq!(entry.purpose, sample.purpose);
        assert_eq!(entry.subjects.is_empty(), operation.subject.is_empty(), "{path}");
        assert_eq!(entry.response_messages as usize, told.messages.len());
        let intents = stage
            .entries()
            .iter()
            .filter(|one| one.entry.id_text() == told.exchange() && one.entry.kind() == Kind::Intent)
            .count();
        assert_eq!(intents, usize::from(operation.writes), "{path}");
        if operation.data_class >= DataClass::Personal {
            assert!(!entry.fields.is_empty() || told.messages[0] == json!({}), "{path} tells no fields");
        }
    }
    // The sandbox responds in the shapes that the contracts describe.
    let drift: Vec<_> = ops_text(&stage, "/metrics")
        .lines()
        .filter(|line| line.starts_with("ndxp_response_drift"))
        .map(str::to_owned)
        .collect();
    assert!(drift.is_empty(), "{}", drift.join("\n"));
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_granted_fields_are_returned_and_the_entry_names_them() {
    let stage = Stage::start();
    stage.client("clerk");
    stage.grant("clerk", &["population:read"], |grant| {
        grant.fields = vec!["citizen_id".into(), "name.given".into(), "household_head.name".into()];
    });
    let told = stage.actor("clerk").call(CITIZEN, citizen(&stage)).await.ok();
    let answer = told.messages[0].as_object().unwrap();
    assert_eq!(answer.keys().collect::<Vec<_>>(), ["citizenId", "name", "householdHead"]);
    assert!(answer["name"].as_object().unwrap().keys().all(|key| key == "given"), "{answer:?}");
    assert!(answer["householdHead"].as_object().unwrap().keys().all(|key| key == "name"), "{answer:?}");
    let fields = stage.entry(&told.exchange()).entry.fields;
    assert!(
        fields.iter().all(|field| {
            ["citizen_id", "name.given"].contains(&field.as_str()) || field.starts_with("household_head.name")
        }),
        "{fields:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withheld_field_is_cut_out_of_a_grpc_source_too() {
    let stage = Stage::start();
    stage.client("payroll");
    stage.grant("payroll", &["officials:read"], |grant| grant.fields = vec!["full_name".into()]);
    let official = &stage.sandbox.province.officials[0];
    let id = &stage.sandbox.province.people[official.person].citizen_id;
    let told = stage.actor("payroll").call(crate::support::OFFICIAL_OF, json!({ "citizenId": id })).await.ok();
    assert_eq!(told.messages[0].as_object().unwrap().keys().collect::<Vec<_>>(), ["fullName"]);
}

/// Waits until its calls end so; returns how long that took.
async fn ends_with(actor: &Actor, claim: &serde_json::Value, reason: &str) -> Duration {
    let began = Instant::now();
    while actor.call(VERIFY, claim.clone()).await.reason() != reason {
        assert!(began.elapsed() < LIMIT, "never {reason:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_grant_and_a_revoked_token_are_refused_within_a_second() {
    use ndxp_gateway::registry::{Page, Store};
    let stage = Stage::start();
    stage.client("clerk");
    let claim = citizen(&stage);
    let (mut withdrawn, mut revoked) = (Duration::MAX, Duration::MAX);
    // The fastest of three counts: a machine that stands still for a second says nothing about the gateway.
    for _ in 0..3 {
        let grant = stage.grant("clerk", &["population:verify"], |_| {});
        let actor = stage.actor("clerk");
        ends_with(&actor, &claim, "").await;
        let token = stage.store.tokens(Some("clerk"), Page::ALL).unwrap().into_iter().find(|one| !one.revoked);
        stage.store.revoke_token(&token.unwrap().id).unwrap();
        revoked = revoked.min(ends_with(&actor, &claim, "TOKEN_REVOKED").await);
        let actor = stage.actor("clerk");
        ends_with(&actor, &claim, "").await;
        stage.store.withdraw_grant(&grant).unwrap();
        withdrawn = withdrawn.min(ends_with(&actor, &claim, "SCOPE_NOT_GRANTED").await);
    }
    assert!(withdrawn < SECOND && revoked < SECOND, "{withdrawn:?}, {revoked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metadata_proves_request_and_response() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let request = actor.encode(CITIZEN, &citizen(&stage));
    let told = actor
        .raw(CITIZEN, &[("ndxp-purpose", "1.004222"), ("ndxp-official", "022080990129")], vec![request.clone()])
        .await
        .unwrap()
        .ok();
    let found = stage.entry(&told.exchange());
    assert_eq!(told.answered.text("ndxp-log-index"), found.index.to_string());
    let salt = |name: &str| -> [u8; 16] {
        let hex = told.answered.text(name);
        let bytes: Vec<u8> = (0..16).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect();
        bytes.try_into().unwrap()
    };
    use ndxp_gateway::exchange_log::pseudonym::commit;
    assert_eq!(found.entry.request_commitment, commit(&salt("ndxp-request-salt"), &request));
    assert_eq!(found.entry.response_commitment, commit(&salt("ndxp-response-salt"), &told.answered.messages[0]));
    // The name of earlier versions, for callers that still read it.
    assert_eq!(salt("ndxp-answer-salt"), salt("ndxp-response-salt"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_its_caller_cancels_is_logged_as_cancelled() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    stage.sandbox.faults.set("business", ndxp_gateway::sandbox::FaultKind::Hang);
    let code = stage.sandbox.province.enterprises[0].code.clone();
    let call = actor.call(crate::support::ENTERPRISE, json!({ "enterpriseCode": code }));
    cancelled_when(|| stage.sandbox.faults.count("business") > 0, call).await;
    crate::support::until("the cancelled exchange", || {
        let all = stage.entries();
        let mut cancelled = all.iter().map(|one| &one.entry).filter(|entry| entry.reason == "CANCELLED_BY_CALLER");
        cancelled.any(|entry| entry.source == "business" && entry.status == Code::Cancelled as u32)
    });
}
