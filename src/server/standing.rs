//! Whether a call that was admitted still may go on: a right that is withdrawn or changed meanwhile, or whose time is over,
//! ends calls and streams under way. Time is waited for by one timer, for whichever right ends first; a call that is over
//! before that has none.

use super::shared::Shared;
use crate::access::{self, token::Verified};
use crate::contract::Operation;
use crate::contract::fields::Mask;
use crate::identity::Peer;
use crate::identity::ends::{left_until, reached};
use crate::registry::{Granted, Snapshot, now};
use crate::status::{Reason, Refusal};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;

/// What a call was admitted by.
pub(super) struct Standing {
    shared: Arc<Shared>,
    admitted: AdmittedBy,
    /// The granted fields.
    mask: Arc<Mask>,
    /// The registry in which it was last found to hold.
    seen: Arc<Snapshot>,
    changes: watch::Receiver<()>,
    /// Which right ends first, and when (Unix time in seconds).
    end: (i64, Reason),
}

/// Who was admitted, to what, and by which rights.
pub(super) struct AdmittedBy {
    pub peer: Arc<Peer>,
    pub token: Arc<Verified>,
    pub grant: Granted,
    pub operation: Arc<Operation>,
    pub purpose: Option<String>,
}

impl AdmittedBy {
    /// The end in time of the right that ends first.
    fn end(&self, shared: &Shared, registry: &Snapshot) -> (i64, Reason) {
        let token = shared.tokens.end(&self.token, registry);
        let grant = (self.grant.not_after, Reason::ScopeNotGranted);
        let certificate = (self.peer.certificate.end(), Reason::CertificateRevoked);
        [grant, certificate].into_iter().fold(token, |first, one| if one.0 < first.0 { one } else { first })
    }
}

impl Standing {
    pub(super) fn new(shared: &Arc<Shared>, admitted: AdmittedBy, mask: Arc<Mask>, seen: Arc<Snapshot>) -> Self {
        let (changes, end) = (shared.registry_changed.subscribe(), admitted.end(shared, &seen));
        Standing { shared: shared.clone(), admitted, mask, seen, changes, end }
    }

    /// Whose call it is.
    pub(super) fn client(&self) -> &str {
        self.admitted.grant.client()
    }

    /// The fields that are granted, as of the last time that this was checked.
    pub(super) fn mask(&self) -> &Mask {
        &self.mask
    }

    /// Whether it holds now. Costs two comparisons as long as nothing changed in the registry.
    pub(super) fn check(&mut self) -> Result<(), Refusal> {
        let (registry, now) = (self.shared.registry.load_full(), now());
        if !Arc::ptr_eq(&registry, &self.seen) {
            self.follow(registry, now)?;
        }
        match self.end {
            (at, _) if now < at => Ok(()),
            (_, Reason::ScopeNotGranted) => Err(Refusal::with(Reason::ScopeNotGranted, "the grant's time is over")),
            (_, reason) => Err(reason.into()),
        }
    }

    /// The same rights in a registry that has changed.
    fn follow(&mut self, registry: Arc<Snapshot>, now: i64) -> Result<(), Refusal> {
        let AdmittedBy { peer, token, grant, operation, purpose } = &mut self.admitted;
        let client = peer.identify(&registry)?;
        self.shared.tokens.check_now(token, peer, &client, &registry, now)?;
        let withdrawn = || Refusal::with(Reason::ScopeNotGranted, "the grant was withdrawn");
        let fresh = client.granted_as(&grant.id).ok_or_else(withdrawn)?;
        access::still_covers(&fresh, operation, purpose.as_deref(), peer.address.ip(), now)?;
        if fresh.fields != grant.fields || fresh.approved != grant.approved {
            self.mask = Arc::new(access::mask(&fresh, operation));
        }
        *grant = fresh;
        self.end = self.admitted.end(&self.shared, &registry);
        self.seen = registry;
        Ok(())
    }

    /// Waits until it holds no more. A call that is over at `until`, whatever becomes of it, is not waited for beyond.
    pub(super) async fn lost(&mut self, until: Option<Instant>) -> Refusal {
        loop {
            let at = self.end.0;
            let in_time =
                until.is_none_or(|until| Instant::now().checked_add(left_until(at)).is_some_and(|end| end <= until));
            let over = async {
                if in_time {
                    reached(at).await;
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
