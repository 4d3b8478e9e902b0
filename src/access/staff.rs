//! Authorizes staff by their roles, whether their certificate's name or a provider's word says who they are. A refusal is in the exchange log before it is returned,
//! within the limits of [`super::refusals`].

use super::refusals::{Identity, RefusalKind, RefusalLog};
use crate::exchange_log::{Entry, ExchangeLog, Kind};
use crate::identity::principal::Principal;
use crate::registry::{Actor, ClientView, Role, Snapshot, now};
use crate::status::{Reason, Refusal};
use arc_swap::ArcSwap;
use prometheus_client::metrics::counter::Counter;
use std::net::SocketAddr;
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

    /// Returns the caller, with what they have proved, if they have one of the rule's roles.
    ///
    /// # Errors
    /// `CERTIFICATE_REVOKED` if their certificate has ended; `STAFF_UNKNOWN`, `CERTIFICATE_AMBIGUOUS` or `ROLE_MISSING`, with an entry
    /// within the limits of refusals; `EXCHANGE_LOG_UNAVAILABLE` if that cannot be written.
    pub async fn admit(&self, principal: &Principal, rule: &RoleRule) -> Result<Actor, Refusal> {
        let RoleRule { event, roles, .. } = *rule;
        let (actor, refusal) = match principal.staff(&self.registry.load()) {
            Ok(staff) if staff.roles.iter().any(|role| roles.contains(role)) => return Ok(principal.actor(staff)),
            Ok(staff) => (format!("staff:{}", staff.id), Refusal::from(Reason::RoleMissing)),
            Err(refusal) if refusal.reason == Reason::CertificateRevoked => return Err(refusal),
            Err(refusal) => (String::new(), refusal),
        };
        let entry = Entry { actor, ..self.event(principal, event) };
        self.refuse(principal.into(), entry, refusal).await
    }

    /// Returns the client of a certificate, which may ask about itself.
    ///
    /// # Errors
    /// `CERTIFICATE_REVOKED`, `CERTIFICATE_AMBIGUOUS`, `CLIENT_UNKNOWN` or `CLIENT_SUSPENDED`; without an entry.
    pub fn client(&self, principal: &Principal) -> Result<Arc<ClientView>, Refusal> {
        let peer = principal.peer().ok_or(Reason::ClientUnknown)?;
        peer.check_time(now())?;
        peer.identify(&self.registry.load())
    }

    /// Refuses somebody, with an entry within the limits of refusals.
    ///
    /// # Errors
    /// Always: `refusal`, or `EXCHANGE_LOG_UNAVAILABLE` if the entry cannot be written.
    pub async fn refuse<T>(&self, by: Identity, entry: Entry, refusal: Refusal) -> Result<T, Refusal> {
        let status = refusal.reason.code() as u32;
        let entry = Entry { status, reason: refusal.reason.as_str().to_owned(), ..entry };
        match self.refusals.note(RefusalKind::Staff, by, entry).await {
            Ok(_) => Err(refusal),
            Err(_) => Err(Reason::ExchangeLogUnavailable.into()),
        }
    }

    /// Returns an entry about a person's event.
    pub fn event(&self, principal: &Principal, event: &str) -> Entry {
        Entry {
            certificate: principal.thumbprint().map(|thumbprint| thumbprint.0.to_vec()).unwrap_or_default(),
            identity_provider: principal.provider().to_owned(),
            peer: principal.address().to_string(),
            event: event.to_owned(),
            ..Entry::begin(Kind::Admin, &self.node)
        }
    }

    /// Returns an entry about an attempt to sign in at a provider that has proved nobody's identity.
    pub fn sign_in_event(&self, provider: &str, address: SocketAddr, event: &str) -> Entry {
        Entry {
            identity_provider: provider.to_owned(),
            peer: address.to_string(),
            event: event.to_owned(),
            ..Entry::begin(Kind::Admin, &self.node)
        }
    }

    /// Counts refused reads of the log's files, by kind.
    pub fn reads_refused(&self, kind: &'static str) -> Counter {
        self.refusals.reads_refused(kind)
    }

    /// Appends an entry to the exchange log, and returns its index, if that is known before the entry is sealed.
    ///
    /// # Errors
    /// EXCHANGE_LOG_UNAVAILABLE if it cannot be written.
    pub async fn note(&self, entry: &Entry) -> Result<Option<u64>, Refusal> {
        self.log.append(entry).await.map_err(|_| Reason::ExchangeLogUnavailable.into())
    }
}
