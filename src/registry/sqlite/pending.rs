//! Changes that wait for a second person, and what is approved.

use super::super::act::canonical_json;
use super::super::pending::{MAX_PENDING, MAX_PENDING_OF_ONE, PENDING_S};
use super::super::{Actor, Client, Grant, Outcome, PendingChange, RegistryError, Role, Staff, now};
use super::changing::{Changing, Touched};
use super::rows::read_grant;
use super::{SqliteStore, all, clients, grants, one, people};
use rusqlite::{Connection, Row, params};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

const WHAT: &str = "change that waits for approval";

pub(super) fn read_pending(row: &Row<'_>) -> rusqlite::Result<PendingChange> {
    // A record that cannot be read equals no state of the registry, and so is never approved.
    let value = |text: String| serde_json::from_str(&text).unwrap_or_else(|_| Value::from(text));
    Ok(PendingChange {
        id: row.get("id")?,
        act: row.get("act")?,
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

/// Those that wait, oldest first, after an id, at most so many.
pub(super) fn list(connection: &Connection, after: &str, most: usize) -> Result<Vec<PendingChange>, RegistryError> {
    let sql = "SELECT * FROM pending WHERE id > ?1 AND ends > ?2 ORDER BY id LIMIT ?3";
    all(connection, sql, params![after, now(), i64::try_from(most).unwrap_or(i64::MAX)], read_pending)
}

fn json<T: Serialize>(record: Option<&T>) -> Result<Value, RegistryError> {
    serde_json::to_value(record).map_err(|error| RegistryError::Store(error.to_string()))
}

fn record<T: DeserializeOwned>(value: &Value) -> Result<T, RegistryError> {
    serde_json::from_value(value.clone())
        .map_err(|error| RegistryError::Store(format!("a change that waits cannot be read: {error}")))
}

/// Changes and grants that wait, of one requester or of all.
const COUNT: &str = "SELECT (SELECT COUNT(*) FROM pending WHERE ends > ?2 AND (?1 = '' OR requested_by = ?1))
    + (SELECT COUNT(*) FROM grants WHERE NOT withdrawn AND needs_approval AND approved_by IS NULL AND not_after > ?2
       AND (?1 = '' OR requested_by = ?1))";

fn count_of(connection: &Connection, requester: &str) -> Result<i64, RegistryError> {
    Ok(connection.prepare_cached(COUNT)?.query_row(params![requester, now()], |row| row.get(0))?)
}

/// How many changes and grants wait.
pub(super) fn count(connection: &Connection) -> Result<u64, RegistryError> {
    Ok(count_of(connection, "")?.unsigned_abs())
}

/// Refuses to have more wait for a second person than the bounds allow.
pub(super) fn must_have_room(changing: &Changing<'_>) -> Result<(), RegistryError> {
    let own = count_of(changing, &changing.actor.to_string())?;
    if own >= MAX_PENDING_OF_ONE || count_of(changing, "")? >= MAX_PENDING {
        return Err(RegistryError::Full("changes wait for approval: have some approved or rejected first"));
    }
    Ok(())
}

/// Puts a change down to wait for a second person.
pub(super) fn ask<T: Serialize>(
    changing: &mut Changing<'_>,
    act: &str,
    object: &str,
    before: Option<&T>,
    after: &T,
) -> Result<Outcome, RegistryError> {
    let by = changing.actor.to_string();
    must_have_room(changing)?;
    let pending = PendingChange {
        id: format!("c-{}", uuid::Uuid::now_v7().simple()),
        act: act.to_owned(),
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
        pending.act,
        pending.object,
        canonical_json(&pending.before),
        canonical_json(&pending.after),
        pending.requested_by,
        grants::requester(changing.actor)?,
        pending.justification,
        pending.requested,
        pending.ends
    ];
    let sql = "INSERT INTO pending (id, act, object, before, after, requested_by, requester, justification, requested,
               ends) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    changing.execute(sql, row)?;
    changing.record("change", &pending.id, None, Some(&pending))?;
    Ok(Outcome::Waits(Box::new(pending)))
}

fn read(changing: &Changing<'_>, id: &str) -> Result<PendingChange, RegistryError> {
    let pending = one(changing, "SELECT * FROM pending WHERE id = ?1", WHAT, id, read_pending)?;
    if pending.ends > now() { Ok(pending) } else { Err(RegistryError::Unknown(WHAT, id.to_owned())) }
}

/// Takes a change off the list.
fn settle(changing: &mut Changing<'_>, pending: &PendingChange) -> Result<(), RegistryError> {
    changing.execute("DELETE FROM pending WHERE id = ?1", [&pending.id])?;
    changing.record("change", &pending.id, Some(pending), None)
}

/// Whether somebody has a role now, whatever a snapshot from before says.
fn has_role(changing: &Changing<'_>, id: &str, role: Role) -> Result<bool, RegistryError> {
    match people::read(changing, id) {
        Ok(person) => Ok(person.roles.contains(&role)),
        Err(RegistryError::Unknown(..)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Refuses an approval by anybody but another person than who asked, with a certificate and the role.
pub(super) fn must_be_another(changing: &Changing<'_>, requester: Option<&Actor>) -> Result<(), RegistryError> {
    let Actor::Staff { id, .. } = changing.actor else {
        return Err(RegistryError::Forbidden("only a person with a certificate approves: locally one asks"));
    };
    match requester {
        None => Err(RegistryError::Forbidden("nobody can tell who asked for it: ask for it anew")),
        Some(requester) if changing.actor.is_same_person(requester) => {
            Err(RegistryError::Forbidden("it is approved by another person than who asked for it"))
        }
        Some(_) if !has_role(changing, id, Role::Approver)? => {
            Err(RegistryError::Forbidden("only an approver approves"))
        }
        Some(_) => Ok(()),
    }
}

/// The record as it is now; null where there is none.
fn current<T: Serialize>(found: Result<T, RegistryError>) -> Result<Value, RegistryError> {
    match found {
        Ok(record) => json(Some(&record)),
        Err(RegistryError::Unknown(..)) => Ok(Value::Null),
        Err(error) => Err(error),
    }
}

/// Makes a change that waited, if what it was asked on is still so.
pub(super) fn approve(store: &SqliteStore, id: &str) -> Result<PendingChange, RegistryError> {
    store.change("change.approve", format!("change:{id}"), |changing| {
        let pending = read(changing, id)?;
        must_be_another(changing, pending.requester.as_ref())?;
        let object = pending.object.split_once(':').map_or("", |(_, id)| id);
        let now = match pending.act.as_str() {
            "client.change" | "client.resume" => current(clients::read(changing, object))?,
            "grant.change" => current(grants::read(changing, object))?,
            _ => current(people::read(changing, object))?,
        };
        if canonical_json(&now) != canonical_json(&pending.before) {
            return Err(RegistryError::Outdated);
        }
        match pending.act.as_str() {
            "client.change" => clients::put(changing, &record::<Client>(&pending.after)?)?,
            "client.resume" => clients::put_suspended(changing, object, false)?,
            "grant.change" => grants::put(changing, &record::<Grant>(&pending.after)?, Some(&pending))?,
            "staff.add" => people::put_new(changing, &record::<Staff>(&pending.after)?)?,
            "staff.change" => people::put(changing, &record::<Staff>(&pending.after)?)?,
            other => return Err(RegistryError::Store(format!("a change of an unknown kind {other:?} waits"))),
        }
        changing.approved();
        settle(changing, &pending)?;
        Ok(pending)
    })
}

/// Ends a change that waits, unmade: by an approver, by who asked for it, or on the gateway's own host.
pub(super) fn reject(store: &SqliteStore, id: &str) -> Result<PendingChange, RegistryError> {
    store.change("change.reject", format!("change:{id}"), |changing| {
        let pending = read(changing, id)?;
        let own = pending.requester.as_ref().is_some_and(|requester| changing.actor.is_same_person(requester));
        let may = match changing.actor {
            Actor::Staff { id, .. } => own || has_role(changing, id, Role::Approver)?,
            Actor::Local { .. } => true,
            Actor::Client { .. } | Actor::System => false,
        };
        if !may {
            return Err(RegistryError::Forbidden("an approver rejects it, or who asked for it"));
        }
        settle(changing, &pending)?;
        Ok(pending)
    })
}

/// Grants that wait for longer than they may, by their ids, which begin with their time (UUIDv7).
fn overdue(connection: &Connection) -> Result<Vec<Grant>, RegistryError> {
    let before_ms = u64::try_from((now() - PENDING_S).max(0)).unwrap_or_default() * 1_000;
    let sql = "SELECT * FROM grants WHERE NOT withdrawn AND needs_approval AND approved_by IS NULL
               AND id >= 'g-0' AND id < ?1 AND length(id) = 34 ORDER BY id";
    let grants = all(connection, sql, [format!("g-{before_ms:012x}")], read_grant)?;
    let now = now();
    Ok(grants.into_iter().filter(|grant| grant.pending_until() <= now).collect())
}

/// Ends those whose time is over; gives how many.
pub(super) fn end(store: &SqliteStore) -> Result<usize, RegistryError> {
    let sql = "SELECT * FROM pending WHERE ends <= ?1 ORDER BY id";
    // Looked at first: nothing is written where nothing ended.
    let over = |connection: &Connection| Ok((all(connection, sql, [now()], read_pending)?, overdue(connection)?));
    let (changes, grants) = store.readers.read(over)?;
    if changes.is_empty() && grants.is_empty() {
        return Ok(0);
    }
    store.acting_as(Actor::System).change("change.end", "changes", |changing| {
        let (changes, grants) = over(changing)?;
        changes.iter().try_for_each(|pending| settle(changing, pending))?;
        grants.iter().try_for_each(|grant| grants::put_withdrawn(changing, &grant.id))?;
        Ok(changes.len() + grants.len())
    })
}

/// Registers the first administrator and the first approver, in one act.
pub(super) fn bootstrap(store: &SqliteStore, administrator: &Staff, approver: &Staff) -> Result<(), RegistryError> {
    store.change("staff.bootstrap", "staff", |changing| {
        let known = super::staff(changing)?;
        if known.iter().any(|person| person.roles.contains(&Role::Approver)) {
            return Err(RegistryError::Forbidden(
                "the first people are registered: one asks for others, another approves",
            ));
        }
        if administrator.id == approver.id {
            return Err(RegistryError::Forbidden("administrator and approver are two different people"));
        }
        for (person, role) in [(administrator, Role::Administrator), (approver, Role::Approver)] {
            let person = Staff { roles: vec![role], ..person.clone() };
            // An older version may have registered administrators without an approver.
            match known.iter().find(|one| one.id == person.id) {
                Some(there) if there.roles.contains(&role) && there.names == person.names => {}
                _ => people::put_new(changing, &person)?,
            }
        }
        changing.touch(Touched::Staff);
        Ok(())
    })
}
