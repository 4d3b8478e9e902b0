//! How a pending change ends: approved, rejected, or expired; and the first two people.

use super::super::admin_event::canonical_json;
use super::super::pending::PENDING_S;
use super::super::{Actor, Client, Grant, PendingChange, RegistryError, Role, Staff, now};
use super::changing::TouchedObjects;
use super::pending::{has_role, json, must_be_another, read, read_pending, settle};
use super::read::person;
use super::rows::read_grant;
use super::{SqliteStore, all, clients, grants, people};
use rusqlite::Connection;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

fn record<T: DeserializeOwned>(value: &Value) -> Result<T, RegistryError> {
    serde_json::from_value(value.clone())
        .map_err(|error| RegistryError::Store(format!("a change that waits cannot be read: {error}")))
}

/// Returns the present record; null if there is none.
fn current<T: Serialize>(found: Result<T, RegistryError>) -> Result<Value, RegistryError> {
    match found {
        Ok(record) => json(Some(&record)),
        Err(RegistryError::Unknown(..)) => Ok(Value::Null),
        Err(error) => Err(error),
    }
}

/// Makes a pending change, if its object is unchanged since the request.
pub(super) fn approve(store: &SqliteStore, id: &str) -> Result<PendingChange, RegistryError> {
    store.change("change.approve", format!("change:{id}"), |changing| {
        let pending = read(changing, id)?;
        must_be_another(changing, pending.requester.as_ref())?;
        let object = pending.object.split_once(':').map_or("", |(_, id)| id);
        let now = match pending.event.as_str() {
            "client.change" | "client.resume" => current(clients::read(changing, object))?,
            "grant.change" => current(grants::read(changing, object))?,
            _ => current(person(changing, object))?,
        };
        if canonical_json(&now) != canonical_json(&pending.before) {
            return Err(RegistryError::Outdated);
        }
        match pending.event.as_str() {
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

/// Ends a pending change without making it: by an approver, by its requester, or on the gateway's own host.
pub(super) fn reject(store: &SqliteStore, id: &str) -> Result<PendingChange, RegistryError> {
    store.change("change.reject", format!("change:{id}"), |changing| {
        let pending = read(changing, id)?;
        let own = pending.requester.as_ref().is_some_and(|requester| changing.actor.is_same_person(requester));
        let may = match changing.actor {
            Actor::Staff { id, .. } | Actor::Federated { id, .. } => own || has_role(changing, id, Role::Approver)?,
            Actor::Local { .. } => true,
            Actor::Client { .. } | Actor::System => false,
        };
        if !may {
            return Err(RegistryError::Forbidden("only an approver or its requester may reject it"));
        }
        settle(changing, &pending)?;
        Ok(pending)
    })
}

/// Returns grants that have waited for too long, by their ids, which begin with their time (UUIDv7).
fn overdue(connection: &Connection) -> Result<Vec<Grant>, RegistryError> {
    let before_ms = u64::try_from((now() - PENDING_S).max(0)).unwrap_or_default() * 1_000;
    let sql = "SELECT * FROM grants WHERE NOT withdrawn AND needs_approval AND approved_by IS NULL
               AND id >= 'g-0' AND id < ?1 AND length(id) = 34 ORDER BY id";
    let grants = all(connection, sql, [format!("g-{before_ms:012x}")], read_grant)?;
    let now = now();
    Ok(grants.into_iter().filter(|grant| grant.pending_until() <= now).collect())
}

/// Maximum number that one change ends: an engine may have a bound on the rows of a change.
const ENDED_AT_ONCE: usize = 50;

/// Ends the expired ones; returns their number.
pub(super) fn end(store: &SqliteStore) -> Result<usize, RegistryError> {
    let sql = "SELECT * FROM pending WHERE ends <= ?1 ORDER BY id";
    // Checked first: nothing is written if nothing expired.
    let over = |connection: &Connection| Ok((all(connection, sql, [now()], read_pending)?, overdue(connection)?));
    let mut ended = 0;
    loop {
        let (changes, grants) = store.readers.read(over)?;
        if changes.is_empty() && grants.is_empty() {
            return Ok(ended);
        }
        ended += store.acting_as(Actor::System).change("change.end", "changes", |changing| {
            let (mut changes, mut grants) = over(changing)?;
            changes.truncate(ENDED_AT_ONCE);
            grants.truncate(ENDED_AT_ONCE - changes.len());
            changes.iter().try_for_each(|pending| settle(changing, pending))?;
            grants.iter().try_for_each(|grant| grants::put_withdrawn(changing, &grant.id))?;
            Ok(changes.len() + grants.len())
        })?;
    }
}

/// Registers the first administrator and the first approver, in one event.
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
        changing.touch(TouchedObjects::Staff);
        Ok(())
    })
}
