//! The messages of a request to a gRPC source, which may have to be sent again on another connection.

use super::{SourceError, SourceRequest};
use crate::frame::frame;
use crate::http2::{Http2Error, Outgoing};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

/// How much of a stream is kept until the source answers, in bytes, so that it can be sent again.
const MAX_KEPT: usize = 64 << 10;

/// How an exchange on one stream failed.
pub(super) enum Failed {
    /// The source has certainly not processed it.
    Unprocessed,
    /// The request could not be sent any more.
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
            Failed::Unsent => SourceError::broken("the source takes no more of the request"),
            Failed::Otherwise(error) => error,
        }
    }
}

/// The messages of one call.
pub(super) enum Messages {
    /// The one.
    One(Bytes),
    /// A stream of the caller's.
    Stream {
        /// Those to come.
        messages: BoxStream<'static, Result<Bytes, SourceError>>,
        /// Those that were sent, as long as they are few.
        kept: Vec<Bytes>,
        /// Their bytes; more than [`MAX_KEPT`] where they are not all kept any more.
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

    /// Whether all that was sent can be sent again.
    pub(super) fn again(&self) -> bool {
        match self {
            Messages::One(_) => true,
            Messages::Stream { bytes, .. } => *bytes <= MAX_KEPT,
        }
    }

    /// Sends a stream, at the pace at which the source takes it: what was sent before, then what comes. Where the caller's stream
    /// breaks, so does the call.
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
