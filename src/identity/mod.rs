//! Identity: the peer of a connection, from its certificate. The handshake has proved that the peer holds the
//! certificate's key and that the province's CA signed it; this module reads its names, once for each connection.

use crate::registry::{Actor, ClientView, Digest, NameOwner, Snapshot, canonical_name};
use crate::status::{Reason, Refusal};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use rustls_pki_types::CertificateDer;
use std::net::SocketAddr;
use std::sync::Arc;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

pub mod arrival;
pub mod authority;
pub mod cached_lists;
pub mod certificates;
pub mod connections;
pub mod crl;
pub mod ends;
mod files;
pub mod handshake_limits;
pub mod hello;
pub mod list;
mod own;
pub mod principal;
pub mod proxy;
mod record;
pub mod refused;
pub mod stream;
mod succession;
pub mod tls;
pub mod trust;

/// SHA-256 of a certificate's DER.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Thumbprint(pub [u8; 32]);

impl Thumbprint {
    /// Returns that of a certificate.
    pub fn of(der: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, der).as_ref());
        Thumbprint(bytes)
    }

    /// Returns it in the form of `x5t#S256`.
    pub fn base64url(&self) -> String {
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(self.0)
    }
}

/// A certificate that a handshake has checked, and its parsed content.
#[derive(Debug)]
pub struct Certificate {
    /// The certificate and those above it, as the peer sent them.
    pub chain: Vec<CertificateDer<'static>>,
    /// Of the certificate itself.
    pub thumbprint: Thumbprint,
    /// The same as `x5t#S256`.
    pub x5t: String,
    /// SHA-256 of its public key (SubjectPublicKeyInfo): the same after a renewal with the same key.
    pub key: [u8; 32],
    /// Its URI and DNS names, in canonical form, each once.
    pub names: Vec<String>,
    /// When each certificate of the chain expires, Unix time in seconds; its own first.
    pub ends: Vec<i64>,
}

/// Returns when a certificate expires: it is valid through its last second (RFC 5280, section 4.1.2.5). A certificate
/// that cannot be read has expired.
fn end_of(der: &[u8]) -> i64 {
    X509Certificate::from_der(der).map_or(0, |(_, read)| read.validity().not_after.timestamp().saturating_add(1))
}

impl Certificate {
    /// Returns when it expires, Unix time in seconds.
    pub fn end(&self) -> i64 {
        self.ends.first().copied().unwrap_or(0)
    }

    /// Returns whether it has expired.
    pub fn is_over(&self, now: i64) -> bool {
        now >= self.end()
    }

    /// Returns when the next certificate of its chain expires.
    pub fn next_end(&self, now: i64) -> Option<i64> {
        self.ends.iter().copied().filter(|end| *end > now).min()
    }

    /// Makes it from a chain; `None` if that is empty.
    pub fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let own = chain.first()?;
        let thumbprint = Thumbprint::of(own);
        let ends = chain.iter().map(|der| end_of(der)).collect();
        let chain = chain.iter().map(|der| der.clone().into_owned()).collect();
        let mut names: Vec<String> = certificate_names(own).iter().map(|name| canonical_name(name)).collect();
        names.sort_unstable();
        names.dedup();
        Some(Certificate { thumbprint, x5t: thumbprint.base64url(), key: key_digest(own), names, chain, ends })
    }
}

/// The peer of a connection.
#[derive(Debug)]
pub struct Peer {
    /// Its certificate.
    pub certificate: Arc<Certificate>,
    /// Its address.
    pub address: SocketAddr,
}

/// Returns the SHA-256 of a certificate's public key; of the certificate itself if the key cannot be read, so that it
/// equals no other.
fn key_digest(der: &[u8]) -> [u8; 32] {
    match X509Certificate::from_der(der) {
        Ok((_, certificate)) => Thumbprint::of(certificate.public_key().raw).0,
        Err(_) => Thumbprint::of(der).0,
    }
}

/// Returns the URI and DNS names of a certificate, in its order.
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
    /// Checks that the certificate is in force now: a handshake of an hour ago does not prove that.
    ///
    /// # Errors
    /// CERTIFICATE_REVOKED.
    pub fn check_time(&self, now: i64) -> Result<(), Refusal> {
        if self.certificate.is_over(now) { Err(Reason::CertificateRevoked.into()) } else { Ok(()) }
    }

    /// Returns this peer as a member of staff, by their id in the registry.
    pub fn staff(&self, id: &str) -> Actor {
        Actor::Staff {
            id: id.to_owned(),
            thumbprint: Digest(self.certificate.thumbprint.0),
            key: Digest(self.certificate.key),
            names: self.certificate.names.clone(),
            address: self.address.to_string(),
        }
    }

    /// Returns this peer as a client that acts for itself.
    pub fn client(&self, id: &str) -> Actor {
        Actor::Client {
            id: id.to_owned(),
            thumbprint: Digest(self.certificate.thumbprint.0),
            address: self.address.to_string(),
        }
    }

    /// Returns the registered client that a certificate identifies. A certificate of a person does not identify a
    /// client; a certificate that names several identities is refused, even if one of its names would be sufficient.
    ///
    /// # Errors
    /// CERTIFICATE_AMBIGUOUS, CLIENT_UNKNOWN or CLIENT_SUSPENDED; REGISTRY_UNAVAILABLE while the registry is not known as it is.
    pub fn identify(&self, registry: &Snapshot) -> Result<Arc<ClientView>, Refusal> {
        let view = match registry.owner_of(&self.certificate.names) {
            NameOwner::Client(view) => view,
            NameOwner::Ambiguous => return Err(Reason::CertificateAmbiguous.into()),
            NameOwner::Outdated => return Err(Reason::RegistryUnavailable.into()),
            NameOwner::Unregistered | NameOwner::Staff(_) => return Err(Reason::ClientUnknown.into()),
        };
        if view.client.suspended {
            return Err(Reason::ClientSuspended.into());
        }
        Ok(view.clone())
    }
}
