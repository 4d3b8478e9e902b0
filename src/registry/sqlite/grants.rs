//! Changes of grants.

use super::super::pending::grant_widens;
use super::super::{ChangeOutcome, Grant, Network, PendingChange, RegistryError, now};
use super::changing::{Changing, TouchedObjects};
use super::clients::read_living;
use super::pending::{self, must_be_another, requester};
use super::rows::{list, read_grant};
use super::{SqliteStore, constraint, one};
use rusqlite::types::Value;
use rusqlite::{ToSql, params};

pub(super) fn read(changing: &Changing<'_>, id: &str) -> Result<Grant, RegistryError> {
    one(changing, "SELECT * FROM grants WHERE id = ?1", "grant", id, read_grant)
}

/// Records the change of a grant.
fn changed(changing: &mut Changing<'_>, before: Option<&Grant>, id: &str) -> Result<(), RegistryError> {
    let after = read(changing, id)?;
    changing.touch(TouchedObjects::Client(after.client.clone()));
    changing.record("grant", id, before, Some(&after))
}

/// The columns of a grant's terms.
const TERMS: [&str; 11] = [
    "scopes",
    "purposes",
    "fields",
    "rate",
    "burst",
    "daily_quota",
    "not_before",
    "not_after",
    "legal_basis",
    "networks",
    "needs_approval",
];

/// The values of those columns, and the id, each with its parameter's name.
fn terms(grant: &Grant) -> Vec<(&'static str, Value)> {
    let networks: Vec<String> = grant.networks.iter().map(Network::to_string).collect();
    vec![
        (":id", grant.id.clone().into()),
        (":scopes", list(&grant.scopes).into()),
        (":purposes", list(&grant.purposes).into()),
        (":fields", list(&grant.fields).into()),
        (":rate", grant.rate.into()),
        (":burst", grant.burst.into()),
        (":daily_quota", i64::try_from(grant.daily_quota).unwrap_or(i64::MAX).into()),
        (":not_before", grant.not_before.into()),
        (":not_after", grant.not_after.into()),
        (":legal_basis", grant.legal_basis.clone().into()),
        (":networks", list(&networks).into()),
        (":needs_approval", grant.needs_approval.into()),
    ]
}

fn execute(changing: &Changing<'_>, sql: &str, row: Vec<(&'static str, Value)>) -> rusqlite::Result<usize> {
    let row: Vec<(&str, &dyn ToSql)> = row.iter().map(|(name, value)| (*name, value as &dyn ToSql)).collect();
    changing.prepare_cached(sql)?.execute(row.as_slice())
}

pub(super) fn add(store: &SqliteStore, grant: &Grant) -> Result<(), RegistryError> {
    store.change("grant.add", format!("grant:{}", grant.id), |changing| {
        read_living(changing, &grant.client)?;
        if grant.needs_approval {
            pending::must_have_room(changing)?;
        }
        let (by, requester) = (changing.actor.to_string(), requester(changing.actor)?);
        let sql = format!(
            "INSERT INTO grants (id, client, requested_by, requester, withdrawn, {}) VALUES (:id, :client, :by, :requester,
             :withdrawn, {})",
            TERMS.join(", "),
            TERMS.map(|column| format!(":{column}")).join(", ")
        );
        let mut row = terms(grant);
        row.extend([
            (":client", grant.client.clone().into()),
            (":by", by.into()),
            (":requester", requester.into()),
            (":withdrawn", grant.withdrawn.into()),
        ]);
        let added = execute(changing, &sql, row);
        added.map_err(|error| constraint(error, "grant", &grant.id, &grant.client))?;
        changed(changing, None, &grant.id)
    })
}

pub(super) fn approve(store: &SqliteStore, id: &str) -> Result<(), RegistryError> {
    store.change("grant.approve", format!("grant:{id}"), |changing| {
        let before = read(changing, id)?;
        let waits = !before.withdrawn && before.needs_approval && before.approved_by.is_none();
        if !waits || before.pending_until() <= now() {
            return Err(RegistryError::Unknown("grant that waits for approval", id.to_owned()));
        }
        must_be_another(changing, before.requester.as_ref())?;
        let by = changing.actor.to_string();
        changing.execute("UPDATE grants SET approved_by = ?2 WHERE id = ?1", params![id, by])?;
        changing.approved();
        changed(changing, Some(&before), id)
    })
}

/// Replaces a grant. An approved change records the requester and the approver of the change as those of the grant,
/// unless the grant itself is still pending.
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
    let sql = format!(
        "UPDATE grants SET requested_by = :by, requester = :requester, approved_by = :approved_by, {} WHERE id = :id",
        TERMS.map(|column| format!("{column} = :{column}")).join(", ")
    );
    let mut row = terms(grant);
    row.extend([(":by", by.into()), (":requester", requester.into()), (":approved_by", approved_by.into())]);
    execute(changing, &sql, row)?;
    changed(changing, Some(&before), &grant.id)
}

pub(super) fn change(store: &SqliteStore, grant: &Grant) -> Result<ChangeOutcome, RegistryError> {
    let object = format!("grant:{}", grant.id);
    store.change("grant.change", object.clone(), |changing| {
        let before = read(changing, &grant.id)?;
        read_living(changing, &before.client)?;
        if before.withdrawn {
            return Err(RegistryError::Unknown("grant that is not withdrawn", grant.id.clone()));
        }
        // Only the fields that may change: client and approver may not.
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
        Ok(ChangeOutcome::Done)
    })
}

pub(super) fn withdraw(store: &SqliteStore, id: &str) -> Result<(), RegistryError> {
    store.change("grant.withdraw", format!("grant:{id}"), |changing| put_withdrawn(changing, id))
}

/// Withdraws a grant.
pub(super) fn put_withdrawn(changing: &mut Changing<'_>, id: &str) -> Result<(), RegistryError> {
    let before = read(changing, id)?;
    changing.execute("UPDATE grants SET withdrawn = 1 WHERE id = ?1", [id])?;
    changed(changing, Some(&before), id)
}
