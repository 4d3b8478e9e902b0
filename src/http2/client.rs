//! HTTP/2 as a client: one connection for all calls to an address, made when it is needed. Workers reach gRPC sources by it, and
//! the command line reaches a gateway. A call that meets a GOAWAY before it was sent goes by a new connection, where hyper's
//! client lets it fail.

use super::{Http2Error, Incoming, Outgoing, innermost};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either, Shared};
use h2::client::{ResponseFuture, SendRequest};
use h2::{Ping, PingPong, Reason};
use http::uri::{Parts, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tower::ServiceExt;

/// Window of one call's answer: a message of usual size without a pause.
const STREAM_WINDOW: u32 = 1 << 20;
/// Window of the connection, which all calls share.
const CONNECTION_WINDOW: u32 = 1 << 24;
/// Longest list of headers or trailers of an answer.
const MAX_HEADERS: u32 = 64 << 10;
/// Longest time for a connection with its handshakes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const NO_ADDRESS: &str = "its address and path make no URI";
/// Longest interval between pings, however often a peer asked for calm.
const MAX_KEEPALIVE: Duration = Duration::from_secs(7_200);

/// How it is found out that a peer is gone (gRPC's keepalive guide, gRFC A8). Servers take pings amiss: gRPC's own close a connection
/// that brings more than one in five minutes without data, so that is how often one is sent unless something else is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// How often a peer is pinged. Twice as long after each GOAWAY that says `too_many_pings`.
    pub time: Duration,
    /// How long the answer to a ping may take.
    pub timeout: Duration,
    /// Whether a peer without a call under way is pinged, too.
    pub without_calls: bool,
}

impl Default for Keepalive {
    /// Somewhat more than five minutes, so that no two pings arrive within them; 20 s for an answer; only with calls under way.
    fn default() -> Self {
        Keepalive { time: Duration::from_secs(330), timeout: Duration::from_secs(20), without_calls: false }
    }
}

/// The head of a gRPC request; `grpc-timeout` in milliseconds, of which it takes eight digits (gRPC over HTTP/2, "Timeout").
/// What is left of a deadline never comes again, so it stays out of HPACK's dynamic table (RFC 7541, section 6.2.3).
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

/// An address, with the connection to it.
pub struct Http2 {
    place: Arc<Place>,
}

struct Place {
    /// Scheme and authority.
    address: Option<Uri>,
    connector: HttpsConnector<HttpConnector>,
    state: Mutex<State>,
    keepalive: Keepalive,
    /// How often the peer is pinged, in milliseconds.
    ping_ms: AtomicU64,
}

type Connected = Result<Live, Arc<str>>;
type Connecting = Shared<BoxFuture<'static, Connected>>;

enum State {
    None,
    Connecting(Connecting),
    Live(Live),
}

#[derive(Clone)]
struct Live {
    send: SendRequest<Bytes>,
    /// Calls under way. Each connection has its own, which tells it from others.
    under_way: Arc<AtomicUsize>,
}

/// One of the calls under way.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        UnderWay(count.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A call that was begun. Dropping both halves resets its stream.
pub struct Begun {
    /// Takes the request's messages.
    pub request: Outgoing,
    /// Gives the answer.
    pub answer: Answer,
}

/// An answer that is awaited.
pub struct Answer {
    response: ResponseFuture,
    under_way: UnderWay,
}

impl Answer {
    /// The head of the answer, and its body.
    pub async fn head(self) -> Result<Response<Incoming>, Http2Error> {
        let response = self.response.await?;
        Ok(response.map(|body| Incoming::new(body, Some(self.under_way))))
    }
}

impl Http2 {
    /// HTTP/2 to `address` (`https://host:port`); connects with the first call.
    pub fn new(address: &str, connector: HttpsConnector<HttpConnector>) -> Self {
        Http2::kept_alive(address, connector, Keepalive::default())
    }

    /// The same, with pings of its own.
    pub fn kept_alive(address: &str, connector: HttpsConnector<HttpConnector>, keepalive: Keepalive) -> Self {
        let (address, state) = (address.parse().ok(), Mutex::new(State::None));
        let ping_ms = AtomicU64::new(u64::try_from(keepalive.time.as_millis()).unwrap_or(u64::MAX));
        Http2 { place: Arc::new(Place { address, connector, state, keepalive, ping_ms }) }
    }

    /// Begins a call with this head. A connection that turns out to be closed is made anew, once: nothing has been sent by it
    /// then, and the head is made anew, too.
    pub async fn begin<E: From<Http2Error>>(
        &self,
        path: &PathAndQuery,
        head: impl Fn() -> Result<HeaderMap, E>,
    ) -> Result<Begun, E> {
        let first = self.place.live().await?;
        if let Ok(begun) = first.begin(self.place.request(path, head()?)?).await {
            return Ok(begun);
        }
        self.place.forget(&first);
        let next = self.place.live().await?;
        Ok(next.begin(self.place.request(path, head()?)?).await?)
    }
}

impl Live {
    async fn begin(&self, request: Request<()>) -> Result<Begun, Http2Error> {
        let mut send = self.send.clone().ready().await?;
        let (response, request) = send.send_request(request, false)?;
        Ok(Begun {
            request: Outgoing { stream: request, patience: None },
            answer: Answer { response, under_way: UnderWay::new(&self.under_way) },
        })
    }
}

impl Place {
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn address(&self) -> Result<Uri, Http2Error> {
        self.address.clone().ok_or_else(|| Http2Error::NoConnection(NO_ADDRESS.into()))
    }

    /// The connection; where there is none, all who want one wait for the same.
    async fn live(self: &Arc<Self>) -> Result<Live, Http2Error> {
        let connecting = {
            let mut state = self.state();
            match &*state {
                State::Live(live) => return Ok(live.clone()),
                State::Connecting(connecting) => connecting.clone(),
                State::None => {
                    let connecting = self.clone().connect_apart();
                    *state = State::Connecting(connecting.clone());
                    connecting
                }
            }
        };
        connecting.await.map_err(Http2Error::NoConnection)
    }

    /// Connects in a task of its own: who began it may go away, others wait for it.
    fn connect_apart(self: Arc<Self>) -> Connecting {
        let task = tokio::spawn(async move {
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, self.connect()).await;
            let connected = connected.unwrap_or_else(|_| Err("no connection in time".into()));
            *self.state() = connected.clone().map_or(State::None, State::Live);
            connected
        });
        async move { task.await.unwrap_or_else(|_| Err("the connection was given up".into())) }.boxed().shared()
    }

    async fn connect(self: &Arc<Self>) -> Connected {
        let address = self.address().map_err(|error| Arc::from(error.to_string()))?;
        let stream = self.connector.clone().oneshot(address).await.map_err(|error| Arc::from(innermost(&*error)))?;
        let builder = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEADERS)
            .enable_push(false)
            .handshake(TokioIo::new(stream));
        let (send, mut connection) = builder.await.map_err(|error| Arc::from(innermost(&error)))?;
        let live = Live { send, under_way: Arc::default() };
        let (pings, place, this) = (connection.ping_pong(), Arc::downgrade(self), live.under_way.clone());
        tokio::spawn(async move {
            let silent = std::pin::pin!(silent(pings, place.clone(), || this.load(Ordering::Relaxed) == 0));
            // Whoever still waits on it is told when it is dropped.
            let ended = futures_util::future::select(connection, silent).await;
            let Some(place) = place.upgrade() else { return };
            if let Either::Left((Err(error), _)) = &ended
                && error.is_go_away()
                && error.is_remote()
                && error.reason() == Some(Reason::ENHANCE_YOUR_CALM)
                && error.to_string().contains("too_many_pings")
            {
                place.calm();
            }
            place.forget_if(&this);
        });
        Ok(live)
    }

    fn ping_every(&self) -> Duration {
        Duration::from_millis(self.ping_ms.load(Ordering::Relaxed))
    }

    /// The peer took pings amiss: half as many from now on.
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

    fn forget(&self, live: &Live) {
        self.forget_if(&live.under_way);
    }

    fn forget_if(&self, which: &Arc<AtomicUsize>) {
        let mut state = self.state();
        if matches!(&*state, State::Live(live) if Arc::ptr_eq(&live.under_way, which)) {
            *state = State::None;
        }
    }
}

/// Ends when the peer does not answer a ping in time.
async fn silent(pings: Option<PingPong>, place: Weak<Place>, idle: impl Fn() -> bool) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        let Some((every, keepalive)) = place.upgrade().map(|place| (place.ping_every(), place.keepalive)) else {
            // Nobody begins a call any more; those under way end by their deadlines.
            return std::future::pending().await;
        };
        tokio::time::sleep(every).await;
        if idle() && !keepalive.without_calls {
            continue;
        }
        match tokio::time::timeout(keepalive.timeout, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
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
            assert_eq!(http2.place.ping_every(), usual * times);
            http2.place.calm();
        }
        assert_eq!(http2.place.ping_every(), MAX_KEEPALIVE);
    }
}
