//! Drift of the sources' responses from their contracts over time: which path of which operation, since when, how
//! often. Never a value.
//!
//! A [`DriftTable`] counts in memory while calls are served; [`DriftTable::keep`] adds the counts to a small file in
//! the data folder ([`file`]), which the command line and the administration read. Both are bounded: at most
//! [`MAX_PATHS`] paths of an operation and [`MAX_ALL`] in all; responses with further paths are counted together.

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

/// Maximum number of paths of one operation: a source that keeps sending new names makes nothing grow.
pub const MAX_PATHS: usize = 50;
/// Maximum number of paths in all, some 600 kB.
pub const MAX_ALL: usize = 2_000;
/// A path that was not seen for this long is dropped, in seconds: 90 days.
pub const FORGOTTEN_AFTER_S: i64 = 90 * 86_400;
/// How long `/readyz` reports drift after it was last seen, in seconds.
const FRESH_S: i64 = 86_400;
/// Minimum interval between writes of counts, in seconds; a new path is written at once.
const WRITE_EVERY_S: i64 = 5;

/// The identity of a drift: operation, kind, path.
type Key = (String, DriftKind, String);

/// The counts of one path.
#[derive(Debug)]
struct Slot {
    /// Responses that are not in the file yet.
    unsaved: u64,
    last_s: i64,
    /// Whether its policy reports it.
    reported: bool,
    /// Its first record in the file.
    first: PathDrift,
    source: String,
    counter: Counter,
}

/// Responses with paths that are not kept.
#[derive(Debug)]
struct Beyond {
    unsaved: u64,
    counter: Counter,
}

#[derive(Debug, Default)]
struct Counts {
    slots: BTreeMap<Key, Slot>,
    beyond: HashMap<String, Beyond>,
    /// The operations in it, for the file.
    operations: HashMap<String, OperationInfo>,
    is_new: bool,
    is_changed: bool,
    written_s: i64,
}

/// Counts drift.
#[derive(Debug)]
pub struct DriftTable {
    /// The key that authenticates its file.
    key: Option<AdminEventKey>,
    counts: Mutex<Counts>,
    metrics: DriftMetrics,
}

impl DriftTable {
    /// Makes a table from a data folder's file: known drift is not logged again. If the file cannot be read, this is
    /// logged and counting starts again.
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

    /// Counts the drift of one response. A new path is logged, unless the policy is to pass.
    pub fn note(&self, operation: &Operation, policy: DriftPolicy, found: &[Drift], now_s: i64) {
        if found.is_empty() {
            return;
        }
        let mut counts = self.counts();
        let mut beyond = false;
        for drift in found {
            let key = (operation.full_name.clone(), drift.kind, drift.source_path(operation));
            // A dropped path is new again.
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
                "responses have drifted from their contract"
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

    /// Returns the sources with drift within the last day, if their policy reports it.
    pub fn fresh(&self, now_s: i64) -> BTreeSet<String> {
        let counts = self.counts();
        let fresh = counts.slots.values().filter(|slot| slot.reported && slot.last_s + FRESH_S > now_s);
        fresh.map(|slot| slot.source.clone()).collect()
    }

    /// Adds the counts since the last time to the file, when it is due, or at the end. It adds to what a gateway that
    /// is being taken over writes meanwhile, and does not overwrite it.
    ///
    /// # Errors
    /// The file cannot be written: the counts are kept for the next time.
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

    /// Takes what is not in the file yet. Paths that the file drops are dropped here.
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
