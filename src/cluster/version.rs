//! The versions of etcd that do not lose revisions (etcd-io/etcd #17780: a deletion, a compaction at the head and a crash).

use super::ClusterError;
use super::member::EtcdMember;
use super::members::EtcdMembers;
use super::timers::Timers;
use std::time::Duration;

/// The oldest version that is accepted.
pub const OLDEST: &str = "3.5.16";
/// How often the versions are read, beside at the start: members are replaced.
pub const CHECK_EACH: Duration = Duration::from_secs(3600);

/// Whether a version is accepted. Pre-releases of the oldest one are not.
pub fn is_accepted(version: &str) -> bool {
    parse(version).zip(parse(OLDEST)).is_some_and(|(version, oldest)| version >= oldest)
}

fn parse(version: &str) -> Option<[u32; 3]> {
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    let version = [numbers.next()??, numbers.next()??, numbers.next()??];
    numbers.next().is_none().then_some(version)
}

/// Checks the versions of all members that respond.
///
/// # Errors
/// [`ClusterError::VersionTooOld`] if any of them is too old; [`ClusterError::NoQuorum`] if fewer than a majority respond.
pub async fn check<M: EtcdMember, T: Timers>(members: &EtcdMembers<M, T>) -> Result<(), ClusterError> {
    let found: Vec<_> = members.each(|member| member.status()).await.into_iter().flatten().collect();
    match found.iter().find(|status| !is_accepted(&status.version)) {
        Some(old) => Err(ClusterError::VersionTooOld { member: old.header.member, version: old.version.clone() }),
        None if found.len() < members.majority() => Err(ClusterError::NoQuorum),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(["3.5.16", "3.5.21", "3.6.0", "3.10.0", "4.0.0"].iter().all(|version| is_accepted(version)));
        for version in ["3.4.23", "3.5.9", "3.5.15", "3.5", "3.5.16-rc.0", "", "3.5.16.1", "a.b.c"] {
            assert!(!is_accepted(version), "{version}");
        }
    }
}
