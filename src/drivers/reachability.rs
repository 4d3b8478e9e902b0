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

/// Returns whether an endpoint can be reached: a request for `path` gets a response without a server error (any other
/// status shows that it works), or, without a path, a TLS handshake succeeds.
pub async fn reachable(address: &str, tls: &rustls::ClientConfig, path: Option<&str>) -> bool {
    let check = async {
        match path {
            Some(path) => {
                let endpoint = HttpEndpoint::new(address, tls.clone(), MAX_ANSWER);
                let answer = endpoint.send(Method::GET, path, HeaderMap::new(), Bytes::new()).await;
                answer.is_ok_and(|answer| !answer.status.is_server_error())
            }
            None => handshake(address, tls).await.is_some(),
        }
    };
    tokio::time::timeout(PATIENCE, check).await.unwrap_or(false)
}

async fn handshake(address: &str, tls: &rustls::ClientConfig) -> Option<()> {
    let uri: Uri = address.parse().ok()?;
    let host = uri.host()?.trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).ok()?;
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await.ok()?;
    TlsConnector::from(Arc::new(tls.clone())).connect(name, stream).await.ok().map(|_| ())
}
