//! Long-lived streams: watched requests and long lists. They keep no call from their source, and a short failure there does not reach
//! their callers.

use crate::support::{Actor, Stage, comes, until};
use bytes::Bytes;
use ndxp_gateway::caller::{CompleteResponse, StreamingResponse};
use ndxp_gateway::sandbox::{Fault, FaultKind};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tonic_types::StatusExt;

const WATCH: &str = "/ndxp.criminalrecord.v1.CriminalRecordService/WatchRequest";
const STATUS: &str = "/ndxp.criminalrecord.v1.CriminalRecordService/GetRequestStatus";
const LIST: &str = "/ndxp.business.v1.BusinessService/ListRegistrations";
/// The dossier whose request stays as it is.
const STAYS: usize = 29;

/// Days whose registrations take four requests.
fn days() -> Value {
    let day = |day: u8| json!({ "year": 2026, "month": 11, "day": day });
    json!({ "fromDate": day(3), "toDate": day(7) })
}

/// Watches the request of a dossier: the stream behind its first message, or its refusal.
async fn watch(stage: &Stage, actor: &Actor, dossier: usize) -> Result<StreamingResponse, String> {
    let number = &stage.sandbox.province.dossiers[dossier].number;
    let mut answering = actor.start(WATCH, json!({ "dossierNumber": number })).await;
    if answering.next().await.unwrap().is_some() {
        return Ok(answering);
    }
    let (metadata, status) = answering.end();
    assert!(status.get_details_retry_info().is_some());
    Err(CompleteResponse { metadata, messages: vec![], status }.reason())
}

#[tokio::test(flavor = "multi_thread")]
async fn long_streams_block_no_call_and_are_bounded_per_client() {
    let stage = Stage::guarded(&[("criminalrecord", "concurrency = 1\nstreams = 6")]);
    let (one, other) = (stage.system("one-stop-shop"), stage.system("land-office"));
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(watch(&stage, &one, STAYS).await.unwrap());
    }
    assert_eq!(watch(&stage, &one, STAYS).await.err().unwrap(), "RATE_LIMITED");
    for _ in 0..3 {
        streams.push(watch(&stage, &other, STAYS).await.unwrap());
    }
    let third = stage.system("justice");
    assert_eq!(watch(&stage, &third, STAYS).await.err().unwrap(), "GATEWAY_OVERLOADED");
    let gauge = |count: usize| {
        crate::support::ops_text(&stage, "/metrics")
            .contains(&format!("ndxp_source_streams{{source=\"criminalrecord\"}} {count}\n"))
    };
    assert!(gauge(6));
    // They are looked at again twice a second meanwhile. (A source's requests are counted where it has a fault.)
    stage.sandbox.faults.set("criminalrecord", Fault { latency_ms: 1, ..Fault::default() });
    let looked = stage.sandbox.faults.count("criminalrecord");
    for _ in 0..10 {
        let number = &stage.sandbox.province.dossiers[STAYS].number;
        one.call(STATUS, json!({ "dossierNumber": number })).await.ok();
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    let asked = stage.sandbox.faults.count("criminalrecord") - looked;
    assert!(asked >= 10 + 6, "asked {asked} times");
    drop(streams);
    until("all have ended", || gauge(0));
    drop(watch(&stage, &one, STAYS).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_page_of_a_long_list_waits_for_a_permit() {
    let stage = Stage::guarded(&[("business", "concurrency = 1")]);
    let actor = stage.system("one-stop-shop");
    let latency = Duration::from_millis(100);
    stage.sandbox.faults.set("business", Fault { latency_ms: 100, ..Fault::default() });
    let from = stage.sandbox.faults.count("business");
    let began = Instant::now();
    let lists = (0..4).map(|_| actor.call(LIST, days()));
    for list in futures_util::future::join_all(lists).await {
        assert!(list.ok().messages.len() > 100);
    }
    let pages = u32::try_from(stage.sandbox.faults.count("business") - from).unwrap();
    assert!(pages >= 12 && began.elapsed() >= latency * pages, "{pages} pages took {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_survives_a_temporary_failure_of_its_source() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let mut watching = watch(&stage, &actor, 0).await.unwrap();
    stage.sandbox.faults.set("criminalrecord", FaultKind::Close);
    // Looks, and their retries, fail meanwhile.
    until("it was looked at", || stage.sandbox.faults.count("criminalrecord") >= 4);
    stage.sandbox.faults.clear("criminalrecord");
    let mut states = Vec::new();
    while let Some(state) = watching.next().await.unwrap() {
        states.push(actor.decode(WATCH, &state)["status"].clone());
    }
    assert_eq!(states, ["IN_PROGRESS", "CERTIFICATE_READY"]);
    assert_eq!(watching.end().1.code(), tonic::Code::Ok);
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_did_not_reach_its_source_is_retried() {
    let stage = Stage::guarded(&[("business", "retry_backoff_ms = 3000")]);
    let actor = stage.system("one-stop-shop");
    let slow = Fault { latency_ms: 400, ..Fault::default() };
    stage.sandbox.faults.set("business", slow);
    let before = stage.sandbox.faults.count("business");
    let whole = actor.call(LIST, days()).await.ok().messages;
    let from = stage.sandbox.faults.count("business");
    let pages = from - before;
    let trouble = async {
        // While the second page is under way: the third request is closed, and its retry is not.
        let requested = || stage.sandbox.faults.count("business") - from;
        comes("the second page is under way", || requested() >= 2).await;
        stage.sandbox.faults.set("business", FaultKind::Close);
        comes("the third request", || requested() >= 3).await;
        stage.sandbox.faults.set("business", slow);
    };
    let (list, ()) = tokio::join!(actor.call(LIST, days()), trouble);
    assert_eq!(list.ok().messages, whole);
    assert_eq!(stage.sandbox.faults.count("business") - from, pages + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_gateway_does_not_wait_for_idle_streams() {
    let mut stage = Stage::guarded(&[("business", "concurrency = 1")]);
    let actor = stage.system("one-stop-shop");
    // The source answers slowly: a list goes on meanwhile.
    stage.sandbox.faults.set("business", Fault { latency_ms: 600, ..Fault::default() });
    let watching = watch(&stage, &actor, STAYS).await.unwrap();
    let mut standing = actor.caller.start("/grpc.health.v1.Health/Watch", &[], vec![Bytes::new()], None).await.unwrap();
    standing.next().await.unwrap().unwrap();
    let list = actor.call(LIST, days());
    let ends = async {
        tokio::time::sleep(Duration::from_millis(900)).await;
        let gateway = stage.gateway.take().unwrap();
        let began = Instant::now();
        tokio::task::spawn_blocking(move || gateway.stop()).await.unwrap();
        began.elapsed()
    };
    let (list, took) = tokio::join!(list, ends);
    assert!(list.ok().messages.len() > 100);
    assert!(took < Duration::from_secs(15), "it took {took:?} to end");
    for (mut stream, logged) in [(watching, true), (standing, false)] {
        while stream.next().await.unwrap().is_some() {}
        let (metadata, status) = stream.end();
        assert_eq!((status.code(), metadata.contains_key("ndxp-log-index")), (tonic::Code::Unavailable, logged));
        assert_eq!(status.get_details_error_info().unwrap().reason, "GATEWAY_ENDING");
        assert!(status.get_details_retry_info().is_some());
    }
    assert!(stage.entries().iter().any(|one| one.entry.reason == "GATEWAY_ENDING"));
    stage.verify();
}
