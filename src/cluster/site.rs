//! Each site follows the confirmed checkpoint, and stores its tiles: they are a function of the state before and the batches
//! up to its revision, so whoever builds them gets the same.
//!
//! A site that lacks more than etcd still has reads it from others, piece by piece, so that neither memory nor a broken
//! connection bounds the size of the log. No other site is trusted: a piece is kept only when the subtrees behind it, by
//! the tiles of any site, lead to the checkpoint that a majority of etcd's members has confirmed. So a site that lies, hangs
//! or is away costs time, and the next one is asked.

use super::ClusterError;
use super::collect;
use super::guard::{self, ConfirmedCheckpoint};
use super::keys::GatewayName;
use super::member::EtcdMember;
use super::members::EtcdMembers;
use super::own_disk::OwnDisk;
use super::peaks::{Peaks, subtrees};
use super::reclaim;
use super::state::{LogId, SealedState};
use super::timers::Timers;
use crate::exchange_log::tree::Hash;
use std::future::Future;
use std::time::Duration;

/// How often the progress of a site that is being filled is logged.
const REPORT_EACH: Duration = Duration::from_secs(5);

/// The tiles of a site.
pub trait SiteTiles: Send + Sync {
    /// The state up to which the tiles are stored durably, and published.
    ///
    /// # Errors
    /// [`ClusterError::OwnDisk`].
    fn stored(&self) -> impl Future<Output = Result<SealedState, ClusterError>> + Send;

    /// The tree that is held: the stored one, and what this process has [kept](SiteTiles::keep) behind it.
    ///
    /// # Errors
    /// [`ClusterError::OwnDisk`].
    fn held(&self) -> impl Future<Output = Result<Peaks, ClusterError>> + Send;

    /// Keeps entries from a number on behind the held tree, but for those that it has, before the checkpoint that covers
    /// them: nothing of them is published. The caller has proven them. Nothing is kept if some before them are missing: the
    /// sealer of this gateway stores at the same time, and what was held gives way to that. A later process finds what was
    /// kept in the first of its [sources](SiteTiles::sources).
    ///
    /// # Errors
    /// [`ClusterError::OwnDisk`].
    fn keep(&self, from: u64, entries: &[Vec<u8>]) -> impl Future<Output = Result<(), ClusterError>> + Send;

    /// Stores the entries between the held or the stored tree and a later state, and then that state. The root is checked
    /// before: the entries lead from the one to the other.
    ///
    /// # Errors
    /// [`ClusterError::OwnDisk`].
    fn store(&self, state: &SealedState, entries: &[Vec<u8>]) -> impl Future<Output = Result<(), ClusterError>> + Send;

    /// Number of places where tiles are read: this site first, then the others.
    fn sources(&self) -> usize;

    /// Reads entries from a number on, up to another, from one of the sources: some megabytes of them; `None` if it does not
    /// have the first of them, or cannot be read now. They may be anything.
    ///
    /// # Errors
    /// [`ClusterError::OwnDisk`].
    fn fetch(
        &self,
        source: usize,
        from: u64,
        to: u64,
    ) -> impl Future<Output = Result<Option<Vec<Vec<u8>>>, ClusterError>> + Send;

    /// Reads the hashes of the [`subtrees`] between two sizes from one of the sources, in a tree of the given size; `None` if
    /// it does not have them, or cannot be read now. They may be anything.
    ///
    /// # Errors
    /// [`ClusterError::OwnDisk`].
    fn hashes(
        &self,
        source: usize,
        between: (u64, u64),
        size: u64,
    ) -> impl Future<Output = Result<Option<Vec<Hash>>, ClusterError>> + Send;
}

/// Brings a site's tiles up to the confirmed checkpoint, which it returns, and says so in etcd, where `said` is what was
/// said there last by this process. A site that lacks much is filled piece by piece; after an error, another call goes on
/// where this one has ended.
///
/// # Errors
/// [`ClusterError::RolledBack`] if the checkpoint is behind what this gateway has seen; [`ClusterError::Diverged`] if this
/// site stores another tree than the checkpoint's; [`ClusterError::OutcomeUnknown`] if no other site has what is missing
/// now; otherwise as for [`EtcdMembers::range`].
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
        let mut filling = Filling::new(tiles, to, members.timers()).await?;
        match collect::rebuild(members, &from, to, checkpoint.header.revision).await? {
            Some(rebuild) => filling.read_from_batches(members, rebuild).await?,
            None => filling.read_from_sources().await?,
        }
    }
    // Also what the sealer of this gateway has stored, or an earlier start that did not come to say so.
    if *said < to.size() {
        reclaim::put_stored(members, site, to.size()).await?;
        *said = to.size();
    }
    Ok(checkpoint)
}

/// The entries between the held tree and a checkpoint, on their way to this site's tiles.
struct Filling<'f, S, T> {
    tiles: &'f S,
    to: &'f SealedState,
    timers: &'f T,
    held: Peaks,
    /// The source that has had the last piece: the next one is probably there, too.
    source: usize,
    first: u64,
    began: Duration,
    reported: Duration,
}

impl<'f, S: SiteTiles, T: Timers> Filling<'f, S, T> {
    async fn new(tiles: &'f S, to: &'f SealedState, timers: &'f T) -> Result<Self, ClusterError> {
        let (held, now) = (tiles.held().await?, timers.now());
        Ok(Filling { tiles, to, timers, first: held.size(), held, source: 0, began: now, reported: now })
    }

    /// Takes what etcd still has.
    async fn read_from_batches<M: EtcdMember>(
        &mut self,
        members: &EtcdMembers<M, T>,
        mut rebuild: collect::Rebuild,
    ) -> Result<(), ClusterError> {
        while let Some(piece) = rebuild.next(members).await? {
            // An earlier call may have kept some of them, and the sealer of this gateway stores at the same time.
            let Some(known) = self.held.size().checked_sub(piece.before.size()) else {
                return Err(ClusterError::OutcomeUnknown("the tiles of this site have changed meanwhile".into()));
            };
            let rest = usize::try_from(known).ok().and_then(|known| piece.entries.get(known..)).unwrap_or_default();
            if !rest.is_empty() {
                self.take(rest, piece.after).await?;
            }
        }
        Ok(())
    }

    /// Takes what the tiles of this site and of others have.
    async fn read_from_sources(&mut self) -> Result<(), ClusterError> {
        while self.held.size() < self.to.size() {
            let (entries, after) = self.proven_piece().await?;
            self.take(&entries, after).await?;
        }
        Ok(())
    }

    /// Takes proven entries, which lead to a tree.
    async fn take(&mut self, entries: &[Vec<u8>], after: Peaks) -> Result<(), ClusterError> {
        if after.size() == self.to.size() {
            self.tiles.store(self.to, entries).await?;
            self.held = after;
        } else {
            self.tiles.keep(self.held.size(), entries).await?;
            self.held = self.tiles.held().await?;
        }
        let now = self.timers.now();
        if now.saturating_sub(self.reported) >= REPORT_EACH {
            let (stored, of, seconds) =
                (self.held.size(), self.to.size(), now.saturating_sub(self.began).as_secs_f64());
            let per_second = ((stored - self.first) as f64 / seconds.max(0.001)) as u64;
            tracing::info!(stored, of, per_second, "this site is being filled");
            self.reported = now;
        }
        Ok(())
    }

    /// The next entries of the first source that has the right ones.
    async fn proven_piece(&mut self) -> Result<(Vec<Vec<u8>>, Peaks), ClusterError> {
        let (from, to) = (self.held.size(), self.to.size());
        for source in self.order() {
            let Some(entries) = self.tiles.fetch(source, from, to).await?.filter(|entries| !entries.is_empty()) else {
                continue;
            };
            let mut after = self.held.clone();
            entries.iter().for_each(|entry| after.push(entry));
            if self.is_proven(source, &after).await? {
                self.source = source;
                return Ok((entries, after));
            }
            tracing::warn!(
                source,
                from,
                "what a site has of the log is not proven by the checkpoint: another one is asked"
            );
        }
        self.check_held().await?;
        Err(ClusterError::OutcomeUnknown(format!("no other site has the entries {from} to {to} now")))
    }

    /// All sources, from the last good one on.
    fn order(&self) -> impl Iterator<Item = usize> + use<S, T> {
        let (count, first) = (self.tiles.sources(), self.source);
        (0..count).map(move |at| (first + at) % count)
    }

    /// Whether a tree is a beginning of the checkpoint's, by the tiles of any source.
    async fn is_proven(&self, source: usize, tree: &Peaks) -> Result<bool, ClusterError> {
        let (from, to) = (tree.size(), self.to.size());
        if from >= to {
            return Ok(*tree == self.to.peaks);
        }
        let others = self.order().filter(|other| *other != source);
        for source in std::iter::once(source).chain(others) {
            let hashes = self.tiles.hashes(source, (from, to), to).await?;
            if hashes.is_some_and(|hashes| self.leads_to_checkpoint(tree.clone(), &hashes)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether these hashes of the subtrees behind a tree lead to the checkpoint's.
    fn leads_to_checkpoint(&self, mut tree: Peaks, hashes: &[Hash]) -> bool {
        let behind = subtrees(tree.size(), self.to.size());
        behind.iter().zip(hashes).for_each(|((level, _), hash)| tree.push_subtree(*level, *hash));
        behind.len() == hashes.len() && tree == self.to.peaks
    }

    /// Nobody can continue the held tree: is it a beginning of the checkpoint's at all? A source that lies cannot show
    /// another beginning, since its hashes have to lead to the checkpoint.
    async fn check_held(&self) -> Result<(), ClusterError> {
        let (from, to) = (self.held.size(), self.to.size());
        for source in self.order() {
            let Some(hashes) = self.tiles.hashes(source, (0, from), to).await? else { continue };
            let Some(other) = Peaks::new(from, hashes).filter(|other| *other != self.held) else { continue };
            let behind = self.tiles.hashes(source, (from, to), to).await?;
            if behind.is_some_and(|hashes| self.leads_to_checkpoint(other, &hashes)) {
                let what =
                    format!("this site stores another beginning of {from} entries than the checkpoint of {to} has");
                return Err(ClusterError::Diverged(what));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
