//! Administrative entries of the log in order, without decoding the exchanges between them; and the last event among
//! them.

use super::AuditError;
use crate::exchange_log::reader::LogReader;
use crate::exchange_log::tree::TILE;
use crate::exchange_log::{Entry, Kind, LogError, write_atomically};
use crate::registry::AdminEventKey;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Returns the kind of an entry, from its first bytes: most entries are exchanges, and are not decoded.
fn kind(bytes: &[u8]) -> Option<u8> {
    // Field 1 (the version, so far always below 128), then field 2.
    match bytes {
        [0x08, version, 0x10, kind, ..] if *version < 0x80 => Some(*kind),
        _ => None,
    }
}

/// Visits the administrative entries of a log from `next` on, oldest first, and moves `next` behind them. Calls `progress` with how many
/// entries were read, and of how many; where it returns false, the rest is left for the next time.
///
/// # Errors
/// The log cannot be read.
pub fn administrative(
    reader: &LogReader,
    next: &mut u64,
    mut progress: impl FnMut(u64, u64) -> bool,
    mut visit: impl FnMut(u64, Entry),
) -> Result<(), AuditError> {
    let mut take = |index: u64, bytes: &[u8]| {
        if kind(bytes) == Some(Kind::Admin as u8)
            && let Some(entry) = Entry::from_bytes(bytes)
        {
            visit(index, entry);
        }
    };
    while *next < reader.sealed() {
        let bundle = *next / TILE as u64;
        let first = bundle * TILE as u64;
        if let Some(entries) = reader.bundle(bundle)? {
            let skip = usize::try_from(*next - first).unwrap_or_default();
            for (place, bytes) in entries.iter().enumerate().skip(skip) {
                take(first + place as u64, bytes);
            }
        }
        *next = (first + TILE as u64).min(reader.sealed());
        if !progress(*next, reader.size()) {
            return Ok(());
        }
    }
    let behind = usize::try_from(*next - reader.sealed()).unwrap_or(usize::MAX);
    for bytes in reader.tail().iter().skip(behind) {
        take(*next, bytes);
        *next += 1;
    }
    Ok(())
}

fn intents_path(data: &Path) -> PathBuf {
    data.join("state").join("intents-ended")
}

fn intents_text(key: &AdminEventKey, until: u64) -> String {
    format!("{until} {}\n", key.code_of_text(&format!("intents below {until} have their end")))
}

/// Returns the index below which every intent has its end. `None` if it was not saved, or not by this gateway: a larger index by anyone
/// else would leave writes without an end. The file may be deleted: then the complete log is searched once more.
pub fn intents_ended(data: &Path, key: &AdminEventKey) -> Option<u64> {
    let there = std::fs::read_to_string(intents_path(data)).ok()?;
    let until = there.split(' ').next()?.parse().ok()?;
    (there == intents_text(key, until)).then_some(until)
}

/// Saves that every intent below an index has its end.
///
/// # Errors
/// The file cannot be written.
pub fn keep_intents_ended(data: &Path, key: &AdminEventKey, until: u64) -> Result<(), LogError> {
    write_atomically(&intents_path(data), intents_text(key, until).as_bytes())
}

/// Lists files below `state` that this gateway did not write: they are ignored.
pub fn foreign(data: &Path, key: &AdminEventKey) -> Vec<PathBuf> {
    let mut foreign = Vec::new();
    if intents_path(data).exists() && intents_ended(data, key).is_none() {
        foreign.push(intents_path(data));
    }
    if let Ok(bytes) = std::fs::read(path(data)) {
        let kept = serde_json::from_slice::<Kept>(&bytes).ok().filter(|kept| {
            key.is_code_of_text(&kept.text(), &kept.code) && serde_json::to_vec(kept).is_ok_and(|own| own == bytes)
        });
        foreign.extend(kept.is_none().then(|| path(data)));
    }
    foreign
}

/// The last event in the log, by its number in the sequence of events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LastEvent {
    /// Its number; 0: there is none.
    pub sequence: u64,
    /// Its id.
    pub id: [u8; 16],
}

/// The saved last event, so that not every start searches the complete log. The gateway authenticates it: an older one
/// that is put back costs time, and a forged one is ignored.
#[derive(Serialize, Deserialize)]
struct Kept {
    sequence: u64,
    id: String,
    /// Number of entries that were searched.
    entries: u64,
    code: String,
}

impl Kept {
    fn text(&self) -> String {
        format!("last act {} {} of {} entries", self.sequence, self.id, self.entries)
    }
}

fn path(data: &Path) -> PathBuf {
    data.join("state").join("acts.json")
}

impl LastEvent {
    /// Finds it in the log of a data folder, while nothing appends to it. `None` if `go_on` returns false.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn find(data: &Path, key: &AdminEventKey, mut go_on: impl FnMut() -> bool) -> Result<Option<Self>, AuditError> {
        let kept = std::fs::read(path(data)).ok().and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
        let kept = kept.filter(|kept| key.is_code_of_text(&kept.text(), &kept.code));
        let (mut last, mut next) = (LastEvent::default(), 0);
        if let Some(kept) = kept
            && kept.entries <= LogReader::open(data)?.size()
            && let Some(id) = crate::hex::unhex(&kept.id).and_then(|id| id.try_into().ok())
        {
            (last, next) = (LastEvent { sequence: kept.sequence, id }, kept.entries);
        }
        let mut stopped = false;
        let progress = |_, _| {
            stopped = !go_on();
            !stopped
        };
        administrative(&LogReader::open(data)?, &mut next, progress, |_, entry| last.see(&entry))?;
        Ok((!stopped).then_some(last))
    }

    fn see(&mut self, entry: &Entry) {
        if entry.event_sequence > self.sequence
            && let Ok(id) = entry.exchange_id.as_slice().try_into()
        {
            *self = LastEvent { sequence: entry.event_sequence, id };
        }
    }

    /// Saves that it is the last event among this many entries.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep(&self, data: &Path, entries: u64, key: &AdminEventKey) -> Result<(), AuditError> {
        let (id, code) = (crate::hex::hex(&self.id), String::new());
        let mut kept = Kept { sequence: self.sequence, id, entries, code };
        kept.code = key.code_of_text(&kept.text());
        let bytes =
            serde_json::to_vec(&kept).map_err(|error| crate::registry::RegistryError::Store(error.to_string()))?;
        Ok(write_atomically(&path(data), &bytes)?)
    }
}
