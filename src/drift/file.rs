//! The saved drift: `state/drift.json` in the data folder, written atomically, with a code of `keys/acts.key`.

use super::{FORGOTTEN_AFTER_S, MAX_ALL, MAX_PATHS};
use crate::contract::Operation;
use crate::exchange_log::{LogError, write_atomically};
use crate::keyfile::private_folder;
use crate::registry::AdminEventKey;
use crate::registry::state_file;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Largest file that is read, in bytes.
const MAX_BYTES: u64 = 8 << 20;

/// The reason that the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be read, or its folder not be made.
    #[error("{0}: {1}")]
    Io(PathBuf, std::io::Error),
    /// It is not such a file.
    #[error("{0}: is no record of drift: {1}")]
    Malformed(PathBuf, String),
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] LogError),
}

/// One path, as it is saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathDrift {
    /// `added`, `missing`, `retyped`, `unknown_code` or `dropped`.
    pub kind: String,
    /// Path at the source.
    pub path: String,
    /// The contract's field, where it concerns one.
    #[serde(default)]
    pub field: String,
    /// The type that the contract describes, if relevant.
    #[serde(default)]
    pub described: String,
    /// The type when it was first seen.
    #[serde(default)]
    pub found: String,
    /// When it was first seen, Unix time in seconds.
    pub first_s: i64,
    /// When it was last seen.
    pub last_s: i64,
    /// Number of responses.
    #[serde(rename = "answers")]
    pub responses: u64,
}

impl PathDrift {
    /// Returns its label in metrics: the contract's field, or the path at the source.
    pub fn field_or_path(&self) -> &str {
        if self.field.is_empty() { &self.path } else { &self.field }
    }
}

/// An operation's contract and protocol, for reports.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OperationInfo {
    /// The source's id.
    pub source: String,
    /// The version of its contract.
    pub contract: String,
    /// The protocol, as shown to people.
    pub protocol: String,
}

impl OperationInfo {
    /// Returns the data of an operation.
    pub fn of(operation: &Operation) -> Self {
        OperationInfo {
            source: operation.source.id.clone(),
            contract: operation.source.version.clone(),
            protocol: operation.binding.protocol().to_owned(),
        }
    }
}

/// The drift of one operation, as it is saved.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OperationDrift {
    /// What the operation is.
    #[serde(flatten)]
    pub about: OperationInfo,
    /// By kind and path.
    pub paths: Vec<PathDrift>,
    /// Responses with paths that are not kept, because there are too many.
    #[serde(default)]
    pub beyond: u64,
}

impl OperationDrift {
    /// Makes an empty one; without `about`, the file's data of the operation stays.
    pub fn new(about: Option<OperationInfo>) -> Self {
        OperationDrift { about: about.unwrap_or_default(), ..OperationDrift::default() }
    }

    fn add(&mut self, more: &OperationDrift, room: &mut usize) {
        if !more.about.source.is_empty() {
            self.about.clone_from(&more.about);
        }
        self.beyond = self.beyond.saturating_add(more.beyond);
        for one in &more.paths {
            let known = self.paths.iter().position(|known| known.kind == one.kind && known.path == one.path);
            match known {
                Some(known) => {
                    let known = &mut self.paths[known];
                    known.responses = known.responses.saturating_add(one.responses);
                    known.last_s = known.last_s.max(one.last_s);
                }
                None if self.paths.len() < MAX_PATHS && *room > 0 => {
                    *room -= 1;
                    self.paths.push(one.clone());
                }
                None => self.beyond = self.beyond.saturating_add(one.responses),
            }
        }
        self.paths.sort_by(|one, other| (&one.kind, &one.path).cmp(&(&other.kind, &other.path)));
    }
}

/// The complete file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SavedDrift {
    /// By the operations' full names.
    pub operations: BTreeMap<String, OperationDrift>,
}

fn path(data: &Path) -> PathBuf {
    data.join("state").join("drift.json")
}

/// Reads a data folder's file; empty if there is none.
///
/// # Errors
/// It cannot be read, is another file, or was not written with this key.
pub fn load(data: &Path, key: Option<&AdminEventKey>) -> Result<SavedDrift, StateError> {
    let path = path(data);
    let size = match std::fs::metadata(&path) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(SavedDrift::default()),
        Err(error) => return Err(StateError::Io(path, error)),
    };
    if size > MAX_BYTES {
        return Err(StateError::Malformed(path, format!("it has {size} bytes")));
    }
    let text = std::fs::read_to_string(&path).map_err(|error| StateError::Io(path.clone(), error))?;
    state_file::decode(&path, key, &text).map_err(|error| StateError::Malformed(path, error.to_string()))
}

/// Adds the counts to the file. Paths that were not seen for long are removed.
///
/// # Errors
/// It cannot be written. A file that cannot be read is started again.
pub(super) fn add(
    data: &Path,
    key: Option<&AdminEventKey>,
    counted: &[(String, OperationDrift)],
    now_s: i64,
) -> Result<(), StateError> {
    let mut state = load(data, key).unwrap_or_default();
    for kept in state.operations.values_mut() {
        kept.paths.retain(|one| one.last_s + FORGOTTEN_AFTER_S > now_s);
    }
    state.operations.retain(|_, kept| !kept.paths.is_empty());
    let known: usize = state.operations.values().map(|kept| kept.paths.len()).sum();
    let mut room = MAX_ALL.saturating_sub(known);
    for (operation, more) in counted {
        state.operations.entry(operation.clone()).or_default().add(more, &mut room);
    }
    let path = path(data);
    let folder = data.join("state");
    private_folder(&folder).map_err(|error| StateError::Io(folder, error))?;
    let vouch = |key| state_file::encode(&path, key, &state);
    let text = key.ok_or(state_file::StateFileError::NoKey).and_then(vouch);
    let text = text.map_err(|error| StateError::Malformed(path.clone(), error.to_string()))?;
    Ok(write_atomically(&path, text.as_bytes())?)
}
