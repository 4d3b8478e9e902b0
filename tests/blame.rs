//! Blame: nothing that a caller does counts against a source, and nothing that one operation does counts against another.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use ndxp_gateway::drivers::http::connector;
use ndxp_gateway::frame::{FrameReader, frame};
use ndxp_gateway::http2::Http2Error;
use ndxp_gateway::http2::client::{Begun, Http2, grpc_head};
use ndxp_gateway::identity::tls;
use ndxp_gateway::sandbox::{Fault, FaultKind};
use prost::Message;
use serde_json::{Value, json};
use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::{Actor, ENTERPRISE, OFFICIAL_OF, PROGRESS, PURPOSE, Stage, Told, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;
use tonic::Code;
use tonic_types::{StatusExt, pb};

const STATUS: &str = "/ndxp.business.v1.BusinessService/VerifyEnterprise";

/// A call of an enterprise's record with a deadline of its own.
async fn hasty(actor: &Actor, path: &str, request: &Value, timeout: &str) -> Told {
    let message = actor.encode(path, request);
    let metadata = [("ndxp-purpose", PURPOSE), ("ndxp-official", "CB1"), ("grpc-timeout", timeout)];
    actor.raw(path, &metadata, vec![message]).await.unwrap()
}

fn enterprise(stage: &Stage) -> Value {
    json!({ "enterpriseCode": stage.sandbox.province.enterprises[0].code })
}

/// How a source's breaker stands: 0 closed, 1 half open, 2 open.
fn breaker(stage: &Stage, source: &str) -> u8 {
    let text = support::ops_text(stage, "/metrics");
    let name = format!("ndxp_breaker_state{{source=\"{source}\"}} ");
    let line = text.lines().find(|line| line.starts_with(&name)).unwrap();
    line[name.len()..].parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_callers_in_a_hurry_open_no_breaker_on_any_protocol() {
    let keys = "breaker_window = 4\nattempts = 1";
    let stage = Stage::guarded(&[("business", keys), ("officials", keys), ("population", keys)]);
    let actor = stage.system("one-stop-shop");
    let province = stage.sandbox.province.clone();
    let person = &province.people[0];
    let calls = [
        ("business", ENTERPRISE, enterprise(&stage)),
        ("officials", OFFICIAL_OF, json!({ "citizenId": province.people[province.officials[0].person].citizen_id })),
        (
            "population",
            support::VERIFY,
            json!({ "citizenId": person.citizen_id, "fullName": person.full_name(), "birthDate": { "year": person.birth.0 } }),
        ),
    ];
    for (source, path, request) in calls {
        // So that connections and tokens are there.
        actor.call(path, request.clone()).await.ok();
        stage.sandbox.faults.set(source, Fault { latency_ms: 120, ..Fault::default() });
        for number in 0..20 {
            let told = hasty(&actor, path, &request, "40m").await;
            assert_eq!(
                (told.code(), told.reason().as_str()),
                (Code::DeadlineExceeded, "CALLER_DEADLINE"),
                "{source} {number}"
            );
            assert_eq!(stage.entry(&told.exchange()).entry.reason, "CALLER_DEADLINE");
        }
        assert_eq!(breaker(&stage, source), 0, "{source}");
        actor.call(path, request).await.ok();
    }
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_a_source_that_lets_the_operation_s_own_time_pass_is_left_alone() {
    let stage = Stage::guarded(&[("officials", "breaker_window = 4\nattempts = 1\nbreaker_open_ms = 60000")]);
    let actor = stage.system("one-stop-shop");
    let official = &stage.sandbox.province.people[stage.sandbox.province.officials[0].person];
    let request = json!({ "citizenId": official.citizen_id });
    stage.sandbox.faults.set("officials", FaultKind::Hang);
    // One whose caller gives none, and one that gives as much as the contract.
    let own = || actor.call(OFFICIAL_OF, request.clone());
    let given = || hasty(&actor, OFFICIAL_OF, &request, "5S");
    let all = tokio::join!(own(), own(), given(), given());
    for told in [all.0, all.1, all.2, all.3] {
        assert_eq!(told.reason(), "SOURCE_TIMEOUT");
    }
    assert_eq!(breaker(&stage, "officials"), 2);
    assert_eq!(actor.call(OFFICIAL_OF, request).await.reason(), "SOURCE_CIRCUIT_OPEN");
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_a_source_that_never_answers_is_noticed_though_all_callers_are_in_a_hurry() {
    let stage = Stage::guarded(&[("officials", "breaker_window = 4\nattempts = 1\nbreaker_open_ms = 60000")]);
    let actor = stage.system("one-stop-shop");
    let official = &stage.sandbox.province.people[stage.sandbox.province.officials[0].person];
    let request = json!({ "citizenId": official.citizen_id });
    actor.call(OFFICIAL_OF, request.clone()).await.ok();
    stage.sandbox.faults.set("officials", FaultKind::Hang);
    let end = Instant::now() + Duration::from_secs(40);
    while breaker(&stage, "officials") == 0 {
        assert!(Instant::now() < end, "nobody noticed");
        let told = hasty(&actor, OFFICIAL_OF, &request, "50m").await;
        assert!(["CALLER_DEADLINE", "SOURCE_CIRCUIT_OPEN"].contains(&told.reason().as_str()), "{}", told.reason());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(actor.call(OFFICIAL_OF, request).await.reason(), "SOURCE_CIRCUIT_OPEN");
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_a_hurried_probe_goes_on_without_its_caller_and_closes_the_breaker() {
    let stage = Stage::guarded(&[("business", "breaker_window = 4\nattempts = 1\nbreaker_open_ms = 300")]);
    let actor = stage.system("one-stop-shop");
    let request = enterprise(&stage);
    stage.sandbox.faults.set("business", FaultKind::Close);
    for _ in 0..4 {
        assert_eq!(actor.call(ENTERPRISE, request.clone()).await.reason(), "SOURCE_UNAVAILABLE");
    }
    assert_eq!(breaker(&stage, "business"), 2);
    stage.sandbox.faults.set("business", Fault { latency_ms: 150, ..Fault::default() });
    tokio::time::sleep(Duration::from_millis(350)).await;
    // All that comes waits for less than the source takes.
    assert_eq!(hasty(&actor, ENTERPRISE, &request, "40m").await.reason(), "CALLER_DEADLINE");
    until("the probe has shown that it answers", Duration::from_secs(5), || breaker(&stage, "business") == 0);
    actor.call(ENTERPRISE, request).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_one_operation_that_always_fails_shuts_itself_and_no_other() {
    let stage = Stage::guarded(&[("business", "breaker_window = 4\nattempts = 1\nbreaker_open_ms = 60000")]);
    let actor = stage.system("one-stop-shop");
    let request = enterprise(&stage);
    let failing = Fault { kind: FaultKind::Status, status: Some(500), ..Fault::default() };
    stage.sandbox.faults.set("business", failing);
    for _ in 0..4 {
        assert_eq!(actor.call(ENTERPRISE, request.clone()).await.reason(), "SOURCE_UNAVAILABLE");
    }
    assert_eq!(actor.call(ENTERPRISE, request.clone()).await.reason(), "SOURCE_CIRCUIT_OPEN");
    stage.sandbox.faults.clear("business");
    assert_ne!(actor.call(STATUS, request).await.reason(), "SOURCE_CIRCUIT_OPEN");
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_a_source_that_cannot_be_reached_is_shut_for_all_operations() {
    let stage = Stage::guarded(&[("business", "breaker_window = 4\nattempts = 1\nbreaker_open_ms = 60000")]);
    let actor = stage.system("one-stop-shop");
    let request = enterprise(&stage);
    support::edit(&stage.folder.path.join("hubs/ndxp.toml"), |text| {
        let hub = text.split("https://").nth(1).unwrap().split('"').next().unwrap().to_owned();
        text.replace(&hub, "127.0.0.1:1")
    });
    stage.gateway.as_ref().unwrap().reload().unwrap();
    for _ in 0..4 {
        let told = actor.call(ENTERPRISE, request.clone()).await;
        assert_eq!(told.reason(), "SOURCE_UNAVAILABLE");
    }
    assert_eq!(actor.call(STATUS, request).await.reason(), "SOURCE_CIRCUIT_OPEN");
}

#[tokio::test(flavor = "multi_thread")]
async fn b2_a_write_whose_time_is_over_leaves_no_intent() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let all = ndxp_gateway::sandbox::samples::samples(&stage.sandbox.province);
    let progress = &all.iter().find(|one| one.operation.ends_with("/UpdateProgress")).unwrap().requests[0];
    let asked = stage.sandbox.faults.count("publicservice");
    for timeout in ["0m", "1n", "10u"] {
        let told = hasty(&actor, PROGRESS, progress, timeout).await;
        assert_eq!(told.reason(), "CALLER_DEADLINE", "{timeout}");
    }
    assert_eq!(stage.sandbox.faults.count("publicservice"), asked);
    let kinds = |stage: &Stage| {
        let written = stage.entries().into_iter().filter(|one| one.entry.operation.ends_with("/UpdateProgress"));
        written.map(|one| one.entry.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&stage), [1, 1, 1], "no intent");
    // One that has time has one.
    hasty(&actor, PROGRESS, progress, "10S").await;
    assert_eq!(kinds(&stage), [1, 1, 1, 2, 1]);
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn b2_a_write_that_runs_out_while_it_waits_for_a_permit_leaves_no_intent() {
    let stage = Stage::guarded(&[("publicservice", "concurrency = 1")]);
    let actor = stage.system("one-stop-shop");
    let all = ndxp_gateway::sandbox::samples::samples(&stage.sandbox.province);
    let progress = &all.iter().find(|one| one.operation.ends_with("/UpdateProgress")).unwrap().requests[0];
    stage.sandbox.faults.set("publicservice", FaultKind::Hang);
    let asked = stage.sandbox.faults.count("publicservice");
    let procedure = json!({ "procedureCode": "1.004222" });
    let holder = hasty(&actor, support::PROCEDURE, &procedure, "4S");
    let waits = async {
        while stage.sandbox.faults.count("publicservice") == asked {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        hasty(&actor, PROGRESS, progress, "300m").await
    };
    let (_, told) = tokio::join!(holder, waits);
    assert_eq!(told.reason(), "CALLER_DEADLINE");
    assert!(stage.entries().iter().all(|one| one.entry.kind != 2), "an intent was written");
    assert_eq!(stage.sandbox.faults.count("publicservice"), asked + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_callers_who_go_away_open_no_breaker_and_mark_no_endpoint() {
    let stage = Stage::guarded(&[("business", "breaker_window = 4\nattempts = 1")]);
    let actor = stage.system("one-stop-shop");
    let request = enterprise(&stage);
    actor.call(ENTERPRISE, request.clone()).await.ok();
    stage.sandbox.faults.set("business", Fault { latency_ms: 200, ..Fault::default() });
    for _ in 0..20 {
        let gone = tokio::time::timeout(Duration::from_millis(40), actor.call(ENTERPRISE, request.clone())).await;
        assert!(gone.is_err());
    }
    assert_eq!(breaker(&stage, "business"), 0);
    let metrics = support::ops_text(&stage, "/metrics");
    assert!(!metrics.contains("fault=\"source\"") && !metrics.contains("fault=\"hub\""), "{metrics}");
    actor.call(ENTERPRISE, request).await.ok();
}

const CONTRACT: &str = r#"syntax = "proto3";
package ndxp.bulk.v1;
import "ndxp/contract/v1/contract.proto";
service BulkService {
  option (ndxp.contract.v1.source) = { id: "bulk" name: "Bulk" name_vi: "Khối" owner: "test" };
  rpc Read(Ask) returns (Part) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (ndxp.contract.v1.operation) = { scope: "bulk:read" data_class: OPEN timeout_ms: 60000 grpc: {} };
  }
  rpc Write(Ask) returns (Part) {
    option (ndxp.contract.v1.operation) = { scope: "bulk:read" data_class: OPEN timeout_ms: 60000 grpc: {} };
  }
  rpc Push(stream Ask) returns (Part) {
    option (ndxp.contract.v1.operation) = { scope: "bulk:read" data_class: OPEN timeout_ms: 60000 grpc: {} };
  }
}
message Ask { uint32 parts = 1; }
message Part { bytes data = 1; }
"#;
const READ: &str = "/ndxp.bulk.v1.BulkService/Read";
const WRITE: &str = "/ndxp.bulk.v1.BulkService/Write";
const PUSH: &str = "/ndxp.bulk.v1.BulkService/Push";

/// What a gRPC source does with the calls that come.
#[derive(Debug, Clone, Default)]
enum Plan {
    #[default]
    Answers,
    /// `RST_STREAM` with this reason, so many times; then it answers.
    Resets(h2::Reason, u32),
    /// GOAWAY that leaves out all streams, at the first call of so many connections; then it answers.
    LeavesOut(u32),
    /// A status with this code and `google.rpc.Status`.
    Status(i32, Vec<u8>),
    /// A compressed message.
    Gzip,
    /// Says nothing; counts pings.
    Silent,
    /// Answers when the request has ended.
    Reads,
}

#[derive(Default)]
struct Source {
    plan: Mutex<Plan>,
    /// Calls and pings that came.
    calls: AtomicU32,
    pings: AtomicU32,
    encodings: Mutex<String>,
}

impl Source {
    fn plan(&self, plan: Plan) {
        *self.plan.lock().unwrap() = plan;
    }

    fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }

    /// HTTP/2 by hand: where a GOAWAY's last stream, or pings, matter.
    async fn by_hand(&self, mut stream: TlsStream<TcpStream>, leave_out: bool) {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        loop {
            let mut head = [0; 9];
            if stream.read_exact(&mut head).await.is_err() {
                return;
            }
            let mut body = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            stream.read_exact(&mut body).await.unwrap();
            match (head[3], head[4]) {
                (1, _) => {
                    self.calls.fetch_add(1, Ordering::Relaxed);
                    if leave_out {
                        let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                        stream.write_all(&goaway).await.unwrap();
                    }
                }
                (6, 0) => {
                    self.pings.fetch_add(1, Ordering::Relaxed);
                    stream.write_all(&[0, 0, 8, 6, 1, 0, 0, 0, 0]).await.unwrap();
                    stream.write_all(&body).await.unwrap();
                }
                _ => {}
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TlsStream<TcpStream>) {
        let by_hand = match &mut *self.plan.lock().unwrap() {
            Plan::LeavesOut(left) if *left > 0 => {
                *left -= 1;
                Some(true)
            }
            Plan::Silent => Some(false),
            _ => None,
        };
        if let Some(leave_out) = by_hand {
            return self.by_hand(stream, leave_out).await;
        }
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, respond))) = connection.accept().await {
            self.calls.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(self.clone().answer(request, respond));
        }
    }

    async fn answer(
        self: Arc<Self>,
        request: http::Request<h2::RecvStream>,
        mut respond: h2::server::SendResponse<Bytes>,
    ) {
        let encodings = request.headers().get("grpc-accept-encoding").map(|value| value.to_str().unwrap().to_owned());
        *self.encodings.lock().unwrap() = encodings.unwrap_or_default();
        let mut body = request.into_body();
        let (mut trailers, mut message, mut gzip) = (http::HeaderMap::new(), b"\x0a\x03abc".to_vec(), false);
        trailers.insert("grpc-status", "0".parse().unwrap());
        let plan = {
            let mut plan = self.plan.lock().unwrap();
            let now = plan.clone();
            if let Plan::Resets(_, left) = &mut *plan {
                *left = left.saturating_sub(1);
            }
            now
        };
        match plan {
            Plan::Resets(reason, left) if left > 0 => return respond.send_reset(reason),
            Plan::Status(code, details) => {
                trailers.insert("grpc-status", code.to_string().parse().unwrap());
                trailers.insert("grpc-message", "Nguyen Van A is on leave".parse().unwrap());
                trailers.insert("grpc-status-details-bin", STANDARD_NO_PAD.encode(details).parse().unwrap());
                message.clear();
            }
            Plan::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
                encoder.write_all(&message).unwrap();
                (message, gzip) = (encoder.finish().unwrap(), true);
            }
            Plan::Reads => {
                while let Some(Ok(data)) = body.data().await {
                    body.flow_control().release_capacity(data.len()).unwrap();
                }
            }
            _ => {}
        }
        let mut head = http::Response::new(());
        head.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        if gzip {
            head.headers_mut().insert("grpc-encoding", "gzip".parse().unwrap());
        }
        let mut out = respond.send_response(head, false).unwrap();
        if !message.is_empty() {
            let mut framed = frame(&message).to_vec();
            framed[0] = u8::from(gzip);
            out.send_data(framed.into(), false).unwrap();
        }
        out.send_trailers(trailers).unwrap();
    }
}

/// A stage with the source `bulk`, whose entry has these keys, too.
async fn with_source(keys: &str) -> (Stage, Arc<Source>, Actor) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stage = Stage::prepared(&|folder| {
        let path = &folder.path;
        std::fs::create_dir_all(path.join("contracts/ndxp/bulk/v1")).unwrap();
        std::fs::write(path.join("contracts/ndxp/bulk/v1/bulk.proto"), CONTRACT).unwrap();
        let entry = std::fs::read_to_string(path.join("sources/officials.toml")).unwrap();
        let before = entry.split('"').find(|part| part.starts_with("https://")).unwrap().to_owned();
        let entry = entry.replace(&before, &format!("https://{address}")).replace("\"officials\"", "\"bulk\"");
        std::fs::write(path.join("sources/bulk.toml"), format!("{entry}\n{keys}\n")).unwrap();
    });
    let pki = stage.folder.path.join("pki");
    let files = tls::TlsFiles {
        certificate: pki.join("sandbox.pem"),
        key: pki.join("sandbox.key"),
        client_ca: pki.join("ca.pem"),
        revocation: tls::Revocation::Unchecked,
        names: Vec::new(),
        allow_tls12: false,
    };
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls::server_config(&files).unwrap()));
    let source = Arc::new(Source::default());
    let served = source.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, source) = (acceptor.clone(), served.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    source.connection(stream).await;
                }
            });
        }
    });
    let actor = stage.system("one-stop-shop");
    (stage, source, actor)
}

#[tokio::test(flavor = "multi_thread")]
async fn b4_a_goaway_loses_no_call_that_the_source_left_out_writes_and_uploads_included() {
    let (stage, source, actor) = with_source("[guard]\nattempts = 1").await;
    for (path, messages) in [(READ, 1), (WRITE, 1), (PUSH, 3)] {
        source.plan(Plan::LeavesOut(1));
        let before = source.calls();
        let told = actor.raw(path, &[], vec![actor.encode(path, &json!({ "parts": 1 })); messages]).await.unwrap();
        assert_eq!(told.code(), Code::Ok, "{path}: {:?}", told.answered.status);
        assert_eq!(source.calls() - before, 2, "{path}");
        assert_eq!(stage.entry(&told.exchange()).entry.attempts, 0, "no attempt of the gateway's own");
        // The next one has a connection to leave, too.
        support::edit(&stage.folder.path.join("sources/bulk.toml"), |text| format!("{text}# {path}\n"));
        stage.gateway.as_ref().unwrap().reload().unwrap();
    }
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn b4_a_refused_stream_is_placed_again_and_one_that_may_have_been_processed_is_not() {
    let (_stage, source, actor) = with_source("[guard]\nattempts = 1").await;
    let write = || async { actor.call(WRITE, json!({ "parts": 1 })).await };
    source.plan(Plan::Resets(h2::Reason::REFUSED_STREAM, 1));
    assert_eq!((write().await.code(), source.calls()), (Code::Ok, 2));
    // Not for ever.
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
async fn b4_a_quiet_call_is_pinged_as_configured_and_not_sooner_than_grpc_allows_otherwise() {
    for (keys, pings) in [("", 0), ("[keepalive]\ntime_s = 10", 2)] {
        let (_stage, source, actor) = with_source(keys).await;
        source.plan(Plan::Silent);
        let told = hasty(&actor, READ, &json!({ "parts": 1 }), "23S").await;
        assert_eq!((told.reason().as_str(), source.calls()), ("CALLER_DEADLINE", 1));
        assert_eq!(source.pings.load(Ordering::Relaxed), pings, "{keys}");
    }
}

#[tokio::test]
async fn b4_pings_that_no_server_would_take_are_refused_at_load() {
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
async fn b5_a_source_s_code_is_kept_where_it_means_the_same() {
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
        // Each is an answer, however often it comes.
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
    // What says that the source is ill counts.
    source.plan(Plan::Status(14, said));
    for _ in 0..2 {
        assert_eq!(actor.call(WRITE, json!({ "parts": 1 })).await.reason(), "SOURCE_UNAVAILABLE");
    }
    assert_eq!(breaker(&stage, "bulk"), 2);
    let faults = support::ops_text(&stage, "/metrics");
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
async fn b1_an_upload_at_its_caller_s_pace_neither_probes_nor_is_slow() {
    let keys = "[guard]\nattempts = 1\nbreaker_window = 4\nbreaker_slow_ms = 100\nbreaker_open_ms = 400";
    let (stage, source, actor) = with_source(keys).await;
    source.plan(Plan::Reads);
    let message = frame(&actor.encode(PUSH, &json!({ "parts": 1 })));
    let files = support::files(&stage.folder, "one-stop-shop");
    let config = tls::client_config(&files.ca, Some((&files.certificate, &files.key)), &[]).unwrap();
    let http2 = Http2::new(&stage.base(), connector(config, false));
    let upload = || {
        let mut head = grpc_head(None);
        head.insert("authorization", format!("Bearer {}", actor.token).parse().unwrap());
        let (http2, path) = (&http2, PUSH.parse().unwrap());
        async move { http2.begin(&path, || Ok::<_, Http2Error>(head.clone())).await.unwrap() }
    };
    // Each takes three times as long as a call that is slow.
    for _ in 0..5 {
        let Begun { mut request, answer } = upload().await;
        for _ in 0..3 {
            request.part(message.clone()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        request.end().unwrap();
        let mut reader = FrameReader::new(answer.head().await.unwrap().into_body(), 1_000);
        while reader.next().await.unwrap().is_some() {}
        assert_eq!(reader.trailers().unwrap()["grpc-status"], "0");
    }
    assert_eq!(breaker(&stage, "bulk"), 0);
    // Its breaker opens, by reads; an upload that dawdles is not its probe.
    source.plan(Plan::Status(14, Vec::new()));
    for _ in 0..4 {
        actor.call(READ, json!({ "parts": 1 })).await;
    }
    assert_eq!(breaker(&stage, "bulk"), 2);
    source.plan(Plan::Reads);
    tokio::time::sleep(Duration::from_millis(450)).await;
    let Begun { mut request, answer: _answer } = upload().await;
    request.part(message.clone()).await.unwrap();
    until("it is at the source", Duration::from_secs(5), || source.calls() == 10);
    actor.call(READ, json!({ "parts": 1 })).await.ok();
    assert_eq!(breaker(&stage, "bulk"), 0);
}
