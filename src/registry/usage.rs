//! Use of daily quotas, saved for the next start. In a separate file: it changes all the time. What was used after the
//! last save is found in the exchange log: each entry has its number within its grant's day.
//!
//! All of it has one code of the key of admin events (`keys/acts.key`): content from anybody else is ignored, and the
//! complete day is read from the log. It is saved five times a second, so a save costs what changed and not what there
//! is ([`RowCodes`]). An older file that is put back is the gateway's own, and itself records from when on the log has
//! to be read.

use super::admin_event_key::CODE_BYTES;
use super::{AdminEventKey, RegistryError};
use crate::hex::hex;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};
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

/// The saved usage, and when it was saved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredUsage {
    /// The usage of every grant.
    pub usage: Vec<DayUsage>,
    /// It includes everything used until then, Unix time in microseconds; 0: nothing was ever saved.
    pub until_us: i64,
}

/// The file's name in the data folder.
pub const FILE: &str = "usage.sqlite";

/// The file.
pub struct UsageStore(Mutex<OpenUsage>, AdminEventKey);

struct OpenUsage {
    connection: Connection,
    /// The codes of what this gateway has saved; `None` until it has read them.
    codes: Option<RowCodes>,
    /// The newest day of which anything was saved since the start.
    newest: i64,
}

/// The number of rows, and the XOR of their codes. No row's own code is stored, and the stored value is a code over
/// this: so nobody without the key finds other rows with the same one. The number distinguishes two equal rows, which
/// cancel each other, from none.
#[derive(Debug, Clone, Copy, Default)]
struct RowCodes {
    rows: u64,
    xor: [u8; CODE_BYTES],
}

impl RowCodes {
    fn of(usage: &[DayUsage], key: &AdminEventKey) -> Self {
        let mut all = RowCodes::default();
        usage.iter().for_each(|row| all.add(row, key));
        all
    }

    fn add(&mut self, row: &DayUsage, key: &AdminEventKey) {
        self.rows = self.rows.wrapping_add(1);
        self.toggle(row, key);
    }

    fn remove(&mut self, row: &DayUsage, key: &AdminEventKey) {
        self.rows = self.rows.wrapping_sub(1);
        self.toggle(row, key);
    }

    fn toggle(&mut self, DayUsage { grant, day, used }: &DayUsage, key: &AdminEventKey) {
        let code = key.mac_of_text(&format!("used on day {day}: {used} {grant}"));
        self.xor.iter_mut().zip(code).for_each(|(xor, byte)| *xor ^= byte);
    }

    /// Returns the text that the file's code authenticates.
    fn text(&self, until_us: i64) -> String {
        format!("used until {until_us}: {} {}", self.rows, hex(&self.xor))
    }
}

fn row(row: &Row<'_>) -> rusqlite::Result<DayUsage> {
    Ok(DayUsage { grant: row.get(0)?, day: row.get(1)?, used: row.get::<_, i64>(2)?.unsigned_abs() })
}

/// Returns the saved content, and its code; `None` if it has none.
fn read(connection: &Connection) -> Result<(StoredUsage, Option<String>), RegistryError> {
    let mut all = connection.prepare("SELECT grant_id, day, used FROM usage ORDER BY grant_id")?;
    let usage = all.query_map([], row)?.collect::<Result<_, _>>()?;
    let until_us = connection.query_row("SELECT COALESCE(MAX(until_us), 0) FROM kept", [], |row| row.get(0))?;
    let code = connection.query_row("SELECT MAX(code) FROM vouched", [], |row| row.get(0))?;
    Ok((StoredUsage { usage, until_us }, code))
}

impl StoredUsage {
    /// Returns the codes, if the file's code authenticates them.
    fn vouched_codes(&self, code: Option<&str>, key: &AdminEventKey) -> Option<RowCodes> {
        let codes = RowCodes::of(&self.usage, key);
        code.is_some_and(|code| key.is_code_of_text(&codes.text(self.until_us), code)).then_some(codes)
    }
}

/// Returns whether a data folder's file exists and is not the gateway's own: then it is ignored.
///
/// # Errors
/// It cannot be read.
pub fn is_foreign(path: &Path, key: &AdminEventKey) -> Result<bool, RegistryError> {
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
    // A new file has nothing to authenticate.
    let is_new = kept == StoredUsage::default() && code.is_none();
    Ok(!is_new && kept.vouched_codes(code.as_deref(), key).is_none())
}

/// Tables of the file.
const TABLES: i64 = 3;

impl UsageStore {
    /// Opens or creates the file; `key` authenticates its content.
    ///
    /// # Errors
    /// It cannot be opened or created.
    pub fn open(path: &Path, key: AdminEventKey) -> Result<Self, RegistryError> {
        let connection = Connection::open(path)?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
             CREATE TABLE IF NOT EXISTS usage (grant_id TEXT PRIMARY KEY, day INTEGER NOT NULL, used INTEGER NOT NULL) STRICT;
             CREATE TABLE IF NOT EXISTS kept (one INTEGER PRIMARY KEY CHECK (one = 1), until_us INTEGER NOT NULL) STRICT;
             CREATE TABLE IF NOT EXISTS vouched (one INTEGER PRIMARY KEY CHECK (one = 1), code TEXT NOT NULL) STRICT;",
        )?;
        Ok(UsageStore(Mutex::new(OpenUsage { connection, codes: None, newest: i64::MIN }), key))
    }

    /// Returns what was saved, or nothing where the content was not saved by this gateway.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn load(&self) -> Result<StoredUsage, RegistryError> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (kept, code) = read(&open.connection)?;
        if let Some(codes) = kept.vouched_codes(code.as_deref(), &self.1) {
            open.codes = Some(codes);
            return Ok(kept);
        }
        if kept != StoredUsage::default() {
            tracing::warn!("the saved quota usage is not this gateway's: it is counted again from the exchange log");
            open.connection.execute_batch("DELETE FROM usage; DELETE FROM kept;")?;
        }
        open.codes = Some(RowCodes::default());
        Ok(StoredUsage::default())
    }

    /// Saves what has changed until a time, and deletes days before those that changed. What somebody else changes in the file meanwhile is
    /// not authenticated.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, changed: &[DayUsage], until_us: i64) -> Result<(), RegistryError> {
        let Some(day) = changed.iter().map(|one| one.day).max() else { return Ok(()) };
        let (mut open, key) = (self.0.lock().unwrap_or_else(PoisonError::into_inner), &self.1);
        let OpenUsage { connection, codes, newest } = &mut *open;
        let mut next = match codes {
            Some(codes) => *codes,
            None => RowCodes::of(&read(connection)?.0.usage, key),
        };
        let whole = connection.transaction()?;
        for one in changed {
            let before = "SELECT grant_id, day, used FROM usage WHERE grant_id = ?1";
            if let Some(before) = whole.prepare_cached(before)?.query_row([&one.grant], row).optional()? {
                next.remove(&before, key);
            }
            let used = i64::try_from(one.used).unwrap_or(i64::MAX);
            let now = DayUsage { used: used.unsigned_abs(), ..one.clone() };
            next.add(&now, key);
            let keep = "INSERT OR REPLACE INTO usage VALUES (?1, ?2, ?3)";
            whole.prepare_cached(keep)?.execute(params![now.grant, now.day, used])?;
        }
        if day > *newest {
            let mut over = whole.prepare("DELETE FROM usage WHERE day < ?1 - 1 RETURNING grant_id, day, used")?;
            for over in over.query_map([day], row)? {
                next.remove(&over?, key);
            }
        }
        whole.execute("INSERT OR REPLACE INTO kept VALUES (1, ?1)", [until_us])?;
        whole.execute("INSERT OR REPLACE INTO vouched VALUES (1, ?1)", [key.code_of_text(&next.text(until_us))])?;
        whole.commit()?;
        (*codes, *newest) = (Some(next), day.max(*newest));
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
        let key = AdminEventKey::make(&registry, &Vault::default()).unwrap();
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
            // So that the log since then is not read.
            "UPDATE kept SET until_us = 9000000000000000",
            "DELETE FROM kept",
            "DELETE FROM vouched",
            "UPDATE vouched SET code = upper(code)",
            "CREATE TABLE more (x)",
            // What an earlier version saved.
            "DROP TABLE vouched",
        ] {
            std::fs::write(&file, &whole).unwrap();
            let connection = Connection::open(&file).unwrap();
            connection.execute_batch(edit).unwrap();
            drop(connection);
            assert!(is_foreign(&file, &key).unwrap(), "{edit}");
            if !edit.starts_with("CREATE") {
                assert_eq!(open().load().unwrap(), StoredUsage::default(), "{edit}");
                // It continues, and is the gateway's own again.
                open().save(&[used("a", 100, 10)], 3_000).unwrap();
                assert_eq!(open().load().unwrap().usage, [used("a", 100, 10)], "{edit}");
                assert!(!is_foreign(&file, &key).unwrap(), "{edit}");
            }
        }
        // The next save does not authenticate changes by anybody else while the gateway runs.
        for edit in [
            "UPDATE usage SET used = 0 WHERE grant_id = 'b'",
            "INSERT INTO usage VALUES ('c', 100, 1)",
            "DELETE FROM usage WHERE grant_id = 'b'",
            // Equal rows, in a table that allows them.
            "CREATE TABLE other (grant_id TEXT, day INTEGER NOT NULL, used INTEGER NOT NULL) STRICT;
             INSERT INTO other SELECT * FROM usage; INSERT INTO other VALUES ('c', 100, 1), ('c', 100, 1);
             DROP TABLE usage; ALTER TABLE other RENAME TO usage",
        ] {
            std::fs::write(&file, &whole).unwrap();
            let store = open();
            assert_eq!(store.load().unwrap(), kept);
            Connection::open(&file).unwrap().execute_batch(edit).unwrap();
            store.save(&[used("a", 100, 11)], 4_000).unwrap();
            drop(store);
            assert!(is_foreign(&file, &key).unwrap(), "{edit}");
        }
        // Another gateway's file, and another key.
        std::fs::write(&file, &whole).unwrap();
        std::fs::remove_file(folder.path().join("keys/acts.key")).unwrap();
        let other = AdminEventKey::make(&registry, &Vault::default()).unwrap();
        assert!(is_foreign(&file, &other).unwrap());
        assert_eq!(UsageStore::open(&file, other).unwrap().load().unwrap(), StoredUsage::default());
        std::fs::write(&file, b"no database at all, and long enough for one").unwrap();
        assert!(is_foreign(&file, &key).is_err());
    }
}
