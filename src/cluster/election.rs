//! Who should try to seal. The election saves work and nothing else: two sealers at once do no harm, since a checkpoint
//! moves only from the one that its sealer built on ([`commit`](super::commit)).

use super::ClusterError;
use super::keys::{Incarnation, SEALER};
use super::member::{EtcdMember, RangeRead, Txn, TxnCondition, TxnOperation};
use super::members::EtcdMembers;
use super::timers::Timers;
use std::time::Duration;

/// Time of the lease: the least that etcd gives.
pub const LEASE: Duration = Duration::from_secs(2);
/// How often the lease is kept alive.
pub const KEEP_EACH: Duration = Duration::from_millis(500);

/// An election that was won.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leadership {
    /// The lease of the key.
    pub lease: i64,
    /// The revision at which the key was created: it is another one at each election.
    pub created: i64,
}

/// Tries to be elected; `None` while another one is.
///
/// # Errors
/// As for [`EtcdMembers::settle`]; the lease ends by itself then.
pub async fn campaign<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    candidate: &Incarnation,
) -> Result<Option<Leadership>, ClusterError> {
    if !members.range(&RangeRead::key(SEALER)).await?.entries.is_empty() {
        return Ok(None);
    }
    let lease = members.send(super::members::DEADLINE, |member| member.grant_lease(LEASE)).await?;
    let txn = Txn {
        conditions: vec![TxnCondition::CreatedAt(SEALER.to_vec(), 0)],
        then: vec![TxnOperation::Put(SEALER.to_vec(), candidate.to_string().into_bytes(), lease)],
        otherwise: vec![TxnOperation::Get(SEALER.to_vec())],
    };
    let outcome = members.settle(&txn).await?;
    if outcome.succeeded {
        return Ok(Some(Leadership { lease, created: outcome.header.revision }));
    }
    // An earlier repetition of the same request may have won.
    let there = outcome.found.into_iter().flatten().next();
    let won = there.filter(|there| there.lease == lease).map(|there| Leadership { lease, created: there.created });
    if won.is_none() {
        let _ = members.send(KEEP_EACH, |member| member.revoke_lease(lease)).await;
    }
    Ok(won)
}

/// Keeps the lease alive until it has expired, or may have.
pub async fn renew<M: EtcdMember, T: Timers>(members: &EtcdMembers<M, T>, leadership: Leadership) -> ClusterError {
    let timers = members.timers();
    let mut kept = timers.now();
    loop {
        let sent = timers.now();
        if sent.saturating_sub(kept) >= LEASE {
            return ClusterError::LeaseExpired;
        }
        match members.send(KEEP_EACH, |member| member.renew_lease(leadership.lease)).await {
            Ok(()) => kept = sent,
            Err(ClusterError::LeaseExpired) => return ClusterError::LeaseExpired,
            // The next attempt goes to another member.
            Err(_) => {}
        }
        timers.sleep(KEEP_EACH).await;
    }
}
