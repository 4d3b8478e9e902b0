//! Legal holds: entries that must be kept, whatever their age, and the file that lists them.

use super::query::Query;
use crate::exchange_log::file_events::{HOLD_EVENT, RELEASE_EVENT};
use crate::exchange_log::{Entry, LogError, write_atomically};
use crate::hex::sha256;
use crate::registry::admin_event::canonical_json;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Maximum number of holds in force: each entry that may be pruned is compared with all of them.
pub const MAX_HOLDS: usize = 1_000;

/// Entries that must be kept, whatever their age, until the hold is released.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// Its number.
    pub id: u64,
    /// The reason: the number of a document or case.
    pub case: String,
    /// The person who placed it.
    pub by: String,
    /// When it was placed.
    pub since: i64,
    /// The entries that it holds.
    pub(super) query: Query,
}

/// Returns the number and the digest in the object of a hold's event; the digest is empty in events of earlier
/// versions.
pub(super) fn hold_of(object: &str) -> Option<(u64, &str)> {
    let id = object.strip_prefix("hold:")?.split(' ').next()?.parse().ok()?;
    Some((id, word(object, "sha256:")))
}

/// Returns the value of a name among the words of an object.
pub(super) fn word<'o>(object: &'o str, name: &str) -> &'o str {
    object.split(' ').find_map(|word| word.strip_prefix(name)).unwrap_or_default()
}

/// Removes null fields from a record, so that fields that later versions add do not change the digest.
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
    /// Returns the SHA-256 of its content, in hexadecimal.
    pub fn digest(&self) -> String {
        let text = canonical_json(&without_nulls(serde_json::to_value(self).unwrap_or_default()));
        sha256(text.as_bytes())
    }

    /// Returns the object of the event that places it: a later change of the file differs from it.
    pub fn object(&self) -> String {
        format!("hold:{} reason:{} sha256:{}", self.id, self.case, self.digest())
    }

    /// Returns the object of the event that releases it.
    pub fn released_object(&self) -> String {
        format!("hold:{} sha256:{}", self.id, self.digest())
    }
}

/// The holds of a data folder.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Holds {
    /// The number of the last one that was placed.
    pub(super) last: u64,
    /// Those in force.
    pub holds: Vec<Hold>,
}

fn holds_path(data: &Path) -> PathBuf {
    data.join("state").join("holds.json")
}

impl Holds {
    /// Reads them. A file that cannot be read stops all pruning.
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

    /// Places a hold on the entries that match a query and returns it; `None` if the maximum number is reached.
    pub fn add(&mut self, query: &Query, case: &str, by: &str) -> Option<&Hold> {
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

    /// Returns whether an entry records a hold in force, or the last one: without that entry, the file could not be
    /// compared with the log.
    pub(super) fn are_told_by(&self, entry: &Entry) -> bool {
        let id = || hold_of(&entry.object).map(|(id, _)| id);
        [HOLD_EVENT, RELEASE_EVENT].contains(&entry.event.as_str())
            && id().is_some_and(|id| id >= self.last || self.holds.iter().any(|hold| hold.id == id))
    }

    /// Releases a hold; returns false if there is none of this number.
    pub fn release(&mut self, id: u64) -> bool {
        let before = self.holds.len();
        self.holds.retain(|hold| hold.id != id);
        self.holds.len() < before
    }
}
