//! Daily quotas by seed: three gateways take blocks of the same grants' day over the simulated etcd, through faults.
//!
//! At any time, no more calls than the quota are permitted in all. At the end, as long as calls come at every gateway, all of
//! it was used but for what was held where a gateway has crashed.

use crate::cluster::registry::IssuedTokens;
use crate::cluster::registry::quota::{GrantDay, QuotaBlocks, block_size};
use crate::cluster::{ClusterError, EtcdMembers, Incarnation, Timers};
use crate::faults;
use crate::gateway::name;
use crate::registry::TokenRecord;
use crate::runtime::{Machine, Runtime, SimTimers, locked};
use crate::simulated::{MEMBERS, NETWORK, NetworkFaults, SimulatedEtcd, SimulatedMember};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const GATEWAYS: usize = 3;
/// The day of all calls.
const DAY: u64 = 20_000;
/// The time by which a quota is used up without faults.
const RECOVERY: Duration = Duration::from_secs(300);

type Blocks = QuotaBlocks<SimulatedMember, SimTimers>;

struct World {
    runtime: Runtime,
    etcd: Arc<Mutex<SimulatedEtcd>>,
    /// The quota of each grant.
    quotas: BTreeMap<String, u64>,
    /// Calls that were permitted, by grant.
    used: Mutex<BTreeMap<String, u64>>,
    /// Gateways that have crashed.
    crashes: Mutex<u64>,
    /// Clean ends that could not give everything back.
    unclean: Mutex<u64>,
    /// Gateways at which every call is refused, since their last start.
    finished: Mutex<BTreeMap<Machine, usize>>,
}

/// Runs a seed; returns the violation with its trace.
pub fn run(seed: u64, trace: bool) -> Result<(), (String, Vec<String>)> {
    let runtime = Runtime::new(seed, trace);
    let quota = |at: usize| (format!("g{at}"), [1, 3, 20, 300, 2000][runtime.below(5) as usize] + runtime.below(9));
    let world = Arc::new(World {
        runtime: runtime.clone(),
        etcd: SimulatedEtcd::new(&runtime),
        quotas: (0..2).map(quota).collect(),
        used: Mutex::default(),
        crashes: Mutex::default(),
        unclean: Mutex::default(),
        finished: Mutex::default(),
    });
    let living = world.clone();
    let ended = runtime.run(async move { living.live().await });
    (0..GATEWAYS).chain([NETWORK]).for_each(|machine| runtime.kill(machine));
    ended.map_err(|violation| (violation, runtime.trace()))
}

impl World {
    async fn live(self: &Arc<Self>) -> Result<(), String> {
        (0..GATEWAYS).for_each(|machine| self.start(machine));
        let timers = self.runtime.timers();
        let end = timers.now() + Duration::from_secs(3 + self.runtime.below(15));
        // Of half of the seeds, no gateway crashes: then nothing at all may be lost.
        let kinds = if self.runtime.one_in(2) { 4 } else { 5 };
        while timers.now() < end {
            timers.sleep(self.runtime.some_time(Duration::from_secs(2))).await;
            self.harm(kinds);
            self.check()?;
        }
        locked(&self.etcd).faults = NetworkFaults::default();
        self.runtime.resume_all();
        self.runtime.note(|| "no more faults".into());
        let end = timers.now() + RECOVERY;
        // A gateway that was told that nothing is left may have been followed by one that gave something back.
        while locked(&self.finished).len() < GATEWAYS {
            timers.sleep(Duration::from_millis(500)).await;
            self.check()?;
            if timers.now() > end {
                return Err("the quotas are not used up in time".into());
            }
        }
        self.all_used()?;
        self.keep_house().await
    }

    /// When the day is over, nothing of it is left; of issued tokens, those that are in force.
    async fn keep_house(&self) -> Result<(), String> {
        let failed = |error: ClusterError| error.to_string();
        let start = |machine| {
            let holder = Incarnation { gateway: name(machine), number: self.runtime.below(u64::MAX) };
            IssuedTokens::new(self.members(machine), holder)
        };
        let (one, other) = (start(0), start(1));
        let put = async |tokens: &IssuedTokens<_, _>, expires| {
            tokens.put(&[TokenRecord { expires, ..TokenRecord::default() }]).await.map_err(failed)
        };
        for expires in [100, 90, 5_000] {
            put(&one, expires).await?;
        }
        put(&other, 100).await?;
        let left = || {
            let etcd = locked(&self.etcd);
            ["issued/", "issued-last/", "quota/"].map(|prefix| etcd.data().count(prefix.as_bytes()))
        };
        let before = left();
        let blocks = self.blocks(2);
        let remover = start(2);
        let remove = async |before, day| {
            while remover.remove_ended(before).await.map_err(failed)? > 0 {}
            blocks.remove_before(day).await.map_err(failed)
        };
        remove(100, DAY).await?;
        let kept = left();
        remove(101, DAY + 1).await?;
        let removed = left();
        // A start whose tokens have all expired goes on where it was.
        put(&other, 6_000).await?;
        put(&one, 6_000).await?;
        let counts = [before, kept, removed, left()];
        // Of the first start, the batch before those that had not expired.
        let issued = [[4, 2], [4, 2], [1, 1], [3, 2]];
        let wrong = |(count, [batches, starts]): (&[usize; 3], [usize; 2])| count[..2] != [batches, starts];
        if counts.iter().zip(issued).any(wrong) || kept[2] == 0 || removed[2] > 0 {
            return Err(format!("batches of tokens, starts and quotas that are left: {counts:?}"));
        }
        Ok(())
    }

    fn harm(self: &Arc<Self>, kinds: u64) {
        let machine = self.runtime.below(GATEWAYS as u64) as usize;
        match self.runtime.below(kinds) {
            0 => faults::harm_network(&self.runtime, &self.etcd),
            1 => faults::cut(&self.runtime, &self.etcd, GATEWAYS),
            2 => faults::stop_member(&self.runtime, &self.etcd),
            3 => self.runtime.pause(machine, self.runtime.some_time(Duration::from_secs(6))),
            _ => {
                self.runtime.note(|| format!("gateway {machine} crashes"));
                self.runtime.kill(machine);
                *locked(&self.crashes) += 1;
                self.start(machine);
            }
        }
    }

    fn start(self: &Arc<Self>, machine: Machine) {
        locked(&self.finished).remove(&machine);
        let world = self.clone();
        self.runtime.spawn(machine, async move {
            // Some end cleanly after some time, and another start follows.
            for calls in [world.runtime.below(400), u64::MAX] {
                let blocks = world.blocks(machine);
                world.call(machine, &blocks, calls).await;
                world.end(machine, &blocks).await;
            }
        });
    }

    fn members(&self, machine: Machine) -> Arc<EtcdMembers<SimulatedMember, SimTimers>> {
        let member =
            |at: usize| SimulatedMember { etcd: self.etcd.clone(), from: machine, member: (machine + at) % MEMBERS };
        Arc::new(EtcdMembers::new((0..MEMBERS).map(member).collect(), self.runtime.timers(), None))
    }

    fn blocks(&self, machine: Machine) -> Blocks {
        let holder = Incarnation { gateway: name(machine), number: self.runtime.below(u64::MAX) };
        QuotaBlocks::new(self.members(machine), holder, GATEWAYS as u64)
    }

    /// Calls until so many were tried, or all are refused.
    async fn call(&self, machine: Machine, blocks: &Blocks, calls: u64) {
        let timers = self.runtime.timers();
        let mut left: Vec<&String> = self.quotas.keys().collect();
        for _ in 0..calls {
            if left.is_empty() {
                break;
            }
            if self.runtime.one_in(8) {
                timers.sleep(self.runtime.some_time(Duration::from_millis(30))).await;
            }
            let at = self.runtime.below(left.len() as u64) as usize;
            let day = GrantDay { day: DAY, grant: left[at].clone() };
            if blocks.consume(&day) {
                *locked(&self.used).entry(day.grant).or_default() += 1;
                continue;
            }
            match blocks.refill(&day, self.quotas[&day.grant]).await {
                Ok(0) => drop(left.remove(at)),
                Ok(_) => {}
                Err(error) => {
                    self.runtime.note(|| format!("gateway {machine} cannot refill: {error}"));
                    timers.sleep(Duration::from_millis(200)).await;
                }
            }
        }
        if calls == u64::MAX {
            locked(&self.finished).insert(machine, 0);
        }
    }

    async fn end(&self, machine: Machine, blocks: &Blocks) {
        for day in blocks.held_days() {
            if let Err(error) = blocks.release(&day).await {
                self.runtime.note(|| format!("gateway {machine} cannot give back: {error}"));
                *locked(&self.unclean) += 1;
            }
        }
    }

    fn check(&self) -> Result<(), String> {
        let used = locked(&self.used);
        let over = used.iter().find(|(grant, used)| **used > self.quotas[*grant]);
        over.map_or(Ok(()), |(grant, used)| Err(format!("{used} calls of {grant}, {} a day", self.quotas[grant])))
    }

    /// What is not used was held by gateways that have crashed: less than one and a half blocks and one that was asked for.
    fn all_used(&self) -> Result<(), String> {
        let ends = *locked(&self.crashes) + *locked(&self.unclean);
        for (grant, quota) in &self.quotas {
            let used = locked(&self.used).get(grant).copied().unwrap_or_default();
            let lost = ends * (block_size(*quota, *quota, GATEWAYS as u64) * 5).div_ceil(2);
            if used + lost < *quota {
                return Err(format!("{used} of {quota} calls of {grant} were made, {lost} may be lost by {ends} ends"));
            }
        }
        Ok(())
    }
}
