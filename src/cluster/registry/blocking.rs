//! Requests to etcd for callers that block: those of a store among them.

use super::follow::ClusterRegistry;
use super::issued::IssuedTokens;
use crate::cluster::ClusterError;
use crate::cluster::member::EtcdMember;
use crate::cluster::timers::Timers;
use crate::registry::replication::{ChangeDraft, CommitOutcome, Replica, Replication};
use crate::registry::{RegistryError, TokenRecord};
use std::sync::{Arc, mpsc};
use tokio::runtime::Handle;

/// Runs a request to its end on a runtime, while this thread waits: another one than the runtime's.
///
/// # Errors
/// The request's; [`ClusterError::OutcomeUnknown`] if the runtime ends first.
pub fn wait<V: Send + 'static>(
    runtime: &Handle,
    request: impl Future<Output = Result<V, ClusterError>> + Send + 'static,
) -> Result<V, ClusterError> {
    let (sender, receiver) = mpsc::sync_channel(1);
    runtime.spawn(async move {
        let _ = sender.send(request.await);
    });
    // Without a response the runtime has ended: whether the request was sent is not known.
    receiver.recv().map_err(|_| ClusterError::OutcomeUnknown("the gateway ends".into()))?
}

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
}

impl<M, T, R> Replication for BlockingCommits<M, T, R>
where
    M: EtcdMember + 'static,
    T: Timers + 'static,
    R: Replica + 'static,
{
    fn commit(&self, draft: ChangeDraft) -> Result<CommitOutcome, RegistryError> {
        let registry = self.registry.clone();
        wait(&self.runtime, async move { registry.commit(&draft).await }).map_err(store_error)
    }

    fn add_tokens(&self, tokens: &[TokenRecord]) -> Result<(), RegistryError> {
        let (issued, tokens) = (self.issued.clone(), tokens.to_vec());
        wait(&self.runtime, async move { issued.put(&tokens).await }).map_err(store_error)
    }
}

fn store_error(error: ClusterError) -> RegistryError {
    RegistryError::Store(error.to_string())
}
