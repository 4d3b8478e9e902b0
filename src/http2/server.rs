//! HTTP/2 as a server: one connection of a caller, and its calls.

use super::{Http2Error, Incoming, Outgoing, SendTimeout, ping_timeout};
use bytes::Bytes;
use h2::PingPong;
use h2::server::{self, SendResponse};
use http::{Request, Response};
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// Window of one call's request: a message of usual size without a pause.
const STREAM_WINDOW: u32 = 1 << 20;
/// Window of a connection: the most that one slow caller can make a gateway hold.
const CONNECTION_WINDOW: u32 = 1 << 22;
/// Longest list of headers of a call ([`header_bytes`]): a token of 8 kB and as much again.
pub const MAX_HEADERS: usize = 16 << 10;
/// Longest list of headers that h2 passes on. h2 itself responds to a longer one with HTTP 431, which gRPC does not
/// know; between the two limits, a call is refused as gRPC does. At most `max_streams` of them exist at once, for a
/// short time each.
const MAX_HEADERS_READ: u32 = 128 << 10;
/// Minimum number of calls of a connection that may be reset before they are read. All calls of a connection may be
/// reset at once; more resets are an attack (CVE-2023-44487), and end the connection.
const MAX_PENDING_RESETS: u32 = 32;
/// How long the last frames of a closed connection may take.
const CLOSING: Duration = Duration::from_millis(500);
/// Interval of pings to a silent caller, and the time for its response.
const PING: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));

/// A connection.
pub struct ServerConnection<S> {
    h2: server::Connection<S, Bytes>,
    patience: Arc<SendTimeout>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ServerConnection<S> {
    /// Opens a connection with its settings, and waits for the caller's preface. At most `max_streams` calls run at
    /// once; a caller that keeps its window closed for longer than `patience` allows does not get the rest.
    ///
    /// # Errors
    /// The peer does not speak HTTP/2, or the connection breaks.
    pub async fn open(stream: S, max_streams: u32, patience: Arc<SendTimeout>) -> Result<(Self, Pings), h2::Error> {
        let mut h2 = server::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(max_streams)
            .max_header_list_size(MAX_HEADERS_READ)
            .max_pending_accept_reset_streams(max_streams.max(MAX_PENDING_RESETS) as usize)
            .handshake(stream)
            .await?;
        let pings = Pings(h2.ping_pong());
        Ok((ServerConnection { h2, patience }, pings))
    }

    /// Starts each call that arrives, and moves the connection's data, until the connection ends. May be dropped and called again.
    ///
    /// # Errors
    /// The connection breaks, or the peer violates the protocol.
    pub async fn calls(&mut self, mut begin: impl FnMut(Request<Incoming>, Reply)) -> Result<(), h2::Error> {
        while let Some(accepted) = self.h2.accept().await {
            let (request, reply) = accepted?;
            begin(request.map(|body| Incoming::new(body, None)), Reply { reply, patience: self.patience.clone() });
        }
        Ok(())
    }

    /// Sends GOAWAY, and ends all calls in flight. Takes half a second at most, however little the caller reads.
    pub async fn close(&mut self) {
        self.h2.abrupt_shutdown(h2::Reason::NO_ERROR);
        let _ = tokio::time::timeout(CLOSING, poll_fn(|context| self.h2.poll_closed(context))).await;
    }

    /// Sends GOAWAY: calls in flight finish, no new ones start.
    pub fn drain(&mut self) {
        self.h2.graceful_shutdown();
    }
}

/// The size of a call's headers as RFC 9113 counts it (section 6.5.2).
pub fn header_bytes<T>(request: &Request<T>) -> usize {
    const EACH: usize = 32;
    let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    let authority = request.uri().authority().map_or(0, |authority| authority.as_str().len());
    let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + EACH);
    path + authority + headers.sum::<usize>()
}

/// The pings of a connection.
pub struct Pings(Option<PingPong>);

impl Pings {
    /// Ends when the caller does not respond to a ping; `heard` returns whether it has sent anything since its last
    /// call.
    pub async fn timeout(self, heard: impl FnMut() -> bool) {
        ping_timeout(self.0, PING, heard).await;
    }
}

/// Takes the response to a call. Dropped without one, it resets the call's stream.
pub struct Reply {
    reply: SendResponse<Bytes>,
    patience: Arc<SendTimeout>,
}

impl Reply {
    /// Ends when the caller abandons its call, or the connection breaks.
    pub async fn given_up(&mut self) {
        let _ = poll_fn(|context| self.reply.poll_reset(context)).await;
    }

    /// Sends a response that consists of headers only.
    ///
    /// # Errors
    /// [`Http2Error::Broken`] if the stream has ended.
    pub fn head(mut self, head: Response<()>) -> Result<(), Http2Error> {
        self.reply.send_response(head, true)?;
        Ok(())
    }

    /// Sends the headers of a response; the rest goes through the returned value.
    ///
    /// # Errors
    /// [`Http2Error::Broken`] if the stream has ended.
    pub fn begin(mut self, head: Response<()>) -> Result<Outgoing, Http2Error> {
        Ok(Outgoing { stream: self.reply.send_response(head, false)?, patience: Some(self.patience) })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::pin::pin;
    use tokio::time::{Instant, sleep};
    use tokio_util::sync::CancellationToken;

    fn patience() -> Arc<SendTimeout> {
        Arc::new(SendTimeout { default: PING.0, draining: PING.0, ending: CancellationToken::new() })
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_answers_no_ping_is_given_up_and_one_that_does_is_not() {
        let (here, there) = tokio::io::duplex(1 << 16);
        let (opened, connected) =
            tokio::join!(ServerConnection::open(here, 10, patience()), h2::client::handshake(there));
        let ((mut connection, pings), (_send, caller)) = (opened.unwrap(), connected.unwrap());
        tokio::spawn(async move { connection.calls(|_, _| ()).await });
        let (mut caller, mut silent) = (pin!(caller), pin!(pings.timeout(|| false)));
        tokio::select! {
            _ = &mut caller => panic!("the connection ended"),
            () = &mut silent => panic!("it answers"),
            () = sleep(Duration::from_secs(3_600)) => {}
        }
        // It is still connected, but does nothing any more.
        let began = Instant::now();
        silent.await;
        assert!((PING.1..=PING.0 + PING.1).contains(&began.elapsed()), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_was_heard_is_not_asked() {
        let (here, there) = tokio::io::duplex(1 << 16);
        let (opened, connected) =
            tokio::join!(ServerConnection::open(here, 10, patience()), h2::client::handshake(there));
        let ((_connection, pings), _connected) = (opened.unwrap(), connected.unwrap());
        // Nobody would answer.
        assert!(tokio::time::timeout(Duration::from_secs(3_600), pings.timeout(|| true)).await.is_err());
    }
}
