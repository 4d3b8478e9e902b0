//! Each site follows the confirmed checkpoint, and stores its tiles: they are a function of the state before and the batches
//! up to its revision, so whoever builds them gets the same.

use super::ClusterError;
use super::collect;
use super::guard::{self, ConfirmedCheckpoint};
use super::keys::GatewayName;
use super::member::EtcdMember;
use super::members::EtcdMembers;
use super::own_disk::OwnDisk;
use super::reclaim;
use super::state::{LogId, SealedState};
use super::timers::Timers;
use std::future::Future;

/// The tiles of a site.
pub trait SiteTiles: Send + Sync {
    /// The state up to which the tiles are stored durably.
    ///
    /// # Errors
    /// [`ClusterError::OwnDisk`].
    fn stored(&self) -> impl Future<Output = Result<SealedState, ClusterError>> + Send;

    /// Stores the entries between the stored state and a later one, and then that state. The root is checked before: the
    /// entries lead from the one to the other.
    ///
    /// # Errors
    /// [`ClusterError::OwnDisk`].
    fn store(&self, state: &SealedState, entries: &[Vec<u8>]) -> impl Future<Output = Result<(), ClusterError>> + Send;

    /// Fetches the entries from a number on, up to another, from the tiles of another site; `None` if none has them now.
    ///
    /// # Errors
    /// [`ClusterError::OwnDisk`].
    fn fetch(&self, from: u64, to: u64) -> impl Future<Output = Result<Option<Vec<Vec<u8>>>, ClusterError>> + Send;
}

/// Brings a site's tiles up to the confirmed checkpoint, which it returns, and says so in etcd, where `said` is what was
/// said there last by this process.
///
/// # Errors
/// [`ClusterError::RolledBack`] if the checkpoint is behind what this gateway has seen; [`ClusterError::Diverged`] if the
/// entries do not lead to its root; otherwise as for [`EtcdMembers::range`].
pub async fn follow<M: EtcdMember, T: Timers, D: OwnDisk, S: SiteTiles>(
    members: &EtcdMembers<M, T>,
    disk: &D,
    tiles: &S,
    site: &GatewayName,
    said: &mut u64,
) -> Result<ConfirmedCheckpoint, ClusterError> {
    let checkpoint = guard::checked(members, disk).await?;
    let (from, to) = (tiles.stored().await?, &checkpoint.state);
    if from.log != LogId::default() && from.log != to.log {
        return Err(ClusterError::RolledBack("etcd holds another log than this site".into()));
    }
    if from.size() < to.size() {
        let entries = match collect::rebuild(members, &from, to, checkpoint.header.revision).await? {
            Some(entries) => entries,
            None => fetch(tiles, &from, to).await?,
        };
        tiles.store(to, &entries).await?;
    }
    // Also what the sealer of this gateway has stored, or an earlier start that did not come to say so.
    if *said < to.size() {
        reclaim::put_stored(members, site, to.size()).await?;
        *said = to.size();
    }
    Ok(checkpoint)
}

async fn fetch<S: SiteTiles>(tiles: &S, from: &SealedState, to: &SealedState) -> Result<Vec<Vec<u8>>, ClusterError> {
    let Some(entries) = tiles.fetch(from.size(), to.size()).await? else {
        let what = format!("no other site stores the entries {} to {} now", from.size(), to.size());
        return Err(ClusterError::OutcomeUnknown(what));
    };
    let mut peaks = from.peaks.clone();
    entries.iter().for_each(|entry| peaks.push(entry));
    if peaks != to.peaks {
        let what = format!("the entries {} to {} do not lead to the checkpoint's root", from.size(), to.size());
        return Err(ClusterError::Diverged(what));
    }
    Ok(entries)
}
