//! The client side of a provincial system: gRPC over mTLS with a token, messages by their contract. For `call`, `demo`,
//! `bench` and tests; a system in another language does the same with its own gRPC library.
//!
//! A [`GatewayClient`] is a `tower::Service` too, so that the generated clients of `ndxp.admin.v1` and `ndxp.audit.v1` work over
//! the same connection.

use crate::drivers::http::connector;
use crate::frame::{FrameError, FrameReader, frame};
use crate::http2::client::{Http2, grpc_head};
use crate::http2::{Http2Error, Incoming};
use crate::identity::tls::{self, TlsFault};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tonic::Status;
use tonic::body::Body;
use tower::{Service, ServiceExt};

/// Largest response message, in bytes.
pub const MAX_MESSAGE: usize = 64 << 20;
/// How long the service waits for the headers of a response.
const HEAD_WITHIN: Duration = Duration::from_secs(60);
/// How often a request that was certainly not processed is sent again.
const TRANSPARENT_RETRIES: u32 = 2;
/// How rustls reports an alert of the peer, before the alert's name.
pub const ALERT: &str = "received fatal alert: ";
/// How long to wait for an alert that refuses a certificate.
const ALERT_WITHIN: Duration = Duration::from_secs(2);

/// The reason that there was no response.
#[derive(Debug, thiserror::Error)]
pub enum CallerError {
    /// Certificates or keys are invalid.
    #[error(transparent)]
    Tls(#[from] TlsFault),
    /// The address or a value of the metadata is invalid.
    #[error("{0}")]
    InvalidMetadata(String),
    /// The gateway cannot be reached.
    #[error("the gateway at {0} cannot be reached: {1}")]
    Unreachable(String, String),
    /// The connection broke in the middle of a response.
    #[error("the response was cut off: {0}")]
    Broken(#[from] FrameError),
    /// A request could not be encoded.
    #[error("the request cannot be sent: {0}")]
    Unsent(Box<Status>),
}

/// Files of the caller's identity.
#[derive(Debug, Clone)]
pub struct CallerFiles {
    /// CA of the gateway.
    pub ca: PathBuf,
    /// The caller's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// A caller with its connection.
#[derive(Clone)]
pub struct GatewayClient {
    base: String,
    http2: Arc<Http2>,
    connector: HttpsConnector<HttpConnector>,
}

/// A response with received headers.
pub struct StreamingResponse {
    /// Metadata.
    pub headers: HeaderMap,
    reader: FrameReader<Incoming>,
}

/// A complete response.
#[derive(Debug)]
pub struct CompleteResponse {
    /// Metadata, initial and trailing together.
    pub metadata: HeaderMap,
    /// The messages.
    pub messages: Vec<Bytes>,
    /// The final status.
    pub status: Status,
}

impl CompleteResponse {
    /// Returns a value of the metadata.
    pub fn text(&self, name: &str) -> &str {
        self.metadata.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// Returns the reason in `ErrorInfo`; empty for a success.
    pub fn reason(&self) -> String {
        use tonic_types::StatusExt;
        self.status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
    }
}

impl GatewayClient {
    /// Creates a caller of the gateway at `base` (`https://host:port`).
    ///
    /// # Errors
    /// A certificate or key cannot be used, or the address is invalid.
    pub fn new(base: &str, files: &CallerFiles) -> Result<Self, CallerError> {
        Self::with_identity(base, &files.ca, Some((&files.certificate, &files.key)))
    }

    /// The same, with an optional certificate.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn with_identity(base: &str, ca: &Path, own: Option<(&Path, &Path)>) -> Result<Self, CallerError> {
        let tls = tls::client_config(ca, own, &[])?;
        let base = base.trim_end_matches('/').to_owned();
        let connector = connector(tls, false);
        let http2 = Arc::new(Http2::new(&base, connector.clone()));
        Ok(GatewayClient { base, http2, connector })
    }

    /// Returns the reason that there is no connection. In TLS 1.3 a client has sent its first bytes before it learns
    /// that its certificate was refused, and the broken connection may hide the alert: this opens another connection,
    /// sends nothing and waits for the alert.
    async fn no_connection(&self, error: &Http2Error) -> CallerError {
        self.explained(CallerError::Unreachable(self.base.clone(), error.to_string())).await
    }

    async fn alert(&self) -> Option<String> {
        let listened = async {
            let stream = self.connector.clone().oneshot(self.base.parse().ok()?).await.ok()?;
            let heard = TokioIo::new(stream).read_u8().await.err()?;
            Some(heard.to_string()).filter(|reason| reason.contains(ALERT))
        };
        tokio::time::timeout(ALERT_WITHIN, listened).await.ok().flatten()
    }

    /// Returns the error with the reason that a refused handshake has, if it was one: for people, since it takes another connection.
    pub async fn explained(&self, error: CallerError) -> CallerError {
        match error {
            CallerError::Unreachable(base, reason) => {
                let alert = self.alert().await;
                CallerError::Unreachable(base, alert.unwrap_or(reason))
            }
            other => other,
        }
    }

    /// Sends a complete request and waits for the headers of its response. A request that the gateway has certainly not
    /// processed (because it ends, or renews its connections) is sent again on a new connection, as gRPC libraries do
    /// (gRFC A6, transparent retries).
    async fn respond(
        &self,
        path: &PathAndQuery,
        headers: &HeaderMap,
        framed: &[Bytes],
    ) -> Result<Response<Incoming>, Http2Error> {
        let mut left = TRANSPARENT_RETRIES;
        loop {
            let mut begun = self.http2.begin(path, || Ok::<_, Http2Error>(headers.clone())).await?;
            begun.request.send_all(framed.iter().cloned());
            match begun.response.head().await {
                Err(Http2Error::Unprocessed) if left > 0 => left -= 1,
                response => return response,
            }
        }
    }

    /// Sends messages and waits for the headers of the response.
    ///
    /// # Errors
    /// There is no connection, or it breaks before the headers.
    pub async fn start(
        &self,
        path: &str,
        metadata: &[(&str, &str)],
        messages: Vec<Bytes>,
        timeout: Option<Duration>,
    ) -> Result<StreamingResponse, CallerError> {
        let path: PathAndQuery = path.parse().map_err(|_| unfit("path", path))?;
        let mut headers = grpc_head(timeout);
        for (name, value) in metadata {
            let name: HeaderName = name.parse().map_err(|_| unfit("metadata name", name))?;
            headers.append(name.clone(), HeaderValue::from_str(value).map_err(|_| unfit("value of", name.as_str()))?);
        }
        let unreachable = |error: Http2Error| CallerError::Unreachable(self.base.clone(), error.to_string());
        let framed: Vec<Bytes> = messages.iter().map(|message| frame(message)).collect();
        let (head, body) = self.respond(&path, &headers, &framed).await.map_err(unreachable)?.into_parts();
        Ok(StreamingResponse { headers: head.headers, reader: FrameReader::new(body, MAX_MESSAGE) })
    }

    /// Sends messages and returns the complete response.
    ///
    /// # Errors
    /// As for [`Self::start`]; or the connection breaks in the middle of the response.
    pub async fn call(
        &self,
        path: &str,
        metadata: &[(&str, &str)],
        messages: Vec<Bytes>,
    ) -> Result<CompleteResponse, CallerError> {
        let mut answering = self.start(path, metadata, messages, None).await?;
        let mut messages = Vec::new();
        while let Some(message) = answering.next().await? {
            messages.push(message);
        }
        let (metadata, status) = answering.end();
        Ok(CompleteResponse { metadata, messages, status })
    }
}

/// The transport of the generated clients. A request is sent when it is complete: no method of the services has a
/// request stream.
impl Service<Request<Body>> for GatewayClient {
    type Response = Response<Body>;
    type Error = CallerError;
    type Future = BoxFuture<'static, Result<Response<Body>, CallerError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallerError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let caller = self.clone();
        async move {
            let (head, body) = request.into_parts();
            let message = body.collect().await.map_err(|status| CallerError::Unsent(Box::new(status)))?.to_bytes();
            let path = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
            let framed = [message];
            match tokio::time::timeout(HEAD_WITHIN, caller.respond(&path, &head.headers, &framed)).await {
                Ok(Ok(response)) => Ok(response.map(Body::new)),
                Ok(Err(error)) => Err(caller.no_connection(&error).await),
                Err(_) => {
                    let reason = format!("no response within {} s", HEAD_WITHIN.as_secs());
                    Err(CallerError::Unreachable(caller.base, reason))
                }
            }
        }
        .boxed()
    }
}

fn unfit(what: &str, value: &str) -> CallerError {
    CallerError::InvalidMetadata(format!("the {what} {value:?} cannot be sent"))
}

impl StreamingResponse {
    /// Returns the next message, or `None` at the end.
    ///
    /// # Errors
    /// The body breaks, or is not a sequence of frames.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        self.reader.next().await
    }

    /// Returns metadata, initial and trailing, and the final status; call it when there are no more messages.
    pub fn end(mut self) -> (HeaderMap, Status) {
        let mut metadata = self.headers;
        metadata.extend(self.reader.trailers().unwrap_or_default());
        let status = Status::from_header_map(&metadata).unwrap_or_else(|| Status::unknown("no grpc-status"));
        (metadata, status)
    }
}
