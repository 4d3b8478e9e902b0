//! Checks whether an admitted call may continue: a right that is revoked, changed or expired ends calls and streams in
//! flight. So does a changed contract that no longer allows what the call discloses: a call keeps the contract with
//! which it began, but discloses nothing that the present contract withholds. Expiry is one timer, for the right that
//! ends first; a call that is over before that has none.

use crate::access::{self, token::VerifiedToken};
use crate::contract::Operation;
use crate::contract::fields::Mask;
use crate::identity::Peer;
use crate::identity::ends::{expired, remaining_until};
use crate::registry::{Granted, Snapshot, now};
use crate::server::shared::Shared;
use crate::status::{Reason, Refusal};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::sync::watch;

/// The rights by which a call was admitted.
pub(in crate::server) struct AuthorizationWatch {
    shared: Arc<Shared>,
    admitted: AdmittedBy,
    /// The granted fields.
    mask: Arc<Mask>,
    /// The snapshot of its last check.
    seen: Arc<Snapshot>,
    /// The generation of contracts of its last check.
    generation: u64,
    /// The operation in the present contract.
    current: Arc<Operation>,
    changes: watch::Receiver<()>,
    /// The right that ends first, and when (Unix time in seconds).
    end: (i64, Reason),
    /// Whether a revocation has ended it: it is counted once.
    ended: bool,
}

/// The admitted client, its operation, and its rights.
pub(in crate::server) struct AdmittedBy {
    pub peer: Arc<Peer>,
    pub token: Arc<VerifiedToken>,
    pub grant: Granted,
    pub operation: Arc<Operation>,
    pub purpose: Option<String>,
}

impl AdmittedBy {
    /// Returns when the first of the rights ends.
    fn end(&self, shared: &Shared, registry: &Snapshot) -> (i64, Reason) {
        let token = shared.tokens.end(&self.token, registry);
        let grant = (self.grant.not_after, Reason::ScopeNotGranted);
        let certificate = (self.peer.certificate.end(), Reason::CertificateRevoked);
        [grant, certificate].into_iter().fold(token, |first, one| if one.0 < first.0 { one } else { first })
    }
}

impl AuthorizationWatch {
    /// Makes the watch of a call that was just admitted, by this snapshot and contracts of this generation.
    pub(in crate::server) fn new(
        shared: &Arc<Shared>,
        admitted: AdmittedBy,
        mask: Arc<Mask>,
        (seen, generation): (Arc<Snapshot>, u64),
    ) -> Self {
        let (changes, end) = (shared.registry_changed.subscribe(), admitted.end(shared, &seen));
        let current = admitted.operation.clone();
        AuthorizationWatch {
            shared: shared.clone(),
            admitted,
            mask,
            seen,
            generation,
            current,
            changes,
            end,
            ended: false,
        }
    }

    /// Returns the call's client.
    pub(in crate::server) fn client(&self) -> &str {
        self.admitted.grant.client()
    }

    /// Returns the granted fields, as of the last check.
    pub(in crate::server) fn mask(&self) -> &Mask {
        &self.mask
    }

    /// Checks whether it still holds. This costs three comparisons as long as nothing has changed in the registry and
    /// the contracts.
    pub(in crate::server) fn check(&mut self) -> Result<(), Refusal> {
        let (registry, now) = (self.shared.registry.load_full(), now());
        if !Arc::ptr_eq(&registry, &self.seen) {
            let followed = self.follow(registry, now);
            followed.inspect_err(|refusal| self.count(refusal))?;
        }
        if self.shared.generation.load(Ordering::Acquire) != self.generation {
            self.follow_contract(now)?;
        }
        match self.end {
            (at, _) if now < at => Ok(()),
            (_, Reason::ScopeNotGranted) => Err(Refusal::with(Reason::ScopeNotGranted, "the grant's time is over")),
            (_, reason) => Err(reason.into()),
        }
    }

    /// Counts the call among those that its token's revocation has ended.
    fn count(&mut self, refusal: &Refusal) {
        if refusal.reason == Reason::TokenRevoked && !self.ended {
            self.ended = true;
            self.shared.revocations.ended(&self.admitted.token.id);
        }
    }

    /// Looks the same rights up in a changed registry.
    fn follow(&mut self, registry: Arc<Snapshot>, now: i64) -> Result<(), Refusal> {
        let AdmittedBy { peer, token, grant, operation, purpose } = &mut self.admitted;
        let client = peer.identify(&registry)?;
        self.shared.tokens.check_now(token, peer, &client, &registry, now)?;
        let withdrawn = || Refusal::with(Reason::ScopeNotGranted, "the grant was withdrawn");
        let fresh = client.granted_as(&grant.id).ok_or_else(withdrawn)?;
        access::still_covers(&fresh, &self.current, purpose.as_deref(), peer.address.ip(), now)?;
        let changed = fresh.fields != grant.fields || fresh.approved != grant.approved;
        *grant = fresh;
        if changed {
            self.mask = Arc::new(access::mask(grant, operation));
            self.covers_mask()?;
        }
        self.end = self.admitted.end(&self.shared, &registry);
        self.seen = registry;
        Ok(())
    }

    /// Looks the same rights up under reloaded contracts.
    fn follow_contract(&mut self, now: i64) -> Result<(), Refusal> {
        let served = self.shared.served.load_full();
        let AdmittedBy { peer, grant, operation, purpose, .. } = &self.admitted;
        let gone = || Refusal::with(Reason::ContractChanged, "the operation no longer exists");
        self.current = served.catalogue.contracts.operation(&operation.path).ok_or_else(gone)?.clone();
        access::still_covers(grant, &self.current, purpose.as_deref(), peer.address.ip(), now)?;
        self.covers_mask()?;
        self.generation = served.generation;
        Ok(())
    }

    /// Checks whether the present contract allows what the call discloses.
    fn covers_mask(&self) -> Result<(), Refusal> {
        let AdmittedBy { grant, operation, .. } = &self.admitted;
        let (before, now) = (&operation.response_fields, &self.current.response_fields);
        match before.is_covered_by(&self.mask, now, &access::mask(grant, &self.current)) {
            true => Ok(()),
            false => Err(Refusal::with(Reason::ContractChanged, "it discloses less, or names people where it did not")),
        }
    }

    /// Waits until it no longer holds. If the call is over at `until` in any case, it does not wait longer.
    pub(in crate::server) async fn revoked(&mut self, until: Option<Instant>) -> Refusal {
        loop {
            let at = self.end.0;
            let in_time = until
                .is_none_or(|until| Instant::now().checked_add(remaining_until(at)).is_some_and(|end| end <= until));
            let over = async {
                if in_time {
                    expired(at).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                changed = self.changes.changed() => if changed.is_err() {
                    std::future::pending::<()>().await;
                },
                () = over => {}
            }
            if let Err(refusal) = self.check() {
                return refusal;
            }
        }
    }
}
