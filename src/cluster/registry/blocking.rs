//! The registry over etcd for a store whose calls block.

use super::follow::ClusterRegistry;
use super::issued::IssuedTokens;
use crate::cluster::ClusterError;
use crate::cluster::member::EtcdMember;
use crate::cluster::timers::Timers;
use crate::registry::replication::{ChangeDraft, CommitOutcome, Replica, Replication};
use crate::registry::{RegistryError, TokenRecord};
use std::sync::{Arc, mpsc};
use tokio::runtime::Handle;

/// Makes the changes of a store count, on the runtime of the gateway.
pub struct BlockingCommits<M, T, R> {
    registry: Arc<ClusterRegistry<M, T, R>>,
    issued: Arc<IssuedTokens<M, T>>,
    runtime: Handle,
}

impl<M, T, R> BlockingCommits<M, T, R> {
    /// Requests are sent on this runtime, while the thread that needs their outcome waits.
    pub fn new(registry: Arc<ClusterRegistry<M, T, R>>, issued: Arc<IssuedTokens<M, T>>, runtime: Handle) -> Self {
        BlockingCommits { registry, issued, runtime }
    }

    /// Runs a request to its end, and waits for it.
    fn wait<V: Send + 'static>(
        &self,
        request: impl Future<Output = Result<V, ClusterError>> + Send + 'static,
    ) -> Result<V, RegistryError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.runtime.spawn(async move {
            let _ = sender.send(request.await);
        });
        // Without a response the runtime has ended: whether the request was sent is not known.
        let ended = || ClusterError::OutcomeUnknown("the gateway ends".into());
        let outcome = receiver.recv().map_err(|_| ended()).and_then(|outcome| outcome);
        outcome.map_err(|error| RegistryError::Store(error.to_string()))
    }
}

impl<M, T, R> Replication for BlockingCommits<M, T, R>
where
    M: EtcdMember + 'static,
    T: Timers + 'static,
    R: Replica + 'static,
{
    fn commit(&self, draft: ChangeDraft) -> Result<CommitOutcome, RegistryError> {
        let registry = self.registry.clone();
        self.wait(async move { registry.commit(&draft).await })
    }

    fn add_tokens(&self, tokens: &[TokenRecord]) -> Result<(), RegistryError> {
        let (issued, tokens) = (self.issued.clone(), tokens.to_vec());
        self.wait(async move { issued.put(&tokens).await })
    }
}
