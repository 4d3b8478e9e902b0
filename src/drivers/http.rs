//! HTTP to a source: pooled connections over TLS, answers bounded in size.

use super::SourceError;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::time::Duration;

/// Time for a TCP connection: both ends are in the country.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Idle connections that are kept: as many as calls run at once in a busy minute.
const MAX_IDLE: usize = 64;
/// How long an idle connection is kept: less than the 60 s at which common servers close it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// A source's or hub's HTTP address, with its connections.
#[derive(Clone)]
pub struct HttpEndpoint {
    base: String,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    max_answer: usize,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct HttpAnswer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

/// The connector that every driver uses: TLS always, no plain HTTP.
pub fn connector(tls: rustls::ClientConfig, http1: bool) -> HttpsConnector<HttpConnector> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_keepalive(Some(Duration::from_secs(30)));
    let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_only();
    if http1 { builder.enable_http1().wrap_connector(tcp) } else { builder.enable_http2().wrap_connector(tcp) }
}

impl HttpEndpoint {
    /// An endpoint at `base` (`https://host:port/prefix`).
    pub fn new(base: &str, tls: rustls::ClientConfig, max_answer: usize) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(MAX_IDLE)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_timer(TokioTimer::new())
            .build(connector(tls, true));
        HttpEndpoint { base: base.trim_end_matches('/').to_owned(), client, max_answer }
    }

    /// The same server and connections, below a path.
    pub fn below(&self, path: &str) -> Self {
        HttpEndpoint { base: format!("{}{}", self.base, path.trim_end_matches('/')), ..self.clone() }
    }

    /// The base address.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The path of the base address, without a trailing slash.
    pub fn base_path(&self) -> &str {
        self.base.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..])).unwrap_or("")
    }

    /// Sends a request and takes the whole answer. The caller bounds the time.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<HttpAnswer, SourceError> {
        let uri: Uri = format!("{}{path}", self.base)
            .parse()
            .map_err(|_| super::unfit("", "with it, the source's address makes no URI"))?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let answer = self.client.request(request).await.map_err(|error| transport(&error))?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, self.max_answer).collect().await.map_err(|error| body_error(error.as_ref()))?;
        Ok(HttpAnswer { status: parts.status, headers: parts.headers, body: body.to_bytes() })
    }
}

fn transport(error: &hyper_util::client::legacy::Error) -> SourceError {
    if error.is_connect() {
        return SourceError::Unreachable("no connection");
    }
    let parse = std::error::Error::source(error)
        .and_then(|cause| cause.downcast_ref::<hyper::Error>())
        .is_some_and(hyper::Error::is_parse);
    if parse {
        SourceError::Protocol("it does not speak HTTP".into())
    } else {
        SourceError::Broken("the connection was closed")
    }
}

fn body_error(error: &(dyn std::error::Error + 'static)) -> SourceError {
    if error.is::<http_body_util::LengthLimitError>() {
        // Others may be smaller.
        SourceError::Unreadable("the answer is larger than the limit".into())
    } else {
        SourceError::Broken("the connection was closed in the middle of the answer")
    }
}

/// The error that an HTTP status stands for, where it is one.
pub fn status_error(status: StatusCode, headers: &HeaderMap) -> Option<SourceError> {
    let code = status.as_str().to_owned();
    match status.as_u16() {
        200 | 201 | 203 | 204 => None,
        401 | 403 => Some(SourceError::CredentialsRefused(code)),
        // The operation is not there, or something in between does not know the way: others may be. Never: there is no such record.
        404 | 405 | 410 | 501 => {
            let error = Box::new(SourceError::Unreadable(format!("HTTP status {code}")));
            Some(SourceError::Coded { code, error })
        }
        400 | 409 | 411..=418 | 421..=426 | 428 | 431 => Some(SourceError::Rejected(code)),
        408 | 504 => Some(SourceError::Timeout),
        429 => Some(SourceError::Limited { code, retry_after: retry_after(headers) }),
        503 => Some(SourceError::Busy { code, retry_after: retry_after(headers) }),
        500..=599 => Some(SourceError::Unavailable("it answered with a server error")),
        _ => Some(SourceError::Protocol(format!("HTTP status {code}"))),
    }
}

/// `Retry-After` in seconds (RFC 9110, section 10.2.3); dates are not used by any source that is known.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim().parse::<u64>().ok()?;
    Some(Duration::from_secs(seconds.min(3_600)))
}
