//! Admin events on their way into the exchange log: each is recorded with its change in one transaction, with its number in the sequence of
//! all events and a code over both, and is accepted only with that code.

use super::super::admin_event::{ObjectChange, parts};
use super::super::admin_event_key::{AdminEventKey, Origin};
use super::super::{Actor, AdminEvent, LoggedEvent, RefusedEvent, RegistryError};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};

/// What is recorded of an event in addition to its changes.
pub(super) struct EventNote<'n> {
    pub(super) key: &'n AdminEventKey,
    pub(super) event: &'n str,
    pub(super) object: &'n str,
    pub(super) actor: &'n Actor,
    pub(super) justification: &'n str,
}

impl EventNote<'_> {
    /// Writes the event, in as many rows as it needs entries, and returns them. Within an exclusive write transaction.
    pub(super) fn write(
        &self,
        connection: &Connection,
        changes: Vec<ObjectChange>,
        approved_by: &str,
    ) -> Result<Vec<AdminEvent>, RegistryError> {
        let mut events = Vec::new();
        for part in parts(changes) {
            let changes = serde_json::to_string(&part).map_err(|error| RegistryError::Store(error.to_string()))?;
            let event = AdminEvent {
                sequence: last(connection)? + 1,
                id: *uuid::Uuid::now_v7().as_bytes(),
                time_us: crate::exchange_log::clock::now_us(),
                actor: self.actor.to_string(),
                certificate: self.actor.thumbprint().to_vec(),
                identity_provider: self.actor.provider().to_owned(),
                address: self.actor.address().to_owned(),
                event: self.event.to_owned(),
                object: self.object.to_owned(),
                approved_by: approved_by.to_owned(),
                justification: self.justification.to_owned(),
                changes: part,
            };
            let code = self.key.code(Origin::Logged, &event, &changes);
            let sql = "INSERT INTO acts (seq, id, time_us, actor, act, object, certificate, address, approved_by,
                       justification, changes, code, identity_provider)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
            connection.prepare_cached(sql)?.execute(params![
                number(event.sequence),
                event.id.as_slice(),
                event.time_us,
                event.actor,
                event.event,
                event.object,
                event.certificate,
                event.address,
                event.approved_by,
                event.justification,
                changes,
                code.as_slice(),
                event.identity_provider,
            ])?;
            events.push(event);
        }
        Ok(events)
    }
}

fn number(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}

/// Returns the last number of the sequence that was given to any event, whether its row still exists or not.
pub(super) fn last(connection: &Connection) -> Result<u64, RegistryError> {
    let sql = "SELECT COALESCE(MAX(seq), 0) FROM (SELECT seq FROM sqlite_sequence WHERE name = 'acts'
               UNION ALL SELECT MAX(seq) FROM acts)";
    let last: i64 = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    Ok(last.unsigned_abs())
}

/// Sets the minimum number of the next event to one after this.
pub(super) fn note_after(connection: &Connection, sequence: u64) -> Result<(), RegistryError> {
    if last(connection)? < sequence {
        let sequence = number(sequence);
        if connection.execute("UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'acts'", [sequence])? == 0 {
            connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('acts', ?1)", [sequence])?;
        }
    }
    Ok(())
}

/// Authenticates the events of an older version's file, which is upgraded to this one.
pub(super) fn adopt(connection: &Connection, key: &AdminEventKey) -> Result<(), RegistryError> {
    let rows = read(connection, "SELECT * FROM acts ORDER BY seq", [], |row| {
        Ok((row.get::<_, i64>("seq")?, whole(row).map(|(event, changes, _)| (event, changes))))
    })?;
    for (sequence, row) in rows {
        // A row that cannot be read is refused later, and reported.
        if let Some((event, changes)) = row {
            let code = key.code(Origin::Upgraded, &event, &changes);
            connection.execute("UPDATE acts SET code = ?2 WHERE seq = ?1", params![sequence, code.as_slice()])?;
        }
    }
    Ok(())
}

/// Maximum number of rows that are returned at once: each may be as large as an entry.
const HANDED_OVER: i64 = 200;
/// Rows of events that a comparison reads. More of them wait only if no gateway runs; their changes count as not
/// logged.
const COMPARED: i64 = 100_000;

/// Returns the oldest rows after a number in the sequence.
pub(super) fn noted(
    connection: &Connection,
    key: &AdminEventKey,
    after: u64,
) -> Result<Vec<LoggedEvent>, RegistryError> {
    let sql = "SELECT * FROM acts WHERE seq > ?1 ORDER BY seq LIMIT ?2";
    read(connection, sql, [number(after), HANDED_OVER], |row| checked(row, Some(key)))
}

/// Returns all rows. Without the key, none is accepted.
pub(super) fn all_noted(
    connection: &Connection,
    key: Option<&AdminEventKey>,
) -> Result<Vec<LoggedEvent>, RegistryError> {
    read(connection, "SELECT * FROM acts ORDER BY seq LIMIT ?1", [COMPARED], |row| checked(row, key))
}

/// Returns the number of rows up to a number in the sequence, and the first of them.
pub(super) fn left(
    connection: &Connection,
    key: &AdminEventKey,
    until: u64,
) -> Result<(u64, Option<LoggedEvent>), RegistryError> {
    let count = "SELECT COUNT(*) FROM acts WHERE seq <= ?1";
    let count: i64 = connection.prepare_cached(count)?.query_row([number(until)], |row| row.get(0))?;
    let sql = "SELECT * FROM acts WHERE seq <= ?1 ORDER BY seq LIMIT 1";
    let first = read(connection, sql, [number(until)], |row| checked(row, Some(key)))?;
    Ok((count.unsigned_abs(), first.into_iter().next()))
}

fn read<T>(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, RegistryError> {
    super::all(connection, sql, params, read)
}

/// Reads a row as an event, the text of its changes, and its code; `None` if it cannot be read as one.
fn whole(row: &Row<'_>) -> Option<(AdminEvent, String, Vec<u8>)> {
    let changes: String = row.get("changes").ok()?;
    let event = AdminEvent {
        sequence: row.get::<_, i64>("seq").ok()?.try_into().ok()?,
        id: row.get("id").ok()?,
        time_us: row.get("time_us").ok()?,
        actor: row.get("actor").ok()?,
        certificate: row.get("certificate").ok()?,
        identity_provider: row.get("identity_provider").ok()?,
        address: row.get("address").ok()?,
        event: row.get("act").ok()?,
        object: row.get("object").ok()?,
        approved_by: row.get("approved_by").ok()?,
        justification: row.get("justification").ok()?,
        changes: serde_json::from_str(&changes).ok()?,
    };
    Some((event, changes, row.get("code").ok()?))
}

/// Reads a row, and authenticates it.
fn checked(row: &Row<'_>, key: Option<&AdminEventKey>) -> rusqlite::Result<LoggedEvent> {
    let Some((event, changes, code)) = whole(row) else { return Ok(LoggedEvent::Refused(unreadable(row)?)) };
    Ok(match key.and_then(|key| key.origin(&event, &changes, &code)) {
        Some(Origin::Logged) => LoggedEvent::Authentic(event),
        Some(Origin::Upgraded) => LoggedEvent::Upgraded(event),
        None => LoggedEvent::Refused(RefusedEvent::from(&event)),
    })
}

/// Describes a row that is not an event.
fn unreadable(row: &Row<'_>) -> rusqlite::Result<RefusedEvent> {
    let text = |column: &str| match row.get_ref(column) {
        Ok(ValueRef::Text(text)) => String::from_utf8_lossy(text).into_owned(),
        _ => "?".to_owned(),
    };
    let sequence = row.get::<_, i64>("seq")?.try_into().unwrap_or_default();
    Ok(RefusedEvent::new(
        sequence,
        &format!("{} of {} by {}, which cannot be read", text("act"), text("object"), text("actor")),
    ))
}
