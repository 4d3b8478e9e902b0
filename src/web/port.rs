//! The connections of the HTTPS port: TLS, the protocol that ALPN has negotiated, and an orderly end.

use super::Web;
use crate::accept::accept;
use crate::access::refusals::{Identity, RefusalKind};
use crate::exchange_log::{Entry, Kind};
use crate::identity::arrival::{ArrivalError, ArrivalFailure, arrive, is_proxied, plain};
use crate::identity::ends::certificate_ended;
use crate::identity::refused::{Cause, RefusedHandshake};
use crate::identity::stream::{ServerStream, reject_connection};
use crate::identity::tls::{self, TlsAcceptors};
use crate::identity::{Certificate, Peer, connections::Connections};
use crate::registry::now;
use crate::status::Reason;
use axum::Router;
use axum::body::Body;
use futures_util::FutureExt;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// Longest handshake, and longest wait for a connection's first request and for a request's body.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may go without another request. hyper counts the wait for a head from the end of the response before it, so this bounds
/// both; the head of a first request has [`REQUEST_TIMEOUT`].
const IDLE: Duration = Duration::from_secs(60);
/// How long the last responses of a connection may take after its certificate has expired.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(300);
/// Maximum number of concurrent requests on one HTTP/2 connection.
const MAX_STREAMS: u32 = 64;

/// Longest headers of a request, and read buffer of an HTTP/1.1 connection, in bytes.
const MAX_HEAD: usize = 32 << 10;
/// Read buffers of one request and of one HTTP/2 connection, and the send buffer, in bytes. Anybody may open
/// connections here: a thousand of one address hold 256 MB at most.
const WINDOW: (u32, u32) = (64 << 10, 256 << 10);

/// Where a request comes from: the peer's address, or what a proxy says of it.
#[derive(Debug, Clone, Copy)]
pub struct RemoteAddress(pub SocketAddr);

/// Ends when a connection after so many requests has none in flight.
async fn unused(requests: &AtomicU64) {
    let (mut before, mut wait) = (0, REQUEST_TIMEOUT);
    loop {
        tokio::time::sleep(wait).await;
        let now = requests.load(Ordering::Relaxed);
        if std::mem::replace(&mut before, now) == now {
            return;
        }
        wait = IDLE;
    }
}

impl Web {
    /// Serves until it is stopped; then requests in flight finish.
    pub async fn serve(
        self: Arc<Self>,
        pages: Router,
        calls: Router,
        listener: TcpListener,
        gate: watch::Receiver<Arc<TlsAcceptors>>,
        stop: CancellationToken,
    ) {
        let listen = &self.config.listen;
        let router = self.clone().router(pages, calls);
        let (max, per_peer) = (listen.max_connections, listen.max_connections_per_peer);
        let open = Connections::counted(max, per_peer, self.metrics.connections.clone());
        let connections = TaskTracker::new();
        loop {
            let (mut stream, address) = tokio::select! {
                accepted = accept(&listener) => accepted,
                () = stop.cancelled() => match accept(&listener).now_or_never() {
                    Some(waiting) => waiting,
                    None => break,
                },
            };
            // An IPv4 peer of an IPv6 socket is that IPv4 address, in limits, networks and the log.
            let address = plain(address);
            let proxied = is_proxied(&listen.proxies, address);
            let ip = address.ip();
            let place = if proxied { open.take_unassigned(ip) } else { open.take(ip) };
            let Some(mut place) = place else {
                self.reject(stream, address);
                continue;
            };
            let (router, mut gate, stop) = (router.clone(), gate.clone(), stop.clone());
            let (refusals, node) = (self.refusals.clone(), self.config.node.clone());
            let acceptor = TlsAcceptor::from(gate.borrow_and_update().web.clone());
            let web = self.clone();
            connections.spawn(async move {
                let _ = stream.set_nodelay(true);
                let address = match arrive(&mut stream, (address, proxied), &mut place, REQUEST_TIMEOUT).await {
                    Ok(peer) => peer,
                    Err(ArrivalFailure { address, why }) => return web.arrival_failed(stream, address, &why),
                };
                if web.handshakes.begin(address.ip()).is_err() {
                    reject_connection(stream);
                    return web.refused(address, Reason::GatewayOverloaded, Cause::TooManyHandshakes);
                }
                let accepted = tokio::time::timeout(REQUEST_TIMEOUT, tls::accept(acceptor, stream)).await;
                match accepted.unwrap_or_else(|_| Err(RefusedHandshake::plain(Cause::Timeout))) {
                    Ok((stream, until)) => {
                        web.metrics.handshakes.inc();
                        let stream = ServerStream::new(stream);
                        // A client without a certificate is accepted here, too.
                        if stream.session().peer_certificates().is_some() {
                            web.handshakes.came_through(address.ip());
                        }
                        match connection(router, stream, address, (gate, until), stop).await {
                            ConnectionEnd::Ended => {}
                            ConnectionEnd::CertificateOver(why) => refusals.closed(&node, "https", address, &why),
                            ConnectionEnd::Unreadable(certificate) => web.unreadable(address, certificate.as_deref()),
                        }
                    }
                    Err(why) => {
                        refusals.handshake(&node, "https", address, Reason::HandshakeFailed, &why);
                    }
                }
                drop(place);
            });
        }
        drop(listener);
        connections.close();
        let _ = tokio::time::timeout(self.config.listen.drain_timeout, connections.wait()).await;
    }
}

impl Web {
    /// Handles a connection that ended before its first byte of TLS.
    fn arrival_failed(&self, stream: TcpStream, address: SocketAddr, why: &ArrivalError) {
        match why.cause() {
            None => self.refusals.probe(),
            Some(Cause::TooMany) => self.reject(stream, address),
            Some(cause) => {
                tracing::debug!(%address, error = %why, "a connection came to nothing");
                self.refused(address, Reason::HandshakeFailed, cause);
            }
        }
    }

    /// Rejects a connection beyond the limit.
    fn reject(&self, stream: TcpStream, address: SocketAddr) {
        reject_connection(stream);
        self.refused(address, Reason::GatewayOverloaded, Cause::TooMany);
    }

    /// Logs a request whose head cannot be read: the connection has ended with a status of 400 or 431.
    fn unreadable(&self, address: SocketAddr, certificate: Option<&Certificate>) {
        let reason = Reason::RequestMalformed;
        let entry = Entry {
            peer: address.to_string(),
            certificate: certificate.map(|certificate| certificate.thumbprint.0.to_vec()).unwrap_or_default(),
            status: reason.code() as u32,
            reason: reason.as_str().to_owned(),
            ..Entry::begin(Kind::Connection, &self.config.node)
        };
        let by = certificate.map_or(Identity::Address(address.ip().into()), |certificate| {
            Identity::Certificate(certificate.thumbprint)
        });
        self.refusals.note_detached(RefusalKind::Connection, by, entry);
    }

    fn refused(&self, address: SocketAddr, reason: Reason, cause: Cause) {
        self.refusals.handshake(&self.config.node, "https", address, reason, &RefusedHandshake::plain(cause));
    }
}

/// How a connection ended.
enum ConnectionEnd {
    /// By either side, in order or not.
    Ended,
    /// Its certificate is no longer valid.
    CertificateOver(RefusedHandshake),
    /// The head of a request cannot be read; with the certificate of its peer.
    Unreadable(Option<Arc<Certificate>>),
}

/// Serves the requests of a connection, until it ends; `gate` is the TLS state at its acceptance, which also limits its
/// time.
async fn connection(
    router: Router,
    stream: ServerStream<TcpStream>,
    address: SocketAddr,
    (gate, until): (watch::Receiver<Arc<TlsAcceptors>>, i64),
    stop: CancellationToken,
) -> ConnectionEnd {
    let certificate = stream.session().peer_certificates().and_then(Certificate::of).map(Arc::new);
    let known = certificate.clone();
    let peer = certificate.map(|certificate| Arc::new(Peer { certificate, address }));
    let requests = Arc::new(AtomicU64::new(0));
    let count = requests.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        count.fetch_add(1, Ordering::Relaxed);
        request.extensions_mut().insert(RemoteAddress(address));
        if let Some(peer) = &peer {
            request.extensions_mut().insert(peer.clone());
        }
        router.clone().oneshot(request.map(Body::new))
    });
    // Only the negotiated protocol is spoken; without ALPN that is HTTP/1.1.
    let http2 = stream.session().alpn_protocol() == Some(b"h2");
    let builder = Builder::new(TokioExecutor::new());
    let mut builder = if http2 { builder.http2_only() } else { builder.http1_only() };
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD as u32)
        .initial_stream_window_size(WINDOW.0)
        .initial_connection_window_size(WINDOW.1)
        .max_send_buf_size(WINDOW.0 as usize);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut unused = std::pin::pin!(unused(&requests));
    let mut over = std::pin::pin!(async {
        match &known {
            Some(known) => (certificate_ended(gate, known, until).await, known.is_over(now())),
            None => std::future::pending().await,
        }
    });
    let mut ending = false;
    loop {
        tokio::select! {
            () = &mut unused => {
                if requests.load(Ordering::Relaxed) > 0 {
                    connection.as_mut().graceful_shutdown();
                    // A client that reads no response does not close the connection by itself.
                    let _ = tokio::time::timeout(REQUEST_TIMEOUT, connection).await;
                }
                return ConnectionEnd::Ended;
            }
            () = stop.cancelled(), if !ending => {
                ending = true;
                connection.as_mut().graceful_shutdown();
            }
            ended = connection.as_mut() => {
                let Err(error) = ended else { return ConnectionEnd::Ended };
                tracing::debug!(%error, "a connection of the HTTPS port ended");
                let is_unreadable = error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse);
                return if is_unreadable { ConnectionEnd::Unreadable(known.clone()) } else { ConnectionEnd::Ended };
            }
            (why, in_time) = &mut over => {
                if in_time {
                    // No further request of this certificate is accepted; its last responses may be sent.
                    connection.as_mut().graceful_shutdown();
                    let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection).await;
                }
                return ConnectionEnd::CertificateOver(why);
            }
        }
    }
}
