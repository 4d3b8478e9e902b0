//! What each gateway says of itself in etcd, for whoever watches them together: how far its view of the registry and its copy
//! of the log are, and since when it applies the newest changes.
//!
//! | key | value |
//! | --- | --- |
//! | `gateway/<name>` | a [`GatewayReport`] as JSON, put again each [`REPORT_EACH`] and with each change |
//!
//! Nothing relies on it: a report may be old, and of a gateway that has ended.

use super::ClusterError;
use super::keys::GatewayName;
use super::member::{EtcdMember, RangeRead, Txn, TxnOperation};
use super::members::EtcdMembers;
use super::timers::Timers;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Before all reports.
const REPORTS: &[u8] = b"gateway/";
/// How often a gateway reports if nothing changes.
pub const REPORT_EACH: Duration = Duration::from_secs(5);
/// Number of changes whose times are kept.
pub const MAX_CHANGES: usize = 50;

/// The state of a gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayReport {
    /// Its name.
    pub gateway: String,
    /// The program's version.
    pub version: String,
    /// When it has reported, Unix time in microseconds by its own clock.
    pub time_us: i64,
    /// Entries that its site stores.
    pub stored: u64,
    /// The number of the registry's change that it applies.
    pub change: u64,
    /// The number of the last admin event of that change.
    pub event: u64,
    /// How old its view of the registry is at most, in milliseconds.
    pub view_age_ms: u64,
    /// The state in which its log has stopped, if it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// Since when it applies the last changes, oldest first; [`MAX_CHANGES`] at most.
    pub applied: Vec<AppliedChange>,
}

/// A change of the registry that a gateway applies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedChange {
    /// The number of the last admin event of the change.
    pub event: u64,
    /// Since when, Unix time in microseconds by its own clock.
    pub since_us: i64,
}

impl GatewayReport {
    /// Notes the change that is applied now, if it is another one than before; returns whether it is.
    pub fn applies(&mut self, change: u64, event: u64, now_us: i64) -> bool {
        if self.change == change && !self.applied.is_empty() {
            return false;
        }
        (self.change, self.event) = (change, event);
        self.applied.push(AppliedChange { event, since_us: now_us });
        let over = self.applied.len().saturating_sub(MAX_CHANGES);
        self.applied.drain(..over);
        true
    }

    /// Returns since when the gateway applies an admin event; `None` if that is not known any more, or it does not.
    pub fn since(&self, event: u64) -> Option<i64> {
        let first = self.applied.iter().find(|change| change.event >= event)?;
        // Before the first one that is known, it may have applied it at any time.
        (first.event == event || self.applied.first() != Some(first)).then_some(first.since_us)
    }
}

/// Puts a gateway's report.
///
/// # Errors
/// As for [`EtcdMembers::settle`].
pub async fn put<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    gateway: &GatewayName,
    report: &GatewayReport,
) -> Result<(), ClusterError> {
    let key = [REPORTS, gateway.to_string().as_bytes()].concat();
    let wrong = |error: serde_json::Error| ClusterError::malformed("gateway/", error.to_string());
    let value = serde_json::to_vec(report).map_err(wrong)?;
    let then = vec![TxnOperation::Put(key, value, 0)];
    members.settle(&Txn { then, ..Txn::default() }).await.map(drop)
}

/// Reads the reports of all gateways, by name. What is not in the form of a report is left out.
///
/// # Errors
/// As for [`EtcdMembers::range`].
pub async fn all<M: EtcdMember, T: Timers>(members: &EtcdMembers<M, T>) -> Result<Vec<GatewayReport>, ClusterError> {
    let page = members.range(&RangeRead::prefix(REPORTS)).await?;
    Ok(page.entries.iter().filter_map(|entry| serde_json::from_slice(&entry.value).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_when_a_change_is_applied_is_known_as_far_as_it_was_seen() {
        let mut report = GatewayReport::default();
        assert!(report.applies(7, 20, 1_000) && !report.applies(7, 20, 2_000));
        assert!(report.applies(8, 21, 3_000) && report.applies(10, 25, 4_000));
        // What was applied before the first that was seen; each change; events of one change; what is not applied yet.
        assert_eq!(
            [19, 20, 21, 22, 25, 26].map(|event| report.since(event)),
            [None, Some(1_000), Some(3_000), Some(4_000), Some(4_000), None]
        );
        (11..200).for_each(|change| assert!(report.applies(change, change + 20, 5_000)));
        assert_eq!(report.applied.len(), MAX_CHANGES);
    }
}
