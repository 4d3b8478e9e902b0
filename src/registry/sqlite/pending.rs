//! Pending changes. `approval` defines how they end.

use super::super::admin_event::canonical_json;
use super::super::pending::{MAX_PENDING, MAX_PENDING_OF_ONE, PENDING_S};
use super::super::{Actor, ChangeOutcome, PendingChange, RegistryError, Role, now};
use super::changing::Changing;
use super::read::person;
use super::{all, one};
use rusqlite::{Connection, Row, params};
use serde::Serialize;
use serde_json::Value;

const WHAT: &str = "change that waits for approval";

pub(super) fn read_pending(row: &Row<'_>) -> rusqlite::Result<PendingChange> {
    // A record that cannot be read equals no state of the registry, and so is never approved.
    let value = |text: String| serde_json::from_str(&text).unwrap_or_else(|_| Value::from(text));
    Ok(PendingChange {
        id: row.get("id")?,
        event: row.get("act")?,
        object: row.get("object")?,
        before: value(row.get("before")?),
        after: value(row.get("after")?),
        requested_by: row.get("requested_by")?,
        requester: serde_json::from_str(&row.get::<_, String>("requester")?).ok(),
        justification: row.get("justification")?,
        requested: row.get("requested")?,
        ends: row.get("ends")?,
    })
}

/// Returns pending changes, oldest first, after an id, at most `most`.
pub(super) fn list(connection: &Connection, after: &str, most: usize) -> Result<Vec<PendingChange>, RegistryError> {
    let sql = "SELECT * FROM pending WHERE id > ?1 AND ends > ?2 ORDER BY id LIMIT ?3";
    all(connection, sql, params![after, now(), i64::try_from(most).unwrap_or(i64::MAX)], read_pending)
}

/// Returns the requester in the form in which a pending change stores it.
pub(super) fn requester(actor: &Actor) -> Result<String, RegistryError> {
    serde_json::to_string(actor).map_err(|error| RegistryError::Store(error.to_string()))
}

pub(super) fn json<T: Serialize>(record: Option<&T>) -> Result<Value, RegistryError> {
    serde_json::to_value(record).map_err(|error| RegistryError::Store(error.to_string()))
}

/// Counts pending changes and grants, of one requester or of all.
const COUNT: &str = "SELECT (SELECT COUNT(*) FROM pending WHERE ends > ?2 AND (?1 = '' OR requested_by = ?1))
    + (SELECT COUNT(*) FROM grants WHERE NOT withdrawn AND needs_approval AND approved_by IS NULL AND not_after > ?2
       AND (?1 = '' OR requested_by = ?1))";

fn count_of(connection: &Connection, requester: &str) -> Result<i64, RegistryError> {
    Ok(connection.prepare_cached(COUNT)?.query_row(params![requester, now()], |row| row.get(0))?)
}

/// Returns the number of pending changes and grants.
pub(super) fn count(connection: &Connection) -> Result<u64, RegistryError> {
    Ok(count_of(connection, "")?.unsigned_abs())
}

/// Refuses more pending changes than the limits allow.
pub(super) fn must_have_room(changing: &Changing<'_>) -> Result<(), RegistryError> {
    let own = count_of(changing, &changing.actor.to_string())?;
    if own >= MAX_PENDING_OF_ONE || count_of(changing, "")? >= MAX_PENDING {
        return Err(RegistryError::Full("changes wait for approval: have some approved or rejected first"));
    }
    Ok(())
}

/// Stores a change that waits for a second person.
pub(super) fn ask<T: Serialize>(
    changing: &mut Changing<'_>,
    event: &str,
    object: &str,
    before: Option<&T>,
    after: &T,
) -> Result<ChangeOutcome, RegistryError> {
    let by = changing.actor.to_string();
    must_have_room(changing)?;
    let pending = PendingChange {
        id: format!("c-{}", uuid::Uuid::now_v7().simple()),
        event: event.to_owned(),
        object: object.to_owned(),
        before: json(before)?,
        after: json(Some(after))?,
        requested_by: by,
        requester: Some(changing.actor.clone()),
        justification: changing.justification.to_owned(),
        requested: now(),
        ends: now() + PENDING_S,
    };
    let row = params![
        pending.id,
        pending.event,
        pending.object,
        canonical_json(&pending.before),
        canonical_json(&pending.after),
        pending.requested_by,
        requester(changing.actor)?,
        pending.justification,
        pending.requested,
        pending.ends
    ];
    let sql = "INSERT INTO pending (id, act, object, before, after, requested_by, requester, justification, requested,
               ends) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    changing.execute(sql, row)?;
    changing.record("change", &pending.id, None, Some(&pending))?;
    Ok(ChangeOutcome::PendingApproval(Box::new(pending)))
}

pub(super) fn read(changing: &Changing<'_>, id: &str) -> Result<PendingChange, RegistryError> {
    let pending = one(changing, "SELECT * FROM pending WHERE id = ?1", WHAT, id, read_pending)?;
    if pending.ends > now() { Ok(pending) } else { Err(RegistryError::Unknown(WHAT, id.to_owned())) }
}

/// Removes a pending change.
pub(super) fn settle(changing: &mut Changing<'_>, pending: &PendingChange) -> Result<(), RegistryError> {
    changing.execute("DELETE FROM pending WHERE id = ?1", [&pending.id])?;
    changing.record("change", &pending.id, Some(pending), None)
}

/// Returns whether somebody has a role now, whatever an earlier snapshot says.
pub(super) fn has_role(changing: &Changing<'_>, id: &str, role: Role) -> Result<bool, RegistryError> {
    match person(changing, id) {
        Ok(person) => Ok(person.roles.contains(&role)),
        Err(RegistryError::Unknown(..)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Refuses an approval unless the actor is another member of staff than the requester, with the role.
pub(super) fn must_be_another(changing: &Changing<'_>, requester: Option<&Actor>) -> Result<(), RegistryError> {
    let Some(id) = changing.actor.staff() else {
        return Err(RegistryError::Forbidden("only a member of staff approves: locally one asks"));
    };
    match requester {
        None => Err(RegistryError::Forbidden("its requester cannot be read: request it again")),
        Some(requester) if changing.actor.is_same_person(requester) => {
            Err(RegistryError::Forbidden("another person than its requester must approve it"))
        }
        Some(_) if !has_role(changing, id, Role::Approver)? => {
            Err(RegistryError::Forbidden("only an approver approves"))
        }
        Some(_) => Ok(()),
    }
}
