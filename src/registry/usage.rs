//! What was used of daily quotas, kept for the next start. In a file of its own: it changes all the time. What was used
//! after the last keeping is found in the exchange log: each entry tells its number within its grant's day.
//!
//! All of it has one code of `keys/acts.key`: what somebody else wrote counts for nothing, and the whole day is read from the log.
//! An older file that is put back is the gateway's own, and says itself from when on the log has to be read.

use super::{ActKey, RegistryError};
use rusqlite::{Connection, OpenFlags, params};
use std::fmt::Write;
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

/// The file's name in the data folder.
pub const FILE: &str = "usage.sqlite";

/// The file.
pub struct UsageStore(Mutex<Connection>, ActKey);

/// What is kept, and its code; `None` where it has none.
fn read(connection: &Connection) -> Result<(StoredUsage, Option<String>), RegistryError> {
    let mut all = connection.prepare("SELECT grant_id, day, used FROM usage ORDER BY grant_id")?;
    let one = |row: &rusqlite::Row<'_>| {
        Ok(DayUsage { grant: row.get(0)?, day: row.get(1)?, used: row.get::<_, i64>(2)?.unsigned_abs() })
    };
    let usage = all.query_map([], one)?.collect::<Result<_, _>>()?;
    let until_us = connection.query_row("SELECT COALESCE(MAX(until_us), 0) FROM kept", [], |row| row.get(0))?;
    let code = connection.query_row("SELECT MAX(code) FROM vouched", [], |row| row.get(0))?;
    Ok((StoredUsage { usage, until_us }, code))
}

impl StoredUsage {
    fn text(&self) -> String {
        let mut text = format!("used until {}\n", self.until_us);
        for DayUsage { grant, day, used } in &self.usage {
            let _ = writeln!(text, "{day} {used} {grant}");
        }
        text
    }

    fn is_vouched_for(&self, code: Option<&str>, key: &ActKey) -> bool {
        code.is_some_and(|code| key.is_code_of_text(&self.text(), code))
    }
}

/// Whether a data folder's file is there and not the gateway's own: it counts for nothing.
///
/// # Errors
/// It cannot be read.
pub fn is_foreign(path: &Path, key: &ActKey) -> Result<bool, RegistryError> {
    if !path.exists() {
        return Ok(false);
    }
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.execute_batch("BEGIN")?;
    let sql = "SELECT COUNT(*) FROM sqlite_schema WHERE type = 'table'";
    if connection.query_row(sql, [], |row| row.get::<_, i64>(0))? != TABLES {
        return Ok(true);
    }
    let (kept, code) = read(&connection)?;
    // One that is new has nothing that anybody could vouch for.
    let is_new = kept == StoredUsage::default() && code.is_none();
    Ok(!is_new && !kept.is_vouched_for(code.as_deref(), key))
}

/// Tables of the file.
const TABLES: i64 = 3;

impl UsageStore {
    /// Opens or makes the file, whose content `key` vouches for.
    pub fn open(path: &Path, key: ActKey) -> Result<Self, RegistryError> {
        let connection = Connection::open(path)?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
             CREATE TABLE IF NOT EXISTS usage (grant_id TEXT PRIMARY KEY, day INTEGER NOT NULL, used INTEGER NOT NULL) STRICT;
             CREATE TABLE IF NOT EXISTS kept (one INTEGER PRIMARY KEY CHECK (one = 1), until_us INTEGER NOT NULL) STRICT;
             CREATE TABLE IF NOT EXISTS vouched (one INTEGER PRIMARY KEY CHECK (one = 1), code TEXT NOT NULL) STRICT;",
        )?;
        Ok(UsageStore(Mutex::new(connection), key))
    }

    /// What was kept; nothing where it was not kept by this gateway.
    pub fn load(&self) -> Result<StoredUsage, RegistryError> {
        let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (kept, code) = read(&connection)?;
        if kept.is_vouched_for(code.as_deref(), &self.1) {
            return Ok(kept);
        }
        if kept != StoredUsage::default() {
            tracing::warn!(
                "what was used of quotas was not kept by this gateway: it is counted anew from the exchange log"
            );
            connection.execute_batch("DELETE FROM usage; DELETE FROM kept;")?;
        }
        Ok(StoredUsage::default())
    }

    /// Keeps what changed until a time. Days before those that changed are over, and forgotten.
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
        let newest = changed.iter().map(|one| one.day).max().unwrap_or(i64::MIN);
        whole.execute("DELETE FROM usage WHERE day < ?1 - 1", [newest])?;
        whole.execute("INSERT OR REPLACE INTO kept VALUES (1, ?1)", [until_us])?;
        let code = self.1.code_of_text(&read(&whole)?.0.text());
        whole.execute("INSERT OR REPLACE INTO vouched VALUES (1, ?1)", [code])?;
        whole.commit()?;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::keyfile::Vault;

    fn used(grant: &str, day: i64, used: u64) -> DayUsage {
        DayUsage { grant: grant.into(), day, used }
    }

    #[test]
    fn l9_what_was_used_counts_as_this_gateway_kept_it_and_not_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let (file, registry) = (folder.path().join(FILE), folder.path().join("registry.sqlite"));
        let key = ActKey::make(&registry, &Vault::default()).unwrap();
        let open = || UsageStore::open(&file, key.clone()).unwrap();
        assert!(!is_foreign(&file, &key).unwrap(), "there is none");
        assert_eq!(open().load().unwrap(), StoredUsage::default());
        assert!(!is_foreign(&file, &key).unwrap(), "nothing is in it");
        open().save(&[used("a", 100, 7), used("b", 100, 1), used("old", 90, 5)], 1_000).unwrap();
        open().save(&[used("a", 100, 9)], 2_000).unwrap();
        let kept = StoredUsage { usage: vec![used("a", 100, 9), used("b", 100, 1)], until_us: 2_000 };
        assert_eq!(open().load().unwrap(), kept, "a day that is over is forgotten");
        assert!(!is_foreign(&file, &key).unwrap());
        let whole = std::fs::read(&file).unwrap();
        for edit in [
            "UPDATE usage SET used = 0 WHERE grant_id = 'a'",
            "UPDATE usage SET day = 101 WHERE grant_id = 'a'",
            "DELETE FROM usage WHERE grant_id = 'b'",
            "INSERT INTO usage VALUES ('c', 100, 1)",
            "UPDATE usage SET grant_id = 'd' WHERE grant_id = 'b'",
            // So that what the log tells since then is not looked at.
            "UPDATE kept SET until_us = 9000000000000000",
            "DELETE FROM kept",
            "DELETE FROM vouched",
            "UPDATE vouched SET code = upper(code)",
            "CREATE TABLE more (x)",
            // What an earlier version kept.
            "DROP TABLE vouched",
        ] {
            std::fs::write(&file, &whole).unwrap();
            let connection = Connection::open(&file).unwrap();
            connection.execute_batch(edit).unwrap();
            drop(connection);
            assert!(is_foreign(&file, &key).unwrap(), "{edit}");
            if !edit.starts_with("CREATE") {
                assert_eq!(open().load().unwrap(), StoredUsage::default(), "{edit}");
                // It goes on, and is the gateway's own again.
                open().save(&[used("a", 100, 10)], 3_000).unwrap();
                assert_eq!(open().load().unwrap().usage, [used("a", 100, 10)], "{edit}");
                assert!(!is_foreign(&file, &key).unwrap(), "{edit}");
            }
        }
        // Another gateway's, and another key.
        std::fs::write(&file, &whole).unwrap();
        std::fs::remove_file(folder.path().join("keys/acts.key")).unwrap();
        let other = ActKey::make(&registry, &Vault::default()).unwrap();
        assert!(is_foreign(&file, &other).unwrap());
        assert_eq!(UsageStore::open(&file, other).unwrap().load().unwrap(), StoredUsage::default());
        std::fs::write(&file, b"no database at all, and long enough for one").unwrap();
        assert!(is_foreign(&file, &key).is_err());
    }
}
