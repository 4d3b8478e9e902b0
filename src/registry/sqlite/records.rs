//! The registry's file as records in canonical form, at one moment, for the comparison with the exchange log.

use super::super::admin_event::{ObjectChange, canonical_json};
use super::super::{Actor, AdminEventKey, LoggedEvent, RegistryError};
use super::admin_events::{self, EventNote};
use super::pending::read_pending;
use super::rows::{read_client, read_grant, read_key, read_notice, read_staff, read_token};
use super::{SqliteStore, all, replica, schema};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row, TransactionBehavior};
use serde::Serialize;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// A registry's file at one moment, opened read-only.
pub struct RegistryFile(Connection);

/// A mark that shows whether anybody has written to a registry's file: the file's identity, and SQLite's count of
/// writes for each connection. A write that restores the old content counts all the same.
pub struct FileMark {
    connection: Connection,
    file: (u64, u64),
    version: i64,
}

impl FileMark {
    /// Returns the present mark of a file, and whether it equals the previous one.
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

/// A record of the file.
#[derive(Debug, PartialEq, Eq)]
pub enum FileRecord {
    /// A client, grant, person, key, or pending change: `kind:id`, and its record as canonical JSON.
    Complete(String, String),
    /// A token (`token:ID`) is revoked, and would expire then (Unix time in seconds).
    Revoked(String, i64),
    /// A certificate name, and its owner (`kind:id`).
    Name(String, String),
    /// A part of the file itself (`table …`, `column …`, `trigger …`), and whether it exists and should not, or the
    /// other way round.
    Shape(String, bool),
}

/// Columns that hold a list as JSON; anything else is read as an empty list.
const LISTS: [&str; 6] = ["names", "roles", "scopes", "purposes", "fields", "networks"];
/// Columns that hold a boolean.
const FLAGS: [&str; 4] = ["suspended", "retired", "needs_approval", "withdrawn"];

/// Adds the raw values of a row to its canonical form if a gateway would not have written them: a list that is invalid,
/// a flag that is no boolean, a quota below zero, an actor that cannot be read. Whatever a gateway makes of it,
/// somebody else wrote it.
fn as_written(row: &Row<'_>, record: &mut serde_json::Value) -> Result<(), RegistryError> {
    let Some(fields) = record.as_object_mut() else { return Ok(()) };
    for (at, name) in row.as_ref().column_names().enumerate() {
        let text = match row.get_ref(at)? {
            ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            ValueRef::Integer(number) => number.to_string(),
            _ => continue,
        };
        let is_list = || serde_json::from_str::<Vec<String>>(&text).is_ok();
        let is_good = match name {
            list if LISTS.contains(&list) => is_list(),
            flag if FLAGS.contains(&flag) => text == "0" || text == "1",
            "daily_quota" => !text.starts_with('-'),
            "requester" => text.is_empty() || serde_json::from_str::<Actor>(&text).is_ok(),
            _ => true,
        };
        if !is_good {
            fields.insert(name.to_owned(), text.into());
        }
    }
    Ok(())
}

/// Tables with records: kind, statement.
const TABLES: [(&str, &str); 6] = [
    ("client", "SELECT * FROM clients"),
    ("grant", "SELECT * FROM grants"),
    ("staff", "SELECT * FROM staff"),
    ("key", "SELECT * FROM keys"),
    ("change", "SELECT * FROM pending"),
    ("notice", "SELECT * FROM notices"),
];

fn json<T: Serialize>(record: &T) -> Result<serde_json::Value, RegistryError> {
    serde_json::to_value(record).map_err(|error| RegistryError::Store(error.to_string()))
}

/// Returns the id and the record of a row.
fn whole(kind: &str, row: &Row<'_>) -> Result<(String, String), RegistryError> {
    let id = row.get(match kind {
        "key" => "kid",
        "notice" => "source",
        _ => "id",
    })?;
    let mut record = match kind {
        "client" => json(&read_client(row)?),
        "grant" => json(&read_grant(row)?),
        "staff" => json(&read_staff(row)?),
        "change" => json(&read_pending(row)?),
        "notice" => json(&read_notice(row)?),
        _ => json(&read_key(row)?),
    }?;
    as_written(row, &mut record)?;
    Ok((id, canonical_json(&record)))
}

impl RegistryFile {
    /// Opens the present registry of a data folder.
    ///
    /// # Errors
    /// The file cannot be opened, or is none.
    pub fn open(path: &Path) -> Result<Self, RegistryError> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.execute_batch("BEGIN; SELECT COUNT(*) FROM changes;")?;
        Ok(RegistryFile(connection))
    }

    /// Returns events that are not in the exchange log yet, in the order of the events. Without the key that
    /// authenticates them, none is accepted.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn admin_events(&self, key: Option<&AdminEventKey>) -> Result<Vec<LoggedEvent>, RegistryError> {
        admin_events::all_noted(&self.0, key)
    }

    /// Returns the number of the last admin event that a replica has applied; `None` for a registry of a single gateway.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn replica_events(&self) -> Result<Option<u64>, RegistryError> {
        Ok(replica::position_in(&self.0)?.map(|position| position.events))
    }

    /// Returns the first fault that SQLite itself finds in the file; `None` if there is none. It reads the complete
    /// file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn check_fault(&self) -> Result<Option<String>, RegistryError> {
        damage(&self.0)
    }

    /// Visits every record of the file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn records(&self, take: &mut dyn FnMut(FileRecord)) -> Result<(), RegistryError> {
        let (gone, strange) = schema::deviations(&self.0)?;
        gone.into_iter().for_each(|part| take(FileRecord::Shape(part, false)));
        strange.into_iter().for_each(|part| take(FileRecord::Shape(part, true)));
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

/// Returns the first fault that SQLite finds in a file: also an index without an entry for a row, which can then no
/// longer be found by it.
fn damage(connection: &Connection) -> Result<Option<String>, RegistryError> {
    let found: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    Ok((found != "ok").then_some(found))
}

/// The file of issued tokens beside a registry, opened read-only.
pub struct IssuedFile(Connection);

impl IssuedFile {
    /// Returns the first difference from the schema that a gateway creates; `None` if there is none.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn schema_fault(&self) -> Result<Option<String>, RegistryError> {
        let version: i64 = self.0.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let (gone, strange) = schema::issued_deviations(&self.0)?;
        let older = (version < schema::VERSION).then(|| format!("version {version}"));
        Ok(strange.into_iter().chain(gone.into_iter().map(|part| format!("without {part}"))).chain(older).next())
    }

    /// Opens the file beside this registry; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(registry: &Path) -> Result<Option<Self>, RegistryError> {
        let path = schema::issued_path(registry);
        if !path.exists() {
            return Ok(None);
        }
        let connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        Ok(Some(IssuedFile(connection)))
    }

    /// Returns the first fault that SQLite itself finds in the file; `None` if there is none.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn check_fault(&self) -> Result<Option<String>, RegistryError> {
        damage(&self.0)
    }

    /// Passes the tokens that expire after a time to `take`: each id, and its record at its issue, as canonical JSON.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn valid(&self, after: i64, take: &mut dyn FnMut(String, String)) -> Result<(), RegistryError> {
        let mut statement = self.0.prepare("SELECT tokens.*, 0 AS revoked FROM tokens WHERE expires > ?1")?;
        let mut rows = statement.query([after])?;
        while let Some(row) = rows.next()? {
            let token = read_token(row)?;
            let record = canonical_json(&json(&token)?);
            take(token.id, record);
        }
        Ok(())
    }

    /// The same for one token.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn record(&self, id: &str) -> Result<Option<String>, RegistryError> {
        let sql = "SELECT tokens.*, 0 AS revoked FROM tokens WHERE id = ?1";
        let mut records = all(&self.0, sql, [id], read_token)?;
        records.pop().map(|token| Ok(canonical_json(&json(&token)?))).transpose()
    }
}

/// The event that restates objects before the entries that record them are pruned.
pub const RESTATE_EVENT: &str = "registry.restate";

impl SqliteStore {
    /// Restates objects (`kind:id`) as the exchange log has them: events of the gateway itself, which go into the log
    /// like every other one. Nothing of it comes from the file.
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
