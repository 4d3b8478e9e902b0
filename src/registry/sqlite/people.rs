//! Changes of those who administer.

use super::super::{RegistryError, Staff};
use super::changing::{Changing, Touched};
use super::identities::{self, Kind};
use super::rows::{list, read_staff};
use super::{SqliteStore, must_be_new, one};
use rusqlite::params;

const WHAT: &str = "member of staff";

pub(super) fn read(changing: &Changing<'_>, id: &str) -> Result<Staff, RegistryError> {
    one(changing, "SELECT * FROM staff WHERE id = ?1", WHAT, id, read_staff)
}

fn roles(staff: &Staff) -> Result<String, RegistryError> {
    serde_json::to_string(&staff.roles).map_err(|error| RegistryError::Store(error.to_string()))
}

/// Puts down a new person.
pub(super) fn put_new(changing: &mut Changing<'_>, staff: &Staff) -> Result<(), RegistryError> {
    must_be_new(changing, "SELECT EXISTS (SELECT 1 FROM staff WHERE id = ?1)", WHAT, &staff.id)?;
    let names = identities::hold(changing, Kind::Staff, &staff.id, &staff.names)?;
    let row = params![staff.id, roles(staff)?, list(&names)];
    changing.execute("INSERT INTO staff (id, roles, names) VALUES (?1, ?2, ?3)", row)?;
    changing.touch(Touched::Staff);
    let after = read(changing, &staff.id)?;
    changing.record("staff", &staff.id, None, Some(&after))
}

pub(super) fn add(store: &SqliteStore, staff: &Staff) -> Result<(), RegistryError> {
    store.change("staff.add", format!("staff:{}", staff.id), |changing| put_new(changing, staff))
}

pub(super) fn remove(store: &SqliteStore, id: &str) -> Result<(), RegistryError> {
    store.change("staff.remove", format!("staff:{id}"), |changing| {
        let before = read(changing, id)?;
        // The names stay theirs: whoever still has the certificate is nobody else.
        changing.execute("DELETE FROM staff WHERE id = ?1", [id])?;
        changing.touch(Touched::Staff);
        changing.record("staff", id, Some(&before), None)
    })
}
