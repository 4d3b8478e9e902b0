//! The alarm that a witness has seen another history of the log than this machine has. It is stored on the disk, and
//! stays in readiness, metrics and every `audit` command until a person acknowledges it with a reason.

use crate::exchange_log::{LogError, remove_file, write_atomically};
use crate::hex::sha256;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// An observation of a witness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkAlarm {
    /// The witness, by its name in the policy.
    pub witness: String,
    /// When it was detected, in Unix seconds.
    pub time: i64,
    /// The witness's statement.
    pub detail: String,
    /// The checkpoint that proves it: signed by the log's key, and not of the tree that is here. Without it, there is
    /// only the witness's claim.
    pub evidence: Option<String>,
}

impl std::fmt::Display for ForkAlarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ForkAlarm { witness, detail, evidence, .. } = self;
        let proof =
            if evidence.is_some() { "proved by a checkpoint with the log's signature" } else { "by its word alone" };
        let since = jiff::Timestamp::from_second(self.time).unwrap_or_default();
        write!(f, "FORK: since {since}, witness {witness} has another history of the exchange log ({proof}): {detail}")
    }
}

impl ForkAlarm {
    /// Returns the id for its acknowledgement: another alarm has another id.
    pub fn id(&self) -> String {
        format!("fork-{}-{}", self.witness, self.time)
    }
}

/// Largest alarm file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

fn file(data: &Path) -> PathBuf {
    data.join("state/fork-alarm.json")
}

/// Returns the alarm that is not acknowledged yet; `None` if there is none. An alarm that cannot be read is still an
/// alarm.
pub fn read(data: &Path) -> Option<ForkAlarm> {
    let path = file(data);
    let size = match std::fs::metadata(&path) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(_) => u64::MAX,
    };
    let text = if size > MAX_FILE { None } else { std::fs::read(&path).ok() };
    let unreadable = || ForkAlarm {
        witness: "unknown".into(),
        time: 0,
        detail: format!("{} cannot be read", path.display()),
        evidence: None,
    };
    Some(text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_else(unreadable))
}

/// Returns the SHA-256 of the alarm's file, in hexadecimal, as the event
/// [`FORK_EVENT`](crate::exchange_log::file_events::FORK_EVENT) names it; `None` if there is no file.
///
/// # Errors
/// It cannot be read, or is larger than any that was written.
pub fn digest_of_file(data: &Path) -> Result<Option<String>, LogError> {
    let path = file(data);
    match std::fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Ok(found) if found.len() > MAX_FILE => Err(LogError::corrupt(&path, MAX_FILE, "is larger than an alarm")),
        _ => std::fs::read(&path).map(|bytes| Some(sha256(&bytes))).map_err(|error| LogError::io(&path, &error)),
    }
}

/// Raises an alarm. An existing one stays unchanged, unless only the new one has evidence. Returns the object of the
/// event that records it in the log; `None` if nothing changed.
///
/// # Errors
/// It cannot be written.
pub fn raise(data: &Path, alarm: &ForkAlarm) -> Result<Option<String>, LogError> {
    let path = file(data);
    if read(data).is_some_and(|standing| standing.evidence.is_some() || alarm.evidence.is_none()) {
        return Ok(None);
    }
    let text = serde_json::to_vec_pretty(alarm).map_err(|error| LogError::corrupt(&path, 0, error.to_string()))?;
    if let Some(folder) = path.parent() {
        crate::exchange_log::make_folder(folder)?;
    }
    write_atomically(&path, &text)?;
    Ok(Some(format!("alarm:{} sha256:{}", alarm.id(), sha256(&text))))
}

/// Removes an alarm that a person has acknowledged.
///
/// # Errors
/// Its file cannot be removed.
pub fn clear(data: &Path) -> Result<(), LogError> {
    remove_file(&file(data)).map(|_| ())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn w_an_alarm_stays_until_it_is_cleared_and_only_evidence_replaces_it() {
        let data = tempfile::tempdir().unwrap();
        let alarm = |witness: &str, evidence: Option<&str>| ForkAlarm {
            witness: witness.into(),
            time: 1_700_000_000,
            detail: "it has signed 9 entries".into(),
            evidence: evidence.map(str::to_owned),
        };
        assert_eq!(read(data.path()), None);
        raise(data.path(), &alarm("dc2", None)).unwrap();
        raise(data.path(), &alarm("dc3", None)).unwrap();
        assert_eq!(read(data.path()).unwrap().witness, "dc2");
        raise(data.path(), &alarm("dc3", Some("note"))).unwrap();
        raise(data.path(), &alarm("dc4", Some("note"))).unwrap();
        let standing = read(data.path()).unwrap();
        assert_eq!(standing, alarm("dc3", Some("note")));
        assert!(standing.to_string().contains("witness dc3") && standing.to_string().contains("2023-11-14"));
        std::fs::write(file(data.path()), "{").unwrap();
        assert_eq!(read(data.path()).unwrap().witness, "unknown", "what cannot be read is an alarm");
        clear(data.path()).unwrap();
        assert_eq!(read(data.path()), None);
    }
}
