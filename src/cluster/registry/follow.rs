//! A gateway's replica of the registry follows etcd: a watch wakes it, ranges are the truth.

use super::change::{self, CHANGES, ROWS, RegistryChange, RegistryHead, VERSION};
use super::commit::{PreparedChange, Verdict};
use super::freshness::{Freshness, MAX_AGE};
use super::replica_state::{PlacedHead, own_disk};
use crate::cluster::ClusterError;
use crate::cluster::keys;
use crate::cluster::member::{EtcdMember, RangeRead};
use crate::cluster::members::EtcdMembers;
use crate::cluster::timers::Timers;
use crate::registry::AdminEvent;
use crate::registry::replication::{ChangeDraft, CommitOutcome, Replica};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// How often the replica is refreshed if no watch wakes: the bound on what a watch that loses an event costs.
pub const REFRESH_EACH: Duration = Duration::from_secs(1);
/// Number of changes that are kept: a replica that is further behind reads all rows.
pub const JOURNAL: u64 = 1024;
/// The pause after a refresh that has failed.
const AFTER_FAILURE: Duration = Duration::from_millis(200);
/// Changes of a page: 3.2 MB at most.
const CHANGE_PAGE: i64 = 8;
/// Rows of a page: 100 kB as a rule; a row has 40 kB at most.
const ROW_PAGE: i64 = 200;

/// Makes the entries of the exchange log from admin events.
pub type EventEntry = dyn Fn(&AdminEvent) -> Vec<u8> + Send + Sync;

/// The settings of a gateway's registry.
#[derive(Debug, Clone)]
pub struct RegistrySettings {
    /// How old the view may be before calls are refused.
    pub max_age: Duration,
    /// How many changes are kept.
    pub journal: u64,
}

impl Default for RegistrySettings {
    fn default() -> Self {
        RegistrySettings { max_age: MAX_AGE, journal: JOURNAL }
    }
}

/// The registry of all gateways, with this gateway's replica.
pub struct ClusterRegistry<M, T, R> {
    members: Arc<EtcdMembers<M, T>>,
    replica: R,
    entry: Arc<EventEntry>,
    settings: RegistrySettings,
    freshness: Arc<Freshness<T>>,
    /// One refresh at a time: what is put aside for a complete read is one for all.
    refreshing: Mutex<()>,
    /// One change of this gateway at a time: they would only supersede each other.
    committing: Mutex<()>,
}

impl<M: EtcdMember, T: Timers, R: Replica> ClusterRegistry<M, T, R> {
    /// A registry that was [begun](super::import::begin_registry). `entry` makes the entries of the log.
    pub fn new(
        members: Arc<EtcdMembers<M, T>>,
        replica: R,
        entry: Arc<EventEntry>,
        settings: RegistrySettings,
    ) -> Self {
        let freshness = Arc::new(Freshness::new(members.timers().clone(), settings.max_age));
        let (refreshing, committing) = (Mutex::default(), Mutex::default());
        ClusterRegistry { members, replica, entry, settings, freshness, refreshing, committing }
    }

    /// Returns what the access step asks.
    pub fn freshness(&self) -> &Arc<Freshness<T>> {
        &self.freshness
    }

    /// Returns the replica.
    pub fn replica(&self) -> &R {
        &self.replica
    }

    /// Follows until something happens that does not pass; `told` gets the outcome of each refresh before that.
    pub async fn run(&self, mut told: impl FnMut(Result<(), &ClusterError>) + Send) -> ClusterError {
        loop {
            match self.refresh().await {
                Ok(revision) => {
                    told(Ok(()));
                    self.members.wait_for_change(VERSION, revision, REFRESH_EACH).await;
                }
                Err(error) if error.may_pass() => {
                    told(Err(&error));
                    self.members.timers().sleep(AFTER_FAILURE).await;
                }
                Err(error) => return error,
            }
        }
    }

    /// Applies everything that is new, and returns the revision that was read.
    ///
    /// # Errors
    /// As for [`EtcdMembers::range`]; [`ClusterError::NoRegistry`]; [`ClusterError::RolledBack`] if etcd is behind the
    /// replica or has another history; the replica's.
    pub async fn refresh(&self) -> Result<i64, ClusterError> {
        let _turn = self.refreshing.lock().await;
        let began = self.members.timers().now();
        // What is compared with is read first: a change of this gateway may be applied meanwhile.
        let there = self.replica.position().map_err(own_disk)?;
        let there = there.as_ref().map(PlacedHead::of).transpose()?;
        let page = self.members.range(&RangeRead::key(VERSION)).await?;
        let (entry, revision) = (page.entries.first().ok_or(ClusterError::NoRegistry)?, page.header.revision);
        let now = PlacedHead { head: RegistryHead::decode(&entry.value)?, modified: entry.modified };
        match there {
            Some(there) if there == now => {}
            Some(there) if there.modified >= now.modified || there.head.number >= now.head.number => {
                return Err(rolled_back(&there));
            }
            Some(there) if self.catch_up(&there, &now, revision).await? => {}
            _ => self.read_all(&now, revision).await?,
        }
        self.freshness.has_refreshed(began);
        Ok(revision)
    }

    /// Applies the changes after a head one by one; up to the present one; returns whether they are still kept.
    async fn catch_up(&self, there: &PlacedHead, now: &PlacedHead, revision: i64) -> Result<bool, ClusterError> {
        let mut last = there.clone();
        loop {
            // The last applied one is read again: it shows that this is the same history.
            let read = RangeRead {
                from: change::change_key(last.head.number),
                end: keys::prefix_end(CHANGES),
                limit: CHANGE_PAGE,
                revision,
                ..RangeRead::default()
            };
            let page = self.members.range(&read).await?;
            let mut changes = page.entries.iter().map(|entry| (entry, number_of(&entry.key)));
            if last.head.number > 0 {
                match changes.next() {
                    Some((entry, Some(number))) if number == last.head.number => {
                        let kept = RegistryChange::decode(&entry.value, number)?;
                        if entry.modified != last.modified || kept.head != last.head {
                            return Err(rolled_back(&last));
                        }
                    }
                    _ => return Ok(false),
                }
            }
            for (entry, number) in changes {
                let next = last.head.number + 1;
                if number != Some(next) {
                    return Ok(false);
                }
                let change = RegistryChange::decode(&entry.value, next)?;
                last = PlacedHead { head: change.head.clone(), modified: entry.modified };
                self.apply(&change, &last)?;
            }
            if !page.has_more {
                // An import leads to a head without a change.
                return Ok(last == *now);
            }
        }
    }

    fn apply(&self, change: &RegistryChange, placed: &PlacedHead) -> Result<(), ClusterError> {
        self.replica.apply(&change.rows, &change.touched, &placed.position()).map_err(own_disk)
    }

    /// Reads all rows as they were at a revision, page by page.
    async fn read_all(&self, now: &PlacedHead, revision: i64) -> Result<(), ClusterError> {
        let mut read = RangeRead { limit: ROW_PAGE, ..RangeRead::prefix(ROWS).at(revision) };
        let mut are_first = true;
        loop {
            let page = self.members.range(&read).await?;
            let rows = page.entries.iter().map(|entry| change::decode_row(&entry.key, &entry.value));
            self.replica.stage(&rows.collect::<Result<Vec<_>, _>>()?, are_first).map_err(own_disk)?;
            are_first = false;
            let Some(last) = page.entries.last().filter(|_| page.has_more) else { break };
            read.from = [last.key.as_slice(), &[0]].concat();
        }
        self.replica.install(&now.position()).map_err(own_disk)
    }

    /// Makes a change count, and applies it here.
    ///
    /// # Errors
    /// [`ClusterError::OutcomeUnknown`] if the change may count, now or later; anything else: it does not.
    pub async fn commit(&self, draft: &ChangeDraft) -> Result<CommitOutcome, ClusterError> {
        let _turn = self.committing.lock().await;
        let entries = draft.events.iter().map(|event| (self.entry)(event)).collect();
        let prepared = PreparedChange::new(draft, entries, self.settings.journal)?;
        match prepared.settle(&self.members).await? {
            Verdict::Counts(modified) => {
                let placed = PlacedHead { head: prepared.change.head.clone(), modified };
                // It counts, whatever the own disk does: the next refresh applies it, or reports why not.
                let _ = self.apply(&prepared.change, &placed);
                Ok(CommitOutcome::Applied)
            }
            Verdict::Superseded => {
                self.refresh().await?;
                Ok(CommitOutcome::Superseded)
            }
        }
    }
}

fn number_of(key: &[u8]) -> Option<u64> {
    keys::parse_number(key.strip_prefix(CHANGES)?)
}

fn rolled_back(there: &PlacedHead) -> ClusterError {
    let number = there.head.number;
    ClusterError::RolledBack(format!("change {number} of the registry, of revision {}, was seen", there.modified))
}
