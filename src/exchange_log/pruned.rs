//! Which entry bundles were archived and deleted. Their hash tiles stay, so every proof about what they held still holds.

use super::tiles::split_words;
use super::{LogError, write_atomically};
use std::ops::RangeInclusive;
use std::path::Path;

/// The file, beside the checkpoint: a line for each run of bundles, first and last.
pub const PRUNED_FILE: &str = "pruned";

/// Runs of pruned bundles, in order and apart from each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned(Vec<RangeInclusive<u64>>);

impl Pruned {
    /// Reads the file of a log; a log without one has pruned nothing.
    pub fn read(tiles: &Path) -> Result<Self, LogError> {
        let path = tiles.join(PRUNED_FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text).ok_or_else(|| LogError::corrupt(&path, 0, "is no list of bundles")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Pruned::default()),
            Err(error) => Err(LogError::io(&path, &error)),
        }
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

    /// Writes the file.
    pub fn write(&self, tiles: &Path) -> Result<(), LogError> {
        let lines: String = self.0.iter().map(|run| format!("{} {}\n", run.start(), run.end())).collect();
        write_atomically(&tiles.join(PRUNED_FILE), lines.as_bytes())
    }

    /// Whether a bundle was pruned.
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

    /// The runs, in order.
    pub fn runs(&self) -> &[RangeInclusive<u64>] {
        &self.0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_merged_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut pruned = Pruned::default();
        for run in [5..=7, 0..=1, 2..=2, 9..=9] {
            pruned.add(run);
        }
        assert_eq!(pruned.runs(), [0..=2, 5..=7, 9..=9]);
        pruned.write(folder.path()).unwrap();
        assert_eq!(Pruned::read(folder.path()).unwrap(), pruned);
        assert!(pruned.has(6) && !pruned.has(8));
        for bad in ["x 1", "3 2", "1", "1 2 3"] {
            assert!(Pruned::parse(bad).is_none(), "{bad}");
        }
    }
}
