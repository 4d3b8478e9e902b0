//! Authorizes staff by the roles of their certificate's name. A refusal is in the exchange log before it is returned,
//! within the limits of [`super::refusals`].

use super::refusals::{Identity, RefusalKind, RefusalLog};
use crate::exchange_log::{Entry, ExchangeLog, Kind};
use crate::identity::Peer;
use crate::registry::{Actor, NameOwner, Role, Snapshot, now};
use crate::status::{Reason, Refusal};
use arc_swap::ArcSwap;
use prometheus_client::metrics::counter::Counter;
use std::sync::Arc;

/// The roles that a method requires.
#[derive(Debug, Clone, Copy)]
pub struct RoleRule {
    /// The method's name.
    pub method: &'static str,
    /// The event in the log.
    pub event: &'static str,
    /// The roles; the caller must have one of them.
    pub roles: &'static [Role],
}

/// Admits staff by their roles.
#[derive(Clone)]
pub struct StaffAuthorizer {
    registry: Arc<ArcSwap<Snapshot>>,
    log: ExchangeLog,
    refusals: Arc<RefusalLog>,
    node: String,
}

impl StaffAuthorizer {
    /// Makes an authorizer for this gateway.
    pub fn new(registry: Arc<ArcSwap<Snapshot>>, log: ExchangeLog, refusals: Arc<RefusalLog>, node: &str) -> Self {
        StaffAuthorizer { registry, log, refusals, node: node.to_owned() }
    }

    /// Returns the caller, with their certificate, if they have one of the rule's roles.
    ///
    /// # Errors
    /// `STAFF_UNKNOWN`, `CERTIFICATE_AMBIGUOUS` or `ROLE_MISSING`, with an entry within the limits of refusals;
    /// `EXCHANGE_LOG_UNAVAILABLE` if that cannot be written.
    pub async fn admit(&self, peer: &Peer, rule: &RoleRule) -> Result<Actor, Refusal> {
        let RoleRule { event, roles, .. } = *rule;
        peer.check_time(now())?;
        let (staff, refusal) = match self.registry.load().owner_of(&peer.certificate.names) {
            NameOwner::Staff(staff) if staff.roles.iter().any(|role| roles.contains(role)) => {
                return Ok(peer.staff(&staff.id));
            }
            NameOwner::Staff(staff) => (Some(staff.clone()), Refusal::from(Reason::RoleMissing)),
            NameOwner::Ambiguous => (None, Reason::CertificateAmbiguous.into()),
            NameOwner::Unregistered | NameOwner::Client(_) => (None, Reason::StaffUnknown.into()),
        };
        let entry = Entry {
            actor: staff.map(|staff| format!("staff:{}", staff.id)).unwrap_or_default(),
            status: refusal.reason.code() as u32,
            reason: refusal.reason.as_str().to_owned(),
            ..self.event(peer, event)
        };
        let by = Identity::Certificate(peer.certificate.thumbprint);
        match self.refusals.note(RefusalKind::Staff, by, entry).await {
            Ok(_) => Err(refusal),
            Err(_) => Err(Reason::ExchangeLogUnavailable.into()),
        }
    }

    /// Returns an entry about a person's event.
    pub fn event(&self, peer: &Peer, event: &str) -> Entry {
        Entry {
            certificate: peer.certificate.thumbprint.0.to_vec(),
            peer: peer.address.to_string(),
            event: event.to_owned(),
            ..Entry::begin(Kind::Admin, &self.node)
        }
    }

    /// Counts refused reads of the log's files, by kind.
    pub fn reads_refused(&self, kind: &'static str) -> Counter {
        self.refusals.reads_refused(kind)
    }

    /// Appends an entry to the exchange log, and returns its index.
    ///
    /// # Errors
    /// EXCHANGE_LOG_UNAVAILABLE if it cannot be written.
    pub async fn note(&self, entry: &Entry) -> Result<u64, Refusal> {
        self.log.append(entry).await.map_err(|_| Reason::ExchangeLogUnavailable.into())
    }
}
