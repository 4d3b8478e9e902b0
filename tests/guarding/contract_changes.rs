//! A contract that is changed while calls are in flight: they disclose nothing that the present contract withholds.

use crate::support::grpc_source::{LIST, Plan, READ, Source, with_source};
use crate::support::{Actor, Stage, comes, edit};
use ndxp_gateway::caller::{CompleteResponse, StreamingResponse};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const FIELD: &str = "bytes data = 1;";

/// Changes the contract of the source and reloads it.
fn change(stage: &Stage, from: &str, to: &str) {
    let before = std::fs::read_to_string(contract(stage)).unwrap();
    assert!(before.contains(from), "{before}");
    edit(&contract(stage), |text| text.replace(from, to));
    stage.gateway.as_ref().unwrap().reload().unwrap();
}

fn contract(stage: &Stage) -> std::path::PathBuf {
    stage.folder.path.join("contracts/ndxp/bulk/v1/bulk.proto")
}

/// A started list.
async fn list(actor: &Actor) -> StreamingResponse {
    let mut list = actor.start(LIST, json!({ "parts": 1 })).await;
    list.next().await.unwrap().unwrap();
    list
}

/// Continues reading; returns the reason of its end, or none after a hundred more messages.
async fn reads_on(mut list: StreamingResponse) -> Option<String> {
    for _ in 0..100 {
        let next = tokio::time::timeout(Duration::from_secs(20), list.next()).await.expect("it goes on or ends");
        if next.unwrap().is_none() {
            let (metadata, status) = list.end();
            return Some(CompleteResponse { metadata, messages: vec![], status }.reason());
        }
    }
    None
}

/// The reasons of an open stream and of a new one after this change.
async fn after(from: &str, to: &str) -> (Option<String>, Arc<Source>, Stage, Actor) {
    let (stage, source, actor) = with_source("").await;
    let begun = list(&actor).await;
    change(&stage, from, to);
    (reads_on(begun).await, source, stage, actor)
}

#[tokio::test(flavor = "multi_thread")]
async fn t6_a_stream_ends_if_its_contract_makes_a_field_sensitive() {
    let sensitive = "bytes data = 1 [(ndxp.contract.v1.field) = { data_class: SENSITIVE }];";
    let (ended, _source, stage, actor) = after(FIELD, sensitive).await;
    assert_eq!(ended.as_deref(), Some("CONTRACT_CHANGED"));
    let told = actor.call(READ, json!({ "parts": 1 })).await.ok();
    assert_eq!(told.messages, [json!({})], "nobody approved the grant");
    let ends = stage.entries().into_iter().filter(|one| one.entry.reason == "CONTRACT_CHANGED");
    assert_eq!(ends.map(|one| (one.entry.status, one.entry.fault)).collect::<Vec<_>>(), [(10, "gateway".to_owned())]);
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn t6_a_stream_ends_if_its_operation_or_a_field_is_removed_or_names_people() {
    let named = "string data = 1 [(ndxp.contract.v1.field) = { subject: true }];";
    for (from, to) in [(FIELD, "bytes other = 2;"), ("rpc List(", "rpc ListAll("), (FIELD, named)] {
        let (ended, ..) = after(from, to).await;
        assert_eq!(ended.as_deref(), Some("CONTRACT_CHANGED"), "{to}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t6_a_stream_continues_if_its_contract_withholds_nothing_more() {
    for (from, to) in [
        (FIELD, "bytes data = 1; /* as before */"),
        (FIELD, "bytes data = 1; bytes other = 2 [(ndxp.contract.v1.field) = { data_class: SENSITIVE }];"),
        ("rpc Read(", "rpc ReadAll("),
        ("bulk:read\" data_class: OPEN", "bulk:read\" data_class: SHARED"),
    ] {
        let (ended, ..) = after(from, to).await;
        assert_eq!(ended, None, "{to}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t6_a_call_in_flight_returns_nothing_that_the_current_contract_withholds() {
    let (stage, source, actor) = with_source("").await;
    source.plan(Plan::After(Duration::from_secs(5)));
    let changes = async {
        comes("it is at its source", || source.under_way() > 0).await;
        change(&stage, FIELD, "bytes data = 1 [(ndxp.contract.v1.field) = { data_class: SENSITIVE }];");
    };
    let (told, ()) = tokio::join!(actor.call(READ, json!({ "parts": 1 })), changes);
    assert_eq!((told.reason().as_str(), told.answered.messages.len()), ("CONTRACT_CHANGED", 0));
}
