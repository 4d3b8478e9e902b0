//! A gRPC test source with its contract; a plan decides what it does with calls.
#![allow(dead_code, reason = "each suite uses its own part")]

use super::{Actor, Stage};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use ndxp_gateway::frame::frame;
use ndxp_gateway::sandbox::folder::DevFolder;
use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;

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
  rpc Brief(Ask) returns (Part) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (ndxp.contract.v1.operation) = { scope: "bulk:read" data_class: OPEN timeout_ms: 1000 grpc: {} };
  }
  rpc BriefWrite(Ask) returns (Part) {
    option (ndxp.contract.v1.operation) = { scope: "bulk:read" data_class: OPEN timeout_ms: 1000 grpc: {} };
  }
  rpc List(Ask) returns (stream Part) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (ndxp.contract.v1.operation) = { scope: "bulk:read" data_class: OPEN timeout_ms: 60000 grpc: {} };
  }
  rpc Push(stream Ask) returns (Part) {
    option (ndxp.contract.v1.operation) = { scope: "bulk:read" data_class: OPEN timeout_ms: 60000 grpc: {} };
  }
}
message Ask { uint32 parts = 1; }
message Part { bytes data = 1; }
"#;
pub const READ: &str = "/ndxp.bulk.v1.BulkService/Read";
pub const WRITE: &str = "/ndxp.bulk.v1.BulkService/Write";
pub const BRIEF: &str = "/ndxp.bulk.v1.BulkService/Brief";
pub const BRIEF_WRITE: &str = "/ndxp.bulk.v1.BulkService/BriefWrite";
pub const LIST: &str = "/ndxp.bulk.v1.BulkService/List";
pub const PUSH: &str = "/ndxp.bulk.v1.BulkService/Push";

/// What a gRPC source does with its calls.
#[derive(Debug, Clone, Default)]
pub enum Plan {
    #[default]
    Answers,
    /// `RST_STREAM` with this reason, that many times; then it responds.
    Resets(h2::Reason, u32),
    /// GOAWAY that excludes all streams, at the first call of that many connections; then it responds.
    LeavesOut(u32),
    /// A status with this code and `google.rpc.Status`.
    Status(i32, Vec<u8>),
    /// A compressed message.
    Gzip,
    /// A message with a field that the contract does not have.
    Another,
    /// A list in which only the third message has such a field.
    AnotherLater,
    /// Sends nothing; counts pings.
    Silent,
    /// Responds when the request has ended.
    Reads,
    /// Responds after this time.
    After(Duration),
    /// Never responds.
    Hangs,
    /// Like a server that counts resets: after that many in one connection, it closes it with GOAWAY `ENHANCE_YOUR_CALM`. Responds
    /// after this time.
    CountsResets(u32, Duration),
}

/// Field 15, the number 1.
const ANOTHER: &[u8] = &[0x78, 1];
/// Size of each message of a list.
const LISTED: usize = 64 << 10;

#[derive(Default)]
pub struct Source {
    plan: Mutex<Plan>,
    /// Received calls and pings.
    calls: AtomicU32,
    pub pings: AtomicU32,
    /// Calls in flight, and their maximum on one connection.
    under_way: AtomicU32,
    pub most_on_one: AtomicU32,
    /// All connections, and those closed for their resets.
    pub connections: AtomicU32,
    pub calmed: AtomicU32,
    /// Calls reset before their response.
    pub resets: AtomicU32,
    /// SETTINGS_MAX_CONCURRENT_STREAMS, if set.
    max_streams: Option<u32>,
    pub encodings: Mutex<String>,
    /// `traceparent` of the last call.
    pub trace: Mutex<Option<String>>,
}

impl Source {
    pub fn plan(&self, plan: Plan) {
        *self.plan.lock().unwrap() = plan;
    }

    pub fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }

    /// HTTP/2 by hand: needed for a GOAWAY's last stream and for pings.
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
        self.connections.fetch_add(1, Ordering::Relaxed);
        let mut builder = h2::server::Builder::new();
        builder.max_pending_accept_reset_streams(10_000);
        if let Some(most) = self.max_streams {
            builder.max_concurrent_streams(most);
        }
        let mut connection = builder.handshake(stream).await.unwrap();
        let (here, resets) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let most_resets = match &*self.plan.lock().unwrap() {
            Plan::CountsResets(most, _) => *most,
            _ => u32::MAX,
        };
        loop {
            let next = tokio::time::timeout(Duration::from_millis(20), connection.accept()).await;
            if resets.load(Ordering::Relaxed) >= most_resets {
                self.calmed.fetch_add(1, Ordering::Relaxed);
                connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
                while connection.accept().await.is_some() {}
                return;
            }
            match next {
                Err(_) => {}
                Ok(Some(Ok((request, respond)))) => {
                    self.calls.fetch_add(1, Ordering::Relaxed);
                    self.most_on_one.fetch_max(here.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                    self.under_way.fetch_add(1, Ordering::Relaxed);
                    let (source, here, resets) = (self.clone(), here.clone(), resets.clone());
                    tokio::spawn(async move {
                        if !source.clone().answer(request, respond).await {
                            resets.fetch_add(1, Ordering::Relaxed);
                            source.resets.fetch_add(1, Ordering::Relaxed);
                        }
                        here.fetch_sub(1, Ordering::Relaxed);
                        source.under_way.fetch_sub(1, Ordering::Relaxed);
                    });
                }
                Ok(_) => return,
            }
        }
    }

    /// Returns the calls in flight.
    pub fn under_way(&self) -> u32 {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Responds to a call; false if it was reset meanwhile.
    async fn answer(
        self: Arc<Self>,
        request: http::Request<h2::RecvStream>,
        mut respond: h2::server::SendResponse<Bytes>,
    ) -> bool {
        let list = request.uri().path() == LIST;
        let encodings = request.headers().get("grpc-accept-encoding").map(|value| value.to_str().unwrap().to_owned());
        *self.encodings.lock().unwrap() = encodings.unwrap_or_default();
        *self.trace.lock().unwrap() =
            request.headers().get("traceparent").map(|value| value.to_str().unwrap().to_owned());
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
        match plan.clone() {
            Plan::Resets(reason, left) if left > 0 => {
                respond.send_reset(reason);
                return true;
            }
            Plan::After(time) | Plan::CountsResets(_, time) => tokio::select! {
                () = tokio::time::sleep(time) => {}
                _ = std::future::poll_fn(|context| respond.poll_reset(context)) => return false,
            },
            Plan::Hangs => {
                let _ = std::future::poll_fn(|context| respond.poll_reset(context)).await;
                return false;
            }
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
            Plan::Another => message.extend_from_slice(ANOTHER),
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
        let Ok(mut out) = respond.send_response(head, false) else { return false };
        if list {
            if matches!(plan, Plan::AnotherLater) {
                let parts = [&b"\x0a\x03abc"[..], b"\x0a\x03abd", b"\x0a\x03abe\x78\x01", b"\x0a\x03abf"];
                let whole: Vec<u8> = parts.iter().flat_map(|part| frame(part).to_vec()).collect();
                out.send_data(whole.into(), false).unwrap();
                return out.send_trailers(trailers).is_ok();
            }
            let more = if message.ends_with(ANOTHER) { ANOTHER } else { &[] };
            return Source::list(out, more).await;
        }
        if !message.is_empty() {
            let mut framed = frame(&message).to_vec();
            framed[0] = u8::from(gzip);
            out.send_data(framed.into(), false).unwrap();
        }
        out.send_trailers(trailers).is_ok()
    }

    /// An endless list, as fast as it is read.
    async fn list(mut out: h2::SendStream<Bytes>, more: &[u8]) -> bool {
        let mut message = vec![0x0a];
        prost::encoding::encode_varint(LISTED as u64, &mut message);
        message.resize(message.len() + LISTED, b'x');
        message.extend_from_slice(more);
        let framed = frame(&message);
        loop {
            let mut rest = framed.clone();
            while !rest.is_empty() {
                out.reserve_capacity(rest.len());
                match std::future::poll_fn(|context| out.poll_capacity(context)).await {
                    Some(Ok(ready)) => {
                        let part = rest.split_to(ready.min(rest.len()));
                        if out.send_data(part, false).is_err() {
                            return false;
                        }
                    }
                    _ => return false,
                }
            }
        }
    }
}

/// A stage with the source `bulk`, whose entry has these additional keys.
pub async fn with_source(keys: &str) -> (Stage, Arc<Source>, Actor) {
    with_streams(keys, None, "").await
}

/// The same with a limit of streams per connection at the source, and these keys in the gateway's `[listen]`.
pub async fn with_streams(keys: &str, max_streams: Option<u32>, listen: &str) -> (Stage, Arc<Source>, Actor) {
    with_folder(keys, max_streams, &|folder| {
        super::edit(&folder.gateway_config(), |text| text.replacen("[listen]\n", &format!("[listen]\n{listen}\n"), 1));
    })
    .await
}

/// The same with a final change of the folder.
pub async fn with_folder(
    keys: &str,
    max_streams: Option<u32>,
    prepare: &dyn Fn(&DevFolder),
) -> (Stage, Arc<Source>, Actor) {
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
        prepare(folder);
    });
    let acceptor = super::sandbox_acceptor(&stage.folder.path.join("pki"));
    let source = Arc::new(Source { max_streams, ..Source::default() });
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
