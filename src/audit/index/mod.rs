//! The search index: derived from the log's sealed entries, in one SQLite file that can be thrown away at any time.
//!
//! Texts are numbers here, so a row has about 60 bytes, and an entry with its places in the indexes about 400. A thread of
//! its own follows the log four times a second in batches of [`BATCH`]: one transaction each, without `fsync`, since what
//! a crash takes is derived again. Searches have connections of their own and wait for nobody (WAL).

mod find;
mod follow;
mod thread;

use super::AuditError;
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

pub use find::{Hour, Hours};
pub use thread::{Following, rebuild};

/// Version of the tables: an index of another one is made anew.
const VERSION: i64 = 1;
/// Most entries in one transaction.
const BATCH: usize = 20_000;
/// Most names that are kept in memory; beyond, they are looked up again.
const MAX_NAMES: usize = 200_000;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS state (
        one INTEGER PRIMARY KEY CHECK (one = 1), indexed INTEGER NOT NULL, last BLOB NOT NULL, high_us INTEGER NOT NULL,
        late_us INTEGER NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS names (
        id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, text TEXT NOT NULL, UNIQUE (kind, text)) STRICT;
    CREATE TABLE IF NOT EXISTS entries (
        idx INTEGER PRIMARY KEY, time_us INTEGER NOT NULL, kind INTEGER NOT NULL, client INTEGER NOT NULL,
        agency INTEGER NOT NULL, source INTEGER NOT NULL, operation INTEGER NOT NULL, scope INTEGER NOT NULL,
        purpose INTEGER NOT NULL, outcome INTEGER NOT NULL) STRICT;
    CREATE INDEX IF NOT EXISTS by_client ON entries (client);
    CREATE INDEX IF NOT EXISTS by_agency ON entries (agency);
    CREATE INDEX IF NOT EXISTS by_operation ON entries (operation);
    CREATE INDEX IF NOT EXISTS by_purpose ON entries (purpose);
    CREATE INDEX IF NOT EXISTS by_outcome ON entries (outcome);
    CREATE TABLE IF NOT EXISTS people (
        idx INTEGER NOT NULL, role INTEGER NOT NULL, value BLOB NOT NULL, PRIMARY KEY (idx, role, value)
        ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS by_person ON people (value, role, idx);
    CREATE TABLE IF NOT EXISTS exchanges (
        id BLOB NOT NULL, idx INTEGER NOT NULL, PRIMARY KEY (id, idx)) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS marks (idx INTEGER PRIMARY KEY, high_us INTEGER NOT NULL) STRICT;
    CREATE INDEX IF NOT EXISTS by_mark ON marks (high_us);
    CREATE TABLE IF NOT EXISTS hours (
        hour INTEGER NOT NULL, client INTEGER NOT NULL, agency INTEGER NOT NULL, source INTEGER NOT NULL,
        operation INTEGER NOT NULL, outcome INTEGER NOT NULL, exchanges INTEGER NOT NULL, total_us INTEGER NOT NULL,
        answer_bytes INTEGER NOT NULL, PRIMARY KEY (hour, client, agency, source, operation, outcome)
        ) STRICT, WITHOUT ROWID;";

/// What a name is the name of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Name {
    Client = 1,
    Agency,
    Source,
    Operation,
    Scope,
    Purpose,
    Outcome,
}

/// Whom a pseudonym stands for.
#[derive(Debug, Clone, Copy)]
enum Person {
    Subject = 0,
    Official = 1,
}

/// The index, for reading or for following the log.
pub struct Index {
    connection: Connection,
    names: HashMap<(Name, String), i64>,
}

/// Where the index of a data folder is.
pub fn index_path(data: &Path) -> PathBuf {
    data.join("index").join("log.sqlite")
}

impl Index {
    /// Opens the index of a data folder for reading; `None` where there is none, or only one of another version.
    pub fn read(data: &Path) -> Result<Option<Self>, AuditError> {
        let path = index_path(data);
        if !path.exists() {
            return Ok(None);
        }
        let connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -65536;")?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        Ok((version == VERSION).then(|| Index { connection, names: HashMap::new() }))
    }

    /// Entries in the index: all before this one.
    pub fn indexed(&self) -> Result<u64, AuditError> {
        let state = "SELECT indexed FROM state";
        let found: Option<i64> = self.connection.prepare_cached(state)?.query_row([], |row| row.get(0)).optional()?;
        Ok(found.unwrap_or(0).unsigned_abs())
    }
}
