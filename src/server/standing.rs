//! Whether a call that was admitted still may go on: a right that is withdrawn meanwhile ends calls and streams under
//! way.

use super::shared::Shared;
use crate::access::token::Verified;
use crate::identity::Peer;
use crate::registry::{Granted, Snapshot, now};
use crate::status::{Reason, Refusal};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// What a call was admitted by.
pub(super) struct Standing {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    token: Arc<Verified>,
    grant: Granted,
    /// The registry in which it was last found to hold.
    seen: Arc<Snapshot>,
    changes: watch::Receiver<()>,
}

impl Standing {
    pub(super) fn new(
        shared: &Arc<Shared>,
        peer: &Arc<Peer>,
        token: Arc<Verified>,
        grant: Granted,
        seen: Arc<Snapshot>,
    ) -> Self {
        let changes = shared.registry_changed.subscribe();
        Standing { shared: shared.clone(), peer: peer.clone(), token, grant, seen, changes }
    }

    /// Whose call it is.
    pub(super) fn client(&self) -> &str {
        self.grant.client()
    }

    /// Whether it holds now. Costs a comparison of two pointers as long as nothing changed in the registry.
    pub(super) fn check(&mut self) -> Result<(), Refusal> {
        let registry = self.shared.registry.load_full();
        if Arc::ptr_eq(&registry, &self.seen) {
            return Ok(());
        }
        let (client, now) = (self.peer.identify(&registry)?, now());
        self.shared.tokens.check_now(&self.token, &self.peer, &client, &registry, now)?;
        if !client.grant(&self.grant.id).is_some_and(|grant| grant.in_force(now)) {
            return Err(Refusal::with(Reason::ScopeNotGranted, "the grant was withdrawn"));
        }
        self.seen = registry;
        Ok(())
    }

    /// Waits until it holds no more.
    pub(super) async fn lost(&mut self) -> Refusal {
        loop {
            if self.changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if let Err(refusal) = self.check() {
                return refusal;
            }
        }
    }

    /// When the token ends: a stream does not outlive it.
    pub(super) fn ends(&self) -> Instant {
        let left = self.shared.tokens.seconds_left(&self.token, now());
        Instant::now() + Duration::from_secs(left.max(0).unsigned_abs())
    }
}
