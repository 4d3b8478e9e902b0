//! A trace collector, reached by OTLP over gRPC: one unary call per batch.

use crate::frame::frame;
use crate::headers::GRPC_STATUS;
use crate::http2::client::grpc_head;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::time::Duration;

/// Timeout of a batch: a collector in the same data centre needs milliseconds.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum response size: a count and a message.
const MAX_ANSWER: usize = 64 << 10;
const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Why a collector did not accept a batch.
#[derive(Debug, thiserror::Error)]
pub(super) enum CollectorError {
    #[error("it cannot be reached")]
    Unreachable,
    #[error("it timed out")]
    Timeout,
    #[error("it returned HTTP {0}")]
    Http(StatusCode),
    #[error("it returned gRPC status {0}")]
    Grpc(String),
}

/// A collector of spans.
pub(super) struct Collector {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
}

impl Collector {
    /// Makes a collector for `http://host:port` or `https://host:port`; `None` for any other text.
    pub fn new(endpoint: &str, tls: rustls::ClientConfig) -> Option<Self> {
        let uri = format!("{}{METHOD}", endpoint.trim_end_matches('/')).parse().ok()?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(TIMEOUT));
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http2().wrap_connector(tcp);
        let client =
            Client::builder(TokioExecutor::new()).http2_only(true).pool_timer(TokioTimer::new()).build(connector);
        Some(Collector { client, uri })
    }

    /// Sends one batch.
    pub async fn export(&self, message: &[u8]) -> Result<(), CollectorError> {
        tokio::time::timeout(TIMEOUT, self.send(message)).await.unwrap_or(Err(CollectorError::Timeout))
    }

    async fn send(&self, message: &[u8]) -> Result<(), CollectorError> {
        let mut request = Request::new(Full::new(frame(message)));
        (*request.method_mut(), *request.uri_mut()) = (Method::POST, self.uri.clone());
        *request.headers_mut() = grpc_head(Some(TIMEOUT));
        let answer = self.client.request(request).await.map_err(|_| CollectorError::Unreachable)?;
        if answer.status() != StatusCode::OK {
            return Err(CollectorError::Http(answer.status()));
        }
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|_| CollectorError::Unreachable)?;
        let none = HeaderMap::new();
        // Without a message, the status is in the headers.
        let trailers = body.trailers().unwrap_or(&none);
        let status = trailers.get(&GRPC_STATUS).or_else(|| head.headers.get(&GRPC_STATUS));
        match status.and_then(|status| status.to_str().ok()) {
            Some("0") => Ok(()),
            other => Err(CollectorError::Grpc(other.unwrap_or("none").chars().take(8).collect())),
        }
    }
}
