//! The messages of a request to a gRPC source; they may have to be sent again on another connection.

use super::{SourceError, SourceRequest};
use crate::frame::frame;
use crate::http2::{Http2Error, Outgoing};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

/// Bytes of a stream that are kept until the source responds, so that they can be sent again.
const MAX_KEPT: usize = 64 << 10;

/// How an exchange on one stream failed.
pub(super) enum Failed {
    /// The source has certainly not processed it.
    Unprocessed,
    /// The rest of the request could not be sent.
    Unsent,
    Otherwise(SourceError),
}

impl From<Http2Error> for Failed {
    fn from(error: Http2Error) -> Self {
        match error {
            Http2Error::Unprocessed => Failed::Unprocessed,
            other => Failed::Otherwise(other.into()),
        }
    }
}

impl From<SourceError> for Failed {
    fn from(error: SourceError) -> Self {
        Failed::Otherwise(error)
    }
}

impl From<Failed> for SourceError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Unprocessed => Http2Error::Unprocessed.into(),
            Failed::Unsent => SourceError::broken("the source does not accept the rest of the request"),
            Failed::Otherwise(error) => error,
        }
    }
}

/// The messages of one call.
pub(super) enum Messages {
    /// A single message.
    One(Bytes),
    /// A stream from the caller.
    Stream {
        /// Messages that are still to come.
        messages: BoxStream<'static, Result<Bytes, SourceError>>,
        /// Messages that were sent, as long as they are few.
        kept: Vec<Bytes>,
        /// Their bytes; more than [`MAX_KEPT`] once they are no longer all kept.
        bytes: usize,
    },
}

impl Messages {
    pub(super) fn new(request: SourceRequest) -> Self {
        match request {
            SourceRequest::One { bytes, .. } => Messages::One(bytes),
            SourceRequest::Stream(messages) => Messages::Stream { messages, kept: Vec::new(), bytes: 0 },
        }
    }

    /// Returns whether everything that was sent can be sent again.
    pub(super) fn again(&self) -> bool {
        match self {
            Messages::One(_) => true,
            Messages::Stream { bytes, .. } => *bytes <= MAX_KEPT,
        }
    }

    /// Sends a stream at the source's pace: first what was sent before, then what follows. If the caller's stream
    /// breaks, the call fails.
    pub(super) async fn send(&mut self, request: &mut Outgoing) -> Result<(), Failed> {
        let Messages::Stream { messages, kept, bytes } = self else { return Ok(()) };
        for message in kept.iter() {
            request.send_part(frame(message)).await.map_err(|_| Failed::Unsent)?;
        }
        while let Some(message) = messages.next().await {
            let message = message?;
            *bytes = bytes.saturating_add(message.len());
            if *bytes <= MAX_KEPT {
                kept.push(message.clone());
            } else {
                kept.clear();
            }
            request.send_part(frame(&message)).await.map_err(|_| Failed::Unsent)?;
        }
        request.end().map_err(|_| Failed::Unsent)
    }
}
