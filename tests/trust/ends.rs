//! Every right expires on time: anything that runs on an open connection ends within a second of it.

use crate::support::ca::{Ca, crl, lay_cas};
use crate::support::{Actor, SECOND, STALL, Stage, UNIT, files};
use bytes::Bytes;
use ndxp_gateway::caller::{CallerFiles, GatewayClient, StreamingResponse};
use ndxp_gateway::exchange_log::Kind;
use ndxp_gateway::pki::{CertificateRole as PkiRole, DEFAULT_DAYS, client_uri};
use ndxp_gateway::registry::{Client, Grant, Store, now};
use ndxp_gateway::sandbox::{Fault, FaultKind};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic_types::StatusExt;

const WATCH: &str = "/ndxp.criminalrecord.v1.CriminalRecordService/WatchRequest";
const TAIL: &str = "/ndxp.audit.v1.AuditService/Tail";

/// A client with a certificate of this lifetime.
fn short_lived(stage: &Stage, id: &str, life: Duration) -> i64 {
    stage.folder.pki().issue_for(id, &PkiRole::Client(id.into()), life).unwrap();
    let names = vec![client_uri(id)];
    stage.store.add_client(&Client { id: id.into(), agency: "H49.12".into(), names, ..Client::default() }).unwrap();
    ndxp_gateway::pki::show(&files(&stage.folder, id).certificate).unwrap().not_after
}

/// A stream that would last an hour; its source hangs from now on.
async fn watching(stage: &Stage, actor: &Actor, number: usize) -> StreamingResponse {
    let number = stage.sandbox.province.dossiers[3 * number].number.clone();
    let mut answering = actor.start(WATCH, json!({ "dossierNumber": number })).await;
    assert!(answering.next().await.unwrap().is_some(), "the stream did not begin");
    stage.sandbox.faults.set("criminalrecord", FaultKind::Hang);
    answering
}

/// Asserts that this time (Unix milliseconds) is within a second after an end (Unix seconds), and not before it.
fn assert_prompt(what: &str, at: i64, end: i64) {
    let late = at - end * 1_000;
    let most = i64::try_from((SECOND + STALL).as_millis()).unwrap();
    assert!((0..most).contains(&late), "{what}: {late} ms after its end");
}

/// Waits for a stream's end, which must come within a second after this time (Unix seconds), not earlier; returns its reason.
async fn ends_at(what: &str, at: i64, mut stream: StreamingResponse) -> (String, String) {
    let ended = tokio::time::timeout(Duration::from_secs(30), async { while let Ok(Some(_)) = stream.next().await {} });
    ended.await.unwrap_or_else(|_| panic!("{what}: the stream goes on"));
    assert_prompt(what, jiff::Timestamp::now().as_millisecond(), at);
    let (metadata, status) = stream.end();
    let exchange = metadata.get("ndxp-exchange-id").map(|id| id.to_str().unwrap().to_owned()).unwrap_or_default();
    (status.get_details_error_info().map(|info| info.reason).unwrap_or_default(), exchange)
}

/// Waits until this second.
async fn wait_for(at: i64) {
    let left = at * 1_000 - jiff::Timestamp::now().as_millisecond();
    tokio::time::sleep(Duration::from_millis(left.max(0).unsigned_abs())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t6_a_stream_ends_with_its_grant_and_others_continue() {
    let stage = Stage::start();
    stage.client("short");
    let end = now() + 12;
    stage.grant("short", &["*"], |grant| grant.not_after = end);
    let (short, long) = (stage.actor("short"), stage.system("long"));
    let mut other = watching(&stage, &long, 1).await;
    stage.sandbox.faults.clear("criminalrecord");
    let stream = watching(&stage, &short, 0).await;
    let (reason, exchange) = ends_at("grant", end, stream).await;
    assert_eq!(reason, "SCOPE_NOT_GRANTED");
    assert_eq!(stage.entry(&exchange).entry.reason, reason);
    // Another client's, with a longer grant, continues, and its connection stays open.
    assert!(tokio::time::timeout(Duration::from_millis(500), other.next()).await.is_err(), "the other stream ended");
    assert_eq!(short.call(UNIT, json!({ "unitCode": "1057000" })).await.reason(), "SCOPE_NOT_GRANTED");
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn t6_a_stream_ends_with_the_trust_in_its_token_s_key() {
    let stage = Stage::start();
    let actor = stage.system("clerk");
    let stream = watching(&stage, &actor, 0).await;
    // A new key; the old one is trusted for some seconds more.
    let end = now() + 6;
    let old = stage.store.keys().unwrap().pop().unwrap();
    let fresh = ndxp_gateway::registry::SigningKey { kid: "another".into(), created: now(), ..old };
    stage.store.add_key(&fresh, end).unwrap();
    assert_eq!(ends_at("key", end, stream).await.0, "TOKEN_INVALID");
}

#[tokio::test(flavor = "multi_thread")]
async fn t6_a_call_in_flight_ends_with_its_grant_and_an_earlier_one_does_not() {
    let stage = Stage::start();
    stage.client("short");
    let end = now() + 8;
    stage.grant("short", &["*"], |grant| grant.not_after = end);
    let short = stage.actor("short");
    short.call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
    stage.sandbox.faults.set("budgetunit", Fault { latency_ms: 12_000, ..Default::default() });
    let told = short.call(UNIT, json!({ "unitCode": "1057000" })).await;
    let ended = jiff::Timestamp::now().as_millisecond();
    assert_eq!((told.reason().as_str(), told.messages.len()), ("SCOPE_NOT_GRANTED", 0));
    assert_prompt("a call", ended, end);
}

#[tokio::test(flavor = "multi_thread")]
async fn t6_a_certificate_s_expiry_closes_its_connections_and_ends_calls_in_flight() {
    let stage = Stage::start();
    let end = short_lived(&stage, "short", Duration::from_secs(12)) + 1;
    stage.grant("short", &["*"], |_| {});
    let short = stage.actor("short");
    let long = stage.system("long");
    let stream = watching(&stage, &short, 0).await;
    // A separate idle connection.
    let own = files(&stage.folder, "short");
    let quiet = tokio::net::TcpStream::connect(stage.gateway.as_ref().unwrap().address).await.unwrap();
    let mut quiet =
        crate::support::secured(quiet, &own.ca, Some((&own.certificate, &own.key)), &[b"h2"]).await.unwrap();
    quiet.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    // The same at the HTTPS port.
    let https = stage.gateway.as_ref().unwrap().https.unwrap();
    let web = tokio::net::TcpStream::connect(https).await.unwrap();
    let mut web =
        crate::support::secured(web, &own.ca, Some((&own.certificate, &own.key)), &[b"http/1.1"]).await.unwrap();
    web.write_all(b"GET /oauth2/jwks.json HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let closed = async {
        let mut heard = Vec::new();
        let _ = quiet.read_to_end(&mut heard).await;
        (heard, jiff::Timestamp::now().as_millisecond())
    };
    let web_closed = async {
        let mut heard = Vec::new();
        let _ = web.read_to_end(&mut heard).await;
        (heard, jiff::Timestamp::now().as_millisecond())
    };
    let both = async { tokio::join!(ends_at("certificate", end, stream), closed, web_closed) };
    let ((reason, exchange), (heard, ended), (answer, web_ended)) =
        tokio::time::timeout(Duration::from_secs(30), both).await.expect("a connection stays");
    assert_eq!(reason, "CERTIFICATE_REVOKED");
    assert_eq!(stage.entry(&exchange).entry.reason, reason);
    assert_prompt("a gRPC connection", ended, end);
    assert_prompt("an HTTPS connection", web_ended, end);
    // GOAWAY is frame type 7 on stream 0.
    assert!(heard.windows(6).any(|frame| frame[0] == 7 && frame[2..6] == [0; 4]), "no GOAWAY: {heard:?}");
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    // Each of its connections has an entry; another client's continues.
    crate::support::until("entries of the closed connections", || {
        let closed = |one: &&ndxp_gateway::exchange_log::reader::Found| {
            one.entry.kind() == Kind::Connection && one.entry.reason == "CERTIFICATE_REVOKED"
        };
        stage.entries().iter().filter(closed).count() == 3
    });
    long.call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
}

/// An idle connection until it is closed; returns the time (Unix milliseconds).
async fn until_closed(stage: &Stage, own: &CallerFiles, port: &str) -> impl Future<Output = i64> + use<> {
    let gateway = stage.gateway.as_ref().unwrap();
    let (address, alpn, begin): (_, &[u8], &[u8]) = match port {
        "grpc" => (gateway.address, b"h2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
        _ => (gateway.https.unwrap(), b"http/1.1", b"GET /oauth2/jwks.json HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    };
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut stream =
        crate::support::secured(stream, &own.ca, Some((&own.certificate, &own.key)), &[alpn]).await.unwrap();
    stream.write_all(begin).await.unwrap();
    // The gateway has sent data: the handshake is complete.
    assert!(stream.read(&mut [0; 1]).await.unwrap() > 0, "refused at {port}");
    async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
        jiff::Timestamp::now().as_millisecond()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t6_open_connections_end_with_a_ca_above_or_with_their_revocation_list() {
    let end = now() + 15;
    let at_end = std::time::UNIX_EPOCH + Duration::from_secs(end.unsigned_abs());
    // A CA is valid through its last second.
    let last = at_end - Duration::from_secs(1);
    let ending = Ca::root_with("ending", |params| params.not_after = last.into());
    let [listed, renewed, root] = ["listed", "renewed", "root"].map(Ca::root);
    let brief = root.below_with("brief", 40, |params| params.not_after = last.into());
    let below = root.below("below", 41);
    let short = |ca: &Ca| ca.list_with(1, &[], |params| params.next_update = at_end.into());
    let others = [ending.list(1, &[]), short(&listed), root.list(1, &[]), brief.list(1, &[]), short(&below)].concat();
    let stage = Stage::prepared(&|folder| {
        lay_cas(folder, &[&ending, &listed, &renewed, &root], &(others.clone() + &short(&renewed)));
    });
    let cases = [
        ("of-ending", &ending, "", "expired"),
        ("of-listed", &listed, "", "revocation_list_out_of_date"),
        ("of-brief", &brief, brief.pem.as_str(), "expired"),
        ("of-below", &below, below.pem.as_str(), "revocation_list_out_of_date"),
        ("of-renewed", &renewed, "", ""),
        ("of-root", &root, "", ""),
    ];
    let (mut closing, mut staying) = (Vec::new(), Vec::new());
    for (serial, (name, ca, above, cause)) in (1..).zip(cases) {
        let own = ca.client(&stage.folder, name, serial, above);
        for port in ["grpc", "https"] {
            let closed = Box::pin(until_closed(&stage, &own, port).await);
            if cause.is_empty() { staying.push((name, closed)) } else { closing.push((name, port, cause, closed)) }
        }
    }
    assert!(now() < end - 1, "too slow to begin");
    std::fs::write(crl(&stage.folder), others + &renewed.list(2, &[])).unwrap();
    let mut expected = Vec::new();
    for (name, port, cause, closed) in closing {
        let at = tokio::time::timeout(Duration::from_secs(25), closed).await.unwrap_or_else(|_| panic!("{name} stays"));
        assert_prompt(&format!("{name} at {port}"), at, end);
        expected.push((port.to_owned(), cause.to_owned()));
    }
    let staying = staying.into_iter().map(|(name, closed)| async move {
        assert!(tokio::time::timeout(Duration::from_millis(500), closed).await.is_err(), "{name} was closed");
    });
    futures_util::future::join_all(staying).await;
    expected.sort();
    let told = || {
        let entries = stage.entries().into_iter().map(|one| one.entry);
        let closed = entries.filter(|entry| entry.reason == "CERTIFICATE_REVOKED");
        let mut told: Vec<_> = closed.map(|entry| (entry.listener, entry.cause)).collect();
        told.sort();
        told
    };
    crate::support::until("an entry of each", || told() == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn t6_an_auditor_s_stream_ends_with_the_role_or_the_certificate() {
    let stage = Stage::start();
    let life = Duration::from_secs(12);
    stage.folder.pki().issue_for("hoa", &PkiRole::Staff("hoa".into()), life).unwrap();
    let end = ndxp_gateway::pki::show(&files(&stage.folder, "hoa").certificate).unwrap().not_after + 1;
    for id in ["lan", "minh"] {
        stage.folder.pki().issue(id, &PkiRole::Staff(id.into()), DEFAULT_DAYS).unwrap();
    }
    for id in ["lan", "minh", "hoa"] {
        crate::support::add_auditor(&stage.store, id);
    }
    stage.settle();
    let tail = |id: &str| {
        let caller = GatewayClient::new(&stage.base(), &files(&stage.folder, id)).unwrap();
        async move { caller.start(TAIL, &[], vec![Bytes::new()], None).await.unwrap() }
    };
    let (lan, hoa, mut minh) = (tail("lan").await, tail("hoa").await, tail("minh").await);
    tokio::time::sleep(Duration::from_millis(300)).await;
    stage.store.remove_staff("lan").unwrap();
    let removed = Instant::now();
    let mut lan = lan;
    let ended = tokio::time::timeout(Duration::from_secs(10), async { while let Ok(Some(_)) = lan.next().await {} });
    ended.await.expect("an auditor's stream outlives the role");
    assert!(removed.elapsed() < SECOND + STALL, "{:?}", removed.elapsed());
    assert_eq!(lan.end().1.get_details_error_info().unwrap().reason, "STAFF_UNKNOWN");
    assert_eq!(ends_at("an auditor's certificate", end, hoa).await.0, "CERTIFICATE_REVOKED");
    let goes_on = async { while let Ok(Some(_)) = minh.next().await {} };
    assert!(tokio::time::timeout(Duration::from_millis(500), goes_on).await.is_err(), "another's stream ended");
    let ended = |reason: &str| {
        stage.entries().iter().filter(|one| one.entry.event == "stream.end" && one.entry.reason == reason).count()
    };
    crate::support::until("entries of both", || ended("STAFF_UNKNOWN") == 1 && ended("CERTIFICATE_REVOKED") == 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn t6_a_right_that_began_later_does_not_end_earlier() {
    // A token and a grant with some seconds left serve until then, on the same connection.
    let stage = Stage::start();
    stage.client("short");
    let end = now() + 6;
    stage.grant("short", &["*"], |grant: &mut Grant| grant.not_after = end);
    let short = stage.actor("short");
    while now() < end - 3 {
        short.call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    wait_for(end).await;
    assert_eq!(short.call(UNIT, json!({ "unitCode": "1057000" })).await.reason(), "SCOPE_NOT_GRANTED");
}
