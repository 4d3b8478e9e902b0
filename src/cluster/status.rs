//! What people look at: etcd's members, how far the log is sealed and stored, what each gateway reports, and since when each
//! applies the newest changes of the registry.
//!
//! Nothing relies on it. The parts are read beside each other and not at one revision; what cannot be read is left out, with
//! the reason.

use super::ClusterError;
use super::adoption::{self, EtcdLog};
use super::keys::{self, GatewayName, Incarnation, SEALER, STORED};
use super::member::{EtcdMember, MemberStatus, RangeRead};
use super::members::EtcdMembers;
use super::registry::RegistryChange;
use super::registry::change::{CHANGES, RegistryHead, VERSION, change_key};
use super::report::{self, GatewayReport};
use super::timers::Timers;
use crate::hex::hex;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long each part is waited for.
pub const READ_WITHIN: Duration = Duration::from_secs(2);
/// Number of the registry's changes that are read.
pub const MAX_CHANGES: u64 = 20;
/// Changes of a page: 3.2 MB at most.
const CHANGE_PAGE: i64 = 8;

/// The state of all gateways, as far as it could be read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ClusterStatus {
    /// The members of etcd, in the order of the configuration.
    pub members: Vec<MemberView>,
    /// How far the log is sealed; none if etcd holds no log, or it could not be read.
    pub checkpoint: Option<CheckpointView>,
    /// The gateway that seals; none while nobody is elected.
    pub sealer: Option<SealerView>,
    /// All gateways that have reported or store something, by name.
    pub gateways: Vec<GatewayView>,
    /// How far the registry is.
    pub registry: Option<RegistryView>,
    /// The newest changes of the registry, the newest first.
    pub changes: Vec<ChangeView>,
    /// What could not be read, and why.
    pub faults: Vec<String>,
}

/// A member of etcd.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MemberView {
    /// Its id, in hexadecimal digits; empty without a response.
    pub id: String,
    /// Its version.
    pub version: String,
    /// Whether it is the leader.
    pub is_leader: bool,
    /// Whether it knows a leader.
    pub has_leader: bool,
    /// The revision of its data.
    pub revision: i64,
    /// The index of the last entry of raft's log that it has applied.
    pub raft_index: u64,
    /// Bytes of its database.
    pub database_bytes: u64,
    /// Bytes of it in use.
    pub database_bytes_in_use: u64,
    /// Its alarms, by name.
    pub alarms: Vec<String>,
    /// Why it does not respond, if it does not.
    pub fault: Option<String>,
}

/// The checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CheckpointView {
    /// Entries under it.
    pub entries: u64,
    /// Its root, in hexadecimal digits.
    pub root: String,
    /// Raised each time that an administrator has restored etcd.
    pub epoch: u64,
    /// The gateway that writes the log alone, if the log has left etcd.
    pub left_for: Option<String>,
}

/// How far the registry is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RegistryView {
    /// The number of its last change.
    pub change: u64,
    /// The number of its last admin event.
    pub events: u64,
}

/// Who seals.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SealerView {
    /// The gateway.
    pub gateway: String,
    /// This start of it, in hexadecimal digits.
    pub incarnation: String,
}

/// A gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GatewayView {
    /// Its name.
    pub name: String,
    /// Entries that its site stores, if that is known.
    pub stored: Option<u64>,
    /// Entries under the checkpoint that its site does not store yet.
    pub behind: Option<u64>,
    /// What it has reported last.
    pub report: Option<GatewayReport>,
}

/// A change of the registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ChangeView {
    /// Its number.
    pub number: u64,
    /// The number of its last admin event.
    pub event: u64,
    /// What it touched, by kind and id: `client:shop`, `staff`.
    pub touched: Vec<String>,
    /// Which gateways apply it, by name.
    pub gateways: Vec<AppliedView>,
}

/// Whether a gateway applies a change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AppliedView {
    /// The gateway.
    pub gateway: String,
    /// Whether calls are decided by it there.
    pub in_force: bool,
    /// Since when, Unix time in microseconds by that gateway's clock; not known of changes before its start.
    pub since_us: Option<i64>,
}

/// Reads the state; `own` is the report of the gateway that reads, if one does: it is newer than the one in etcd. Takes
/// [`READ_WITHIN`] at most.
pub async fn read<M: EtcdMember, T: Timers>(members: &EtcdMembers<M, T>, own: Option<GatewayReport>) -> ClusterStatus {
    let timers = members.timers();
    let (each, checkpoint, sealer, stored, reports, changes) = tokio::join!(
        members.each(|member| member.status()),
        timers.within(READ_WITHIN, checkpoint(members)),
        timers.within(READ_WITHIN, sealer(members)),
        timers.within(READ_WITHIN, stored(members)),
        timers.within(READ_WITHIN, report::all(members)),
        timers.within(READ_WITHIN, changes(members)),
    );
    let mut faults = Faults::default();
    let checkpoint = faults.noted("checkpoint", checkpoint).flatten();
    let sealer = faults.noted("sealer", sealer).flatten();
    let stored = faults.noted("stored sizes", stored).unwrap_or_default();
    let mut reports = faults.noted("reports of the gateways", reports).unwrap_or_default();
    let (registry, changes) = faults.noted("changes of the registry", changes).unwrap_or_default();
    if let Some(own) = own {
        reports.retain(|report| report.gateway != own.gateway);
        reports.push(own);
    }
    let entries = checkpoint.as_ref().map(|checkpoint| checkpoint.entries);
    let gateways = gateways(&stored, reports, entries);
    ClusterStatus {
        members: each.into_iter().map(member).collect(),
        checkpoint,
        sealer,
        registry,
        changes: changes.iter().rev().map(|change| change_view(change, &gateways)).collect(),
        gateways,
        faults: faults.lines(),
    }
}

async fn checkpoint<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
) -> Result<Option<CheckpointView>, ClusterError> {
    let (state, left_for) = match adoption::present(members).await? {
        EtcdLog::Empty => return Ok(None),
        EtcdLog::Begun(state) => (state, None),
        EtcdLog::Left(left) => (left.state, Some(left.gateway.to_string())),
    };
    Ok(Some(CheckpointView { entries: state.size(), root: hex(&state.root()), epoch: state.epoch, left_for }))
}

async fn sealer<M: EtcdMember, T: Timers>(members: &EtcdMembers<M, T>) -> Result<Option<SealerView>, ClusterError> {
    let page = members.range(&RangeRead::key(SEALER)).await?;
    let Some(entry) = page.entries.first() else { return Ok(None) };
    let elected = std::str::from_utf8(&entry.value).ok().and_then(Incarnation::parse);
    let elected = elected.ok_or_else(|| ClusterError::malformed("sealer", "not the start of a gateway"))?;
    let incarnation = format!("{:016x}", elected.number);
    Ok(Some(SealerView { gateway: elected.gateway.to_string(), incarnation }))
}

/// The sizes of all sites; what is not in the form of one is left out.
async fn stored<M: EtcdMember, T: Timers>(members: &EtcdMembers<M, T>) -> Result<BTreeMap<String, u64>, ClusterError> {
    let page = members.range(&RangeRead::prefix(STORED)).await?;
    let site = |key: &[u8], value: &[u8]| {
        let name = std::str::from_utf8(key.strip_prefix(STORED)?).ok().and_then(GatewayName::parse)?;
        Some((name.to_string(), keys::parse_number(value)?))
    };
    Ok(page.entries.iter().filter_map(|entry| site(&entry.key, &entry.value)).collect())
}

/// How far the registry is, if there is one, and its newest changes, oldest first.
async fn changes<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
) -> Result<(Option<RegistryView>, Vec<RegistryChange>), ClusterError> {
    let page = members.range(&RangeRead::key(VERSION)).await?;
    let Some(entry) = page.entries.first() else { return Ok((None, Vec::new())) };
    let head = RegistryHead::decode(&entry.value)?;
    let mut next = head.number.saturating_sub(MAX_CHANGES - 1);
    let mut found = Vec::new();
    while next <= head.number {
        let (from, end) = (change_key(next), keys::prefix_end(CHANGES));
        let page = members.range(&RangeRead { from, end, limit: CHANGE_PAGE, ..RangeRead::default() }).await?;
        for entry in &page.entries {
            let number = entry.key.strip_prefix(CHANGES).and_then(keys::parse_number);
            let number =
                number.ok_or_else(|| ClusterError::malformed("registry/change/", "not the key of a change"))?;
            found.push(RegistryChange::decode(&entry.value, number)?);
            next = number + 1;
        }
        if !page.has_more {
            break;
        }
    }
    Ok((Some(RegistryView { change: head.number, events: head.events }), found))
}

fn member(status: Result<MemberStatus, ClusterError>) -> MemberView {
    let status = match status {
        Ok(status) => status,
        Err(error) => {
            let why = match error {
                ClusterError::OutcomeUnknown(why) => why,
                ClusterError::NoQuorum => "there is no connection, or it knows no leader".to_owned(),
                other => other.to_string(),
            };
            return MemberView { fault: Some(why), ..MemberView::default() };
        }
    };
    MemberView {
        id: format!("{:016x}", status.header.member),
        version: status.version,
        is_leader: status.leader != 0 && status.leader == status.header.member,
        has_leader: status.leader != 0,
        revision: status.header.revision,
        raft_index: status.applied_index,
        database_bytes: status.bytes,
        database_bytes_in_use: status.bytes_in_use,
        alarms: status.alarms,
        fault: None,
    }
}

/// Joins what sites store with what gateways report.
fn gateways(stored: &BTreeMap<String, u64>, reports: Vec<GatewayReport>, entries: Option<u64>) -> Vec<GatewayView> {
    let mut all: BTreeMap<String, GatewayView> = BTreeMap::new();
    for report in reports {
        let name = report.gateway.clone();
        all.insert(name.clone(), GatewayView { name, report: Some(report), ..GatewayView::default() });
    }
    for name in stored.keys() {
        all.entry(name.clone()).or_insert_with(|| GatewayView { name: name.clone(), ..GatewayView::default() });
    }
    for view in all.values_mut() {
        view.stored = stored.get(&view.name).copied().or(view.report.as_ref().map(|report| report.stored));
        // A checkpoint that was read a moment earlier may be behind what a site stores by now.
        view.behind = entries.zip(view.stored).map(|(entries, stored)| entries.saturating_sub(stored));
    }
    all.into_values().collect()
}

fn change_view(change: &RegistryChange, gateways: &[GatewayView]) -> ChangeView {
    let event = change.head.events;
    let touched = |(kind, id): &(String, String)| if id.is_empty() { kind.clone() } else { format!("{kind}:{id}") };
    let applied = |report: &GatewayReport| AppliedView {
        gateway: report.gateway.clone(),
        in_force: report.change >= change.head.number,
        since_us: report.since(event),
    };
    ChangeView {
        number: change.head.number,
        event,
        touched: change.touched.iter().map(touched).collect(),
        gateways: gateways.iter().filter_map(|view| view.report.as_ref()).map(applied).collect(),
    }
}

/// What could not be read, by the reason.
#[derive(Default)]
struct Faults(Vec<(String, Vec<&'static str>)>);

impl Faults {
    fn noted<V>(&mut self, what: &'static str, read: Result<V, ClusterError>) -> Option<V> {
        let why = match read {
            Ok(value) => return Some(value),
            Err(ClusterError::OutcomeUnknown(why)) => why,
            Err(error) => error.to_string(),
        };
        match self.0.iter_mut().find(|(known, _)| *known == why) {
            Some((_, parts)) => parts.push(what),
            None => self.0.push((why, vec![what])),
        }
        None
    }

    fn lines(self) -> Vec<String> {
        let line = |(why, parts): (String, Vec<&str>)| format!("not read from etcd ({}): {why}", parts.join(", "));
        self.0.into_iter().map(line).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cluster::member::ResponseHeader;

    fn report(gateway: &str, changes: &[(u64, u64, i64)]) -> GatewayReport {
        let mut report = GatewayReport { gateway: gateway.into(), stored: 90, ..GatewayReport::default() };
        for (change, event, now_us) in changes {
            report.applies(*change, *event, *now_us);
        }
        report
    }

    fn change(number: u64, events: u64, touched: &[(&str, &str)]) -> RegistryChange {
        let writer = Incarnation::parse("registry.0000000000000001").unwrap();
        let head = RegistryHead { number, events, ..RegistryHead::begin(writer) };
        let touched = touched.iter().map(|(kind, id)| ((*kind).to_owned(), (*id).to_owned())).collect();
        RegistryChange { head, touched, rows: Vec::new() }
    }

    #[test]
    fn a_change_is_in_force_since_a_time_or_an_unknown_time_or_not_yet() {
        let reports = vec![
            report("dc1", &[(6, 10, 1_000), (7, 12, 2_000)]),
            // It began when the change was there, and has no time of it.
            report("dc2", &[(8, 15, 5_000)]),
            report("dc3", &[(6, 10, 3_000)]),
        ];
        let all = gateways(&BTreeMap::new(), reports, None);
        let view = change_view(&change(7, 12, &[("client", "shop"), ("staff", "")]), &all);
        assert_eq!(
            (view.number, view.event, view.touched),
            (7, 12, vec!["client:shop".to_owned(), "staff".to_owned()])
        );
        let found: Vec<_> =
            view.gateways.iter().map(|one| (one.gateway.as_str(), one.in_force, one.since_us)).collect();
        assert_eq!(found, [("dc1", true, Some(2_000)), ("dc2", true, None), ("dc3", false, None)]);
    }

    #[test]
    fn a_site_without_a_report_and_a_report_without_a_site_are_both_shown() {
        let stored = BTreeMap::from([("dc1".to_owned(), 100), ("dc2".to_owned(), 70)]);
        let all = gateways(&stored, vec![report("dc1", &[]), report("dc3", &[])], Some(95));
        let found: Vec<_> =
            all.iter().map(|one| (one.name.as_str(), one.stored, one.behind, one.report.is_some())).collect();
        assert_eq!(
            found,
            [("dc1", Some(100), Some(0), true), ("dc2", Some(70), Some(25), false), ("dc3", Some(90), Some(5), true)]
        );
        assert_eq!(gateways(&stored, Vec::new(), None)[0].behind, None, "the checkpoint is not known");
    }

    #[test]
    fn a_member_leads_follows_or_says_why_it_does_not_respond() {
        let header = ResponseHeader { member: 7, revision: 3, ..ResponseHeader::default() };
        let of = |leader| member(Ok(MemberStatus { header, leader, ..MemberStatus::default() }));
        assert_eq!((of(7).is_leader, of(7).has_leader, of(7).id), (true, true, "0000000000000007".to_owned()));
        assert_eq!([of(8), of(0)].map(|one| (one.is_leader, one.has_leader)), [(false, true), (false, false)]);
        let away = member(Err(ClusterError::OutcomeUnknown("no response in 500 ms".into())));
        assert_eq!((away.fault.as_deref(), away.id.as_str()), (Some("no response in 500 ms"), ""));
    }

    #[test]
    fn one_reason_is_said_once_with_everything_that_it_kept_from_being_read() {
        let mut faults = Faults::default();
        assert_eq!(faults.noted("checkpoint", Err::<u64, _>(ClusterError::NoQuorum)), None);
        assert_eq!(faults.noted("sealer", Ok(4)), Some(4));
        assert_eq!(faults.noted("stored sizes", Err::<u64, _>(ClusterError::NoQuorum)), None);
        assert_eq!(faults.noted("changes of the registry", Err::<u64, _>(ClusterError::NoRegistry)), None);
        let lines = faults.lines();
        assert_eq!(lines[0], "not read from etcd (checkpoint, stored sizes): etcd has no quorum");
        assert_eq!((lines.len(), lines[1].contains("registry")), (2, true));
    }
}
