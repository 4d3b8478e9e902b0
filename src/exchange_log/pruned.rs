//! The entry bundles that were archived and deleted. Their hash tiles stay, so every proof about their content remains
//! valid.

use super::disk::{Disk, read_text, remove, write_atomically};
use super::tiles::{bundle_path, split_words};
use super::tree::TILE;
use super::{Entry, LogError, LogPaths, crash_point};
use std::ops::RangeInclusive;
use std::path::Path;

/// The file, beside the checkpoint: a line for each run of bundles, first and last.
pub const PRUNED_FILE: &str = "pruned";
/// The admin event of pruned bundles; its object is `bundles:first-last`.
pub const PRUNE_EVENT: &str = "log.prune";

/// Runs of pruned bundles, in order and apart from each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned(Vec<RangeInclusive<u64>>);

impl Pruned {
    /// Reads the file of a log; a log without one has pruned nothing.
    ///
    /// # Errors
    /// [`LogError::Io`] if it cannot be read; [`LogError::Corrupt`] if a line is not a run of bundles.
    pub fn read(disk: &dyn Disk, tiles: &Path) -> Result<Self, LogError> {
        let path = tiles.join(PRUNED_FILE);
        let parse =
            |text: String| Self::parse(&text).ok_or_else(|| LogError::corrupt(&path, 0, "is no list of bundles"));
        read_text(disk, &path)?.map_or(Ok(Pruned::default()), parse)
    }

    /// Reads the text of the file.
    pub fn parse(text: &str) -> Option<Self> {
        let mut all = Pruned::default();
        for line in text.lines() {
            let [first, last] = split_words(line)?;
            let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
            if first > last {
                return None;
            }
            all.add(first..=last);
        }
        Some(all)
    }

    /// Writes the file atomically.
    ///
    /// # Errors
    /// [`LogError::Io`] if it cannot be written.
    pub fn write(&self, disk: &dyn Disk, tiles: &Path) -> Result<(), LogError> {
        write_atomically(disk, &tiles.join(PRUNED_FILE), self.text().as_bytes())
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        self.0.iter().map(|run| format!("{} {}\n", run.start(), run.end())).collect()
    }

    /// Returns whether a bundle was pruned.
    pub fn has(&self, bundle: u64) -> bool {
        self.0.iter().any(|run| run.contains(&bundle))
    }

    /// Adds a run.
    pub fn add(&mut self, run: RangeInclusive<u64>) {
        self.0.push(run);
        self.0.sort_by_key(|run| *run.start());
        let mut merged: Vec<RangeInclusive<u64>> = Vec::with_capacity(self.0.len());
        for run in self.0.drain(..) {
            match merged.last_mut() {
                Some(last) if *run.start() <= last.end().saturating_add(1) => {
                    *last = *last.start()..=*last.end().max(run.end());
                }
                _ => merged.push(run),
            }
        }
        self.0 = merged;
    }

    /// Adds the run that an entry says was pruned; returns whether it is such an entry. A refused one pruned nothing, and an
    /// object of another form names no bundles.
    pub fn add_event(&mut self, entry: &Entry) -> bool {
        if entry.event != PRUNE_EVENT || entry.status != 0 {
            return false;
        }
        let run = entry.object.strip_prefix("bundles:").and_then(|run| run.split_once('-'));
        let run = run.and_then(|(first, last)| Some(first.parse::<u64>().ok()?..=last.parse::<u64>().ok()?));
        if let Some(run) = run.filter(|run| run.start() <= run.end()) {
            self.add(run);
        }
        true
    }

    /// Returns how many of the first `bundles` bundles were pruned.
    pub fn bundles_below(&self, bundles: u64) -> u64 {
        self.0.iter().map(|run| bundles.min(run.end().saturating_add(1)).saturating_sub(*run.start())).sum()
    }

    /// The runs, in order.
    pub fn runs(&self) -> &[RangeInclusive<u64>] {
        &self.0
    }
}

/// Lists bundles as pruned, then deletes them. They are archived, and an entry under the log's checkpoint names them.
///
/// # Errors
/// [`LogError::Io`] if the list cannot be written or a bundle not deleted; the list then names bundles that still
/// exist, which is harmless.
pub fn prune(paths: &LogPaths, runs: &[RangeInclusive<u64>]) -> Result<(), LogError> {
    let mut pruned = Pruned::read(&*paths.disk, &paths.tiles)?;
    runs.iter().cloned().for_each(|run| pruned.add(run));
    pruned.write(&*paths.disk, &paths.tiles)?;
    crash_point("prune.listed");
    for bundle in runs.iter().cloned().flatten() {
        if remove(&*paths.disk, &bundle_path(&paths.tiles, bundle, TILE))? {
            crash_point("prune.deleted");
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::exchange_log::disk::LocalDisk;

    #[test]
    fn runs_are_merged_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut pruned = Pruned::default();
        for run in [5..=7, 0..=1, 2..=2, 9..=9] {
            pruned.add(run);
        }
        assert_eq!(pruned.runs(), [0..=2, 5..=7, 9..=9]);
        pruned.write(&LocalDisk, folder.path()).unwrap();
        assert_eq!(Pruned::read(&LocalDisk, folder.path()).unwrap(), pruned);
        assert!(pruned.has(6) && !pruned.has(8));
        for bad in ["x 1", "3 2", "1", "1 2 3"] {
            assert!(Pruned::parse(bad).is_none(), "{bad}");
        }
    }
}
