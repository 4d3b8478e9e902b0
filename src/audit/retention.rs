//! Retention: entry bundles that are old enough are archived, then pruned. Hash tiles and checkpoints stay, so every
//! proof and receipt remains valid (C2SP tlog-tiles, "Pruning"); the archive has the same layout and verifies with the
//! log.
//!
//! The order ensures that a crash at any point loses nothing: the bundle is copied, synced and compared with its hash
//! tile; an entry of the log names the bundles that are about to be pruned; when that entry is under a checkpoint, the
//! bundles are listed as pruned; then they are deleted. Entries under a legal hold stay, and so does the evidence of an
//! earlier pruning.

pub use super::holds::{Hold, Holds, MAX_HOLDS};
use super::replay::{CompareError, Replay};
use super::{AuditError, logged_state};
use crate::exchange_log::archive::archive as copy;
use crate::exchange_log::file_events::FILE_EVENT;
use crate::exchange_log::pruned::{self, PRUNE_EVENT, Pruned};
use crate::exchange_log::reader::LogReader;
use crate::exchange_log::tree::TILE;
use crate::exchange_log::{Entry, LogPaths};
use crate::keyfile::Vault;
use crate::registry::sqlite::SqliteStore;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

/// What may be pruned, and what may not although it is old enough.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Runs of bundles to archive and prune.
    pub runs: Vec<RangeInclusive<u64>>,
    /// Bundles under a legal hold.
    pub held: u64,
    /// Bundles that stay as evidence of an earlier pruning, or of a hold in force.
    pub evidence_bundles: u64,
}

impl Plan {
    /// Bundles to prune.
    pub fn bundles(&self) -> u64 {
        self.runs.iter().map(|run| run.end() - run.start() + 1).sum()
    }

    /// Entries to prune.
    pub fn entries(&self) -> u64 {
        self.bundles() * TILE as u64
    }

    /// Returns the objects of its events.
    pub fn objects(&self) -> impl Iterator<Item = String> {
        self.runs.iter().map(|run| format!("bundles:{}-{}", run.start(), run.end()))
    }
}

/// Finds the bundles with only entries that are older than `before_us` and not held.
///
/// # Errors
/// The log or the file of holds cannot be read, or the file differs from the log.
pub fn plan(data: &Path, before_us: i64, mut progress: impl FnMut(u64, u64)) -> Result<Plan, AuditError> {
    let reader = LogReader::sealed_only(data)?;
    let stand = Holds::read(data)?;
    let holds = &stand.holds;
    let (mut plan, mut found, full) = (Plan::default(), Pruned::default(), reader.sealed() / TILE as u64);
    for bundle in 0..full {
        progress(bundle, full);
        let Some(entries) = reader.bundle(bundle)? else { continue };
        let entries: Vec<Entry> = entries.iter().map(|bytes| Entry::from_bytes(bytes).unwrap_or_default()).collect();
        if entries.iter().any(|entry| entry.time_us >= before_us) {
            // Entries are in the order of time, except for the clock's steps: later ones are younger.
            if entries.iter().all(|entry| entry.time_us >= before_us) {
                break;
            }
            continue;
        }
        if entries.iter().any(|entry| holds.iter().any(|hold| hold.query.fits(entry))) {
            plan.held += 1;
        } else if entries.iter().any(|entry| entry.event == PRUNE_EVENT || stand.are_told_by(entry)) {
            plan.evidence_bundles += 1;
        } else {
            found.add(bundle..=bundle);
        }
    }
    plan.runs = found.runs().to_vec();
    Ok(plan)
}

/// Copies the plan's bundles below `archive`, synced and compared with their hash tiles.
///
/// # Errors
/// A bundle cannot be read, written or does not match its tile: nothing may be pruned then.
pub fn archive(data: &Path, plan: &Plan, archive: &Path, mut progress: impl FnMut(u64)) -> Result<(), AuditError> {
    let reader = LogReader::sealed_only(data)?;
    Ok(copy(&reader, plan.runs.iter().cloned().flatten(), archive, &mut progress)?)
}

/// Returns whether an entry under the log's checkpoint names the plan's pruning.
///
/// # Errors
/// The log cannot be read.
pub fn is_logged(data: &Path, plan: &Plan) -> Result<bool, AuditError> {
    let reader = LogReader::sealed_only(data)?;
    let mut missing: Vec<String> = plan.objects().collect();
    // It was written a moment ago: among the newest entries.
    let mut left = 100_000;
    reader.newest_first(u64::MAX, |one| {
        if one.entry.event == PRUNE_EVENT {
            missing.retain(|object| *object != one.entry.object);
        }
        left -= 1;
        left > 0 && !missing.is_empty()
    })?;
    Ok(missing.is_empty())
}

/// How long a change may take from the file into the log.
const PAUSE: Duration = Duration::from_secs(1);
/// Objects that are restated in one transaction: other changes wait for some milliseconds at most.
const RESTATED_AT_ONCE: usize = 100;

/// Restates every object of the registry with its last change in the plan's bundles, so that the registry can still be
/// recomputed from the log after the pruning, and the log's last record of each file beside it; returns the number.
/// [`is_restated`] returns whether the log has them. The records are the log's, not the file's.
///
/// # Errors
/// The registry's file or that of the holds differs from the log: an investigation must take place while the log has
/// everything. Or either cannot be read or written.
pub fn restate(data: &Path, plan: &Plan, store: &SqliteStore) -> Result<usize, AuditError> {
    if let Some(fault) = logged_state::lost_hold(data, store.key(), || std::thread::sleep(PAUSE))? {
        return Err(AuditError::Holds(fault));
    }
    let mut replay = Replay::with_key(store.key().clone());
    let pause = || std::thread::sleep(PAUSE);
    let found = replay.confirmed_differences(data, store.path(), pause).map_err(|error| match error {
        CompareError::Log(error) => error,
        CompareError::Registry(error) => error.into(),
        behind @ CompareError::Behind { .. } => AuditError::Behind(behind.to_string()),
    })?;
    if let Some(first) = found.first() {
        return Err(AuditError::Differs(first.object.clone(), found.len() - 1));
    }
    let records = replay.records_within(data, &plan.runs)?;
    for some in records.chunks(RESTATED_AT_ONCE) {
        store.restate(some.to_vec())?;
    }
    let files = replay.files().within(&plan.runs);
    for object in &files {
        store.note(FILE_EVENT, object.clone())?;
    }
    Ok(records.len() + files.len())
}

/// Returns whether no object's last change is in the plan's bundles any more. If an object of the log is missing in the
/// registry's file, it returns false: the evidence is kept.
///
/// # Errors
/// The log or the registry cannot be read.
pub fn is_restated(data: &Path, plan: &Plan) -> Result<bool, AuditError> {
    let mut replay = Replay::default();
    replay.advance(data, |_, _| true)?;
    Ok(replay.within(&plan.runs).is_empty() && replay.files().within(&plan.runs).is_empty())
}

/// Lists the plan's bundles as pruned and deletes them.
///
/// # Errors
/// As for [`pruned::prune`](crate::exchange_log::pruned::prune).
pub fn prune(data: &Path, plan: &Plan, vault: &Vault) -> Result<(), AuditError> {
    pruned::prune(&LogPaths::new(data), &plan.runs)?;
    if super::index::index_path(data).exists() {
        let (mut index, reader) = (super::index::SearchIndex::follow(data, vault)?, LogReader::sealed_only(data)?);
        for run in &plan.runs {
            index.forget(&reader, *run.start()..run.end() + 1)?;
        }
    }
    Ok(())
}
