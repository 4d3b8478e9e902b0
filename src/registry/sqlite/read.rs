//! Reading what gateways need: everything, or what changed after a revision.

use super::super::{Item, MAX_SKEW_S, RegistryError, SigningKey, Staff, now};
use super::rows::{VIEW, read_client, read_key, read_staff, read_view};
use super::{CLIENT, SqliteStore, all, one};
use rusqlite::{Connection, params};
use std::sync::PoisonError;

/// Condition of grants that calls may depend on, now or later.
const LIVE: &str = "NOT withdrawn AND (NOT needs_approval OR approved_by IS NOT NULL) AND not_after > ?1";

impl SqliteStore {
    /// Hands over everything.
    pub(super) fn read_all(&self, moment: &Connection, take: &mut dyn FnMut(Item<'_>)) -> Result<(), RegistryError> {
        // Retired ones too: whoever is too far behind to follow changes must learn of them.
        all(moment, "SELECT * FROM clients", [], |row| {
            take(Item::Client(read_client(row)?));
            Ok(())
        })?;
        self.read_grants(moment, &format!("SELECT {VIEW} FROM grants WHERE {LIVE}"), params![now()], take)?;
        let sql = "SELECT token, expires FROM revocations WHERE expires > ?1";
        all(moment, sql, [now() - MAX_SKEW_S], |row| {
            take(Item::Revoked(row.get(0)?, row.get(1)?));
            Ok(())
        })?;
        take(Item::Keys(keys(moment)?));
        take(Item::Staff(staff(moment)?));
        Ok(())
    }

    pub(super) fn read_grants(
        &self,
        moment: &Connection,
        sql: &str,
        params: impl rusqlite::Params,
        take: &mut dyn FnMut(Item<'_>),
    ) -> Result<(), RegistryError> {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let mut statement = moment.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        while let Some(row) = rows.next()? {
            let (client, grant) = read_view(row, &mut lists)?;
            take(Item::Grant(client, grant));
        }
        Ok(())
    }

    pub(super) fn read_client(
        &self,
        moment: &Connection,
        id: &str,
        take: &mut dyn FnMut(Item<'_>),
    ) -> Result<(), RegistryError> {
        take(Item::Client(one(moment, CLIENT, "client", id, read_client)?));
        self.read_grants(
            moment,
            &format!("SELECT {VIEW} FROM grants WHERE {LIVE} AND client = ?2"),
            params![now(), id],
            take,
        )
    }

    /// Hands over what changed after a revision.
    pub(super) fn read_changes(
        &self,
        moment: &Connection,
        after: i64,
        take: &mut dyn FnMut(Item<'_>),
    ) -> Result<(), RegistryError> {
        let sql = "SELECT DISTINCT kind, id FROM changes WHERE seq > ?1";
        let changed: Vec<(String, String)> = all(moment, sql, [after], |row| Ok((row.get(0)?, row.get(1)?)))?;
        for (kind, id) in changed {
            match kind.as_str() {
                "client" => self.read_client(moment, &id, take)?,
                "token" => {
                    let expires =
                        one(moment, "SELECT expires FROM revocations WHERE token = ?1", "token", &id, |row| {
                            row.get(0)
                        })?;
                    take(Item::Revoked(id, expires));
                }
                "keys" => take(Item::Keys(keys(moment)?)),
                "staff" => take(Item::Staff(staff(moment)?)),
                other => return Err(RegistryError::Store(format!("a change of an unknown kind {other:?}"))),
            }
        }
        Ok(())
    }
}

pub(super) fn revision(connection: &Connection) -> Result<i64, RegistryError> {
    Ok(connection.prepare_cached("SELECT COALESCE(MAX(seq), 0) FROM changes")?.query_row([], |row| row.get(0))?)
}

pub(super) fn keys(connection: &Connection) -> Result<Vec<SigningKey>, RegistryError> {
    all(connection, "SELECT * FROM keys ORDER BY created, kid", [], read_key)
}

pub(super) fn staff(connection: &Connection) -> Result<Vec<Staff>, RegistryError> {
    all(connection, "SELECT * FROM staff ORDER BY id", [], read_staff)
}
