//! A registry of an older version, whose events in the log did not hold their changes: everything is restated once, so
//! that from then on the registry can be recomputed from the log alone. The gateway logs this only if the log has no
//! registry yet.

use super::super::admin_event::{MAX_CHANGES_BYTES, ObjectChange};
use super::super::{Actor, AdminEventKey, RegistryError, TokenRecord};
use super::admin_events::EventNote;
use super::rows::{read_client, read_grant, read_key, read_staff, read_token};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row};
use serde::Serialize;
use std::path::Path;

/// The event that records an older version's complete registry, once in the life of a log.
pub const ADOPT_EVENT: &str = "registry.adopt";

/// Events in progress: a registry of a million grants is never in memory completely.
struct RestatedEvents<'c> {
    connection: &'c Connection,
    key: &'c AdminEventKey,
    /// The object of all its events, which marks them as belonging together.
    object: String,
    changes: Vec<ObjectChange>,
    size: usize,
}

impl RestatedEvents<'_> {
    fn table<T: Serialize>(
        &mut self,
        kind: &str,
        sql: &str,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<(String, T)>,
    ) -> Result<(), RegistryError> {
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (id, record) = read(row)?;
            // Written as an unchanged record: a record of an older version may be larger than new ones.
            let change = ObjectChange::new(format!("{kind}:{id}"), Some(&record), Some(&record))?;
            let change = ObjectChange { before: "null".into(), ..change };
            self.size += change.size();
            if self.size > MAX_CHANGES_BYTES {
                self.write()?;
                self.size = change.size();
            }
            self.changes.push(change);
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), RegistryError> {
        let changes = std::mem::take(&mut self.changes);
        let (key, object) = (self.key, self.object.as_str());
        let note = EventNote { key, event: ADOPT_EVENT, object, actor: &Actor::System, justification: "" };
        if changes.is_empty() { Ok(()) } else { note.write(self.connection, changes, "").map(drop) }
    }
}

/// Restates everything, as events of the gateway itself.
pub(super) fn restate(connection: &Connection, issued: &Path, key: &AdminEventKey) -> Result<(), RegistryError> {
    let object = format!("registry:{}", uuid::Uuid::now_v7().simple());
    let mut restating = RestatedEvents { connection, key, object, changes: Vec::new(), size: 0 };
    restating.table("client", "SELECT * FROM clients ORDER BY id", |row| Ok((row.get("id")?, read_client(row)?)))?;
    restating.table("grant", "SELECT * FROM grants ORDER BY id", |row| Ok((row.get("id")?, read_grant(row)?)))?;
    restating.table("staff", "SELECT * FROM staff ORDER BY id", |row| Ok((row.get("id")?, read_staff(row)?)))?;
    restating.table("key", "SELECT * FROM keys ORDER BY kid", |row| Ok((row.get("kid")?, read_key(row)?)))?;
    let issued = Connection::open_with_flags(issued, OpenFlags::SQLITE_OPEN_READ_ONLY).ok();
    let token = |id: &str| {
        let mut read = issued.as_ref()?.prepare_cached("SELECT *, 1 AS revoked FROM tokens WHERE id = ?1").ok()?;
        read.query_row([id], read_token).optional().ok()?
    };
    restating.table("token", "SELECT token, expires FROM revocations ORDER BY token", |row| {
        let (id, expires): (String, i64) = (row.get(0)?, row.get(1)?);
        // If a token's record is gone, the known fields stand for it.
        let unknown = || TokenRecord { id: id.clone(), expires, ..TokenRecord::default() };
        let record = TokenRecord { revoked: true, ..token(&id).unwrap_or_else(unknown) };
        Ok((id, record))
    })?;
    restating.write()
}
