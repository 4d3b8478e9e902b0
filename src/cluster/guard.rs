//! Guards against what etcd cannot see of itself: that it was rolled back, or that one of its members was.
//!
//! A member that is restored from an old snapshot joins the others again, and evaluates each transaction on its own old
//! data. So no response of one member alone is trusted where a signature depends on it: a checkpoint counts when a majority
//! of the members returns the same one ([`confirmed`]).

use super::ClusterError;
use super::highest::HighestSeen;
use super::keys::CHECKPOINT;
use super::left;
use super::member::{EtcdMember, KeyValue, MemberHash, MemberStatus, RangeRead, ResponseHeader};
use super::members::EtcdMembers;
use super::own_disk::OwnDisk;
use super::state::SealedState;
use super::timers::Timers;

/// How often the members are compared.
pub const COMPARE_EACH: std::time::Duration = std::time::Duration::from_secs(5);
/// How often members are asked again for a hash that they do not have yet.
const HASH_ATTEMPTS: usize = 5;

/// The checkpoint that a majority of the members returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfirmedCheckpoint {
    /// The head of one of their responses.
    pub header: ResponseHeader,
    /// The key.
    pub entry: KeyValue,
    /// Its value.
    pub state: SealedState,
}

/// Reads the checkpoint from all members, and returns the one that a majority of them has.
///
/// # Errors
/// [`ClusterError::NotConfirmed`] if there is none at this instant; [`ClusterError::NoLog`] if a majority has no
/// checkpoint; [`ClusterError::Left`]; [`ClusterError::Malformed`].
pub async fn confirmed<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
) -> Result<ConfirmedCheckpoint, ClusterError> {
    let read = RangeRead::key(CHECKPOINT);
    let pages = members.each(|member| member.range(&read)).await;
    let pages: Vec<_> = pages.into_iter().filter_map(Result::ok).collect();
    let majority = members.majority();
    for page in &pages {
        if pages.iter().filter(|other| other.entries == page.entries).count() < majority {
            continue;
        }
        let entry = page.entries.first().cloned().ok_or(ClusterError::NoLog)?;
        let state = left::present(&entry.value)?;
        return Ok(ConfirmedCheckpoint { header: page.header, entry, state });
    }
    Err(ClusterError::NotConfirmed)
}

/// Reads the confirmed checkpoint, and compares it with the highest state that this gateway has seen, which it becomes.
///
/// # Errors
/// [`ClusterError::RolledBack`] if it is behind; as for [`confirmed`]; the own disk's.
pub async fn checked<M: EtcdMember, T: Timers, D: OwnDisk>(
    members: &EtcdMembers<M, T>,
    disk: &D,
) -> Result<ConfirmedCheckpoint, ClusterError> {
    // Before the request: another task of this gateway may see more meanwhile.
    let highest = disk.highest().await?;
    let checkpoint = confirmed(members).await?;
    let seen = HighestSeen::of(&checkpoint.header, &checkpoint.state);
    if let Some(highest) = highest {
        highest.check(&seen)?;
    }
    disk.store_highest(&seen).await?;
    Ok(checkpoint)
}

/// Compares the data of all members that respond, at one revision, and their revisions with their progress in raft's log.
///
/// # Errors
/// [`ClusterError::Diverged`] if two of them differ, one does not have the revision within five attempts, or one has too
/// low a revision for what it has applied; [`ClusterError::NoQuorum`] if fewer than a majority respond.
pub async fn compare_members<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    revision: i64,
) -> Result<(), ClusterError> {
    compare_progress(members).await?;
    for attempt in 0..HASH_ATTEMPTS {
        members.timers().sleep(std::time::Duration::from_millis(20 << attempt)).await;
        let hashes = members.each(|member| member.hash(revision)).await;
        // A member that is behind has the revision soon, unless it was restored.
        if hashes.iter().any(|hash| matches!(hash, Err(ClusterError::FutureRevision))) {
            continue;
        }
        // While the members compact, their hashes are not comparable.
        if hashes.iter().any(|hash| matches!(hash, Err(ClusterError::Compacted))) {
            return Ok(());
        }
        let hashes: Vec<MemberHash> = hashes.into_iter().filter_map(Result::ok).collect();
        return judge(&hashes, members.majority(), revision);
    }
    Err(ClusterError::Diverged(format!("a member does not have revision {revision}")))
}

/// Compares each member's revision with those of others that have applied no more of raft's log.
async fn compare_progress<M: EtcdMember, T: Timers>(members: &EtcdMembers<M, T>) -> Result<(), ClusterError> {
    let first = members.each(|member| member.status()).await;
    let second = members.each(|member| member.status()).await;
    let progress: Vec<Progress> =
        first.into_iter().zip(second).filter_map(|(first, second)| Progress::of(&first.ok()?, &second.ok()?)).collect();
    match progress.iter().find(|one| progress.iter().any(|other| one.lags_behind(other))) {
        Some(one) => Err(ClusterError::Diverged(format!(
            "member {:x} has revision {} at raft's index {}, and another one had more before it",
            one.member, one.later_revision, one.applied
        ))),
        None => Ok(()),
    }
}

/// How far a member is, by two looks at it. A status is not of one instant: its revision is read before its index.
struct Progress {
    member: u64,
    /// The index of the first look.
    applied: u64,
    /// The revision of the first look: at most one entry of raft's log ahead of the index.
    revision: i64,
    /// The revision of the second look: at least that of the index.
    later_revision: i64,
}

impl Progress {
    /// `None` if two members have responded.
    fn of(first: &MemberStatus, second: &MemberStatus) -> Option<Self> {
        let (member, applied, revision) = (first.header.member, first.applied_index, first.header.revision);
        let progress = Progress { member, applied, revision, later_revision: second.header.revision };
        (second.header.member == member).then_some(progress)
    }

    /// Whether it has applied all that the other one had, and does not have its revision: it was restored from a snapshot.
    fn lags_behind(&self, other: &Progress) -> bool {
        other.applied <= self.applied && other.revision > self.later_revision + 1
    }
}

fn judge(hashes: &[MemberHash], majority: usize, revision: i64) -> Result<(), ClusterError> {
    if hashes.len() < majority {
        return Err(ClusterError::NoQuorum);
    }
    let differ = |one: &MemberHash, other: &MemberHash| one.compacted == other.compacted && one.hash != other.hash;
    match hashes.iter().find(|one| hashes.iter().any(|other| differ(one, other))) {
        Some(one) => Err(ClusterError::Diverged(format!(
            "member {:x} and another one have different data at revision {revision}",
            one.header.member
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_compared_where_they_are_comparable() {
        let member = |hash, compacted| MemberHash { hash, compacted, ..MemberHash::default() };
        assert_eq!(judge(&[member(1, 5), member(1, 5), member(1, 5)], 2, 9), Ok(()));
        assert_eq!(judge(&[member(1, 5), member(2, 6), member(1, 5)], 2, 9), Ok(()));
        assert!(matches!(judge(&[member(1, 5), member(2, 5)], 2, 9), Err(ClusterError::Diverged(_))));
        assert_eq!(judge(&[member(1, 5)], 2, 9), Err(ClusterError::NoQuorum));
    }

    #[test]
    fn a_member_that_has_applied_as_much_has_as_high_a_revision() {
        let member = |applied, revision, later_revision| Progress { member: 1, applied, revision, later_revision };
        let healthy = member(100, 50, 52);
        for other in
            [member(100, 50, 50), member(100, 51, 52), member(90, 50, 50), member(110, 60, 60), member(110, 45, 49)]
        {
            assert!(!other.lags_behind(&healthy) && !healthy.lags_behind(&other), "{}", other.applied);
        }
        assert!(member(100, 40, 40).lags_behind(&healthy));
        assert!(member(130, 40, 48).lags_behind(&healthy));
        assert!(!healthy.lags_behind(&member(130, 40, 48)));
    }
}
