//! Reading for gateways: everything, or what changed after a revision.

use super::super::lists::Lists;
use super::super::{Item, MAX_SKEW_S, RegistryError, SigningKey, Staff, now};
use super::rows::{VIEW, read_client, read_key, read_staff, read_view};
use super::{CLIENT, all, notices, one};
use rusqlite::{Connection, OptionalExtension, params};

/// Condition of grants that calls may depend on, now or later.
const LIVE: &str = "NOT withdrawn AND (NOT needs_approval OR approved_by IS NOT NULL) AND not_after > ?1";

/// Passes everything to `take`.
pub(super) fn everything(
    moment: &Connection,
    lists: &mut Lists,
    take: &mut dyn FnMut(Item<'_>),
) -> Result<(), RegistryError> {
    // Retired ones too: a gateway that is too far behind to follow changes must learn of them.
    all(moment, "SELECT * FROM clients", [], |row| {
        take(Item::Client(read_client(row)?));
        Ok(())
    })?;
    grants(moment, &format!("SELECT {VIEW} FROM grants WHERE {LIVE}"), params![now()], lists, take)?;
    let sql = "SELECT token, expires FROM revocations WHERE expires > ?1";
    all(moment, sql, [now() - MAX_SKEW_S], |row| {
        take(Item::Revoked(row.get(0)?, row.get(1)?));
        Ok(())
    })?;
    take(Item::Keys(keys(moment)?));
    take(Item::Staff(staff(moment)?));
    take(Item::Notices(notices::list(moment)?));
    Ok(())
}

fn grants(
    moment: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    lists: &mut Lists,
    take: &mut dyn FnMut(Item<'_>),
) -> Result<(), RegistryError> {
    let mut statement = moment.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    while let Some(row) = rows.next()? {
        let (client, grant) = read_view(row, lists)?;
        take(Item::Grant(client, grant));
    }
    Ok(())
}

/// Passes one client with its grants to `take`.
pub(super) fn client(
    moment: &Connection,
    id: &str,
    lists: &mut Lists,
    take: &mut dyn FnMut(Item<'_>),
) -> Result<(), RegistryError> {
    take(Item::Client(one(moment, CLIENT, "client", id, read_client)?));
    let sql = format!("SELECT {VIEW} FROM grants WHERE {LIVE} AND client = ?2");
    grants(moment, &sql, params![now(), id], lists, take)
}

/// Passes what changed after a revision to `take`.
pub(super) fn changes(
    moment: &Connection,
    after: i64,
    lists: &mut Lists,
    take: &mut dyn FnMut(Item<'_>),
) -> Result<(), RegistryError> {
    let sql = "SELECT DISTINCT kind, id FROM changes WHERE seq > ?1";
    let changed: Vec<(String, String)> = all(moment, sql, [after], |row| Ok((row.get(0)?, row.get(1)?)))?;
    for (kind, id) in changed {
        match kind.as_str() {
            "client" => client(moment, &id, lists, take)?,
            "token" => {
                let sql = "SELECT expires FROM revocations WHERE token = ?1";
                let expires = moment.prepare_cached(sql)?.query_row([&id], |row| row.get(0)).optional()?;
                // The revocation of a token that expired long ago is removed.
                if let Some(expires) = expires {
                    take(Item::Revoked(id, expires));
                }
            }
            "keys" => take(Item::Keys(keys(moment)?)),
            "staff" => take(Item::Staff(staff(moment)?)),
            "notices" => take(Item::Notices(notices::list(moment)?)),
            other => return Err(RegistryError::Store(format!("a change of an unknown kind {other:?}"))),
        }
    }
    Ok(())
}

/// Returns the number of the last change, whether its row still exists or not: removing a row must not keep a gateway
/// from noticing a change.
pub(super) fn revision(connection: &Connection) -> Result<i64, RegistryError> {
    let sql = "SELECT MAX(COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'changes'), 0),
                          COALESCE((SELECT MAX(seq) FROM changes), 0))";
    Ok(connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

/// Returns whether every change between two revisions exists, so that they can be followed one by one.
pub(super) fn is_unbroken(connection: &Connection, after: i64, revision: i64) -> Result<bool, RegistryError> {
    let sql = "SELECT COUNT(*) FROM changes WHERE seq > ?1";
    let there: i64 = connection.prepare_cached(sql)?.query_row([after], |row| row.get(0))?;
    Ok(there == revision - after)
}

pub(super) fn keys(connection: &Connection) -> Result<Vec<SigningKey>, RegistryError> {
    all(connection, "SELECT * FROM keys ORDER BY created, kid", [], read_key)
}

pub(super) fn staff(connection: &Connection) -> Result<Vec<Staff>, RegistryError> {
    all(connection, "SELECT * FROM staff ORDER BY id", [], read_staff)
}

/// The term for a person in errors.
pub(super) const STAFF: &str = "member of staff";

/// Returns one member of staff.
pub(super) fn person(connection: &Connection, id: &str) -> Result<Staff, RegistryError> {
    one(connection, "SELECT * FROM staff WHERE id = ?1", STAFF, id, read_staff)
}
