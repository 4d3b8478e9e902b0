//! HTTP to a source: pooled connections over TLS, responses bounded in size.

use super::{CallerFault, GatewayFault, HubFault, SourceError, SourceFault, retry_after};
use crate::contract::settings::SentFlag;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{HttpConnector, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::future::{Future, poll_fn};
use std::io::Read;
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

/// A complete response.
#[derive(Debug, Clone)]
pub struct HttpResponse {
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
    /// Makes an endpoint at `base` (`https://host:port/prefix`).
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

    /// Sends a request and returns the complete response. The caller bounds the time.
    ///
    /// # Errors
    /// The caller's ([`SourceError::Caller`]) if the path makes no URI; the hub's or network's ([`SourceError::Hub`])
    /// if there is no connection; the source's ([`SourceError::Source`]) if it closes the connection, violates HTTP, or
    /// sends a response over the limit.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<HttpResponse, SourceError> {
        self.send_marking(method, path, headers, body, &SentFlag::default()).await
    }

    /// The same, and marks when the request has been sent.
    ///
    /// # Errors
    /// As for [`HttpEndpoint::send`].
    pub async fn send_marking(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
        sent: &SentFlag,
    ) -> Result<HttpResponse, SourceError> {
        let uri: Uri = format!("{}{path}", self.base)
            .parse()
            .map_err(|_| super::unfit("", "with it, the source's address makes no URI"))?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        named_codings(request.headers_mut());
        // A request with a connection is being written to it.
        let connection = capture_connection(&mut request);
        let mut answer = std::pin::pin!(self.client.request(request));
        let answer = poll_fn(|context| {
            let polled = answer.as_mut().poll(context);
            if connection.connection_metadata().is_some() {
                sent.mark();
            }
            polled
        });
        let answer = answer.await.map_err(|error| transport(&error))?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, self.max_answer).collect().await.map_err(|error| body_error(error.as_ref()))?;
        let body = decoded(&parts.headers, body.to_bytes(), self.max_answer)?;
        Ok(HttpResponse { status: parts.status, headers: parts.headers, body })
    }
}

/// States that no content coding is wanted.
pub(super) fn named_codings(headers: &mut HeaderMap) {
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
}

fn transport(error: &hyper_util::client::legacy::Error) -> SourceError {
    if error.is_connect() {
        return HubFault::Unreachable("no connection").into();
    }
    let parse = std::error::Error::source(error)
        .and_then(|cause| cause.downcast_ref::<hyper::Error>())
        .is_some_and(hyper::Error::is_parse);
    if parse {
        SourceError::protocol("it does not speak HTTP")
    } else {
        SourceError::broken("the connection was closed")
    }
}

fn body_error(error: &(dyn std::error::Error + 'static)) -> SourceError {
    if error.is::<http_body_util::LengthLimitError>() {
        // Other responses may be smaller.
        SourceError::unreadable("the response is larger than the limit")
    } else {
        SourceError::broken("the connection was closed in the middle of the response")
    }
}

/// Returns the error for an HTTP status, if it is one.
pub fn status_error(status: StatusCode, headers: &HeaderMap) -> Option<SourceError> {
    let code = status.as_str().to_owned();
    let error: SourceError = match status.as_u16() {
        200 | 201 | 203 | 204 => return None,
        401 => GatewayFault::CredentialsRefused(code).into(),
        // The source has authenticated the gateway and refuses it: a new token changes nothing (RFC 9110, section
        // 15.5.4).
        403 => GatewayFault::Forbidden(code).into(),
        // The operation does not exist, or an intermediary has no route to it: other operations may work. It never
        // means that there is no such record.
        404 | 405 | 410 | 501 => SourceError::unreadable(format!("HTTP status {code}")).coded(&code),
        400 | 409 | 411..=418 | 421..=426 | 428 | 431 => CallerFault::Rejected(code).into(),
        408 | 504 => SourceError::from(SourceFault::Timeout).coded(&code),
        429 => SourceFault::Limited { code, retry_after: retry_after::of_headers(headers) }.into(),
        503 => SourceFault::Busy { code, retry_after: retry_after::of_headers(headers) }.into(),
        500..=599 => SourceError::from(SourceFault::Unavailable("it returned a server error")).coded(&code),
        // A partial response, or one that means that nothing has changed or that the work is not done yet: the gateway
        // did not request any of these.
        _ => SourceError::protocol(format!("HTTP status {code}")).coded(&code),
    };
    Some(error)
}

/// Undoes the content codings of a body (RFC 9110, section 8.4). The gateway requests none; it reads gzip and deflate
/// all the same, since some servers always send them.
fn decoded(headers: &HeaderMap, body: Bytes, max_answer: usize) -> Result<Bytes, SourceError> {
    let mut body = body;
    let named: Vec<&HeaderValue> = headers.get_all(header::CONTENT_ENCODING).iter().collect();
    let texts = named.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let codings: Vec<String> = texts.map(|coding| coding.trim().to_ascii_lowercase()).collect();
    if codings.len() > MAX_CODINGS {
        return Err(SourceError::protocol("more than two content codings"));
    }
    for coding in codings.iter().rev() {
        body = match coding.as_str() {
            "" | "identity" => body,
            _ if body.is_empty() => body,
            "gzip" | "x-gzip" => inflated(flate2::read::MultiGzDecoder::new(&*body), max_answer)?,
            "deflate" if is_zlib(&body) => inflated(flate2::read::ZlibDecoder::new(&*body), max_answer)?,
            // Some servers omit the zlib wrapper (RFC 9110, section 8.4.1.2).
            "deflate" => inflated(flate2::read::DeflateDecoder::new(&*body), max_answer)?,
            other => {
                let named = crate::contract::map::outcome::shorten(other.to_owned());
                return Err(SourceError::protocol(format!("a content coding that was not requested: {named}")));
            }
        };
    }
    Ok(body)
}

/// Whether bytes begin with zlib's header (RFC 1950, section 2.2).
fn is_zlib(bytes: &[u8]) -> bool {
    matches!(bytes, [method, flags, ..] if method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]) % 31 == 0)
}

/// Maximum number of nested content codings.
const MAX_CODINGS: usize = 2;

fn inflated(decoder: impl Read, max_answer: usize) -> Result<Bytes, SourceError> {
    let mut out = Vec::new();
    let limit = u64::try_from(max_answer).unwrap_or(u64::MAX).saturating_add(1);
    let read = decoder.take(limit).read_to_end(&mut out);
    match read {
        Ok(_) if out.len() <= max_answer => Ok(Bytes::from(out)),
        Ok(_) => Err(SourceError::unreadable("the response is larger than the limit")),
        Err(_) => Err(SourceError::protocol("the response's content coding is damaged")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::status::{FaultOwner, Reason};
    use std::io::Write;

    #[test]
    fn every_http_status_has_an_owner_and_a_reason() {
        use FaultOwner::{Caller, Gateway, Source};
        let of = |status: u16| {
            let error = status_error(StatusCode::from_u16(status).unwrap(), &HeaderMap::new());
            error.map(|error| (error.owner(), error.blame().reason))
        };
        for (statuses, wanted) in [
            (&[200, 201, 203, 204][..], None),
            (&[401, 403], Some((Gateway, Reason::SourceCredentialsRefused))),
            (&[400, 409, 411, 413, 415, 422, 428, 431], Some((Caller, Reason::SourceRejected))),
            (
                &[404, 405, 410, 501, 100, 202, 206, 302, 304, 402, 427, 451],
                Some((Source, Reason::SourceProtocolError)),
            ),
            (&[408, 504], Some((Source, Reason::SourceTimeout))),
            (&[429, 500, 502, 503, 507, 599], Some((Source, Reason::SourceUnavailable))),
        ] {
            for status in statuses {
                assert_eq!(of(*status), wanted, "{status}");
            }
        }
    }

    #[test]
    fn codings_are_undone_up_to_two_and_up_to_the_limit() {
        let gzip = |bytes: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        let read = |coding: &str, body: Vec<u8>| {
            let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, coding.parse().unwrap())]);
            decoded(&headers, body.into(), 1_000).map_err(|error| error.blame().health.is_unhealthy())
        };
        for (coding, body, wanted) in [
            ("identity", b"abc".to_vec(), Ok("abc")),
            ("gzip", gzip(b"abc"), Ok("abc")),
            ("x-gzip", gzip(b"abc"), Ok("abc")),
            ("gzip, gzip", gzip(&gzip(b"abc")), Ok("abc")),
            ("gzip", Vec::new(), Ok("")),
            // A single response is too large; a damaged one does not match the contract at all.
            ("gzip", gzip(&[b'x'; 1_001]), Err(false)),
            ("gzip", b"abc".to_vec(), Err(true)),
            ("br", b"abc".to_vec(), Err(true)),
            ("gzip, gzip, gzip", b"abc".to_vec(), Err(true)),
        ] {
            assert_eq!(read(coding, body), wanted.map(|text| Bytes::from_static(text.as_bytes())), "{coding}");
        }
    }
}
