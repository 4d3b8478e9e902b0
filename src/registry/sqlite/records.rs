//! The registry's file as records in their canonical form, at one moment: what is compared with the exchange log.

use super::super::act::{Change, canonical_json};
use super::super::{Act, Actor, RegistryError};
use super::changing::Note;
use super::pending::read_pending;
use super::rows::{read_client, read_grant, read_key, read_staff, read_token};
use super::{SqliteStore, all, changing};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, TransactionBehavior, params};
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// A registry's file at one moment; nothing is written to it.
pub struct RegistryFile(Connection);

/// What the file says.
#[derive(Debug, PartialEq, Eq)]
pub enum FileRecord {
    /// A client, grant, person, key, or change that waits for a second person: `kind:id`, and its record as canonical JSON.
    Whole(String, String),
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
    /// Opens the registry of a data folder at this moment.
    pub fn open(path: &Path) -> Result<Self, RegistryError> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.execute_batch("BEGIN; SELECT COUNT(*) FROM changes;")?;
        Ok(RegistryFile(connection))
    }

    /// Acts that are not in the exchange log yet, in the order in which they were done.
    pub fn acts(&self) -> Result<Vec<Act>, RegistryError> {
        changing::all_acts(&self.0)
    }

    /// Hands over everything that the file says.
    pub fn records(&self, take: &mut dyn FnMut(FileRecord)) -> Result<(), RegistryError> {
        for (kind, sql) in TABLES {
            let mut statement = self.0.prepare(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let (id, record) = whole(kind, row)?;
                take(FileRecord::Whole(format!("{kind}:{id}"), record));
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

/// The act that restates objects before the entries that told of them are pruned.
pub const RESTATE_ACT: &str = "registry.restate";

impl SqliteStore {
    /// Restates these objects (`kind:id`) as they are now: acts of the gateway itself, which go into the exchange log like
    /// every act. One that is not there is left out.
    pub fn restate(&self, objects: &[String]) -> Result<(), RegistryError> {
        let mut connection = self.connection();
        let now = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut changes = Vec::new();
        for object in objects {
            let Some((kind, id)) = object.split_once(':') else { continue };
            let after = match TABLES.iter().find(|(table, _)| *table == kind) {
                Some((_, sql)) => {
                    let key = if kind == "key" { "kid" } else { "id" };
                    let mut statement = now.prepare_cached(&format!("{sql} WHERE {key} = ?1"))?;
                    let mut rows = statement.query([id])?;
                    rows.next()?.map(|row| whole(kind, row)).transpose()?.map(|(_, record)| record)
                }
                None if kind == "token" => self.revoked(&now, id)?,
                None => None,
            };
            if let Some(after) = after {
                changes.push(Change { object: object.clone(), before: "null".into(), after });
            }
        }
        let note = Note { act: RESTATE_ACT, object: "registry", actor: &Actor::System, justification: "" };
        note.write(&now, changes, "")?;
        now.commit()?;
        Ok(())
    }

    /// The record of a revoked token; of one whose own record was removed, what is known stands for it.
    fn revoked(&self, now: &Connection, id: &str) -> Result<Option<String>, RegistryError> {
        let sql = "SELECT expires FROM revocations WHERE token = ?1";
        let Some(expires) = now.query_row(sql, params![id], |row| row.get::<_, i64>(0)).optional()? else {
            return Ok(None);
        };
        let sql = "SELECT *, 1 AS revoked FROM tokens WHERE id = ?1";
        let known = self.issued().query_row(sql, [id], read_token).optional()?;
        let unknown = || super::super::TokenRecord { id: id.to_owned(), expires, ..Default::default() };
        let record = known.unwrap_or_else(unknown);
        Ok(Some(json(&super::super::TokenRecord { revoked: true, ..record })?))
    }
}
