//! How a caller speaks: the protocol of a call, and the form of its messages. What is decided about a call is the same for all.

use super::protocol::InvalidCall;
use crate::contract::Operation;
use crate::contract::json::{read_message, write_message};
use crate::frame::{BodyFault, FrameError, FrameReader};
use crate::http2::Incoming;
use crate::status::{Reason, Refusal};
use axum::body::Body as WebBody;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use prost_reflect::DynamicMessage;
use std::io::ErrorKind;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// The protocol of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CallProtocol {
    /// gRPC over HTTP/2.
    #[default]
    Grpc,
    /// gRPC-Web (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md).
    GrpcWeb,
    /// Connect, a call with one response (https://connectrpc.com/docs/protocol/).
    Connect,
    /// Connect, a stream: its envelopes are gRPC's frames.
    ConnectStream,
    /// Plain JSON at `/v1/SOURCE/OPERATION`.
    Rest,
}

impl CallProtocol {
    /// As entries of the log name it.
    pub fn as_str(self) -> &'static str {
        match self {
            CallProtocol::Grpc => "",
            CallProtocol::GrpcWeb => "grpc-web",
            CallProtocol::Connect | CallProtocol::ConnectStream => "connect",
            CallProtocol::Rest => "rest",
        }
    }

    /// Whether each message has a frame around it.
    fn is_framed(self) -> bool {
        !matches!(self, CallProtocol::Connect | CallProtocol::Rest)
    }
}

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Codec {
    /// Protobuf.
    #[default]
    Proto,
    /// Protobuf's JSON mapping.
    Json,
}

impl Codec {
    /// Reads a request's message; returns it with its Protobuf encoding.
    ///
    /// # Errors
    /// [`Reason::RequestMalformed`], with the place in the JSON.
    pub fn decode(self, operation: &Operation, bytes: &Bytes) -> Result<(DynamicMessage, Bytes), Refusal> {
        use prost::Message;
        match self {
            Codec::Proto => Ok((operation.decode(bytes)?, bytes.clone())),
            Codec::Json => {
                let message = read_message(&operation.request.message, bytes)
                    .map_err(|error| Refusal::with(Reason::RequestMalformed, error.to_string()))?;
                let encoded = message.encode_to_vec().into();
                Ok((message, encoded))
            }
        }
    }

    /// Writes a response's message, of which only granted fields are left.
    ///
    /// # Errors
    /// [`Reason::SourceProtocolError`] where it cannot be written so.
    pub fn encode(self, operation: &Operation, message: Bytes) -> Result<Bytes, Refusal> {
        match self {
            Codec::Proto => Ok(message),
            Codec::Json => DynamicMessage::decode(operation.response.message.clone(), message)
                .ok()
                .and_then(|message| write_message(&message))
                .ok_or_else(|| Refusal::with(Reason::SourceProtocolError, "a value that JSON cannot hold")),
        }
    }
}

/// How a call came.
#[derive(Debug, Clone, Copy, Default)]
pub struct CallForm {
    /// How long its caller waits.
    pub timeout: Option<Duration>,
    /// Its protocol.
    pub protocol: CallProtocol,
    /// The form of its messages.
    pub codec: Codec,
    /// What it lacks to be a call: its caller is told in the form of its protocol, and it is in the log as any other.
    pub fault: Option<InvalidCall>,
}

impl CallForm {
    /// A gRPC call with its deadline, or what it lacks to be one.
    pub fn grpc(checked: Result<Option<Duration>, InvalidCall>) -> Self {
        CallForm { timeout: checked.ok().flatten(), fault: checked.err(), ..CallForm::default() }
    }

    /// Connect has media types of its own for operations with streams: with the other kind's, it is no call. `None`: nothing is known of the
    /// operation.
    pub fn of_shape(self, has_stream: Option<bool>) -> Self {
        let fits = match (self.protocol, has_stream) {
            (CallProtocol::Connect, Some(has_stream)) => !has_stream,
            (CallProtocol::ConnectStream, Some(has_stream)) => has_stream,
            _ => true,
        };
        CallForm { fault: self.fault.or((!fits).then_some(InvalidCall::WebMediaType)), ..self }
    }

    /// Its caller's deadline, where it is a call.
    ///
    /// # Errors
    /// What it lacks to be one.
    pub fn call(self) -> Result<Option<Duration>, InvalidCall> {
        self.fault.map_or(Ok(self.timeout), Err)
    }

    /// Reads the one message of a request.
    ///
    /// # Errors
    /// As [`FrameReader::only`].
    pub async fn only(self, reader: &mut FrameReader<RequestBody>) -> Result<Bytes, FrameError> {
        if self.protocol.is_framed() { reader.only().await } else { reader.complete_body().await }
    }
}

/// The body of a request.
pub enum RequestBody {
    /// Of the gRPC port.
    Http2(Incoming),
    /// Of the HTTPS port.
    Web(WebBody),
}

/// Why a body ended before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BrokenBody {
    /// The connection failed, or was given up.
    #[error("the connection failed")]
    Connection,
    /// Its chunks cannot be read (RFC 9112, section 7.1).
    #[error("the chunks of the body are malformed")]
    Malformed,
}

impl BodyFault for BrokenBody {
    fn is_malformed(&self) -> bool {
        *self == BrokenBody::Malformed
    }
}

impl BrokenBody {
    /// By the cause that hyper's decoder of chunks reports: these kinds are for wrong bytes only.
    fn of_web(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut causes = std::iter::successors(Some(error), |error| error.source());
        let is_malformed = causes.any(|cause| {
            let io = cause.downcast_ref::<std::io::Error>();
            io.is_some_and(|io| matches!(io.kind(), ErrorKind::InvalidInput | ErrorKind::InvalidData))
        });
        if is_malformed { BrokenBody::Malformed } else { BrokenBody::Connection }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BrokenBody;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenBody>>> {
        match self.get_mut() {
            RequestBody::Http2(body) => Pin::new(body).poll_frame(context).map_err(|_| BrokenBody::Connection),
            RequestBody::Web(body) => Pin::new(body).poll_frame(context).map_err(|error| BrokenBody::of_web(&error)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Http2(body) => body.is_end_stream(),
            RequestBody::Web(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Http2(_) => SizeHint::default(),
            RequestBody::Web(body) => body.size_hint(),
        }
    }
}
