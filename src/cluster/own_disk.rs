//! What the log over etcd keeps on the gateway's own disk, and has signed and stored elsewhere.

use super::ClusterError;
use super::batch::EncodedBatch;
use super::highest::HighestSeen;
use super::state::SealedState;
use crate::exchange_log::tree::Hash;
use std::future::Future;

/// The gateway's own disk.
///
/// # The contract
/// - **Durable**: what `append` and `store_highest` have written survives any crash once they return `Ok`.
/// - **Ordered**: batches are appended in the order of the calls; a crash keeps a beginning of those not yet durable.
/// - **Kept**: a batch stays until it is sealed and a majority of the sites stores it, and for seven days more: if etcd has
///   to be restored, `unsealed` returns it for the older state, and it is offered again.
pub trait OwnDisk: Send + Sync {
    /// Makes a batch durable.
    ///
    /// # Errors
    /// [`ClusterError::OwnDisk`].
    fn append(&self, batch: &EncodedBatch) -> impl Future<Output = Result<(), ClusterError>> + Send;

    /// Returns the batches that are kept and not sealed in a state, in the order in which they were appended.
    ///
    /// # Errors
    /// [`ClusterError::OwnDisk`].
    fn unsealed(&self, state: &SealedState) -> impl Future<Output = Result<Vec<EncodedBatch>, ClusterError>> + Send;

    /// Makes the highest state of etcd that was seen durable; one that [is not above](HighestSeen::is_newer) the stored one
    /// is ignored, since two tasks of a gateway see states at once.
    ///
    /// # Errors
    /// [`ClusterError::OwnDisk`].
    fn store_highest(&self, seen: &HighestSeen) -> impl Future<Output = Result<(), ClusterError>> + Send;

    /// Returns what [`store_highest`](OwnDisk::store_highest) has stored last; `None` on a new disk.
    ///
    /// # Errors
    /// [`ClusterError::OwnDisk`].
    fn highest(&self) -> impl Future<Output = Result<Option<HighestSeen>, ClusterError>> + Send;
}

/// What is outside of the sealer's process: the signing key, the tiles and the witnesses.
pub trait Publication: Send + Sync {
    /// Signs a checkpoint. The note stays in the process until it is committed and confirmed.
    ///
    /// # Errors
    /// [`ClusterError::Signing`].
    fn sign(&self, size: u64, root: &Hash) -> impl Future<Output = Result<String, ClusterError>> + Send;

    /// Publishes a confirmed checkpoint with the entries that it adds: tiles first, then the note.
    ///
    /// # Errors
    /// [`ClusterError::OwnDisk`] or [`ClusterError::Signing`]: the next checkpoint carries these entries, too.
    fn publish(
        &self,
        state: &SealedState,
        entries: &[Vec<u8>],
    ) -> impl Future<Output = Result<(), ClusterError>> + Send;

    /// Returns size and root of the last checkpoint that the witnesses have cosigned; `None` before the first.
    ///
    /// # Errors
    /// [`ClusterError::Signing`] if too few of them respond.
    fn last_cosigned(&self) -> impl Future<Output = Result<Option<(u64, Hash)>, ClusterError>> + Send;

    /// Returns the root of the first `size` entries by the tiles of this site; `None` if it does not store as many.
    ///
    /// # Errors
    /// [`ClusterError::OwnDisk`].
    fn root_at(&self, size: u64) -> impl Future<Output = Result<Option<Hash>, ClusterError>> + Send;
}
