//! The principal of a request to the gateway's own services and its proof: the certificate of the connection, or a console session
//! that an OpenID provider's ID token began.

use super::{Peer, Thumbprint};
use crate::registry::{Actor, NameOwner, Snapshot, Staff, now};
use crate::status::{Reason, Refusal};
use http::Extensions;
use std::net::SocketAddr;
use std::sync::Arc;

/// A staff member who signed in at an OpenID provider.
#[derive(Debug)]
pub struct FederatedIdentity {
    /// Their staff id, the provider's claim.
    pub staff: String,
    /// The provider's issuer identifier, an `https` URL.
    pub provider: Arc<str>,
    /// The request's remote address.
    pub address: SocketAddr,
}

/// The principal, by its proof.
#[derive(Debug, Clone)]
pub enum Principal {
    /// The holder of a client certificate.
    Certificate(Arc<Peer>),
    /// A person who signed in at a provider.
    Federated(Arc<FederatedIdentity>),
}

impl Principal {
    /// Returns the principal of a request: the console session's person, or the holder of the connection's certificate.
    pub fn of(extensions: &Extensions) -> Option<Self> {
        let peer = || extensions.get::<Arc<Peer>>().cloned().map(Principal::Certificate);
        extensions.get::<Principal>().cloned().or_else(peer)
    }

    /// Returns the connection's peer, if its certificate is the proof.
    pub fn peer(&self) -> Option<&Arc<Peer>> {
        match self {
            Principal::Certificate(peer) => Some(peer),
            Principal::Federated(_) => None,
        }
    }

    /// Returns the SHA-256 of the certificate, if it is the proof.
    pub fn thumbprint(&self) -> Option<Thumbprint> {
        self.peer().map(|peer| peer.certificate.thumbprint)
    }

    /// Returns the provider's issuer, if the principal signed in there.
    pub fn provider(&self) -> &str {
        match self {
            Principal::Certificate(_) => "",
            Principal::Federated(person) => &person.provider,
        }
    }

    /// Returns the remote address.
    pub fn address(&self) -> SocketAddr {
        match self {
            Principal::Certificate(peer) => peer.address,
            Principal::Federated(person) => person.address,
        }
    }

    /// Returns the staff member in the registry's current state.
    ///
    /// # Errors
    /// `CERTIFICATE_REVOKED`, `CERTIFICATE_AMBIGUOUS` or `STAFF_UNKNOWN`; `REGISTRY_UNAVAILABLE` while the registry is not known as it is.
    pub fn staff<'s>(&self, registry: &'s Snapshot) -> Result<&'s Arc<Staff>, Refusal> {
        match self {
            Principal::Certificate(peer) => {
                peer.check_time(now())?;
                match registry.owner_of(&peer.certificate.names) {
                    NameOwner::Staff(staff) => Ok(staff),
                    NameOwner::Ambiguous => Err(Reason::CertificateAmbiguous.into()),
                    NameOwner::Outdated => Err(Reason::RegistryUnavailable.into()),
                    NameOwner::Unregistered | NameOwner::Client(_) => Err(Reason::StaffUnknown.into()),
                }
            }
            Principal::Federated(_) if registry.is_outdated() => Err(Reason::RegistryUnavailable.into()),
            Principal::Federated(person) => {
                registry.staff_by_id(&person.staff).ok_or_else(|| Reason::StaffUnknown.into())
            }
        }
    }

    /// Returns this staff member as the actor of a change.
    pub fn actor(&self, staff: &Staff) -> Actor {
        match self {
            Principal::Certificate(peer) => peer.staff(&staff.id),
            Principal::Federated(person) => Actor::Federated {
                id: staff.id.clone(),
                provider: person.provider.to_string(),
                names: staff.names.clone(),
                address: person.address.to_string(),
            },
        }
    }
}
