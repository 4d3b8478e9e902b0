//! TLS on the gRPC port: client certificates required, TLS 1.3 (1.2 only by choice), X25519MLKEM768 offered first.

use super::crl::CrlUrl;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is wrong with a certificate, key or CRL file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct TlsFault {
    /// Which file.
    pub path: PathBuf,
    /// What is wrong, and what to do.
    pub reason: String,
}

fn fault(path: &Path, reason: impl Into<String>) -> TlsFault {
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
    /// CRLs, PEM; none: revocation is not checked.
    pub crl: Option<PathBuf>,
    /// Where the list is published; it is kept in the file `crl`.
    pub crl_url: Option<CrlUrl>,
    /// Whether TLS 1.2 is offered too.
    pub allow_tls12: bool,
}

impl TlsFiles {
    /// All of them.
    pub fn files(&self) -> Vec<PathBuf> {
        let all = [Some(&self.certificate), Some(&self.key), Some(&self.client_ca), self.crl.as_ref()];
        all.into_iter().flatten().cloned().collect()
    }
}

/// The provider that everything uses.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Reads a certificate chain.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| fault(path, error.to_string()))?.collect();
    let chain = chain.map_err(|error| fault(path, error.to_string()))?;
    if chain.is_empty() { Err(fault(path, "has no certificate (PEM)")) } else { Ok(chain) }
}

/// Reads a private key.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsFault> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| fault(path, format!("has no private key (PEM): {error}")))
}

/// Reads CAs into a root store.
pub fn roots(path: &Path) -> Result<RootCertStore, TlsFault> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|error| fault(path, error.to_string()))?;
    }
    Ok(store)
}

/// The gRPC port's TLS, as loaded: what new connections get, and what connections under way are checked against.
pub struct Gate {
    /// For new connections.
    pub config: Arc<rustls::ServerConfig>,
    /// For the HTTPS port: a client certificate is asked for, not required.
    pub web: Arc<rustls::ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Gate {
    /// Loads the files.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsFault> {
        let verifier = client_verifier(files, false)?;
        let mut web = server_config_with(files, client_verifier(files, true)?)?;
        web.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Gate { config: Arc::new(server_config_with(files, verifier.clone())?), web: Arc::new(web), verifier })
    }

    /// Whether a chain that was let in before would be let in now: it may have been revoked or have expired since.
    pub fn still_admits(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some((own, above)) = chain.split_first() else { return false };
        self.verifier.verify_client_cert(own, above, UnixTime::now()).is_ok()
    }
}

fn client_verifier(files: &TlsFiles, optional: bool) -> Result<Arc<dyn ClientCertVerifier>, TlsFault> {
    let roots = Arc::new(roots(&files.client_ca)?);
    let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
    if let Some(path) = &files.crl {
        let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_file_iter(path)
            .map_err(|error| fault(path, error.to_string()))?
            .collect();
        verifier = verifier.with_crls(lists.map_err(|error| fault(path, error.to_string()))?);
        // An outdated list must not let a revoked certificate in.
        verifier = verifier.enforce_revocation_expiration();
    }
    let verifier = if optional { verifier.allow_unauthenticated() } else { verifier };
    let built = verifier.build().map_err(|error| fault(&files.client_ca, error.to_string()))?;
    Ok(built)
}

/// The server's side of the gRPC port.
pub fn server_config(files: &TlsFiles) -> Result<rustls::ServerConfig, TlsFault> {
    server_config_with(files, client_verifier(files, false)?)
}

fn server_config_with(
    files: &TlsFiles,
    verifier: Arc<dyn ClientCertVerifier>,
) -> Result<rustls::ServerConfig, TlsFault> {
    let versions: &[&rustls::SupportedProtocolVersion] = if files.allow_tls12 {
        &[&rustls::version::TLS13, &rustls::version::TLS12]
    } else {
        &[&rustls::version::TLS13]
    };
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(|error| fault(&files.certificate, error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&files.certificate)?, private_key(&files.key)?)
        .map_err(|error| fault(&files.certificate, error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // No resumption: a session ticket must not outlive the revocation of the certificate that it stands for.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The side of a server that asks for no certificate: the sandbox's sources.
pub fn plain_server_config(certificate: &Path, key: &Path) -> Result<rustls::ServerConfig, TlsFault> {
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| fault(certificate, error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(certificates(certificate)?, private_key(key)?)
        .map_err(|error| fault(certificate, error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The client's side, towards sources and in `call`.
pub fn client_config(ca: &Path, own: Option<(&Path, &Path)>, alpn: &[&[u8]]) -> Result<rustls::ClientConfig, TlsFault> {
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| fault(ca, error.to_string()))?
        .with_root_certificates(roots(ca)?);
    let mut config = match own {
        Some((certificate, key)) => builder
            .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
            .map_err(|error| fault(certificate, error.to_string()))?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}
