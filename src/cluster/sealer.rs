//! One term after the other: elected, guarded, then sealing until anything fails. A term that has failed throws all away
//! and reads again: what counts is in etcd alone.

use super::ClusterError;
use super::collect;
use super::commit;
use super::election::{self, Leadership};
use super::guard::{self, COMPARE_EACH, ConfirmedCheckpoint};
use super::highest::HighestSeen;
use super::keys::{CHECKPOINT, Incarnation, LOG};
use super::member::{EtcdMember, RangeRead};
use super::members::EtcdMembers;
use super::own_disk::{OwnDisk, Publication};
use super::reclaim::{self, COMPACT_EACH, Reclaimer};
use super::retirement;
use super::sealing::{self, Collection};
use super::timers::Timers;
use crate::exchange_log::tree::Hash;
use std::sync::Arc;
use std::time::Duration;

/// Pause after a term, and while another one is elected. A sealer that has died is followed by another after its lease and
/// this time.
const RETRY: Duration = Duration::from_millis(500);

/// How a sealer works.
#[derive(Debug, Clone)]
pub struct SealerSettings {
    /// Time between two sealings while entries come.
    pub seal_each: Duration,
    /// Number of sites that store tiles.
    pub sites: usize,
}

/// Seals whenever it is elected.
pub struct ClusterSealer<M, T, D, P> {
    /// etcd.
    pub members: Arc<EtcdMembers<M, T>>,
    /// What was seen is remembered there.
    pub disk: Arc<D>,
    /// Key, tiles and witnesses.
    pub publication: Arc<P>,
    /// Who is elected.
    pub candidate: Incarnation,
    /// How it works.
    pub settings: SealerSettings,
}

/// What one term knows.
struct SealerTerm {
    leadership: Leadership,
    /// What the next sealing is built on.
    base: ConfirmedCheckpoint,
    /// Every batch up to this revision was collected.
    revision: i64,
    reclaimer: Reclaimer,
    compared: Duration,
    compacted: Duration,
}

impl<M: EtcdMember, T: Timers, D: OwnDisk, P: Publication> ClusterSealer<M, T, D, P> {
    /// Runs terms until an error that does not pass: sealing stops then on this gateway, with that reason.
    pub async fn run(&self) -> ClusterError {
        loop {
            match self.term().await {
                Err(error) if !error.may_pass() => return error,
                ended => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a term of the sealer has ended");
                    }
                    self.members.timers().sleep(RETRY).await;
                }
            }
        }
    }

    /// Campaigns once, and seals while elected.
    async fn term(&self) -> Result<(), ClusterError> {
        let Some(leadership) = election::campaign(&self.members, &self.candidate).await? else { return Ok(()) };
        let ended = tokio::select! {
            biased;
            error = election::renew(&self.members, leadership) => error,
            error = self.lead(leadership) => error,
        };
        // The next term need not wait for the lease to end.
        let _ = self.members.send(election::KEEP_EACH, |member| member.revoke_lease(leadership.lease)).await;
        Err(ended)
    }

    async fn lead(&self, leadership: Leadership) -> ClusterError {
        let mut term = match self.begin(leadership).await {
            Ok(term) => term,
            Err(error) => return error,
        };
        loop {
            match self.round(&mut term).await {
                // A sealing is bounded: what has waited during a pause follows at once.
                Ok(true) => {}
                Ok(false) => self.wait_for_batches(&term).await,
                Err(error) => return error,
            }
        }
    }

    /// The guards before the first commit of a term.
    async fn begin(&self, leadership: Leadership) -> Result<SealerTerm, ClusterError> {
        // Before the checkpoint is read: a sealer that is paused in between finds more cosigned than it has read.
        let cosigned = self.publication.last_cosigned().await?;
        let base = guard::checked(&self.members, &*self.disk).await?;
        if let Some((size, root)) = cosigned {
            self.check_cosigned(&base, size, root).await?;
        }
        guard::compare_members(&self.members, base.header.revision).await?;
        // The term before may have ended between its commit and its publication.
        self.publication.publish(&base.state, &[]).await?;
        let now = self.members.timers().now();
        let mut reclaimer = Reclaimer::default();
        reclaimer.sealed(&base.state, base.entry.modified);
        let revision = base.state.revision;
        Ok(SealerTerm { leadership, base, revision, reclaimer, compared: now, compacted: now })
    }

    /// The witnesses must not have cosigned anything that this state does not contain.
    async fn check_cosigned(&self, base: &ConfirmedCheckpoint, size: u64, root: Hash) -> Result<(), ClusterError> {
        let behind = |what: String| Err(ClusterError::RolledBack(what));
        if base.state.size() < size {
            return behind(format!("the witnesses have cosigned {size} entries, there are {}", base.state.size()));
        }
        let here = match base.state.size() == size {
            true => Some(base.state.root()),
            false => self.publication.root_at(size).await?,
        };
        match here {
            Some(here) if here == root => Ok(()),
            Some(_) => behind(format!("the witnesses have cosigned another tree of {size} entries")),
            // Until this site has stored the tiles, another one seals.
            None => Err(ClusterError::Signing(format!("this site does not store {size} entries yet"))),
        }
    }

    /// Seals once. Returns whether there was more than a sealing may have.
    async fn round(&self, term: &mut SealerTerm) -> Result<bool, ClusterError> {
        let read = self.members.range(&RangeRead::key(CHECKPOINT)).await?;
        if read.entries.first().map(|entry| entry.modified) != Some(term.base.entry.modified) {
            return Err(ClusterError::TermEnded);
        }
        let revision = read.header.revision;
        let collection = collect::collect(&self.members, &term.base.state, revision).await?;
        if !collection.batches.is_empty() {
            self.seal(term, &collection).await?;
        }
        term.revision = collection.revision;
        self.keep_house(term, &collection, revision).await?;
        Ok(collection.revision < revision)
    }

    /// Computes, signs, commits, confirms, publishes: in this order.
    async fn seal(&self, term: &mut SealerTerm, collection: &Collection) -> Result<(), ClusterError> {
        let mut sealing = sealing::plan(&term.base.state, collection)?;
        let (size, root) = (sealing.state.size(), sealing.state.root());
        sealing.state.note = self.publication.sign(size, &root).await?;
        let txn = commit::commit_txn(&sealing, term.base.entry.modified, term.leadership);
        // Once: if the outcome is unknown, only reading again tells.
        let outcome = self.members.transact(&txn).await?;
        if !outcome.succeeded {
            return Err(ClusterError::TermEnded);
        }
        let committed = guard::confirmed(&self.members).await?;
        if committed.state != sealing.state {
            return Err(ClusterError::NotConfirmed);
        }
        self.disk.store_highest(&HighestSeen::of(&committed.header, &committed.state)).await?;
        self.publication.publish(&committed.state, &sealing.entries).await?;
        term.reclaimer.sealed(&committed.state, committed.entry.modified);
        term.base = committed;
        Ok(())
    }

    /// Deletes, compares the members, retires writers, compacts.
    async fn keep_house(
        &self,
        term: &mut SealerTerm,
        collection: &Collection,
        revision: i64,
    ) -> Result<(), ClusterError> {
        if !collection.deletable.is_empty() {
            let stored = reclaim::stored_by_majority(&self.members, self.settings.sites).await?;
            let due = term.reclaimer.due(stored, &collection.deletable);
            term.reclaimer.delete(&self.members, due, (term.base.entry.modified, term.leadership)).await?;
        }
        let now = self.members.timers().now();
        if now.saturating_sub(term.compared) >= COMPARE_EACH {
            guard::compare_members(&self.members, revision).await?;
            term.compared = now;
        }
        if now.saturating_sub(term.compacted) >= COMPACT_EACH {
            self.retire(term, revision).await?;
            term.reclaimer.compact(&self.members).await?;
            term.compacted = now;
        }
        Ok(())
    }

    /// Retires writers that have ended.
    async fn retire(&self, term: &mut SealerTerm, revision: i64) -> Result<(), ClusterError> {
        let Some(retirement) = retirement::plan(&self.members, &term.base.state, revision).await? else {
            return Ok(());
        };
        let txn = retirement.txn(term.base.entry.modified, term.leadership);
        if !self.members.transact(&txn).await?.succeeded {
            // A batch has come meanwhile, or the term has ended: the next round finds out.
            return Ok(());
        }
        let committed = guard::confirmed(&self.members).await?;
        if committed.state != retirement.state {
            return Err(ClusterError::NotConfirmed);
        }
        self.disk.store_highest(&HighestSeen::of(&committed.header, &committed.state)).await?;
        term.reclaimer.sealed(&committed.state, committed.entry.modified);
        term.base = committed;
        Ok(())
    }

    /// Waits for the time between two sealings, then until there is something to seal or to do.
    async fn wait_for_batches(&self, term: &SealerTerm) {
        let timers = self.members.timers();
        timers.sleep(self.settings.seal_each).await;
        self.members.wait_for_change(LOG, term.revision, RETRY).await;
    }
}
