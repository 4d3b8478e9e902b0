//! The files of TLS: certificates, keys, CAs, and the sources of revocation lists.

use crate::keyfile::Vault;
use http::Uri;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A fault of a certificate, key or CRL file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct TlsFault {
    /// The file.
    pub path: PathBuf,
    /// The fault, and how to fix it.
    pub reason: String,
}

pub(super) fn fault(path: &Path, reason: impl Into<String>) -> TlsFault {
    TlsFault { path: path.to_owned(), reason: reason.into() }
}

/// The files of the gRPC port's TLS.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The gateway's certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// CAs of the clients, PEM.
    pub client_ca: PathBuf,
    /// How revocation is checked.
    pub revocation: Revocation,
    /// The names (DNS or address) that clients use for the gateway: its certificate must cover each.
    pub names: Vec<String>,
    /// Whether TLS 1.2 is offered too.
    pub allow_tls12: bool,
}

/// How revocation is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    /// Not checked: the configuration states so explicitly.
    Unchecked,
    /// Against these lists. Each CA must have one.
    Checked(CrlSources),
}

/// The sources of revocation lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlSources {
    /// Files, PEM or DER.
    pub files: Vec<PathBuf>,
    /// URLs of published lists: `http://…`, or `https://…` with a certificate of the clients' CA.
    pub urls: Vec<Uri>,
    /// How often they are fetched.
    pub every: Duration,
    /// The folder in which fetched lists are cached.
    pub cached: PathBuf,
    /// The file with the lists that were in force when the gateway last ran.
    pub record: PathBuf,
    /// The registry's file; the key that authenticates the record is beside it.
    pub registry: PathBuf,
    /// The vault that opens that key.
    pub vault: Vault,
}

impl CrlSources {
    /// Returns the path for the report of a missing list.
    pub(super) fn place(&self) -> PathBuf {
        self.files.first().unwrap_or(&self.cached).clone()
    }
}

impl TlsFiles {
    /// The same, with the vault of the gateway's own keys.
    pub fn with_vault(mut self, vault: &Vault) -> Self {
        if let Revocation::Checked(sources) = &mut self.revocation {
            sources.vault = vault.clone();
        }
        self
    }

    /// Returns all of them, except fetched files: those are loaded when they arrive.
    pub fn files(&self) -> Vec<PathBuf> {
        let lists = match &self.revocation {
            Revocation::Checked(sources) => sources.files.as_slice(),
            Revocation::Unchecked => &[],
        };
        [&self.certificate, &self.key, &self.client_ca].into_iter().chain(lists).cloned().collect()
    }

    /// Returns the URLs of published lists, if there are any.
    pub fn published(&self) -> Option<&CrlSources> {
        match &self.revocation {
            Revocation::Checked(sources) if !sources.urls.is_empty() => Some(sources),
            _ => None,
        }
    }
}

/// The crypto provider for all TLS.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Reads a certificate chain (PEM).
///
/// # Errors
/// The file cannot be read, has no certificate, or one that is malformed.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| fault(path, error.to_string()))?.collect();
    let chain = chain.map_err(|error| fault(path, error.to_string()))?;
    if chain.is_empty() { Err(fault(path, "has no certificate (PEM)")) } else { Ok(chain) }
}

/// Reads a private key (PEM).
///
/// # Errors
/// The file cannot be read, or has no private key.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsFault> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| {
        // RFC 7468, section 11, and OpenSSL's older form.
        let sealed = ["ENCRYPTED PRIVATE KEY", "Proc-Type: 4,ENCRYPTED"];
        let text = std::fs::read_to_string(path).unwrap_or_default();
        fault(
            path,
            match sealed.iter().any(|mark| text.contains(mark)) {
                true => "has a passphrase, which nobody can type here: openssl pkey -in OLD -out NEW takes it off"
                    .to_owned(),
                false => format!("has no private key (PEM): {error}"),
            },
        )
    })
}

/// Reads CAs into a root store.
///
/// # Errors
/// As for [`certificates`]; or a certificate is not a CA's.
pub fn roots(path: &Path) -> Result<RootCertStore, TlsFault> {
    let mut store = RootCertStore::empty();
    for (at, certificate) in certificates(path)?.into_iter().enumerate() {
        store.add(certificate).map_err(|error| fault(path, format!("certificate {}: {error}", at + 1)))?;
    }
    Ok(store)
}
