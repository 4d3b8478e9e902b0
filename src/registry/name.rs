//! Certificate names, in the one form in which the registry stores and compares them.

/// Returns the canonical form of a certificate name, in which it is stored and compared.
///
/// Two spellings of one name must not be two identities, or one certificate could be two persons:
/// - A DNS name is compared without regard to case and without its final dot (RFC 4343; RFC 1034, section 3.1).
/// - Of a URI, the scheme and the authority (SPIFFE: the trust domain) are compared without regard to case; the path is
///   compared byte by byte (RFC 3986, section 6.2.2.1; SPIFFE-ID, section 2). Nothing is percent-decoded: SPIFFE ids
///   have no percent-encoding, and a text that is never decoded cannot be read in two ways.
pub fn canonical_name(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once(':') else {
        return text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    };
    let scheme = scheme.to_ascii_lowercase();
    let Some(rest) = rest.strip_prefix("//") else { return format!("{scheme}:{rest}") };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    format!("{scheme}://{}{path}", authority.to_ascii_lowercase())
}

/// A list of names in canonical form, each once, in the order given.
pub(super) fn canonical_names(names: &[String]) -> Vec<String> {
    let mut canonical: Vec<String> = Vec::with_capacity(names.len());
    for name in names.iter().map(|name| canonical_name(name)) {
        if !canonical.contains(&name) {
            canonical.push(name);
        }
    }
    canonical
}

/// Maximum number of names of one client or person.
pub const MAX_NAMES: usize = 16;
/// Longest name in bytes.
pub const MAX_NAME_BYTES: usize = 512;

/// Returns whether the registry accepts a text as a certificate name: printable ASCII, a DNS name or a URI with a
/// scheme.
pub fn is_name(text: &str) -> bool {
    let scheme = |scheme: &str| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    };
    let host = |c: char| c.is_ascii_alphanumeric() || "-_.*".contains(c);
    let form = match text.split_once(':') {
        Some((before, after)) => scheme(before) && !after.is_empty() && after != "//",
        None => text.chars().all(host) && text != ".",
    };
    (1..=MAX_NAME_BYTES).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic()) && form
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_name_are_one() {
        for (text, canonical) in [
            ("Shop.Example.VN.", "shop.example.vn"),
            ("shop.example.vn", "shop.example.vn"),
            ("SPIFFE://Ndxp.QuangNinh.gov.vn/staff/Lan", "spiffe://ndxp.quangninh.gov.vn/staff/Lan"),
            ("spiffe://ndxp.quangninh.gov.vn", "spiffe://ndxp.quangninh.gov.vn"),
            ("HTTPS://A.vn?X=Y", "https://a.vn?X=Y"),
            ("URN:UUID:Ab", "urn:UUID:Ab"),
        ] {
            assert_eq!(canonical_name(text), canonical);
            assert_eq!(canonical_name(canonical), canonical, "canonical once and for all");
            assert!(is_name(text) && is_name(canonical), "{text}");
        }
        assert_ne!(canonical_name("spiffe://a/x"), canonical_name("spiffe://a/X"), "a path is compared byte by byte");
        let long = "a".repeat(MAX_NAME_BYTES + 1);
        for wrong in ["", ".", "a b", "tên.vn", "1x:y", ":y", "spiffe:", "spiffe://", "a\n", long.as_str()] {
            assert!(!is_name(wrong), "{wrong:?}");
        }
    }
}
