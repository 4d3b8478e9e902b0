//! A file with what was in force when the gateway last ran: the CAs below an anchor under which clients connected, and
//! of each CA the age of its lists. A restart must not undo a revocation silently: a list that is older than its
//! predecessor, or is missing, is a fault until a newer one is there.

use super::authority::Authority;
use super::files::CrlSources;
use super::list::List;
use super::refused::plain;
use crate::hex::sha256;
use crate::keyfile::Vault;
use crate::registry::AdminEventKey;
use crate::registry::state_file::{self, StateFileError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The age of the list of a scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    scope: String,
    number: String,
    this_update: i64,
}

impl Mark {
    fn of(list: &List) -> Self {
        Mark { scope: list.scope(), number: list.number_text(), this_update: list.this_update }
    }

    /// Returns its age for comparison: by number, then by time.
    fn age(&self) -> (usize, &str, i64) {
        (self.number.len(), &self.number, self.this_update)
    }
}

/// A CA in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RecordedLists {
    name: String,
    /// Of a CA below an anchor: its certificate, DER in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    lists: Vec<Mark>,
}

/// The consequence of a file that is ignored.
const UNKNOWN: &str = "nobody knows whether revocation lists went back";

/// By SHA-256 of name and key, in hexadecimal.
type Marks = BTreeMap<String, RecordedLists>;

#[derive(Debug, Default)]
struct CrlRecordState {
    marks: Marks,
    /// The CAs below an anchor under which clients connected.
    below: BTreeMap<String, Arc<Authority>>,
    /// The content of the file.
    saved: Marks,
    /// SHA-256 of the file at the last read or write; `None` if there is none, or it is not the gateway's.
    digest: Option<String>,
    /// Whether the file was compared with the log: until then it is not overwritten.
    is_compared: bool,
    /// The reason that the file is ignored.
    unreadable: Option<String>,
}

/// The record. All TLS states that a process loads, one after the other, share one.
#[derive(Debug, Default)]
pub(super) struct CrlRecord {
    file: PathBuf,
    registry: PathBuf,
    vault: Vault,
    state: Mutex<CrlRecordState>,
}

/// Returns the key of a CA in the record: SHA-256 of name and key, in hexadecimal.
pub(super) fn key(ca: &Authority) -> String {
    sha256(ca.identity())
}

/// Returns the CAs below anchors in a file's content.
fn below(marks: &Marks) -> Result<BTreeMap<String, Arc<Authority>>, String> {
    let mut below = BTreeMap::new();
    for certificate in marks.values().filter_map(|one| one.certificate.as_ref()) {
        let der = STANDARD.decode(certificate).map_err(|error| error.to_string())?;
        let ca = Authority::of(der.into())?;
        below.insert(key(&ca), Arc::new(ca));
    }
    Ok(below)
}

impl CrlRecord {
    /// Reads the file; without a file, nothing was in force before. A file that this gateway did not write is ignored:
    /// somebody who restores an older list could have written it.
    pub(super) fn load(sources: &CrlSources) -> Self {
        let CrlSources { record: file, registry, vault, .. } = sources;
        let marks = |text: String| -> Result<Marks, String> {
            let key = AdminEventKey::read(registry, vault).map_err(|error| error.to_string())?;
            state_file::decode(file, key.as_ref(), &text).map_err(|error: StateFileError| error.to_string())
        };
        let read = match std::fs::read_to_string(file) {
            Ok(text) => {
                let digest = sha256(text.as_bytes());
                marks(text).and_then(|marks| Ok((below(&marks)?, marks, Some(digest))))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Default::default()),
            Err(error) => Err(error.to_string()),
        };
        let state = match read {
            Ok((below, marks, digest)) => {
                CrlRecordState { below, saved: marks.clone(), marks, digest, ..CrlRecordState::default() }
            }
            Err(error) => {
                let unreadable = Some(format!("cannot be read, so that {UNKNOWN}: {error}"));
                CrlRecordState { unreadable, ..CrlRecordState::default() }
            }
        };
        let (file, registry, vault) = (file.clone(), registry.clone(), vault.clone());
        CrlRecord { file, registry, vault, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, CrlRecordState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the CAs below an anchor under which clients connected.
    pub(super) fn below(&self) -> Vec<Arc<Authority>> {
        self.state().below.values().cloned().collect()
    }

    /// Returns their number.
    pub(super) fn len(&self) -> usize {
        self.state().below.len()
    }

    /// Records that a client connected under a CA below an anchor.
    pub(super) fn note(&self, ca: &Authority) {
        let key = key(ca);
        let mut state = self.state();
        if !state.below.contains_key(&key)
            && let Ok(ca) = Authority::of(ca.der.clone())
        {
            state.below.insert(key, Arc::new(ca));
        }
    }

    /// Drops CAs below an anchor that no longer are.
    pub(super) fn keep_below(&self, stays: impl Fn(&Authority) -> bool) {
        let gone: Vec<_> = self.below().into_iter().filter(|ca| !stays(ca)).collect();
        let mut state = self.state();
        for key in gone.iter().map(|ca| key(ca)) {
            state.below.remove(&key);
            state.marks.remove(&key);
        }
    }

    /// Returns which of a CA's lists are older than before, or missing.
    pub(super) fn setbacks(&self, ca: &Authority, lists: &[Arc<List>]) -> Vec<String> {
        let state = self.state();
        let marks = state.marks.get(&key(ca)).map(|one| one.lists.as_slice()).unwrap_or_default();
        let now: Vec<Mark> = lists.iter().map(|list| Mark::of(list)).collect();
        let name = plain(&ca.name, 200);
        let setback = |last: &Mark| {
            let what = match now.iter().find(|mark| mark.scope == last.scope) {
                Some(mark) if mark.age() < last.age() => format!("(number {}) is older than", mark.number),
                Some(_) => return None,
                None if now.is_empty() => "is missing:".to_owned(),
                None => "covers other certificates (issuing distribution point) than".to_owned(),
            };
            Some(format!(
                "the revocation list of {name} {what} the one that was in force before (number {}): bring the newer one, or \
                 remove {} if the CA means it",
                last.number,
                self.file.display()
            ))
        };
        marks.iter().filter_map(setback).collect()
    }

    /// Returns the fault of the file.
    pub(super) fn fault(&self) -> Option<String> {
        let reason = self.state().unreadable.clone()?;
        Some(format!("{}: {reason}", self.file.display()))
    }

    /// Compares the file, as it was read, with the log's records of it, once: `is_older` returns whether a digest is
    /// one of an earlier state of the file. Such a file is the gateway's own, and would let revocation lists go back to
    /// their state at that time.
    pub(super) fn compare(&self, is_older: impl Fn(&str) -> bool) {
        let mut state = self.state();
        if std::mem::replace(&mut state.is_compared, true) {
            return;
        }
        if state.digest.as_deref().is_some_and(is_older) {
            state.unreadable = Some(format!(
                "is an older one, and the exchange log names a newer one, so that {UNKNOWN}: put the newer one back, or compare \
                 the lists with what their CAs publish, then remove it"
            ));
            state.digest = None;
        }
    }

    /// Records what is in force of a CA.
    pub(super) fn take(&self, ca: &Authority, lists: &[Arc<List>]) {
        let (key, mut state) = (key(ca), self.state());
        let certificate = state.below.get(&key).map(|ca| STANDARD.encode(&ca.der));
        let lists = lists.iter().map(|list| Mark::of(list)).collect();
        state.marks.insert(key, RecordedLists { name: ca.name.clone(), certificate, lists });
    }

    /// Drops CAs that are neither one of these nor below an anchor.
    pub(super) fn keep(&self, anchors: &[Arc<Authority>]) {
        let anchors: Vec<String> = anchors.iter().map(|ca| key(ca)).collect();
        let mut state = self.state();
        let CrlRecordState { marks, below, .. } = &mut *state;
        marks.retain(|key, _| below.contains_key(key) || anchors.contains(key));
    }

    /// Starts again if the file was removed.
    pub(super) fn follow_removal(&self) {
        let mut state = self.state();
        let is_known = state.unreadable.is_some() || !state.saved.is_empty();
        if state.is_compared && is_known && !self.file.exists() {
            tracing::warn!(file = %self.file.display(), "removed: the revocation lists in force now are the first");
            let below = std::mem::take(&mut state.below);
            *state = CrlRecordState { below, is_compared: true, ..CrlRecordState::default() };
        }
    }

    /// Writes the file if its content has changed; returns the SHA-256 of the content. A file that is ignored is not
    /// overwritten, nor is one that was not compared with the log yet.
    pub(super) fn save(&self) -> std::io::Result<Option<(PathBuf, String)>> {
        let marks = {
            let state = self.state();
            if !state.is_compared || state.unreadable.is_some() || state.marks == state.saved {
                let digest = state.digest.clone().filter(|_| state.is_compared);
                return Ok(digest.map(|digest| (self.file.clone(), digest)));
            }
            state.marks.clone()
        };
        let key = AdminEventKey::read(&self.registry, &self.vault).map_err(std::io::Error::other)?;
        let key = key.ok_or_else(|| std::io::Error::other("there is no keys/acts.key"))?;
        let text = state_file::encode(&self.file, &key, &marks).map_err(std::io::Error::other)?;
        crate::keyfile::write_private(&self.file, text.as_bytes())?;
        let digest = sha256(text.as_bytes());
        let mut state = self.state();
        (state.saved, state.digest) = (marks, Some(digest.clone()));
        Ok(Some((self.file.clone(), digest)))
    }
}
