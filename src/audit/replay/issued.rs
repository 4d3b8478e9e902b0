//! Issued tokens that are valid now, by the log's records, compared with the file that lists them (`issued.sqlite`).
//! Expired tokens are irrelevant, and their rows may have been removed.

use super::compare::Compare;
use super::{CompareError, RecordHash, ends, hash};
use crate::audit::AuditError;
use crate::exchange_log::Entry;
use crate::exchange_log::reader::LogReader;
use crate::exchange_log::tree::TILE;
use crate::identity::Thumbprint;
use crate::registry::sqlite::IssuedFile;
use crate::registry::{MAX_LIFETIME, RegistryError, now};
use foldhash::HashMap;
use std::path::Path;

/// The events that create tokens.
const ACTS: [&str; 2] = ["token.issue", "token.fetch"];

/// The name of a difference that SQLite itself finds.
pub(super) const DAMAGE: &str = "SQLite's own check";

/// The log's record of a token.
enum LoggedToken {
    /// Its complete record: its hash, and its position.
    Record { hash: RecordHash, entry: u64, nth: usize },
    /// The data of a client's fetched token in entries of earlier versions.
    Fetched { client: String, certificate: String },
}

/// Tokens that had not expired when the comparison began: about 150 bytes each.
pub(super) struct IssuedTokens {
    now: i64,
    tokens: HashMap<Box<str>, LoggedToken>,
}

/// Rows of valid tokens, from before the log was read.
pub(super) struct IssuedRows {
    file: Option<IssuedFile>,
    rows: Vec<(String, RecordHash)>,
    /// The fault that SQLite finds in the file.
    damage: Option<String>,
}

impl IssuedTokens {
    pub(super) fn new() -> Self {
        IssuedTokens { now: now(), tokens: HashMap::default() }
    }

    /// Reads the rows of a registry's tokens.
    pub(super) fn rows(&self, registry: &Path) -> Result<IssuedRows, RegistryError> {
        let Some(file) = IssuedFile::open(registry)? else {
            return Ok(IssuedRows { file: None, rows: Vec::new(), damage: None });
        };
        let damage = file.check_fault()?.or(file.schema_fault()?);
        let mut rows = Vec::new();
        file.valid(self.now, &mut |id, record| rows.push((id, hash(&record))))?;
        Ok(IssuedRows { file: Some(file), rows, damage })
    }

    pub(super) fn take(&mut self, index: u64, entry: &Entry) {
        if entry.status != 0 || !ACTS.contains(&entry.event.as_str()) {
            return;
        }
        for (nth, change) in entry.changes.iter().enumerate().filter(|(_, change)| change.before == "null") {
            if let Some(id) = change.object.strip_prefix("token:").filter(|_| ends(&change.after) > self.now) {
                let token = LoggedToken::Record { hash: hash(&change.after), entry: index, nth };
                self.tokens.insert(id.into(), token);
            }
        }
        // A token begins within the longest lifetime, and lives no longer than one.
        let good = entry.time_us / 1_000_000 > self.now - 2 * MAX_LIFETIME.as_secs() as i64;
        if entry.changes.is_empty() && good && !entry.token.is_empty() {
            let certificate = entry.certificate.as_slice().try_into().map(Thumbprint);
            let certificate = certificate.map(|thumbprint| thumbprint.base64url()).unwrap_or_default();
            let token = LoggedToken::Fetched { client: entry.client.clone(), certificate };
            self.tokens.insert(entry.token.as_str().into(), token);
        }
    }

    /// Compares the rows with the log's records.
    pub(super) fn compare(&self, rows: IssuedRows, compare: &mut Compare<'_>) -> Result<(), CompareError> {
        let IssuedRows { file, rows, damage } = rows;
        if let Some(damage) = damage {
            compare.push("issued.sqlite", DAMAGE, "ok".into(), damage);
        }
        let record = |id: &str| file.as_ref().map_or(Ok(None), |file| file.record(id));
        let pruned_until = pruned_until(&compare.reader)?;
        let mut seen: HashMap<&str, ()> = HashMap::default();
        for (id, row) in &rows {
            seen.insert(id, ());
            let object = format!("token:{id}");
            let on_its_way = compare.noted.get(object.as_str()).map(|change| change.after.clone());
            match (self.tokens.get(id.as_str()), on_its_way) {
                (Some(LoggedToken::Record { hash, .. }), _) if hash == row => {}
                (Some(LoggedToken::Record { entry, nth, .. }), _) => {
                    let in_log = logged(&compare.reader, *entry, *nth)?;
                    compare.fields(&object, &in_log, &record(id)?.unwrap_or_else(|| "null".into()));
                }
                (Some(LoggedToken::Fetched { client, certificate }), _) => {
                    let there = record(id)?.unwrap_or_default();
                    for (field, in_log) in [("client", client), ("certificate", certificate)] {
                        let in_file = text_of(&there, field);
                        if in_file != *in_log {
                            compare.push(&object, field, in_log.clone(), in_file);
                        }
                    }
                }
                (None, Some(in_log)) => {
                    compare.fields(&object, &in_log, &record(id)?.unwrap_or_else(|| "null".into()));
                }
                (None, None) => {
                    let there = record(id)?.unwrap_or_default();
                    let issued =
                        serde_json::from_str::<serde_json::Value>(&there).unwrap_or_default()["issued"].as_i64();
                    // Its entry may have been pruned.
                    if issued.unwrap_or(i64::MAX) > pruned_until {
                        compare.push(&object, "", "null".into(), there);
                    }
                }
            }
        }
        for (id, token) in self.tokens.iter().filter(|(id, _)| !seen.contains_key(id.as_ref())) {
            if let LoggedToken::Record { entry, nth, .. } = token {
                let in_log = logged(&compare.reader, *entry, *nth)?;
                let object = format!("token:{id}");
                match record(id)? {
                    Some(there) => compare.fields(&object, &in_log, &there),
                    None => compare.push(&object, "", in_log, "null".into()),
                }
            }
        }
        Ok(())
    }
}

fn text_of(record: &str, field: &str) -> String {
    let record: serde_json::Value = serde_json::from_str(record).unwrap_or_default();
    record[field].as_str().unwrap_or_default().to_owned()
}

fn logged(reader: &LogReader, entry: u64, nth: usize) -> Result<String, AuditError> {
    let entry = reader.entry(entry)?;
    let change = entry.and_then(|entry| entry.changes.into_iter().nth(nth));
    Ok(change.map_or_else(|| "null".into(), |change| change.after))
}

/// Returns until when entries were pruned, Unix time in seconds: their content is no longer known.
fn pruned_until(reader: &LogReader) -> Result<i64, AuditError> {
    let Some(last) = reader.pruned().runs().last().map(|run| *run.end()) else { return Ok(i64::MIN) };
    let next = reader.entry((last + 1) * TILE as u64)?;
    Ok(next.map_or(i64::MAX, |entry| entry.time_us / 1_000_000))
}
