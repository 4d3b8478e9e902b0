//! gRPC over mTLS. Messages pass through as they are: nothing is decoded here.

use super::connection::Connection;
use super::http::connector;
use super::{Call, Driver, SourceAnswer, SourceError, SourceRequest};
use crate::contract::settings::CallContext;
use crate::contract::{Binding, Shape};
use crate::frame::{FrameError, FrameReader, frame};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use tonic::Code;

type Body = UnsyncBoxBody<Bytes, SourceError>;

/// gRPC towards one source.
pub struct GrpcDriver {
    inner: Arc<Inner>,
}

struct Inner {
    connection: Arc<Connection>,
    client: Client<HttpsConnector<HttpConnector>, Body>,
}

impl GrpcDriver {
    /// A driver for a connection.
    pub fn new(connection: Arc<Connection>) -> Self {
        // One HTTP/2 connection carries all calls; pings notice a peer that is gone.
        let client = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .timer(TokioTimer::new())
            .http2_initial_stream_window_size(1 << 20)
            .http2_initial_connection_window_size(1 << 24)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .http2_keep_alive_timeout(Duration::from_secs(10))
            .build(connector(connection.tls.clone(), false));
        GrpcDriver { inner: Arc::new(Inner { connection, client }) }
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
        let Binding::Grpc(path) = &call.operation.binding else {
            return Err(SourceError::Protocol("no gRPC binding".into()));
        };
        let uri: Uri = format!("{}{}", self.connection.address.trim_end_matches('/'), path.as_str())
            .parse()
            .map_err(|_| SourceError::Unavailable("its address and path make no URI"))?;
        // What broke in the caller's stream is remembered: hyper would only say that the body failed.
        let broken: Arc<Mutex<Option<SourceError>>> = Arc::default();
        let body = match call.request {
            SourceRequest::One { bytes, .. } => Full::new(frame(&bytes)).map_err(|never| match never {}).boxed_unsync(),
            SourceRequest::Stream(messages) => {
                let broken = broken.clone();
                let frames = messages.map_ok(|message| Frame::data(frame(&message))).inspect_err(move |error| {
                    if let Ok(mut slot) = broken.lock() {
                        *slot = Some(error.clone());
                    }
                });
                StreamBody::new(frames).boxed_unsync()
            }
        };
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.version_mut() = http::Version::HTTP_2;
        *request.headers_mut() = headers(&call.context)?;
        let answer = self.client.request(request).await.map_err(|error| {
            let ours = broken.lock().ok().and_then(|mut slot| slot.take());
            ours.unwrap_or(SourceError::Unavailable(if error.is_connect() {
                "no connection"
            } else {
                "the connection was closed"
            }))
        })?;
        let broken = broken.lock().ok().and_then(|mut slot| slot.take());
        match (broken, call.operation.shape) {
            (Some(error), _) => Err(error),
            (None, Shape::ServerStream) => self.stream(answer).await,
            (None, _) => self.one(answer).await,
        }
    }

    async fn one(&self, answer: Response<Incoming>) -> Result<SourceAnswer, SourceError> {
        let (parts, body) = answer.into_parts();
        check_head(parts.status, &parts.headers)?;
        let mut reader = FrameReader::new(body, self.connection.max_answer);
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
        check_head(parts.status, &parts.headers)?;
        let mut reader = FrameReader::new(body, self.connection.max_answer);
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

fn headers(context: &CallContext) -> Result<HeaderMap, SourceError> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    // Only a purpose comes again: the rest would but drive it out of HPACK's dynamic table (RFC 7541, section 6.2.3).
    let plain = [
        ("ndxp-exchange-id", Some(context.exchange_id.as_str()), true),
        ("ndxp-official", context.official.as_deref(), true),
        ("ndxp-purpose", context.purpose.as_deref(), false),
        ("traceparent", context.traceparent.as_deref(), true),
    ];
    for (name, value, own) in plain {
        if let Some(value) = value {
            let mut value = HeaderValue::from_str(value)
                .map_err(|_| SourceError::Unavailable("a value cannot stand in a header"))?;
            value.set_sensitive(own);
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    Ok(headers)
}

fn frame_error(error: FrameError) -> SourceError {
    match error {
        FrameError::Connection => SourceError::Unavailable("the connection was closed in the middle of the answer"),
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
    let name = format!("{code:?}");
    match code {
        Code::Ok => Ok(()),
        Code::NotFound => Err(SourceError::NotFound(name)),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange | Code::AlreadyExists | Code::Aborted => {
            Err(SourceError::Rejected(name))
        }
        Code::Unauthenticated | Code::PermissionDenied => Err(SourceError::CredentialsRefused(name)),
        Code::Unavailable | Code::ResourceExhausted => Err(SourceError::Busy { code: name, retry_after: None }),
        Code::DeadlineExceeded => Err(SourceError::Timeout),
        _ => Err(SourceError::Protocol(format!("gRPC status {name}"))),
    }
}
