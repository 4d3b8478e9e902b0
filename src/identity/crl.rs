//! A revocation list that is published at a URL (RFC 5280, section 4.2.1.13): fetched again and again, checked, and kept
//! in a file, which the gateway follows like any other. Plain HTTP will do, since the list is signed; one that is garbled,
//! not signed by a CA of the clients, over, or older than the one at hand never takes its place.

use super::tls;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey,
    VerificationAlgorithm,
};
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;
use std::path::{Path, PathBuf};
use std::time::Duration;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Largest list: some hundred thousand revoked certificates.
const MAX_BYTES: usize = 16 << 20;

/// Where a revocation list is published, and how it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlUrl {
    /// `http://…` or `https://…` (with a certificate of the clients' CA).
    pub url: Uri,
    /// How often it is asked for.
    pub every: Duration,
}

/// Why a published list was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the revocation list at {url} was not taken: {reason}")]
pub struct CrlError {
    url: String,
    reason: String,
}

/// Fetches a list into a file.
pub struct CrlFetcher {
    source: CrlUrl,
    file: PathBuf,
    client_ca: PathBuf,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    etag: Option<HeaderValue>,
    modified: Option<HeaderValue>,
}

impl CrlFetcher {
    /// Fetches from a URL into `file`; believes lists of the CAs in `client_ca`.
    pub fn new(source: CrlUrl, file: &Path, client_ca: &Path) -> Result<Self, tls::TlsFault> {
        let config = tls::client_config(client_ca, None, &[])?;
        let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let (file, client_ca) = (file.to_owned(), client_ca.to_owned());
        Ok(CrlFetcher { source, file, client_ca, client, etag: None, modified: None })
    }

    /// How often to fetch.
    pub fn every(&self) -> Duration {
        self.source.every
    }

    /// Whether there is a list from before.
    pub fn has_one(&self) -> bool {
        self.file.exists()
    }

    /// Fetches once; true where the file was replaced.
    pub async fn fetch(&mut self) -> Result<bool, CrlError> {
        let answer =
            tokio::time::timeout(PATIENCE, self.ask()).await.unwrap_or_else(|_| Err("no answer in time".into()));
        let taken = answer.and_then(|fresh| fresh.map_or(Ok(false), |bytes| self.take(&bytes)));
        if taken.is_err() {
            // What was not taken is asked for again: it may be right once the CA file is.
            (self.etag, self.modified) = (None, None);
        }
        taken.map_err(|reason| CrlError { url: self.source.url.to_string(), reason })
    }

    /// The list's bytes, where they are others than last time.
    async fn ask(&mut self) -> Result<Option<Bytes>, String> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.source.url.clone();
        for (name, value) in [(header::IF_NONE_MATCH, &self.etag), (header::IF_MODIFIED_SINCE, &self.modified)] {
            if let Some(value) = value.clone().filter(|_| self.has_one()) {
                request.headers_mut().insert(name, value);
            }
        }
        let answer = self.client.request(request).await.map_err(|error| error.to_string())?;
        let kept = |name| answer.headers().get(name).cloned();
        let (etag, modified) = (kept(header::ETAG), kept(header::LAST_MODIFIED));
        match answer.status() {
            StatusCode::NOT_MODIFIED => return Ok(None),
            StatusCode::OK => {}
            other => return Err(format!("the answer was {other}")),
        }
        let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await.map_err(|error| error.to_string())?;
        (self.etag, self.modified) = (etag, modified);
        Ok(Some(body.to_bytes()))
    }

    fn take(&self, bytes: &[u8]) -> Result<bool, String> {
        let fresh = der(bytes).ok_or("it is no revocation list (DER or PEM)")?;
        let before = std::fs::read(&self.file).ok().and_then(|bytes| der(&bytes));
        if before.as_ref() == Some(&fresh) {
            return Ok(false);
        }
        let (_, list) = CertificateRevocationList::from_der(&fresh).map_err(|error| error.to_string())?;
        check_signature(&list, &self.client_ca)?;
        if list.next_update().is_some_and(|next| next.timestamp() <= crate::registry::now()) {
            return Err("its time is over".into());
        }
        if let Some(before) = &before
            && let Ok((_, before)) = CertificateRevocationList::from_der(before)
            && list.last_update().timestamp() < before.last_update().timestamp()
        {
            return Err("it is older than the one at hand".into());
        }
        let pem = crate::pki::pem("X509 CRL", &fresh);
        crate::keyfile::write_private(&self.file, pem.as_bytes()).map_err(|error| error.to_string())?;
        Ok(true)
    }
}

/// A list's DER, whichever way it came.
fn der(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.first() == Some(&0x30) {
        return Some(bytes.to_vec());
    }
    CertificateRevocationListDer::from_pem_slice(bytes).ok().map(|der| der.as_ref().to_vec())
}

/// Checks that one of the clients' CAs signed a list.
fn check_signature(list: &CertificateRevocationList<'_>, client_ca: &Path) -> Result<(), String> {
    let algorithms: &[&'static dyn VerificationAlgorithm] =
        match list.signature_algorithm.algorithm.to_id_string().as_str() {
            "1.2.840.10045.4.3.2" => &[&ECDSA_P256_SHA256_ASN1, &ECDSA_P384_SHA256_ASN1],
            "1.2.840.10045.4.3.3" => &[&ECDSA_P384_SHA384_ASN1, &ECDSA_P256_SHA384_ASN1],
            "1.2.840.113549.1.1.11" => &[&RSA_PKCS1_2048_8192_SHA256],
            "1.2.840.113549.1.1.12" => &[&RSA_PKCS1_2048_8192_SHA384],
            "1.2.840.113549.1.1.13" => &[&RSA_PKCS1_2048_8192_SHA512],
            "1.3.101.112" => &[&ED25519],
            other => return Err(format!("it is signed with an algorithm that is not known ({other})")),
        };
    for authority in tls::certificates(client_ca).map_err(|fault| fault.to_string())? {
        let Ok((_, authority)) = X509Certificate::from_der(&authority) else { continue };
        if authority.subject() != list.issuer() {
            continue;
        }
        let key = authority.public_key().subject_public_key.data.as_ref();
        let (signed, signature) = (list.tbs_cert_list.as_ref(), list.signature_value.data.as_ref());
        if algorithms.iter().any(|one| UnparsedPublicKey::new(*one, key).verify(signed, signature).is_ok()) {
            return Ok(());
        }
    }
    Err("no CA of the clients signed it".into())
}
