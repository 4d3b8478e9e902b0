//! Changes of grants.

use super::super::{Actor, Grant, Network, RegistryError};
use super::changing::{Changing, Touched};
use super::clients::read_living;
use super::rows::{list, read_grant};
use super::{SqliteStore, constraint, one};
use rusqlite::params;

pub(super) fn read(changing: &Changing<'_>, id: &str) -> Result<Grant, RegistryError> {
    one(changing, "SELECT * FROM grants WHERE id = ?1", "grant", id, read_grant)
}

/// Notes what became of a grant.
fn changed(changing: &mut Changing<'_>, before: Option<&Grant>, id: &str) -> Result<(), RegistryError> {
    let after = read(changing, id)?;
    changing.touch(Touched::Client(after.client.clone()));
    changing.record("grant", id, before, Some(&after))
}

/// Who asked, as it is stored with what waits for another person.
pub(super) fn requester(actor: &Actor) -> Result<String, RegistryError> {
    serde_json::to_string(actor).map_err(|error| RegistryError::Store(error.to_string()))
}

pub(super) fn add(store: &SqliteStore, grant: &Grant) -> Result<(), RegistryError> {
    store.change("grant.add", format!("grant:{}", grant.id), |changing| {
        read_living(changing, &grant.client)?;
        let row = params![
            grant.id,
            grant.client,
            list(&grant.scopes),
            list(&grant.purposes),
            list(&grant.fields),
            grant.rate,
            grant.burst,
            i64::try_from(grant.daily_quota).unwrap_or(i64::MAX),
            grant.not_before,
            grant.not_after,
            grant.legal_basis,
            list(&grant.networks.iter().map(Network::to_string).collect::<Vec<_>>()),
            changing.actor.to_string(),
            grant.needs_approval,
            grant.withdrawn,
            requester(changing.actor)?,
        ];
        let sql = "INSERT INTO grants (id, client, scopes, purposes, fields, rate, burst, daily_quota, not_before,
                   not_after, legal_basis, networks, requested_by, needs_approval, withdrawn, requester)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)";
        let added = changing.execute(sql, row);
        added.map_err(|error| constraint(error, "grant", &grant.id, &grant.client))?;
        changed(changing, None, &grant.id)
    })
}

/// Refuses an approval by who asked. Where nobody can tell who asked, nobody approves.
pub(super) fn must_be_another(actor: &Actor, requester: Option<&Actor>) -> Result<(), RegistryError> {
    match requester {
        None => Err(RegistryError::Forbidden("nobody can tell who asked for it: ask for it anew")),
        Some(requester) if actor.is_same_person(requester) => {
            Err(RegistryError::Forbidden("it is approved by another person than who asked for it"))
        }
        Some(_) => Ok(()),
    }
}

pub(super) fn approve(store: &SqliteStore, id: &str) -> Result<(), RegistryError> {
    store.change("grant.approve", format!("grant:{id}"), |changing| {
        let before = read(changing, id)?;
        if before.withdrawn || !before.needs_approval || before.approved_by.is_some() {
            return Err(RegistryError::Unknown("grant that waits for approval", id.to_owned()));
        }
        must_be_another(changing.actor, before.requester.as_ref())?;
        let by = changing.actor.to_string();
        changing.execute("UPDATE grants SET approved_by = ?2 WHERE id = ?1", params![id, by])?;
        changing.approved();
        changed(changing, Some(&before), id)
    })
}

pub(super) fn withdraw(store: &SqliteStore, id: &str) -> Result<(), RegistryError> {
    store.change("grant.withdraw", format!("grant:{id}"), |changing| {
        let before = read(changing, id)?;
        changing.execute("UPDATE grants SET withdrawn = 1 WHERE id = ?1", [id])?;
        changed(changing, Some(&before), id)
    })
}
