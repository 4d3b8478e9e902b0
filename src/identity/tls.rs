//! TLS on the gRPC port: client certificates required, TLS 1.3 (1.2 only if configured), X25519MLKEM768 offered first.

use super::files::fault;
pub use super::files::{CrlSources, Revocation, TlsFault, TlsFiles, certificates, private_key, provider, roots};
use super::own::OwnChain;
use super::refused::{Cause, RefusedHandshake, is_weak};
use super::trust::Trust;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The loaded TLS state of the gRPC port: for new connections, and for checks of open ones.
pub struct TlsAcceptors {
    /// For new connections.
    pub config: Arc<rustls::ServerConfig>,
    /// For the HTTPS port: a client certificate is requested, not required.
    pub web: Arc<rustls::ServerConfig>,
    /// The CAs of the clients with their lists.
    pub trust: Arc<Trust>,
    /// The gateway's own certificate.
    own: OwnChain,
}

impl TlsAcceptors {
    /// Loads certificate, key, CAs and revocation lists.
    ///
    /// # Errors
    /// A file cannot be read or used, or a CA that may admit clients has no list.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsFault> {
        Self::load_after(files, None)
    }

    /// Loads the files again: revocation lists must not be older than those in force.
    ///
    /// # Errors
    /// As for [`TlsAcceptors::load`]; or a list is older than the one in force.
    pub fn reload(&self, files: &TlsFiles) -> Result<Self, TlsFault> {
        Self::load_after(files, Some(&self.trust))
    }

    fn load_after(files: &TlsFiles, before: Option<&Trust>) -> Result<Self, TlsFault> {
        let trust = Arc::new(Trust::load(files, before)?);
        let mut web = server_config_with(files, Verifier::new(&trust, false))?;
        web.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let config = server_config_with(files, Verifier::new(&trust, true))?;
        let own = OwnChain::load(files)?;
        trust.prune();
        Ok(TlsAcceptors { config: Arc::new(config), web: Arc::new(web), trust, own })
    }

    /// Returns the present faults, one reason each: readiness reports them before a client is affected.
    pub fn faults(&self, now: i64) -> Vec<String> {
        [self.own.faults(now), self.trust.faults(now)].concat()
    }

    /// Checks whether a chain that was accepted before would be accepted now, and returns until when at most: something
    /// that it depends on may have been revoked, have expired or be out of date since.
    ///
    /// # Errors
    /// The cause for which it would be refused.
    pub fn still_admits(&self, chain: &[CertificateDer<'_>]) -> Result<i64, RefusedHandshake> {
        let Some((own, above)) = chain.split_first() else { return Err(Cause::NoCertificate.into()) };
        self.trust.verify(own, above, unix_now())
    }
}

tokio::task_local! {
    /// The verifier's result for this task's handshake: until when the peer is accepted, or the refusal.
    static NOTED: RefCell<Option<Result<i64, RefusedHandshake>>>;
}

/// Performs a handshake as a server, and returns the stream and until when its peer is accepted at most (Unix time in seconds; always,
/// where it showed no certificate).
///
/// # Errors
/// The cause of the refusal; the peer gets the TLS alert for it.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    acceptor: TlsAcceptor,
    stream: S,
) -> Result<(TlsStream<S>, i64), RefusedHandshake> {
    let handshake = async {
        let stream = acceptor.accept(stream).await;
        match (stream, NOTED.with(RefCell::take)) {
            (Ok(stream), noted) => Ok((stream, noted.and_then(Result::ok).unwrap_or(i64::MAX))),
            (Err(error), noted) => Err(RefusedHandshake::of(&error, noted.and_then(Result::err))),
        }
    };
    NOTED.scope(RefCell::default(), handshake).await
}

/// Verifies each client by [`Trust`], and records why it was refused.
#[derive(Debug)]
struct Verifier {
    trust: Arc<Trust>,
    required: bool,
    hints: Vec<DistinguishedName>,
}

impl Verifier {
    fn new(trust: &Arc<Trust>, required: bool) -> Arc<Self> {
        Arc::new(Verifier { trust: trust.clone(), required, hints: trust.hints() })
    }

    /// Records the refusal, so that [`accept`] knows the cause.
    fn refuse(refused: RefusedHandshake) -> rustls::Error {
        let error = refused.error();
        Self::note(Err(refused));
        error
    }

    /// Has no effect outside of `accept`.
    fn note(found: Result<i64, RefusedHandshake>) {
        let _ = NOTED.try_with(|noted| noted.replace(Some(found)));
    }

    fn unproved(certificate: &CertificateDer<'_>) -> rustls::Error {
        let cause = if is_weak(certificate) { Cause::WeakKey } else { Cause::BadSignature };
        Self::refuse(RefusedHandshake::about(cause, certificate))
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let until = self.trust.verify(own, above, now).map_err(Self::refuse)?;
        Self::note(Ok(until));
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.trust.algorithms)
            .map_err(|_| Self::unproved(certificate))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.trust.algorithms)
            .map_err(|_| Self::unproved(certificate))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.algorithms.supported_schemes()
    }
}

/// Builds the server's configuration of the gRPC port.
///
/// # Errors
/// The certificate and the key do not belong together, or rustls refuses them.
pub fn server_config(files: &TlsFiles) -> Result<rustls::ServerConfig, TlsFault> {
    server_config_with(files, Verifier::new(&Arc::new(Trust::load(files, None)?), true))
}

/// Returns the gateway's time for TLS: it does not go back, so no expired certificate becomes valid again.
pub fn unix_now() -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(crate::registry::now().unsigned_abs()))
}

/// The time provider of rustls.
#[derive(Debug)]
struct OwnTime;

impl TimeProvider for OwnTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_now())
    }
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
    let (chain, key) = (certificates(&files.certificate)?, private_key(&files.key)?);
    let mut config = rustls::ServerConfig::builder_with_details(provider(), Arc::new(OwnTime))
        .with_protocol_versions(versions)
        .map_err(|error| fault(&files.certificate, error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| unfit((&files.certificate, &files.key), &error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // No resumption: a session ticket must not outlive the revocation of its certificate.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Returns which of certificate and key is at fault.
fn unfit((certificate, key): (&Path, &Path), error: &rustls::Error) -> TlsFault {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            fault(key, format!("is not the key of the certificate {}", certificate.display()))
        }
        // The certificate was read before: this error concerns the key.
        rustls::Error::General(reason) => fault(key, reason.clone()),
        error => fault(certificate, error.to_string()),
    }
}

/// Builds the configuration of a server that requests no client certificate: the sandbox's sources.
///
/// # Errors
/// As for [`server_config`].
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

/// Builds the client's configuration, towards sources and in `call`.
///
/// # Errors
/// A file cannot be read, or the certificate and the key do not belong together.
pub fn client_config(ca: &Path, own: Option<(&Path, &Path)>, alpn: &[&[u8]]) -> Result<rustls::ClientConfig, TlsFault> {
    let builder = rustls::ClientConfig::builder_with_details(provider(), Arc::new(OwnTime))
        .with_safe_default_protocol_versions()
        .map_err(|error| fault(ca, error.to_string()))?
        .with_root_certificates(roots(ca)?);
    let mut config = match own {
        Some((certificate, key)) => builder
            .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
            .map_err(|error| unfit((certificate, key), &error))?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}
