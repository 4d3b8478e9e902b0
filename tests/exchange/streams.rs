//! Streams: a slow end slows the other end down, memory stays bounded, and a caller that leaves also ends the call at the source.

use crate::support::{Actor, LIMIT, Outside, Running, SECOND, cancelled_when, memory, show, until};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use ndxp_gateway::caller::StreamingResponse;
use ndxp_gateway::config::Config;
use ndxp_gateway::registry::sqlite::SqliteStore;
use ndxp_gateway::server::registry_path;
use rustix::process::Signal;
use serde_json::json;
use std::convert::Infallible;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tonic::Code;

const PULL: &str = "/ndxp.bulk.v1.BulkService/Pull";
const WAIT: &str = "/ndxp.bulk.v1.BulkService/Wait";
const PUSH: &str = "/ndxp.bulk.v1.BulkService/Push";
const TOUCH: &str = "/ndxp.bulk.v1.BulkService/Touch";
const CONTRACT: &str = r#"syntax = "proto3";
package ndxp.bulk.v1;
import "ndxp/contract/v1/contract.proto";
service BulkService {
  option (ndxp.contract.v1.source) = { id: "bulk" name: "Bulk" name_vi: "Khối" owner: "test" };
  rpc Pull(Ask) returns (stream Part) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (ndxp.contract.v1.operation) = {
      scope: "bulk:read" data_class: OPEN timeout_ms: 60000 grpc: {}
    };
  }
  rpc Wait(Ask) returns (Part) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (ndxp.contract.v1.operation) = {
      scope: "bulk:read" data_class: OPEN timeout_ms: 60000 grpc: {}
    };
  }
  rpc Push(stream Ask) returns (Part) {
    option (ndxp.contract.v1.operation) = {
      scope: "bulk:read" data_class: OPEN timeout_ms: 60000 grpc: {}
    };
  }
  rpc Touch(Ask) returns (Part) {
    option (ndxp.contract.v1.operation) = {
      scope: "bulk:read" data_class: OPEN timeout_ms: 60000 grpc: {}
    };
  }
}
message Ask { uint32 parts = 1; }
message Part { bytes data = 1; }
"#;

/// Observations of the source.
#[derive(Default)]
struct Seen {
    /// Sent messages.
    sent: AtomicU64,
    /// The last `grpc-timeout`; 0 if there was none.
    timeout_ms: AtomicU64,
    /// Whether it closes its connections after 30 ms, and how many it has closed (GOAWAY; calls in flight finish).
    renews: AtomicBool,
    renewed: AtomicU64,
    /// Calls that wait for a response.
    waiting: AtomicU64,
    /// Calls that were cancelled before their end.
    dropped: AtomicU64,
}

struct Call(Arc<Seen>, bool);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(u64::from(!self.1), Ordering::Relaxed);
    }
}

/// 64 KiB of a message.
fn part() -> Bytes {
    let mut message = BytesMut::new();
    message.put_slice(&[0x0a, 0x80, 0x80, 0x04]);
    message.put_slice(&[7; 65_536]);
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap());
    framed.extend(message);
    framed.freeze()
}

/// A gRPC source that streams as many parts as its caller reads, or never responds.
async fn answer(
    request: Request<Incoming>,
    seen: Arc<Seen>,
) -> Result<Response<StreamBody<stream::BoxStream<'static, Result<Frame<Bytes>, Infallible>>>>, Infallible> {
    let timeout =
        request.headers().get("grpc-timeout").and_then(|value| value.to_str().ok()?.strip_suffix('m')?.parse().ok());
    seen.timeout_ms.store(timeout.unwrap_or(0), Ordering::Relaxed);
    let call = Call(seen.clone(), false);
    if [WAIT, PUSH].contains(&request.uri().path()) {
        seen.waiting.fetch_add(1, Ordering::Relaxed);
        std::future::pending::<()>().await;
    }
    let part = part();
    let last = if request.uri().path() == TOUCH { 1 } else { 16_384 };
    let frames = stream::unfold((call, 0u32), move |(mut call, number)| {
        let part = part.clone();
        async move {
            match number {
                _ if number < last => {
                    call.0.sent.fetch_add(1, Ordering::Relaxed);
                    Some((Ok(Frame::data(part)), (call, number + 1)))
                }
                _ if number == last => {
                    call.1 = true;
                    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
                    Some((Ok(Frame::trailers(trailers)), (call, number + 1)))
                }
                _ => None,
            }
        }
    });
    let mut answer = Response::new(StreamBody::new(frames.boxed()));
    answer.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    Ok(answer)
}

/// Serves the source with the sandbox's certificate; returns its port.
async fn serve(stage: &Outside, seen: &Arc<Seen>) -> u16 {
    let acceptor = crate::support::sandbox_acceptor(&stage.folder.path.join("pki"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, seen) = (listener.local_addr().unwrap().port(), seen.clone());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, seen) = (acceptor.clone(), seen.clone());
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await.unwrap();
                let for_calls = seen.clone();
                let (called, is_called) = tokio::sync::oneshot::channel();
                let called = Mutex::new(Some(called));
                let service = hyper::service::service_fn(move |request| {
                    if let Some(first) = called.lock().unwrap().take() {
                        let _ = first.send(());
                    }
                    answer(request, for_calls.clone())
                });
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
                // Not before its first call: nobody renews what was never used.
                let renewed = async {
                    is_called.await.ok();
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    if !seen.renews.load(Ordering::Relaxed) {
                        std::future::pending().await
                    }
                };
                tokio::select! {
                    _ = connection.as_mut() => return,
                    () = renewed => connection.as_mut().graceful_shutdown(),
                }
                seen.renewed.fetch_add(1, Ordering::Relaxed);
                let _ = connection.await;
            });
        }
    });
    port
}

/// A gateway process with the source `bulk` and an authorised caller.
async fn running(seen: &Arc<Seen>) -> (Running, Actor, Outside) {
    configured(seen, "", "").await
}

/// The same, with more in the configuration's `[listen]` and in the source's entry.
async fn configured(seen: &Arc<Seen>, listen: &str, source: &str) -> (Running, Actor, Outside) {
    let outside = Outside::new();
    crate::support::edit(&outside.folder.gateway_config(), |text| {
        text.replacen("[listen]\n", &format!("[listen]\n{listen}\n"), 1)
    });
    let port = serve(&outside, seen).await;
    let path = &outside.folder.path;
    std::fs::create_dir_all(path.join("contracts/ndxp/bulk/v1")).unwrap();
    std::fs::write(path.join("contracts/ndxp/bulk/v1/bulk.proto"), CONTRACT).unwrap();
    let entry = std::fs::read_to_string(path.join("sources/officials.toml")).unwrap();
    let address = entry.split('"').find(|part| part.starts_with("https://")).unwrap().to_owned();
    let entry = entry.replace(&address, &format!("https://127.0.0.1:{port}")).replace("\"officials\"", "\"bulk\"");
    std::fs::write(path.join("sources/bulk.toml"), format!("{entry}\n{source}\n")).unwrap();
    let config = Config::load(&outside.folder.gateway_config()).map_err(show).unwrap();
    let contracts = config.catalogue().map_err(show).unwrap().contracts;
    let store = SqliteStore::open(&registry_path(&config.data)).unwrap();
    crate::support::add_grant(&store, &contracts, "one-stop-shop", &["bulk:read"], |_| {});
    let hour = Duration::from_secs(3_600);
    let token = crate::support::issue(&store, &config, &outside.folder, "one-stop-shop", hour, Duration::ZERO);
    let gateway = Running::start(&outside.folder, &[]);
    (gateway, Actor { contracts, token, ..outside.actor() }, outside)
}

async fn start(actor: &Actor, path: &str) -> StreamingResponse {
    actor.start(path, json!({ "parts": 1 })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gigabyte_stream_stays_within_64_megabytes_at_its_caller_s_pace() {
    let seen = Arc::new(Seen::default());
    let (gateway, actor, outside) = running(&seen).await;
    let before = memory(&gateway, "VmRSS");
    let mut answering = start(&actor, PULL).await;
    assert_eq!(answering.next().await.unwrap().unwrap().len(), 65_540);
    // A caller that stops reading stops the source: everything sent is in windows and buffers.
    let mut last = u64::MAX;
    until("the source pauses", || {
        std::thread::sleep(Duration::from_millis(300));
        std::mem::replace(&mut last, seen.sent.load(Ordering::Relaxed)) == seen.sent.load(Ordering::Relaxed)
    });
    assert!(last < 512, "{last} parts of 64 KiB have left the source, and one was taken");
    let mut parts = 1;
    while let Some(part) = answering.next().await.unwrap() {
        assert_eq!(part.len(), 65_540);
        parts += 1;
    }
    assert_eq!((parts, answering.end().1.code()), (16_384, Code::Ok));
    let most = memory(&gateway, "VmHWM");
    assert!(most < before + 64 * 1_024, "memory grew from {before} to {most} kB");
    drop(gateway);
    let entry = crate::support::exchanges(&outside.config.data).pop().unwrap();
    assert_eq!((entry.response_messages, entry.response_bytes), (16_384, 16_384 * 65_540));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_call_is_cancelled_at_the_source() {
    let seen = Arc::new(Seen::default());
    let (gateway, actor, outside) = running(&seen).await;
    let gone = |count: u64| {
        until("the source was told", || seen.dropped.load(Ordering::Relaxed) == count);
    };
    let mut answering = start(&actor, PULL).await;
    answering.next().await.unwrap().unwrap();
    assert_eq!(seen.timeout_ms.load(Ordering::Relaxed), 0, "a stream has no end that its caller did not set");
    drop(answering);
    gone(1);
    // A call that waits for its response, and one whose own deadline passes.
    cancelled_when(|| seen.waiting.load(Ordering::Relaxed) == 1, start(&actor, WAIT)).await;
    gone(2);
    let message = actor.encode(WAIT, &json!({ "parts": 1 }));
    let told = actor.raw(WAIT, &[("grpc-timeout", "3S")], vec![message]).await.unwrap();
    assert_eq!(told.code(), Code::DeadlineExceeded);
    assert!((1..=3_000).contains(&seen.timeout_ms.load(Ordering::Relaxed)), "what is left of it goes with the call");
    gone(3);
    drop(gateway);
    let reasons: Vec<String> =
        crate::support::entries(&outside.config.data).into_iter().map(|one| one.entry.reason).collect();
    assert_eq!(reasons.iter().filter(|reason| *reason == "CANCELLED_BY_CALLER").count(), 2, "{reasons:?}");
    assert_eq!(reasons.iter().filter(|reason| *reason == "CALLER_DEADLINE").count(), 1, "{reasons:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_renews_its_connections_fails_no_call() {
    let seen = Arc::new(Seen::default());
    seen.renews.store(true, Ordering::Relaxed);
    let (_gateway, actor, _outside) = running(&seen).await;
    let end = tokio::time::Instant::now() + LIMIT;
    // Not reads, so that no retry by the gateway hides anything.
    let callers = (0..8).map(|_| async {
        while seen.renewed.load(Ordering::Relaxed) <= 20 && tokio::time::Instant::now() < end {
            actor.call(TOUCH, json!({ "parts": 1 })).await.ok();
        }
    });
    futures_util::future::join_all(callers).await;
    let renewed = seen.renewed.load(Ordering::Relaxed);
    assert!(renewed > 20, "only {renewed} connections were renewed");
}

/// A gateway with a send timeout of a second or more, and one concurrent call and one stream per client at the source.
async fn impatient(seen: &Arc<Seen>, send_timeout: Duration) -> (Running, Actor, Outside) {
    let listen = format!("workers = 1\nsend_timeout_ms = {}", send_timeout.as_millis());
    configured(seen, &listen, "[guard]\nconcurrency = 1\nqueue = 0\nstreams = 1").await
}

/// A connection with such a window for each call, and a second handle of its socket.
async fn with_window(
    outside: &Outside,
    window: u32,
) -> (SendRequest<Bytes>, impl Future<Output = Result<(), h2::Error>> + use<>, std::net::TcpStream) {
    let files = crate::support::files(&outside.folder, "one-stop-shop");
    let stream = std::net::TcpStream::connect(outside.config.listen.grpc).unwrap();
    let socket = stream.try_clone().unwrap();
    stream.set_nonblocking(true).unwrap();
    let (stream, own) = (TcpStream::from_std(stream).unwrap(), Some((&*files.certificate, &*files.key)));
    let stream = crate::support::secured(stream, &files.ca, own, &[b"h2"]).await.unwrap();
    let builder = h2::client::Builder::new()
        .initial_window_size(window)
        .initial_connection_window_size((1 << 31) - 1)
        .handshake(stream);
    let (send, connection) = builder.await.unwrap();
    (send, connection, socket)
}

/// Starts a call with one message, which may continue.
async fn begin(
    send: &SendRequest<Bytes>,
    actor: &Actor,
    path: &str,
    ends: bool,
) -> (h2::client::ResponseFuture, h2::SendStream<Bytes>) {
    let request = Request::post(format!("https://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("authorization", format!("Bearer {}", actor.token))
        .body(())
        .unwrap();
    let mut send = send.clone().ready().await.unwrap();
    let (answer, mut request) = send.send_request(request, false).unwrap();
    request.send_data(ndxp_gateway::frame::frame(&actor.encode(path, &json!({ "parts": 1 }))), ends).unwrap();
    (answer, request)
}

/// Starts a call; returns the headers of its response.
async fn call(send: &SendRequest<Bytes>, actor: &Actor, path: &str) -> Response<h2::RecvStream> {
    begin(send, actor, path, true).await.0.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_reads_nothing_of_a_stream_is_reset_and_its_permit_released() {
    let seen = Arc::new(Seen::default());
    let (gateway, actor, outside) = impatient(&seen, Duration::from_secs(5)).await;
    let mut answering = start(&actor, PULL).await;
    answering.next().await.unwrap().unwrap();
    assert_eq!(actor.call(PULL, json!({ "parts": 1 })).await.reason(), "RATE_LIMITED");
    actor.call(TOUCH, json!({ "parts": 1 })).await.ok();
    until("the source was told", || seen.dropped.load(Ordering::Relaxed) == 1);
    while answering.next().await.is_ok_and(|part| part.is_some()) {}
    // A slow reader continues.
    let mut answering = start(&actor, PULL).await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(350)).await;
        answering.next().await.unwrap().unwrap();
    }
    drop((answering, gateway));
    let entries = crate::support::entries(&outside.config.data);
    let cut_off = entries.iter().find(|one| one.entry.operation.ends_with("/Pull") && one.entry.response_messages > 0);
    let entry = &cut_off.unwrap().entry;
    assert_eq!(entry.reason, "CANCELLED_BY_CALLER");
    assert!(entry.response_messages < 64, "{} messages have left", entry.response_messages);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_without_a_window_does_not_make_the_gateway_keep_a_response() {
    let seen = Arc::new(Seen::default());
    let (_gateway, actor, outside) = impatient(&seen, SECOND).await;
    // Enough for a part of it.
    let (send, connection, _socket) = with_window(&outside, 1_000).await;
    tokio::spawn(connection);
    let mut body = call(&send, &actor, TOUCH).await.into_body();
    assert!(body.data().await.unwrap().is_ok_and(|data| data.len() == 1_000));
    let reset = tokio::time::timeout(Duration::from_secs(5), body.data()).await.unwrap().unwrap().unwrap_err();
    assert_eq!(reset.reason(), Some(h2::Reason::CANCEL));
    // Its connection still works.
    let mut body = call(&send, &actor, TOUCH).await.into_body();
    let mut bytes = 0;
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        bytes += data.len();
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    assert_eq!(bytes, part().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_does_not_read_its_socket_is_disconnected() {
    let seen = Arc::new(Seen::default());
    let (_gateway, actor, outside) = impatient(&seen, SECOND).await;
    let (send, connection, mut socket) = with_window(&outside, (1 << 31) - 1).await;
    let mut connection = std::pin::pin!(connection);
    // The connection is driven until the response starts, then no more.
    tokio::select! {
        _ = &mut connection => panic!("the connection ended"),
        _ = call(&send, &actor, PULL) => {}
    }
    until("the source was told", || seen.dropped.load(Ordering::Relaxed) == 1);
    tokio::time::sleep(Duration::from_secs(3)).await;
    // The data in flight arrives; then the connection is closed.
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut bytes = vec![0; 1 << 20];
    let ended = loop {
        match socket.read(&mut bytes) {
            Ok(1..) => {}
            ended => break ended,
        }
    };
    let gone =
        ended.as_ref().map_or_else(|error| error.kind() == std::io::ErrorKind::ConnectionReset, |read| *read == 0);
    assert!(gone, "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_stream_blocks_no_other_call_to_its_source() {
    let seen = Arc::new(Seen::default());
    let (gateway, actor, outside) = impatient(&seen, SECOND).await;
    let (send, connection, _socket) = with_window(&outside, 65_535).await;
    tokio::spawn(connection);
    let (_answer, request) = begin(&send, &actor, PUSH, false).await;
    until("it is at the source", || seen.timeout_ms.load(Ordering::Relaxed) > 0);
    actor.call(TOUCH, json!({ "parts": 1 })).await.ok();
    assert_eq!(actor.call(PUSH, json!({ "parts": 1 })).await.reason(), "RATE_LIMITED");
    drop((_answer, request));
    until("the source was told", || seen.dropped.load(Ordering::Relaxed) == 1);
    drop(gateway);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_reads_nothing_does_not_block_a_shutdown() {
    let seen = Arc::new(Seen::default());
    let (mut gateway, actor, outside) = running(&seen).await;
    let mut answering = start(&actor, PULL).await;
    answering.next().await.unwrap().unwrap();
    until("the source pauses", || {
        let before = seen.sent.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(300));
        seen.sent.load(Ordering::Relaxed) == before
    });
    let began = std::time::Instant::now();
    gateway.signal(Signal::TERM);
    assert!(gateway.0.wait().unwrap().success());
    assert!(began.elapsed() < Duration::from_secs(15), "it took {:?} to end", began.elapsed());
    let entries = crate::support::entries(&outside.config.data);
    let last = &entries.iter().rfind(|one| one.entry.operation.ends_with("/Pull")).unwrap().entry;
    assert_eq!(last.reason, "CANCELLED_BY_CALLER");
}
