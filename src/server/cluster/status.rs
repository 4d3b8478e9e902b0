//! How the gateways of the cluster do, for `GetCluster`: read from etcd beside what this gateway knows by itself.

use super::Cluster;
use crate::admin::{ClusterReader, api};
use crate::cluster::report::GatewayReport;
use crate::cluster::status::{self, ChangeView, ClusterStatus, GatewayView, MemberView};
use crate::exchange_log::ExchangeLog;
use crate::exchange_log::clock::now_us;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long what was read is returned to all who ask: however many look, etcd is read once in this time.
const READ_EACH: Duration = Duration::from_secs(1);

/// What was read last, and when. Whoever asks while it is being read waits for that.
pub(super) type LastStatus = tokio::sync::Mutex<Option<(Instant, api::GetClusterResponse)>>;

/// What this gateway knows by itself.
struct OwnState {
    gateway: String,
    /// The URLs of the members, each with why there is no connection to it.
    members: Vec<(String, Option<String>)>,
    faults: Vec<String>,
    checkpoint_age: Duration,
    time_us: i64,
}

impl Cluster {
    /// Returns what reads the state of all gateways.
    pub(in crate::server) fn reader(self: &Arc<Self>, log: ExchangeLog) -> ClusterReader {
        let cluster = self.clone();
        Arc::new(move || {
            let (cluster, log) = (cluster.clone(), log.clone());
            Box::pin(async move { cluster.status(&log).await })
        })
    }

    async fn status(&self, log: &ExchangeLog) -> api::GetClusterResponse {
        let mut last = self.last_status.lock().await;
        if let Some((_, known)) = last.as_ref().filter(|(read, _)| read.elapsed() < READ_EACH) {
            return known.clone();
        }
        let (members, own) = (self.members.clone(), self.own_report(log));
        // Connections to etcd belong to the cluster's own runtime, which ends with the gateway.
        let read = self.tasks.spawn(async move { status::read(&members, Some(own)).await }).await;
        let read = read.unwrap_or_else(|_| ClusterStatus {
            faults: vec!["this gateway ends".to_owned()],
            ..ClusterStatus::default()
        });
        let response = message(read, self.own_state(log));
        *last = Some((Instant::now(), response.clone()));
        response
    }

    fn own_state(&self, log: &ExchangeLog) -> OwnState {
        let health = log.health();
        let stopped = health.stopped.map(|state| format!("the log has stopped at this gateway: {state}"));
        OwnState {
            gateway: self.settings.gateway.to_string(),
            members: self.settings.etcd.iter().cloned().zip(self.etcd.member_faults()).collect(),
            faults: stopped.into_iter().chain(self.fault()).collect(),
            checkpoint_age: health.checkpoint_age,
            time_us: now_us(),
        }
    }
}

fn message(read: ClusterStatus, own: OwnState) -> api::GetClusterResponse {
    let ClusterStatus { members, checkpoint, sealer, gateways, changes, faults, .. } = read;
    let newest = changes.first().map_or(0, |change| change.number);
    let checkpoint = checkpoint.map(|checkpoint| api::ClusterCheckpoint {
        entries: checkpoint.entries,
        epoch: checkpoint.epoch,
        age_s: u32::try_from(own.checkpoint_age.as_secs()).unwrap_or(u32::MAX),
    });
    api::GetClusterResponse {
        time_us: own.time_us,
        gateway: own.gateway,
        faults: [own.faults, faults].concat(),
        members: own.members.into_iter().zip(members).map(member).collect(),
        checkpoint,
        sealer: sealer.map(|sealer| api::ClusterSealer { gateway: sealer.gateway, incarnation: sealer.incarnation }),
        gateways: gateways.into_iter().map(|view| gateway(view, own.time_us, newest)).collect(),
        changes: changes.into_iter().map(change).collect(),
    }
}

fn member(((address, unconnected), view): ((String, Option<String>), MemberView)) -> api::EtcdMember {
    let role = match (&view.fault, view.is_leader, view.has_leader) {
        (Some(_), ..) => api::EtcdRole::Unspecified,
        (None, true, _) => api::EtcdRole::Leader,
        (None, false, true) => api::EtcdRole::Follower,
        (None, false, false) => api::EtcdRole::Alone,
    };
    api::EtcdMember {
        address,
        // Why there is no connection says more than that there is no response.
        fault: view.fault.map(|fault| unconnected.unwrap_or(fault)).unwrap_or_default(),
        id: view.id,
        version: view.version,
        role: role.into(),
        revision: view.revision,
        raft_index: view.raft_index,
        database_bytes: view.database_bytes,
        database_bytes_in_use: view.database_bytes_in_use,
        alarms: view.alarms,
    }
}

fn gateway(view: GatewayView, now_us: i64, newest: u64) -> api::ClusterGateway {
    let GatewayView { name, stored, behind, report } = view;
    let gateway = api::ClusterGateway {
        name,
        entries: stored.unwrap_or_default(),
        entries_behind: behind.unwrap_or_default(),
        ..api::ClusterGateway::default()
    };
    let Some(GatewayReport { version, time_us, change, view_age_ms, stopped, .. }) = report else { return gateway };
    api::ClusterGateway {
        reported_us: time_us,
        // Its clock may be ahead.
        report_age_ms: u64::try_from(now_us.saturating_sub(time_us)).unwrap_or_default() / 1_000,
        version,
        change,
        changes_behind: newest.saturating_sub(change),
        view_age_ms: Some(view_age_ms).filter(|age| *age < u64::MAX),
        stopped: stopped.unwrap_or_default(),
        ..gateway
    }
}

fn change(view: ChangeView) -> api::RegistryChange {
    let ChangeView { number, event, touched: objects, gateways } = view;
    let applied = gateways.into_iter().map(|one| api::AppliedChange {
        gateway: one.gateway,
        in_force: one.in_force,
        since_us: one.since_us.unwrap_or_default(),
    });
    api::RegistryChange { number, event, objects, gateways: applied.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(members: &[(&str, Option<&str>)]) -> OwnState {
        let members = members.iter().map(|(url, fault)| ((*url).to_owned(), fault.map(str::to_owned))).collect();
        OwnState {
            gateway: "dc1".into(),
            members,
            faults: vec!["own".into()],
            checkpoint_age: Duration::from_millis(2_900),
            time_us: 60_000_000,
        }
    }

    #[test]
    fn a_member_that_does_not_respond_is_named_with_why_there_is_no_connection() {
        let fault = || MemberView { fault: Some("no response".into()), ..MemberView::default() };
        let leader = MemberView { is_leader: true, has_leader: true, ..MemberView::default() };
        let members = vec![leader, fault(), fault(), MemberView::default()];
        let own = own(&[("a", None), ("b", Some("refused")), ("c", None), ("d", Some("of before"))]);
        let said = message(ClusterStatus { members, faults: vec!["etcd's".into()], ..ClusterStatus::default() }, own);
        let found: Vec<_> =
            said.members.iter().map(|one| (one.address.as_str(), one.fault.as_str(), one.role())).collect();
        assert_eq!(
            found,
            [
                ("a", "", api::EtcdRole::Leader),
                ("b", "refused", api::EtcdRole::Unspecified),
                ("c", "no response", api::EtcdRole::Unspecified),
                ("d", "", api::EtcdRole::Alone)
            ]
        );
        assert_eq!((said.faults, said.checkpoint, said.sealer), (vec!["own".into(), "etcd's".into()], None, None));
    }

    #[test]
    fn a_report_has_its_age_and_how_far_it_is_behind_the_newest_change() {
        let report =
            |time_us, view_age_ms| GatewayReport { time_us, view_age_ms, change: 7, ..GatewayReport::default() };
        let view = |report| GatewayView { name: "dc2".into(), stored: Some(5), behind: Some(3), report };
        let found = gateway(view(Some(report(51_000_000, 40))), 60_000_000, 9);
        assert_eq!((found.report_age_ms, found.changes_behind, found.view_age_ms), (9_000, 2, Some(40)));
        // A clock that is ahead; a gateway that has no view of the registry; one that has never reported.
        let ahead = gateway(view(Some(report(61_000_000, u64::MAX))), 60_000_000, 7);
        assert_eq!((ahead.report_age_ms, ahead.changes_behind, ahead.view_age_ms), (0, 0, None));
        let never = gateway(view(None), 60_000_000, 7);
        assert_eq!((never.reported_us, never.changes_behind, never.entries, never.entries_behind), (0, 0, 5, 3));
    }
}
