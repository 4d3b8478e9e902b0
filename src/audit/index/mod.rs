//! The search index: derived from the log's sealed entries, in one SQLite file that can be deleted at any time, and
//! that is never trusted.
//!
//! It consists of [parts](part) of 1, 16 and 256 full bundles, each of [`IndexPart::buckets`] cells of terms and two
//! more. A cell never changes once it exists, and has an HMAC under the [index's key](IndexKey) over its bytes, its
//! position and the node of the log's Merkle tree above its entries. A search for a term reads one cell of each part,
//! newest first. So
//!
//! - every read detects a cell that was changed, moved, put back, or taken from another log;
//! - a missing cell is detected, too: every part has all its cells, including empty ones;
//! - missing rows at the end make the index look shorter, and what no part covers is read from the log.
//!
//! A faulty part is rebuilt from the log before the response continues, with a warning and a metric. Entries themselves
//! are always read from the log's bundles, hashed up to the checkpoint, and compared with the query.
//!
//! Cost, estimated: about 50 bytes and a few CPU us for each entry; a term at 10 million entries is one cell of 14 kB
//! in each of 153 parts. A separate thread follows the log four times a second, one transaction for each [`BATCH`]
//! bundles, without `fsync`, since what a crash loses is derived again. Searches have separate connections and wait for
//! nothing (WAL).

mod check;
mod find;
mod follow;
mod key;
mod part;
mod terms;
mod thread;

use super::AuditError;
use crate::exchange_log::reader::LogReader;
use crate::exchange_log::tree::{Hash, TILE};
use crate::exchange_log::{Entry, LogOpener};
use crate::keyfile::Vault;
use part::{Cells, HEAD, IndexPart, LEVELS, PartBuilder, PartHeader};
use prost::Message;
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

pub use check::{Checked, IndexDifference, LastVerification, check, is_record_foreign, verified};
pub use find::Hour;
pub use key::IndexKey;
pub use part::HOUR_US;
pub use thread::{IndexThread, rebuild};

/// Version of the tables: an index of another version is rebuilt.
const VERSION: i64 = 3;
/// Bundles in one transaction.
const BATCH: u64 = 80;

const TABLES: &str =
    "CREATE TABLE IF NOT EXISTS cells (id INTEGER PRIMARY KEY, code BLOB NOT NULL, bytes BLOB NOT NULL) STRICT;";

/// Number of parts that were found wrong and rebuilt since the process began.
static MADE_ANEW: AtomicU64 = AtomicU64::new(0);

/// Returns how many parts of an index were found wrong and rebuilt since the process began, for the metrics.
pub fn rebuilt() -> u64 {
    MADE_ANEW.load(Ordering::Relaxed)
}

/// The index, for reading or for following the log.
pub struct SearchIndex {
    connection: Connection,
    key: IndexKey,
    path: PathBuf,
    /// The part that was rebuilt last.
    fresh: RefCell<Option<(IndexPart, Cells)>>,
}

/// Returns the path of the index of a data folder.
pub fn index_path(data: &Path) -> PathBuf {
    data.join("index").join("log.sqlite")
}

/// The reason that a cell of the file is not trusted, or that it is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CellFault {
    /// There is no such row.
    #[error("is missing")]
    Missing,
    /// Its code does not match its bytes, its position and the entries in the log.
    #[error("is not what the gateway wrote for these entries")]
    Changed,
}

impl SearchIndex {
    /// Opens the index of a data folder for reading; `None` if there is no usable one: then the log itself is read.
    pub fn read(data: &Path, vault: &Vault) -> Option<Self> {
        let path = index_path(data);
        let key = match IndexKey::read(data, vault) {
            Ok(key) => key.filter(|_| path.exists())?,
            Err(error) => {
                tracing::warn!(%error, "the search index is not used: its key cannot be read");
                return None;
            }
        };
        match Self::open_to_read(&path, key) {
            Ok(index) => index,
            Err(error) => {
                MADE_ANEW.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%error, "the search index cannot be read: the log is read in its place");
                None
            }
        }
    }

    /// The same, of the log that an opener is for.
    pub fn of_log(opener: &LogOpener) -> Option<Self> {
        Self::read(opener.data(), opener.vault())
    }

    fn open_to_read(path: &Path, key: IndexKey) -> rusqlite::Result<Option<Self>> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -65536;")?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let index = SearchIndex { connection, key, path: path.to_owned(), fresh: RefCell::default() };
        Ok((version == VERSION).then_some(index))
    }

    /// Returns how many full bundles the index claims to have, from the first on. The claim is not trusted: if it is
    /// too small, the log is read; if it is too large, parts are missing and are rebuilt.
    fn claimed(&self) -> rusqlite::Result<u64> {
        let mut most = 0;
        for level in 0..LEVELS {
            let rows = IndexPart::rows_of_level(level);
            let last = "SELECT MAX(id) FROM cells WHERE id >= ?1 AND id < ?2";
            let mut last = self.connection.prepare_cached(last)?;
            let last: Option<i64> = last.query_row([rows.start, rows.end], |row| row.get(0))?;
            most = last.map_or(most, |row| most.max(IndexPart::of_row(row).0.bundles().end));
        }
        Ok(most)
    }

    /// Returns the number of entries in the index: all before this one. 0 if its file cannot be read.
    pub fn indexed(&self, reader: &LogReader) -> u64 {
        let claimed = self.claimed().unwrap_or(0);
        claimed.min(reader.sealed() / TILE as u64) * TILE as u64
    }

    /// Returns a cell of the file, checked.
    fn stored(&self, part: IndexPart, cell: u16, node: &Hash) -> Result<Vec<u8>, CellFault> {
        let read = || {
            let mut row = self.connection.prepare_cached("SELECT code, bytes FROM cells WHERE id = ?1")?;
            row.query_row([part.row(cell)], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?))).optional()
        };
        match read() {
            Ok(Some((code, bytes))) if self.key.is_code(part, cell, node, &bytes, &code) => Ok(bytes),
            Ok(None) => Err(CellFault::Missing),
            // Also if SQLite reports a damaged file.
            Ok(Some(_)) | Err(_) => Err(CellFault::Changed),
        }
    }

    /// Returns a cell of a part under the reader's checkpoint. A faulty part is rebuilt from the log.
    fn cell(&self, reader: &LogReader, part: IndexPart, cell: u16) -> Result<Vec<u8>, AuditError> {
        let of_fresh = |fresh: &Option<(IndexPart, Cells)>| {
            let (_, cells) = fresh.as_ref().filter(|(fresh, _)| *fresh == part)?;
            cells.get(&cell).cloned()
        };
        if let Some(bytes) = of_fresh(&self.fresh.borrow()) {
            return Ok(bytes);
        }
        let (level, index) = part.node();
        let fault = match self.stored(part, cell, &reader.node(level, index)?) {
            Ok(bytes) => return Ok(bytes),
            Err(fault) => fault,
        };
        let cells = derive(reader, part)?;
        MADE_ANEW.fetch_add(1, Ordering::Relaxed);
        let entries = part.entries();
        tracing::warn!(
            %fault, first = entries.start, last = entries.end - 1, cell,
            "the search index differed from the log: this part of it is rebuilt"
        );
        match self.mend(reader, part, &cells) {
            Err(error) if is_damaged(&error) => {
                tracing::warn!(%error, "the search index is damaged: it is removed, and the thread that follows the log rebuilds it");
                if let Some(data) = self.path.parent().and_then(Path::parent) {
                    Self::remove(data)?;
                }
            }
            // If the file cannot be written, the fault is found again the next time.
            Err(error) => tracing::warn!(%error, "the part of the search index could not be written"),
            Ok(()) => {}
        }
        let bytes = cells.get(&cell).cloned().unwrap_or_default();
        *self.fresh.borrow_mut() = Some((part, cells));
        Ok(bytes)
    }

    /// Writes a part by a separate connection: this one only reads.
    fn mend(&self, reader: &LogReader, part: IndexPart, cells: &Cells) -> Result<(), AuditError> {
        let connection = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let (key, path) = (self.key.clone(), self.path.clone());
        let index = SearchIndex { connection, key, path, fresh: RefCell::default() };
        index.within(|index| index.put(reader, part, cells))
    }

    /// Returns a part's header.
    fn head(&self, reader: &LogReader, part: IndexPart) -> Result<PartHeader, AuditError> {
        Ok(PartHeader::decode(self.cell(reader, part, HEAD)?.as_slice()).unwrap_or_default())
    }
}

/// Returns whether SQLite reports a damaged file, which a crash may leave, since nothing is synced.
fn is_damaged(error: &AuditError) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error, AuditError::Index(rusqlite::Error::SqliteFailure(failure, _))
        if matches!(failure.code, DatabaseCorrupt | NotADatabase))
}

/// Derives a part from the log. Pruned bundles are skipped.
fn derive(reader: &LogReader, part: IndexPart) -> Result<Cells, AuditError> {
    let mut making = PartBuilder::of(part);
    for (at, bundle) in part.bundles().enumerate() {
        for (place, bytes) in reader.bundle(bundle)?.unwrap_or_default().iter().enumerate() {
            let place = u16::try_from(at * TILE + place).unwrap_or(u16::MAX);
            making.entry(place, &Entry::from_bytes(bytes).unwrap_or_default());
        }
    }
    Ok(making.finish())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
