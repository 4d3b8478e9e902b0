//! A simulated etcd: three members, the network before them, and everything that may go wrong with either.

use crate::cluster::keys::{CHECKPOINT, CLUSTER, LOG, MARKS, STORED};
use crate::cluster::member::{
    EtcdMember, MemberStatus, RangePage, RangeRead, ResponseHeader, Txn, TxnOperation, TxnOutcome,
};
use crate::cluster::{ClusterError, Timers};
use crate::mvcc::Mvcc;
use crate::runtime::{Machine, Runtime, locked};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// Members.
pub const MEMBERS: usize = 3;
/// The machine of what is on its way.
pub const NETWORK: Machine = 1000;
/// A request that is lost is noticed after this time at the latest.
const LOST: Duration = Duration::from_secs(20);

/// What may go wrong now.
#[derive(Debug, Clone, Default)]
pub struct NetworkFaults {
    /// One of so many requests or responses is lost; 0: none.
    pub loss: u64,
    /// One of so many is delayed by up to five seconds; 0: none.
    pub delay: u64,
    /// One of so many watches ends early, or sleeps.
    pub watches: u64,
    /// Requests from this machine to this member are lost.
    pub no_request: BTreeSet<(Machine, usize)>,
    /// Responses from this member to this machine are lost.
    pub no_response: BTreeSet<(Machine, usize)>,
    /// What these machines send is held back until then: they were stopped while they wrote to their sockets.
    pub held: BTreeMap<Machine, Duration>,
    /// Members that are down.
    pub down: BTreeSet<usize>,
    /// Members that are cut off from the others.
    pub isolated: BTreeSet<usize>,
    /// The database has reached its quota.
    pub is_full: bool,
}

/// The cluster.
pub struct SimulatedEtcd {
    runtime: Runtime,
    id: u64,
    /// The data of all members but those in `stale`.
    data: Mvcc,
    /// Members that were restored from an old snapshot.
    stale: BTreeMap<usize, Mvcc>,
    /// Leases, with the times at which they end.
    leases: BTreeMap<i64, (Duration, Duration)>,
    next_lease: i64,
    applied: u64,
    /// How often all members were restored: what was on its way before does not arrive.
    restores: u64,
    pub faults: NetworkFaults,
    changes: watch::Sender<u64>,
    pub version: String,
    /// What no client may do.
    pub misuse: Option<String>,
}

impl SimulatedEtcd {
    pub fn new(runtime: &Runtime) -> Arc<Mutex<Self>> {
        let etcd = Arc::new(Mutex::new(SimulatedEtcd {
            runtime: runtime.clone(),
            id: 0xe7cd,
            data: Mvcc::default(),
            stale: BTreeMap::new(),
            leases: BTreeMap::new(),
            next_lease: 1,
            applied: 1,
            restores: 0,
            faults: NetworkFaults::default(),
            changes: watch::Sender::new(0),
            version: "3.5.16".into(),
            misuse: None,
        }));
        let (ticking, timers) = (etcd.clone(), runtime.timers());
        runtime.spawn(NETWORK, async move {
            loop {
                timers.sleep(Duration::from_millis(100)).await;
                locked(&ticking).end_leases();
            }
        });
        etcd
    }

    fn now(&self) -> Duration {
        self.runtime.timers().now()
    }

    pub fn data(&self) -> &Mvcc {
        &self.data
    }

    /// Restores a member from an old snapshot: it goes on with the others from there.
    pub fn restore_member(&mut self, member: usize, snapshot: Mvcc) {
        self.stale.insert(member, snapshot);
    }

    /// Whether a restored member holds another log than the others.
    pub fn differs(&self) -> bool {
        let prefixes: [&[u8]; 5] = [LOG, MARKS, STORED, CHECKPOINT, CLUSTER];
        let log = |data: &Mvcc| prefixes.map(|prefix| data.range(&RangeRead::prefix(prefix)).ok());
        self.stale.values().any(|stale| log(stale) != log(&self.data))
    }

    /// Replaces restored members by empty ones, which get the others' data.
    pub fn replace_members(&mut self) {
        self.stale.clear();
    }

    /// Restores all members from an old snapshot.
    pub fn restore_all(&mut self, snapshot: Mvcc) {
        let time = Duration::from_secs(2);
        let end = self.now() + time;
        self.leases = snapshot.leases().into_iter().map(|lease| (lease, (end, time))).collect();
        self.stale.clear();
        self.data = snapshot;
        self.restores += 1;
    }

    /// Restores all members once more, as the runbook has it: revisions go on far above, under another cluster's id.
    pub fn begin_again(&mut self) {
        let mut snapshot = self.data.clone();
        snapshot.bump();
        self.id += 1;
        self.restore_all(snapshot);
    }

    fn is_connected(&self, member: usize) -> bool {
        !self.faults.down.contains(&member) && !self.faults.isolated.contains(&member)
    }

    fn has_quorum(&self) -> bool {
        (0..MEMBERS).filter(|member| self.is_connected(*member)).count() > MEMBERS / 2
    }

    fn header(&self, member: usize) -> ResponseHeader {
        ResponseHeader { cluster: self.id, member: member as u64 + 1, revision: self.of(member).revision() }
    }

    fn of(&self, member: usize) -> &Mvcc {
        self.stale.get(&member).unwrap_or(&self.data)
    }

    /// Applies a command to the data of every member; returns what this member makes of it.
    fn apply<R>(&mut self, member: usize, command: impl Fn(&mut Mvcc) -> R) -> R {
        self.applied += 1;
        let stale: Vec<(usize, R)> = self.stale.iter_mut().map(|(at, data)| (*at, command(data))).collect();
        let healthy = command(&mut self.data);
        self.changes.send_replace(self.applied);
        stale.into_iter().find(|(at, _)| *at == member).map_or(healthy, |(_, result)| result)
    }

    fn end_leases(&mut self) {
        if !self.has_quorum() {
            // The next leader begins all leases again.
            let now = self.now();
            self.leases.values_mut().for_each(|(end, time)| *end = now + *time);
            return;
        }
        let now = self.now();
        let ended: Vec<i64> = self.leases.iter().filter(|(_, (end, _))| *end <= now).map(|(id, _)| *id).collect();
        for lease in ended {
            self.leases.remove(&lease);
            self.apply(0, |data| data.end_lease(lease));
        }
    }

    /// Whether a member can carry anything out.
    fn check(&self, member: usize) -> Result<(), ClusterError> {
        match self.is_connected(member) && self.has_quorum() {
            true => Ok(()),
            false => Err(ClusterError::NoQuorum),
        }
    }

    fn transact(&mut self, member: usize, txn: &Txn) -> Result<TxnOutcome, ClusterError> {
        self.check(member)?;
        let puts = txn.then.iter().any(|operation| matches!(operation, TxnOperation::Put(..)));
        if self.faults.is_full && puts {
            return Err(ClusterError::NoSpace);
        }
        if txn.then.len() > 128 || txn.otherwise.len() > 128 {
            return Err(ClusterError::Refused("too many operations".into()));
        }
        // As etcd: a put under a lease that has ended is an error of the whole transaction.
        let is_ended = |operation: &TxnOperation| match operation {
            TxnOperation::Put(_, _, lease) => *lease != 0 && !self.leases.contains_key(lease),
            _ => false,
        };
        if self.of(member).holds_all(txn) && txn.then.iter().any(is_ended) {
            return Err(ClusterError::LeaseExpired);
        }
        let (succeeded, found) = self.apply(member, |data| data.transact(txn));
        Ok(TxnOutcome { header: self.header(member), succeeded, found })
    }

    fn range(&self, member: usize, read: &RangeRead) -> Result<RangePage, ClusterError> {
        self.check(member)?;
        let (entries, has_more) = self.of(member).range(read)?;
        Ok(RangePage { header: self.header(member), entries, has_more })
    }

    fn compact(&mut self, member: usize, revision: i64) -> Result<(), ClusterError> {
        self.check(member)?;
        if revision >= self.data.revision() {
            self.misuse = Some(format!("compaction at the head: {revision}"));
        }
        self.apply(member, |data| data.compact(revision))
    }

    fn keep_alive(&mut self, member: usize, lease: i64) -> Result<(), ClusterError> {
        self.check(member)?;
        let now = self.now();
        let (end, time) = self.leases.get_mut(&lease).ok_or(ClusterError::LeaseExpired)?;
        *end = now + *time;
        Ok(())
    }

    fn grant(&mut self, member: usize, time: Duration) -> Result<i64, ClusterError> {
        self.check(member)?;
        if self.faults.is_full {
            return Err(ClusterError::NoSpace);
        }
        let (id, time) = (self.next_lease, time.max(Duration::from_secs(2)));
        self.next_lease += 1;
        self.leases.insert(id, (self.now() + time, time));
        Ok(id)
    }
}

/// The connection of one machine to one member.
#[derive(Clone)]
pub struct SimulatedMember {
    pub etcd: Arc<Mutex<SimulatedEtcd>>,
    pub from: Machine,
    pub member: usize,
}

impl SimulatedMember {
    /// Sends a request: it goes its way, whatever becomes of its sender.
    async fn call<R: Send + 'static>(
        &self,
        request: impl FnOnce(&mut SimulatedEtcd) -> Result<R, ClusterError> + Send + 'static,
    ) -> Result<R, ClusterError> {
        let (sender, receiver) = oneshot::channel();
        let (runtime, here) = (locked(&self.etcd).runtime.clone(), self.clone());
        let held = here.held(runtime.timers().now());
        let restores = locked(&self.etcd).restores;
        runtime.clone().spawn(NETWORK, async move {
            let timers = runtime.timers();
            timers.sleep(held + here.latency(&runtime)).await;
            if here.is_lost(&runtime, |faults| &faults.no_request) || locked(&here.etcd).restores != restores {
                return timers.sleep(LOST).await;
            }
            let response = match locked(&here.etcd).faults.down.contains(&here.member) {
                true => Err(ClusterError::NoQuorum),
                false => Ok(()),
            };
            let response = response.and_then(|()| request(&mut locked(&here.etcd)));
            timers.sleep(here.latency(&runtime)).await;
            if here.is_lost(&runtime, |faults| &faults.no_response) {
                return timers.sleep(LOST).await;
            }
            let _ = sender.send(response);
        });
        receiver.await.unwrap_or_else(|_| Err(ClusterError::OutcomeUnknown("the connection has ended".into())))
    }

    fn latency(&self, runtime: &Runtime) -> Duration {
        let delay = locked(&self.etcd).faults.delay;
        let usual = Duration::from_micros(200) + runtime.some_time(Duration::from_millis(2));
        if delay > 0 && runtime.one_in(delay) { runtime.some_time(Duration::from_secs(5)) } else { usual }
    }

    /// How long the request is held back by its own machine.
    fn held(&self, now: Duration) -> Duration {
        let until = locked(&self.etcd).faults.held.get(&self.from).copied();
        until.unwrap_or_default().saturating_sub(now)
    }

    fn is_lost(&self, runtime: &Runtime, cut: impl Fn(&NetworkFaults) -> &BTreeSet<(Machine, usize)>) -> bool {
        let etcd = locked(&self.etcd);
        let (loss, is_cut) = (etcd.faults.loss, cut(&etcd.faults).contains(&(self.from, self.member)));
        drop(etcd);
        is_cut || loss > 0 && runtime.one_in(loss)
    }
}

impl EtcdMember for SimulatedMember {
    async fn transact(&self, txn: &Txn) -> Result<TxnOutcome, ClusterError> {
        let (member, txn) = (self.member, txn.clone());
        self.call(move |etcd| etcd.transact(member, &txn)).await
    }

    async fn range(&self, read: &RangeRead) -> Result<RangePage, ClusterError> {
        let (member, read) = (self.member, read.clone());
        self.call(move |etcd| etcd.range(member, &read)).await
    }

    async fn grant_lease(&self, time: Duration) -> Result<i64, ClusterError> {
        let member = self.member;
        self.call(move |etcd| etcd.grant(member, time)).await
    }

    async fn renew_lease(&self, lease: i64) -> Result<(), ClusterError> {
        let member = self.member;
        self.call(move |etcd| etcd.keep_alive(member, lease)).await
    }

    async fn revoke_lease(&self, lease: i64) -> Result<(), ClusterError> {
        let member = self.member;
        self.call(move |etcd| {
            etcd.check(member)?;
            etcd.leases.remove(&lease).ok_or(ClusterError::LeaseExpired)?;
            etcd.apply(member, |data| data.end_lease(lease));
            Ok(())
        })
        .await
    }

    async fn wait_for_change(&self, prefix: &[u8], after: i64) -> Result<(), ClusterError> {
        let runtime = locked(&self.etcd).runtime.clone();
        let watches = locked(&self.etcd).faults.watches;
        if watches > 0 && runtime.one_in(watches) {
            // It ends at once, or sleeps and loses what it should report.
            if runtime.one_in(2) {
                return Err(ClusterError::OutcomeUnknown("the watch has ended".into()));
            }
            runtime.timers().sleep(LOST).await;
        }
        let mut changes = locked(&self.etcd).changes.subscribe();
        loop {
            let prefix = prefix.to_vec();
            let member = self.member;
            if self.call(move |etcd| etcd.of(member).has_changed(&prefix, after)).await? {
                return Ok(());
            }
            let _ = changes.changed().await;
        }
    }

    async fn status(&self) -> Result<MemberStatus, ClusterError> {
        let member = self.member;
        self.call(move |etcd| {
            let (header, version, applied_index) = (etcd.header(member), etcd.version.clone(), etcd.applied);
            let bytes_in_use = etcd.of(member).bytes();
            Ok(MemberStatus { header, version, applied_index, bytes_in_use, ..MemberStatus::default() })
        })
        .await
    }

    async fn compact(&self, revision: i64) -> Result<(), ClusterError> {
        let member = self.member;
        self.call(move |etcd| etcd.compact(member, revision)).await
    }
}
