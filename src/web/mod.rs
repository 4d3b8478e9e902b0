//! The HTTPS port: OAuth2, the public keys, and the exchange log for auditors. A client certificate is asked for, not required: who shows none gets the
//! public documents and nothing else. It has a thread of its own, so that it never waits for calls, nor they for it.

mod jwk;
mod log;
mod oauth;
mod rates;
mod recorder;

pub use oauth::INTROSPECT;

use crate::access::reads::Reads;
use crate::access::refusals::RefusalLog;
use crate::access::staff::StaffDoor;
use crate::config::Config;
use crate::exchange_log::ExchangeLog;
use crate::identity::tls::Gate;
use crate::identity::{Certificate, Peer, connections::Connections};
use crate::registry::{Snapshot, Store};
use crate::telemetry::OAuthMetrics;
use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Largest request body: a token and some words.
const MAX_BODY: usize = 32 << 10;
/// Of a larger one, so much is read and thrown away: a connection that is closed while its client still writes may be
/// reset before the client has read why (RFC 9112, section 9.6).
const MAX_THROWN_AWAY: usize = 1 << 20;
/// Longest handshake, and longest wait for a connection's first request, for a request's head, and for its body.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may go without another request.
const IDLE: Duration = Duration::from_secs(60);

/// What the HTTPS port needs of the gateway.
pub struct Web {
    config: Config,
    store: Arc<dyn Store>,
    registry: Arc<ArcSwap<Snapshot>>,
    tokens: crate::access::token::TokenChecker,
    log: ExchangeLog,
    refusals: Arc<RefusalLog>,
    door: StaffDoor,
    reads: Arc<Reads>,
    recorder: recorder::Recorder,
    signer: oauth::CurrentSigner,
    limits: oauth::Limits,
}

/// A request with its whole body, and who asks.
struct Asked {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    peer: Option<Peer>,
}

/// An answer with a JSON document.
fn json(status: StatusCode, value: &serde_json::Value, cache: &'static str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(value.to_string())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    answer
}

fn without_body(status: StatusCode) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::new()));
    *answer.status_mut() = status;
    answer
}

/// Ends when a connection that has asked so often asks for nothing more.
async fn unused(asked: &AtomicU64) {
    let (mut before, mut wait) = (0, PATIENCE);
    loop {
        tokio::time::sleep(wait).await;
        let now = asked.load(Ordering::Relaxed);
        if std::mem::replace(&mut before, now) == now {
            return;
        }
        wait = IDLE;
    }
}

/// A request's body; `None` where it is too large or breaks off.
async fn whole(mut body: Incoming) -> Option<Bytes> {
    let (mut kept, mut size) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let data = frame.ok()?.into_data().unwrap_or_default();
        size += data.len();
        if size > MAX_THROWN_AWAY {
            return None;
        }
        if size <= MAX_BODY {
            kept.extend_from_slice(&data);
        }
    }
    (size <= MAX_BODY).then(|| kept.into())
}

impl Web {
    /// The port's state; issued tokens are recorded by a thread of their own from here on.
    pub fn new(
        config: Config,
        store: Arc<dyn Store>,
        registry: Arc<ArcSwap<Snapshot>>,
        log: ExchangeLog,
        refusals: Arc<RefusalLog>,
        metrics: OAuthMetrics,
    ) -> std::io::Result<Self> {
        let said = &config.tokens;
        Ok(Web {
            tokens: crate::access::token::TokenChecker::new(&said.issuer, &said.audience, said.leeway_s),
            door: StaffDoor::new(registry.clone(), log.clone(), refusals.clone(), &config.node),
            reads: Reads::new(log::READS),
            recorder: recorder::Recorder::start(store.clone())?,
            signer: oauth::CurrentSigner::default(),
            limits: oauth::Limits::new(said, metrics),
            config,
            store,
            registry,
            log,
            refusals,
        })
    }

    /// Serves until it is told to stop; then requests under way finish.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        gate: watch::Receiver<Arc<Gate>>,
        stop: CancellationToken,
    ) {
        let listen = &self.config.listen;
        let open = Connections::new(listen.max_connections, listen.max_connections_per_peer);
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => match listener.accept().now_or_never() {
                    Some(waiting) => waiting,
                    None => break,
                },
            };
            let Ok((stream, address)) = accepted else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let Some(place) = open.take(address.ip()) else { continue };
            let (web, mut gate, stop) = (self.clone(), gate.clone(), stop.clone());
            let acceptor = TlsAcceptor::from(gate.borrow_and_update().web.clone());
            connections.spawn(async move {
                let _ = stream.set_nodelay(true);
                if let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
                    web.connection(stream, address, gate, stop).await;
                }
                drop(place);
            });
        }
        drop(listener);
        connections.close();
        let _ = tokio::time::timeout(self.config.listen.drain_timeout, connections.wait()).await;
    }

    async fn connection(
        self: Arc<Self>,
        stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
        address: SocketAddr,
        mut gate: watch::Receiver<Arc<Gate>>,
        stop: CancellationToken,
    ) {
        let certificate = stream.get_ref().1.peer_certificates().and_then(Certificate::of).map(Arc::new);
        let known = certificate.clone();
        let asked = Arc::new(AtomicU64::new(0));
        let count = asked.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            count.fetch_add(1, Ordering::Relaxed);
            let (web, peer) = (self.clone(), certificate.clone().map(|certificate| Peer { certificate, address }));
            async move { Ok::<_, Infallible>(web.request(request, peer).await) }
        });
        let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(64);
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut unused = std::pin::pin!(unused(&asked));
        let mut ending = false;
        loop {
            tokio::select! {
                () = &mut unused => {
                    if asked.load(Ordering::Relaxed) > 0 {
                        connection.as_mut().graceful_shutdown();
                        // One that takes no answer does not go by itself.
                        let _ = tokio::time::timeout(PATIENCE, connection).await;
                    }
                    return;
                }
                () = stop.cancelled(), if !ending => {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                }
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection of the HTTPS port ended");
                    }
                    return;
                }
                changed = gate.changed() => {
                    // Revoked or expired meanwhile: closed at once.
                    let refused = |known: &Arc<Certificate>| !gate.borrow_and_update().still_admits(&known.chain);
                    if changed.is_err() || known.as_ref().is_some_and(refused) {
                        return tracing::info!(%address, "a connection of the HTTPS port was closed: its certificate is good no more");
                    }
                }
            }
        }
    }

    async fn request(&self, request: Request<Incoming>, peer: Option<Peer>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let body = match tokio::time::timeout(PATIENCE, whole(body)).await {
            Ok(Some(body)) => body,
            Ok(None) => return without_body(StatusCode::PAYLOAD_TOO_LARGE),
            Err(_) => return without_body(StatusCode::REQUEST_TIMEOUT),
        };
        let path = head.uri.path().to_owned();
        self.answer(Asked { method: head.method, path, headers: head.headers, body, peer }).await
    }

    async fn answer(&self, asked: Asked) -> Response<Full<Bytes>> {
        match (asked.method.as_str(), asked.path.as_str()) {
            ("POST", "/oauth2/token") => self.token(&asked).await,
            ("POST", "/oauth2/introspect") => self.introspect(&asked),
            ("POST", "/oauth2/revoke") => self.revoke(&asked).await,
            ("GET" | "HEAD", "/.well-known/oauth-authorization-server") => self.metadata(),
            ("GET" | "HEAD", "/oauth2/jwks.json") => self.jwks(),
            ("GET" | "HEAD", path) if path.starts_with("/log/") => self.log_file(&asked).await,
            (_, "/oauth2/token" | "/oauth2/introspect" | "/oauth2/revoke") => {
                json(StatusCode::METHOD_NOT_ALLOWED, &serde_json::json!({ "error": "invalid_request" }), "no-store")
            }
            _ => json(StatusCode::NOT_FOUND, &serde_json::json!({ "error": "not_found" }), "no-store"),
        }
    }
}
