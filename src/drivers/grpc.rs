//! gRPC over mTLS. Messages pass through as they are: nothing is decoded here.

use super::connection::Connection;
use super::http::connector;
use super::{Call, Driver, SourceAnswer, SourceError, SourceRequest, unfit};
use crate::contract::settings::CallContext;
use crate::contract::{Binding, Shape};
use crate::deadline::Whose;
use crate::frame::{FrameError, FrameReader, frame};
use crate::http2::client::{Begun, Http2, grpc_head};
use crate::http2::{Http2Error, Incoming, Outgoing};
use bytes::Bytes;
use futures_util::future::{BoxFuture, Either, select};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::Code;

/// gRPC towards one source.
pub struct GrpcDriver {
    inner: Arc<Inner>,
}

struct Inner {
    /// Largest answer in bytes.
    max_answer: usize,
    http2: Http2,
}

impl GrpcDriver {
    /// A driver for a connection.
    pub fn new(connection: &Connection) -> Self {
        let http2 = Http2::new(connection.address.trim_end_matches('/'), connector(connection.tls.clone(), false));
        GrpcDriver { inner: Arc::new(Inner { max_answer: connection.max_answer, http2 }) }
    }
}

impl From<Http2Error> for SourceError {
    fn from(error: Http2Error) -> Self {
        match error {
            Http2Error::NoConnection(_) => SourceError::Unreachable("no connection"),
            Http2Error::Refused => SourceError::Busy { code: "REFUSED_STREAM".into(), retry_after: None },
            Http2Error::Broken(_) => SourceError::Broken("the connection was closed"),
        }
    }
}

impl Driver for GrpcDriver {
    fn call(&self, call: Call) -> BoxFuture<'static, Result<SourceAnswer, SourceError>> {
        let inner = self.inner.clone();
        Box::pin(async move { inner.call(call).await })
    }
}

impl Inner {
    async fn call(&self, call: Call) -> Result<SourceAnswer, SourceError> {
        let Call { operation, request: messages, context, until, .. } = call;
        let Binding::Grpc(path) = &operation.binding else {
            return Err(SourceError::Protocol("no gRPC binding".into()));
        };
        let shape = operation.shape;
        let at = until.map(|until| until.at);
        let Begun { mut request, answer } = self.http2.begin(path, || headers(&context, at)).await?;
        let answer = async {
            let answer = answer.head().await?;
            check_head(answer.status(), answer.headers())?;
            if shape == Shape::ServerStream { self.stream(answer).await } else { self.one(answer).await }
        };
        let result = match messages {
            SourceRequest::One { bytes, .. } => {
                request.whole([frame(&bytes)]);
                answer.await
            }
            SourceRequest::Stream(messages) => {
                let sent = std::pin::pin!(send_all(&mut request, messages));
                // A source may answer before it has read everything, and need not read the rest then.
                match select(std::pin::pin!(answer), sent).await {
                    Either::Left((answer, _)) => answer,
                    Either::Right((Ok(()), answer)) => answer.await,
                    Either::Right((Err(error), _)) => Err(error),
                }
            }
        };
        // It was told how long the caller waits, and says that this is over.
        let hasty = until.is_some_and(|until| until.whose == Whose::Caller);
        result.map_err(|error| match error {
            SourceError::Timeout if hasty => SourceError::CallerDeadline,
            other => other,
        })
    }

    async fn one(&self, answer: Response<Incoming>) -> Result<SourceAnswer, SourceError> {
        let (parts, body) = answer.into_parts();
        let mut reader = FrameReader::new(body, self.max_answer);
        let first = reader.next().await.map_err(frame_error)?;
        let more = if first.is_some() { reader.next().await.map_err(frame_error)? } else { None };
        check_trailers(reader.trailers().as_ref().unwrap_or(&parts.headers))?;
        match (first, more) {
            (Some(message), None) => Ok(SourceAnswer::One(message)),
            _ => Err(SourceError::Protocol("one message was expected".into())),
        }
    }

    async fn stream(&self, answer: Response<Incoming>) -> Result<SourceAnswer, SourceError> {
        let (parts, body) = answer.into_parts();
        let mut reader = FrameReader::new(body, self.max_answer);
        // A failure before the first message is a plain status, not a broken stream.
        let first = reader.next().await.map_err(frame_error)?;
        if first.is_none() {
            check_trailers(reader.trailers().as_ref().unwrap_or(&parts.headers))?;
            return Ok(SourceAnswer::Stream(stream::empty().boxed()));
        }
        let rest = stream::try_unfold((reader, first), |(mut reader, mut ready)| async move {
            let next = match ready.take() {
                Some(first) => Some(first),
                None => reader.next().await.map_err(frame_error)?,
            };
            match next {
                Some(message) => Ok(Some((message, (reader, None)))),
                None => {
                    let trailers = reader.trailers().ok_or_else(|| SourceError::Protocol("no trailers".into()))?;
                    check_trailers(&trailers).map(|()| None)
                }
            }
        });
        Ok(SourceAnswer::Stream(rest.boxed()))
    }
}

/// Sends a caller's stream, at the pace at which the source takes it. Where it breaks, so does the call.
async fn send_all(
    request: &mut Outgoing,
    mut messages: BoxStream<'static, Result<Bytes, SourceError>>,
) -> Result<(), SourceError> {
    while let Some(message) = messages.next().await {
        request.part(frame(&message?)).await?;
    }
    Ok(request.end()?)
}

fn headers(context: &CallContext, until: Option<Instant>) -> Result<HeaderMap, SourceError> {
    // `0m` is no timeout that a source need take.
    let left = until.map(|until| until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)));
    let mut headers = grpc_head(left);
    // Only a purpose comes again: the rest would but drive it out of HPACK's dynamic table (RFC 7541, section 6.2.3).
    let plain = [
        ("ndxp-exchange-id", Some(context.exchange_id.as_str()), true),
        ("ndxp-official", context.official.as_deref(), true),
        ("ndxp-purpose", context.purpose.as_deref(), false),
        ("traceparent", context.traceparent.as_deref(), true),
    ];
    for (name, value, own) in plain {
        if let Some(value) = value {
            let mut value = HeaderValue::from_str(value).map_err(|_| unfit(name, "it cannot stand in a header"))?;
            value.set_sensitive(own);
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    Ok(headers)
}

fn frame_error(error: FrameError) -> SourceError {
    match error {
        FrameError::Connection => SourceError::Broken("the connection was closed in the middle of the answer"),
        // Others may be smaller.
        FrameError::TooLarge(_) => SourceError::Unreadable(error.to_string()),
        other => SourceError::Protocol(other.to_string()),
    }
}

fn check_head(status: http::StatusCode, headers: &HeaderMap) -> Result<(), SourceError> {
    if let Some(error) = super::http::status_error(status, headers) {
        return Err(error);
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if !kind.starts_with("application/grpc") {
        return Err(SourceError::Protocol("the answer is not gRPC".into()));
    }
    Ok(())
}

fn check_trailers(trailers: &HeaderMap) -> Result<(), SourceError> {
    let code = trailers.get("grpc-status").ok_or_else(|| SourceError::Protocol("no grpc-status".into()))?;
    let code = Code::from_bytes(code.as_bytes());
    if code == Code::Ok {
        return Ok(());
    }
    let name = format!("{code:?}");
    match code {
        Code::NotFound => Err(SourceError::NotFound(name)),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange | Code::AlreadyExists | Code::Aborted => {
            Err(SourceError::Rejected(name))
        }
        Code::Unauthenticated | Code::PermissionDenied => Err(SourceError::CredentialsRefused(name)),
        Code::ResourceExhausted => Err(SourceError::Limited { code: name, retry_after: None }),
        Code::Unimplemented => Err(SourceError::Unreadable(format!("gRPC status {name}"))),
        Code::Unavailable => Err(SourceError::Busy { code: name, retry_after: None }),
        Code::DeadlineExceeded => Err(SourceError::Timeout),
        _ => Err(SourceError::Protocol(format!("gRPC status {name}"))),
    }
}
