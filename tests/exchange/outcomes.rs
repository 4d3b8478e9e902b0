//! A write that was sent and got no clear response may have been done: its caller learns that, and never that it may be repeated. A
//! write that was certainly not done may be repeated.

use crate::support::{Stage, Told, approved_grant, cancelled_when, edit, hasty, until};
use ndxp_gateway::exchange_log::Kind;
use ndxp_gateway::sandbox::samples::{Sample, samples};
use ndxp_gateway::sandbox::{Fault, FaultKind};
use serde_json::json;
use tonic::Code;
use tonic_types::StatusExt;

const SOURCE: &str = "publicservice";
const SYNC: &str = "/ndxp.publicservice.v1.PublicServiceService/SyncDossiers";
const DOSSIER: &str = "/ndxp.publicservice.v1.PublicServiceService/GetDossier";

fn stage(prepare: &dyn Fn(&ndxp_gateway::sandbox::folder::DevFolder)) -> Stage {
    let stage = Stage::prepared(&|folder| {
        for source in std::fs::read_dir(folder.path.join("sources")).unwrap() {
            edit(&source.unwrap().path(), |text| format!("{text}\n[guard]\nbreaker_window = 10000\n"));
        }
        prepare(folder);
    });
    stage.client("one-stop-shop");
    approved_grant(&stage, "one-stop-shop", &["*"]);
    stage
}

fn sample(stage: &Stage, path: &str) -> Sample {
    let all = samples(&stage.sandbox.province);
    all.into_iter().find(|one| path == format!("/{}", one.operation)).unwrap()
}

async fn call(stage: &Stage, sample: &Sample) -> Told {
    let (actor, path) = (stage.actor("one-stop-shop"), format!("/{}", sample.operation));
    let metadata = [("ndxp-purpose", sample.purpose.as_str()), ("ndxp-official", sample.official.as_str())];
    let requests = sample.requests.iter().map(|one| actor.encode(&path, one)).collect();
    actor.raw(&path, &metadata, requests).await.unwrap()
}

/// Asserts that the outcome is reported as unknown, to the caller and in the log; returns the cause.
#[track_caller]
fn unknown(stage: &Stage, told: &Told) -> String {
    let details = told.answered.status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!(
        (info.reason.as_str(), told.code()),
        ("WRITE_OUTCOME_UNKNOWN", Code::Unknown),
        "{:?}",
        told.answered.status
    );
    assert_eq!((info.metadata["outcome"].as_str(), &info.metadata["exchange_id"]), ("unknown", &told.exchange()));
    assert!(details.retry_info().is_none(), "a time to repeat it is told");
    let entry = stage.entry(&told.exchange()).entry;
    assert_eq!((entry.reason.as_str(), entry.status), ("WRITE_OUTCOME_UNKNOWN", Code::Unknown as u32));
    assert_eq!(entry.cause, info.metadata["cause"]);
    entry.cause
}

#[tokio::test(flavor = "multi_thread")]
async fn l10_a_write_with_an_unknown_outcome_is_reported_and_a_read_is_not() {
    let stage = stage(&|_| {});
    let (write, read) = (sample(&stage, SYNC), sample(&stage, DOSSIER));
    // With a cached token, so that the write itself fails.
    call(&stage, &write).await.ok();
    let status = |status| Fault { kind: FaultKind::Status, status: Some(status), ..Fault::default() };
    let ways = [
        (status(500), "SOURCE_UNAVAILABLE"),
        (status(502), "SOURCE_UNAVAILABLE"),
        (status(503), "SOURCE_UNAVAILABLE"),
        (status(504), "SOURCE_TIMEOUT"),
        (FaultKind::Close.into(), "SOURCE_UNAVAILABLE"),
        (FaultKind::ResetBody.into(), "SOURCE_UNAVAILABLE"),
        (FaultKind::Garbage.into(), "SOURCE_PROTOCOL_ERROR"),
    ];
    for (fault, cause) in ways {
        stage.sandbox.faults.set(SOURCE, fault);
        let told = call(&stage, &write).await;
        assert_eq!(unknown(&stage, &told), cause, "{fault:?}");
        let told = call(&stage, &read).await;
        assert_eq!(told.reason(), cause, "{fault:?}: a read changes nothing");
    }
    // A request that the source did not accept was not done.
    for (code, reason) in [(400, "SOURCE_REJECTED"), (404, "SOURCE_PROTOCOL_ERROR"), (429, "SOURCE_UNAVAILABLE")] {
        stage.sandbox.faults.set(SOURCE, status(code));
        assert_eq!(call(&stage, &write).await.reason(), reason, "{code}");
    }
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn l10_every_protocol_knows_whether_a_request_was_sent() {
    let stage = stage(&|_| {});
    let writes: Vec<Sample> = samples(&stage.sandbox.province)
        .into_iter()
        .filter(|one| stage.contracts.operation(&format!("/{}", one.operation)).unwrap().writes)
        .collect();
    assert!(writes.len() > 2, "{}", writes.len());
    for write in writes {
        let operation = stage.contracts.operation(&format!("/{}", write.operation)).unwrap();
        call(&stage, &write).await.ok();
        stage.sandbox.faults.set(&operation.source.id, FaultKind::Close);
        let told = call(&stage, &write).await;
        assert_eq!(told.reason(), "WRITE_OUTCOME_UNKNOWN", "{}: {:?}", write.operation, told.answered.status);
        stage.sandbox.faults.clear(&operation.source.id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn l10_a_caller_that_stops_waiting_leaves_a_write_open() {
    let stage = stage(&|_| {});
    let write = sample(&stage, SYNC);
    call(&stage, &write).await.ok();
    stage.sandbox.faults.set(SOURCE, FaultKind::Hang);
    let actor = stage.actor("one-stop-shop");
    let told = hasty(&actor, SYNC, &write.requests[0], "3S").await;
    assert_eq!(unknown(&stage, &told), "CALLER_DEADLINE");
    // And one that cancels, as soon as its request is at the source.
    let (asked, sent) = (stage.entries().len(), stage.sandbox.faults.count(SOURCE));
    cancelled_when(|| stage.sandbox.faults.count(SOURCE) > sent, call(&stage, &write)).await;
    let ended = || {
        let all = stage.entries();
        all.iter().skip(asked).map(|one| one.entry.clone()).find(|entry| entry.kind() == Kind::Exchange)
    };
    until("its end is in the log", || ended().is_some());
    let entry = ended().unwrap();
    assert_eq!((entry.reason.as_str(), entry.cause.as_str()), ("WRITE_OUTCOME_UNKNOWN", "CANCELLED_BY_CALLER"));
    let told = hasty(&actor, DOSSIER, &json!({ "dossierNumber": "H49.12-261125-7001" }), "300m").await;
    assert_eq!(told.reason(), "CALLER_DEADLINE");
}

#[tokio::test(flavor = "multi_thread")]
async fn l10_a_write_that_was_never_sent_can_be_retried() {
    // Nothing listens there.
    let stage = stage(&|folder| {
        edit(&folder.path.join("sources/publicservice.toml"), |text| {
            let line = text.lines().find(|line| line.trim_start().starts_with("address")).unwrap().to_owned();
            text.replace(&line, "address = \"https://127.0.0.1:1\"")
        });
    });
    let told = call(&stage, &sample(&stage, SYNC)).await;
    assert_eq!((told.code(), told.reason().as_str()), (Code::Unavailable, "SOURCE_UNAVAILABLE"));
    assert_eq!(stage.entry(&told.exchange()).entry.cause, "");
}
