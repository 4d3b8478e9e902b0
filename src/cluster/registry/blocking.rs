//! The registry over etcd for a store whose calls block.

use super::follow::ClusterRegistry;
use crate::cluster::ClusterError;
use crate::cluster::member::EtcdMember;
use crate::cluster::timers::Timers;
use crate::registry::RegistryError;
use crate::registry::replication::{ChangeDraft, CommitOutcome, Replica, Replication};
use std::sync::{Arc, mpsc};
use tokio::runtime::Handle;

/// Makes the changes of a store count, on the runtime of the gateway.
pub struct BlockingCommits<M, T, R> {
    registry: Arc<ClusterRegistry<M, T, R>>,
    runtime: Handle,
}

impl<M, T, R> BlockingCommits<M, T, R> {
    /// Requests are sent on this runtime, while the thread of the change waits.
    pub fn new(registry: Arc<ClusterRegistry<M, T, R>>, runtime: Handle) -> Self {
        BlockingCommits { registry, runtime }
    }
}

impl<M, T, R> Replication for BlockingCommits<M, T, R>
where
    M: EtcdMember + 'static,
    T: Timers + 'static,
    R: Replica + 'static,
{
    fn commit(&self, draft: ChangeDraft) -> Result<CommitOutcome, RegistryError> {
        let ((sender, receiver), registry) = (mpsc::sync_channel(1), self.registry.clone());
        self.runtime.spawn(async move {
            let _ = sender.send(registry.commit(&draft).await);
        });
        // Without a response the runtime has ended: whether the request was sent is not known.
        let ended = || ClusterError::OutcomeUnknown("the gateway ends".into());
        let outcome = receiver.recv().map_err(|_| ended()).and_then(|outcome| outcome);
        outcome.map_err(|error| RegistryError::Store(error.to_string()))
    }
}
