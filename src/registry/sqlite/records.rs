//! The registry's file as records in their canonical form, at one moment: what is compared with the exchange log.

use super::super::admin_event::{ObjectChange, canonical_json};
use super::super::{Actor, AdminEventKey, LoggedEvent, RegistryError};
use super::admin_events::{self, EventNote};
use super::pending::read_pending;
use super::rows::{read_client, read_grant, read_key, read_staff};
use super::{SqliteStore, all};
use rusqlite::{Connection, OpenFlags, Row, TransactionBehavior};
use serde::Serialize;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// A registry's file at one moment; nothing is written to it.
pub struct RegistryFile(Connection);

/// What a registry's file looks like, as far as it takes to know that nobody has written to it: which file it is, and how often
/// it was written to, which SQLite counts for each connection. It may go back to what it was, and counts all the same.
pub struct FileMark {
    connection: Connection,
    file: (u64, u64),
    version: i64,
}

impl FileMark {
    /// How a file looks now, and whether that is as it did before.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn of(path: &Path, before: Option<FileMark>) -> Result<(Self, bool), RegistryError> {
        let file = std::fs::metadata(path).map(|file| (file.dev(), file.ino()));
        let file = file.map_err(|error| RegistryError::Store(format!("{}: {error}", path.display())))?;
        let version =
            |connection: &Connection| connection.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0));
        if let Some(before) = before.filter(|before| before.file == file) {
            let now = version(&before.connection)?;
            let same = now == before.version;
            return Ok((FileMark { version: now, ..before }, same));
        }
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        let version = version(&connection)?;
        Ok((FileMark { connection, file, version }, false))
    }
}

/// What the file says.
#[derive(Debug, PartialEq, Eq)]
pub enum FileRecord {
    /// A client, grant, person, key, or change that waits for a second person: `kind:id`, and its record as canonical JSON.
    Complete(String, String),
    /// A token (`token:ID`) is revoked, and would end then (Unix time in seconds).
    Revoked(String, i64),
    /// A certificate name, and who holds it (`kind:id`).
    Name(String, String),
}

/// Tables whose rows are records: kind, statement.
const TABLES: [(&str, &str); 5] = [
    ("client", "SELECT * FROM clients"),
    ("grant", "SELECT * FROM grants"),
    ("staff", "SELECT * FROM staff"),
    ("key", "SELECT * FROM keys"),
    ("change", "SELECT * FROM pending"),
];

fn json<T: Serialize>(record: &T) -> Result<String, RegistryError> {
    let value = serde_json::to_value(record).map_err(|error| RegistryError::Store(error.to_string()))?;
    Ok(canonical_json(&value))
}

/// The id and the record of a row.
fn whole(kind: &str, row: &Row<'_>) -> Result<(String, String), RegistryError> {
    let id = row.get(if kind == "key" { "kid" } else { "id" })?;
    let record = match kind {
        "client" => json(&read_client(row)?),
        "grant" => json(&read_grant(row)?),
        "staff" => json(&read_staff(row)?),
        "change" => json(&read_pending(row)?),
        _ => json(&read_key(row)?),
    };
    Ok((id, record?))
}

impl RegistryFile {
    /// Opens the registry of a data folder as it is now.
    ///
    /// # Errors
    /// The file cannot be opened, or is none.
    pub fn open(path: &Path) -> Result<Self, RegistryError> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.execute_batch("BEGIN; SELECT COUNT(*) FROM changes;")?;
        Ok(RegistryFile(connection))
    }

    /// Events that are not in the exchange log yet, in the order in which they were done. Without the key that vouches for them,
    /// none is believed.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn admin_events(&self, key: Option<&AdminEventKey>) -> Result<Vec<LoggedEvent>, RegistryError> {
        admin_events::all_noted(&self.0, key)
    }

    /// Visits every record of the file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn records(&self, take: &mut dyn FnMut(FileRecord)) -> Result<(), RegistryError> {
        for (kind, sql) in TABLES {
            let mut statement = self.0.prepare(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let (id, record) = whole(kind, row)?;
                take(FileRecord::Complete(format!("{kind}:{id}"), record));
            }
        }
        all(&self.0, "SELECT token, expires FROM revocations", [], |row| {
            take(FileRecord::Revoked(format!("token:{}", row.get::<_, String>(0)?), row.get(1)?));
            Ok(())
        })?;
        all(&self.0, "SELECT name, kind || ':' || id FROM identities", [], |row| {
            take(FileRecord::Name(row.get(0)?, row.get(1)?));
            Ok(())
        })?;
        Ok(())
    }
}

/// The event that restates objects before the entries that told of them are pruned.
pub const RESTATE_EVENT: &str = "registry.restate";

impl SqliteStore {
    /// Restates objects (`kind:id`) as the exchange log has them: acts of the gateway itself, which go into the log like every event.
    /// Nothing of it comes from the file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn restate(&self, changes: Vec<ObjectChange>) -> Result<(), RegistryError> {
        let mut connection = self.connection();
        let whole = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let note = EventNote {
            key: self.key(),
            event: RESTATE_EVENT,
            object: "registry",
            actor: &Actor::System,
            justification: "",
        };
        note.write(&whole, changes, "")?;
        whole.commit()?;
        Ok(())
    }
}
