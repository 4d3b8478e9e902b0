//! The invariants of the log: docs/exchange-log.md, "What is promised", by number.

use crate::exchange_log::chain::check as check_chain;
use crate::exchange_log::checkpoint::LogSigner;
use crate::exchange_log::reader::LogReader;
use crate::exchange_log::tiles::{bundle_bytes, decode_bundle};
use crate::exchange_log::tree::{Edge, TILE, leaf_hash};
use crate::exchange_log::verify::{Against, LogFolder, Report, verify};
use crate::exchange_log::{Entry, LogError, LogPaths, signed, stray};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A violation: the invariant's number, and the observation.
pub type Violation = String;

/// Everything that the log has promised.
#[derive(Debug, Default)]
pub struct Model {
    /// By index: acknowledged entries, and those read after a crash.
    pub acknowledged: Vec<Vec<u8>>,
    /// All entries that were ever submitted to the log.
    pub attempted: BTreeSet<Vec<u8>>,
    /// By size: the root of every signed tree, in base64.
    pub signed: BTreeMap<u64, String>,
    /// The tree of the compared entries.
    edge: Edge,
    /// Bundles that may be pruned.
    pub pruned: BTreeSet<u64>,
}

impl Model {
    /// A batch was acknowledged.
    pub fn acknowledge(&mut self, first: u64, batch: Vec<Vec<u8>>) -> Result<(), Violation> {
        if first != self.acknowledged.len() as u64 {
            let there = self.acknowledged.len();
            return Err(format!("2: index {first} was given, where {there} entries are acknowledged"));
        }
        let mut latest = self.newest_us();
        for entry in &batch {
            if time_us(entry) < latest {
                return Err(format!("13: time goes back behind entry {first}"));
            }
            latest = time_us(entry);
        }
        self.acknowledged.extend(batch);
        Ok(())
    }

    /// Time of the newest entry.
    pub fn newest_us(&self) -> i64 {
        self.acknowledged.last().map_or(0, |entry| time_us(entry))
    }

    /// A checkpoint was signed.
    pub fn sign(&mut self, note: &[u8]) -> Result<(), Violation> {
        let text = String::from_utf8_lossy(note);
        let mut lines = text.lines().skip(1);
        let size = lines.next().and_then(|size| size.parse().ok()).ok_or("3: a note without a size was signed")?;
        let root = lines.next().unwrap_or_default();
        if self.signed.last_key_value().is_some_and(|(last, _)| size < *last) {
            return Err(format!("3: a tree of {size} entries was signed after a larger one"));
        }
        match self.signed.insert(size, root.to_owned()) {
            Some(other) if other != root => Err(format!("3: two trees of {size} entries were signed")),
            _ => Ok(()),
        }
    }

    /// The entries that a reader finds, pruned ones from the archive.
    fn entries(&self, paths: &LogPaths, archive: &Path) -> Result<Vec<Vec<u8>>, Found> {
        let reader = LogReader::open_at(paths)?;
        let mut all = Vec::with_capacity(self.acknowledged.len());
        for bundle in 0..reader.sealed().div_ceil(TILE as u64) {
            match reader.bundle(bundle)? {
                Some(entries) => all.extend(entries),
                None if !self.pruned.contains(&bundle) => {
                    return Err(Found::Wrong(format!("1: bundle {bundle} is said to be pruned, and never was")));
                }
                None => {
                    let bytes = bundle_bytes(&*paths.disk, archive, bundle, TILE)?;
                    all.extend(decode_bundle(&bytes, TILE, archive)?.into_iter().map(<[u8]>::to_vec));
                }
            }
        }
        all.extend_from_slice(reader.tail());
        Ok(all)
    }

    /// Compares the log with the promises; further entries are promised from now on.
    pub fn check(&mut self, paths: &LogPaths, archive: &Path) -> Result<(), Found> {
        let found = self.entries(paths, archive)?;
        let promised = self.acknowledged.len();
        if found.len() < promised {
            return Err(Found::Wrong(format!("1: {} entries are there, {promised} were acknowledged", found.len())));
        }
        if let Some(at) = found.iter().zip(&self.acknowledged).position(|(found, promised)| found != promised) {
            return Err(Found::Wrong(format!("1: entry {at} is not the one that was acknowledged")));
        }
        if let Some(at) = (promised..found.len()).find(|at| !self.attempted.contains(&found[*at])) {
            return Err(Found::Wrong(format!("4: entry {at} was never written by anybody")));
        }
        let signed = self.signed.range(self.edge.size.max(1)..).map(|(size, root)| (*size, root));
        for (size, root) in signed.collect::<Vec<_>>() {
            if size > found.len() as u64 {
                return Err(Found::Wrong(format!("3: {size} entries were signed, {} are there", found.len())));
            }
            let more = &found[self.edge.size as usize..size as usize];
            more.iter().for_each(|entry| drop(self.edge.push(leaf_hash(entry))));
            if *root != STANDARD.encode(self.edge.root()) {
                return Err(Found::Wrong(format!("3: what was signed of {size} entries is no beginning")));
            }
        }
        let new = &found[promised.saturating_sub(1)..];
        if let Some(at) = new.windows(2).position(|pair| time_us(&pair[1]) < time_us(&pair[0])) {
            return Err(Found::Wrong(format!("13: time goes back behind entry {}", promised.saturating_sub(1) + at)));
        }
        self.acknowledged = found;
        Ok(())
    }
}

impl Model {
    /// Whether the log is a prefix of the acknowledged entries, and all missing ones came after the last signed tree.
    pub fn lacks_only_an_unsigned_end(&self, paths: &LogPaths, archive: &Path) -> bool {
        let Ok(found) = self.entries(paths, archive) else { return false };
        let signed = self.signed.last_key_value().map_or(0, |(size, _)| *size);
        found.len() as u64 >= signed && self.acknowledged.starts_with(&found)
    }
}

fn time_us(entry: &[u8]) -> i64 {
    Entry::from_bytes(entry).map_or(0, |entry| entry.time_us)
}

/// Why a check ended: the log reports it itself, or not.
#[derive(Debug)]
pub enum Found {
    /// The log reported it.
    Told(LogError),
    /// Nothing reported it.
    Wrong(Violation),
}

impl From<LogError> for Found {
    fn from(error: LogError) -> Self {
        Found::Told(error)
    }
}

/// `audit verify` on a data folder, as an auditor with the log's key runs it.
pub fn audit(paths: &LogPaths, archive: &Path, signer: &LogSigner) -> Result<Report, LogError> {
    let report = verify(&LogFolder::on(paths, Some(archive)), &signer.verifier(), Against::default(), |_, _| {})?;
    stray::check(&LogReader::open_at(paths)?)?;
    signed::check(paths, &signer.verifier())?;
    check_chain(paths, report.sealed, Some(&signer.chain_key()))?;
    Ok(report)
}
