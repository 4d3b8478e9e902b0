//! What was used of daily quotas, kept for the next start. In a file of its own: it changes all the time. What was used
//! after the last keeping is found in the exchange log: each entry tells its number within its grant's day.

use super::RegistryError;
use rusqlite::{Connection, params};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Calls of one grant on one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayUsage {
    /// The grant's id.
    pub grant: String,
    /// Days since 1970 in Ho Chi Minh City.
    pub day: i64,
    /// Calls.
    pub used: u64,
}

/// What was kept, and when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredUsage {
    /// The usage of every grant.
    pub usage: Vec<DayUsage>,
    /// Everything used until then is in it, Unix time in microseconds; 0: nothing was ever kept.
    pub until_us: i64,
}

/// The file.
pub struct UsageStore(Mutex<Connection>);

impl UsageStore {
    /// Opens or makes the file.
    pub fn open(path: &Path) -> Result<Self, RegistryError> {
        let connection = Connection::open(path)?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
             CREATE TABLE IF NOT EXISTS usage (grant_id TEXT PRIMARY KEY, day INTEGER NOT NULL, used INTEGER NOT NULL) STRICT;
             CREATE TABLE IF NOT EXISTS kept (one INTEGER PRIMARY KEY CHECK (one = 1), until_us INTEGER NOT NULL) STRICT;",
        )?;
        Ok(UsageStore(Mutex::new(connection)))
    }

    /// What was kept.
    pub fn load(&self) -> Result<StoredUsage, RegistryError> {
        let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = connection.prepare("SELECT grant_id, day, used FROM usage")?;
        let read = |row: &rusqlite::Row<'_>| {
            Ok(DayUsage { grant: row.get(0)?, day: row.get(1)?, used: row.get::<_, i64>(2)?.unsigned_abs() })
        };
        let usage = all.query_map([], read)?.collect::<Result<_, _>>()?;
        let sql = "SELECT COALESCE(MAX(until_us), 0) FROM kept";
        Ok(StoredUsage { usage, until_us: connection.query_row(sql, [], |row| row.get(0))? })
    }

    /// Keeps what changed until a time.
    pub fn save(&self, changed: &[DayUsage], until_us: i64) -> Result<(), RegistryError> {
        if changed.is_empty() {
            return Ok(());
        }
        let mut connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = connection.transaction()?;
        for one in changed {
            let used = i64::try_from(one.used).unwrap_or(i64::MAX);
            whole.execute("INSERT OR REPLACE INTO usage VALUES (?1, ?2, ?3)", params![one.grant, one.day, used])?;
        }
        whole.execute("INSERT OR REPLACE INTO kept VALUES (1, ?1)", [until_us])?;
        whole.commit()?;
        Ok(())
    }
}
