//! How far a gateway's entries are, and whether it accepts more: what its threads and tasks share.

use super::own_disk::locked;
use crate::cluster::ClusterError;
use crate::cluster::Incarnation;
use crate::cluster::batch::EncodedBatch;
use crate::cluster::pressure::Pressure;
use crate::cluster::state::SealedState;
use crate::cluster::writer::MAX_IN_FLIGHT;
use crate::exchange_log::{Health, LogError};
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// While nothing was heard of a majority for this long, the log counts as not writable, also if nobody appends.
const SILENT: Duration = Duration::from_secs(5);

/// A batch that takes this long is not waited for by the next one.
const STEP: Duration = Duration::from_millis(10);

/// How far this gateway's entries are.
pub(super) struct Progress {
    writer: Incarnation,
    /// The last batches of earlier starts that were offered again.
    offered: BTreeMap<Incarnation, u64>,
    now: Mutex<Now>,
    moved: Condvar,
    sealed: watch::Sender<u64>,
}

struct Now {
    /// Durable batches that are not known to be sealed, by their numbers.
    unsealed: BTreeMap<u64, OwnBatch>,
    /// The batches that are under way.
    in_flight: BTreeMap<u64, BatchInFlight>,
    /// The last one that has begun.
    begun: u64,
    /// Why one of them is refused: nothing else is accepted until all that are refused are through.
    stuck: Option<String>,
    /// Why the log has stopped on this gateway for good.
    stopped: Option<(&'static str, String)>,
    /// What keeps checkpoints from this site.
    seal_error: Option<LogError>,
    pressure: Pressure,
    /// The size of the checkpoint that had all of them.
    earlier: Option<u64>,
    last_sync: Duration,
    sealed_at: Instant,
    /// When a majority has responded last.
    heard: Instant,
}

struct OwnBatch {
    entries: u64,
    bytes: u64,
    since: Instant,
}

/// How far a batch is that is not durable yet.
#[derive(Default)]
struct BatchInFlight {
    /// It is on the own disk.
    is_kept: bool,
    /// Its appenders were told that its outcome is unknown.
    is_refused: bool,
}

impl Progress {
    pub(super) fn new(writer: Incarnation, sealed: u64, offered: BTreeMap<Incarnation, u64>) -> Self {
        let now = Now {
            unsealed: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            begun: 0,
            stuck: None,
            stopped: None,
            seal_error: None,
            pressure: Pressure::None,
            earlier: offered.is_empty().then_some(sealed),
            last_sync: Duration::ZERO,
            sealed_at: Instant::now(),
            heard: Instant::now(),
        };
        let (now, moved, sealed) = (Mutex::new(now), Condvar::new(), watch::Sender::new(sealed));
        Progress { writer, offered, now, moved, sealed }
    }

    pub(super) fn watch_sealed(&self) -> watch::Receiver<u64> {
        self.sealed.subscribe()
    }

    pub(super) fn admits(&self) -> Result<(), LogError> {
        locked(&self.now).admits()
    }

    pub(super) fn is_writable(&self) -> bool {
        let now = locked(&self.now);
        now.admits().is_ok() && now.heard.elapsed() < SILENT
    }

    /// The time that a batch has to wait for the sake of the room in etcd.
    pub(super) fn delay(&self) -> Duration {
        match locked(&self.now).pressure {
            Pressure::Slow(delay) => delay,
            Pressure::None | Pressure::Refuse => Duration::ZERO,
        }
    }

    /// Waits until another batch may begin, or is refused: each one before is on the own disk, so that a crash leaves no gap
    /// in front of one that is in etcd, and no more are under way than the time of the last one requires. A batch that is not
    /// through is refused in time: nobody waits here without end.
    pub(super) fn wait_for_room(&self) {
        drop(self.room());
    }

    fn room(&self) -> MutexGuard<'_, Now> {
        let waits = |now: &mut Now| now.admits().is_ok() && !now.has_room();
        self.moved.wait_while(locked(&self.now), waits).unwrap_or_else(PoisonError::into_inner)
    }

    /// [Waits](Progress::wait_for_room); then a batch gets its number and begins its way, as one: nothing that is spooled comes
    /// between.
    ///
    /// # Errors
    /// As for [`admits`](Progress::admits), also for what was queued before the log began to refuse; those of `number`.
    pub(super) fn begin(
        &self,
        number: impl FnOnce() -> Result<EncodedBatch, ClusterError>,
    ) -> Result<EncodedBatch, LogError> {
        let mut now = self.room();
        now.admits()?;
        let batch = number().map_err(|error| unavailable(&error))?;
        now.in_flight.insert(batch.seq, BatchInFlight::default());
        now.begun = batch.seq;
        Ok(batch)
    }

    /// Numbers a batch that is spooled, if it [may be](Progress::may_spool): as one, so that every batch before it is on the own
    /// disk.
    ///
    /// # Errors
    /// As for [`may_spool`](Progress::may_spool); [`LogError::Unavailable`] if the disk does not have a batch before it.
    pub(super) fn number_spooled(
        &self,
        number: impl FnOnce() -> Result<EncodedBatch, ClusterError>,
    ) -> Result<EncodedBatch, LogError> {
        let now = locked(&self.now);
        match now.may_spool()? {
            true => number().map_err(|error| unavailable(&error)),
            false => Err(not_kept()),
        }
    }

    /// A batch that is under way is on the own disk.
    pub(super) fn is_kept(&self, seq: u64) {
        if let Some(batch) = locked(&self.now).in_flight.get_mut(&seq) {
            batch.is_kept = true;
        }
        self.moved.notify_all();
    }

    /// Whether no batch but this one is under way.
    pub(super) fn is_last(&self, seq: u64) -> bool {
        locked(&self.now).in_flight.keys().all(|other| *other == seq)
    }

    /// Waits until each batch is through or refused.
    pub(super) fn wait_until_told(&self) {
        let waits = |now: &mut Now| now.in_flight.values().any(|batch| !batch.is_refused);
        drop(self.moved.wait_while(locked(&self.now), waits));
    }

    /// Whether entries may be kept on the own disk alone, since no majority responds; true if the batches before them are there.
    pub(super) fn may_spool(&self) -> Result<bool, LogError> {
        locked(&self.now).may_spool()
    }

    /// A batch that was on the own disk alone is durable.
    pub(super) fn has_joined(&self, seq: u64, (entries, bytes): (u64, u64)) {
        locked(&self.now).unsealed.insert(seq, OwnBatch { entries, bytes, since: Instant::now() });
    }

    /// Why the batch is not through: its appenders are refused now. False if it is through, or was refused before.
    pub(super) fn refuse(&self, seq: u64, reason: &str) -> bool {
        let mut guard = locked(&self.now);
        let now = &mut *guard;
        let Some(batch) = now.in_flight.get_mut(&seq).filter(|batch| !batch.is_refused) else { return false };
        batch.is_refused = true;
        if now.stuck.is_none() {
            tracing::error!(
                reason,
                "the exchange log cannot be written: entries are refused until its batch is through"
            );
            now.stuck = Some(reason.to_owned());
        }
        self.moved.notify_all();
        true
    }

    /// A batch is durable. Entries are accepted again when no other one is refused, and nothing is spooled: what is joins before
    /// anything else, and nothing that comes later gets ahead of it.
    pub(super) fn is_durable(&self, seq: u64, (entries, bytes): (u64, u64), took: Duration, nothing_spooled: bool) {
        let mut now = locked(&self.now);
        now.in_flight.remove(&seq);
        now.last_sync = took.max(Duration::from_micros(1));
        now.heard = Instant::now();
        now.unsealed.insert(seq, OwnBatch { entries, bytes, since: Instant::now() });
        let is_over = nothing_spooled && now.in_flight.values().all(|batch| !batch.is_refused);
        if is_over && now.stuck.take().is_some() {
            tracing::info!(seconds = took.as_secs(), "the exchange log's batch is through: entries are accepted again");
        }
        self.moved.notify_all();
    }

    /// The log stops on this gateway: the first reason stays.
    pub(super) fn stop(&self, error: &ClusterError) {
        let mut now = locked(&self.now);
        if now.stopped.is_none() {
            tracing::error!(%error, "the exchange log stops on this gateway");
            now.stopped = Some((error.state(), error.to_string()));
        }
        self.moved.notify_all();
    }

    pub(super) fn press(&self, pressure: Pressure) {
        let mut now = locked(&self.now);
        if pressure == Pressure::Refuse && now.pressure != pressure {
            tracing::error!(
                "half of etcd's quota is in use: the exchange log accepts nothing until there is more room"
            );
        }
        now.pressure = pressure;
        self.moved.notify_all();
    }

    /// The files of this site cannot be written now.
    pub(super) fn cannot_store(&self, error: &ClusterError) {
        let mut now = locked(&self.now);
        if now.seal_error.is_none() {
            tracing::error!(%error, "what is sealed cannot be stored at this site; its entries are safe in etcd");
        }
        now.seal_error = Some(unavailable(error));
    }

    /// This site stores the log up to a state.
    pub(super) fn is_stored(&self, state: &SealedState) {
        let mut now = locked(&self.now);
        while now.unsealed.first_key_value().is_some_and(|(seq, _)| state.is_sealed(&self.writer, *seq)) {
            now.unsealed.pop_first();
        }
        if now.earlier.is_none() && self.offered.iter().all(|(writer, seq)| state.is_sealed(writer, *seq)) {
            now.earlier = Some(state.size());
        }
        (now.heard, now.seal_error) = (Instant::now(), None);
        let grown = self.sealed.send_if_modified(|sealed| {
            let grown = *sealed < state.size();
            *sealed = state.size().max(*sealed);
            grown
        });
        if grown {
            now.sealed_at = Instant::now();
        }
        self.moved.notify_all();
    }

    /// The number of entries among which are those of earlier starts.
    pub(super) fn earlier(&self) -> Option<u64> {
        locked(&self.now).earlier
    }

    /// Entries that are durable: those that are stored here, and this gateway's others.
    pub(super) fn durable(&self) -> u64 {
        let now = locked(&self.now);
        *self.sealed.borrow() + now.unsealed_entries()
    }

    pub(super) fn health(&self) -> Health {
        let now = locked(&self.now);
        let stopped = now.stopped.as_ref().map(|(_, reason)| LogError::Unavailable(reason.clone()));
        Health {
            unsealed_entries: now.unsealed_entries(),
            unsealed_bytes: now.unsealed.values().map(|batch| batch.bytes).sum(),
            unsealed_age: now.unsealed.values().next().map_or(Duration::ZERO, |batch| batch.since.elapsed()),
            checkpoint_age: now.sealed_at.elapsed(),
            last_sync: now.last_sync,
            seal_error: stopped.or_else(|| now.seal_error.clone()),
            is_full: now.pressure == Pressure::Refuse,
            spooled: 0,
            stopped: now.stopped.as_ref().map(|(state, _)| *state),
        }
    }

    /// Waits until what is durable now is sealed and stored here, and returns the size of the checkpoint.
    pub(super) fn wait_until_sealed(&self, limit: Duration) -> Result<u64, LogError> {
        let now = locked(&self.now);
        let last = now.unsealed.keys().next_back().copied().unwrap_or(0);
        let waits =
            |now: &mut Now| now.stopped.is_none() && now.unsealed.keys().next().is_some_and(|first| *first <= last);
        let waited = self.moved.wait_timeout_while(now, limit, waits);
        let mut now = waited.unwrap_or_else(PoisonError::into_inner).0;
        if let Some((_, reason)) = now.stopped.clone() {
            return Err(LogError::Unavailable(reason));
        }
        if waits(&mut now) {
            let reason = || LogError::Unavailable(format!("not sealed within {} s", limit.as_secs()));
            return Err(now.seal_error.clone().unwrap_or_else(reason));
        }
        Ok(*self.sealed.borrow())
    }
}

impl Now {
    fn admits(&self) -> Result<(), LogError> {
        match self.stopped.as_ref().map(|(_, reason)| reason).or(self.stuck.as_ref()) {
            Some(reason) => Err(LogError::Unavailable(reason.clone())),
            None if self.pressure == Pressure::Refuse => Err(LogError::Full),
            None => Ok(()),
        }
    }

    fn may_spool(&self) -> Result<bool, LogError> {
        let unavailable = |reason: &str| Err(LogError::Unavailable(reason.to_owned()));
        match (&self.stopped, &self.stuck) {
            (Some((_, reason)), _) => unavailable(reason),
            (None, Some(_)) => Ok(self.in_flight.values().all(|batch| batch.is_kept)),
            (None, None) => unavailable("a majority of etcd responds: entries are appended as usual"),
        }
    }

    fn unsealed_entries(&self) -> u64 {
        self.unsealed.values().map(|batch| batch.entries).sum()
    }

    fn has_room(&self) -> bool {
        let first = self.in_flight.keys().next().copied().unwrap_or(self.begun + 1);
        // By number, not by count: a batch that is late does not let those behind it go on without it.
        let ahead = self.begun + 1 - first;
        self.in_flight.values().all(|batch| batch.is_kept) && ahead < self.max_in_flight()
    }

    /// One batch, and one more for each [`STEP`] that the last one took: where the members are far from each other, a batch
    /// need not wait for the one before. Where they are near, it does, and takes along what comes meanwhile.
    fn max_in_flight(&self) -> u64 {
        match self.pressure {
            Pressure::None => (1 + self.last_sync.as_millis() / STEP.as_millis()).min(MAX_IN_FLIGHT as u128) as u64,
            // Each waits for its delay, one after the other.
            Pressure::Slow(_) | Pressure::Refuse => 1,
        }
    }
}

/// Nothing is spooled behind a batch that the own disk does not have.
pub(super) fn not_kept() -> LogError {
    LogError::Unavailable("the own disk does not take the batch before".into())
}

/// The same error for those who append.
pub(super) fn unavailable(error: &ClusterError) -> LogError {
    LogError::Unavailable(error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
