//! A development CA: P-256, one folder, files `<name>.pem` and `<name>.key`. Production uses its own CA;
//! `certs/README.md` describes the required certificates.

use crate::hex::hex;
use crate::identity::list::{self, List, ListInfo};
use crate::identity::{Thumbprint, certificate_names, tls};
use crate::keyfile::write_private;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason, RevokedCertParams, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Name of the CA.
const CA_NAME: &str = "NDXP gateway development CA";
/// Validity of the CA.
const CA_DAYS: u64 = 3_650;
/// Default validity of a certificate.
pub const DEFAULT_DAYS: u64 = 397;
/// Validity of a revocation list.
const CRL_DAYS: u64 = 30;

/// The reason that a certificate was not made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file.
    #[error("{0}: {1}")]
    File(PathBuf, String),
    /// The certificate itself.
    #[error("the certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    /// It exists already.
    #[error("{0} is there already: choose another name or folder")]
    Exists(PathBuf),
    /// A name that is not valid in a certificate or a file name.
    #[error("{0:?} must be 1 to 64 letters, digits, dots or hyphens")]
    Name(String),
}

/// The purpose of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateRole {
    /// A server, by its DNS names and addresses.
    Server(Vec<String>),
    /// A member of staff, named by `spiffe://<trust domain>/staff/<id>`.
    Staff(String),
    /// A client of the gateway, named by `spiffe://<trust domain>/client/<id>`.
    Client(String),
}

/// Trust domain of the SPIFFE ids of this CA.
pub const TRUST_DOMAIN: &str = "ndxp.quangninh.gov.vn";

/// The URI that names a client.
pub fn client_uri(id: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/client/{id}")
}

/// The URI that names a member of staff.
pub fn staff_uri(id: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/staff/{id}")
}

/// One certificate, as `certs show` prints it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CertificateInfo {
    /// The file.
    pub file: PathBuf,
    /// Subject.
    pub subject: String,
    /// URI and DNS names.
    pub names: Vec<String>,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// End of its validity, Unix time in seconds.
    #[serde(serialize_with = "crate::time_zone::serialize")]
    pub not_after: i64,
    /// SHA-256, as in a token's `cnf`.
    pub thumbprint: String,
}

/// A development CA in a folder.
pub struct Pki {
    folder: PathBuf,
}

fn file_error(path: &Path, error: impl ToString) -> PkiError {
    PkiError::File(path.to_owned(), error.to_string())
}

fn days(count: u64) -> Duration {
    Duration::from_secs(count * 86_400)
}

impl Pki {
    /// The CA in this folder.
    pub fn at(folder: &Path) -> Self {
        Pki { folder: folder.to_owned() }
    }

    /// Creates the CA and an empty revocation list.
    ///
    /// # Errors
    /// There is a CA already, or a file cannot be written.
    pub fn init(&self) -> Result<(), PkiError> {
        let (certificate, key) = self.files("ca");
        if certificate.exists() {
            return Err(PkiError::Exists(certificate));
        }
        let pair = KeyPair::generate()?;
        let made = ca_params().self_signed(&pair)?;
        write_private(&key, pair.serialize_pem().as_bytes()).map_err(|error| file_error(&key, error))?;
        std::fs::write(&certificate, made.pem()).map_err(|error| file_error(&certificate, error))?;
        self.write_crl(&[])
    }

    fn files(&self, name: &str) -> (PathBuf, PathBuf) {
        (self.folder.join(format!("{name}.pem")), self.folder.join(format!("{name}.key")))
    }

    /// The CA's certificate.
    pub fn ca(&self) -> PathBuf {
        self.files("ca").0
    }

    /// The revocation list.
    pub fn crl(&self) -> PathBuf {
        self.folder.join("ca.crl")
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, PkiError> {
        let path = self.files("ca").1;
        let pem = std::fs::read_to_string(&path).map_err(|error| file_error(&path, error))?;
        Ok(Issuer::new(ca_params(), KeyPair::from_pem(&pem)?))
    }

    /// Creates a key and a certificate that is valid for this number of days, and returns their files.
    ///
    /// # Errors
    /// The name is invalid or taken, the CA cannot be read, or a file not be written.
    pub fn issue(&self, name: &str, role: &CertificateRole, valid: u64) -> Result<(PathBuf, PathBuf), PkiError> {
        self.issue_for(name, role, days(valid))
    }

    /// The same for a validity other than full days.
    ///
    /// # Errors
    /// As for [`Self::issue`].
    pub fn issue_for(
        &self,
        name: &str,
        role: &CertificateRole,
        valid: Duration,
    ) -> Result<(PathBuf, PathBuf), PkiError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
        if !(1..=64).contains(&name.len()) || !name.chars().all(plain) || name.starts_with('.') {
            return Err(PkiError::Name(name.to_owned()));
        }
        let (certificate, key) = self.files(name);
        if certificate.exists() {
            return Err(PkiError::Exists(certificate));
        }
        let pair = KeyPair::generate()?;
        let made = leaf_params(name, role, valid)?.signed_by(&pair, &self.issuer()?)?;
        write_private(&key, pair.serialize_pem().as_bytes()).map_err(|error| file_error(&key, error))?;
        std::fs::write(&certificate, made.pem()).map_err(|error| file_error(&certificate, error))?;
        Ok((certificate, key))
    }

    /// Puts a certificate on the revocation list. Gateways that read the list reload it by themselves.
    ///
    /// # Errors
    /// The certificate or the CA cannot be read, or the list not be written.
    pub fn revoke(&self, certificate: &Path) -> Result<CertificateInfo, PkiError> {
        let info = show(certificate)?;
        let path = self.folder.join("revoked.txt");
        let mut serials = std::fs::read_to_string(&path).unwrap_or_default();
        if !serials.lines().any(|line| line == info.serial) {
            serials.push_str(&format!("{}\n", info.serial));
            std::fs::write(&path, &serials).map_err(|error| file_error(&path, error))?;
        }
        self.write_crl(&serials.lines().collect::<Vec<_>>())?;
        Ok(info)
    }

    /// Returns the number of the existing list.
    fn last_number(&self) -> Option<u64> {
        let number = list::read_file(&self.crl()).ok()?.pop()?.number?;
        let start = 8_usize.checked_sub(number.len())?;
        let mut bytes = [0; 8];
        bytes[start..].copy_from_slice(&number);
        Some(u64::from_be_bytes(bytes))
    }

    fn write_crl(&self, serials: &[&str]) -> Result<(), PkiError> {
        let now = SystemTime::now();
        let bytes = |hex: &str| -> Vec<u8> {
            (0..hex.len() / 2).filter_map(|i| u8::from_str_radix(hex.get(2 * i..2 * i + 2)?, 16).ok()).collect()
        };
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&bytes(serial)),
            revocation_time: now.into(),
            reason_code: Some(RevocationReason::Unspecified),
            invalidity_date: None,
        });
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        // Numbers only rise (RFC 5280, section 5.2.3), even if two lists are made in one second.
        let number = seconds.max(self.last_number().map_or(0, |last| last.saturating_add(1)));
        let params = CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + days(CRL_DAYS)).into(),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = self.crl();
        let pem = params.signed_by(&self.issuer()?)?.pem()?;
        let fresh = path.with_extension("crl.new");
        let write = || std::fs::write(&fresh, pem).and_then(|()| std::fs::rename(&fresh, &path));
        write().map_err(|error| file_error(&path, error))
    }
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, CA_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = (SystemTime::now() - days(1)).into();
    params.not_after = (SystemTime::now() + days(CA_DAYS)).into();
    params
}

fn leaf_params(name: &str, role: &CertificateRole, valid: Duration) -> Result<CertificateParams, PkiError> {
    let mut params = match role {
        CertificateRole::Server(names) => CertificateParams::new(names.clone())?,
        CertificateRole::Client(id) => with_uri(client_uri(id))?,
        CertificateRole::Staff(id) => with_uri(staff_uri(id))?,
    };
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match role {
        CertificateRole::Server(_) => ExtendedKeyUsagePurpose::ServerAuth,
        CertificateRole::Client(_) | CertificateRole::Staff(_) => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| rcgen::Error::RingUnspecified)?;
    // A positive number of 16 bytes (RFC 5280, section 4.1.2.2).
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = (SystemTime::now() - Duration::from_secs(300)).into();
    params.not_after = (SystemTime::now() + valid).into();
    Ok(params)
}

fn with_uri(uri: String) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    Ok(params)
}

/// Days before its end at which a certificate is reported.
pub const WARN_DAYS: i64 = 30;
/// The same for a revocation list, which is renewed every few hours or days.
pub const WARN_CRL_DAYS: i64 = 2;

/// A certificate or list that expires.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Ending {
    /// Its name: a certificate's subject, or a revocation list's issuer.
    pub what: String,
    /// When, Unix time in seconds.
    #[serde(serialize_with = "crate::time_zone::serialize")]
    pub at: i64,
    /// Days before its end at which it is reported.
    pub warn_days: i64,
    /// Of a revocation list, its further data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list: Option<ListInfo>,
}

impl Ending {
    /// Returns the end of a revocation list.
    pub fn of_list(list: &List) -> Self {
        let info = ListInfo::from(list);
        let what = format!("the revocation list of {}", info.issuer);
        Ending { what, at: list.next_update, warn_days: WARN_CRL_DAYS, list: Some(info) }
    }

    /// Returns whether it ends soon, or has ended.
    pub fn is_near(&self, now: i64) -> bool {
        self.at - now < self.warn_days * 86_400
    }
}

/// Returns the certificates (PEM) of a file with their ends; empty if it holds a key or a secret.
pub fn expirations(file: &Path) -> Vec<Ending> {
    let Ok(bytes) = std::fs::read(file) else { return Vec::new() };
    let certificate = |der: CertificateDer<'_>| {
        let (_, read) = X509Certificate::from_der(&der).ok()?;
        let at = read.validity().not_after.timestamp();
        Some(Ending { what: read.subject().to_string(), at, warn_days: WARN_DAYS, list: None })
    };
    CertificateDer::pem_slice_iter(&bytes).filter_map(|der| certificate(der.ok()?)).collect()
}

/// Reads a certificate.
///
/// # Errors
/// The file cannot be read, or is not a certificate.
pub fn show(file: &Path) -> Result<CertificateInfo, PkiError> {
    let chain = tls::certificates(file).map_err(|fault| file_error(file, fault.reason))?;
    let (_, certificate) = X509Certificate::from_der(&chain[0]).map_err(|error| file_error(file, error))?;
    Ok(CertificateInfo {
        file: file.to_owned(),
        subject: certificate.subject().to_string(),
        names: certificate_names(&chain[0]),
        serial: hex(certificate.raw_serial()),
        not_after: certificate.validity().not_after.timestamp(),
        thumbprint: Thumbprint::of(&chain[0]).base64url(),
    })
}
