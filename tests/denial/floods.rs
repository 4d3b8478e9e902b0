//! Floods: what a caller with a valid certificate, or anybody with a TCP connection, can send without end. Memory stays bounded, and
//! the others' calls continue.

use crate::support::{Actor, Outside, Running, STALL, UNIT, files, secured};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Frame types and flags (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// A header as a literal without indexing or Huffman coding (RFC 7541, section 6.2.2).
fn literal(name: &str, value: &str) -> Vec<u8> {
    fn text(out: &mut Vec<u8>, text: &str) {
        // A length of 127 and more is continued (section 5.1).
        let mut rest = text.len();
        if rest < 127 {
            out.push(rest as u8);
        } else {
            out.push(127);
            rest -= 127;
            while rest >= 128 {
                out.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            out.push(rest as u8);
        }
        out.extend(text.as_bytes());
    }
    let mut out = vec![0];
    text(&mut out, name);
    text(&mut out, value);
    out
}

/// The head of a call; static table: `:method POST` is 3, `:scheme https` 7 (RFC 7541, appendix A).
fn head() -> Vec<u8> {
    let mut out = vec![0x83, 0x87];
    out.extend(literal(":path", UNIT));
    out.extend(literal(":authority", "localhost"));
    out.extend(literal("content-type", "application/grpc"));
    out.extend(literal("te", "trailers"));
    out
}

struct Attacked {
    outside: Outside,
    gateway: Running,
    address: SocketAddr,
}

impl Attacked {
    fn new() -> Self {
        let outside = Outside::new();
        crate::support::edit(&outside.folder.gateway_config(), |text| {
            text.replacen("[listen]\n", "[listen]\nworkers = 1\nhandshake_timeout_ms = 2000\n", 1)
        });
        let gateway = Running::start(&outside.folder, &[]);
        let address = outside.config.listen.grpc;
        Attacked { outside, gateway, address }
    }

    /// Resident memory in kB.
    fn memory(&self) -> u64 {
        crate::support::memory(&self.gateway, "VmRSS")
    }

    /// A connection with the certificate of a registered client.
    async fn handshake(&self) -> TlsStream<TcpStream> {
        let files = files(&self.outside.folder, "one-stop-shop");
        let stream = TcpStream::connect(self.address).await.unwrap();
        secured(stream, &files.ca, Some((&files.certificate, &files.key)), &[b"h2"]).await.unwrap()
    }

    /// The same, the preface and settings sent.
    async fn connect(&self) -> TlsStream<TcpStream> {
        let mut stream = self.handshake().await;
        stream.write_all(PREFACE).await.unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        stream
    }

    /// Sends the output of `make` on four connections, for three seconds or until it is disconnected, reading responses or not.
    /// Meanwhile another client's calls continue, and memory does not grow beyond `most_kb`.
    async fn withstands(&self, what: &str, reads: bool, make: impl Fn(u32) -> Vec<u8>) {
        let before = self.memory();
        let end = tokio::time::Instant::now() + Duration::from_secs(3);
        let flood = futures_util::future::join_all((0..4).map(|_| async {
            let (mut from, mut to) = tokio::io::split(self.connect().await);
            let reading = async {
                let mut bytes = vec![0; 65_536];
                while reads && from.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
                std::future::pending::<()>().await;
            };
            let writing = async {
                for number in 0.. {
                    if to.write_all(&make(number)).await.is_err() || to.flush().await.is_err() {
                        break;
                    }
                }
            };
            tokio::select! {
                () = reading => {}
                () = writing => {}
                () = tokio::time::sleep_until(end) => {}
            }
        }));
        let actor = self.outside.actor();
        let others = async {
            let (mut longest, mut most) = (Duration::ZERO, 0);
            while tokio::time::Instant::now() < end {
                let began = Instant::now();
                let told = actor.call(UNIT, json!({ "unitCode": "1057000" })).await;
                assert!(["", "GATEWAY_OVERLOADED"].contains(&told.reason().as_str()), "{what}: {}", told.reason());
                longest = longest.max(began.elapsed());
                most = most.max(self.memory());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            (longest, most)
        };
        let (_, (longest, most)) = tokio::join!(flood, others);
        assert!(longest < Duration::from_secs(10), "{what}: another's call took {longest:?}");
        assert!(most < before + 128 * 1_024, "{what}: memory grew from {before} to {most} kB");
        // And afterwards everything works as before.
        answered(&self.outside.actor()).await;
    }
}

/// A call with a quick response. On a busy machine it may be repeated once or twice.
async fn answered(actor: &Actor) {
    let began = Instant::now();
    loop {
        let told = actor.call(UNIT, json!({ "unitCode": "1057000" })).await;
        let took = began.elapsed();
        assert!(took < Duration::from_secs(15), "{took:?}, {}", told.reason());
        if told.reason() != "GATEWAY_OVERLOADED" {
            told.ok();
            return;
        }
    }
}

fn stream_id(number: u32) -> u32 {
    (number % 1_000_000) * 2 + 1
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_frames_are_bounded() {
    let attacked = Attacked::new();
    // CVE-2023-44487.
    let rapid_reset = |number| {
        let mut out = frame(HEADERS, END_HEADERS, stream_id(number), &head());
        out.extend(frame(RST_STREAM, 0, stream_id(number), &8u32.to_be_bytes()));
        out
    };
    attacked.withstands("rapid reset", true, rapid_reset).await;
    attacked.withstands("rapid reset, nothing read", false, rapid_reset).await;
    // CVE-2024-27316 and similar: header blocks that never end.
    let continuation = |number| match number {
        0 => frame(HEADERS, 0, 1, &head()),
        _ => frame(CONTINUATION, 0, 1, &literal("x-filler", &"a".repeat(8_000))),
    };
    attacked.withstands("continuation", true, continuation).await;
    let empty = |number| match number {
        0 => frame(HEADERS, 0, 1, &head()),
        _ => frame(CONTINUATION, 0, 1, &[]),
    };
    attacked.withstands("empty continuation", true, empty).await;
    // CVE-2019-9515, CVE-2019-9512: each frame requires a response.
    let settings = |_| frame(SETTINGS, 0, 0, &[]).repeat(100);
    attacked.withstands("settings", false, settings).await;
    attacked.withstands("ping", false, |_| frame(PING, 0, 0, &[7; 8]).repeat(100)).await;
    // CVE-2019-9518.
    let nothing = |number| match number {
        0 => frame(HEADERS, END_HEADERS, 1, &head()),
        _ => frame(DATA, 0, 1, &[]).repeat(100),
    };
    attacked.withstands("empty data", true, nothing).await;
    // A header of 4,000 bytes, sent once, then referenced by its index a thousand times in each call (HPACK bomb).
    let bomb = |number| {
        let mut block = head();
        if number == 0 {
            let mut indexed = literal("x-bomb", &"b".repeat(4_000));
            indexed[0] = 0x40;
            block.extend(indexed);
        }
        block.extend([0xbe; 1_000]);
        frame(HEADERS, END_HEADERS, stream_id(number), &block)
    };
    attacked.withstands("header bomb", true, bomb).await;
}

/// Connections that never send anything.
const HALF_OPEN: u64 = 4_000;

#[tokio::test(flavor = "multi_thread")]
async fn slow_callers_delay_nobody() {
    // This end needs them, too; the gateway's process sees to its own.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let attacked = Attacked::new();
    let before = attacked.memory();
    // Connections without a handshake, handshakes without a preface, calls without a message.
    let mut half_open = Vec::new();
    for number in 0..HALF_OPEN {
        // From several addresses: one alone gets no more than 1,000.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("127.0.0.{}:0", 2 + number % 8).parse().unwrap()).unwrap();
        half_open.push(socket.connect(attacked.address).await.unwrap());
    }
    let mut without_preface = Vec::new();
    for _ in 0..20 {
        without_preface.push(attacked.handshake().await);
    }
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut stream = attacked.connect().await;
        for number in 0..50 {
            stream.write_all(&frame(HEADERS, END_HEADERS, stream_id(number), &head())).await.unwrap();
            stream.write_all(&frame(DATA, 0, stream_id(number), &[0])).await.unwrap();
        }
        stream.flush().await.unwrap();
        slow.push(stream);
    }
    let actor = attacked.outside.actor();
    for _ in 0..20 {
        answered(&actor).await;
    }
    let after = attacked.memory();
    assert!(after < before + 256 * 1_024, "memory grew from {before} to {after} kB");
    // Half-open ones are closed after the handshake timeout, and so are those without a preface.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let mut byte = [0];
    for stream in &mut without_preface {
        let until_end = async { while let Ok(1..) = stream.read(&mut byte).await {} };
        tokio::time::timeout(Duration::from_secs(2), until_end).await.unwrap();
    }
    for stream in &mut half_open {
        let ended = tokio::time::timeout(Duration::from_secs(2), stream.read(&mut byte)).await.unwrap();
        assert!(!matches!(ended, Ok(1..)), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_caller_is_closed_however_busy_it_keeps_the_gateway() {
    let attacked = Attacked::new();
    let (mut from, mut to) = tokio::io::split(attacked.connect().await);
    tokio::spawn(async move {
        let mut bytes = vec![0; 65_536];
        while from.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
    });
    // Frames of unknown types are ignored (RFC 9113, section 4.1): far less work to send than to read.
    let frames = frame(0xfa, 0, 0, &[]).repeat(7_000);
    let mut writing = tokio::spawn(async move { while to.write_all(&frames).await.is_ok() {} });
    let goes_on = tokio::time::timeout(Duration::from_secs(1), &mut writing).await;
    assert!(goes_on.is_err(), "it was closed before");
    let own = files(&attacked.outside.folder, "one-stop-shop").certificate;
    attacked.outside.folder.pki().revoke(&own).unwrap();
    tokio::time::timeout(Duration::from_secs(3) + STALL, writing).await.expect("it goes on").unwrap();
}

/// The HTTPS port's output on a new connection, after these bytes, until it closes it.
async fn heard_until_the_end(attacked: &Attacked, protocol: &[u8], sent: &[u8]) -> Vec<u8> {
    let files = files(&attacked.outside.folder, "one-stop-shop");
    let stream = TcpStream::connect(attacked.outside.config.listen.https.unwrap()).await.unwrap();
    let mut stream = secured(stream, &files.ca, None, &[protocol]).await.unwrap();
    stream.write_all(sent).await.unwrap();
    stream.flush().await.unwrap();
    let (mut heard, mut bytes) = (Vec::new(), [0; 4_096]);
    let until_end = async {
        while let Ok(read @ 1..) = stream.read(&mut bytes).await {
            heard.extend_from_slice(&bytes[..read]);
        }
    };
    tokio::time::timeout(Duration::from_secs(25), until_end).await.expect("it is still open");
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_caller_of_the_https_port_is_disconnected() {
    let attacked = Attacked::new();
    let began = b"POST /oauth2/token HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\ngrant_type=";
    let settings = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let (nothing, half_a_head, half_a_body, no_preface, no_request) = tokio::join!(
        heard_until_the_end(&attacked, b"http/1.1", b""),
        heard_until_the_end(&attacked, b"http/1.1", b"GET /oauth2/jw"),
        heard_until_the_end(&attacked, b"http/1.1", began),
        heard_until_the_end(&attacked, b"h2", b""),
        heard_until_the_end(&attacked, b"h2", &settings),
    );
    assert_eq!((nothing.len(), half_a_head.len()), (0, 0));
    assert!(half_a_body.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&half_a_body));
    // Settings of its own, if anything, and GOAWAY.
    assert!(no_preface.len() < 100 && no_request.len() < 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_heads_at_the_https_port_are_bounded() {
    let attacked = Attacked::new();
    let head = |bytes: usize| {
        let filler = "a".repeat(bytes);
        format!("GET /nothing HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx: {filler}").into_bytes()
    };
    // Its end never arrives, and is not awaited.
    let endless = heard_until_the_end(&attacked, b"http/1.1", &head(64 << 10)).await;
    assert!(endless.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&endless));
    let whole = [head(16 << 10), b"\r\n\r\n".to_vec()].concat();
    let answered = heard_until_the_end(&attacked, b"http/1.1", &whole).await;
    assert!(answered.starts_with(b"HTTP/1.1 404 "), "{}", String::from_utf8_lossy(&answered));
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_connections_to_health_and_metrics_are_bounded_and_make_room() {
    let attacked = Attacked::new();
    let ops = attacked.outside.config.listen.operator_http.unwrap();
    let connect = || async move { TcpStream::connect(ops).await.unwrap() };
    let ask = |mut stream: TcpStream, within: u64| async move {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut bytes = [0; 64];
        let read = tokio::time::timeout(Duration::from_millis(within), stream.read(&mut bytes)).await;
        (stream, read.is_ok_and(|read| bytes[..read.unwrap()].starts_with(b"HTTP/1.1 200")))
    };
    let mut held = Vec::new();
    for _ in 0..32 {
        // It gets a response and stays open.
        let (stream, answered) = ask(connect().await, 2_000).await;
        assert!(answered);
        held.push(stream);
    }
    let (waiting, answered) = ask(connect().await, 300).await;
    assert!(!answered, "the thirty-third waits");
    held.pop();
    let mut bytes = [0; 64];
    let mut waiting = waiting;
    let read = tokio::time::timeout(Duration::from_secs(2), waiting.read(&mut bytes)).await.unwrap().unwrap();
    assert!(bytes[..read].starts_with(b"HTTP/1.1 200"));
    // Idle ones are closed in time.
    let began = Instant::now();
    let mut last = held.pop().unwrap();
    let closed = async { while last.read(&mut bytes).await.is_ok_and(|read| read > 0) {} };
    tokio::time::timeout(Duration::from_secs(20), closed).await.expect("it stays open");
    assert!(began.elapsed() < Duration::from_secs(15));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_caller_of_the_gateway_s_own_services_gets_a_status_and_ends() {
    let attacked = Attacked::new();
    let (send, connection) = h2::client::handshake(attacked.handshake().await).await.unwrap();
    tokio::spawn(connection);
    // No message, half a message, a message with only its length.
    let begun: [(&str, &[u8]); 4] = [
        ("/grpc.health.v1.Health/Watch", b""),
        ("/ndxp.admin.v1.AdminService/ListClients", b"\0\0"),
        ("/ndxp.audit.v1.AuditService/GetReceipt", b"\0\0\0\x10\0"),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", b""),
    ];
    let statuses = begun.map(|(path, bytes)| {
        let send = send.clone();
        async move {
            let request = http::Request::post(format!("https://localhost{path}"))
                .header("content-type", "application/grpc")
                .header("te", "trailers");
            let mut send = send.ready().await.unwrap();
            let (answer, mut body) = send.send_request(request.body(()).unwrap(), false).unwrap();
            body.send_data(bytes::Bytes::from_static(bytes), false).unwrap();
            let answer = answer.await.unwrap();
            let in_head = answer.headers().get("grpc-status").cloned();
            let mut answer = answer.into_body();
            while let Some(data) = answer.data().await {
                data.unwrap();
            }
            let trailers = answer.trailers().await.unwrap().unwrap_or_default();
            in_head.or(trailers.get("grpc-status").cloned()).unwrap().to_str().unwrap().to_owned()
        }
    });
    let statuses = tokio::time::timeout(Duration::from_secs(20), futures_util::future::join_all(statuses)).await;
    // DEADLINE_EXCEEDED; UNAUTHENTICATED, without waiting for the message; a stream without further requests ends.
    assert_eq!(statuses.expect("they are still there"), ["4", "16", "4", "0"]);
}

/// Reads frames of a connection until this one arrives, or its end; returns their types, streams and payloads.
async fn frames(stream: &mut TlsStream<TcpStream>, until: impl Fn(u8, u32) -> bool) -> Vec<(u8, u32, Vec<u8>)> {
    let mut all = Vec::new();
    let read = async {
        let mut head = [0; 9];
        while stream.read_exact(&mut head).await.is_ok() {
            let mut payload = vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
            stream.read_exact(&mut payload).await.unwrap();
            let number = u32::from_be_bytes(head[5..9].try_into().unwrap());
            all.push((head[3], number, payload));
            if until(head[3], number) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), read).await.expect("neither that frame nor an end");
    all
}

/// Calls that are started and cancelled at once, in one batch.
fn given_up(calls: std::ops::Range<u32>) -> Vec<u8> {
    let call = |number| {
        let mut out = frame(HEADERS, END_HEADERS, stream_id(number), &head());
        out.extend(frame(RST_STREAM, 0, stream_id(number), &8u32.to_be_bytes()));
        out
    };
    calls.flat_map(call).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn b3_all_calls_of_a_connection_can_be_cancelled_at_once_and_another_on_it_continues() {
    const GOAWAY: u8 = 7;
    const END_STREAM: u8 = 1;
    let attacked = Attacked::new();
    let actor = attacked.outside.actor();
    answered(&actor).await;
    let message = actor.encode(UNIT, &json!({ "unitCode": "1057000" }));
    let mut body = vec![0];
    body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend(&message);
    let mut block = head();
    block.extend(literal("authorization", &format!("Bearer {}", actor.token)));
    block.extend(literal("ndxp-purpose", crate::support::PURPOSE));
    for batch in [40, 255] {
        let mut stream = attacked.connect().await;
        let mut sent = frame(HEADERS, END_HEADERS, stream_id(0), &block);
        sent.extend(given_up(1..batch + 1));
        stream.write_all(&sent).await.unwrap();
        stream.write_all(&frame(DATA, END_STREAM, stream_id(0), &body)).await.unwrap();
        stream.flush().await.unwrap();
        let seen = frames(&mut stream, |kind, number| kind == DATA && number == stream_id(0) || kind == GOAWAY).await;
        let (kind, _, answer) = seen.last().unwrap();
        assert!(*kind == DATA && answer.len() > 5, "{batch}: {:?}", seen.last());
    }
    // More than a connection may have at all, in one batch, is an attack, and ends it (ENHANCE_YOUR_CALM).
    let mut stream = attacked.connect().await;
    let _ = stream.write_all(&given_up(0..20_000)).await;
    let seen = frames(&mut stream, |kind, _| kind == GOAWAY).await;
    let (kind, _, payload) = seen.last().unwrap();
    assert_eq!((*kind, payload.get(4..8)), (GOAWAY, Some([0, 0, 0, 0xb].as_slice())));
    answered(&actor).await;
}
