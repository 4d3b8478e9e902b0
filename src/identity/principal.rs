//! Who acts at the gateway's own services, and how they have proved who they are: by the certificate of a connection, or at an OpenID
//! provider whose word a session of the console carries.

use super::{Peer, Thumbprint};
use crate::registry::{Actor, NameOwner, Snapshot, Staff, now};
use crate::status::{Reason, Refusal};
use http::Extensions;
use std::net::SocketAddr;
use std::sync::Arc;

/// A member of staff for whom an OpenID provider has vouched, at the other end of a request.
#[derive(Debug)]
pub struct FederatedIdentity {
    /// Their id in the registry, as the provider's claim has it.
    pub staff: String,
    /// The provider's issuer identifier, an `https` URL.
    pub provider: Arc<str>,
    /// The address of this request.
    pub address: SocketAddr,
}

/// Who acts, by what they have proved.
#[derive(Debug, Clone)]
pub enum Principal {
    /// The holder of a certificate.
    Certificate(Arc<Peer>),
    /// A person who has signed in at a provider.
    Federated(Arc<FederatedIdentity>),
}

impl Principal {
    /// Returns who sends a request: who a session of the console says, or else the holder of the connection's certificate.
    pub fn of(extensions: &Extensions) -> Option<Self> {
        let peer = || extensions.get::<Arc<Peer>>().cloned().map(Principal::Certificate);
        extensions.get::<Principal>().cloned().or_else(peer)
    }

    /// Returns the connection's other end, if it is known by its certificate.
    pub fn peer(&self) -> Option<&Arc<Peer>> {
        match self {
            Principal::Certificate(peer) => Some(peer),
            Principal::Federated(_) => None,
        }
    }

    /// Returns the SHA-256 of the certificate, if that is the proof.
    pub fn thumbprint(&self) -> Option<Thumbprint> {
        self.peer().map(|peer| peer.certificate.thumbprint)
    }

    /// Returns the issuer of the provider, if its word is the proof; else nothing.
    pub fn provider(&self) -> &str {
        match self {
            Principal::Certificate(_) => "",
            Principal::Federated(person) => &person.provider,
        }
    }

    /// Returns where the request comes from.
    pub fn address(&self) -> SocketAddr {
        match self {
            Principal::Certificate(peer) => peer.address,
            Principal::Federated(person) => person.address,
        }
    }

    /// Returns the member of staff, as the registry has them now.
    ///
    /// # Errors
    /// `CERTIFICATE_REVOKED`, `CERTIFICATE_AMBIGUOUS` or `STAFF_UNKNOWN`.
    pub fn staff<'s>(&self, registry: &'s Snapshot) -> Result<&'s Arc<Staff>, Refusal> {
        match self {
            Principal::Certificate(peer) => {
                peer.check_time(now())?;
                match registry.owner_of(&peer.certificate.names) {
                    NameOwner::Staff(staff) => Ok(staff),
                    NameOwner::Ambiguous => Err(Reason::CertificateAmbiguous.into()),
                    NameOwner::Unregistered | NameOwner::Client(_) => Err(Reason::StaffUnknown.into()),
                }
            }
            Principal::Federated(person) => {
                registry.staff_by_id(&person.staff).ok_or_else(|| Reason::StaffUnknown.into())
            }
        }
    }

    /// Returns this member of staff as the actor of a change.
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
