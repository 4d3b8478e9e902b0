//! A CA of the clients: an anchor of `client_ca`, or one below it that clients send.

use super::list::{List, is_signed};
use super::succession::take_newest;
use rustls_pki_types::CertificateDer;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A CA of the clients.
#[derive(Debug, Clone)]
pub struct Authority {
    /// Its subject.
    pub name: String,
    /// Beginning of its validity, Unix time in seconds.
    pub not_before: i64,
    /// End of its validity.
    pub not_after: i64,
    /// Its lists in force: one for each scope, the newest.
    pub lists: Vec<Arc<List>>,
    /// Its certificate.
    pub(super) der: CertificateDer<'static>,
    subject: Vec<u8>,
    identity: Vec<u8>,
}

impl Authority {
    /// Makes it from a certificate, without lists.
    pub(super) fn of(der: CertificateDer<'static>) -> Result<Self, String> {
        let (_, read) = X509Certificate::from_der(&der).map_err(|error| error.to_string())?;
        let (name, validity) = (read.subject().to_string(), read.validity());
        let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        let identity = [read.subject().as_raw(), read.public_key().raw].concat();
        let subject = read.subject().as_raw().to_vec();
        Ok(Authority { name, not_before, not_after, lists: Vec::new(), der, subject, identity })
    }

    /// Returns its subject, DER.
    pub(super) fn subject_der(&self) -> &[u8] {
        &self.subject
    }

    /// Returns whether it has expired.
    pub fn is_over(&self, now: i64) -> bool {
        self.not_after < now
    }

    /// Returns when it expires, Unix time in seconds: it is valid through its last second.
    pub(super) fn end(&self) -> i64 {
        self.not_after.saturating_add(1)
    }

    /// Returns the identity of this CA, independent of its certificate: name and key.
    pub(super) fn identity(&self) -> &[u8] {
        &self.identity
    }

    /// Returns whether both are one CA: a renewed certificate has the same name and key.
    pub(super) fn is(&self, other: &Authority) -> bool {
        self.identity == other.identity
    }

    /// Returns whether this CA signed a list.
    pub(super) fn signed(&self, list: &List) -> bool {
        let Ok((_, read)) = X509Certificate::from_der(&self.der) else { return false };
        self.subject == list.issuer_der() && list.is_signed_by(read.public_key())
    }

    /// Returns whether its key may sign lists. Without the extension, a key may be used for anything (as in webpki).
    pub(super) fn may_sign_lists(&self) -> bool {
        let Ok((_, read)) = X509Certificate::from_der(&self.der) else { return false };
        read.key_usage().is_ok_and(|usage| usage.is_none_or(|usage| usage.value.crl_sign()))
    }

    /// Returns whether a certificate names this CA as its issuer.
    pub(super) fn is_named_in(&self, certificate: &CertificateDer<'_>) -> bool {
        X509Certificate::from_der(certificate).is_ok_and(|(_, read)| self.subject == read.issuer().as_raw())
    }

    /// Returns whether this CA signed the certificate of another, and its lists (`lists`) do not revoke it.
    pub(super) fn certifies(&self, other: &Authority, lists: &[Arc<List>]) -> bool {
        let (Ok((_, own)), Ok((_, read))) =
            (X509Certificate::from_der(&self.der), X509Certificate::from_der(&other.der))
        else {
            return false;
        };
        let signature = read.signature_value.data.as_ref();
        self.subject == read.issuer().as_raw()
            && is_signed(&read.signature_algorithm, own.public_key(), read.tbs_certificate.as_ref(), signature)
            && !lists.iter().any(|list| list.revokes(read.raw_serial()))
    }

    /// Accepts one of its lists, if it is newer than the one of that scope.
    pub(super) fn take(&mut self, list: &Arc<List>) {
        take_newest(&mut self.lists, list);
    }
}
