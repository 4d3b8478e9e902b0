//! One change of the registry: its effect on the tables, what gateways must read again, and its event for the exchange
//! log, all in one transaction.

use super::super::admin_event::ObjectChange;
use super::super::{Actor, RegistryError};
use super::SqliteStore;
use super::admin_events::EventNote;
use rusqlite::{Connection, TransactionBehavior, params};
use serde::Serialize;
use std::collections::HashSet;
use std::ops::Deref;

/// What a change touched; gateways must read it again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum TouchedObjects {
    /// A client, with its grants.
    Client(String),
    /// A revoked token.
    Token(String),
    /// Signing keys.
    Keys,
    /// Staff.
    Staff,
    /// Maintenance notices.
    Notices,
}

/// Number of changes that are remembered: a gateway that is further behind reads everything.
pub(super) const REMEMBERED: i64 = 100_000;

/// A change in progress.
pub(super) struct Changing<'c> {
    connection: &'c Connection,
    /// The actor.
    pub(super) actor: &'c Actor,
    /// The actor's justification.
    pub(super) justification: &'c str,
    changes: Vec<ObjectChange>,
    touched: HashSet<TouchedObjects>,
    approved_by: String,
}

impl Deref for Changing<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

impl Changing<'_> {
    /// Records that gateways must read this again.
    pub(super) fn touch(&mut self, touched: TouchedObjects) {
        self.touched.insert(touched);
    }

    /// Records an object's record before and after.
    pub(super) fn record<T: Serialize>(
        &mut self,
        kind: &str,
        id: &str,
        before: Option<&T>,
        after: Option<&T>,
    ) -> Result<(), RegistryError> {
        self.changes.push(ObjectChange::new(format!("{kind}:{id}"), before, after)?);
        Ok(())
    }

    /// Records the actor as the approver.
    pub(super) fn approved(&mut self) {
        self.approved_by = self.actor.to_string();
    }
}

impl SqliteStore {
    /// Makes one change and records its event in one transaction: the event goes into the exchange log from here.
    pub(super) fn change<T>(
        &self,
        event: &str,
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
                TouchedObjects::Client(id) => ("client", id.as_str()),
                TouchedObjects::Token(id) => ("token", id.as_str()),
                TouchedObjects::Keys => ("keys", ""),
                TouchedObjects::Staff => ("staff", ""),
                TouchedObjects::Notices => ("notices", ""),
            };
            whole.execute("INSERT INTO changes (kind, id) VALUES (?1, ?2)", params![kind, id])?;
        }
        if !touched.is_empty() {
            whole.execute("DELETE FROM changes WHERE seq <= ?1", [whole.last_insert_rowid() - REMEMBERED])?;
        }
        let (actor, justification) = (&self.actor, &self.justification);
        let note = EventNote { key: &self.key, event, object: &object.into(), actor, justification };
        note.write(&whole, changes, &approved_by)?;
        whole.commit()?;
        Ok(done)
    }

    /// Logs an admin event that changes nothing here: it goes into the exchange log like every other one.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn note(&self, event: &str, object: String) -> Result<(), RegistryError> {
        self.change(event, object, |_| Ok(()))
    }
}
