//! Drift of the sources' answers from their contracts over time: which path of which operation, since when, how often. Never a value.
//!
//! A [`DriftTable`] counts in memory while calls are served; [`DriftTable::keep`] adds what was counted to a small file in the data
//! folder ([`file`]), from which the command line and the administration read. Both are bounded: at most [`MAX_PATHS`] paths of an
//! operation and [`MAX_ALL`] in all; answers with others are counted together.

pub mod file;

use crate::contract::Operation;
use crate::contract::drift::{Drift, DriftKind, DriftPolicy};
use crate::registry::AdminEventKey;
use crate::telemetry::DriftMetrics;
use file::{OperationDrift, OperationInfo, PathDrift, SavedDrift, StateError};
use prometheus_client::metrics::counter::Counter;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Maximum paths of one operation: a source that sends ever new names makes nothing grow.
pub const MAX_PATHS: usize = 50;
/// Most paths in all, some 600 kB.
pub const MAX_ALL: usize = 2_000;
/// A path that was not seen for so long is forgotten, in seconds: 90 days.
pub const FORGOTTEN_AFTER_S: i64 = 90 * 86_400;
/// How long drift is reported in `/readyz` after it was seen last, in seconds.
const FRESH_S: i64 = 86_400;
/// Counts are written at most so often, in seconds; a new path at once.
const WRITE_EVERY_S: i64 = 5;

/// The identity of a drift: operation, kind, path.
type Key = (String, DriftKind, String);

/// What is counted of one path.
#[derive(Debug)]
struct Slot {
    /// Answers that are not in the file yet.
    unsaved: u64,
    last_s: i64,
    /// Whether its policy reports it.
    reported: bool,
    /// What the file says of it when it is written first.
    first: PathDrift,
    source: String,
    counter: Counter,
}

/// Answers whose paths are not kept.
#[derive(Debug)]
struct Beyond {
    unsaved: u64,
    counter: Counter,
}

#[derive(Debug, Default)]
struct Counts {
    slots: BTreeMap<Key, Slot>,
    beyond: HashMap<String, Beyond>,
    /// Of the operations in it, for the file.
    operations: HashMap<String, OperationInfo>,
    is_new: bool,
    is_changed: bool,
    written_s: i64,
}

/// What has drifted, as it is counted.
#[derive(Debug)]
pub struct DriftTable {
    /// The key that authenticates its file.
    key: Option<AdminEventKey>,
    counts: Mutex<Counts>,
    metrics: DriftMetrics,
}

impl DriftTable {
    /// A table that knows what a data folder's file has: what is known is not told of again. A file that cannot be read is said to be,
    /// and begun anew.
    pub fn new(data: &Path, key: Option<AdminEventKey>, metrics: DriftMetrics) -> Self {
        let mut counts = Counts::default();
        let state = file::load(data, key.as_ref()).unwrap_or_else(|error| {
            tracing::warn!(%error, "the drift file cannot be read: counting starts again");
            SavedDrift::default()
        });
        for (operation, kept) in state.operations {
            for one in &kept.paths {
                let Some(kind) = DriftKind::named(&one.kind) else { continue };
                let counter = metrics.of(&kept.about.source, &operation, one.field_or_path(), kind.as_str());
                let (source, last_s) = (kept.about.source.clone(), one.last_s);
                let slot = Slot { unsaved: 0, last_s, reported: false, first: one.clone(), source, counter };
                counts.slots.insert((operation.clone(), kind, one.path.clone()), slot);
            }
        }
        DriftTable { key, counts: Mutex::new(counts), metrics }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what one response has drifted by. A new path is logged, unless the policy is to pass.
    pub fn note(&self, operation: &Operation, policy: DriftPolicy, found: &[Drift], now_s: i64) {
        if found.is_empty() {
            return;
        }
        let mut counts = self.counts();
        let mut beyond = false;
        for drift in found {
            let key = (operation.full_name.clone(), drift.kind, drift.source_path(operation));
            // What is forgotten is new again.
            let known = counts.slots.get_mut(&key).filter(|slot| slot.last_s + FORGOTTEN_AFTER_S > now_s);
            if let Some(slot) = known {
                slot.unsaved += 1;
                slot.last_s = slot.last_s.max(now_s);
                slot.reported |= policy != DriftPolicy::Pass;
                slot.counter.inc();
                continue;
            }
            let of_operation = (operation.full_name.clone(), DriftKind::Added, String::new())..;
            let same = counts.slots.range(of_operation).take_while(|(key, _)| key.0 == operation.full_name).count();
            if same >= MAX_PATHS || counts.slots.len() >= MAX_ALL {
                beyond = true;
                continue;
            }
            self.add(&mut counts, operation, policy, drift, key, now_s);
        }
        if beyond {
            let new = || Beyond {
                unsaved: 0,
                counter: self.metrics.of(&operation.source.id, &operation.full_name, "*", "other"),
            };
            let other = counts.beyond.entry(operation.full_name.clone()).or_insert_with(new);
            other.unsaved += 1;
            other.counter.inc();
            counts.operations.entry(operation.full_name.clone()).or_insert_with(|| OperationInfo::of(operation));
        }
        counts.is_changed = true;
    }

    fn add(
        &self,
        counts: &mut Counts,
        operation: &Operation,
        policy: DriftPolicy,
        drift: &Drift,
        key: Key,
        now_s: i64,
    ) {
        let first = PathDrift {
            kind: drift.kind.as_str().to_owned(),
            path: key.2.clone(),
            field: drift.field.clone(),
            described: drift.described.to_owned(),
            found: drift.found.to_owned(),
            first_s: now_s,
            last_s: now_s,
            responses: 0,
        };
        if policy != DriftPolicy::Pass {
            let (source, kind, path) = (&operation.source.id, drift.kind.as_str(), &key.2);
            tracing::warn!(
                source,
                operation = operation.full_name,
                kind,
                path,
                "answers have drifted from their contract"
            );
        }
        let source = operation.source.id.clone();
        let counter = self.metrics.of(&source, &operation.full_name, first.field_or_path(), drift.kind.as_str());
        counter.inc();
        let reported = policy != DriftPolicy::Pass;
        counts.slots.insert(key, Slot { unsaved: 1, last_s: now_s, reported, first, source, counter });
        counts.operations.entry(operation.full_name.clone()).or_insert_with(|| OperationInfo::of(operation));
        counts.is_new = true;
    }

    /// The sources whose responses have drifted within the last day, where their policy has it told of.
    pub fn fresh(&self, now_s: i64) -> BTreeSet<String> {
        let counts = self.counts();
        let fresh = counts.slots.values().filter(|slot| slot.reported && slot.last_s + FRESH_S > now_s);
        fresh.map(|slot| slot.source.clone()).collect()
    }

    /// Adds what was counted since the last time to the file, where it is time to, or at the end. What a gateway that is being taken
    /// over writes meanwhile is added to, not written over.
    ///
    /// # Errors
    /// Where the file cannot be written: what was counted is kept for the next time.
    pub fn keep(&self, data: &Path, now_s: i64, ends: bool) -> Result<(), StateError> {
        let mut counts = self.counts();
        let due = counts.is_new || ends || now_s - counts.written_s >= WRITE_EVERY_S;
        if !counts.is_changed || !due {
            return Ok(());
        }
        let taken = self.take(&mut counts, now_s);
        drop(counts);
        let added = file::add(data, self.key.as_ref(), &taken, now_s);
        let mut counts = self.counts();
        counts.written_s = now_s;
        if added.is_err() {
            put_back(&mut counts, taken);
        }
        added
    }

    /// What is not in the file yet. What is forgotten there is forgotten here.
    fn take(&self, counts: &mut Counts, now_s: i64) -> Vec<(String, OperationDrift)> {
        let mut taken: BTreeMap<String, OperationDrift> = BTreeMap::new();
        for ((operation, _, _), slot) in &mut counts.slots {
            let unsaved = std::mem::take(&mut slot.unsaved);
            if unsaved > 0 {
                let about = || OperationDrift::new(counts.operations.get(operation).cloned());
                let one = PathDrift { responses: unsaved, last_s: slot.last_s, ..slot.first.clone() };
                taken.entry(operation.clone()).or_insert_with(about).paths.push(one);
            }
        }
        for (operation, beyond) in &mut counts.beyond {
            let unsaved = std::mem::take(&mut beyond.unsaved);
            if unsaved > 0 {
                let about = || OperationDrift::new(counts.operations.get(operation).cloned());
                taken.entry(operation.clone()).or_insert_with(about).beyond += unsaved;
            }
        }
        let metrics = &self.metrics;
        counts.slots.retain(|(operation, kind, _), slot| {
            let stays = slot.last_s + FORGOTTEN_AFTER_S > now_s;
            if !stays {
                metrics.forget(&slot.source, operation, slot.first.field_or_path(), kind.as_str());
            }
            stays
        });
        (counts.is_new, counts.is_changed) = (false, false);
        taken.into_iter().collect()
    }
}

fn put_back(counts: &mut Counts, taken: Vec<(String, OperationDrift)>) {
    for (operation, kept) in taken {
        for one in kept.paths {
            let Some(kind) = DriftKind::named(&one.kind) else { continue };
            if let Some(slot) = counts.slots.get_mut(&(operation.clone(), kind, one.path)) {
                slot.unsaved += one.responses;
            }
        }
        if let Some(beyond) = counts.beyond.get_mut(&operation) {
            beyond.unsaved += kept.beyond;
        }
    }
    counts.is_changed = true;
}

#[cfg(test)]
mod tests;
