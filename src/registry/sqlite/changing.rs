//! One change of the registry: its effect on the tables, what gateways must read again, and its event for the exchange
//! log, all in one transaction.

use super::super::admin_event::ObjectChange;
use super::super::replication::{ChangeDraft, CommitOutcome};
use super::super::{Actor, AdminEvent, RegistryError};
use super::admin_events::EventNote;
use super::schema::note_touched;
use super::{SqliteStore, replica};
use rusqlite::{Connection, TransactionBehavior};
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

impl TouchedObjects {
    /// Returns kind and id, as a row has them.
    fn into_row(self) -> (String, String) {
        let (kind, id) = match self {
            TouchedObjects::Client(id) => ("client", id),
            TouchedObjects::Token(id) => ("token", id),
            TouchedObjects::Keys => ("keys", String::new()),
            TouchedObjects::Staff => ("staff", String::new()),
            TouchedObjects::Notices => ("notices", String::new()),
        };
        (kind.to_owned(), id)
    }
}

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

/// A change that was made in a transaction, which is committed or not.
struct JudgedChange<T> {
    result: T,
    touched: Vec<(String, String)>,
    events: Vec<AdminEvent>,
}

/// How often a change is judged again because others come first, before whoever makes it is told so.
const MAX_ATTEMPTS: usize = 100;

impl SqliteStore {
    /// Makes one change and records its event in one transaction: the event goes into the exchange log from here. If the
    /// file is a replica, the change counts if the engine says so; otherwise it is judged again on what has come before it.
    pub(super) fn change<T>(
        &self,
        event: &str,
        object: impl Into<String>,
        change: impl Fn(&mut Changing<'_>) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let object = object.into();
        let Some(replication) = &self.replication else {
            let mut connection = self.connection();
            let whole = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            replica::must_be_none(&whole)?;
            let judged = self.judge(&whole, event, &object, change)?;
            whole.commit()?;
            return Ok(judged.result);
        };
        for _ in 0..MAX_ATTEMPTS {
            let (result, draft) = self.draft(event, &object, &change)?;
            if replication.commit(draft)? == CommitOutcome::Applied {
                return Ok(result);
            }
        }
        Err(RegistryError::Store("other changes of the registry come first all the time: try again".into()))
    }

    /// Judges a change on the replica without making it.
    fn draft<T>(
        &self,
        event: &str,
        object: &str,
        change: impl Fn(&mut Changing<'_>) -> Result<T, RegistryError>,
    ) -> Result<(T, ChangeDraft), RegistryError> {
        let mut connection = self.connection();
        // Dropped without a commit: rolled back.
        let whole = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let unfilled = || RegistryError::Store("the registry of the other gateways is not known here yet".into());
        let base = replica::position(&whole)?.ok_or_else(unfilled)?;
        let JudgedChange { result, touched, events } = self.judge(&whole, event, object, change)?;
        Ok((result, replica::draft(&whole, base, touched, events)?))
    }

    /// Makes a change with its event in this transaction.
    fn judge<T>(
        &self,
        whole: &Connection,
        event: &str,
        object: &str,
        change: impl Fn(&mut Changing<'_>) -> Result<T, RegistryError>,
    ) -> Result<JudgedChange<T>, RegistryError> {
        let mut changing = Changing {
            connection: whole,
            actor: &self.actor,
            justification: &self.justification,
            changes: Vec::new(),
            touched: HashSet::new(),
            approved_by: String::new(),
        };
        let result = change(&mut changing)?;
        let Changing { changes, touched, approved_by, .. } = changing;
        let touched: Vec<(String, String)> = touched.into_iter().map(TouchedObjects::into_row).collect();
        note_touched(whole, &touched)?;
        let (actor, justification) = (&self.actor, &self.justification);
        let note = EventNote { key: &self.key, event, object, actor, justification };
        let events = note.write(whole, changes, &approved_by)?;
        Ok(JudgedChange { result, touched, events })
    }

    /// Logs an admin event that changes nothing here: it goes into the exchange log like every other one.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn note(&self, event: &str, object: String) -> Result<(), RegistryError> {
        self.change(event, object, |_| Ok(()))
    }
}
