//! Identity: who is at the other end of a connection, from its certificate. The handshake has proved that the peer holds
//! the certificate's key and that the province's CA signed it; here its names are read, once for each connection.

use crate::registry::{ClientView, Snapshot};
use crate::status::{Reason, Refusal};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use std::net::SocketAddr;
use std::sync::Arc;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

pub mod connections;
pub mod crl;
pub mod tls;

/// SHA-256 of a certificate's DER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thumbprint(pub [u8; 32]);

impl Thumbprint {
    /// Of a certificate.
    pub fn of(der: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, der).as_ref());
        Thumbprint(bytes)
    }

    /// As `x5t#S256` has it.
    pub fn base64url(&self) -> String {
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(self.0)
    }
}

/// Who is at the other end of a connection.
#[derive(Debug)]
pub struct Peer {
    /// The certificate.
    pub thumbprint: Thumbprint,
    /// The same as `x5t#S256`.
    pub x5t: String,
    /// URI and DNS names of the certificate.
    pub names: Vec<String>,
    /// Where the connection comes from.
    pub address: SocketAddr,
}

/// URI and DNS names of a certificate, in its order.
pub fn certificate_names(der: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Vec::new() };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::URI(text) | GeneralName::DNSName(text) => Some((*text).to_owned()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(text).collect()
}

impl Peer {
    /// From the certificate that the handshake checked.
    pub fn new(der: &[u8], address: SocketAddr) -> Self {
        let thumbprint = Thumbprint::of(der);
        Peer { thumbprint, x5t: thumbprint.base64url(), names: certificate_names(der), address }
    }

    /// The registered client that this is.
    pub fn identify(&self, registry: &Snapshot) -> Result<Arc<ClientView>, Refusal> {
        let view = registry.client_of(&self.names).ok_or(Reason::ClientUnknown)?;
        if view.client.suspended {
            return Err(Reason::ClientSuspended.into());
        }
        Ok(view.clone())
    }
}
