//! One HTTP/2 connection of a [`super::client`]: how it is opened, how many streams it has, how a dead peer is
//! detected, and when it is retired.

use super::Http2Error;
use super::innermost;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{Either, select};
use h2::client::{ResponseFuture, SendRequest};
use h2::{Ping, PingPong, Reason, SendStream};
use http::{Request, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tower::ServiceExt;

/// Largest list of headers or trailers of a response, in bytes.
const MAX_HEADERS: u32 = 64 << 10;
/// Largest window of a connection (RFC 9113, section 6.9.1), in bytes.
const MAX_WINDOW: u64 = (1 << 31) - 1;
/// The period over which the resets of a connection are counted. Servers that count them use the same period (Netty:
/// 200 in 30 s).
const RESETS_WITHIN: Duration = Duration::from_secs(30);

/// Detection of a dead peer (gRPC's keepalive guide, gRFC A8). Servers object to frequent pings: gRPC's own close a
/// connection with more than one in five minutes without data, so this is the interval unless another is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// The interval of pings. It doubles after each GOAWAY with `too_many_pings`.
    pub time: Duration,
    /// How long the response to a ping may take.
    pub timeout: Duration,
    /// Whether a peer is pinged without calls in flight, too.
    pub without_calls: bool,
}

impl Default for Keepalive {
    /// Slightly more than five minutes, so that no two pings arrive within them; 20 s for a response; only with calls
    /// in flight.
    fn default() -> Self {
        Keepalive { time: Duration::from_secs(330), timeout: Duration::from_secs(20), without_calls: false }
    }
}

/// Bounds of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of connections.
    pub connections: usize,
    /// Maximum number of streams of a connection; fewer if the peer accepts fewer.
    pub streams: usize,
    /// Window of a stream, in bytes: a message of usual size without a pause. A connection's is `streams` times as large.
    pub window: u32,
    /// Resets within 30 s after which a connection begins no new calls.
    pub resets: u32,
}

impl Limits {
    /// One connection, which ends with its peer or its owner.
    pub const SINGLE: Self = Limits { connections: 1, streams: 1_024, window: 1 << 20, resets: u32::MAX };
}

/// The pool that a connection belongs to, as the connection sees it.
pub(super) trait Owner: Send + Sync + 'static {
    /// Limits of its connections.
    fn limits(&self) -> Limits;
    /// Makes the transport.
    fn connector(&self) -> HttpsConnector<HttpConnector>;
    /// How a dead peer is detected.
    fn keepalive(&self) -> Keepalive;
    /// Notified when a stream may have come free.
    fn freed(&self) -> Arc<Notify>;
    /// Counts the open connections.
    fn open(&self) -> Arc<AtomicUsize>;
    /// Present interval of pings.
    fn ping_every(&self) -> Duration;
    /// The peer rejects the pings: half as many from now on.
    fn calm(&self);
    /// Begins no more calls on a connection.
    fn forget(&self, which: &Arc<ConnectionState>);
}

/// A connection on which calls can begin.
#[derive(Clone)]
pub(super) struct LiveConnection {
    send: SendRequest<Bytes>,
    pub(super) shared: Arc<ConnectionState>,
}

/// The state of one connection that the pool, the calls and the connection's own task share.
#[derive(Debug)]
pub(super) struct ConnectionState {
    under_way: AtomicUsize,
    /// Streams that the peer accepts at once (SETTINGS_MAX_CONCURRENT_STREAMS).
    peer_takes: AtomicUsize,
    /// The peer ended the connection with ENHANCE_YOUR_CALM.
    calm: AtomicBool,
    /// Starts no more calls: those in flight end on it.
    retired: AtomicBool,
    resets: Mutex<(Instant, u32)>,
    max_resets: u32,
    /// Notified when a stream comes free.
    freed: Arc<Notify>,
    /// Number of open connections, including this one.
    open: Arc<AtomicUsize>,
}

impl Drop for ConnectionState {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ConnectionState {
    fn new(limits: &Limits, freed: Arc<Notify>, open: Arc<AtomicUsize>) -> Arc<Self> {
        open.fetch_add(1, Ordering::Relaxed);
        Arc::new(ConnectionState {
            under_way: AtomicUsize::new(0),
            peer_takes: AtomicUsize::new(0),
            calm: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            resets: Mutex::new((Instant::now(), 0)),
            max_resets: limits.resets,
            freed,
            open,
        })
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Returns whether the peer ended the connection with ENHANCE_YOUR_CALM.
    pub(super) fn was_enhance_your_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    /// Counts one more reset. With too many in a short time the connection begins no new calls, before the peer closes
    /// it together with other calls.
    fn reset(&self) {
        let mut resets = self.resets.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if now.saturating_duration_since(resets.0) > RESETS_WITHIN {
            *resets = (now, 0);
        }
        resets.1 = resets.1.saturating_add(1);
        if resets.1 >= self.max_resets {
            self.retired.store(true, Ordering::Relaxed);
        }
    }
}

/// One of the calls in flight. Dropped before [`OpenStream::ended`], it counts as a reset.
#[derive(Debug)]
pub(crate) struct OpenStream {
    connection: Arc<ConnectionState>,
    ended: bool,
}

impl OpenStream {
    pub(super) fn new(connection: &Arc<ConnectionState>) -> Self {
        connection.under_way.fetch_add(1, Ordering::Relaxed);
        OpenStream { connection: connection.clone(), ended: false }
    }

    /// The peer has ended the stream.
    pub(super) fn ended(&mut self) {
        self.ended = true;
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        if !self.ended {
            self.connection.reset();
        }
        self.connection.under_way.fetch_sub(1, Ordering::Relaxed);
        self.connection.freed.notify_one();
    }
}

impl LiveConnection {
    /// Returns whether another call may begin: the peer and the pool accept one more stream.
    pub(super) fn has_room(&self, streams: usize) -> bool {
        self.shared.under_way() < self.shared.peer_takes.load(Ordering::Relaxed).min(streams)
    }

    pub(super) fn is_retired(&self) -> bool {
        self.shared.retired.load(Ordering::Relaxed)
    }

    /// Begins a call that is already counted.
    pub(super) async fn begin(
        self,
        request: Request<()>,
        mut under_way: OpenStream,
    ) -> Result<(SendStream<Bytes>, ResponseFuture, OpenStream), Http2Error> {
        let begun = async {
            let mut send = self.send.ready().await?;
            send.send_request(request, false)
        };
        match begun.await {
            Ok((response, request)) => Ok((request, response, under_way)),
            Err(error) => {
                under_way.ended();
                Err(error.into())
            }
        }
    }
}

/// Connects. If a peer closes the connection in good order before it has accepted a call (it renews its connections, or
/// ends), another one is opened, once.
pub(super) async fn connect<P: Owner>(pool: &Arc<P>, address: Uri) -> Result<LiveConnection, Arc<str>> {
    match connect_once(pool, address.clone()).await? {
        Some(live) => Ok(live),
        None => connect_once(pool, address).await?.ok_or_else(|| Arc::from("the peer ended the connection")),
    }
}

/// Connects; `None` if the peer closed the connection in good order. The connection is open when the peer's SETTINGS
/// have arrived, which state the number of streams that it accepts.
async fn connect_once<P: Owner>(pool: &Arc<P>, address: Uri) -> Result<Option<LiveConnection>, Arc<str>> {
    let connector = pool.connector();
    let stream = connector.oneshot(address).await.map_err(|error| Arc::<str>::from(innermost(&*error)))?;
    let limits = pool.limits();
    let window = u64::from(limits.window).saturating_mul(limits.streams as u64).min(MAX_WINDOW);
    let (send, mut connection) = h2::client::Builder::new()
        .initial_window_size(limits.window)
        .initial_connection_window_size(u32::try_from(window).unwrap_or(u32::MAX >> 1))
        .max_header_list_size(MAX_HEADERS)
        .initial_max_send_streams(0)
        .enable_push(false)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Arc::<str>::from(innermost(&error)))?;
    let settled = poll_fn(|context| match connection.poll_unpin(context) {
        Poll::Ready(Err(error)) if error.is_go_away() && error.reason() == Some(Reason::NO_ERROR) => {
            Poll::Ready(Ok(false))
        }
        Poll::Ready(Err(error)) => Poll::Ready(Err(Arc::<str>::from(innermost(&error)))),
        Poll::Ready(Ok(())) => Poll::Ready(Ok(false)),
        Poll::Pending if connection.max_concurrent_send_streams() > 0 => Poll::Ready(Ok(true)),
        Poll::Pending => Poll::Pending,
    });
    if !settled.await? {
        return Ok(None);
    }
    let shared = ConnectionState::new(&limits, pool.freed(), pool.open());
    shared.peer_takes.store(connection.max_concurrent_send_streams(), Ordering::Relaxed);
    let pings = connection.ping_pong();
    tokio::spawn(run(connection, pings, Arc::downgrade(pool), shared.clone()));
    Ok(Some(LiveConnection { send, shared }))
}

/// Drives a connection until it ends or the peer is found to be dead.
async fn run<T, P>(
    mut connection: h2::client::Connection<T, Bytes>,
    pings: Option<PingPong>,
    pool: Weak<P>,
    shared: Arc<ConnectionState>,
) where
    P: Owner,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let driven = poll_fn(|context| {
        let polled = connection.poll_unpin(context);
        match &polled {
            // Set before the calls that wait for their responses learn that the connection ended: they are polled after
            // this.
            Poll::Ready(Err(error)) if is_calm(error) => shared.calm.store(true, Ordering::Relaxed),
            Poll::Ready(_) => {}
            Poll::Pending => {
                let takes = connection.max_concurrent_send_streams();
                if shared.peer_takes.swap(takes, Ordering::Relaxed) < takes {
                    shared.freed.notify_waiters();
                }
            }
        }
        polled
    });
    let silent = std::pin::pin!(ping_timeout(pings, pool.clone(), || shared.under_way() == 0));
    // Dropping it notifies everything that still waits on it.
    let ended = select(driven, silent).await;
    let Some(pool) = pool.upgrade() else { return };
    if let Either::Left((Err(error), _)) = &ended
        && is_calm(error)
        && error.to_string().contains("too_many_pings")
    {
        pool.calm();
    }
    pool.forget(&shared);
}

/// Returns whether a peer closed the connection because of too many requests.
fn is_calm(error: &h2::Error) -> bool {
    error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM)
}

/// Ends when the peer does not respond to a ping in time.
async fn ping_timeout<P: Owner>(pings: Option<PingPong>, pool: Weak<P>, idle: impl Fn() -> bool) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        let Some((every, keepalive)) = pool.upgrade().map(|pool| (pool.ping_every(), pool.keepalive())) else {
            // No new call begins; those in flight end by their deadlines.
            return std::future::pending().await;
        };
        tokio::time::sleep(every).await;
        if idle() && !keepalive.without_calls {
            continue;
        }
        let Keepalive { timeout, .. } = keepalive;
        match tokio::time::timeout(timeout, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}
