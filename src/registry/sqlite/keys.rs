//! Changes of signing keys.

use super::super::{RegistryError, SigningKey};
use super::changing::{Changing, TouchedObjects};
use super::rows::read_key;
use super::{SqliteStore, constraint, one};
use rusqlite::params;

fn read(changing: &Changing<'_>, kid: &str) -> Result<SigningKey, RegistryError> {
    one(changing, "SELECT * FROM keys WHERE kid = ?1", "key", kid, read_key)
}

/// Sets the end of the trust in a key.
fn end(changing: &mut Changing<'_>, before: &SigningKey, until: i64) -> Result<(), RegistryError> {
    changing.execute("UPDATE keys SET believed_until = ?2 WHERE kid = ?1", params![before.kid, until])?;
    let after = read(changing, &before.kid)?;
    changing.touch(TouchedObjects::Keys);
    changing.record("key", &before.kid, Some(before), Some(&after))
}

pub(super) fn add(store: &SqliteStore, key: &SigningKey, others_until: i64) -> Result<(), RegistryError> {
    store.change("key.rotate", format!("key:{}", key.kid), |changing| {
        for before in super::keys(changing)?.iter().filter(|other| other.trusted_until == 0) {
            end(changing, before, others_until)?;
        }
        let row = params![key.kid, key.algorithm, key.public_pem, key.created, key.trusted_until, key.signs_from];
        let sql = "INSERT INTO keys (kid, algorithm, public_pem, created, believed_until, signs_from)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        changing.execute(sql, row).map_err(|error| constraint(error, "key", &key.kid, ""))?;
        changing.touch(TouchedObjects::Keys);
        let after = read(changing, &key.kid)?;
        changing.record("key", &key.kid, None, Some(&after))
    })
}

pub(super) fn retire(store: &SqliteStore, kid: &str) -> Result<(), RegistryError> {
    store.change("key.retire", format!("key:{kid}"), |changing| {
        let before = read(changing, kid)?;
        end(changing, &before, 1)
    })
}
