//! TLS clients and servers for tests.

use ndxp_gateway::identity::tls;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::client::TlsStream;

/// TLS over a loopback connection, with or without a client certificate.
pub async fn secured(
    stream: TcpStream,
    ca: &Path,
    own: Option<(&Path, &Path)>,
    protocols: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let config = tls::client_config(ca, own, protocols).unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect("localhost".try_into().unwrap(), stream).await
}

/// TLS like the sandbox: with its certificate, for peers with a certificate of the province's CA.
pub fn sandbox_config(pki: &Path) -> rustls::ServerConfig {
    let files = tls::TlsFiles {
        certificate: pki.join("sandbox.pem"),
        key: pki.join("sandbox.key"),
        client_ca: pki.join("ca.pem"),
        revocation: tls::Revocation::Unchecked,
        names: Vec::new(),
        allow_tls12: false,
    };
    tls::server_config(&files).unwrap()
}

/// Accepts connections like the sandbox: with its certificate, from the gateway.
pub fn sandbox_acceptor(pki: &Path) -> TlsAcceptor {
    TlsAcceptor::from(Arc::new(sandbox_config(pki)))
}
