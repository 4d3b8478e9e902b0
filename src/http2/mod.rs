//! HTTP/2 (RFC 9113) on h2 itself, for both sides of an exchange: a [`server`] for callers, a [`client`] for gRPC
//! sources and for the command line. There is no layer between them and h2: one task reads a call and responds to it;
//! hyper has a second future, channels and a clock for each call.

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use h2::{Ping, PingPong, Reason, RecvStream, SendStream};
use http::HeaderMap;
use http_body::{Body, Frame};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub mod client;
mod connection;
pub mod server;

/// The reason that a call got no response, or that its response did not reach the caller.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Http2Error {
    /// There is no connection, with the reason.
    #[error("{0}")]
    NoConnection(Arc<str>),
    /// The peer has certainly not processed the call: it refused the stream, or its GOAWAY excluded it (RFC 9113,
    /// sections 6.8 and 8.7). It may be sent again.
    #[error("the peer did not process the call")]
    Unprocessed,
    /// The peer reset the call because it is overloaded (ENHANCE_YOUR_CALM); it may have processed it.
    #[error("the peer asks for calm")]
    EnhanceYourCalm,
    /// The connection or the call's stream broke, with the reason.
    #[error("{0}")]
    Broken(String),
}

impl From<h2::Error> for Http2Error {
    fn from(error: h2::Error) -> Self {
        match error.reason() {
            // h2 gives this error only to streams above the GOAWAY's last one; others continue, and break with the
            // connection.
            _ if error.is_go_away() && error.is_remote() => Http2Error::Unprocessed,
            Some(Reason::REFUSED_STREAM) if error.is_remote() => Http2Error::Unprocessed,
            Some(Reason::ENHANCE_YOUR_CALM) if error.is_remote() => Http2Error::EnhanceYourCalm,
            _ => Http2Error::Broken(innermost(&error)),
        }
    }
}

fn ended() -> Http2Error {
    Http2Error::Broken("the stream has ended".into())
}

/// The data and trailers that a peer sends in one stream. Reading opens the window for more.
#[derive(Debug)]
pub struct Incoming {
    body: RecvStream,
    /// Its data has ended, so only trailers may follow.
    ended: bool,
    /// Counted while it is read, if it is the response to one of our calls.
    under_way: Option<connection::OpenStream>,
}

impl Incoming {
    fn new(body: RecvStream, under_way: Option<connection::OpenStream>) -> Self {
        let mut incoming = Incoming { body, ended: false, under_way };
        if incoming.body.is_end_stream() {
            incoming.by_peer();
        }
        incoming
    }

    /// The peer has ended the stream.
    fn by_peer(&mut self) {
        self.under_way.iter_mut().for_each(connection::OpenStream::ended);
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.ended {
            match ready!(self.body.poll_data(context)) {
                Some(Ok(data)) => {
                    let _ = self.body.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => {
                    self.by_peer();
                    return Poll::Ready(Some(Err(error)));
                }
                None => self.ended = true,
            }
        }
        let trailers = ready!(self.body.poll_trailers(context));
        self.by_peer();
        Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)).transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// The data that a peer gets in one stream. Dropped before its end, it resets the stream.
pub struct Outgoing {
    stream: SendStream<Bytes>,
    /// The timeout for a peer that reads nothing; `None` if something else ends the call.
    patience: Option<Arc<SendTimeout>>,
}

/// How long a peer may keep its flow-control window closed before the stream is reset.
#[derive(Debug)]
pub struct SendTimeout {
    /// The usual timeout.
    pub default: Duration,
    /// The timeout while this end drains: a stalled peer must not delay it.
    pub draining: Duration,
    /// Whether this end drains.
    pub ending: CancellationToken,
}

impl SendTimeout {
    /// Until it is at an end.
    async fn lost(&self) {
        tokio::select! {
            () = tokio::time::sleep(self.default) => {}
            () = async {
                self.ending.cancelled().await;
                tokio::time::sleep(self.draining).await;
            } => {}
        }
    }
}

impl Outgoing {
    /// Sends complete data. If the stream has ended already, the reader of its response gets the reason.
    pub fn send_all(&mut self, data: impl IntoIterator<Item = Bytes>) {
        let mut data = data.into_iter();
        let mut part = data.next().unwrap_or_default();
        loop {
            let next = data.next();
            let sent = self.stream.send_data(part, next.is_none());
            match next {
                Some(next) if sent.is_ok() => part = next,
                _ => return,
            }
        }
    }

    /// Sends one complete message, and the trailers that end the stream.
    ///
    /// # Errors
    /// [`Http2Error::Broken`] if the stream or the connection has ended, or the peer has closed its window for longer than the send
    /// timeout.
    pub async fn send_message(&mut self, data: Bytes, trailers: HeaderMap) -> Result<(), Http2Error> {
        self.stream.reserve_capacity(data.len());
        // Nearly every response fits the peer's window. A larger one is not left to the connection, which would hold it
        // for as long as the peer likes.
        if self.stream.capacity() >= data.len() {
            self.stream.send_data(data, false)?;
        } else {
            self.send_part(data).await?;
        }
        Ok(self.stream.send_trailers(trailers)?)
    }

    /// Sends a part of the body as the peer's flow-control window allows.
    ///
    /// # Errors
    /// As for [`Outgoing::send_message`].
    pub async fn send_part(&mut self, mut data: Bytes) -> Result<(), Http2Error> {
        while !data.is_empty() {
            self.stream.reserve_capacity(data.len());
            let ready = self.capacity().await?.min(data.len());
            // A smaller window may revoke capacity that was given.
            if ready > 0 {
                self.stream.send_data(data.split_to(ready), false)?;
            }
        }
        Ok(())
    }

    /// Waits until the peer reads something; a peer that reads nothing for too long gets no more (RFC 9113, section
    /// 10.5: a window that is never opened makes the sender hold its data).
    async fn capacity(&mut self) -> Result<usize, Http2Error> {
        let patience = self.patience.clone();
        let lost = async {
            match patience {
                Some(patience) => patience.lost().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            given = poll_fn(|context| self.stream.poll_capacity(context)) => return Ok(given.ok_or_else(ended)??),
            () = lost => {}
        }
        self.stream.send_reset(Reason::CANCEL);
        Err(Http2Error::Broken("the peer took nothing for too long".into()))
    }

    /// Sends frames as they come, as the peer's flow-control window allows, until they end or the peer resets the stream.
    ///
    /// # Errors
    /// As for [`Outgoing::send_message`]; an error of the frames resets the stream.
    pub async fn frames<E>(mut self, frames: impl Stream<Item = Result<Frame<Bytes>, E>>) -> Result<(), Http2Error> {
        let mut frames = std::pin::pin!(frames);
        loop {
            let next = tokio::select! {
                biased;
                next = frames.next() => next,
                reset = poll_fn(|context| self.stream.poll_reset(context)) => return Err(h2::Error::from(reset?).into()),
            };
            match next {
                None => return self.end(),
                Some(Err(_)) => {
                    self.stream.send_reset(Reason::INTERNAL_ERROR);
                    return Ok(());
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.send_part(data).await?,
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        return Ok(self.stream.send_trailers(trailers)?);
                    }
                },
            }
        }
    }

    /// Ends the stream without trailers.
    ///
    /// # Errors
    /// As for [`Outgoing::send_message`].
    pub fn end(&mut self) -> Result<(), Http2Error> {
        Ok(self.stream.send_data(Bytes::new(), true)?)
    }
}

/// Ends when a peer does not respond to a ping. It is pinged each `every`, unless it may be left `in_peace`, and has
/// `patience` for the response.
async fn ping_timeout(
    pings: Option<PingPong>,
    (every, patience): (Duration, Duration),
    mut in_peace: impl FnMut() -> bool,
) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        tokio::time::sleep(every).await;
        if in_peace() {
            continue;
        }
        match tokio::time::timeout(patience, pings.ping(Ping::opaque())).await {
            // The response itself must not count as activity in the next turn.
            Ok(Ok(_)) => drop(in_peace()),
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// Returns the innermost cause: the outer ones only state that something failed.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
