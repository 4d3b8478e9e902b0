//! Owners of certificate names: each name belongs to one client or one person, including retired clients and removed
//! people. The table's key enforces this for every writer, in every process.

use super::super::RegistryError;
use super::super::name::canonical_names;
use super::all;
use super::rows::{list, read_list};
use rusqlite::{Connection, OptionalExtension, params};

/// The kind of owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdentityKind {
    Client,
    Staff,
}

impl IdentityKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            IdentityKind::Client => "client",
            IdentityKind::Staff => "staff",
        }
    }
}

/// Replaces an owner's names; returns them in canonical form. A name of another owner is refused, together with the
/// change.
pub(super) fn hold(
    connection: &Connection,
    kind: IdentityKind,
    id: &str,
    names: &[String],
) -> Result<Vec<String>, RegistryError> {
    let names = canonical_names(names);
    connection.execute("DELETE FROM identities WHERE kind = ?1 AND id = ?2", params![kind.as_str(), id])?;
    for name in &names {
        let sql = "INSERT INTO identities (name, kind, id) VALUES (?1, ?2, ?3) ON CONFLICT (name) DO NOTHING";
        if connection.execute(sql, params![name, kind.as_str(), id])? == 0 {
            let holder = holder(connection, name)?.unwrap_or_default();
            return Err(RegistryError::NameTaken { name: name.clone(), owner: holder });
        }
    }
    Ok(names)
}

/// Refuses names that belong to another owner now: such a pending change could never be made.
pub(super) fn must_be_free(
    connection: &Connection,
    kind: IdentityKind,
    id: &str,
    names: &[String],
) -> Result<(), RegistryError> {
    let own = format!("{}:{id}", kind.as_str());
    for name in names {
        if let Some(holder) = holder(connection, name)?.filter(|holder| *holder != own) {
            return Err(RegistryError::NameTaken { name: name.clone(), owner: holder });
        }
    }
    Ok(())
}

/// Returns the owner of a canonical name, as `kind:id`.
fn holder(connection: &Connection, name: &str) -> Result<Option<String>, RegistryError> {
    let sql = "SELECT kind || ':' || id FROM identities WHERE name = ?1";
    Ok(connection.query_row(sql, [name], |row| row.get(0)).optional()?)
}

/// Returns the present owners of these canonical names, each once. Removed people own none.
pub(super) fn holders(connection: &Connection, names: &[String]) -> Result<Vec<String>, RegistryError> {
    let mut holders = Vec::new();
    for name in names {
        let Some(holder) = holder(connection, name)? else { continue };
        let gone = match holder.strip_prefix("staff:") {
            Some(id) => {
                let sql = "SELECT NOT EXISTS (SELECT 1 FROM staff WHERE id = ?1)";
                connection.query_row(sql, [id], |row| row.get::<_, bool>(0))?
            }
            None => false,
        };
        if !gone && !holders.contains(&holder) {
            holders.push(holder);
        }
    }
    Ok(holders)
}

/// Fills the table from clients and staff of an older file. If two of them have one name, a person must decide: the
/// file is refused, and the error names the owners.
pub(super) fn adopt(connection: &Connection) -> Result<(), RegistryError> {
    for kind in [IdentityKind::Client, IdentityKind::Staff] {
        let table = if kind == IdentityKind::Client { "clients" } else { "staff" };
        let sql = format!("SELECT id, names FROM {table} ORDER BY id");
        let holders: Vec<(String, Vec<String>)> =
            all(connection, &sql, [], |row| Ok((row.get("id")?, read_list(row, "names")?)))?;
        for (id, names) in holders {
            let names = hold(connection, kind, &id, &names).map_err(|error| match error {
                RegistryError::NameTaken { name, owner } => RegistryError::Store(format!(
                    "the certificate name {name} belongs to {owner} and to {}:{id}: the holder of such a certificate \
                     would be both; take it from one of them with the version that made this file",
                    kind.as_str()
                )),
                other => other,
            })?;
            connection.execute(&format!("UPDATE {table} SET names = ?2 WHERE id = ?1"), params![id, list(&names)])?;
        }
    }
    Ok(())
}
