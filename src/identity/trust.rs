//! Decides which certificates are accepted: the CAs of the clients, each with its own revocation lists.
//!
//! rustls-webpki builds the path and checks signatures, times, usage and constraints. This module looks up revocation,
//! once a path exists. webpki finds a list only by its issuer's name and takes the first, so that of two CAs with one
//! name and two keys (a CA during a key rollover) only one could work, and it verifies a list's signature, over all of
//! its bytes, in each handshake. Here a list belongs to the key that signed it, checked when it is loaded. Every
//! certificate of the path except the anchor is looked up, as webpki does with `RevocationCheckDepth::Chain`; if an
//! issuer has no list, its certificates are refused, as with `UnknownStatusPolicy::Deny`.
//!
//! A CA in `client_ca` is an anchor: it need not be self-signed, and CAs above it are not checked.

use super::authority::Authority;
use super::files::{Revocation, TlsFault, TlsFiles, certificates, fault, provider};
use super::list::{self, List};
use super::record::{CrlRecord, key};
use super::refused::{Cause, RefusedHandshake, is_weak, plain};
use super::succession::{by_issuer, setback};
use super::{Thumbprint, cached_lists};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use webpki::{Cert, EndEntityCert, KeyUsage, VerifiedPath};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Maximum number of lists of CAs below an anchor. Each such CA that is remembered has one.
const MAX_BELOW: usize = 256;
/// Maximum number of CAs between a certificate and its anchor.
const MAX_DEPTH: usize = 6;

/// The CAs of the clients with their lists.
#[derive(Debug)]
pub struct Trust {
    /// The CAs, in the order of the file.
    pub authorities: Vec<Arc<Authority>>,
    /// Their file.
    client_ca: PathBuf,
    /// Their anchors, in the same order.
    anchors: Vec<TrustAnchor<'static>>,
    /// Accepted signature algorithms of certificates.
    pub(super) algorithms: WebPkiSupportedAlgorithms,
    /// Whether revocation is checked: only an explicit setting switches it off.
    checked: bool,
    /// Lists that no CA in `client_ca` signed, by the issuer's name: possibly of CAs below those.
    below: HashMap<Vec<u8>, Vec<Arc<List>>>,
    /// The CAs below an anchor, with their lists from `below`, by their certificate.
    resolved: Mutex<HashMap<Thumbprint, Arc<Authority>>>,
    /// The path for the report of a missing list.
    place: PathBuf,
    /// What was in force before, and the CAs below an anchor under which clients connected.
    record: Arc<CrlRecord>,
    /// The CAs with lists that, in this process, followed lists that had not gone back: those are in order, whatever
    /// the record has.
    followed: HashSet<String>,
}

impl Trust {
    /// Reads CAs and lists. Lists that follow `before` must not be older than those, and not out of date unless those
    /// are.
    ///
    /// # Errors
    /// A CA that may admit clients has no list; a file or a list cannot be used; a list is older than its predecessor.
    pub fn load(files: &TlsFiles, before: Option<&Trust>) -> Result<Self, TlsFault> {
        let now = crate::registry::now();
        let mut trust = Self::of_authorities(&files.client_ca)?;
        let Revocation::Checked(sources) = &files.revocation else { return Ok(trust) };
        (trust.checked, trust.place) = (true, sources.place());
        trust.record = before.map_or_else(|| Arc::new(CrlRecord::load(sources)), |before| before.record.clone());
        let mut lists = Vec::new();
        for file in &sources.files {
            lists.extend(list::read_file(file).map_err(|error| fault(file, error.to_string()))?);
        }
        lists.extend(cached_lists::cached(sources));
        let found = lists.len();
        lists.into_iter().for_each(|list| trust.sort_in(list));
        let place = sources.place();
        if found == 0 {
            return Err(fault(&place, "has no revocation list (PEM or DER): nobody could be admitted"));
        }
        if let Some(without) = trust.authorities.iter().find(|one| one.lists.is_empty() && !one.is_over(now)) {
            let reason = format!(
                "has no revocation list that the CA {} in {} signed: add it, or take the CA out of client_ca",
                without.name,
                files.client_ca.display()
            );
            return Err(fault(&place, reason));
        }
        if trust.below.values().map(Vec::len).sum::<usize>() > MAX_BELOW {
            let reason = format!("has more than {MAX_BELOW} revocation lists that no CA in client_ca signed");
            return Err(fault(&place, reason));
        }
        if let Some(reason) = before.and_then(|before| trust.setback(before, now)) {
            return Err(fault(&place, reason));
        }
        if let Some(before) = before {
            let all = before.with_their_lists().into_iter();
            trust.followed =
                all.filter(|(ca, lists)| before.setbacks(ca, lists).is_empty()).map(|(ca, _)| key(&ca)).collect();
        }
        Ok(trust)
    }

    /// Reads the CAs of a file, without lists.
    pub(super) fn of_authorities(client_ca: &Path) -> Result<Self, TlsFault> {
        let (mut authorities, mut anchors) = (Vec::new(), Vec::new());
        for (at, der) in certificates(client_ca)?.into_iter().enumerate() {
            let wrong = |reason: String| fault(client_ca, format!("certificate {}: is no CA: {reason}", at + 1));
            anchors
                .push(webpki::anchor_from_trusted_cert(&der).map_err(|error| wrong(format!("{error:?}")))?.to_owned());
            authorities.push(Arc::new(Authority::of(der).map_err(wrong)?));
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
            place: client_ca.to_owned(),
            record: Arc::default(),
            followed: HashSet::new(),
        })
    }

    /// Assigns a list to the CA that signed it; one that no CA here signed is reported, and does not affect others.
    fn sort_in(&mut self, list: List) {
        let list = Arc::new(list);
        let mut signed = false;
        for authority in &mut self.authorities {
            if authority.signed(&list) {
                Arc::make_mut(authority).take(&list);
                signed = true;
            }
        }
        if !signed {
            tracing::warn!(
                file = %list.file.display(),
                number = list.number_text(),
                issuer = %plain(&list.issuer, 200),
                "no CA in client_ca signed this revocation list: it counts for a CA below one of them at most"
            );
            self.below.entry(list.issuer_der().to_vec()).or_default().push(list);
        }
    }

    /// Returns why this must not replace `before`: a list is older, or missing.
    fn setback(&self, before: &Trust, now: i64) -> Option<String> {
        let of_anchor = |ca: &Arc<Authority>| {
            let other = before.authorities.iter().find(|other| other.is(ca))?;
            setback(&ca.name, &other.lists, &ca.lists, now)
        };
        let of_below = |ca: Arc<Authority>| {
            let stands = self.stands(&ca, now, 0);
            let lists = |trust: &Trust| trust.find_below(&ca.der).map(|ca| ca.lists.clone()).unwrap_or_default();
            stands.then(|| setback(&ca.name, &lists(before), &lists(self), now)).flatten()
        };
        // Lists of CAs under which no client has connected yet, as far as they can be identified without their keys.
        // They may disappear.
        let of_unseen = || {
            let (last, next) = (by_issuer(before.below.values().flatten()), by_issuer(self.below.values().flatten()));
            next.iter().find_map(|(issuer, lists)| setback(&lists.first()?.issuer, last.get(issuer)?, lists, now))
        };
        let anchors = self.authorities.iter().filter(|one| !one.is_over(now));
        anchors
            .filter_map(of_anchor)
            .next()
            .or_else(|| self.record.below().into_iter().find_map(of_below))
            .or_else(of_unseen)
    }

    /// Returns whether a CA below an anchor still is one: certified by one that counts, not revoked, and not expired.
    fn stands(&self, ca: &Authority, now: i64, depth: usize) -> bool {
        if ca.is_over(now) || depth == MAX_DEPTH {
            return false;
        }
        let mut anchors = self.authorities.iter().filter(|one| !one.is_over(now));
        anchors.any(|one| one.certifies(ca, &one.lists))
            || self.record.below().iter().any(|one| {
                !one.is(ca)
                    && one.certifies(ca, &self.with_lists(&one.der).map(|one| one.lists.clone()).unwrap_or_default())
                    && self.stands(one, now, depth + 1)
            })
    }

    /// Drops CAs below an anchor that no longer are, once this is in force.
    pub(super) fn prune(&self) {
        let now = crate::registry::now();
        self.record.keep_below(|ca| self.stands(ca, now, 0));
    }

    /// Compares the file with what was in force when the gateway last ran with the log's records of it; `is_older`
    /// returns whether a SHA-256 is that of an earlier state of it. Until then nothing is recorded for the next start.
    pub fn compare_record(&self, is_older: impl Fn(&str) -> bool) {
        self.record.compare(is_older);
    }

    /// Records what is in force, for the next start, and returns the files with it and their SHA-256: the record
    /// itself, and fetched lists.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn remember(&self) -> std::io::Result<Vec<(PathBuf, String)>> {
        if !self.checked {
            return Ok(Vec::new());
        }
        self.record.follow_removal();
        let mut files = Vec::new();
        for (ca, lists) in self.with_their_lists() {
            if self.setbacks(&ca, &lists).is_empty() {
                self.record.take(&ca, &lists);
                files.extend(lists.iter().filter_map(|list| Some((list.file.clone(), list.cached_digest.clone()?))));
            }
        }
        self.record.keep(&self.authorities);
        files.extend(self.record.save()?);
        Ok(files)
    }

    /// Returns the present faults of CAs and lists.
    pub fn faults(&self, now: i64) -> Vec<String> {
        let mut faults = Vec::new();
        if self.authorities.iter().all(|one| one.is_over(now)) {
            faults.push(format!("{}: every CA has expired: nobody is admitted", self.client_ca.display()));
        }
        if !self.checked {
            return faults;
        }
        faults.extend(self.record.fault());
        for (ca, lists) in self.with_their_lists().iter().filter(|(ca, _)| !ca.is_over(now)) {
            self.faults_of(ca, lists, now, &mut faults);
        }
        faults
    }

    /// Returns every CA of the clients.
    fn with_their_lists(&self) -> Vec<(Arc<Authority>, Vec<Arc<List>>)> {
        let of_below = |ca: Arc<Authority>| {
            let lists = self.with_lists(&ca.der).map(|found| found.lists.clone()).unwrap_or_default();
            (ca, lists)
        };
        let anchors = self.authorities.iter().map(|ca| (ca.clone(), ca.lists.clone()));
        anchors.chain(self.record.below().into_iter().map(of_below)).collect()
    }

    /// Returns which of a CA's lists are older than when the gateway last ran.
    fn setbacks(&self, ca: &Authority, lists: &[Arc<List>]) -> Vec<String> {
        if self.followed.contains(&key(ca)) { Vec::new() } else { self.record.setbacks(ca, lists) }
    }

    /// Adds the faults of a CA's lists: missing, out of date, from the future or older than before.
    fn faults_of(&self, ca: &Authority, lists: &[Arc<List>], now: i64, faults: &mut Vec<String>) {
        let (name, before) = (plain(&ca.name, 200), faults.len());
        for list in lists {
            let what = match (list.is_over(now), list.is_ahead(now)) {
                (true, _) => "is out of date",
                (false, true) => "is from the future (compare the clocks)",
                (false, false) => continue,
            };
            let file = list.file.display();
            faults.push(format!(
                "{file}: the revocation list of {name} {what}: nobody with its certificates is admitted"
            ));
        }
        let place = lists.first().map_or(&self.place, |list| &list.file).display();
        faults.extend(self.setbacks(ca, lists).into_iter().map(|setback| format!("{place}: {setback}")));
        if lists.is_empty() && faults.len() == before {
            faults.push(format!(
                "{place}: no revocation list of {name} is there, although clients connect under it: they are not admitted"
            ));
        }
    }

    /// Returns every list that counts for a CA.
    pub fn lists(&self) -> impl Iterator<Item = &Arc<List>> {
        self.authorities.iter().flat_map(|authority| &authority.lists)
    }

    /// Returns CAs that no longer admit clients, beside others that do.
    pub fn leftovers(&self, now: i64) -> Vec<String> {
        let file = self.client_ca.display();
        let said = |one: &Arc<Authority>| format!("{file}: the CA {} has expired: take it out", plain(&one.name, 200));
        self.authorities.iter().filter(|one| one.is_over(now)).map(said).collect()
    }

    /// Returns the CA that signed a list.
    pub fn signer(&self, list: &List) -> Option<&Authority> {
        self.authorities.iter().map(AsRef::as_ref).find(|one: &&Authority| one.signed(list))
    }

    /// Returns the subjects of the CAs, as a server names them to its clients.
    pub fn hints(&self) -> Vec<rustls::DistinguishedName> {
        self.anchors.iter().map(|anchor| rustls::DistinguishedName::in_sequence(&anchor.subject)).collect()
    }

    /// Verifies that a client with this certificate, and these above it, is accepted now, and returns until when at most, as far as its CAs
    /// and their lists go (Unix time in seconds).
    ///
    /// # Errors
    /// The cause of the refusal, with the certificate that it concerns.
    pub fn verify(
        &self,
        own: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<i64, RefusedHandshake> {
        let read = EndEntityCert::try_from(own).map_err(|_| RefusedHandshake::about(Cause::Malformed, own))?;
        let found = RefCell::new(Err(None));
        let check = |path: &VerifiedPath<'_>| match self.check(path, now) {
            Ok(until) => {
                *found.borrow_mut() = Ok(until);
                Ok(())
            }
            Err((refused, error)) => {
                *found.borrow_mut() = Err(Some(refused));
                Err(error)
            }
        };
        let usage = KeyUsage::client_auth();
        let verified = read.verify_for_usage(self.algorithms.all, &self.anchors, above, now, usage, None, Some(&check));
        match (verified, found.into_inner()) {
            (Ok(_), Ok(until)) => Ok(until),
            (_, Err(Some(refused))) => Err(refused),
            (Err(error), _) => Err(self.explain(&error, own, above, now)),
            (Ok(_), Err(None)) => Err(RefusedHandshake::about(Cause::Malformed, own)),
        }
    }

    /// Checks the anchor's validity, and the revocation of every other certificate; returns until when both stay valid.
    fn check(&self, path: &VerifiedPath<'_>, now: UnixTime) -> Result<i64, (RefusedHandshake, webpki::Error)> {
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let of_path = |(anchor, _): &(&TrustAnchor<'_>, &Arc<Authority>)| **anchor == *path.anchor();
        let mut same = self.anchors.iter().zip(&self.authorities).filter(of_path).map(|(_, authority)| authority);
        // A renewed certificate of a CA may be beside the expired one.
        let Some(authority) = same.clone().find(|one| !one.is_over(seconds)) else {
            let der = same.next().map(|one| one.der.as_ref()).unwrap_or_default();
            return Err((RefusedHandshake::about(Cause::Expired, der), webpki::Error::InvalidCertValidity));
        };
        let mut until = authority.end();
        if !self.checked {
            return Ok(until);
        }
        let own: &Cert<'_> = path.end_entity();
        let (mut certificate, mut below) = (own, Vec::new());
        for issuer in path.intermediate_certificates() {
            let found = self.with_lists(&issuer.der());
            let lists = found.as_ref().map(|found| found.lists.as_slice()).unwrap_or_default();
            until = until.min(look_up(certificate, lists, seconds)?);
            below.extend(found);
            certificate = issuer;
        }
        until = until.min(look_up(certificate, &authority.lists, seconds)?);
        below.iter().for_each(|ca| self.note(ca));
        Ok(until)
    }

    /// Records that a client's chain has a CA below an anchor. There is room for each CA with lists.
    fn note(&self, ca: &Authority) {
        if self.authorities.iter().any(|one| one.is(ca)) {
            return;
        }
        if self.record.len() >= MAX_BELOW {
            self.record.keep_below(|one| self.with_lists(&one.der).is_some_and(|found| !found.lists.is_empty()));
        }
        self.record.note(ca);
    }

    /// Returns a CA below an anchor, by its certificate, with its lists.
    fn with_lists(&self, der: &CertificateDer<'_>) -> Option<Arc<Authority>> {
        let thumbprint = Thumbprint::of(der);
        let mut resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = resolved.get(&thumbprint) {
            return Some(known.clone());
        }
        let found = Arc::new(self.find_below(der)?);
        if resolved.len() >= MAX_BELOW {
            resolved.clear();
        }
        resolved.insert(thumbprint, found.clone());
        Some(found)
    }

    fn find_below(&self, der: &CertificateDer<'_>) -> Option<Authority> {
        let mut issuer = Authority::of(der.clone().into_owned()).ok()?;
        if !issuer.may_sign_lists() {
            return Some(issuer);
        }
        if let Some(same) = self.authorities.iter().find(|one| one.is(&issuer)) {
            issuer.lists.clone_from(&same.lists);
            return Some(issuer);
        }
        for list in self.below.get(issuer.subject_der()).into_iter().flatten() {
            if issuer.signed(list) {
                issuer.take(list);
            }
        }
        Some(issuer)
    }
}

impl Trust {
    /// Returns the cause for webpki's error, and the certificate concerned.
    fn explain(
        &self,
        error: &webpki::Error,
        own: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> RefusedHandshake {
        use webpki::Error;
        let all = || std::iter::once(own).chain(above);
        // The anchor of that name may itself be too weak.
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
        RefusedHandshake::about(cause, all().find(at_fault).unwrap_or(own))
    }
}

/// Looks a certificate up in its issuer's lists, and returns until when they count.
fn look_up(certificate: &Cert<'_>, lists: &[Arc<List>], now: i64) -> Result<i64, (RefusedHandshake, webpki::Error)> {
    let der = certificate.der();
    let refuse = |cause, error| Err((RefusedHandshake::about(cause, &der), error));
    let (mut known, mut out_of_date, mut until) = (false, false, i64::MAX);
    for list in lists.iter().filter(|list| list.covers(&der)) {
        if list.revokes(certificate.serial()) {
            return refuse(Cause::Revoked, webpki::Error::CertRevoked);
        }
        known = true;
        until = until.min(list.next_update);
        out_of_date |= list.is_over(now) || list.is_ahead(now);
    }
    match (known, out_of_date) {
        (false, _) => refuse(Cause::NoRevocationList, webpki::Error::UnknownRevocationStatus),
        (true, true) => refuse(Cause::RevocationListOutOfDate, webpki::Error::UnknownRevocationStatus),
        (true, false) => Ok(until),
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
