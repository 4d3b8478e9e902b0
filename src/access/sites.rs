//! The gateways of other sites, by the names in their certificates: they may read the log's files, and nothing else.
//!
//! They are in the configuration and not in the registry: a machine is no person with roles, nobody can grant this right from
//! afar, and a site that is being filled needs it before it has a registry.

use crate::identity::Peer;
use crate::registry::name::is_name;
use crate::registry::{NameOwner, Snapshot, canonical_name, now};

/// Maximum number of names: as many as a cluster has sites, and some for certificates that are being replaced.
pub const MAX_SITES: usize = 64;

/// The certificate names of other sites' gateways.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SiteNames(Vec<String>);

impl SiteNames {
    /// Takes names (DNS names or URIs), in whatever spelling.
    ///
    /// # Errors
    /// The first text that is no certificate name; too many.
    pub fn new(names: &[String]) -> Result<Self, String> {
        if let Some(wrong) = names.iter().find(|name| !is_name(name)) {
            return Err(format!("{wrong:?} must be a name in a certificate: a DNS name, or a URI"));
        }
        if names.len() > MAX_SITES {
            return Err(format!("more than {MAX_SITES} names"));
        }
        Ok(SiteNames(names.iter().map(|name| canonical_name(name)).collect()))
    }

    /// Returns the name by which a peer is the gateway of another site. A certificate that has ended, or of which any name
    /// belongs to a client or a person, is not: rights of two kinds are never in one certificate.
    pub fn identify(&self, peer: &Peer, registry: &Snapshot) -> Option<&str> {
        let names = &peer.certificate.names;
        let site = self.0.iter().find(|site| names.contains(site))?;
        let is_free = matches!(registry.owner_of(names), NameOwner::Unregistered);
        (is_free && peer.check_time(now()).is_ok()).then_some(site)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::identity::{Certificate, Thumbprint};
    use std::sync::Arc;

    fn peer(names: &[&str], end: i64) -> Peer {
        let certificate = Certificate {
            chain: Vec::new(),
            thumbprint: Thumbprint([1; 32]),
            x5t: String::new(),
            key: [2; 32],
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            ends: vec![end],
        };
        Peer { certificate: Arc::new(certificate), address: ([127, 0, 0, 1], 1).into() }
    }

    #[test]
    fn a_site_is_known_by_each_spelling_of_its_name_and_only_while_its_certificate_is_in_force() {
        let sites = SiteNames::new(&["Gateway.DC2.example.".into(), "spiffe://Province/gw3".into()]).unwrap();
        let (nobody, later) = (Snapshot::default(), now() + 60);
        assert_eq!(sites.identify(&peer(&["gateway.dc2.example"], later), &nobody), Some("gateway.dc2.example"));
        assert_eq!(
            sites.identify(&peer(&["x", "spiffe://province/gw3"], later), &nobody),
            Some("spiffe://province/gw3")
        );
        assert_eq!(sites.identify(&peer(&["gateway.dc2.example"], now() - 1), &nobody), None);
        for others in [&["dc2.example"][..], &["a.gateway.dc2.example"], &[]] {
            assert_eq!(sites.identify(&peer(others, later), &nobody), None, "{others:?}");
        }
        assert_eq!(SiteNames::default().identify(&peer(&["gateway.dc2.example"], later), &nobody), None);
    }

    #[test]
    fn what_is_no_name_and_too_many_are_refused() {
        for wrong in ["", "a b", "://x"] {
            assert!(SiteNames::new(&[wrong.to_owned()]).is_err(), "{wrong:?}");
        }
        let many: Vec<String> = (0..=MAX_SITES).map(|number| format!("dc{number}")).collect();
        assert!(SiteNames::new(&many).is_err() && SiteNames::new(&many[1..]).is_ok());
    }
}
