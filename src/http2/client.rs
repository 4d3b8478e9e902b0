//! HTTP/2 as a client: a pool of connections to one address, opened when they are needed. Workers use it towards gRPC
//! sources, and the command line towards a gateway. A call that meets a GOAWAY before it was sent uses a new
//! connection; hyper's client would fail it.
//!
//! Calls share a connection as long as the peer accepts more streams on it (SETTINGS_MAX_CONCURRENT_STREAMS); then
//! another one is opened, up to a limit (as in gRFC A105 and in Envoy's pools); then they wait for a stream, which is
//! the gateway's limit and not the peer's fault: [`StreamWait`]. The window of a connection is as large as those of all
//! its streams together, so that a stream without a reader takes no window from others (grpc-go has the same effect: it
//! opens the connection's window whether or not a stream is read).

use super::connection::{ConnectionState as Connection, LiveConnection, OpenStream, Owner, connect};
pub use super::connection::{Keepalive, Limits};
use super::{Http2Error, Incoming, Outgoing};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, select};
use h2::client::ResponseFuture;
use http::uri::{Parts, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Longest time to open a connection, handshakes included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long no further connection is tried after a failed one, while others are open.
const GROW_AGAIN: Duration = Duration::from_secs(1);
const NO_ADDRESS: &str = "its address and path make no URI";
/// Longest interval between pings, however often a peer sends ENHANCE_YOUR_CALM.
const MAX_KEEPALIVE: Duration = Duration::from_secs(7_200);

/// The headers of a gRPC request; `grpc-timeout` in milliseconds, at most eight digits (gRPC over HTTP/2, "Timeout"). A
/// remaining deadline never repeats, so it stays out of HPACK's dynamic table (RFC 7541, section 6.2.3).
pub fn grpc_head(timeout: Option<Duration>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    let timeout = timeout.map(|timeout| format!("{}m", timeout.as_millis().min(99_999_999)));
    if let Some(Ok(mut value)) = timeout.map(HeaderValue::try_from) {
        value.set_sensitive(true);
        headers.insert("grpc-timeout", value);
    }
    headers
}

/// Whether a call waits for a stream, because all connections have as many as their peer accepts, and how long it has
/// waited.
#[derive(Debug, Default)]
pub struct StreamWait {
    waits: AtomicBool,
    waited_us: AtomicU64,
}

impl StreamWait {
    /// Returns whether it waits now.
    pub fn is_waiting(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }

    /// Returns how long it has waited, without the present wait.
    pub fn waited(&self) -> Duration {
        Duration::from_micros(self.waited_us.load(Ordering::Relaxed))
    }

    fn begin(&self) -> StreamWaiting<'_> {
        self.waits.store(true, Ordering::Relaxed);
        StreamWaiting { wait: self, since: Instant::now() }
    }
}

/// A wait that ends when this is dropped: with the stream, or with an error. If the call is abandoned, it is still
/// waiting.
struct StreamWaiting<'w> {
    wait: &'w StreamWait,
    since: Instant,
}

impl StreamWaiting<'_> {
    fn end(self) {
        let waited = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX >> 16);
        self.wait.waited_us.fetch_add(waited, Ordering::Relaxed);
        self.wait.waits.store(false, Ordering::Relaxed);
    }
}

/// An address, with the connections to it.
pub struct Http2 {
    pool: Arc<Pool>,
}

/// The connections to an address.
struct Pool {
    /// Scheme and authority.
    address: Option<Uri>,
    connector: HttpsConnector<HttpConnector>,
    limits: Limits,
    keepalive: Keepalive,
    /// Interval of pings, in milliseconds.
    ping_ms: AtomicU64,
    state: Mutex<ConnectionPoolState>,
    /// Notified when a stream may have come free.
    freed: Arc<Notify>,
    open: Arc<AtomicUsize>,
}

type Connecting = Shared<BoxFuture<'static, Result<(), Arc<str>>>>;

#[derive(Default)]
struct ConnectionPoolState {
    live: Vec<LiveConnection>,
    connecting: Option<Connecting>,
    /// When another connection may be tried beside the open ones.
    grow_after: Option<Instant>,
}

/// The result of a search for a stream.
enum StreamSearch {
    Stream(LiveConnection, OpenStream),
    /// A connection is being opened; `only`: there is no other.
    Connecting(Connecting, bool),
    /// The maximum number of streams is in use, until this time at least.
    Full(Option<Instant>),
}

/// A started call. Dropping both halves resets its stream.
pub struct StartedCall {
    /// Takes the request's messages.
    pub request: Outgoing,
    /// Returns the response.
    pub response: PendingResponse,
    /// Its connection.
    pub connection: CallConnection,
}

/// The connection of a call.
#[derive(Debug, Clone)]
pub struct CallConnection(Arc<Connection>);

impl CallConnection {
    /// Returns whether the peer ended the connection with ENHANCE_YOUR_CALM.
    pub fn is_enhance_your_calm(&self) -> bool {
        self.0.was_enhance_your_calm()
    }
}

impl StartedCall {
    fn new(
        request: h2::SendStream<bytes::Bytes>,
        response: ResponseFuture,
        under_way: OpenStream,
        connection: Arc<Connection>,
    ) -> Self {
        let request = Outgoing { stream: request, patience: None };
        StartedCall {
            request,
            response: PendingResponse { response, under_way },
            connection: CallConnection(connection),
        }
    }
}

/// A response that has not arrived yet.
pub struct PendingResponse {
    response: ResponseFuture,
    under_way: OpenStream,
}

impl PendingResponse {
    /// Waits for the headers of the response, and returns them with its body.
    ///
    /// # Errors
    /// [`Http2Error::Unprocessed`] if the peer has certainly not processed the call, which may then be sent again;
    /// [`Http2Error::Broken`] or [`Http2Error::EnhanceYourCalm`] if it may have.
    pub async fn head(mut self) -> Result<Response<Incoming>, Http2Error> {
        match self.response.await {
            Ok(response) => Ok(response.map(|body| Incoming::new(body, Some(self.under_way)))),
            Err(error) => {
                self.under_way.ended();
                Err(error.into())
            }
        }
    }
}

impl Http2 {
    /// HTTP/2 to `address` (`https://host:port`) by one connection; connects with the first call.
    pub fn new(address: &str, connector: HttpsConnector<HttpConnector>) -> Self {
        Http2::pooled(address, connector, Keepalive::default(), Limits::SINGLE, Arc::default())
    }

    /// The same with several connections and its own pings; `open` counts the open ones.
    pub fn pooled(
        address: &str,
        connector: HttpsConnector<HttpConnector>,
        keepalive: Keepalive,
        limits: Limits,
        open: Arc<AtomicUsize>,
    ) -> Self {
        let ping_ms = AtomicU64::new(u64::try_from(keepalive.time.as_millis()).unwrap_or(u64::MAX));
        let (address, state, freed) = (address.parse().ok(), Mutex::default(), Arc::default());
        Http2 { pool: Arc::new(Pool { address, connector, limits, keepalive, ping_ms, state, freed, open }) }
    }

    /// Starts a call with these headers. If a connection turns out to be closed, it is dropped and the call uses
    /// another one: nothing has been sent then, and `head` is called again.
    ///
    /// # Errors
    /// [`Http2Error::NoConnection`] if no connection can be opened; the error of `head`.
    pub async fn begin<E: From<Http2Error>>(
        &self,
        path: &PathAndQuery,
        head: impl Fn() -> Result<HeaderMap, E>,
    ) -> Result<StartedCall, E> {
        self.begin_with(path, head, None).await
    }

    /// As [`Http2::begin`], and reports through `wait` whether the call waits for a stream.
    ///
    /// # Errors
    /// As for [`Http2::begin`].
    pub async fn begin_with<E: From<Http2Error>>(
        &self,
        path: &PathAndQuery,
        head: impl Fn() -> Result<HeaderMap, E>,
        wait: Option<&StreamWait>,
    ) -> Result<StartedCall, E> {
        // Each existing one may be closed; a connection that is opened then is new.
        let mut left = self.pool.limits.connections;
        loop {
            let (live, under_way) = self.pool.stream(wait).await?;
            let connection = live.shared.clone();
            match live.begin(self.pool.request(path, head()?)?, under_way).await {
                Ok((request, response, under_way)) => {
                    return Ok(StartedCall::new(request, response, under_way, connection));
                }
                Err(error) if left == 0 => return Err(error.into()),
                Err(_) => left -= 1,
            }
            self.pool.forget(&connection);
        }
    }
}

impl Pool {
    fn request(&self, path: &PathAndQuery, headers: HeaderMap) -> Result<Request<()>, Http2Error> {
        let mut parts: Parts = self.address()?.into_parts();
        parts.path_and_query = Some(path.clone());
        let uri = Uri::from_parts(parts).map_err(|_| Http2Error::NoConnection(NO_ADDRESS.into()))?;
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Ok(request)
    }

    fn state(&self) -> MutexGuard<'_, ConnectionPoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn address(&self) -> Result<Uri, Http2Error> {
        self.address.clone().ok_or_else(|| Http2Error::NoConnection(NO_ADDRESS.into()))
    }

    /// Returns a stream on one of the connections. If there is no connection, all callers wait for the same one; if all
    /// are full, for a stream.
    async fn stream(self: &Arc<Self>, wait: Option<&StreamWait>) -> Result<(LiveConnection, OpenStream), Http2Error> {
        let mut waiting: Option<StreamWaiting> = None;
        loop {
            // Created before the search, so that a stream that becomes free between the two is not missed.
            let freed = std::pin::pin!(self.freed.notified());
            match self.find() {
                StreamSearch::Stream(live, under_way) => {
                    if let Some(waiting) = waiting {
                        waiting.end();
                    }
                    return Ok((live, under_way));
                }
                StreamSearch::Connecting(connecting, true) => {
                    // From here on the peer's time counts.
                    if let Some(waiting) = waiting.take() {
                        waiting.end();
                    }
                    connecting.await.map_err(Http2Error::NoConnection)?;
                }
                StreamSearch::Connecting(connecting, false) => {
                    waiting = waiting.or_else(|| wait.map(StreamWait::begin));
                    select(connecting, freed).await;
                }
                StreamSearch::Full(until) => {
                    waiting = waiting.or_else(|| wait.map(StreamWait::begin));
                    let until = async {
                        match until {
                            Some(until) => tokio::time::sleep_until(until.into()).await,
                            None => std::future::pending().await,
                        }
                    };
                    select(std::pin::pin!(until), freed).await;
                }
            }
        }
    }

    /// Searches for a stream on the connection with the fewest.
    fn find(self: &Arc<Self>) -> StreamSearch {
        let mut state = self.state();
        state.live.retain(|live| !live.is_retired());
        let free = state.live.iter().filter(|live| live.has_room(self.limits.streams));
        if let Some(live) = free.min_by_key(|live| live.shared.under_way()) {
            return StreamSearch::Stream(live.clone(), OpenStream::new(&live.shared));
        }
        let only = state.live.is_empty();
        if let Some(connecting) = state.connecting.as_ref().filter(|connecting| connecting.peek().is_none()) {
            return StreamSearch::Connecting(connecting.clone(), only);
        }
        let later = state.grow_after.filter(|after| !only && Instant::now() < *after);
        if state.live.len() >= self.limits.connections || later.is_some() {
            return StreamSearch::Full(later);
        }
        let connecting = self.clone().connect_apart();
        state.connecting = Some(connecting.clone());
        StreamSearch::Connecting(connecting, only)
    }

    /// Connects in a separate task: the caller that began it may leave, others wait for it.
    fn connect_apart(self: Arc<Self>) -> Connecting {
        let task = tokio::spawn(async move {
            let connecting = async {
                let address = self.address().map_err(|error| Arc::from(error.to_string()))?;
                connect(&self, address).await
            };
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
            let connected = connected.unwrap_or_else(|_| Err("no connection in time".into()));
            let mut state = self.state();
            state.connecting = None;
            match connected {
                Ok(live) => {
                    state.live.push(live);
                    Ok(())
                }
                Err(why) => {
                    state.grow_after = Some(Instant::now() + GROW_AGAIN);
                    Err(why)
                }
            }
        });
        async move { task.await.unwrap_or_else(|_| Err("the connection was given up".into())) }.boxed().shared()
    }
}

impl Owner for Pool {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn connector(&self) -> HttpsConnector<HttpConnector> {
        self.connector.clone()
    }

    fn keepalive(&self) -> Keepalive {
        self.keepalive
    }

    fn freed(&self) -> Arc<Notify> {
        self.freed.clone()
    }

    fn open(&self) -> Arc<AtomicUsize> {
        self.open.clone()
    }

    fn ping_every(&self) -> Duration {
        Duration::from_millis(self.ping_ms.load(Ordering::Relaxed))
    }

    /// The peer rejects the pings: half as many from now on.
    fn calm(&self) {
        let next = (self.ping_every() * 2).min(MAX_KEEPALIVE);
        self.ping_ms.store(u64::try_from(next.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let peer = self.address.as_ref().map(Uri::to_string).unwrap_or_default();
        tracing::warn!(
            peer,
            every_s = next.as_secs(),
            "a peer says that it is pinged too often: half as often from now on"
        );
    }

    /// Begins no more calls on a connection.
    fn forget(&self, which: &Arc<Connection>) {
        self.state().live.retain(|live| !Arc::ptr_eq(&live.shared, which));
        self.freed.notify_waiters();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn b4_a_peer_that_takes_pings_amiss_gets_half_as_many_each_time() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let roots = rustls::RootCertStore::empty();
        let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let http2 = Http2::new("https://127.0.0.1:1", crate::drivers::http::connector(tls, false));
        let usual = Keepalive::default().time;
        assert!(usual > Duration::from_secs(300), "gRPC's servers take one in five minutes");
        for times in [1, 2, 4, 8, 16] {
            assert_eq!(http2.pool.ping_every(), usual * times);
            http2.pool.calm();
        }
        assert_eq!(http2.pool.ping_every(), MAX_KEEPALIVE);
    }
}
