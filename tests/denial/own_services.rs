//! The gateway's own services at its port (health, reflection, administration, audit): who may not call is refused by the head
//! alone, messages and calls are bounded, and none of them takes what others need.

use crate::support::{Stage, files};
use bytes::Bytes;
use futures_util::future::join_all;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use ndxp_gateway::pki::{CertificateRole as PkiRole, DEFAULT_DAYS};
use std::time::{Duration, Instant};
use tonic::Status;
use tonic_types::StatusExt;

const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const ADD_CLIENT: &str = "/ndxp.admin.v1.AdminService/AddClient";
const SEARCH: &str = "/ndxp.audit.v1.AuditService/Search";
const REFLECT: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// A connection with somebody's certificate.
async fn connect(stage: &Stage, id: &str) -> SendRequest<Bytes> {
    let own = files(&stage.folder, id);
    let stream = tokio::net::TcpStream::connect(stage.gateway.as_ref().unwrap().address).await.unwrap();
    let stream = crate::support::secured(stream, &own.ca, Some((&own.certificate, &own.key)), &[b"h2"]).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    send.ready().await.unwrap()
}

/// The headers of a call, without its message yet.
async fn begin(send: &mut SendRequest<Bytes>, path: &str) -> (ResponseFuture, SendStream<Bytes>) {
    let request = http::Request::post(format!("https://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    *send = send.clone().ready().await.unwrap();
    send.send_request(request.body(()).unwrap(), false).unwrap()
}

fn framed(message: &[u8]) -> Bytes {
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    bytes.extend(message);
    bytes.into()
}

/// The status in a headers-only response; OK if there is none.
fn status(answer: &http::Response<RecvStream>) -> Status {
    Status::from_header_map(answer.headers()).unwrap_or_else(|| Status::ok(""))
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(5), future).await.unwrap_or_else(|_| panic!("{what} does not come"))
}

/// The reason of a call whose message never arrives.
async fn head_alone(stage: &Stage, id: &str, path: &str) -> String {
    let mut send = connect(stage, id).await;
    let (answer, _body) = begin(&mut send, path).await;
    reason(&status(&soon(path, answer).await.unwrap()))
}

/// Whether a complete call with this message is accepted; otherwise its reason.
async fn whole(send: &mut SendRequest<Bytes>, path: &str, message: Bytes) -> Status {
    let (answer, mut body) = begin(send, path).await;
    let _ = body.send_data(message, true);
    status(&soon(path, answer).await.unwrap())
}

fn staged() -> Stage {
    let stage = Stage::start();
    stage.client("shop");
    stage.client("other");
    for id in ["lan", "hoa"] {
        stage.folder.pki().issue(id, &PkiRole::Staff(id.into()), DEFAULT_DAYS).unwrap();
        crate::support::add_auditor(&stage.store, id);
    }
    let first = "first-administrator";
    stage.folder.pki().issue(first, &PkiRole::Staff(first.into()), DEFAULT_DAYS).unwrap();
    stage.folder.pki().issue("stranger", &PkiRole::Client("stranger".into()), DEFAULT_DAYS).unwrap();
    stage.settle();
    stage
}

fn metric(stage: &Stage, line: &str) -> u64 {
    let text = crate::support::ops_text(stage, "/metrics");
    let found = text.lines().find_map(|one| one.strip_prefix(line)).map(|value| value.trim().parse().unwrap());
    found.unwrap_or_else(|| panic!("no {line} in {text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_a_caller_without_the_right_is_refused_by_the_headers_and_others_are_awaited() {
    let stage = staged();
    for (id, path, expected) in [
        ("shop", ADD_CLIENT, "STAFF_UNKNOWN"),
        ("stranger", ADD_CLIENT, "STAFF_UNKNOWN"),
        ("lan", ADD_CLIENT, "ROLE_MISSING"),
        ("shop", SEARCH, "STAFF_UNKNOWN"),
        ("first-administrator", SEARCH, "ROLE_MISSING"),
        ("stranger", "/ndxp.audit.v1.AuditService/GetReceipt", "STAFF_UNKNOWN"),
        ("stranger", REFLECT, "CLIENT_UNKNOWN"),
        ("first-administrator", "/ndxp.admin.v1.AdminService/Nothing", "OPERATION_UNKNOWN"),
    ] {
        assert_eq!(head_alone(&stage, id, path).await, expected, "{id} {path}");
    }
    let entries = stage.entries();
    let refused = |event: &str| entries.iter().filter(|one| one.entry.event == event && one.entry.status != 0).count();
    assert_eq!((refused("client.add"), refused("audit.search"), refused("audit.receipt")), (3, 2, 1));
    // An authorised call is awaited, however long its message takes.
    for (id, path) in [
        ("first-administrator", "/ndxp.admin.v1.AdminService/ListClients"),
        ("lan", "/ndxp.admin.v1.AdminService/ListClients"),
        ("lan", SEARCH),
        ("stranger", CHECK),
    ] {
        let mut send = connect(&stage, id).await;
        let (mut answer, mut body) = begin(&mut send, path).await;
        assert!(tokio::time::timeout(Duration::from_millis(200), &mut answer).await.is_err(), "{id} {path}");
        body.send_data(framed(b""), true).unwrap();
        let answer = soon(path, answer).await.unwrap();
        assert_eq!(status(&answer).code(), tonic::Code::Ok, "{id} {path}: {:?}", status(&answer));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_messages_of_own_services_are_bounded_by_their_need() {
    let stage = staged();
    // A service's name, and a frame with a length above the limit.
    let named = |length: usize| {
        let mut message = vec![0x0a];
        prost::encoding::encode_varint(length as u64, &mut message);
        message.resize(message.len() + length, b'a');
        framed(&message)
    };
    for (id, path, fits, beyond) in [
        ("stranger", CHECK, 1_000, 1_100),
        ("stranger", WATCH, 1_000, 1_100),
        ("lan", SEARCH, 16_000, 17_000),
        ("first-administrator", ADD_CLIENT, 130_000, 132_000),
    ] {
        let mut send = connect(&stage, id).await;
        let told = whole(&mut send, path, named(fits)).await;
        assert_ne!(reason(&told), "MESSAGE_TOO_LARGE", "{path}");
        // The message of a search is no query, and the client has no name of such a length.
        assert!(
            [tonic::Code::NotFound, tonic::Code::InvalidArgument, tonic::Code::Internal].contains(&told.code()),
            "{told:?}"
        );
        let (answer, mut body) = begin(&mut send, path).await;
        // It is refused before its end has arrived.
        body.send_data(named(beyond), false).unwrap();
        assert_eq!(reason(&status(&soon(path, answer).await.unwrap())), "MESSAGE_TOO_LARGE", "{path}");
    }
    // A name that would be twice in each response.
    let mut send = connect(&stage, "shop").await;
    let (answer, mut body) = begin(&mut send, REFLECT).await;
    body.send_data(named(5_000), false).unwrap();
    let mut answer = soon("reflection", answer).await.unwrap().into_body();
    let data = soon("its end", answer.data()).await;
    assert!(!matches!(data, Some(Ok(data)) if data.len() > 1_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_watches_are_bounded_per_certificate_and_other_calls_continue() {
    let stage = staged();
    let mut send = connect(&stage, "stranger").await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let (answer, mut body) = begin(&mut send, WATCH).await;
        body.send_data(framed(b""), true).unwrap();
        let mut answer = soon("a watch", answer).await.unwrap();
        assert!(soon("its first state", answer.body_mut().data()).await.unwrap().is_ok());
        held.push(answer);
    }
    let beyond = whole(&mut send, WATCH, framed(b"")).await;
    assert_eq!((beyond.code(), reason(&beyond).as_str()), (tonic::Code::ResourceExhausted, "TOO_MANY_WATCHES"));
    assert!(beyond.get_details_retry_info().is_some());
    // On another connection of the same certificate, too; not for another certificate or another call.
    let mut again = connect(&stage, "stranger").await;
    assert_eq!(reason(&whole(&mut again, WATCH, framed(b"")).await), "TOO_MANY_WATCHES");
    assert_eq!(whole(&mut again, CHECK, framed(b"")).await.code(), tonic::Code::Ok);
    let mut other = connect(&stage, "shop").await;
    assert_eq!(whole(&mut other, WATCH, framed(b"")).await.code(), tonic::Code::Ok);
    assert_eq!(metric(&stage, "ndxp_own_calls_refused_total{service=\"watch\"}"), 2);
    // A finished one makes room.
    drop(held.pop());
    let freed = Instant::now();
    while whole(&mut send, WATCH, framed(b"")).await.code() != tonic::Code::Ok {
        assert!(freed.elapsed() < Duration::from_secs(5), "its place does not come back");
    }
    drop((send, again, other, held));
    crate::support::until("all places back", || metric(&stage, "ndxp_own_calls{service=\"watch\"}") == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_calls_without_a_message_block_no_other_call() {
    let stage = staged();
    for (service, id, other, path, places) in [
        ("audit", "lan", "hoa", SEARCH, 32),
        ("health", "shop", "other", CHECK, 64),
        ("admin", "hoa", "first-administrator", "/ndxp.admin.v1.AdminService/ListStaff", 32),
        ("reflection", "shop", "other", REFLECT, 4),
    ] {
        let mut send = connect(&stage, id).await;
        let mut held = Vec::new();
        for _ in 0..places {
            held.push(begin(&mut send, path).await);
        }
        let gauge = format!("ndxp_own_calls{{service=\"{service}\"}}");
        crate::support::until("all of them under way", || metric(&stage, &gauge) == places);
        // Five are refused, with a delay: a caller that ignores it is slowed down.
        let began = Instant::now();
        let mut more = connect(&stage, id).await;
        let mut refused = Vec::new();
        for _ in 0..5 {
            refused.push(begin(&mut more, path).await);
        }
        for answer in join_all(refused.into_iter().map(|(answer, _body)| answer)).await {
            assert_eq!(reason(&status(&answer.unwrap())), "RATE_LIMITED", "{service}");
        }
        assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
        let mut others = connect(&stage, other).await;
        assert_eq!(whole(&mut others, path, framed(b"")).await.code(), tonic::Code::Ok, "{service}");
        // They are cancelled with their connection.
        drop((held, send, more));
        crate::support::until("their places back", || metric(&stage, &gauge) == 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c_reflection_continues_after_an_unknown_symbol_and_ends_after_its_limit() {
    let stage = staged();
    let mut send = connect(&stage, "shop").await;
    // `file_containing_symbol` is field 4, an error in a response is field 7.
    let asked = |symbol: &str| framed(&[&[0x22, symbol.len() as u8][..], symbol.as_bytes()].concat());
    for path in [REFLECT, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"] {
        let (answer, mut body) = begin(&mut send, path).await;
        for symbol in ["no.Such", "ndxp.admin.v1.AdminService", "no.Such"] {
            body.send_data(asked(symbol), false).unwrap();
        }
        body.send_data(asked("grpc.health.v1.Health"), true).unwrap();
        let mut answer = soon(path, answer).await.unwrap().into_body();
        let mut bytes = Vec::new();
        while let Some(data) = soon("its answers", answer.data()).await {
            let data = data.unwrap();
            answer.flow_control().release_capacity(data.len()).unwrap();
            bytes.extend_from_slice(&data);
        }
        let trailers = soon("its end", answer.trailers()).await.unwrap().unwrap();
        assert_eq!(trailers["grpc-status"], "0");
        let mut sizes = Vec::new();
        while bytes.len() >= 5 {
            let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
            sizes.push(length);
            bytes.drain(..5 + length);
        }
        assert_eq!(sizes.len(), 4, "{sizes:?}");
        assert!(sizes[0] < 100 && sizes[1] > 1_000 && sizes[2] == sizes[0] && sizes[3] > 500, "{sizes:?}");
    }
    let (answer, mut body) = begin(&mut send, REFLECT).await;
    body.send_data(asked("no.Such").repeat(1_030).into(), true).unwrap();
    let mut answer = soon("many", answer).await.unwrap().into_body();
    while let Some(data) = soon("its answers", answer.data()).await {
        let length = data.unwrap().len();
        answer.flow_control().release_capacity(length).unwrap();
    }
    let trailers = soon("its end", answer.trailers()).await.unwrap().unwrap();
    assert_eq!(reason(&Status::from_header_map(&trailers).unwrap()), "RATE_LIMITED");
}
