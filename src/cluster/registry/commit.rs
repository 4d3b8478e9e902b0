//! The one transaction that makes a change count.
//!
//! Safety is here alone: a change counts only if the head is still the one that it was judged on. Whatever it checked
//! (that a name is free, who has requested what) is then still so.

use super::change::{self, MAX_BYTES, MAX_ROWS, RegistryChange, RegistryHead, VERSION};
use super::replica_state::PlacedHead;
use crate::cluster::ClusterError;
use crate::cluster::keys;
use crate::cluster::member::{EtcdMember, KeyValue, Txn, TxnCondition, TxnOperation, TxnOutcome};
use crate::cluster::members::EtcdMembers;
use crate::cluster::timers::Timers;
use crate::registry::replication::ChangeDraft;
use std::time::Duration;

/// How long the outcome of a change is asked for before whoever makes it is told that it is unknown.
pub const COMMIT_DEADLINE: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_millis(500);
/// What etcd has made of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It counts, since this revision.
    Counts(i64),
    /// Another change was first.
    Superseded,
}

/// A change that is ready to be put.
pub(super) struct PreparedChange {
    pub(super) change: RegistryChange,
    base: PlacedHead,
    txn: Txn,
}

impl PreparedChange {
    /// Prepares a draft, with its events as entries of the log. `journal` changes are kept.
    ///
    /// # Errors
    /// [`ClusterError::Refused`] if it exceeds a transaction: it has to be made in parts.
    pub(super) fn new(draft: &ChangeDraft, entries: Vec<Vec<u8>>, journal: u64) -> Result<Self, ClusterError> {
        let base = PlacedHead::of(&draft.base)?;
        let events = draft.events.iter().map(|event| event.sequence).max().unwrap_or(base.head.events);
        let (head, batch) = base.head.next(draft.id, events, entries)?;
        let change = RegistryChange { head, touched: draft.touched.clone(), rows: draft.rows.clone() };
        let bytes = change.encode();
        if change.rows.len() > MAX_ROWS || bytes.len() > MAX_BYTES {
            let (rows, size) = (change.rows.len(), bytes.len() >> 10);
            return Err(ClusterError::Refused(format!(
                "the change has {rows} rows of {size} kB: {MAX_ROWS} rows of {} kB are possible at once, make it in parts",
                MAX_BYTES >> 10
            )));
        }
        let txn = transaction(&base, &change, bytes, batch, journal);
        Ok(PreparedChange { change, base, txn })
    }

    /// Puts the change, and repeats that until the outcome is known.
    ///
    /// # Errors
    /// [`ClusterError::OutcomeUnknown`] after [`COMMIT_DEADLINE`]: the change may count, now or later. Those that do not
    /// pass.
    pub(super) async fn settle<M: EtcdMember, T: Timers>(
        &self,
        members: &EtcdMembers<M, T>,
    ) -> Result<Verdict, ClusterError> {
        let (end, mut pause) = (members.timers().now() + COMMIT_DEADLINE, FIRST_PAUSE);
        loop {
            let error = match members.settle(&self.txn).await {
                Ok(outcome) => return self.judge(&outcome),
                Err(error) if error.may_pass() => error,
                Err(error) => return Err(error),
            };
            if members.timers().now() >= end {
                // Also without a quorum: an earlier request may still be on its way.
                return Err(ClusterError::OutcomeUnknown(format!("the change may have been made: {error}")));
            }
            members.timers().sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// The conditions decide about a repetition as well: if the head has moved, the change of the next number is ours or not.
    fn judge(&self, outcome: &TxnOutcome) -> Result<Verdict, ClusterError> {
        let missing = || ClusterError::Refused("the response lacks what was there".into());
        if outcome.succeeded {
            let head = outcome.found.first().and_then(Option::as_ref).ok_or_else(missing)?;
            return Ok(Verdict::Counts(head.modified));
        }
        let [head, there] = outcome.found.as_slice() else { return Err(missing()) };
        let head = head.as_ref().ok_or(ClusterError::NoRegistry)?;
        if let Some(there) = there {
            let made = RegistryChange::decode(&there.value, self.change.head.number)?;
            return Ok(match made.head.id == self.change.head.id {
                true => Verdict::Counts(there.modified),
                false => Verdict::Superseded,
            });
        }
        self.without_next(head)
    }

    /// There is no change of the next number.
    fn without_next(&self, head: &KeyValue) -> Result<Verdict, ClusterError> {
        let now = RegistryHead::decode(&head.value)?;
        if head.modified == self.base.modified {
            // Only the batch's own conditions are left.
            let key = self.change.head.writer.batch_key(self.change.head.seq);
            return Err(ClusterError::Conflict { key: String::from_utf8_lossy(&key).into_owned() });
        }
        if now.number < self.change.head.number {
            return Err(ClusterError::RolledBack(format!("change {} was seen", self.base.head.number)));
        }
        // More changes than are kept were made meanwhile: whether ours is among them is not known.
        Err(ClusterError::OutcomeUnknown("the change may have been made, more than a thousand ago".into()))
    }
}

fn transaction(base: &PlacedHead, change: &RegistryChange, bytes: Vec<u8>, batch: Vec<u8>, journal: u64) -> Txn {
    let head = &change.head;
    let (next, batch_key) = (change::change_key(head.number), head.writer.batch_key(head.seq));
    let conditions = vec![
        TxnCondition::ModifiedAt(VERSION.to_vec(), base.modified),
        TxnCondition::CreatedAt(batch_key.clone(), 0),
        TxnCondition::ValueBelow(head.writer.mark_key(), keys::number(head.seq)),
    ];
    let mut then = vec![
        TxnOperation::Put(VERSION.to_vec(), head.encode(), 0),
        TxnOperation::Get(VERSION.to_vec()),
        TxnOperation::Put(next.clone(), bytes, 0),
        TxnOperation::Put(batch_key, batch, 0),
    ];
    then.extend(change.rows.iter().map(|row| {
        let key = change::row_key(&row.key);
        match &row.cells {
            Some(cells) => TxnOperation::Put(key, change::encode_row(cells), 0),
            // The deletion is a value of the change above.
            None => TxnOperation::DeleteRange(key.clone(), [key.as_slice(), &[0]].concat()),
        }
    }));
    if let Some(old) = head.number.checked_sub(journal) {
        then.push(TxnOperation::DeleteRange(change::change_key(0), change::change_key(old + 1)));
    }
    Txn { conditions, then, otherwise: vec![TxnOperation::Get(VERSION.to_vec()), TxnOperation::Get(next)] }
}
