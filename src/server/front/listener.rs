//! The gRPC port. Each worker is one thread with a separate listener on the same port (SO_REUSEPORT) and its own
//! connections to the sources, so that a call stays on the thread where it arrived.

use super::backlog::{Backlog, WatchedStream};
use super::refusals::{Refusals, RefusedBeforeCall};
use super::web_calls::{WebCall, handed_over};
use crate::config::Listen;
use crate::exchange_log::open_thread_queues;
use crate::guard::{Admission, AdmittedCall};
use crate::http2::server::{self, MAX_HEADERS, Pings, Reply, header_bytes};
use crate::http2::{Incoming, SendTimeout};
use crate::identity::Peer;
use crate::identity::arrival::{ArrivalError, ArrivalFailure, arrive, is_proxied, plain};
use crate::identity::connections::{ConnectionPermit, Connections};
use crate::identity::ends::certificate_ended;
use crate::identity::refused::Cause;
use crate::identity::stream::{ServerStream, reject_connection};
use crate::identity::tls::{self, TlsAcceptors};
use crate::registry::now;
use crate::server::StartError;
use crate::server::control::own_services::OwnServices;
use crate::server::exchange::Exchange;
use crate::server::exchange::form::{CallForm, RequestBody};
use crate::server::exchange::protocol;
use crate::server::exchange::response::{self, ResponseBody};
use crate::server::own_calls::{OwnCallPermit, OwnService};
use crate::server::shared::{Routes, Served, Shared};
use crate::server::thread;
use crate::status::{Reason, Refusal};
use arc_swap::ArcSwap;
use futures_util::FutureExt;
use http::{Request, Response};
use prometheus_client::metrics::counter::Counter;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::coop::unconstrained;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

/// What the control plane sends to the workers.
#[derive(Clone)]
pub(in crate::server) struct ControlSignals {
    pub served: watch::Receiver<Arc<Served>>,
    pub infra: watch::Receiver<Arc<OwnServices>>,
    pub gate: watch::Receiver<Arc<TlsAcceptors>>,
}

/// Starts a worker's thread.
pub(in crate::server) fn spawn(
    number: usize,
    (listener, web_calls): (std::net::TcpListener, mpsc::Receiver<WebCall>),
    (listen, shared, refusals): (Listen, Arc<Shared>, Arc<Refusals>),
    open: Arc<Connections>,
    control: ControlSignals,
) -> Result<JoinHandle<()>, StartError> {
    thread::spawn(&format!("worker-{number}"), move || async move {
        shared.lifetime.beat(&format!("worker-{number}"));
        open_thread_queues();
        let exchange = Exchange { shared, routes: ArcSwap::default() };
        let (admission, connections) = (Arc::default(), TaskTracker::new());
        let (default, ending) = (listen.send_timeout, exchange.shared.stop.clone());
        let patience = Arc::new(SendTimeout { default, draining: HURRIED, ending });
        let handshakes = exchange.shared.metrics.port("grpc").handshakes;
        let worker = Worker { exchange, admission, refusals, listen, control, open, connections, patience, handshakes };
        Arc::new(worker).run(listener, web_calls).await;
    })
}

/// A call that may be served.
enum Admitted {
    Exchange(AdmittedCall),
    Own(OwnService, OwnCallPermit),
}

struct Worker {
    exchange: Exchange,
    admission: Arc<Admission>,
    refusals: Arc<Refusals>,
    listen: Listen,
    control: ControlSignals,
    open: Arc<Connections>,
    connections: TaskTracker,
    patience: Arc<SendTimeout>,
    handshakes: Counter,
}

/// How long the calls of a connection may take to end when its certificate expires: they detect the expiry themselves.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// How long a caller may read nothing of its response when the gateway ends.
const HURRIED: Duration = Duration::from_secs(3);

impl Worker {
    async fn run(self: Arc<Self>, listener: std::net::TcpListener, mut web_calls: mpsc::Receiver<WebCall>) {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "a worker cannot use its listener"),
        };
        let mut served = self.control.served.clone();
        self.follow(&mut served);
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, address)) => self.admit(stream, plain(address)),
                    Err(error) => {
                        // Most likely out of file descriptors: a busy loop would not bring them back.
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
                Some(call) = web_calls.recv() => self.begin_web(call),
                changed = served.changed() => if changed.is_ok() { self.follow(&mut served) } else { break },
                () = self.exchange.shared.stop.cancelled() => break,
            }
        }
        // Connections that have reached our socket would be cut off with it.
        while let Some(Ok((stream, address))) = unconstrained(listener.accept()).now_or_never() {
            self.admit(stream, plain(address));
        }
        drop(listener);
        self.connections.close();
        if tokio::time::timeout(self.listen.drain_timeout, self.connections.wait()).await.is_err() {
            tracing::warn!(connections = self.connections.len(), "connections are cut off: they did not end in time");
        }
    }

    /// Applies new contracts or connections: calls in flight keep what they began with.
    fn follow(&self, served: &mut watch::Receiver<Arc<Served>>) {
        let served = served.borrow_and_update().clone();
        self.exchange.routes.store(Arc::new(Routes::new(&served, &self.exchange.shared.metrics.exchanges)));
    }

    fn admit(self: &Arc<Self>, stream: TcpStream, address: SocketAddr) {
        let proxied = is_proxied(&self.listen.proxies, address);
        let ip = address.ip();
        let permit = if proxied { self.open.take_unassigned(ip) } else { self.open.take(ip) };
        let Some(permit) = permit else {
            reject_connection(stream);
            return self.refusals.too_many(address);
        };
        self.connections.spawn(self.clone().handshake(stream, address, proxied, permit));
    }

    /// Returns how long a connection may live: a tenth more or less, so that connections that came together do not end
    /// together.
    fn age(&self) -> Duration {
        let tenth = self.listen.max_connection_age / 10;
        let random = u32::from(uuid::Uuid::new_v4().as_bytes()[0]);
        self.listen.max_connection_age - tenth + tenth * 2 * random / 255
    }

    /// Serves one call that arrived at this time, on a connection with a backlog of this age. Nothing of it is read
    /// before it is admitted.
    async fn serve(
        &self,
        peer: &Arc<Peer>,
        request: Request<RequestBody>,
        (arrived, stood): (Instant, Duration),
        form: CallForm,
    ) -> Response<ResponseBody> {
        // The HTTPS port has exchanges, and what clients call of the gateway's own services.
        let is_web = matches!(request.body(), RequestBody::Web(_));
        let own = OwnService::of(request.uri().path()).filter(|own| !is_web || own.is_for_clients());
        let delay = Instant::now().saturating_duration_since(arrived);
        let admitted = match own {
            Some(service) => self.admit_own(peer, service, delay),
            None => self.admit_exchange(peer, delay, stood),
        };
        let answer = match admitted {
            // The delay does not hold the headers.
            Err(refusal) => {
                drop(request);
                response::refused(&refusal, "")
            }
            Ok(_) if header_bytes(&request) > MAX_HEADERS => {
                drop(request);
                let refusal = Reason::MetadataTooLarge.into();
                let id = self.refusals.unhandled(peer, &refusal).await;
                response::refused(&refusal, &id)
            }
            Ok(Admitted::Own(service, call)) => match form.call() {
                Ok(_) => {
                    let infra = self.control.infra.borrow().clone();
                    infra.serve(&self.exchange.shared, peer, request, (service, call), form).await
                }
                Err(unfit) => response::refused(&unfit.into(), ""),
            },
            Ok(Admitted::Exchange(_under_way)) => self.exchange.serve(peer, request, arrived, form).await,
        };
        if is_held_back(&answer, own) {
            self.admission.hold(form.timeout).await;
        }
        match form.fault {
            None => answer,
            Some(fault) => response::over_http(fault, answer),
        }
    }

    /// Begins a call of the HTTPS port, in a task of its own that ends when its response is there or wanted no more.
    fn begin_web(self: &Arc<Self>, call: WebCall) {
        let worker = self.clone();
        self.connections.spawn(async move {
            let WebCall { peer, request, arrived, form, mut reply } = call;
            let response = tokio::select! {
                biased;
                response = worker.serve(&peer, request, (arrived, Duration::ZERO), form) => response,
                () = reply.closed() => return,
            };
            let (response, work) = handed_over(response);
            // A caller that is gone wants none.
            if reply.send(response).is_ok() {
                work.await;
            }
        });
    }

    fn admit_exchange(&self, peer: &Peer, delay: Duration, stood: Duration) -> Result<Admitted, Refusal> {
        let admitted = self.admission.admit(delay, stood);
        admitted.map(Admitted::Exchange).inspect_err(|refusal| self.refusals.call(peer, refusal))
    }

    /// Admits a call of one of the gateway's own services: by its certificate's limits first, so that what one caller asks beyond
    /// that takes nothing of the share that all callers have while a delay persists.
    fn admit_own(&self, peer: &Peer, service: OwnService, delay: Duration) -> Result<Admitted, Refusal> {
        let by = &peer.certificate.thumbprint;
        let call = self.exchange.shared.own_calls.begin(service, by, self.admission.is_late())?;
        self.admission.admit_own(delay).inspect_err(|refusal| self.refusals.call(peer, refusal))?;
        Ok(Admitted::Own(service, call))
    }

    /// Opens a connection. Its calls run in a separate task: ten thousand idle connections hold only what they need,
    /// not what their handshake needed.
    async fn handshake(
        self: Arc<Self>,
        mut stream: TcpStream,
        address: SocketAddr,
        proxied: bool,
        mut permit: ConnectionPermit,
    ) {
        let arrived = arrive(&mut stream, (address, proxied), &mut permit, self.listen.handshake_timeout).await;
        let address = match arrived {
            Ok(peer) => peer,
            Err(ArrivalFailure { address, why }) => return self.arrival_failed(stream, address, &why),
        };
        let limits = &self.exchange.shared.handshakes;
        if limits.begin(address.ip()).is_err() {
            reject_connection(stream);
            return self.refusals.too_many_handshakes(address);
        }
        let opened = self.clone().open(stream, address, permit);
        match tokio::time::timeout(self.listen.handshake_timeout, opened).await {
            Ok(Ok(calls)) => {
                limits.came_through(address.ip());
                self.handshakes.inc();
                self.connections.spawn(calls);
            }
            Ok(Err(unopened)) => self.refusals.handshake(address, &unopened),
            Err(_) => self.refusals.handshake(address, &Cause::Timeout.into()),
        }
    }

    /// Logs a connection that failed before its first byte of TLS.
    fn arrival_failed(&self, stream: TcpStream, address: SocketAddr, why: &ArrivalError) {
        match why.cause() {
            None => self.exchange.shared.metrics.probe(),
            Some(Cause::TooMany) => {
                reject_connection(stream);
                self.refusals.too_many(address);
            }
            Some(cause) => {
                tracing::debug!(%address, error = %why, "a connection came to nothing");
                self.refusals.handshake(address, &cause.into());
            }
        }
    }

    /// Runs the handshakes of TLS and HTTP/2, and then the calls.
    async fn open(
        self: Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        permit: ConnectionPermit,
    ) -> Result<impl Future<Output = ()> + Send + 'static, RefusedBeforeCall> {
        let _ = stream.set_nodelay(true);
        let (backlog, stream) = Backlog::of(stream);
        let mut gate = self.control.gate.clone();
        let config = gate.borrow_and_update().config.clone();
        let (stream, until) = tls::accept(TlsAcceptor::from(config), stream).await?;
        let stream = ServerStream::new(stream);
        // ALPN always negotiates HTTP/2 over TLS (RFC 9113, section 3.2).
        if stream.session().alpn_protocol() != Some(b"h2") {
            return Err(RefusedBeforeCall::protocol(Cause::NoCommonProtocol));
        }
        let chain = stream.session().peer_certificates().unwrap_or_default();
        let certificate = self.exchange.shared.certificates.of(chain).ok_or(Cause::NoCertificate)?;
        let opened = server::ServerConnection::open(stream, self.listen.max_streams, self.patience.clone()).await;
        let (http2, pings) = opened.map_err(|error| match not_http2(&error) {
            Some(_) => RefusedBeforeCall::protocol(Cause::NotHttp2),
            None => Cause::Closed.into(),
        })?;
        let peer = Arc::new(Peer { certificate, address });
        Ok(Arc::new(CallerConnection { worker: self, peer, backlog, _permit: permit }).calls(http2, pings, gate, until))
    }
}

/// The peer of one connection.
struct CallerConnection {
    worker: Arc<Worker>,
    peer: Arc<Peer>,
    backlog: Backlog,
    _permit: ConnectionPermit,
}

impl CallerConnection {
    /// Serves the calls of a connection until it ends; `gate` is the TLS state with which it was admitted.
    #[expect(clippy::manual_async_fn, reason = "an async fn has room for what it is given twice")]
    fn calls(
        self: Arc<Self>,
        mut http2: server::ServerConnection<ServerStream<WatchedStream>>,
        pings: Pings,
        gate: watch::Receiver<Arc<TlsAcceptors>>,
        until: i64,
    ) -> impl Future<Output = ()> + Send {
        async move {
            let worker = &self.worker;
            let mut silent = std::pin::pin!(pings.timeout(|| self.backlog.heard()));
            let mut revoked = std::pin::pin!(certificate_ended(gate, &self.peer.certificate, until));
            // A maximum age, so that new certificates are really used.
            let mut over = std::pin::pin!(tokio::time::timeout(worker.age(), worker.exchange.shared.stop.cancelled()));
            let mut ending = false;
            // Its end is polled first: a caller that never pauses must not be served for ever because of that.
            loop {
                tokio::select! {
                    biased;
                    why = &mut revoked => {
                        if self.peer.certificate.is_over(now()) {
                            // Calls in flight now end by themselves, and report the reason.
                            http2.drain();
                            let _ = tokio::time::timeout(LAST_WORDS, http2.calls(|request, reply| self.begin(request, reply))).await;
                        }
                        http2.close().await;
                        break worker.refusals.closed(self.peer.address, &why);
                    }
                    () = &mut silent => break,
                    _ = &mut over, if !ending => {
                        ending = true;
                        http2.drain();
                    }
                    ended = http2.calls(|request, reply| self.begin(request, reply)) => {
                        if let Some(reason) = ended.err().and_then(|error| not_http2(&error)) {
                            worker.refusals.connection(self.peer.address, reason);
                        }
                        break;
                    }
                }
            }
        }
    }

    /// Begins a call, in a separate task that ends when the response is sent or no longer wanted.
    fn begin(self: &Arc<Self>, request: Request<Incoming>, mut reply: Reply) {
        let (caller, arrived) = (self.clone(), Instant::now());
        let stood = self.backlog.age(arrived);
        // Boxed at once: otherwise it would be copied several times on its way into a task.
        tokio::spawn(Box::pin(async move {
            let form = CallForm::grpc(protocol::check(request.method(), request.headers()));
            let request = request.map(RequestBody::Http2);
            let answer = tokio::select! {
                biased;
                answer = caller.worker.serve(&caller.peer, request, (arrived, stood), form) => answer,
                () = reply.given_up() => return,
            };
            if let Err(error) = response::send(answer, reply).await {
                tracing::debug!(%error, "a response did not reach its caller");
            }
        }));
    }
}

/// Returns whether a refusal is delayed, so that a caller that ignores it is slowed down by its own streams. Rates of
/// exchanges are excluded: calls beyond a grant's rate are refused at once.
fn is_held_back(answer: &Response<ResponseBody>, own: Option<OwnService>) -> bool {
    match answer.extensions().get() {
        Some(Reason::GatewayOverloaded) => true,
        Some(Reason::RateLimited | Reason::TooManyWatches) => own.is_some(),
        _ => false,
    }
}

/// Returns the reason for refusing a connection that ended because its peer does not speak HTTP/2: detected by us, or
/// by our error to the peer.
fn not_http2(error: &h2::Error) -> Option<Reason> {
    let unsupported = error.is_library() && error.reason() == Some(h2::Reason::PROTOCOL_ERROR);
    unsupported.then_some(Reason::ProtocolUnsupported)
}
