//! Whose certificates are let in: the CAs of the clients, each with its own revocation lists.
//!
//! rustls-webpki builds the path and checks signatures, times, usage and constraints. Revocation is looked up here, once a
//! path stands: webpki finds a list by its issuer's name alone and takes the first, so that of two CAs with one name and
//! two keys (a CA that is rolled over) only one could work, and it verifies a list's signature, over all of its bytes, in
//! each handshake. Here a list belongs to the key that signed it, checked when it is loaded. Every certificate of the path
//! but the anchor is looked up, as webpki does with `RevocationCheckDepth::Chain`, and one whose issuer has no list is
//! refused, as with `UnknownStatusPolicy::Deny`.
//!
//! A CA in `client_ca` is an anchor: it need not be self-signed, and what stands above it is not looked at.

use super::list::{self, List};
use super::refused::{Cause, Refused, is_weak};
use super::tls::{CrlSources, Revocation, TlsFault, TlsFiles, certificates, fault, provider};
use super::{Thumbprint, crl};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use webpki::{Cert, EndEntityCert, KeyUsage, VerifiedPath};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Most CAs below an anchor whose lists are remembered: each is a genuine one.
const MAX_BELOW: usize = 256;

/// A CA of the clients.
#[derive(Debug)]
pub struct Authority {
    /// Its subject.
    pub name: String,
    /// When its time begins, Unix time in seconds.
    pub not_before: i64,
    /// When it ends.
    pub not_after: i64,
    /// Its lists in force: one for each scope, the newest.
    pub lists: Vec<Arc<List>>,
    der: CertificateDer<'static>,
}

impl Authority {
    fn of(der: CertificateDer<'static>) -> Result<Self, String> {
        let (_, read) = X509Certificate::from_der(&der).map_err(|error| error.to_string())?;
        let (name, validity) = (read.subject().to_string(), read.validity());
        let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        Ok(Authority { name, not_before, not_after, lists: Vec::new(), der })
    }

    /// Whether its time is over.
    pub fn is_over(&self, now: i64) -> bool {
        self.not_after < now
    }

    /// What tells this CA from any other, whatever its certificate: name and key.
    pub(super) fn identity(&self) -> Vec<u8> {
        match X509Certificate::from_der(&self.der) {
            Ok((_, read)) => [read.subject().as_raw(), read.public_key().raw].concat(),
            Err(_) => self.der.to_vec(),
        }
    }

    /// Whether this CA signed a list.
    fn signed(&self, list: &List) -> bool {
        let Ok((_, read)) = X509Certificate::from_der(&self.der) else { return false };
        read.subject().as_raw() == list.issuer_der() && list.is_signed_by(read.public_key())
    }

    /// Whether both are one CA: a renewed certificate has the same name and key.
    fn is(&self, other: &Authority) -> bool {
        self.identity() == other.identity()
    }

    /// Whether a certificate names this CA as its issuer.
    fn is_named_in(&self, certificate: &CertificateDer<'_>) -> bool {
        match (X509Certificate::from_der(&self.der), X509Certificate::from_der(certificate)) {
            (Ok((_, own)), Ok((_, other))) => own.subject().as_raw() == other.issuer().as_raw(),
            _ => false,
        }
    }

    /// Takes a list of its own, where it is newer than what it has of that scope.
    fn take(&mut self, list: &Arc<List>) {
        match self.lists.iter_mut().find(|one| one.has_scope_of(list)) {
            Some(one) if one.age(list).is_lt() => *one = list.clone(),
            Some(_) => {}
            None => self.lists.push(list.clone()),
        }
    }
}

/// The CAs of the clients with their lists.
#[derive(Debug)]
pub struct Trust {
    /// The CAs, in the order of the file.
    pub authorities: Vec<Authority>,
    /// Their file.
    client_ca: PathBuf,
    /// Their anchors, in the same order.
    anchors: Vec<TrustAnchor<'static>>,
    /// How certificates may be signed.
    pub(super) algorithms: WebPkiSupportedAlgorithms,
    /// Whether revocation is checked: only the configuration switches it off, in words.
    checked: bool,
    /// Lists that no CA in `client_ca` signed, by the issuer's name: of CAs below those, perhaps.
    below: HashMap<Vec<u8>, Vec<Arc<List>>>,
    /// What was found in `below` for a CA, by its certificate.
    resolved: Mutex<HashMap<Thumbprint, Arc<[Arc<List>]>>>,
}

impl Trust {
    /// Reads CAs and lists. A CA that may let somebody in and has no list is a fault, as is a list that cannot be used. What
    /// follows `before` must not be older than it, and not out of date where `before` is not.
    pub fn load(files: &TlsFiles, before: Option<&Trust>) -> Result<Self, TlsFault> {
        let now = crate::registry::now();
        let mut trust = Self::of_authorities(&files.client_ca)?;
        let Revocation::Checked(sources) = &files.revocation else { return Ok(trust) };
        trust.checked = true;
        let mut lists = Vec::new();
        for file in &sources.files {
            lists.extend(list::read_file(file).map_err(|error| fault(file, error.to_string()))?);
        }
        lists.extend(crl::kept(sources));
        let found = lists.len();
        lists.into_iter().for_each(|list| trust.sort_in(list));
        let place = sources.place();
        if found == 0 {
            return Err(fault(&place, "has no revocation list (PEM or DER): nobody could be let in"));
        }
        if let Some(without) = trust.authorities.iter().find(|one| one.lists.is_empty() && !one.is_over(now)) {
            let reason = format!(
                "has no revocation list that the CA {} in {} signed: add it, or take the CA out of client_ca",
                without.name,
                files.client_ca.display()
            );
            return Err(fault(&place, reason));
        }
        if let Some(before) = before {
            trust.must_follow(before, sources, now)?;
        }
        Ok(trust)
    }

    /// The CAs of a file, without lists.
    pub(super) fn of_authorities(client_ca: &Path) -> Result<Self, TlsFault> {
        let (mut authorities, mut anchors) = (Vec::new(), Vec::new());
        for (at, der) in certificates(client_ca)?.into_iter().enumerate() {
            let wrong = |reason: String| fault(client_ca, format!("certificate {}: is no CA: {reason}", at + 1));
            anchors
                .push(webpki::anchor_from_trusted_cert(&der).map_err(|error| wrong(format!("{error:?}")))?.to_owned());
            authorities.push(Authority::of(der).map_err(wrong)?);
        }
        let algorithms = provider().signature_verification_algorithms;
        Ok(Trust {
            authorities,
            client_ca: client_ca.to_owned(),
            anchors,
            algorithms,
            checked: false,
            below: HashMap::new(),
            resolved: Mutex::default(),
        })
    }

    /// Gives a list to the CA that signed it; one that nobody here signed is told of, and stops no other.
    fn sort_in(&mut self, list: List) {
        let list = Arc::new(list);
        let mut signed = false;
        for authority in &mut self.authorities {
            if authority.signed(&list) {
                authority.take(&list);
                signed = true;
            }
        }
        if !signed {
            tracing::warn!(
                file = %list.file.display(),
                number = list.number_text(),
                issuer = %super::refused::plain(&list.issuer, 200),
                "no CA in client_ca signed this revocation list: it counts for a CA below one of them at most"
            );
            self.below.entry(list.issuer_der().to_vec()).or_default().push(list);
        }
    }

    fn must_follow(&self, before: &Trust, sources: &CrlSources, now: i64) -> Result<(), TlsFault> {
        for authority in &self.authorities {
            let Some(other) = before.authorities.iter().find(|other| other.is(authority)) else { continue };
            for list in &authority.lists {
                let Some(last) = other.lists.iter().find(|last| last.has_scope_of(list)) else { continue };
                let reason = if list.goes_back(last) {
                    "is older than the one in force"
                } else if (list.is_over(now) || list.is_ahead(now)) && !last.is_over(now) {
                    "is out of date, or from the future, and the one in force is not"
                } else {
                    continue;
                };
                let what =
                    format!("the revocation list of {} (number {}) {reason}", authority.name, list.number_text());
                return Err(fault(&sources.place(), what));
            }
        }
        Ok(())
    }

    /// What of CAs and lists cannot work at this moment.
    pub fn faults(&self, now: i64) -> Vec<String> {
        let mut faults = Vec::new();
        if self.authorities.iter().all(|one| one.is_over(now)) {
            faults.push(format!("{}: every CA has expired: nobody is let in", self.client_ca.display()));
        }
        for authority in self.authorities.iter().filter(|one| self.checked && !one.is_over(now)) {
            for list in &authority.lists {
                let (over, ahead) = (list.is_over(now), list.is_ahead(now));
                let what = match (over, ahead) {
                    (true, _) => "is out of date",
                    (false, true) => "is from the future (compare the clocks)",
                    (false, false) => continue,
                };
                let name = super::refused::plain(&authority.name, 200);
                faults.push(format!(
                    "{}: the revocation list of {name} {what}: nobody whom it certifies is let in",
                    list.file.display()
                ));
            }
        }
        faults
    }

    /// Every list that counts for a CA.
    pub fn lists(&self) -> impl Iterator<Item = &Arc<List>> {
        self.authorities.iter().flat_map(|authority| &authority.lists)
    }

    /// CAs that let nobody in any more, beside others that do.
    pub fn leftovers(&self, now: i64) -> Vec<String> {
        let file = self.client_ca.display();
        let said = |one: &Authority| {
            format!("{file}: the CA {} has expired: take it out", super::refused::plain(&one.name, 200))
        };
        self.authorities.iter().filter(|one| one.is_over(now)).map(said).collect()
    }

    /// The CA that signed a list.
    pub fn signer(&self, list: &List) -> Option<&Authority> {
        self.authorities.iter().find(|one| one.signed(list))
    }

    /// The subjects of the CAs, as a server names them to its clients.
    pub fn hints(&self) -> Vec<rustls::DistinguishedName> {
        self.anchors.iter().map(|anchor| rustls::DistinguishedName::in_sequence(&anchor.subject)).collect()
    }

    /// Whether a client with this certificate, and these above it, is let in at this moment.
    pub fn verify(&self, own: &CertificateDer<'_>, above: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Refused> {
        let read = EndEntityCert::try_from(own).map_err(|_| Refused::about(Cause::Malformed, own))?;
        let found = RefCell::new(None);
        let check = |path: &VerifiedPath<'_>| {
            self.check(path, now).map_err(|(refused, error)| {
                found.replace(Some(refused));
                error
            })
        };
        let usage = KeyUsage::client_auth();
        match read.verify_for_usage(self.algorithms.all, &self.anchors, above, now, usage, None, Some(&check)) {
            Ok(_) => Ok(()),
            Err(error) => Err(found.take().unwrap_or_else(|| self.explain(&error, own, above, now))),
        }
    }

    /// The anchor's time, and every other certificate's revocation.
    fn check(&self, path: &VerifiedPath<'_>, now: UnixTime) -> Result<(), (Refused, webpki::Error)> {
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let of_path = |(anchor, _): &(&TrustAnchor<'_>, &Authority)| **anchor == *path.anchor();
        let mut same = self.anchors.iter().zip(&self.authorities).filter(of_path).map(|(_, authority)| authority);
        // A renewed certificate of a CA may stand beside the one whose time is over.
        let Some(authority) = same.clone().find(|one| !one.is_over(seconds)) else {
            let der = same.next().map(|one| one.der.as_ref()).unwrap_or_default();
            return Err((Refused::about(Cause::Expired, der), webpki::Error::InvalidCertValidity));
        };
        if !self.checked {
            return Ok(());
        }
        let own: &Cert<'_> = path.end_entity();
        let mut certificate = own;
        for issuer in path.intermediate_certificates() {
            look_up(certificate, &self.lists_below(issuer), seconds)?;
            certificate = issuer;
        }
        look_up(certificate, &authority.lists, seconds)
    }

    /// The lists of a CA below an anchor, whose certificate the client sent.
    fn lists_below(&self, issuer: &Cert<'_>) -> Arc<[Arc<List>]> {
        let der = issuer.der();
        let thumbprint = Thumbprint::of(&der);
        let mut resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lists) = resolved.get(&thumbprint) {
            return lists.clone();
        }
        let lists: Arc<[Arc<List>]> = self.find_below(&der).into();
        if resolved.len() >= MAX_BELOW {
            resolved.clear();
        }
        resolved.insert(thumbprint, lists.clone());
        lists
    }

    fn find_below(&self, der: &CertificateDer<'_>) -> Vec<Arc<List>> {
        let Ok((_, read)) = X509Certificate::from_der(der) else { return Vec::new() };
        // Without the extension, a key may be used for anything (as webpki has it).
        let may_sign = read.key_usage().is_ok_and(|usage| usage.is_none_or(|usage| usage.value.crl_sign()));
        let Ok(mut issuer) = Authority::of(der.clone().into_owned()) else { return Vec::new() };
        if !may_sign {
            return Vec::new();
        }
        if let Some(same) = self.authorities.iter().find(|one| one.is(&issuer)) {
            return same.lists.clone();
        }
        for list in self.below.get(read.subject().as_raw()).into_iter().flatten() {
            if list.is_signed_by(read.public_key()) {
                issuer.take(list);
            }
        }
        issuer.lists
    }
}

impl Trust {
    /// What webpki's error means, and which certificate it is about.
    fn explain(
        &self,
        error: &webpki::Error,
        own: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Refused {
        use webpki::Error;
        let all = || std::iter::once(own).chain(above);
        // An anchor of that name may be too weak itself.
        let weak_issuer =
            || self.authorities.iter().any(|one| is_weak(&one.der) && all().any(|der| one.is_named_in(der)));
        let cause = match error {
            Error::CertExpired { .. } | Error::InvalidCertValidity => Cause::Expired,
            Error::CertNotValidYet { .. } => Cause::NotYetValid,
            Error::UnknownIssuer => Cause::UnknownIssuer,
            Error::InvalidSignatureForPublicKey if all().any(|one| is_weak(one)) || weak_issuer() => Cause::WeakKey,
            // A CA has that name, but not that key.
            Error::InvalidSignatureForPublicKey => Cause::UnknownIssuer,
            Error::UnsupportedSignatureAlgorithmContext(_)
            | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => Cause::WeakKey,
            Error::RequiredEkuNotFoundContext(_)
            | Error::EmptyEkuExtension
            | Error::CaUsedAsEndEntity
            | Error::EndEntityUsedAsCa
            | Error::PathLenConstraintViolated
            | Error::NameConstraintViolation
            | Error::MaximumPathDepthExceeded => Cause::WrongUsage,
            _ => Cause::Malformed,
        };
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let at_fault = |der: &&CertificateDer<'_>| match (cause, X509Certificate::from_der(der)) {
            (Cause::Expired, Ok((_, read))) => read.validity().not_after.timestamp() < now,
            (Cause::NotYetValid, Ok((_, read))) => read.validity().not_before.timestamp() > now,
            (Cause::WeakKey, _) => is_weak(der),
            _ => true,
        };
        Refused::about(cause, all().find(at_fault).unwrap_or(own))
    }
}

/// Looks a certificate up in its issuer's lists.
fn look_up(certificate: &Cert<'_>, lists: &[Arc<List>], now: i64) -> Result<(), (Refused, webpki::Error)> {
    let der = certificate.der();
    let refuse = |cause, error| Err((Refused::about(cause, &der), error));
    let (mut known, mut out_of_date) = (false, false);
    for list in lists.iter().filter(|list| list.covers(&der)) {
        if list.revokes(certificate.serial()) {
            return refuse(Cause::Revoked, webpki::Error::CertRevoked);
        }
        known = true;
        out_of_date |= list.is_over(now) || list.is_ahead(now);
    }
    match (known, out_of_date) {
        (false, _) => refuse(Cause::NoRevocationList, webpki::Error::UnknownRevocationStatus),
        (true, true) => refuse(Cause::RevocationListOutOfDate, webpki::Error::UnknownRevocationStatus),
        (true, false) => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rustls_pki_types::pem::PemObject;

    #[test]
    fn t7_a_signature_by_a_key_that_is_too_short_is_weak_and_not_unknown() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/weak");
        let weak = Trust::of_authorities(&folder.join("ca.pem")).unwrap();
        let leaf = CertificateDer::from_pem_file(folder.join("leaf.pem")).unwrap();
        let refused = weak.verify(&leaf, &[], UnixTime::now()).unwrap_err();
        assert_eq!(refused.cause, Cause::WeakKey);
        assert_eq!(refused.shown.unwrap().subject, "CN=of the weak CA");
        let pki = tempfile::tempdir().unwrap();
        let pki = crate::pki::Pki::at(pki.path());
        pki.init().unwrap();
        let other = Trust::of_authorities(&pki.ca()).unwrap();
        assert_eq!(other.verify(&leaf, &[], UnixTime::now()).unwrap_err().cause, Cause::UnknownIssuer);
        let garbage = CertificateDer::from(vec![0x30, 1, 0]);
        assert_eq!(other.verify(&garbage, &[], UnixTime::now()).unwrap_err().cause, Cause::Malformed);
    }
}
