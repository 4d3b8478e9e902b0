//! Changes of grants.

use super::super::pending::grant_widens;
use super::super::{Actor, Grant, Network, Outcome, PendingChange, RegistryError};
use super::changing::{Changing, Touched};
use super::clients::read_living;
use super::pending::{self, must_be_another};
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

pub(super) fn approve(store: &SqliteStore, id: &str) -> Result<(), RegistryError> {
    store.change("grant.approve", format!("grant:{id}"), |changing| {
        let before = read(changing, id)?;
        if before.withdrawn || !before.needs_approval || before.approved_by.is_some() {
            return Err(RegistryError::Unknown("grant that waits for approval", id.to_owned()));
        }
        must_be_another(changing, before.requester.as_ref())?;
        let by = changing.actor.to_string();
        changing.execute("UPDATE grants SET approved_by = ?2 WHERE id = ?1", params![id, by])?;
        changing.approved();
        changed(changing, Some(&before), id)
    })
}

/// Puts a grant in place of the one before. A change that was approved makes it one that was asked for and approved by
/// those two, unless the grant itself still waits.
pub(super) fn put(
    changing: &mut Changing<'_>,
    grant: &Grant,
    approved: Option<&PendingChange>,
) -> Result<(), RegistryError> {
    let before = read(changing, &grant.id)?;
    let waits = before.needs_approval && before.approved_by.is_none();
    let (by, requester, approved_by) = match approved {
        Some(pending) if !waits => {
            let requester = pending.requester.as_ref().map(requester).transpose()?.unwrap_or_default();
            let by = grant.needs_approval.then(|| changing.actor.to_string());
            (pending.requested_by.clone(), requester, by)
        }
        _ => {
            let requester = before.requester.as_ref().map(requester).transpose()?.unwrap_or_default();
            (before.requested_by.clone(), requester, before.approved_by.clone())
        }
    };
    let sql = "UPDATE grants SET scopes = ?2, purposes = ?3, fields = ?4, rate = ?5, burst = ?6, daily_quota = ?7,
               not_before = ?8, not_after = ?9, legal_basis = ?10, networks = ?11, needs_approval = ?12,
               requested_by = ?13, requester = ?14, approved_by = ?15 WHERE id = ?1";
    let row = params![
        grant.id,
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
        grant.needs_approval,
        by,
        requester,
        approved_by,
    ];
    changing.execute(sql, row)?;
    changed(changing, Some(&before), &grant.id)
}

pub(super) fn change(store: &SqliteStore, grant: &Grant) -> Result<Outcome, RegistryError> {
    let object = format!("grant:{}", grant.id);
    store.change("grant.change", object.clone(), |changing| {
        let before = read(changing, &grant.id)?;
        read_living(changing, &before.client)?;
        if before.withdrawn {
            return Err(RegistryError::Unknown("grant that is not withdrawn", grant.id.clone()));
        }
        // Only what may be changed: whose it is and who approved it are not.
        let after = Grant {
            client: before.client.clone(),
            requested_by: before.requested_by.clone(),
            requester: before.requester.clone(),
            approved_by: before.approved_by.clone(),
            withdrawn: false,
            ..grant.clone()
        };
        let sensitive = before.needs_approval || after.needs_approval;
        if sensitive && (grant_widens(&before, &after) || !before.needs_approval) {
            return pending::ask(changing, "grant.change", &object, Some(&before), &after);
        }
        put(changing, &after, None)?;
        Ok(Outcome::Done)
    })
}

pub(super) fn withdraw(store: &SqliteStore, id: &str) -> Result<(), RegistryError> {
    store.change("grant.withdraw", format!("grant:{id}"), |changing| {
        let before = read(changing, id)?;
        changing.execute("UPDATE grants SET withdrawn = 1 WHERE id = ?1", [id])?;
        changed(changing, Some(&before), id)
    })
}
