//! Changes of clients.

use super::super::name::canonical_names;
use super::super::pending::client_widens;
use super::super::{ChangeOutcome, Client, Grant, RegistryError, now};
use super::changing::{Changing, TouchedObjects};
use super::identities::{self, IdentityKind};
use super::rows::{list, read_client, read_grant};
use super::{CLIENT, SqliteStore, all, must_be_new, one, pending};
use rusqlite::{Connection, params};

/// Returns the present record of a client, retired ones included.
pub(super) fn read(changing: &Changing<'_>, id: &str) -> Result<Client, RegistryError> {
    one(changing, CLIENT, "client", id, read_client)
}

/// Returns a client that is not retired.
pub(super) fn read_living(changing: &Changing<'_>, id: &str) -> Result<Client, RegistryError> {
    match read(changing, id)? {
        Client { retired: true, .. } => Err(RegistryError::Unknown("client", id.to_owned())),
        client => Ok(client),
    }
}

/// Records the change of a client.
fn changed(changing: &mut Changing<'_>, before: &Client) -> Result<(), RegistryError> {
    let after = read(changing, &before.id)?;
    changing.touch(TouchedObjects::Client(before.id.clone()));
    changing.record("client", &before.id, Some(before), Some(&after))
}

pub(super) fn add(store: &SqliteStore, client: &Client) -> Result<(), RegistryError> {
    let Client { id, agency, contact, names, suspended, created, .. } = client;
    store.change("client.add", format!("client:{id}"), |changing| {
        must_be_new(changing, "SELECT EXISTS (SELECT 1 FROM clients WHERE id = ?1)", "client", id)?;
        let names = identities::hold(changing, IdentityKind::Client, id, names)?;
        let row = params![id, agency, contact, list(&names), suspended, created];
        let sql =
            "INSERT INTO clients (id, agency, contact, names, suspended, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        changing.execute(sql, row)?;
        changing.touch(TouchedObjects::Client(id.clone()));
        let after = read(changing, id)?;
        changing.record("client", id, None, Some(&after))
    })
}

/// Replaces agency, contact and names of a client.
pub(super) fn put(changing: &mut Changing<'_>, client: &Client) -> Result<(), RegistryError> {
    let before = read_living(changing, &client.id)?;
    let names = identities::hold(changing, IdentityKind::Client, &client.id, &client.names)?;
    let sql = "UPDATE clients SET agency = ?2, contact = ?3, names = ?4 WHERE id = ?1";
    changing.execute(sql, params![client.id, client.agency, client.contact, list(&names)])?;
    changed(changing, &before)
}

/// Returns whether a client has a grant, approved or not, that needs approval, or a pending change of such a grant: the
/// approval depends on who the client is.
fn is_sensitive(changing: &Changing<'_>, id: &str) -> Result<bool, RegistryError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM grants WHERE client = ?1 AND NOT withdrawn AND needs_approval)
               OR EXISTS (SELECT 1 FROM pending JOIN grants ON pending.object = 'grant:' || grants.id
                          WHERE grants.client = ?1 AND pending.ends > ?2)";
    Ok(changing.query_row(sql, params![id, now()], |row| row.get(0))?)
}

pub(super) fn change(store: &SqliteStore, client: &Client) -> Result<ChangeOutcome, RegistryError> {
    let object = format!("client:{}", client.id);
    store.change("client.change", object.clone(), |changing| {
        let before = read_living(changing, &client.id)?;
        let names = canonical_names(&client.names);
        let (agency, contact) = (client.agency.clone(), client.contact.clone());
        let after = Client { names, agency, contact, ..before.clone() };
        if client_widens(&before, &after) && is_sensitive(changing, &client.id)? {
            identities::must_be_free(changing, IdentityKind::Client, &client.id, &after.names)?;
            return pending::ask(changing, "client.change", &object, Some(&before), &after);
        }
        put(changing, &after)?;
        Ok(ChangeOutcome::Done)
    })
}

pub(super) fn suspend(store: &SqliteStore, id: &str) -> Result<(), RegistryError> {
    store.change("client.suspend", format!("client:{id}"), |changing| put_suspended(changing, id, true))
}

/// Returns whether a client would have a right on sensitive data again as soon as it may call.
fn has_approved(changing: &Changing<'_>, id: &str) -> Result<bool, RegistryError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM grants WHERE client = ?1 AND NOT withdrawn AND needs_approval
               AND approved_by IS NOT NULL AND not_after > ?2)";
    Ok(changing.query_row(sql, params![id, now()], |row| row.get(0))?)
}

pub(super) fn resume(store: &SqliteStore, id: &str) -> Result<ChangeOutcome, RegistryError> {
    let object = format!("client:{id}");
    store.change("client.resume", object.clone(), |changing| {
        let before = read_living(changing, id)?;
        if before.suspended && has_approved(changing, id)? {
            let after = Client { suspended: false, ..before.clone() };
            return pending::ask(changing, "client.resume", &object, Some(&before), &after);
        }
        put_suspended(changing, id, false)?;
        Ok(ChangeOutcome::Done)
    })
}

/// Suspends or resumes a client.
pub(super) fn put_suspended(changing: &mut Changing<'_>, id: &str, suspended: bool) -> Result<(), RegistryError> {
    let before = read_living(changing, id)?;
    changing.execute("UPDATE clients SET suspended = ?2 WHERE id = ?1", params![id, suspended])?;
    changed(changing, &before)
}

/// Maximum number of grants that one change withdraws: an engine may have a bound on the rows of a change.
const WITHDRAWN_AT_ONCE: usize = 50;

/// Grants of a client that are not withdrawn, at most so many.
fn standing_grants(connection: &Connection, id: &str, max: usize) -> Result<Vec<Grant>, RegistryError> {
    let sql = "SELECT * FROM grants WHERE client = ?1 AND NOT withdrawn ORDER BY id LIMIT ?2";
    all(connection, sql, params![id, i64::try_from(max).unwrap_or(i64::MAX)], read_grant)
}

/// Withdraws at most so many grants of a client.
fn put_withdrawn(changing: &mut Changing<'_>, id: &str, max: usize) -> Result<(), RegistryError> {
    for before in standing_grants(changing, id, max)? {
        changing.execute("UPDATE grants SET withdrawn = 1 WHERE id = ?1", [&before.id])?;
        let after = Grant { withdrawn: true, ..before.clone() };
        changing.record("grant", &before.id, Some(&before), Some(&after))?;
    }
    changing.touch(TouchedObjects::Client(id.to_owned()));
    Ok(())
}

/// Withdraws grants of a client that is about to be retired, until one change can withdraw the rest.
fn withdraw_most(store: &SqliteStore, id: &str) -> Result<(), RegistryError> {
    let standing = |connection: &Connection| standing_grants(connection, id, WITHDRAWN_AT_ONCE + 1);
    while store.readers.read(standing)?.len() > WITHDRAWN_AT_ONCE {
        store.change("grant.withdraw", format!("client:{id}"), |changing| {
            read_living(changing, id)?;
            put_withdrawn(changing, id, WITHDRAWN_AT_ONCE)
        })?;
    }
    Ok(())
}

pub(super) fn retire(store: &SqliteStore, id: &str) -> Result<(), RegistryError> {
    withdraw_most(store, id)?;
    store.change("client.retire", format!("client:{id}"), |changing| {
        let before = read_living(changing, id)?;
        changing.execute("UPDATE clients SET retired = 1 WHERE id = ?1", [id])?;
        changed(changing, &before)?;
        put_withdrawn(changing, id, usize::MAX)
    })
}

/// Revokes the client's tokens that were issued before a time.
pub(super) fn revoke_tokens(store: &SqliteStore, id: &str, issued_before: i64) -> Result<(), RegistryError> {
    store.change("token.revoke", format!("client:{id}"), |changing| {
        let before = read_living(changing, id)?;
        changing.execute(
            "UPDATE clients SET tokens_from = MAX(tokens_from, ?2) WHERE id = ?1",
            params![id, issued_before],
        )?;
        changed(changing, &before)
    })
}
