//! Guards against what etcd cannot see of itself: that it was rolled back, or that one of its members was.
//!
//! A member that is restored from an old snapshot joins the others again, and evaluates each transaction on its own old
//! data. So no response of one member alone is trusted where a signature depends on it: a checkpoint counts when a majority
//! of the members returns the same one ([`confirmed`]).

use super::ClusterError;
use super::highest::HighestSeen;
use super::keys::{CHECKPOINT, CLUSTER, LOG, MARKS, STORED};
use super::left;
use super::member::{EtcdMember, KeyValue, MemberStatus, RangePage, RangeRead, ResponseHeader};
use super::members::EtcdMembers;
use super::own_disk::OwnDisk;
use super::state::SealedState;
use super::timers::Timers;

/// How often the members are compared.
pub const COMPARE_EACH: std::time::Duration = std::time::Duration::from_secs(5);
/// Keys that are compared at once.
const PAGE: i64 = 256;
/// How often a page is read again that no majority has returned in time.
const PAGE_ATTEMPTS: usize = 3;
/// What etcd calls a member whose data its own comparison found to be different.
const CORRUPT: &str = "CORRUPT";

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

/// Compares the log's keys of all members that respond, at one revision, and their revisions with their progress in raft's
/// log. etcd's own hash of a member's data needs its administrator's role, which no gateway has: it is for the members'
/// own comparison, whose alarm is an error here.
///
/// # Errors
/// [`ClusterError::Diverged`] if two of them differ, one does not have the revision, one has too low a revision for what it
/// has applied, or etcd says so itself; [`ClusterError::NoQuorum`] if fewer than a majority respond.
pub async fn compare_members<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    revision: i64,
) -> Result<(), ClusterError> {
    compare_progress(members).await?;
    // A batch is bytes of its gateway under a key that is put once: its revisions say whether members hold the same.
    let log = RangeRead { keys_only: true, ..RangeRead::prefix(LOG) };
    let others =
        [RangeRead::prefix(MARKS), RangeRead::prefix(STORED), RangeRead::key(CHECKPOINT), RangeRead::key(CLUSTER)];
    for read in std::iter::once(log).chain(others) {
        match compare_range(members, read.at(revision)).await {
            // It has been compacted meanwhile: a newer one is compared the next time.
            Err(ClusterError::Compacted) => return Ok(()),
            compared => compared?,
        }
    }
    Ok(())
}

async fn compare_range<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    read: RangeRead,
) -> Result<(), ClusterError> {
    let (mut read, mut attempts) = (RangeRead { limit: PAGE, ..read }, 0);
    loop {
        let pages = members.each(|member| member.range(&read)).await;
        let last = match judge(pages, members.majority(), read.revision) {
            // The more waits to be sealed, the more pages there are: one that comes too late must not end the term.
            Err(ClusterError::NoQuorum) if attempts < PAGE_ATTEMPTS => {
                attempts += 1;
                continue;
            }
            judged => judged?,
        };
        let Some(last) = last else { return Ok(()) };
        (read.from, attempts) = ([last.as_slice(), &[0]].concat(), 0);
    }
}

/// Compares each member's revision with those of others that have applied no more of raft's log.
async fn compare_progress<M: EtcdMember, T: Timers>(members: &EtcdMembers<M, T>) -> Result<(), ClusterError> {
    let first = members.each(|member| member.status()).await;
    let second = members.each(|member| member.status()).await;
    if let Some(alarm) = second.iter().flatten().find_map(alarm_of_difference) {
        return Err(ClusterError::Diverged(format!("etcd itself says so: {alarm}")));
    }
    let progress: Vec<Progress> =
        first.into_iter().zip(second).filter_map(|(first, second)| Progress::of(&first.ok()?, &second.ok()?)).collect();
    if !progress.iter().any(|one| progress.iter().any(|other| one.lags_behind(other))) {
        return Ok(());
    }
    // Any of them may be the wrong one: a member that was restored can have the higher revision, too. The odd one is seen
    // beside the others.
    let seen = |one: &Progress| format!("{:x} has {} at {}", one.member, one.revision, one.applied);
    let all: Vec<String> = progress.iter().map(seen).collect();
    Err(ClusterError::Diverged(format!(
        "members' revisions do not fit their indexes in raft's log: {}",
        all.join(", ")
    )))
}

/// The alarm that the members' own comparison has raised.
fn alarm_of_difference(status: &MemberStatus) -> Option<&str> {
    status.alarms.iter().map(|alarm| alarm.trim()).find(|alarm| alarm.contains(CORRUPT))
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

    /// Whether it has applied all that the other one had, and does not have its revision: one of them was restored from a
    /// snapshot.
    fn lags_behind(&self, other: &Progress) -> bool {
        other.applied <= self.applied && other.revision > self.later_revision + 1
    }
}

/// Compares the pages of one range; returns the last key, if there are further ones.
fn judge(
    pages: Vec<Result<RangePage, ClusterError>>,
    majority: usize,
    revision: i64,
) -> Result<Option<Vec<u8>>, ClusterError> {
    let mut found: Vec<RangePage> = Vec::new();
    for page in pages {
        match page {
            Ok(page) => found.push(page),
            Err(ClusterError::Compacted) => return Err(ClusterError::Compacted),
            // A member that is only behind catches up before it responds.
            Err(ClusterError::FutureRevision) => {
                return Err(ClusterError::Diverged(format!("a member does not have revision {revision}")));
            }
            Err(_) => {}
        }
    }
    let first = found.first().filter(|_| found.len() >= majority).ok_or(ClusterError::NoQuorum)?;
    if let Some(other) = found.iter().find(|page| page.entries != first.entries || page.has_more != first.has_more) {
        let (one, other) = (first.header.member, other.header.member);
        return Err(ClusterError::Diverged(format!("members {one:x} and {other:x} differ at revision {revision}")));
    }
    Ok(first.entries.last().filter(|_| first.has_more).map(|last| last.key.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_hold_the_same_at_a_revision() {
        let page = |modified, has_more| {
            let entry = KeyValue { key: b"log/a".to_vec(), value: Vec::new(), created: modified, modified, lease: 0 };
            Ok(RangePage { entries: vec![entry], has_more, ..RangePage::default() })
        };
        assert_eq!(judge(vec![page(5, false), page(5, false), Err(ClusterError::NoQuorum)], 2, 9), Ok(None));
        assert_eq!(judge(vec![page(5, true), page(5, true)], 2, 9), Ok(Some(b"log/a".to_vec())));
        assert_eq!(judge(vec![page(5, false), Err(ClusterError::NoQuorum)], 2, 9), Err(ClusterError::NoQuorum));
        for other in [page(6, false), page(5, true), Ok(RangePage::default()), Err(ClusterError::FutureRevision)] {
            let judged = judge(vec![page(5, false), page(5, false), other], 2, 9);
            assert!(matches!(judged, Err(ClusterError::Diverged(_))), "{judged:?}");
        }
    }

    #[test]
    fn what_the_members_find_themselves_is_a_difference() {
        let status = |alarm: &str| MemberStatus { alarms: vec![alarm.to_owned()], ..MemberStatus::default() };
        assert_eq!(alarm_of_difference(&status("memberID:5757 alarm:CORRUPT ")), Some("memberID:5757 alarm:CORRUPT"));
        assert_eq!(alarm_of_difference(&status("memberID:5757 alarm:NOSPACE ")), None);
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
