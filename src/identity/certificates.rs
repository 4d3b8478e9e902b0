//! The certificates of open connections, each in memory once: a system's hundred connections have the same one.

use super::{Certificate, Thumbprint};
use rustls_pki_types::CertificateDer;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The certificates in use. A lock for each handshake, none for a call.
#[derive(Debug, Default)]
pub struct Certificates {
    used: Mutex<HashMap<Thumbprint, Weak<Certificate>>>,
}

impl Certificates {
    /// Returns the certificate of a chain; `None` if that is empty.
    pub fn of(&self, chain: &[CertificateDer<'_>]) -> Option<Arc<Certificate>> {
        let thumbprint = Thumbprint::of(chain.first()?);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        // The certificates above it may differ, and are checked with it when a revocation list comes.
        if let Some(known) = used.get(&thumbprint).and_then(Weak::upgrade).filter(|known| known.chain == chain) {
            return Some(known);
        }
        let certificate = Arc::new(Certificate::of(chain)?);
        if used.len() == used.capacity() {
            used.retain(|_, certificate| certificate.strong_count() > 0);
            // So that the next scan of all of them happens after as many new ones.
            let place = used.len() + 1;
            used.reserve(place);
        }
        used.insert(thumbprint, Arc::downgrade(&certificate));
        Some(certificate)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn chain(parts: &[&[u8]]) -> Vec<CertificateDer<'static>> {
        parts.iter().map(|der| CertificateDer::from(der.to_vec())).collect()
    }

    #[test]
    fn each_chain_is_kept_once_and_no_longer_than_it_is_used() {
        let certificates = Certificates::default();
        let first = certificates.of(&chain(&[b"leaf", b"ca"])).unwrap();
        assert!(Arc::ptr_eq(&first, &certificates.of(&chain(&[b"leaf", b"ca"])).unwrap()));
        assert!(!Arc::ptr_eq(&first, &certificates.of(&chain(&[b"leaf", b"other"])).unwrap()));
        assert!(certificates.of(&[]).is_none());
        for number in 0..10_000_u32 {
            certificates.of(&chain(&[&number.to_be_bytes()])).unwrap();
        }
        assert!(certificates.used.lock().unwrap().len() < 100);
    }
}
