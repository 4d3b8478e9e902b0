//! Changes of staff.

use super::super::name::canonical_names;
use super::super::pending::staff_widens;
use super::super::{ChangeOutcome, PendingChange, RegistryError, Role, Staff};
use super::changing::{Changing, TouchedObjects};
use super::identities::{self, IdentityKind};
use super::read::{STAFF, person};
use super::rows::list;
use super::{SqliteStore, must_be_new, pending};
use rusqlite::params;

fn roles(staff: &Staff) -> Result<String, RegistryError> {
    serde_json::to_string(&staff.roles).map_err(|error| RegistryError::Store(error.to_string()))
}

/// Stores a new person.
pub(super) fn put_new(changing: &mut Changing<'_>, staff: &Staff) -> Result<(), RegistryError> {
    must_be_new(changing, "SELECT EXISTS (SELECT 1 FROM staff WHERE id = ?1)", STAFF, &staff.id)?;
    let names = identities::hold(changing, IdentityKind::Staff, &staff.id, &staff.names)?;
    let row = params![staff.id, roles(staff)?, list(&names)];
    changing.execute("INSERT INTO staff (id, roles, names) VALUES (?1, ?2, ?3)", row)?;
    changing.touch(TouchedObjects::Staff);
    let after = person(changing, &staff.id)?;
    changing.record("staff", &staff.id, None, Some(&after))
}

/// Replaces a person's roles and names.
pub(super) fn put(changing: &mut Changing<'_>, staff: &Staff) -> Result<(), RegistryError> {
    let before = person(changing, &staff.id)?;
    let names = identities::hold(changing, IdentityKind::Staff, &staff.id, &staff.names)?;
    let sql = "UPDATE staff SET roles = ?2, names = ?3 WHERE id = ?1";
    changing.execute(sql, params![staff.id, roles(staff)?, list(&names)])?;
    must_be_kept(changing, &before)?;
    changing.touch(TouchedObjects::Staff);
    let after = person(changing, &staff.id)?;
    changing.record("staff", &staff.id, Some(&before), Some(&after))
}

/// Refuses to remove the last administrator or the last approver: nobody could ever grant anything again.
fn must_be_kept(changing: &Changing<'_>, before: &Staff) -> Result<(), RegistryError> {
    let left = super::staff(changing)?;
    for (role, rule) in [
        (Role::Administrator, "the last administrator stays: have another one registered first"),
        (Role::Approver, "the last approver stays: have another one registered first"),
    ] {
        if before.roles.contains(&role) && !left.iter().any(|person| person.roles.contains(&role)) {
            return Err(RegistryError::Forbidden(rule));
        }
    }
    Ok(())
}

pub(super) fn add(store: &SqliteStore, staff: &Staff) -> Result<PendingChange, RegistryError> {
    let object = format!("staff:{}", staff.id);
    let outcome = store.change("staff.add", object.clone(), |changing| {
        must_be_new(changing, "SELECT EXISTS (SELECT 1 FROM staff WHERE id = ?1)", STAFF, &staff.id)?;
        let staff = Staff { names: canonical_names(&staff.names), ..staff.clone() };
        identities::must_be_free(changing, IdentityKind::Staff, &staff.id, &staff.names)?;
        pending::ask(changing, "staff.add", &object, None, &staff)
    })?;
    match outcome {
        ChangeOutcome::PendingApproval(pending) => Ok(*pending),
        ChangeOutcome::Done => Err(RegistryError::Store("a person was registered without approval".into())),
    }
}

pub(super) fn change(store: &SqliteStore, staff: &Staff) -> Result<ChangeOutcome, RegistryError> {
    let object = format!("staff:{}", staff.id);
    store.change("staff.change", object.clone(), |changing| {
        let before = person(changing, &staff.id)?;
        let after = Staff { names: canonical_names(&staff.names), ..staff.clone() };
        if staff_widens(&before, &after) {
            identities::must_be_free(changing, IdentityKind::Staff, &staff.id, &after.names)?;
            return pending::ask(changing, "staff.change", &object, Some(&before), &after);
        }
        put(changing, &after)?;
        Ok(ChangeOutcome::Done)
    })
}

pub(super) fn remove(store: &SqliteStore, id: &str) -> Result<(), RegistryError> {
    store.change("staff.remove", format!("staff:{id}"), |changing| {
        let before = person(changing, id)?;
        // The names stay reserved: the old certificate never becomes another person's.
        changing.execute("DELETE FROM staff WHERE id = ?1", [id])?;
        must_be_kept(changing, &before)?;
        changing.touch(TouchedObjects::Staff);
        changing.record("staff", id, Some(&before), None)
    })
}
