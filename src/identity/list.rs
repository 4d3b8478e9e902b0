//! One certificate revocation list (RFC 5280, section 5): parsed once, checked completely, then only looked up.
//!
//! A list that this gateway does not understand completely is refused by name: a delta list, an indirect list and a
//! list of only some certificates or reasons would each pass for a complete one, and a revoked certificate would be
//! accepted.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1,
    ECDSA_P521_SHA512_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    UnparsedPublicKey, VerificationAlgorithm,
};
use rustls_pki_types::pem::{PemObject, SectionKind};
use std::cmp::Ordering;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use webpki::BorrowedCertRevocationList;
use x509_parser::extensions::{DistributionPointName, GeneralName, IssuingDistributionPoint, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};

/// Tolerated clock skew for a list with a future `thisUpdate`, in seconds.
pub const SKEW_S: i64 = 300;
/// Longest CRL number in bytes (RFC 5280, section 5.2.3).
const MAX_NUMBER: usize = 20;

/// The reason that a list is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListFault {
    /// The bytes are not one list.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// It holds only what changed since another list.
    #[error("is a delta list: only complete lists are taken")]
    Delta,
    /// It holds certificates of other issuers.
    #[error("is an indirect list (of several issuers): only lists of one issuer are taken")]
    Indirect,
    /// It holds only some kinds of certificates.
    #[error("is a partitioned list ({0}): only complete lists are taken")]
    Partitioned(&'static str),
    /// It holds only some reasons.
    #[error("is partitioned by reasons (onlySomeReasons): only complete lists are taken")]
    Reasons,
}

/// One list.
pub struct List {
    /// Its issuer's name, as text.
    pub issuer: String,
    /// The CRL number, big-endian without leading zeros; `None` if it has none.
    pub number: Option<Vec<u8>>,
    /// Its time of issue, Unix time in seconds.
    pub this_update: i64,
    /// The end of its validity, Unix time in seconds.
    pub next_update: i64,
    /// Its file; empty if it was not read from a file.
    pub file: PathBuf,
    /// SHA-256 of that file, if it is a cached one.
    pub cached_digest: Option<String>,
    /// Its DER.
    pub der: Vec<u8>,
    issuer_der: Vec<u8>,
    /// Its authority key identifier (RFC 5280, section 5.2.1), DER; empty if it has none.
    authority_key: Vec<u8>,
    serials: HashSet<Box<[u8]>>,
    /// The URIs of its issuing distribution point: it covers the certificates that name one of them. `None`: all
    /// certificates of its issuer.
    points: Option<Vec<String>>,
}

impl List {
    /// Parses a list (DER).
    ///
    /// # Errors
    /// It is malformed, or of a kind that is not supported (delta, indirect, partitioned).
    pub fn parse(der: &[u8]) -> Result<Self, ListFault> {
        let unreadable = |error: &dyn std::fmt::Debug| ListFault::Unreadable(format!("{error:?}"));
        let (rest, read) = CertificateRevocationList::from_der(der).map_err(|error| unreadable(&error))?;
        if !rest.is_empty() {
            return Err(ListFault::Unreadable("something follows it".into()));
        }
        let (mut points, mut authority_key) = (None, Vec::new());
        for extension in read.extensions() {
            match extension.parsed_extension() {
                _ if extension.oid.to_id_string() == "2.5.29.35" => authority_key = extension.value.to_vec(),
                _ if extension.oid.to_id_string() == "2.5.29.27" => return Err(ListFault::Delta),
                ParsedExtension::IssuingDistributionPoint(point) => points = Some(uris(point)?),
                _ if extension.oid.to_id_string() == "2.5.29.28" => {
                    return Err(ListFault::Unreadable("its issuing distribution point".into()));
                }
                _ => {}
            }
        }
        // The verifier of certificates decides what a valid list is, including every entry.
        let checked = BorrowedCertRevocationList::from_der(der).map_err(|error| unreadable(&error))?;
        let mut serials = HashSet::with_capacity(read.iter_revoked_certificates().count());
        for entry in &checked {
            serials.insert(entry.map_err(|error| unreadable(&error))?.serial_number.into());
        }
        let number = read.crl_number().map(|number| number.to_bytes_be());
        if number.as_ref().is_some_and(|number| number.len() > MAX_NUMBER) {
            return Err(ListFault::Unreadable("its number is too long".into()));
        }
        let next_update = read.next_update().ok_or_else(|| ListFault::Unreadable("it has no nextUpdate".into()))?;
        Ok(List {
            issuer: read.issuer().to_string(),
            number,
            this_update: read.last_update().timestamp(),
            next_update: next_update.timestamp(),
            file: PathBuf::new(),
            cached_digest: None,
            der: der.to_vec(),
            issuer_der: read.issuer().as_raw().to_vec(),
            authority_key,
            serials,
            points,
        })
    }

    /// Returns the issuer's name, DER.
    pub fn issuer_der(&self) -> &[u8] {
        &self.issuer_der
    }

    /// Returns its authority key identifier, DER; empty if it has none.
    pub fn authority_key(&self) -> &[u8] {
        &self.authority_key
    }

    /// Returns the serial numbers that it revokes (the content of their DER `INTEGER`).
    pub fn serials(&self) -> impl Iterator<Item = &[u8]> {
        self.serials.iter().map(|serial| serial.as_ref())
    }

    /// Returns how many certificates it revokes.
    pub fn entries(&self) -> usize {
        self.serials.len()
    }

    /// Returns whether it revokes the certificate with this serial number (the content of its DER `INTEGER`).
    pub fn revokes(&self, serial: &[u8]) -> bool {
        self.serials.contains(serial)
    }

    /// Returns the CRL number in hexadecimal; empty if it has none.
    pub fn number_text(&self) -> String {
        self.number.as_deref().map(crate::hex::hex).unwrap_or_default()
    }

    /// Returns whether it is out of date.
    pub fn is_over(&self, now: i64) -> bool {
        self.next_update <= now
    }

    /// Returns whether it comes from the future.
    pub fn is_ahead(&self, now: i64) -> bool {
        self.this_update > now + SKEW_S
    }

    /// Returns whether it covers a certificate (DER). A certificate that names no distribution point is looked up in
    /// every list.
    pub fn covers(&self, certificate: &[u8]) -> bool {
        let Some(points) = &self.points else { return true };
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
        let mut named = false;
        for extension in certificate.extensions() {
            let ParsedExtension::CRLDistributionPoints(theirs) = extension.parsed_extension() else { continue };
            named = true;
            let plain = theirs.points.iter().filter(|one| one.reasons.is_none() && one.crl_issuer.is_none());
            let mut theirs = plain.filter_map(|one| one.distribution_point.as_ref()).flat_map(names);
            if theirs.any(|uri| points.contains(&uri)) {
                return true;
            }
        }
        !named
    }

    /// Returns whether both lists cover the same certificates, if the same key signed them.
    pub fn has_scope_of(&self, other: &List) -> bool {
        self.points == other.points
    }

    /// Returns the scope of a list; empty: all certificates of its issuer.
    pub fn scope(&self) -> String {
        self.points.as_ref().map(|points| format!("points\n{}", points.join("\n"))).unwrap_or_default()
    }

    /// Compares the age of two lists of one issuer and scope: by number, then by `thisUpdate`, then the one that
    /// revokes more is newer.
    pub fn age(&self, other: &List) -> Ordering {
        let length = |number: &Option<Vec<u8>>| number.as_ref().map(Vec::len);
        let by_number = length(&self.number).cmp(&length(&other.number)).then_with(|| self.number.cmp(&other.number));
        by_number
            .then_with(|| self.this_update.cmp(&other.this_update))
            .then_with(|| self.entries().cmp(&other.entries()))
    }

    /// Returns whether it must not follow `before`: its number or its time goes back.
    pub fn is_rollback(&self, before: &List) -> bool {
        let strip = |number: &Option<Vec<u8>>| number.clone().map(|number| (number.len(), number));
        match strip(&self.number).cmp(&strip(&before.number)) {
            Ordering::Less => true,
            Ordering::Equal => self.this_update < before.this_update,
            Ordering::Greater => false,
        }
    }

    /// Returns whether the holder of this key signed it.
    pub fn is_signed_by(&self, key: &SubjectPublicKeyInfo<'_>) -> bool {
        let Ok((_, read)) = CertificateRevocationList::from_der(&self.der) else { return false };
        let signature = read.signature_value.data.as_ref();
        is_signed(&read.signature_algorithm, key, read.tbs_cert_list.as_ref(), signature)
    }
}

/// Returns whether this key made a signature, by an algorithm that is trusted.
pub(super) fn is_signed(
    algorithm: &AlgorithmIdentifier<'_>,
    key: &SubjectPublicKeyInfo<'_>,
    signed: &[u8],
    signature: &[u8],
) -> bool {
    let algorithms: &[&'static dyn VerificationAlgorithm] = match algorithm.algorithm.to_id_string().as_str() {
        "1.2.840.10045.4.3.2" => &[&ECDSA_P256_SHA256_ASN1, &ECDSA_P384_SHA256_ASN1],
        "1.2.840.10045.4.3.3" => &[&ECDSA_P384_SHA384_ASN1, &ECDSA_P256_SHA384_ASN1],
        "1.2.840.10045.4.3.4" => &[&ECDSA_P521_SHA512_ASN1],
        "1.2.840.113549.1.1.10" => &[&RSA_PSS_2048_8192_SHA256, &RSA_PSS_2048_8192_SHA384, &RSA_PSS_2048_8192_SHA512],
        "1.2.840.113549.1.1.11" => &[&RSA_PKCS1_2048_8192_SHA256],
        "1.2.840.113549.1.1.12" => &[&RSA_PKCS1_2048_8192_SHA384],
        "1.2.840.113549.1.1.13" => &[&RSA_PKCS1_2048_8192_SHA512],
        "1.3.101.112" => &[&ED25519],
        _ => return false,
    };
    let key = key.subject_public_key.data.as_ref();
    algorithms.iter().any(|one| UnparsedPublicKey::new(*one, key).verify(signed, signature).is_ok())
}

impl std::fmt::Debug for List {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("List")
            .field("issuer", &self.issuer)
            .field("number", &self.number_text())
            .finish_non_exhaustive()
    }
}

/// Returns the URIs of a distribution point's full name.
fn names(point: &DistributionPointName<'_>) -> Vec<String> {
    let DistributionPointName::FullName(names) = point else { return Vec::new() };
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    };
    names.iter().filter_map(uri).collect()
}

/// Returns the scope of a list with an issuing distribution point, if it is a supported one.
fn uris(point: &IssuingDistributionPoint<'_>) -> Result<Vec<String>, ListFault> {
    if point.indirect_crl {
        return Err(ListFault::Indirect);
    }
    let partitions = [
        (point.only_contains_user_certs, "onlyContainsUserCerts"),
        (point.only_contains_ca_certs, "onlyContainsCACerts"),
        (point.only_contains_attribute_certs, "onlyContainsAttributeCerts"),
    ];
    if let Some((_, name)) = partitions.iter().find(|(set, _)| *set) {
        return Err(ListFault::Partitioned(name));
    }
    if point.only_some_reasons.is_some() {
        return Err(ListFault::Reasons);
    }
    Ok(point.distribution_point.as_ref().map(names).unwrap_or_default())
}

/// A fault of a file: a list that cannot be used, or no list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileFault {
    /// The file.
    #[error("cannot be read: {0}")]
    File(String),
    /// It has no list.
    #[error("has no revocation list (PEM or DER)")]
    Empty,
    /// A section of it is not a list, or an incomplete one.
    #[error("section {0}: is no whole revocation list (PEM): {1}")]
    Section(usize, String),
    /// One of its lists, from 1.
    #[error("list {0}: {1}")]
    List(usize, ListFault),
}

/// Reads every list of a file.
///
/// # Errors
/// The file cannot be read, or one of its lists, or a section that begins like one, cannot be used.
pub fn read_file(path: &Path) -> Result<Vec<List>, FileFault> {
    let bytes = std::fs::read(path).map_err(|error| FileFault::File(error.to_string()))?;
    let parsed = split(&bytes)?.into_iter().enumerate().map(|(at, der)| match List::parse(&der) {
        Ok(list) => Ok(List { file: path.to_owned(), ..list }),
        Err(fault) => Err(FileFault::List(at + 1, fault)),
    });
    parsed.collect()
}

/// Splits a file or a response into its lists, as DER: one in DER, or any number in PEM (certificates between them are
/// skipped).
///
/// # Errors
/// It is neither DER nor PEM, or a block of PEM is malformed.
pub fn split(bytes: &[u8]) -> Result<Vec<Vec<u8>>, FileFault> {
    // A SEQUENCE of more than 127 bytes.
    if matches!(bytes, [0x30, length, ..] if *length >= 0x80) {
        return Ok(vec![bytes.to_vec()]);
    }
    let (mut lists, mut sections) = (Vec::new(), 0);
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes) {
        sections += 1;
        match section {
            Ok((SectionKind::Crl, der)) => lists.push(der),
            Ok((SectionKind::Certificate, _)) => {}
            Ok((kind, _)) => return Err(FileFault::Section(sections, format!("{kind:?}"))),
            Err(error) => return Err(FileFault::Section(sections, error.to_string())),
        }
    }
    // A mistyped marker, or one without its end, would silently drop its list.
    let begun = bytes.split(|byte| *byte == b'\n').filter(|line| is_marker(line)).count();
    if begun != 2 * sections {
        return Err(FileFault::Section(sections + 1, "its BEGIN or END line cannot be read".into()));
    }
    if lists.is_empty() { Err(FileFault::Empty) } else { Ok(lists) }
}

/// Returns whether a line looks like PEM's BEGIN or END, even if it is misspelt.
fn is_marker(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    let has = |word: &[u8]| line.windows(word.len()).any(|part| part == word);
    line.starts_with(b"--") && (has(b"BEGIN") || has(b"END"))
}

/// A description of a list, for people.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ListInfo {
    /// The issuer's name.
    pub issuer: String,
    /// CRL number, hexadecimal.
    pub number: String,
    /// `thisUpdate`, Unix time in seconds.
    #[serde(serialize_with = "crate::time_zone::serialize")]
    pub this_update: i64,
    /// `nextUpdate`, Unix time in seconds.
    #[serde(serialize_with = "crate::time_zone::serialize")]
    pub next_update: i64,
    /// Number of certificates that it revokes.
    pub entries: usize,
}

impl From<&List> for ListInfo {
    fn from(list: &List) -> Self {
        ListInfo {
            issuer: super::refused::plain(&list.issuer, 200),
            number: list.number_text(),
            this_update: list.this_update,
            next_update: list.next_update,
            entries: list.entries(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::pki::Pki;

    fn list() -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::at(folder.path());
        pki.init().unwrap();
        split(&std::fs::read(pki.crl()).unwrap()).unwrap().remove(0)
    }

    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82][..], &length, content].concat()
    }

    /// The content of an element, and the rest after it.
    fn open(der: &[u8]) -> (&[u8], &[u8]) {
        let (head, length) = match der[1] {
            short @ ..=0x7f => (2, usize::from(short)),
            0x81 => (3, usize::from(der[2])),
            _ => (4, usize::from(u16::from_be_bytes([der[2], der[3]]))),
        };
        (&der[head..head + length], &der[head + length..])
    }

    /// The list with one more extension; its signature no longer matches, but its kind is checked first.
    fn with_extension(der: &[u8], oid: &[u8], value: &[u8]) -> Vec<u8> {
        let (list, _) = open(der);
        let (signed, signature) = open(list);
        let mut rest = signed;
        while rest[0] != 0xa0 {
            rest = open(rest).1;
        }
        let before = &signed[..signed.len() - rest.len()];
        let (tagged, _) = open(rest);
        let (extensions, _) = open(tagged);
        let critical = [1, 1, 0xff];
        let extension = tlv(0x30, &[&tlv(6, oid)[..], &critical, &tlv(4, value)].concat());
        let extensions = tlv(0x30, &[extensions, &extension].concat());
        let signed = tlv(0x30, &[before, &tlv(0xa0, &extensions)].concat());
        tlv(0x30, &[&signed[..], signature].concat())
    }

    #[test]
    fn t5_what_is_no_complete_list_of_one_issuer_is_refused_by_name() {
        let plain = list();
        assert!(List::parse(&plain).is_ok());
        let named = |oid: &[u8], value: &[u8]| List::parse(&with_extension(&plain, oid, value)).unwrap_err();
        assert_eq!(named(&[0x55, 0x1d, 27], &[2, 1, 1]), ListFault::Delta);
        let point = [0x55, 0x1d, 28];
        assert_eq!(named(&point, &[0x30, 3, 0x84, 1, 0xff]), ListFault::Indirect);
        assert_eq!(named(&point, &[0x30, 3, 0x81, 1, 0xff]), ListFault::Partitioned("onlyContainsUserCerts"));
        assert_eq!(named(&point, &[0x30, 3, 0x85, 1, 0xff]), ListFault::Partitioned("onlyContainsAttributeCerts"));
        assert_eq!(named(&point, &[0x30, 4, 0x83, 2, 1, 2]), ListFault::Reasons);
        // An unknown extension may mean anything.
        assert!(matches!(named(&[0x55, 0x1d, 99], &[5, 0]), ListFault::Unreadable(_)));
        assert!(matches!(List::parse(&[&plain[..], b"x"].concat()).unwrap_err(), ListFault::Unreadable(_)));
        for cut in 0..plain.len() {
            assert!(List::parse(&plain[..cut]).is_err());
        }
    }

    #[test]
    fn t1_whatever_begins_like_a_list_must_be_one() {
        let pem = crate::pem::encode("X509 CRL", &list());
        for good in [pem.clone(), format!("words\n{pem}\nwords\n{pem}"), pem.replace('\n', "\r\n")] {
            assert_eq!(split(good.as_bytes()).unwrap().len(), good.matches("BEGIN").count());
        }
        assert_eq!(split(b"").unwrap_err(), FileFault::Empty);
        assert_eq!(split(b"<html>").unwrap_err(), FileFault::Empty);
        for bad in [
            pem.replace("-----BEGIN", "----BEGIN"),
            pem.replacen("CRL-----\n", "CRL----\n", 1),
            pem.replace("X509 CRL", "X509 CRI"),
            format!("{pem}{}", pem.replace("X509 CRL", "X509 CRLS")),
            pem.replace("-----END X509 CRL-----\n", ""),
            format!("{pem}{}", &pem[..pem.len() / 2]),
            format!("{}{pem}", &pem[..pem.len() / 2]),
            pem.replace("X509 CRL", "PRIVATE KEY"),
        ] {
            let split = split(bad.as_bytes()).and_then(|lists| {
                lists
                    .iter()
                    .map(|der| List::parse(der).map_err(|fault| FileFault::List(1, fault)))
                    .collect::<Result<Vec<_>, _>>()
            });
            assert!(split.is_err(), "{bad}");
        }
    }

    #[test]
    fn t5_the_newer_list_has_the_larger_number_then_the_later_time() {
        let made = |number: Option<&[u8]>, this_update| {
            let mut list = List::parse(&list()).unwrap();
            (list.number, list.this_update) = (number.map(<[u8]>::to_vec), this_update);
            list
        };
        let ages =
            [made(None, 9), made(Some(&[0]), 8), made(Some(&[255]), 7), made(Some(&[1, 0]), 5), made(Some(&[1, 0]), 6)];
        for (at, list) in ages.iter().enumerate() {
            for (other_at, other) in ages.iter().enumerate() {
                assert_eq!(list.age(other), at.cmp(&other_at));
                assert_eq!(list.is_rollback(other), at < other_at);
            }
        }
    }
}
