//! Health checks: whether an endpoint can be reached. They request no personal data.

use super::http::HttpEndpoint;
use bytes::Bytes;
use http::{HeaderMap, Method, Uri};
use rustls::pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Longest check.
const PATIENCE: Duration = Duration::from_secs(3);
/// Largest response to a check, in bytes.
const MAX_ANSWER: usize = 64 << 10;

/// Why an endpoint cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum EndpointFault {
    /// The address is malformed.
    #[error("the address is no https URL with a host")]
    Address,
    /// No connection: an unknown name, a refusal, no route.
    #[error("no connection: {0}")]
    Connect(std::io::Error),
    /// The handshake failed: a certificate of another CA or name, or the gateway's own is refused.
    #[error("the TLS handshake failed: {0}")]
    Handshake(std::io::Error),
    /// It responded with a server error.
    #[error("it responds with HTTP {0}")]
    Status(u16),
    /// The request failed.
    #[error("{0}")]
    Request(String),
    /// It did not respond in time.
    #[error("no response within {} s", PATIENCE.as_secs())]
    TimedOut,
}

/// Returns whether an endpoint can be reached, as [`check`] finds.
pub async fn reachable(address: &str, tls: &rustls::ClientConfig, path: Option<&str>) -> bool {
    check(address, tls, path).await.is_ok()
}

/// Checks whether an endpoint can be reached: a request for `path` gets a response without a server error (any other
/// status shows that it works), or, without a path, a TLS handshake succeeds.
///
/// # Errors
/// Why it cannot; after three seconds in any case.
pub async fn check(address: &str, tls: &rustls::ClientConfig, path: Option<&str>) -> Result<(), EndpointFault> {
    let check = async {
        let Some(path) = path else { return handshake(address, tls).await };
        let endpoint = HttpEndpoint::new(address, tls.clone(), MAX_ANSWER);
        let answer = endpoint.send(Method::GET, path, HeaderMap::new(), Bytes::new()).await;
        let answer = answer.map_err(|error| EndpointFault::Request(error.to_string()))?;
        match answer.status.is_server_error() {
            true => Err(EndpointFault::Status(answer.status.as_u16())),
            false => Ok(()),
        }
    };
    tokio::time::timeout(PATIENCE, check).await.unwrap_or(Err(EndpointFault::TimedOut))
}

async fn handshake(address: &str, tls: &rustls::ClientConfig) -> Result<(), EndpointFault> {
    let uri: Uri = address.parse().map_err(|_| EndpointFault::Address)?;
    let host = uri.host().ok_or(EndpointFault::Address)?.trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).map_err(|_| EndpointFault::Address)?;
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await.map_err(EndpointFault::Connect)?;
    TlsConnector::from(Arc::new(tls.clone())).connect(name, stream).await.map_err(EndpointFault::Handshake)?;
    Ok(())
}
