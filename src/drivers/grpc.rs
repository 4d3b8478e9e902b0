//! gRPC over mTLS. Messages pass through as they are; their fields are only counted against the contract's (`drift`).

use super::connection::SourceConnection;
use super::error::CALM;
use super::grpc_messages::{Failed, Messages};
use super::http::connector;
use super::{Call, CallerFault, Driver, HubFault, Protocol, SourceError, SourceFault, SourceResponse, drift, unfit};
use crate::contract::settings::CallContext;
use crate::contract::{Binding, CallShape, Operation};
use crate::deadline::DeadlineOwner;
use crate::frame::{FrameError, FrameReader, frame};
use crate::headers::{GRPC_ENCODING, GRPC_STATUS};
use crate::http2::client::{Http2, Limits, PendingResponse, StartedCall, grpc_head};
use crate::http2::{Http2Error, Incoming, Outgoing};
use futures_util::future::{BoxFuture, Either, select};
use futures_util::{StreamExt, TryFutureExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::Code;

/// gRPC: the source authenticates the gateway by its certificate.
pub const PROTOCOL: Protocol =
    Protocol { name: "grpc", credentials: |_| &[], driver: |connection| Box::new(GrpcDriver::new(&connection)) };

/// gRPC towards one source.
pub struct GrpcDriver {
    inner: Arc<GrpcDriverState>,
}

struct GrpcDriverState {
    /// Largest response in bytes.
    max_answer: usize,
    /// Connections for each kind of call: lists are read, and uploads are sent, at their callers' pace, and must take
    /// neither streams nor windows from calls, nor from each other.
    calls: Http2,
    lists: Http2,
    uploads: Http2,
}

/// Connections for calls and uploads. With fewer than 8 of them, a source that accepts few streams on each would serve
/// only a few calls at a time. One connection sends no more than 100 resets in 30 s, since servers that count them
/// (Netty: 200, Envoy: 500) close it.
const CALLS: Limits = Limits { connections: 8, streams: 1_024, window: 1 << 20, resets: 100 };
/// Connections for lists: a window of 256 kB keeps a list going at 25 MB/s over 10 ms, and is the maximum cost of a
/// list without a reader.
const LISTS: Limits = Limits { streams: 4_096, window: 256 << 10, ..CALLS };

impl GrpcDriver {
    /// A driver for a connection.
    pub fn new(connection: &SourceConnection) -> Self {
        let address = connection.address.trim_end_matches('/');
        let http2 = |limits| {
            let (connector, open) = (connector(connection.tls.clone(), false), connection.open.clone());
            Http2::pooled(address, connector, connection.keepalive, limits, open)
        };
        let (calls, lists, uploads) = (http2(CALLS), http2(LISTS), http2(CALLS));
        GrpcDriver { inner: Arc::new(GrpcDriverState { max_answer: connection.max_response, calls, lists, uploads }) }
    }
}

/// How often a call that the source has not processed is sent again: on the connection that follows a GOAWAY, and once
/// more.
const PLACED_AGAIN: u32 = 2;

impl From<Http2Error> for SourceError {
    fn from(error: Http2Error) -> Self {
        match error {
            Http2Error::NoConnection(_) => HubFault::Unreachable("no connection").into(),
            Http2Error::Unprocessed => SourceFault::Busy { code: "REFUSED_STREAM".into(), retry_after: None }.into(),
            Http2Error::EnhanceYourCalm => SourceFault::Limited { code: CALM.into(), retry_after: None }.into(),
            Http2Error::Broken(_) => SourceError::broken("the connection was closed"),
        }
    }
}

impl Driver for GrpcDriver {
    fn call(&self, call: Call) -> BoxFuture<'static, Result<SourceResponse, SourceError>> {
        let inner = self.inner.clone();
        Box::pin(async move { inner.call(call).await })
    }
}

impl GrpcDriverState {
    async fn call(&self, call: Call) -> Result<SourceResponse, SourceError> {
        let Call { operation, request: messages, context, until, stream_wait, .. } = call;
        let Binding::Grpc(path) = &operation.binding else {
            return Err(SourceError::protocol("no gRPC binding"));
        };
        let shape = operation.shape;
        let at = until.map(|until| until.at);
        let mut messages = Messages::new(messages);
        let http2 = match shape {
            CallShape::ServerStream => &self.lists,
            CallShape::ClientStream => &self.uploads,
            CallShape::Unary => &self.calls,
        };
        let mut left = PLACED_AGAIN;
        let result = loop {
            let begun = http2.begin_with(path, || headers(&context, at), stream_wait.as_deref()).await?;
            let StartedCall { mut request, response: answer, connection } = begun;
            let call = (&operation, &context);
            let exchange = self.exchange(&mut request, answer, &mut messages, call).await;
            if let Err(Failed::Unprocessed) = exchange {
                context.sent.withdraw();
            }
            match exchange {
                // The source has certainly not processed it, so this is no second attempt, and a write may be sent
                // again.
                Err(Failed::Unprocessed) if left > 0 && messages.again() => left -= 1,
                // It ended with the connection, because of other calls on it.
                Err(Failed::Otherwise(SourceError::Hub(HubFault::Broken(_)))) if connection.is_enhance_your_calm() => {
                    break Err(Http2Error::EnhanceYourCalm.into());
                }
                other => break other.map_err(SourceError::from),
            }
        };
        let hasty = until.is_some_and(|until| until.owner == DeadlineOwner::Caller);
        result.map_err(|error| if hasty { hurried(error) } else { error })
    }

    /// Sends the messages on one stream, and reads the response.
    async fn exchange(
        &self,
        request: &mut Outgoing,
        answer: PendingResponse,
        messages: &mut Messages,
        (operation, context): (&Arc<Operation>, &Arc<CallContext>),
    ) -> Result<SourceResponse, Failed> {
        let sent = &context.sent;
        let answer = async {
            let answer = answer.head().await?;
            check_head(answer.status(), answer.headers())?;
            Ok(match operation.shape {
                CallShape::ServerStream => self.stream(answer, operation, context).await?,
                CallShape::Unary | CallShape::ClientStream => self.one(answer, operation, context).await?,
            })
        };
        if let Messages::One(bytes) = messages {
            sent.mark();
            request.send_all([frame(bytes)]);
            return answer.await;
        }
        // A stream that was cut before its end is not a complete request.
        let whole = messages.send(request).inspect_ok(|()| sent.mark());
        let sent = std::pin::pin!(whole);
        // A source may respond before it has read everything, and need not read the rest then.
        match select(std::pin::pin!(answer), sent).await {
            Either::Left((answer, _)) => answer,
            // The response has the reason that nothing more can be sent.
            Either::Right((Ok(()) | Err(Failed::Unsent), answer)) => answer.await,
            Either::Right((Err(error), _)) => Err(error),
        }
    }

    fn reader(&self, head: &HeaderMap, body: Incoming) -> FrameReader<Incoming> {
        let gzip = head.get(&GRPC_ENCODING).is_some_and(|encoding| encoding == "gzip");
        FrameReader::new(body, self.max_answer).gzip(gzip)
    }

    async fn one(
        &self,
        answer: Response<Incoming>,
        operation: &Operation,
        context: &CallContext,
    ) -> Result<SourceResponse, SourceError> {
        let (parts, body) = answer.into_parts();
        let mut reader = self.reader(&parts.headers, body);
        let first = reader.next().await.map_err(frame_error)?;
        let more = if first.is_some() { reader.next().await.map_err(frame_error)? } else { None };
        check_trailers(reader.trailers().as_ref().unwrap_or(&parts.headers))?;
        match (first, more) {
            (Some(message), None) => Ok(SourceResponse::One(drift::of_message(operation, context, message)?)),
            _ => Err(SourceError::protocol("one message was expected")),
        }
    }

    async fn stream(
        &self,
        answer: Response<Incoming>,
        operation: &Arc<Operation>,
        context: &Arc<CallContext>,
    ) -> Result<SourceResponse, SourceError> {
        let (parts, body) = answer.into_parts();
        let mut reader = self.reader(&parts.headers, body);
        // A failure before the first message is a plain status, not a broken stream.
        let first = reader.next().await.map_err(frame_error)?;
        if first.is_none() {
            check_trailers(reader.trailers().as_ref().unwrap_or(&parts.headers))?;
            return Ok(SourceResponse::Stream(stream::empty().boxed()));
        }
        // A refusal of the first message is a plain status as well.
        let first = first.map(|first| drift::of_message(operation, context, first)).transpose()?;
        let call = (operation.clone(), context.clone());
        let rest = stream::try_unfold((reader, first, call), |(mut reader, mut ready, call)| async move {
            let next = match ready.take() {
                Some(first) => Some(first),
                None => {
                    let next = reader.next().await.map_err(frame_error)?;
                    next.map(|message| drift::of_message(&call.0, &call.1, message)).transpose()?
                }
            };
            match next {
                Some(message) => Ok(Some((message, (reader, None, call)))),
                None => {
                    let trailers = reader.trailers().ok_or_else(|| SourceError::protocol("no trailers"))?;
                    check_trailers(&trailers).map(|()| None)
                }
            }
        });
        Ok(SourceResponse::Stream(rest.boxed()))
    }
}

/// Converts the error of a call with the caller's deadline passed on to the source: a timeout or cancellation by the
/// source, or by something on the way to it, comes from the caller's deadline.
fn hurried(error: SourceError) -> SourceError {
    let by_deadline = match &error {
        SourceError::Source(SourceFault::Status(status)) => {
            matches!(status.code, Code::DeadlineExceeded | Code::Cancelled)
        }
        SourceError::Source(SourceFault::Timeout) => true,
        _ => false,
    };
    if by_deadline { CallerFault::Deadline.into() } else { error }
}

fn headers(context: &CallContext, until: Option<Instant>) -> Result<HeaderMap, SourceError> {
    // A source need not accept `0m` as a timeout.
    let left = until.map(|until| until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)));
    let mut headers = grpc_head(left);
    headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity,gzip"));
    // Only a purpose repeats: the other values would only evict it from HPACK's dynamic table (RFC 7541, section
    // 6.2.3).
    let plain = [
        ("ndxp-exchange-id", Some(context.exchange_id.as_str()), true),
        ("ndxp-official", context.official.as_deref(), true),
        ("ndxp-purpose", context.purpose.as_deref(), false),
        ("traceparent", context.traceparent.as_deref(), true),
    ];
    for (name, value, own) in plain {
        if let Some(value) = value {
            let mut value = HeaderValue::from_str(value).map_err(|_| unfit(name, "it is not valid in a header"))?;
            value.set_sensitive(own);
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    Ok(headers)
}

fn frame_error(error: FrameError) -> SourceError {
    match error {
        FrameError::Connection => SourceError::broken("the connection was closed in the middle of the response"),
        // Other responses may be smaller.
        FrameError::TooLarge(_) => SourceError::unreadable(error.to_string()),
        other => SourceError::protocol(other.to_string()),
    }
}

fn check_head(status: http::StatusCode, headers: &HeaderMap) -> Result<(), SourceError> {
    if let Some(error) = super::http::status_error(status, headers) {
        return Err(error);
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if !kind.starts_with("application/grpc") {
        return Err(SourceError::protocol("the response is not gRPC"));
    }
    Ok(())
}

fn check_trailers(trailers: &HeaderMap) -> Result<(), SourceError> {
    let code = trailers.get(&GRPC_STATUS).ok_or_else(|| SourceError::protocol("no grpc-status"))?;
    match Code::from_bytes(code.as_bytes()) {
        Code::Ok => Ok(()),
        code => Err(super::grpc_status::read(code, trailers)),
    }
}
