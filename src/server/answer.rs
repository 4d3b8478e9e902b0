//! Answers as they leave: gRPC over HTTP/2 (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).

use crate::frame::frame;
use crate::status::Refusal;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::{Body, Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Metadata that names the exchange.
pub const EXCHANGE_ID: &str = "ndxp-exchange-id";
/// Metadata with the entry's index in the log.
pub const LOG_INDEX: &str = "ndxp-log-index";
/// Metadata with the salt of the request's commitment, in hexadecimal.
pub const REQUEST_SALT: &str = "ndxp-request-salt";
/// Metadata with the salt of the answer's commitment, in hexadecimal.
pub const ANSWER_SALT: &str = "ndxp-answer-salt";

/// Metadata with the calls that may be made at once now.
pub const RATE_LEFT: &str = "ndxp-rate-left";
/// Metadata with the calls that are left today, where the grant has a quota.
pub const QUOTA_LEFT: &str = "ndxp-quota-left";

/// The body of an answer.
pub enum AnswerBody {
    /// One message and the trailers.
    One {
        /// The message with its frame; taken when sent.
        data: Option<Bytes>,
        /// The trailers; taken when sent.
        trailers: Option<HeaderMap>,
    },
    /// A stream that ends with its trailers.
    Stream(BoxStream<'static, Frame<Bytes>>),
    /// The answer of a tonic service (health, reflection).
    Tonic(tonic::body::Body),
    /// Nothing: a status alone, in the head.
    Empty,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            AnswerBody::One { data, trailers } => {
                let next = data.take().map(Frame::data).or_else(|| trailers.take().map(Frame::trailers));
                Poll::Ready(next.map(Ok))
            }
            AnswerBody::Stream(stream) => stream.as_mut().poll_next(context).map(|next| next.map(Ok)),
            AnswerBody::Tonic(body) => Pin::new(body).poll_frame(context),
            AnswerBody::Empty => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            AnswerBody::One { data, trailers } => data.is_none() && trailers.is_none(),
            AnswerBody::Tonic(body) => body.is_end_stream(),
            AnswerBody::Empty => true,
            AnswerBody::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// The head of an answer, with its exchange id.
pub fn head(exchange_id: &str) -> Response<AnswerBody> {
    let mut answer = Response::new(AnswerBody::Empty);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    put(headers, EXCHANGE_ID, exchange_id);
    answer
}

/// Puts a value of the gateway's own making; one that could not stand in a header would be left out. Such values are this
/// answer's own: in HPACK's dynamic table they would only drive out what comes again (RFC 7541, section 6.2.3).
pub fn put(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(mut value) = HeaderValue::from_str(value) {
        value.set_sensitive(true);
        headers.insert(name, value);
    }
}

/// `grpc-status: 0`.
pub fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers
}

/// A refusal as trailers.
pub fn refusal_trailers(refusal: &Refusal, exchange_id: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if refusal.to_status(exchange_id).add_header(&mut trailers).is_err() {
        trailers.insert("grpc-status", HeaderValue::from_static("13"));
    }
    trailers
}

/// A unary answer.
pub fn one(mut answer: Response<AnswerBody>, message: &Bytes) -> Response<AnswerBody> {
    *answer.body_mut() = AnswerBody::One { data: Some(frame(message)), trailers: Some(ok_trailers()) };
    answer
}

/// A refusal: a status alone. Its reason stays with it until it leaves.
pub fn refused(refusal: &Refusal, exchange_id: &str) -> Response<AnswerBody> {
    let mut answer = head(exchange_id);
    answer.extensions_mut().insert(refusal.reason);
    answer.headers_mut().extend(refusal_trailers(refusal, exchange_id));
    answer
}

/// The answer of a tonic service.
pub fn from_tonic(answer: Result<Response<tonic::body::Body>, Infallible>) -> Response<AnswerBody> {
    match answer {
        Ok(answer) => answer.map(AnswerBody::Tonic),
        Err(never) => match never {},
    }
}
