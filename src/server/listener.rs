//! The gRPC port. Each worker is one thread with a listener of its own on the same port (SO_REUSEPORT) and connections
//! of its own to the sources, so that a call runs to its end where it arrived.

use super::answer::{self, AnswerBody};
use super::backlog::{Backlog, Watched};
use super::exchange::Exchange;
use super::infra::Infra;
use super::refusals::Refusals;
use super::shared::{Routes, Served, Shared};
use super::{StartError, thread};
use crate::config::Listen;
use crate::exchange_log::open_desk;
use crate::guard::{Admission, grpc_timeout};
use crate::identity::Peer;
use crate::identity::connections::Connections;
use crate::identity::tls::Gate;
use crate::status::Reason;
use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::CertificateDer;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::coop::unconstrained;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Window of one stream: a message of usual size without a pause.
const STREAM_WINDOW: u32 = 1 << 20;
/// Window of a connection: what one slow caller can make a gateway hold.
const CONNECTION_WINDOW: u32 = 1 << 22;
/// Longest list of headers: a token of 8 kB and as much again.
const MAX_HEADERS: u32 = 16 << 10;
/// How often a silent caller is asked whether it is still there, and how long it may think about it.
const PING: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));

/// What the workers are told by the control plane.
#[derive(Clone)]
pub(super) struct Control {
    pub served: watch::Receiver<Arc<Served>>,
    pub infra: watch::Receiver<Arc<Infra>>,
    pub gate: watch::Receiver<Arc<Gate>>,
    pub stop: CancellationToken,
}

/// Starts a worker's thread.
pub(super) fn spawn(
    number: usize,
    listener: std::net::TcpListener,
    listen: Listen,
    shared: Arc<Shared>,
    refusals: Arc<Refusals>,
    open: Arc<Connections>,
    control: Control,
) -> Result<JoinHandle<()>, StartError> {
    thread::spawn(&format!("worker-{number}"), move || async move {
        open_desk();
        let exchange = Exchange { shared, routes: ArcSwap::default() };
        let (admission, connections) = (Arc::default(), TaskTracker::new());
        let worker = Worker { exchange, admission, refusals, listen, control, open, connections };
        Arc::new(worker).run(listener).await;
    })
}

struct Worker {
    exchange: Exchange,
    admission: Arc<Admission>,
    refusals: Arc<Refusals>,
    listen: Listen,
    control: Control,
    open: Arc<Connections>,
    connections: TaskTracker,
}

impl Worker {
    async fn run(self: Arc<Self>, listener: std::net::TcpListener) {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "a worker cannot use its listener"),
        };
        let mut served = self.control.served.clone();
        self.follow(&mut served);
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, address)) => self.admit(stream, address),
                    Err(error) => {
                        // Out of file descriptors, most likely: a busy loop would not bring them back.
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
                changed = served.changed() => if changed.is_ok() { self.follow(&mut served) } else { break },
                () = self.control.stop.cancelled() => break,
            }
        }
        // Who is through to our socket would be cut off with it.
        while let Some(Ok((stream, address))) = unconstrained(listener.accept()).now_or_never() {
            self.admit(stream, address);
        }
        drop(listener);
        self.connections.close();
        if tokio::time::timeout(self.listen.drain_timeout, self.connections.wait()).await.is_err() {
            tracing::warn!(connections = self.connections.len(), "connections are cut off: they did not end in time");
        }
    }

    /// New contracts or connections: calls under way keep what they began with.
    fn follow(&self, served: &mut watch::Receiver<Arc<Served>>) {
        let served = served.borrow_and_update().clone();
        self.exchange.routes.store(Arc::new(Routes::new(&served)));
    }

    fn admit(self: &Arc<Self>, stream: TcpStream, address: SocketAddr) {
        let Some(place) = self.open.take(address.ip()) else {
            return self.refusals.connection(address, Reason::GatewayOverloaded);
        };
        let worker = self.clone();
        self.connections.spawn(async move {
            worker.connection(stream, address).await;
            drop(place);
        });
    }

    /// How long a connection may live: a tenth more or less, so that not all that came together leave together.
    fn age(&self) -> Duration {
        let tenth = self.listen.max_connection_age / 10;
        let random = u32::from(uuid::Uuid::new_v4().as_bytes()[0]);
        self.listen.max_connection_age - tenth + tenth * 2 * random / 255
    }

    /// One call, which arrived then on a connection that has had a backlog for so long. The gateway's own services are
    /// there for those who must see to an overload.
    async fn serve(
        &self,
        peer: &Arc<Peer>,
        request: Request<Incoming>,
        arrived: Instant,
        stood: Duration,
    ) -> Response<AnswerBody> {
        if Infra::serves(request.uri().path()) {
            let infra = self.control.infra.borrow().clone();
            return infra.serve(&self.exchange.shared, peer, request).await;
        }
        let timeout = grpc_timeout(request.headers());
        let answer = match self.admission.admit(Instant::now().saturating_duration_since(arrived), stood) {
            Ok(_under_way) => self.exchange.serve(peer, request, arrived).await,
            Err(refusal) => {
                self.refusals.call(peer, &refusal);
                answer::refused(&refusal, "")
            }
        };
        if answer.extensions().get() == Some(&Reason::GatewayOverloaded) {
            self.admission.hold(timeout).await;
        }
        answer
    }

    /// The handshake, and the connection behind it with its caller's certificates; `None` where it failed.
    async fn open(
        self: &Arc<Self>,
        config: Arc<rustls::ServerConfig>,
        stream: TcpStream,
        address: SocketAddr,
    ) -> Option<(Vec<CertificateDer<'static>>, Pin<Box<Connection>>)> {
        let _ = stream.set_nodelay(true);
        let (backlog, stream) = Backlog::of(stream);
        let handshake = TlsAcceptor::from(config).accept(stream);
        let stream = tokio::time::timeout(self.listen.handshake_timeout, handshake).await.ok()?.ok()?;
        let chain = stream.get_ref().1.peer_certificates()?.to_vec();
        let peer = Arc::new(Peer::new(chain.first()?, address));
        let calls = Calls { caller: Arc::new(Caller { worker: self.clone(), peer }), backlog };
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(self.listen.max_streams)
            .max_header_list_size(MAX_HEADERS)
            .keep_alive_interval(PING.0)
            .keep_alive_timeout(PING.1)
            .serve_connection(TokioIo::new(stream), calls);
        Some((chain, Box::pin(connection)))
    }

    async fn connection(self: &Arc<Self>, stream: TcpStream, address: SocketAddr) {
        let mut gate = self.control.gate.clone();
        let config = gate.borrow_and_update().config.clone();
        // In a box of its own: ten thousand idle connections hold what they need, not what their handshake needed.
        let Some((chain, mut connection)) = Box::pin(self.open(config, stream, address)).await else {
            return self.refusals.connection(address, Reason::HandshakeFailed);
        };
        let mut age = std::pin::pin!(tokio::time::sleep(self.age()));
        let mut ending = false;
        let result = loop {
            tokio::select! {
                result = connection.as_mut() => break result,
                // GOAWAY: calls under way finish, no new ones begin. With age, so that new certificates are really used.
                () = &mut age, if !ending => {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = self.control.stop.cancelled(), if !ending => {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                }
                changed = gate.changed() => {
                    // Revoked or expired meanwhile: closed at once, with whatever is under way.
                    if changed.is_ok() && !gate.borrow_and_update().still_admits(&chain) {
                        return self.refusals.connection(address, Reason::CertificateRevoked);
                    }
                }
            }
        };
        if result.is_err_and(|error| not_http2(&error)) {
            self.refusals.connection(address, Reason::ProtocolUnsupported);
        }
    }
}

/// A connection under way.
type Connection = http2::Connection<TokioIo<TlsStream<Watched>>, Calls, TokioExecutor>;

/// The calls of one connection.
struct Calls {
    caller: Arc<Caller>,
    backlog: Backlog,
}

struct Caller {
    worker: Arc<Worker>,
    peer: Arc<Peer>,
}

impl Service<Request<Incoming>> for Calls {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    // In a box at once: on its way into a task it would be copied several times over.
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (caller, arrived) = (self.caller.clone(), Instant::now());
        let stood = self.backlog.stood(arrived);
        Box::pin(async move { Ok(caller.worker.serve(&caller.peer, request, arrived, stood).await) })
    }
}

/// Whether a connection ended because its peer does not speak HTTP/2: found by us, or by what we sent it.
fn not_http2(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| cause.is_library() && cause.reason() == Some(h2::Reason::PROTOCOL_ERROR))
}
