//! One change of the registry: what it does to the tables, what gateways must read again, and the note of it for the
//! exchange log, all of it or nothing.

use super::super::act::{Change, parts};
use super::super::{Act, Actor, RegistryError};
use super::{SqliteStore, all};
use rusqlite::{Connection, TransactionBehavior, params};
use serde::Serialize;
use std::collections::HashSet;
use std::ops::Deref;

/// What a change touched, and gateways must read again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Touched {
    /// A client, with its grants.
    Client(String),
    /// A revoked token.
    Token(String),
    /// Signing keys.
    Keys,
    /// Those who administer.
    Staff,
}

/// Changes that are remembered: a gateway that is further behind reads everything.
pub(super) const REMEMBERED: i64 = 100_000;

/// A change under way.
pub(super) struct Changing<'c> {
    connection: &'c Connection,
    /// Who makes it.
    pub(super) actor: &'c Actor,
    /// Why, in their words.
    pub(super) justification: &'c str,
    changes: Vec<Change>,
    touched: HashSet<Touched>,
    approved_by: String,
}

impl Deref for Changing<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

impl Changing<'_> {
    /// Gateways must read this again.
    pub(super) fn touch(&mut self, touched: Touched) {
        self.touched.insert(touched);
    }

    /// Notes a record as it was and as it is now.
    pub(super) fn record<T: Serialize>(
        &mut self,
        kind: &str,
        id: &str,
        before: Option<&T>,
        after: Option<&T>,
    ) -> Result<(), RegistryError> {
        self.changes.push(Change::new(format!("{kind}:{id}"), before, after)?);
        Ok(())
    }

    /// Notes who approved it: who makes it.
    pub(super) fn approved(&mut self) {
        self.approved_by = self.actor.to_string();
    }
}

impl SqliteStore {
    /// One change and the note of it, both or neither: the note goes into the exchange log from here.
    pub(super) fn change<T>(
        &self,
        act: &str,
        object: impl Into<String>,
        change: impl FnOnce(&mut Changing<'_>) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut connection = self.connection();
        let whole = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut changing = Changing {
            connection: &whole,
            actor: &self.actor,
            justification: &self.justification,
            changes: Vec::new(),
            touched: HashSet::new(),
            approved_by: String::new(),
        };
        let done = change(&mut changing)?;
        let Changing { changes, touched, approved_by, .. } = changing;
        for touched in &touched {
            let (kind, id) = match touched {
                Touched::Client(id) => ("client", id.as_str()),
                Touched::Token(id) => ("token", id.as_str()),
                Touched::Keys => ("keys", ""),
                Touched::Staff => ("staff", ""),
            };
            whole.execute("INSERT INTO changes (kind, id) VALUES (?1, ?2)", params![kind, id])?;
        }
        if !touched.is_empty() {
            whole.execute("DELETE FROM changes WHERE seq <= ?1", [whole.last_insert_rowid() - REMEMBERED])?;
        }
        let note = Note { act, object: &object.into(), actor: &self.actor, justification: &self.justification };
        note.write(&whole, changes, &approved_by)?;
        whole.commit()?;
        Ok(done)
    }

    /// Notes what somebody did that changes nothing here: it goes into the exchange log like every act.
    pub fn note(&self, act: &str, object: String) -> Result<(), RegistryError> {
        self.change(act, object, |_| Ok(()))
    }
}

/// What is noted of an act beside its changes.
pub(super) struct Note<'n> {
    pub(super) act: &'n str,
    pub(super) object: &'n str,
    pub(super) actor: &'n Actor,
    pub(super) justification: &'n str,
}

impl Note<'_> {
    /// Writes the act, in as many rows as there must be entries.
    pub(super) fn write(
        &self,
        connection: &Connection,
        changes: Vec<Change>,
        approved_by: &str,
    ) -> Result<(), RegistryError> {
        let sql = "INSERT INTO acts (id, time_us, actor, act, object, certificate, address, approved_by, justification,
                   changes) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
        let mut insert = connection.prepare_cached(sql)?;
        for part in parts(changes) {
            let changes = serde_json::to_string(&part).map_err(|error| RegistryError::Store(error.to_string()))?;
            insert.execute(params![
                uuid::Uuid::now_v7().as_bytes().as_slice(),
                jiff::Timestamp::now().as_microsecond(),
                self.actor.to_string(),
                self.act,
                self.object,
                self.actor.thumbprint(),
                self.actor.address(),
                approved_by,
                self.justification,
                changes,
            ])?;
        }
        Ok(())
    }
}

/// Acts that are handed over at once: each may be as large as an entry.
const HANDED_OVER: i64 = 200;

/// The oldest acts that are not in the exchange log yet.
pub(super) fn acts(connection: &Connection) -> Result<Vec<Act>, RegistryError> {
    read_acts(connection, HANDED_OVER)
}

/// All of them.
pub(super) fn all_acts(connection: &Connection) -> Result<Vec<Act>, RegistryError> {
    read_acts(connection, i64::MAX)
}

fn read_acts(connection: &Connection, most: i64) -> Result<Vec<Act>, RegistryError> {
    let read = |row: &rusqlite::Row<'_>| {
        let changes: String = row.get("changes")?;
        let act = Act {
            id: row.get("id")?,
            time_us: row.get("time_us")?,
            actor: row.get("actor")?,
            certificate: row.get("certificate")?,
            address: row.get("address")?,
            act: row.get("act")?,
            object: row.get("object")?,
            approved_by: row.get("approved_by")?,
            justification: row.get("justification")?,
            changes: Vec::new(),
        };
        Ok((act, changes))
    };
    // In the order in which they were committed, whatever the clocks of two processes say.
    let rows = all(connection, "SELECT * FROM acts ORDER BY rowid LIMIT ?1", [most], read)?;
    let whole = |(act, changes): (Act, String)| {
        let changes = serde_json::from_str(&changes)
            .map_err(|error| RegistryError::Store(format!("an act of {} cannot be read: {error}", act.actor)))?;
        Ok(Act { changes, ..act })
    };
    rows.into_iter().map(whole).collect()
}
