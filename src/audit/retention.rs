//! Retention: entry bundles that are old enough are archived, then pruned. Hash tiles and checkpoints stay, so every proof
//! and receipt still holds (C2SP tlog-tiles, "Pruning"); the archive has the same layout and verifies with the log.
//!
//! In this order, so that a crash at any point loses nothing: the bundle is copied, synced and compared with its hash tile;
//! an entry of the log tells which bundles are about to go; when that is under a checkpoint, they are listed as pruned; then
//! they are deleted. What is under a legal hold stays, and so does whatever tells of an earlier pruning.

use super::query::Query;
use super::replay::{CompareError, Replay};
use super::{AuditError, logged_state};
use crate::exchange_log::file_acts::{HOLD_ACT, PRUNE_ACT, RELEASE_ACT};
use crate::exchange_log::pruned::{self, Pruned};
use crate::exchange_log::reader::LogReader;
use crate::exchange_log::tree::TILE;
use crate::exchange_log::{Entry, LogError, LogPaths, write_atomically};
use crate::hex::sha256;
use crate::keyfile::Vault;
use crate::registry::act::canonical_json;
use crate::registry::sqlite::SqliteStore;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Holds in force, at most: each entry that may be pruned is compared with all of them.
pub const MAX_HOLDS: usize = 1_000;

/// Entries that must be kept, whatever their age, until the hold is released.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// Its number.
    pub id: u64,
    /// Why: the number of a document or case.
    pub case: String,
    /// Who placed it, and when (Unix seconds).
    pub by: String,
    /// When it was placed.
    pub since: i64,
    /// What is held.
    query: Query,
}

/// A record without what is not said in it: fields that later versions add change no digest.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let said = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(said.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        other => other,
    }
}

impl Hold {
    /// The SHA-256 of all that it says, in hexadecimal.
    pub fn digest(&self) -> String {
        let text = canonical_json(&without_nulls(serde_json::to_value(self).unwrap_or_default()));
        sha256(text.as_bytes())
    }

    /// The object of the act that places it: whoever changes the file afterwards differs from it.
    pub fn object(&self) -> String {
        format!("hold:{} reason:{} sha256:{}", self.id, self.case, self.digest())
    }

    /// The object of the act that releases it.
    pub fn released_object(&self) -> String {
        format!("hold:{} sha256:{}", self.id, self.digest())
    }
}

/// The holds of a data folder.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Holds {
    /// The number of the one that was placed last.
    pub(super) last: u64,
    /// Those in force.
    pub holds: Vec<Hold>,
}

fn holds_path(data: &Path) -> PathBuf {
    data.join("state").join("holds.json")
}

impl Holds {
    /// Reads them. A file that cannot be read stops every pruning.
    ///
    /// # Errors
    /// The file cannot be read, or is not one that [`Holds::change`] wrote.
    pub fn read(data: &Path) -> Result<Self, LogError> {
        let path = holds_path(data);
        match std::fs::read(&path) {
            Ok(bytes) if bytes.last() != Some(&b'}') => Err(LogError::corrupt(&path, 0, "is no list of holds")),
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| LogError::corrupt(&path, 0, error.to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Holds::default()),
            Err(error) => Err(LogError::io(&path, &error)),
        }
    }

    fn write(&self, data: &Path) -> Result<(), LogError> {
        let path = holds_path(data);
        let text = serde_json::to_vec_pretty(self).map_err(|error| LogError::corrupt(&path, 0, error.to_string()))?;
        write_atomically(&path, &text)
    }

    /// Changes them, one change at a time in this process.
    ///
    /// # Errors
    /// The file cannot be read or written: nothing changes.
    pub fn change<T>(data: &Path, change: impl FnOnce(&mut Self) -> T) -> Result<T, LogError> {
        static ALONE: Mutex<()> = Mutex::new(());
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut holds = Holds::read(data)?;
        let changed = change(&mut holds);
        holds.write(data)?;
        Ok(changed)
    }

    /// Places a hold on whatever fits a query; gives it, or `None` where there are as many as there may be.
    pub fn place(&mut self, query: &Query, case: &str, by: &str) -> Option<&Hold> {
        if self.holds.len() >= MAX_HOLDS {
            return None;
        }
        self.last += 1;
        self.holds.push(Hold {
            id: self.last,
            case: case.to_owned(),
            by: by.to_owned(),
            since: crate::registry::now(),
            query: query.clone(),
        });
        self.holds.last()
    }

    /// Whether an entry tells of a hold that stands, or of the last one: without it, the file could not be compared with the log.
    fn are_told_by(&self, entry: &Entry) -> bool {
        let id = || logged_state::hold_of(&entry.object).map(|(id, _)| id);
        [HOLD_ACT, RELEASE_ACT].contains(&entry.act.as_str())
            && id().is_some_and(|id| id >= self.last || self.holds.iter().any(|hold| hold.id == id))
    }

    /// Releases a hold; false where there is none of this number.
    pub fn release(&mut self, id: u64) -> bool {
        let before = self.holds.len();
        self.holds.retain(|hold| hold.id != id);
        self.holds.len() < before
    }
}

/// What may be pruned, and what may not although it is old enough.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Runs of bundles to archive and prune.
    pub runs: Vec<RangeInclusive<u64>>,
    /// Bundles that a hold keeps.
    pub held: u64,
    /// Bundles that are kept since they tell of an earlier pruning, or of a hold that stands.
    pub telling: u64,
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

    /// The objects of the acts that tell of it.
    pub fn objects(&self) -> impl Iterator<Item = String> {
        self.runs.iter().map(|run| format!("bundles:{}-{}", run.start(), run.end()))
    }
}

/// Finds the bundles all of whose entries are older than `before_us` and none of them held.
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
            // Entries stand in the order of time, but for the clock's own steps: what comes is younger.
            if entries.iter().all(|entry| entry.time_us >= before_us) {
                break;
            }
            continue;
        }
        if entries.iter().any(|entry| holds.iter().any(|hold| hold.query.fits(entry))) {
            plan.held += 1;
        } else if entries.iter().any(|entry| entry.act == PRUNE_ACT || stand.are_told_by(entry)) {
            plan.telling += 1;
        } else {
            found.add(bundle..=bundle);
        }
    }
    plan.runs = found.runs().to_vec();
    Ok(plan)
}

/// Copies the plan's bundles below `archive`, synced and compared with their hash tiles.
pub fn archive(data: &Path, plan: &Plan, archive: &Path, mut progress: impl FnMut(u64)) -> Result<(), AuditError> {
    let reader = LogReader::sealed_only(data)?;
    Ok(pruned::archive(&reader, plan.runs.iter().cloned().flatten(), archive, &mut progress)?)
}

/// Whether the log tells of the plan's pruning, under its checkpoint.
pub fn is_told(data: &Path, plan: &Plan) -> Result<bool, AuditError> {
    let reader = LogReader::sealed_only(data)?;
    let mut missing: Vec<String> = plan.objects().collect();
    // It was noted a moment ago: among the newest entries.
    let mut left = 100_000;
    reader.newest_first(u64::MAX, |one| {
        if one.entry.act == PRUNE_ACT {
            missing.retain(|object| *object != one.entry.object);
        }
        left -= 1;
        left > 0 && !missing.is_empty()
    })?;
    Ok(missing.is_empty())
}

/// How long a change may be on its way from the file into the log.
const PAUSE: Duration = Duration::from_secs(1);
/// Objects that are restated in one transaction: other changes wait for some milliseconds at most.
const RESTATED_AT_ONCE: usize = 100;

/// Restates every object of the registry whose last change stands in the plan's bundles, so that the registry can still be
/// recomputed from the log when they are gone; gives how many. [`is_restated`] tells when the log has it. The records are the
/// log's, not the file's.
///
/// # Errors
/// The registry's file or that of the holds is not what the log says: who edited it is to be found out while the log has
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
    })?;
    if let Some(first) = found.first() {
        return Err(AuditError::Differs(first.object.clone(), found.len() - 1));
    }
    let records = replay.records_within(data, &plan.runs)?;
    for some in records.chunks(RESTATED_AT_ONCE) {
        store.restate(some.to_vec())?;
    }
    Ok(records.len())
}

/// Whether no object's last change stands in the plan's bundles any more. Where one of the log is not in the registry's
/// file, it never is: what tells of it is kept.
pub fn is_restated(data: &Path, plan: &Plan) -> Result<bool, AuditError> {
    let mut replay = Replay::default();
    replay.advance(data, |_, _| true)?;
    Ok(replay.within(&plan.runs).is_empty())
}

/// Lists the plan's bundles as pruned and deletes them.
pub fn prune(data: &Path, plan: &Plan, vault: &Vault) -> Result<(), AuditError> {
    pruned::prune(&LogPaths::new(data), &plan.runs)?;
    if super::index::index_path(data).exists() {
        let (mut index, reader) = (super::index::Index::follow(data, vault)?, LogReader::sealed_only(data)?);
        for run in &plan.runs {
            index.forget(&reader, *run.start()..run.end() + 1)?;
        }
    }
    Ok(())
}
