//! `audit verify --index`: recomputes the complete index from the log and compares it; no trust in the index's key is needed.

use super::part::{HOURS, IndexPart, positions_of, postings};
use super::{AuditError, CellFault, IndexKey, SearchIndex, derive, index_path};
use crate::exchange_log::reader::LogReader;
use crate::exchange_log::tree::TILE;
use crate::exchange_log::write_atomically;
use crate::keyfile::Vault;
use rusqlite::OptionalExtension;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Maximum number of differences that are listed; further ones are counted.
const MAX_LISTED: usize = 1_000;

/// A difference of the index from the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexDifference {
    /// The first entry of the bundle, or of the part if no single bundle is concerned.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// The difference.
    pub what: String,
}

impl std::fmt::Display for IndexDifference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "entries {} to {}: {}", self.first, self.last, self.what)
    }
}

/// The result of a comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Entries in the index.
    pub entries: u64,
    /// Entries under the checkpoint; a bundle that is not full is not in the index.
    pub sealed: u64,
    /// Differences, at most 1,000 of them, in the order of entries.
    pub differences: Vec<IndexDifference>,
    /// The total number of differences.
    pub found: u64,
}

impl Checked {
    fn add(&mut self, difference: IndexDifference) {
        self.found += 1;
        if self.differences.len() < MAX_LISTED {
            self.differences.push(difference);
        }
    }

    fn whole(sealed: u64, what: String) -> Self {
        let first = IndexDifference { first: 0, last: sealed.saturating_sub(1), what };
        Checked { entries: 0, sealed, differences: vec![first], found: 1 }
    }
}

/// A cell in the file.
struct CellRow {
    code: Vec<u8>,
    bytes: Vec<u8>,
}

/// Recomputes the index of a data folder from its log; `None` if there is none. Calls `progress` with the number of
/// compared entries and the total; if it returns false, the rest is skipped.
///
/// # Errors
/// The log cannot be read, or is not what was signed.
pub fn check(
    data: &Path,
    vault: &Vault,
    mut progress: impl FnMut(u64, u64) -> bool,
) -> Result<Option<Checked>, AuditError> {
    if !index_path(data).exists() {
        return Ok(None);
    }
    let mut reader = LogReader::sealed_only(data)?;
    let key = IndexKey::read(data, vault).map_err(|error| AuditError::IndexKey(error.to_string()))?;
    let Some(key) = key else {
        return Ok(Some(Checked::whole(reader.sealed(), "the index's key (keys/index.key) is missing".into())));
    };
    let index = match SearchIndex::open_to_read(&index_path(data), key) {
        Ok(Some(index)) => index,
        Ok(None) => {
            return Ok(Some(Checked::whole(reader.sealed(), "the index is of another version".into())));
        }
        Err(error) => {
            return Ok(Some(Checked::whole(reader.sealed(), format!("the index cannot be read: {error}"))));
        }
    };
    let (mut checked, mut next) = (Checked::default(), 0);
    loop {
        // In one read, since the thread that follows the log merges parts.
        let read = index.rows_of(next);
        let (claimed, part, rows) = match read {
            Ok(Some(read)) => read,
            Ok(None) => break,
            Err(error) => {
                return Ok(Some(Checked::whole(reader.sealed(), format!("the index cannot be read: {error}"))));
            }
        };
        if part.entries().end > reader.sealed() {
            reader = LogReader::sealed_only(data)?;
        }
        if part.entries().end > reader.sealed() {
            let what = "the index has more than the log".to_owned();
            checked.add(IndexDifference {
                first: part.entries().start,
                last: claimed.saturating_mul(TILE as u64) - 1,
                what,
            });
            break;
        }
        for difference in index.compare(&reader, part, &rows)? {
            checked.add(difference);
        }
        next = part.bundles().end;
        checked.entries = next * TILE as u64;
        if !progress(checked.entries, reader.sealed()) {
            break;
        }
    }
    checked.sealed = reader.sealed();
    match index.strays(&reader) {
        Ok(0) => {}
        Ok(some) => {
            let what = format!("{some} rows are of no part of the index");
            checked.add(IndexDifference { first: 0, last: checked.sealed.saturating_sub(1), what });
        }
        Err(error) => {
            let what = format!("the index cannot be read: {error}");
            checked.add(IndexDifference { first: 0, last: checked.sealed.saturating_sub(1), what });
        }
    }
    Ok(Some(checked))
}

/// Bundles that the index claims, one of its parts, and that part's rows by cell.
type PartRows = (u64, IndexPart, BTreeMap<u16, CellRow>);

impl SearchIndex {
    /// Returns the present rows of the part over a bundle; `None` after the last part.
    fn rows_of(&self, bundle: u64) -> rusqlite::Result<Option<PartRows>> {
        let moment = self.connection.unchecked_transaction()?;
        let claimed = self.claimed()?;
        if bundle >= claimed {
            return Ok(None);
        }
        let part = IndexPart::over(bundle, claimed);
        let mut rows = BTreeMap::new();
        for cell in part.cells() {
            let mut row = moment.prepare_cached("SELECT code, bytes FROM cells WHERE id = ?1")?;
            let row = row.query_row([part.row(cell)], |row| Ok(CellRow { code: row.get(0)?, bytes: row.get(1)? }));
            if let Some(row) = row.optional()? {
                rows.insert(cell, row);
            }
        }
        Ok(Some((claimed, part, rows)))
    }

    /// Counts rows that are not a cell of any part.
    fn strays(&self, reader: &LogReader) -> rusqlite::Result<u64> {
        let moment = self.connection.unchecked_transaction()?;
        // An index that is longer than the log was reported already.
        let claimed = self.claimed()?.min(reader.sealed() / TILE as u64 + u64::from(u16::MAX));
        let expected: u64 = IndexPart::all(claimed).map(|part| u64::from(part.buckets()) + 2).sum();
        let rows: i64 = moment.query_row("SELECT COUNT(*) FROM cells", [], |row| row.get(0))?;
        Ok(rows.unsigned_abs().saturating_sub(expected))
    }

    fn compare(
        &self,
        reader: &LogReader,
        part: IndexPart,
        rows: &BTreeMap<u16, CellRow>,
    ) -> Result<Vec<IndexDifference>, AuditError> {
        let wanted = derive(reader, part)?;
        let (level, at) = part.node();
        let node = reader.node(level, at)?;
        // Counts of pruned entries cannot be recomputed: the key authenticates them.
        let gone = part.bundles().any(|bundle| reader.pruned().has(bundle));
        let (mut bundles, mut of_part) = (BTreeSet::new(), None);
        for cell in part.cells() {
            let of_log = wanted.get(&cell).map(Vec::as_slice).unwrap_or_default();
            let Some(row) = rows.get(&cell) else {
                of_part = Some(format!("cell {cell} {}", CellFault::Missing));
                continue;
            };
            let own = self.key.is_code(part, cell, &node, &row.bytes, &row.code);
            if cell == HOURS && gone && own || own && row.bytes == of_log {
                continue;
            }
            let differing = if cell < part.buckets() { differing(&row.bytes, of_log) } else { BTreeSet::new() };
            if differing.is_empty() {
                let why = if row.bytes == of_log {
                    "has a code that is not the gateway's"
                } else {
                    "is not what the log says"
                };
                of_part = Some(format!("cell {cell} {why}"));
            }
            bundles.extend(differing.into_iter().map(|place| part.bundles().start + u64::from(place) / TILE as u64));
        }
        let of_bundle = |bundle: u64| IndexDifference {
            first: bundle * TILE as u64,
            last: (bundle + 1) * TILE as u64 - 1,
            what: "terms are not those of the log".into(),
        };
        let whole =
            of_part.map(|what| IndexDifference { first: part.entries().start, last: part.entries().end - 1, what });
        Ok(whole.into_iter().chain(bundles.into_iter().map(of_bundle)).collect())
    }
}

/// Returns the positions within a part at which two cells differ.
fn differing(one: &[u8], other: &[u8]) -> BTreeSet<u16> {
    let all = |cell: &[u8]| -> BTreeSet<(u64, u16)> {
        postings(cell).flat_map(|(term, places)| positions_of(places).map(move |place| (term, place))).collect()
    };
    all(one).symmetric_difference(&all(other)).map(|(_, place)| *place).collect()
}

/// When an index was last verified, and the result.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
pub struct LastVerification {
    /// Unix seconds.
    pub time: i64,
    /// Number of compared entries.
    pub entries: u64,
    /// Number of differences.
    pub differences: u64,
}

#[derive(Serialize, Deserialize)]
struct VerificationRecord {
    #[serde(flatten)]
    verified: LastVerification,
    code: String,
}

fn record_path(data: &Path) -> PathBuf {
    data.join("state").join("index-verified.json")
}

impl LastVerification {
    fn text(self) -> String {
        format!("verified at {} of {} entries with {} differences", self.time, self.entries, self.differences)
    }

    /// Stores it beside the log, for `audit status`.
    ///
    /// # Errors
    /// The file cannot be written, or there is no key.
    pub fn keep(self, data: &Path, vault: &Vault) -> Result<(), AuditError> {
        let fail = |error: std::io::Error| AuditError::IndexKey(error.to_string());
        let Some(key) = IndexKey::read(data, vault).map_err(fail)? else { return Ok(()) };
        let record = VerificationRecord { verified: self, code: key.code_of_text(&self.text()) };
        let bytes = serde_json::to_vec(&record).map_err(|error| fail(error.into()))?;
        Ok(write_atomically(&record_path(data), &bytes)?)
    }
}

/// Returns whether the stored record of the last comparison exists and is not the gateway's: then it is ignored.
pub fn is_record_foreign(data: &Path, vault: &Vault) -> bool {
    let Ok(bytes) = std::fs::read(record_path(data)) else { return false };
    let whole = |record: VerificationRecord| serde_json::to_vec(&record).is_ok_and(|own| own == bytes);
    verified(data, vault).is_none() || !serde_json::from_slice(&bytes).is_ok_and(whole)
}

/// Returns when the index of a data folder was last verified; `None` if it never was, or the record is not the
/// gateway's.
pub fn verified(data: &Path, vault: &Vault) -> Option<LastVerification> {
    let record: VerificationRecord = serde_json::from_slice(&std::fs::read(record_path(data)).ok()?).ok()?;
    let key = IndexKey::read(data, vault).ok()??;
    key.is_code_of_text(&record.verified.text(), &record.code).then_some(record.verified)
}
