//! Daily quotas of all gateways together, exact: each gateway takes blocks of a grant's day, and calls use up what it holds.
//!
//! What is taken in all is one key for each grant and day, which moves by a condition on its revision, so it never exceeds
//! the quota; what a start of a gateway has taken of it is another, which it alone writes, so a repeated request is
//! recognized. A call is permitted only out of a block that was granted for certain.
//!
//! | key | value |
//! | --- | --- |
//! | `quota/<day>/total/<grant>` | calls that were handed out, in 16 hexadecimal digits |
//! | `quota/<day>/by/<gateway>.<incarnation>/<grant>` | how many of them to this start of a gateway |
//!
//! **Unused**: what a gateway holds when it crashes is lost for the day. It holds less than one and a half blocks
//! ([`block_size`]): 3 % of a quota, and less towards its end. A clean end gives it back. Likewise a gateway without calls
//! keeps its rest from the others; it takes its first block at its first call, so that is bounded in the same way.

use crate::cluster::ClusterError;
use crate::cluster::collect::pages;
use crate::cluster::keys::{self, Incarnation};
use crate::cluster::member::{EtcdMember, KeyValue, RangeRead, Txn, TxnCondition, TxnOperation};
use crate::cluster::members::EtcdMembers;
use crate::cluster::timers::Timers;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A block is at most this part of a quota.
const PARTS: u64 = 50;
/// Attempts to take a block while other gateways come first: each of them has taken one.
const MAX_ATTEMPTS: usize = 64;
/// Grants of a page.
const PAGE: i64 = 1_000;
/// Before all keys of quotas.
const QUOTAS: &[u8] = b"quota/";
/// Put by each deletion, so that its revision has a put.
const REMOVED: &[u8] = b"quota-removed";

/// A grant's day: days since 1970 in Ho Chi Minh City, and the grant's id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GrantDay {
    /// The day.
    pub day: u64,
    /// The grant.
    pub grant: String,
}

/// What this gateway knows of a grant's day.
#[derive(Default)]
struct DayLedger {
    /// Calls that may still be made here.
    available: u64,
    /// What this start of the gateway has taken, as etcd has it.
    taken: u64,
    /// What all gateways had taken when this one looked last.
    total: u64,
    /// A request whose outcome is not known yet: nothing else is requested before it is.
    open: Option<OpenRequest>,
}

/// A request that changes what was taken.
#[derive(Clone)]
struct OpenRequest {
    txn: Txn,
    /// What this start has taken if the request was carried out.
    taken: u64,
    /// What all have taken then.
    total: u64,
}

/// The blocks of a gateway's start.
pub struct QuotaBlocks<M, T> {
    members: Arc<EtcdMembers<M, T>>,
    holder: Incarnation,
    gateways: u64,
    ledgers: Mutex<HashMap<GrantDay, DayLedger>>,
    /// One request at a time.
    asking: tokio::sync::Mutex<()>,
}

/// Returns how many calls a gateway takes at once of what is left of a quota: a fiftieth of it at first, towards the end a
/// quarter of an equal share, one at last.
pub fn block_size(quota: u64, left: u64, gateways: u64) -> u64 {
    let share = left / (4 * gateways.max(1));
    share.clamp(1, (quota / PARTS).max(1)).min(left)
}

impl GrantDay {
    fn total_key(&self) -> Vec<u8> {
        [self.prefix(), b"total/".to_vec(), self.grant.clone().into_bytes()].concat()
    }

    fn own_key(&self, holder: &Incarnation) -> Vec<u8> {
        [self.prefix(), format!("by/{holder}/{}", self.grant).into_bytes()].concat()
    }

    fn prefix(&self) -> Vec<u8> {
        [QUOTAS, keys::number(self.day).as_slice(), b"/"].concat()
    }
}

/// Says of a grant's day that so many calls were made before its quota is counted here.
///
/// # Errors
/// As for [`EtcdMembers::settle`]: a repetition is safe. [`ClusterError::Overloaded`] if gateways take blocks all the time.
pub async fn raise_total<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    day: &GrantDay,
    used: u64,
) -> Result<(), ClusterError> {
    let key = day.total_key();
    for _ in 0..MAX_ATTEMPTS {
        let (total, modified) = calls(members.range(&RangeRead::key(&key)).await?.entries.first())?;
        let txn = Txn {
            conditions: vec![TxnCondition::ModifiedAt(key.clone(), modified)],
            then: vec![TxnOperation::Put(key.clone(), keys::number(used), 0)],
            otherwise: Vec::new(),
        };
        if total >= used || members.settle(&txn).await?.succeeded {
            return Ok(());
        }
    }
    Err(ClusterError::Overloaded("gateways take the quota's blocks all the time".into()))
}

/// Returns the calls of a day that were handed out of each grant's quota.
///
/// # Errors
/// As for [`EtcdMembers::range`]; [`ClusterError::Malformed`].
pub async fn totals<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    day: u64,
) -> Result<Vec<(String, u64)>, ClusterError> {
    let prefix = GrantDay { day, grant: String::new() }.total_key();
    let entries = pages(members, RangeRead { limit: PAGE, ..RangeRead::prefix(&prefix) }).await?;
    let total = |entry: &KeyValue| {
        let grant = entry.key.strip_prefix(prefix.as_slice()).and_then(|grant| std::str::from_utf8(grant).ok());
        let wrong = || ClusterError::malformed(String::from_utf8_lossy(&entry.key), "not of a grant");
        Ok((grant.ok_or_else(wrong)?.to_owned(), calls(Some(entry))?.0))
    };
    entries.iter().map(total).collect()
}

/// Reads a number of calls; none if the key does not exist.
fn calls(entry: Option<&KeyValue>) -> Result<(u64, i64), ClusterError> {
    let Some(entry) = entry else { return Ok((0, 0)) };
    let wrong = || ClusterError::malformed(String::from_utf8_lossy(&entry.key), "not a number of calls");
    Ok((keys::parse_number(&entry.value).ok_or_else(wrong)?, entry.modified))
}

impl<M: EtcdMember, T: Timers> QuotaBlocks<M, T> {
    /// The blocks of one start of a gateway, one of `gateways`. The incarnation is new at each start.
    pub fn new(members: Arc<EtcdMembers<M, T>>, holder: Incarnation, gateways: u64) -> Self {
        QuotaBlocks { members, holder, gateways, ledgers: Mutex::default(), asking: tokio::sync::Mutex::default() }
    }

    /// Uses one call of what this gateway holds; returns whether there was one. Waits for nothing.
    pub fn consume(&self, day: &GrantDay) -> bool {
        let mut ledgers = self.ledgers();
        let Some(ledger) = ledgers.get_mut(day).filter(|ledger| ledger.available > 0) else { return false };
        ledger.available -= 1;
        true
    }

    /// Returns how many calls may still be made here, so that whoever uses them can [`refill`](QuotaBlocks::refill) early.
    pub fn available(&self, day: &GrantDay) -> u64 {
        self.ledgers().get(day).map_or(0, |ledger| ledger.available)
    }

    /// Returns how many calls all gateways together may still make, as far as is known here: what is left of the quota, and what
    /// this gateway holds.
    pub fn remaining(&self, day: &GrantDay, quota: u64) -> u64 {
        self.ledgers().get(day).map_or(quota, |ledger| quota.saturating_sub(ledger.total) + ledger.available)
    }

    /// Takes another block, if less than half of one is left; returns how many calls may be made here now. None: the day's
    /// quota is used up, but for what other gateways hold.
    ///
    /// # Errors
    /// [`ClusterError::OutcomeUnknown`] or [`ClusterError::NoQuorum`] without a response: the next call asks for the same;
    /// [`ClusterError::Overloaded`] if other gateways come first all the time.
    pub async fn refill(&self, day: &GrantDay, quota: u64) -> Result<u64, ClusterError> {
        let _turn = self.asking.lock().await;
        for _ in 0..MAX_ATTEMPTS {
            self.settle_open(day).await?;
            let (available, taken) = self.held(day);
            let (total, modified) = self.total(day).await?;
            let block = block_size(quota, quota.saturating_sub(total), self.gateways);
            if block == 0 || available > block / 2 {
                return Ok(available);
            }
            self.open(day, total + block, modified, taken + block);
            if self.settle_open(day).await? {
                return Ok(self.held(day).0);
            }
        }
        Err(ClusterError::Overloaded("other gateways take the quota's blocks first all the time".into()))
    }

    /// Gives back what this gateway holds of a day, at a clean end; no call uses it any more from now on.
    ///
    /// # Errors
    /// As for [`refill`](QuotaBlocks::refill): what is not given back for certain is lost for the day.
    pub async fn release(&self, day: &GrantDay) -> Result<(), ClusterError> {
        let _turn = self.asking.lock().await;
        self.settle_open(day).await?;
        let rest = self.ledgers().get_mut(day).map_or(0, |ledger| std::mem::take(&mut ledger.available));
        for _ in 0..MAX_ATTEMPTS {
            let (_, taken) = self.held(day);
            let (total, modified) = self.total(day).await?;
            if rest == 0 {
                return Ok(());
            }
            self.open(day, total.saturating_sub(rest), modified, taken.saturating_sub(rest));
            if self.settle_open(day).await? {
                return Ok(());
            }
        }
        Err(ClusterError::Overloaded("other gateways take the quota's blocks first all the time".into()))
    }

    /// Returns the days of which this gateway holds calls, for a clean end.
    pub fn held_days(&self) -> Vec<GrantDay> {
        let ledgers = self.ledgers();
        let held = ledgers.iter().filter(|(_, ledger)| ledger.available > 0 || ledger.open.is_some());
        held.map(|(day, _)| day.clone()).collect()
    }

    /// Deletes everything of the days before one, and forgets them here.
    ///
    /// # Errors
    /// As for [`EtcdMembers::settle`].
    pub async fn remove_before(&self, day: u64) -> Result<(), ClusterError> {
        self.ledgers().retain(|known, _| known.day >= day);
        let end = [QUOTAS, keys::number(day).as_slice()].concat();
        let then = vec![
            TxnOperation::DeleteRange(QUOTAS.to_vec(), end),
            TxnOperation::Put(REMOVED.to_vec(), keys::number(day), 0),
        ];
        self.members.settle(&Txn { then, ..Txn::default() }).await.map(drop)
    }

    async fn total(&self, day: &GrantDay) -> Result<(u64, i64), ClusterError> {
        let (total, modified) = calls(self.members.range(&RangeRead::key(&day.total_key())).await?.entries.first())?;
        self.ledgers().entry(day.clone()).or_default().total = total;
        Ok((total, modified))
    }

    /// Notes a request before it is sent.
    fn open(&self, day: &GrantDay, total: u64, modified: i64, taken: u64) {
        let (total_key, own_key) = (day.total_key(), day.own_key(&self.holder));
        let txn = Txn {
            conditions: vec![TxnCondition::ModifiedAt(total_key.clone(), modified)],
            then: vec![
                TxnOperation::Put(total_key, keys::number(total), 0),
                TxnOperation::Put(own_key.clone(), keys::number(taken), 0),
            ],
            otherwise: vec![TxnOperation::Get(own_key)],
        };
        self.ledgers().entry(day.clone()).or_default().open = Some(OpenRequest { txn, taken, total });
    }

    /// Repeats the open request until its outcome is known; returns whether there was one that was carried out.
    async fn settle_open(&self, day: &GrantDay) -> Result<bool, ClusterError> {
        let open = self.ledgers().get(day).and_then(|ledger| ledger.open.clone());
        let Some(OpenRequest { txn, taken, total }) = open else { return Ok(false) };
        let outcome = self.members.settle(&txn).await?;
        // Only this start writes its own key: an earlier repetition was carried out if that has the new number. If it was
        // not, it never will be: the total has moved.
        let is_done = outcome.succeeded || calls(outcome.found.first().and_then(Option::as_ref))?.0 == taken;
        let mut ledgers = self.ledgers();
        let ledger = ledgers.entry(day.clone()).or_default();
        ledger.open = None;
        if is_done {
            ledger.available += taken.saturating_sub(ledger.taken);
            (ledger.taken, ledger.total) = (taken, total);
        }
        Ok(is_done)
    }

    /// What may be used here, and what was taken.
    fn held(&self, day: &GrantDay) -> (u64, u64) {
        self.ledgers().get(day).map_or((0, 0), |ledger| (ledger.available, ledger.taken))
    }

    fn ledgers(&self) -> MutexGuard<'_, HashMap<GrantDay, DayLedger>> {
        self.ledgers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_small_parts_and_end_with_single_calls() {
        assert_eq!(block_size(100_000, 100_000, 3), 2_000);
        assert_eq!((block_size(100, 100, 3), block_size(10, 10, 3), block_size(1, 1, 3)), (2, 1, 1));
        assert_eq!((block_size(100_000, 12_000, 3), block_size(100_000, 11, 3)), (1_000, 1));
        assert_eq!(block_size(100_000, 0, 3), 0, "nothing is left");
    }

    #[test]
    fn a_whole_quota_is_handed_out_in_a_few_hundred_blocks() {
        let (mut left, mut blocks) = (1_000_000, 0);
        while left > 0 {
            left -= block_size(1_000_000, left, 3);
            blocks += 1;
        }
        assert!(blocks < 250, "{blocks}");
    }
}
