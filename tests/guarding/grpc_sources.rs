//! gRPC sources: what callers do on connections that they share, GOAWAY and refused streams, statuses.

use crate::support::grpc_source;

use crate::support::{Actor, LIMIT, Stage, Told, breaker, comes, hasty, until};
use futures_util::future::join_all;
use grpc_source::{BRIEF, BRIEF_WRITE, LIST, PUSH, Plan, READ, Source, WRITE, with_source, with_streams};
use ndxp_gateway::drivers::http::connector;
use ndxp_gateway::frame::{FrameReader, frame};
use ndxp_gateway::http2::Http2Error;
use ndxp_gateway::http2::client::{Http2, StartedCall, grpc_head};
use ndxp_gateway::identity::tls;
use prost::Message;
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tonic::Code;
use tonic_types::{StatusExt, pb};

#[tokio::test(flavor = "multi_thread")]
async fn b4_a_goaway_loses_no_unprocessed_call_writes_and_uploads_included() {
    let (stage, source, actor) = with_source("[guard]\nattempts = 1").await;
    for (path, messages) in [(READ, 1), (WRITE, 1), (PUSH, 3)] {
        source.plan(Plan::LeavesOut(1));
        let before = source.calls();
        let told = actor.raw(path, &[], vec![actor.encode(path, &json!({ "parts": 1 })); messages]).await.unwrap();
        assert_eq!(told.code(), Code::Ok, "{path}: {:?}", told.answered.status);
        assert_eq!(source.calls() - before, 2, "{path}");
        assert_eq!(stage.entry(&told.exchange()).entry.attempts, 0, "no attempt of the gateway's own");
        // The next one has a connection to close as well.
        crate::support::edit(&stage.folder.path.join("sources/bulk.toml"), |text| format!("{text}# {path}\n"));
        stage.gateway.as_ref().unwrap().reload().unwrap();
    }
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn b4_a_refused_stream_is_retried_and_a_possibly_processed_one_is_not() {
    let (_stage, source, actor) = with_source("[guard]\nattempts = 1").await;
    let write = || async { actor.call(WRITE, json!({ "parts": 1 })).await };
    source.plan(Plan::Resets(h2::Reason::REFUSED_STREAM, 1));
    assert_eq!((write().await.code(), source.calls()), (Code::Ok, 2));
    // Not indefinitely.
    source.plan(Plan::Resets(h2::Reason::REFUSED_STREAM, 100));
    assert_eq!((write().await.reason().as_str(), source.calls()), ("SOURCE_UNAVAILABLE", 5));
    for reason in [h2::Reason::INTERNAL_ERROR, h2::Reason::ENHANCE_YOUR_CALM, h2::Reason::CANCEL] {
        source.plan(Plan::Resets(reason, 1));
        let before = source.calls();
        assert_ne!(write().await.code(), Code::Ok, "{reason:?}");
        assert_eq!(source.calls() - before, 1, "{reason:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b4_an_idle_call_is_pinged_as_configured_and_by_default_not_sooner_than_grpc_allows() {
    let quiet = |keys: &'static str| async move {
        let (stage, source, actor) = with_source(keys).await;
        source.plan(Plan::Silent);
        let told = hasty(&actor, READ, &json!({ "parts": 1 }), "11S").await;
        assert_eq!((told.reason().as_str(), source.calls()), ("CALLER_DEADLINE", 1));
        drop(stage);
        source.pings.load(Ordering::Relaxed)
    };
    assert_eq!(tokio::join!(quiet(""), quiet("[keepalive]\ntime_s = 10")), (0, 1));
}

#[tokio::test]
async fn b4_a_ping_interval_that_servers_reject_is_refused_at_load() {
    let stage = Stage::start();
    for (keys, told) in
        [("time_s = 9", "from 10 to 7200"), ("timeout_s = 0", "from 1 to 300"), ("tme_s = 10", "time_s")]
    {
        let file = stage.folder.path.join("sources/officials.toml");
        let before = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{before}\n[keepalive]\n{keys}\n")).unwrap();
        let fault = stage.gateway.as_ref().unwrap().reload().unwrap_err().to_string();
        assert!(fault.contains(told), "{keys}: {fault}");
        std::fs::write(&file, before).unwrap();
    }
}

/// A `google.rpc.Status` with these details.
fn details(details: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let any = |(kind, value): &(&str, Vec<u8>)| prost_types::Any {
        type_url: format!("type.googleapis.com/google.rpc.{kind}"),
        value: value.clone(),
    };
    let details = details.iter().map(any).collect();
    pb::Status { code: 9, message: "Nguyen Van A".into(), details }.encode_to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_a_source_s_code_is_kept_if_its_meaning_is_the_same() {
    let (stage, source, actor) = with_source("[guard]\nattempts = 1\nbreaker_window = 4").await;
    let info = pb::ErrorInfo { reason: "ON_LEAVE".into(), domain: "officials.example".into(), ..Default::default() };
    let free = pb::DebugInfo { detail: "Nguyen Van A".into(), ..Default::default() };
    let retry = pb::RetryInfo { retry_delay: Some(prost_types::Duration { seconds: 7, nanos: 0 }) };
    let said = details(&[
        ("ErrorInfo", info.encode_to_vec()),
        ("RetryInfo", retry.encode_to_vec()),
        ("DebugInfo", free.encode_to_vec()),
    ]);
    let kept = [
        (3, Code::InvalidArgument, "SOURCE_REJECTED", "caller"),
        (5, Code::NotFound, "RECORD_NOT_FOUND", "caller"),
        (6, Code::AlreadyExists, "SOURCE_ALREADY_EXISTS", "caller"),
        (8, Code::ResourceExhausted, "SOURCE_EXHAUSTED", "source"),
        (9, Code::FailedPrecondition, "SOURCE_PRECONDITION_FAILED", "caller"),
        (10, Code::Aborted, "SOURCE_ABORTED", "caller"),
        (11, Code::OutOfRange, "SOURCE_OUT_OF_RANGE", "caller"),
        (7, Code::FailedPrecondition, "SOURCE_CREDENTIALS_REFUSED", "gateway"),
        (12, Code::Internal, "SOURCE_PROTOCOL_ERROR", "source"),
    ];
    for (sent, code, reason, fault) in kept {
        source.plan(Plan::Status(sent, said.clone()));
        // Each is a valid response, however often it occurs.
        for _ in 0..4 {
            let told = actor.call(WRITE, json!({ "parts": 1 })).await;
            assert_eq!((told.code(), told.reason().as_str()), (code, reason));
            let status = &told.answered.status;
            let info = status.get_details_error_info().unwrap();
            assert_eq!(
                (info.metadata["source_reason"].as_str(), info.metadata["fault"].as_str()),
                ("officials.example/ON_LEAVE", fault)
            );
            assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(Duration::from_secs(7)));
            assert!(!format!("{status:?}").contains("Nguyen"), "{status:?}");
            let entry = stage.entry(&told.exchange()).entry;
            assert_eq!((entry.source_reason.as_str(), entry.fault.as_str()), ("officials.example/ON_LEAVE", fault));
            assert_eq!(entry.source_dropped, ["message", "google.rpc.DebugInfo"]);
        }
    }
    assert_eq!(breaker(&stage, "bulk"), 0);
    // A status that reports a failing source counts.
    source.plan(Plan::Status(14, said));
    for _ in 0..2 {
        assert_eq!(actor.call(WRITE, json!({ "parts": 1 })).await.reason(), "WRITE_OUTCOME_UNKNOWN");
    }
    assert_eq!(breaker(&stage, "bulk"), 2);
    let faults = crate::support::ops_text(&stage, "/metrics");
    assert!(faults.contains("ndxp_exchange_faults_total{source=\"bulk\",fault=\"source\"} 10"), "{faults}");
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_a_compressed_answer_is_read() {
    let (_stage, source, actor) = with_source("").await;
    source.plan(Plan::Gzip);
    let told = actor.call(READ, json!({ "parts": 1 })).await.ok();
    assert_eq!(told.messages, [json!({ "data": "YWJj" })]);
    assert_eq!(*source.encodings.lock().unwrap(), "identity,gzip");
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_a_slow_upload_neither_probes_nor_counts_as_slow() {
    let keys = "[guard]\nattempts = 1\nbreaker_window = 4\nbreaker_slow_ms = 100\nbreaker_open_ms = 400";
    let (stage, source, actor) = with_source(keys).await;
    source.plan(Plan::Reads);
    let message = frame(&actor.encode(PUSH, &json!({ "parts": 1 })));
    let files = crate::support::files(&stage.folder, "one-stop-shop");
    let config = tls::client_config(&files.ca, Some((&files.certificate, &files.key)), &[]).unwrap();
    let http2 = Http2::new(&stage.base(), connector(config, false));
    let upload = || {
        let mut head = grpc_head(None);
        head.insert("authorization", format!("Bearer {}", actor.token).parse().unwrap());
        let (http2, path) = (&http2, PUSH.parse().unwrap());
        async move { http2.begin(&path, || Ok::<_, Http2Error>(head.clone())).await.unwrap() }
    };
    // Each takes three times as long as a slow call.
    for _ in 0..5 {
        let StartedCall { mut request, response: answer, .. } = upload().await;
        for _ in 0..3 {
            request.send_part(message.clone()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        request.end().unwrap();
        let mut reader = FrameReader::new(answer.head().await.unwrap().into_body(), 1_000);
        while reader.next().await.unwrap().is_some() {}
        assert_eq!(reader.trailers().unwrap()["grpc-status"], "0");
    }
    assert_eq!(breaker(&stage, "bulk"), 0);
    // Its breaker opens by reads; a slow upload is not its probe.
    source.plan(Plan::Status(14, Vec::new()));
    for _ in 0..4 {
        actor.call(READ, json!({ "parts": 1 })).await;
    }
    assert_eq!(breaker(&stage, "bulk"), 2);
    source.plan(Plan::Reads);
    tokio::time::sleep(Duration::from_millis(450)).await;
    let StartedCall { mut request, response: _response, .. } = upload().await;
    request.send_part(message.clone()).await.unwrap();
    until("it is at the source", || source.calls() == 10);
    // A read is; on a busy machine, one that is slow itself closes nothing.
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(Instant::now() < end, "the breaker stays open");
        let told = actor.call(READ, json!({ "parts": 1 })).await.reason();
        assert!(["", "SOURCE_CIRCUIT_OPEN"].contains(&told.as_str()), "{told}");
        if breaker(&stage, "bulk") == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(450)).await;
    }
}

/// Reads that many lists up to their first message, and no further.
async fn stalled_lists(actor: &Actor, count: usize) -> Vec<ndxp_gateway::caller::StreamingResponse> {
    let mut lists = Vec::new();
    for _ in 0..count {
        let mut list = actor.start(LIST, json!({ "parts": 1 })).await;
        list.next().await.unwrap().unwrap();
        lists.push(list);
    }
    lists
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_unread_lists_take_no_capacity_from_calls_and_other_lists() {
    // As many lists as the source accepts streams on a connection, more than a connection's window had room for.
    for max_streams in [None, Some(60)] {
        let (stage, source, crowd) =
            with_streams("[guard]\nbreaker_window = 4\nattempts = 1", max_streams, "workers = 1").await;
        let other = stage.system("other");
        let lists = stalled_lists(&crowd, 60).await;
        assert_eq!(source.under_way(), 60);
        let began = Instant::now();
        for _ in 0..20 {
            assert_eq!(hasty(&other, READ, &json!({ "parts": 1 }), "5S").await.code(), Code::Ok);
        }
        assert_eq!(hasty(&other, PUSH, &json!({ "parts": 1 }), "5S").await.code(), Code::Ok);
        let mut list = other.start(LIST, json!({ "parts": 1 })).await;
        for _ in 0..100 {
            list.next().await.unwrap().unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert_eq!(breaker(&stage, "bulk"), 0);
        drop((lists, list));
        until("the source is told that nobody reads", || source.under_way() == 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_a_source_that_accepts_few_streams_gets_more_connections_up_to_a_bound() {
    let (stage, source, actor) = with_streams("[guard]\nbreaker_window = 4", Some(2), "workers = 1").await;
    source.plan(Plan::After(Duration::from_millis(30)));
    join_all((0..64).map(|_| async {
        // On a busy machine the gateway may refuse some of them.
        while actor.call(READ, json!({ "parts": 1 })).await.reason() == "GATEWAY_OVERLOADED" {}
    }))
    .await;
    assert_eq!(source.calls(), 64, "each was answered");
    assert!(source.most_on_one.load(Ordering::Relaxed) <= 2);
    assert_eq!(source.connections.load(Ordering::Relaxed), 8, "a bound");
    let metrics = crate::support::ops_text(&stage, "/metrics");
    assert!(metrics.contains("ndxp_source_connections{source=\"bulk\"} 8\n"), "{metrics}");
    assert_eq!(breaker(&stage, "bulk"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_sequential_calls_share_one_connection() {
    let (_stage, source, actor) = with_streams("", Some(1), "workers = 1").await;
    for _ in 0..20 {
        actor.call(READ, json!({ "parts": 1 })).await.ok();
    }
    assert_eq!((source.calls(), source.connections.load(Ordering::Relaxed)), (20, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_a_call_that_was_never_sent_is_the_gateway_s_fault() {
    let keys = "[guard]\nbreaker_window = 9\nattempts = 1\nbreaker_open_ms = 60000";
    let (stage, source, actor) = with_streams(keys, Some(1), "workers = 1").await;
    source.plan(Plan::Hangs);
    let told = join_all((0..20).map(|_| actor.call(BRIEF, json!({ "parts": 1 })))).await;
    // Eight have their streams until the timeout; a call that gets one then has no time left for its response.
    let by = |fault: &str| told.iter().filter(|told| stage.entry(&told.exchange()).entry.fault == fault).count();
    let (source_s, gateway_s) = (by("source"), by("gateway"));
    assert!((1..=8).contains(&source_s) && source_s + gateway_s == 20, "{source_s} and {gateway_s}");
    let reasons = |told: &Told| ["SOURCE_TIMEOUT", "GATEWAY_OVERLOADED"].contains(&told.reason().as_str());
    assert!(told.iter().all(reasons));
    assert_eq!(breaker(&stage, "bulk"), 0, "eight at most have failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_resets_by_short_deadlines_end_no_other_call() {
    // As Netty counts them; our connections start no more calls before that.
    let (stage, source, actor) = with_streams("[guard]\nbreaker_window = 4\nattempts = 1", None, "workers = 1").await;
    source.plan(Plan::CountsResets(200, Duration::from_secs(4)));
    let patient = actor.call(READ, json!({ "parts": 1 }));
    let part = json!({ "parts": 1 });
    let hurried = async {
        until_at(&source, 1).await;
        while source.resets.load(Ordering::Relaxed) < 250 {
            join_all((0..25).map(|_| hasty(&actor, READ, &part, "40m"))).await;
        }
    };
    let (told, ()) = tokio::join!(patient, hurried);
    assert_eq!((told.code(), source.calmed.load(Ordering::Relaxed)), (Code::Ok, 0), "{:?}", told.answered.status);
    assert!(source.connections.load(Ordering::Relaxed) >= 3);
    assert_eq!(breaker(&stage, "bulk"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_a_connection_closed_for_resets_is_not_the_source_s_failure() {
    let (stage, source, actor) = with_streams("[guard]\nbreaker_window = 4\nattempts = 1", None, "workers = 1").await;
    source.plan(Plan::CountsResets(3, Duration::from_secs(20)));
    for round in 0..4 {
        let before = source.calls();
        let patient = actor.call(WRITE, json!({ "parts": 1 }));
        let part = json!({ "parts": 1 });
        let hurried = async {
            until_at(&source, before + 1).await;
            // One after another: on a busy machine some end before they are sent, and none is to be reset on the next connection.
            while source.calmed.load(Ordering::Relaxed) <= round {
                hasty(&actor, READ, &part, "40m").await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let both = async { tokio::join!(patient, hurried).0 };
        let told = tokio::time::timeout(LIMIT, both).await.expect("its connection is not closed");
        // It was in flight when its connection closed.
        assert_eq!(told.reason(), "WRITE_OUTCOME_UNKNOWN");
        assert_eq!(told.answered.status.get_details_error_info().unwrap().metadata["source_code"], "ENHANCE_YOUR_CALM");
    }
    assert_eq!((breaker(&stage, "bulk"), source.calmed.load(Ordering::Relaxed)), (0, 4));
}

/// Waits until that many calls have reached a source.
async fn until_at(source: &Source, calls: u32) {
    comes("calls at their source", || source.calls() >= calls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_an_end_by_the_caller_s_deadline_is_never_the_source_s_fault() {
    let (stage, source, actor) =
        with_source("[guard]\nbreaker_window = 4\nattempts = 1\nbreaker_open_ms = 60000").await;
    // Cancelled, or late, at any point of a call with a short deadline.
    for code in [1, 4] {
        source.plan(Plan::Status(code, Vec::new()));
        for _ in 0..4 {
            assert_eq!(hasty(&actor, READ, &json!({ "parts": 1 }), "2S").await.reason(), "CALLER_DEADLINE");
        }
        // A fifth one in a row would get the source's complete timeout, to find out whether it responds at all.
        source.plan(Plan::Answers);
        actor.call(READ, json!({ "parts": 1 })).await.ok();
    }
    assert_eq!(breaker(&stage, "bulk"), 0);
    // With a sufficient deadline, it is the source that cancels.
    source.plan(Plan::Status(1, Vec::new()));
    for _ in 0..2 {
        assert_eq!(actor.call(READ, json!({ "parts": 1 })).await.reason(), "SOURCE_PROTOCOL_ERROR");
    }
    assert_eq!(breaker(&stage, "bulk"), 2);
    // And an unavailable one is reported at once, whatever the deadline.
    source.plan(Plan::Status(14, Vec::new()));
    // The other operation failed: with this one it is the source.
    assert_eq!(hasty(&actor, WRITE, &json!({ "parts": 1 }), "2S").await.reason(), "WRITE_OUTCOME_UNKNOWN");
    assert_eq!(hasty(&actor, WRITE, &json!({ "parts": 1 }), "2S").await.reason(), "SOURCE_CIRCUIT_OPEN");
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_a_hanging_source_of_writes_is_detected_although_all_deadlines_are_short() {
    let keys = "[guard]\nattempts = 1\nbreaker_window = 4\nbreaker_open_ms = 60000";
    let (_stage, source, actor) = with_source(keys).await;
    source.plan(Plan::Hangs);
    let write = || async { hasty(&actor, BRIEF_WRITE, &json!({ "parts": 1 }), "30m").await.reason() };
    let end = Instant::now() + Duration::from_secs(30);
    let mut reason = write().await;
    while reason != "SOURCE_CIRCUIT_OPEN" {
        // On a busy machine, some calls time out before they are sent.
        assert!(matches!(reason.as_str(), "WRITE_OUTCOME_UNKNOWN" | "CALLER_DEADLINE"), "{reason}");
        assert!(Instant::now() < end, "nobody noticed");
        reason = write().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_a_client_that_saturates_a_source_leaves_others_their_share() {
    let (stage, source, crowd) =
        with_streams("[guard]\nconcurrency = 4\nmin_concurrency = 4\nqueue = 16", None, "").await;
    let other = stage.system("other");
    source.plan(Plan::After(Duration::from_millis(200)));
    let stop = tokio_util::sync::CancellationToken::new();
    // Alone, it may have all permits and the complete queue: it requests far more, repeatedly.
    let crowding = join_all((0..40).map(|_| async {
        let mut reasons = Vec::new();
        while !stop.is_cancelled() {
            let reason = crowd.call(READ, json!({ "parts": 1 })).await.reason();
            if !reason.is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            reasons.push(reason);
        }
        reasons
    }));
    // The other requests half of the permits, one call after another.
    let calm = async {
        until_at(&source, 12).await;
        let calls = || async {
            let mut reasons = Vec::new();
            for _ in 0..20 {
                reasons.push(other.call(READ, json!({ "parts": 1 })).await.reason());
            }
            reasons
        };
        let (one, two) = tokio::join!(calls(), calls());
        stop.cancel();
        [one, two].concat()
    };
    let (crowd, calm) = tokio::join!(crowding, calm);
    assert!(calm.iter().all(String::is_empty), "{calm:?}");
    let count = |reason: &str| crowd.iter().flatten().filter(|one| *one == reason).count();
    // It continues with the rest, and is told that it exceeds its share.
    // The other has half of the permits, and for each of its calls one of the flooding client's is served; in order of arrival
    // it would be eight.
    assert!(count("") <= 4 * calm.len(), "{} and {}", count(""), calm.len());
    assert!(count("") > 20 && count("RATE_LIMITED") > 0, "{} and {}", count(""), count("RATE_LIMITED"));
    let entries = stage.entries();
    let limited = entries.iter().find(|one| one.entry.reason == "RATE_LIMITED").unwrap();
    assert_eq!((limited.entry.client.as_str(), limited.entry.fault.as_str()), ("one-stop-shop", "caller"));
    assert!(crate::support::ops_text(&stage, "/metrics").contains("ndxp_source_queued{source=\"bulk\"} 0\n"));
}
