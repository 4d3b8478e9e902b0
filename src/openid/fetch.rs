//! HTTPS requests to the provider: verified by the configured CAs, bounded in time and in bytes, without redirects.

use super::SignInError;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::time::Duration;

/// Longest time of a request, from the connection to the last byte of its response: a person waits for it.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Idle time after which a pooled connection is closed.
const IDLE: Duration = Duration::from_secs(30);
/// Largest response in bytes: metadata and key sets take some kilobytes, tokens with group claims some more.
pub(super) const MAX_ANSWER: usize = 64 << 10;

/// The HTTPS client for the provider.
pub(super) struct Fetch(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Fetch {
    /// Returns a client with these TLS settings; `http:` URLs are refused.
    pub fn new(tls: rustls::ClientConfig) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(TIMEOUT));
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_all_versions();
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).pool_max_idle_per_host(4);
        Fetch(builder.build(connector.wrap_connector(tcp)))
    }

    /// Fetches a JSON document.
    pub async fn document(&self, address: &str) -> Result<Bytes, SignInError> {
        let request = Request::get(address).header(http::header::ACCEPT, "application/json");
        let request = request.body(Bytes::new()).map_err(|_| SignInError::Metadata)?;
        let response = self.send(request).await?;
        if response.status() == StatusCode::OK { Ok(response.into_body()) } else { Err(SignInError::Status) }
    }

    /// Sends a request and reads its bounded response.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, SignInError> {
        tokio::time::timeout(TIMEOUT, self.answer(request)).await.unwrap_or(Err(SignInError::Timeout))
    }

    async fn answer(&self, request: Request<Bytes>) -> Result<Response<Bytes>, SignInError> {
        let answer = self.0.request(request.map(Full::new)).await.map_err(|_| SignInError::Unreachable)?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() { SignInError::TooLarge } else { SignInError::Unreachable }
        })?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}
