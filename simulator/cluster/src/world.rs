//! One run: some gateways over a simulated etcd, faults for some time, then none: everything must come out right.

use crate::cluster::epoch::{self, EpochBasis};
use crate::cluster::keys::MARKS;
use crate::cluster::peaks::Peaks;
use crate::cluster::state::{LogId, SealedState};
use crate::cluster::{ClusterError, Timers, commit};
use crate::faults;
use crate::gateway::{DiskData, World};
use crate::mvcc::Mvcc;
use crate::runtime::{Machine, Runtime, locked};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The kind of fault in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// Nothing.
    None,
    /// Requests and responses are lost, or arrive seconds later.
    Network,
    /// Gateways and members cannot reach each other, also in one direction only.
    Partition,
    /// Gateways crash, members too.
    Crash,
    /// Gateways are paused past their lease, also while they sign.
    Pause,
    /// A site is lost with its gateway and disk.
    SiteLost,
    /// One member is restored from an old snapshot.
    MemberRestored,
    /// All members are restored from an old snapshot.
    AllRestored,
    /// The quota is reached for some time.
    Full,
    /// All of them but the restored ones and the lost site.
    All,
}

const TROUBLES: [Trouble; 13] = [
    Trouble::None,
    Trouble::Network,
    Trouble::Network,
    Trouble::Partition,
    Trouble::Crash,
    Trouble::Pause,
    Trouble::Pause,
    Trouble::SiteLost,
    Trouble::MemberRestored,
    Trouble::AllRestored,
    Trouble::Full,
    Trouble::All,
    Trouble::All,
];
/// A machine that only administers.
const ADMINISTRATOR: Machine = 900;
/// The log of every run.
const LOG: LogId = [7; 16];
/// The time by which everything is sealed and stored without faults.
const RECOVERY: Duration = Duration::from_secs(90);

/// The time within which a member that holds another log is noticed without other faults: a gateway is elected and compares.
const NOTICED_WITHIN: Duration = Duration::from_secs(30);

/// The state of the faults in a run.
struct Scenario {
    world: Arc<World>,
    runtime: Runtime,
    trouble: Trouble,
    gateways: usize,
    down: BTreeSet<Machine>,
    lost: Option<Machine>,
    snapshot: Option<Mvcc>,
    /// Whether etcd was rolled back as a whole.
    is_rolled_back: bool,
}

/// Runs a seed, if it has the requested kind of fault (or any, if none is requested); returns the violation with its trace.
pub fn run(seed: u64, only: Option<&str>, trace: bool) -> Result<(), (String, Vec<String>)> {
    let runtime = Runtime::new(seed, trace);
    let trouble = TROUBLES[runtime.below(TROUBLES.len() as u64) as usize];
    if only.is_some_and(|only| format!("{trouble:?}") != only) {
        return Ok(());
    }
    let gateways = 2 + runtime.below(3) as usize;
    let world = World::new(&runtime, gateways);
    let mut scenario = Scenario {
        world: world.clone(),
        runtime: runtime.clone(),
        trouble,
        gateways,
        down: BTreeSet::new(),
        lost: None,
        snapshot: None,
        is_rolled_back: false,
    };
    let ended = runtime.run(async move {
        let ended = scenario.live().await;
        scenario.down.extend(0..scenario.gateways);
        ended
    });
    (0..gateways).chain([ADMINISTRATOR, crate::simulated::NETWORK]).for_each(|machine| runtime.kill(machine));
    ended.map_err(|violation| (format!("{trouble:?}: {violation}"), runtime.trace()))
}

impl Scenario {
    async fn live(&mut self) -> Result<(), String> {
        let members = self.world.members(ADMINISTRATOR, None);
        commit::begin_log(&members, LOG).await.map_err(|error| error.to_string())?;
        (0..self.gateways).for_each(|machine| self.world.start(machine));
        let timers = self.runtime.timers();
        let end = timers.now() + Duration::from_secs(5 + self.runtime.below(20));
        while timers.now() < end {
            timers.sleep(self.runtime.some_time(Duration::from_secs(2))).await;
            self.harm();
            self.check()?;
        }
        if self.is_rolled_back {
            return self.after_roll_back().await;
        }
        if self.trouble == Trouble::MemberRestored {
            self.notice().await?;
        }
        self.heal();
        self.recover().await
    }

    /// What may be seen at any time.
    fn check(&self) -> Result<(), String> {
        let model = locked(&self.world.model);
        let etcd = locked(&self.world.etcd);
        if let Some(violation) = model.violation.clone().or_else(|| etcd.misuse.clone()) {
            return Err(violation);
        }
        if let Some(key) = etcd.data().resurrected.first() {
            return Err(format!("{key} was put at or below its mark"));
        }
        let may_stop = matches!(self.trouble, Trouble::MemberRestored | Trouble::AllRestored);
        let is_guard = |error: &ClusterError| matches!(error, ClusterError::RolledBack(_) | ClusterError::Diverged(_));
        match model.stops.iter().find(|(_, error)| !(may_stop && is_guard(error))) {
            Some((machine, error)) => Err(format!("gateway {machine} has stopped: {error}")),
            None => Ok(()),
        }
    }

    /// One more fault.
    fn harm(&mut self) {
        let harms: &[Trouble] = match self.trouble {
            Trouble::All => {
                &[Trouble::Network, Trouble::Partition, Trouble::Crash, Trouble::Pause, Trouble::Full, Trouble::None]
            }
            // Something usual beside what is rare.
            Trouble::SiteLost => &[Trouble::SiteLost, Trouble::Network, Trouble::Crash],
            Trouble::MemberRestored => &[Trouble::MemberRestored, Trouble::Crash, Trouble::Pause],
            Trouble::AllRestored => &[Trouble::AllRestored, Trouble::Crash],
            ref one => std::slice::from_ref(one),
        };
        match harms[self.runtime.below(harms.len() as u64) as usize] {
            Trouble::None | Trouble::All => {}
            Trouble::Network => faults::harm_network(&self.runtime, &self.world.etcd),
            Trouble::Partition => faults::cut(&self.runtime, &self.world.etcd, self.gateways),
            Trouble::Crash => self.crash(),
            Trouble::Pause => self.pause(),
            Trouble::SiteLost => self.lose_site(),
            Trouble::MemberRestored => self.restore_member(),
            Trouble::AllRestored => self.restore_all(),
            Trouble::Full => {
                let is_full = self.runtime.one_in(3);
                locked(&self.world.etcd).faults.is_full = is_full;
            }
        }
    }

    fn crash(&mut self) {
        if self.runtime.one_in(3) {
            return faults::stop_member(&self.runtime, &self.world.etcd);
        }
        let machine = self.runtime.below(self.gateways as u64) as usize;
        if self.lost == Some(machine) || self.has_stopped(machine) {
            return;
        }
        self.runtime.note(|| format!("gateway {machine} crashes"));
        self.runtime.kill(machine);
        if self.runtime.one_in(2) {
            self.down.insert(machine);
        } else {
            self.down.remove(&machine);
            self.world.start(machine);
        }
    }

    fn has_stopped(&self, machine: Machine) -> bool {
        locked(&self.world.model).stops.iter().any(|(stopped, _)| *stopped == machine)
    }

    fn pause(&self) {
        self.world.pause_in_signing.store(2 + self.runtime.below(6), Ordering::Relaxed);
        if self.runtime.one_in(3) {
            let machine = self.runtime.below(self.gateways as u64) as usize;
            self.runtime.note(|| format!("gateway {machine} is paused"));
            self.runtime.pause(machine, self.runtime.some_time(Duration::from_secs(8)));
        }
    }

    /// A data centre burns down: its gateway's disk is gone.
    fn lose_site(&mut self) {
        if self.lost.is_some() || self.runtime.one_in(2) {
            return;
        }
        let machine = self.runtime.below(self.gateways as u64) as usize;
        self.runtime.note(|| format!("gateway {machine} is lost with its disk"));
        self.runtime.kill(machine);
        locked(&self.world.disks[machine]).is_lost = true;
        self.lost = Some(machine);
    }

    /// Takes a snapshot of etcd, or returns the one that was taken.
    fn snapshot(&mut self) -> Option<Mvcc> {
        if let Some(snapshot) = &self.snapshot {
            return Some(snapshot.clone());
        }
        self.runtime.note(|| "a snapshot of etcd is taken".into());
        self.snapshot = Some(locked(&self.world.etcd).data().clone());
        None
    }

    fn restore_member(&mut self) {
        let Some(snapshot) = self.snapshot() else { return };
        let member = faults::some_member(&self.runtime);
        self.runtime.note(|| format!("member {member} is restored from revision {}", snapshot.revision()));
        let mut etcd = locked(&self.world.etcd);
        // Never two: they would be a majority that was rolled back.
        etcd.replace_members();
        etcd.restore_member(member, snapshot);
    }

    fn restore_all(&mut self) {
        let Some(snapshot) = self.snapshot() else { return };
        let mut etcd = locked(&self.world.etcd);
        if self.is_rolled_back || snapshot.revision() + 20 > etcd.data().revision() {
            return;
        }
        self.is_rolled_back = true;
        self.runtime.note(|| format!("etcd is restored from revision {}", snapshot.revision()));
        etcd.restore_all(snapshot);
    }

    /// While gateways run, one of them stops because of a member that holds another log.
    async fn notice(&mut self) -> Result<(), String> {
        let is_noticed = |(_, error): &(Machine, ClusterError)| {
            matches!(error, ClusterError::RolledBack(_) | ClusterError::Diverged(_))
        };
        self.runtime.note(|| "no more faults but a member that was restored".into());
        self.world.pause_in_signing.store(0, Ordering::Relaxed);
        self.runtime.resume_all();
        locked(&self.world.etcd).faults = crate::simulated::NetworkFaults::default();
        let timers = self.runtime.timers();
        let end = timers.now() + NOTICED_WITHIN;
        loop {
            self.check()?;
            let is_noticed = locked(&self.world.model).stops.iter().any(is_noticed);
            if is_noticed || !locked(&self.world.etcd).differs() {
                return Ok(());
            }
            if timers.now() > end {
                return Err("a member that holds another log is not noticed".into());
            }
            self.start_again();
            timers.sleep(Duration::from_millis(500)).await;
        }
    }

    /// No more faults; an administrator replaces restored members, and starts every gateway that is not lost.
    fn heal(&mut self) {
        self.runtime.note(|| "no more faults".into());
        self.world.writes.store(false, Ordering::Relaxed);
        self.world.pause_in_signing.store(0, Ordering::Relaxed);
        self.runtime.resume_all();
        {
            let mut etcd = locked(&self.world.etcd);
            etcd.faults = crate::simulated::NetworkFaults::default();
            etcd.replace_members();
        }
        self.start_again();
    }

    /// An administrator starts every gateway that is down or has stopped, and is not lost.
    fn start_again(&mut self) {
        let stopped: BTreeSet<Machine> =
            std::mem::take(&mut locked(&self.world.model).stops).into_iter().map(|(machine, _)| machine).collect();
        self.down.extend(stopped);
        for machine in std::mem::take(&mut self.down) {
            if self.lost != Some(machine) {
                self.runtime.kill(machine);
                self.world.start(machine);
            }
        }
    }

    /// Everything is sealed and stored at every site in time.
    async fn recover(&mut self) -> Result<(), String> {
        let timers = self.runtime.timers();
        let end = timers.now() + RECOVERY;
        // What is on its way may still arrive.
        timers.sleep(Duration::from_secs(21)).await;
        self.check()?;
        // A guard has stopped one by what was read before the faults were mended.
        self.start_again();
        loop {
            self.check()?;
            let result = self.outcome();
            if result.is_ok() || timers.now() > end {
                return result;
            }
            timers.sleep(Duration::from_millis(500)).await;
        }
    }

    fn outcome(&self) -> Result<(), String> {
        let in_flight = self.world.in_flight.load(Ordering::Relaxed);
        if in_flight > 0 {
            return Err(format!("{in_flight} batches are in flight without end"));
        }
        let logs: Vec<Vec<Vec<u8>>> = (0..self.gateways)
            .filter(|machine| self.lost != Some(*machine))
            .map(|machine| locked(&self.world.disks[machine]).entries.clone())
            .collect();
        let log = logs.iter().max_by_key(|log| log.len()).cloned().unwrap_or_default();
        let model = locked(&self.world.model);
        model.check(&log)?;
        if let Some(behind) = logs.iter().position(|other| *other != log) {
            return Err(format!("site {behind} stores {} of {} entries", logs[behind].len(), log.len()));
        }
        // Of each gateway, the running writer alone is left, unless a lost site keeps batches in etcd for good.
        let marks = locked(&self.world.etcd).data().count(MARKS);
        if self.lost.is_none() && marks > self.gateways {
            return Err(format!("{marks} writers of {} gateways are left", self.gateways));
        }
        // At once, without any fault, something is sealed.
        match model.acknowledged() > 0 && model.published() == 0 {
            true => Err("nothing was ever published".into()),
            false => Ok(()),
        }
    }

    /// Every gateway that had seen more has stopped, and nothing is published any more that is no continuation.
    async fn after_roll_back(&mut self) -> Result<(), String> {
        self.runtime.note(|| "no more faults".into());
        locked(&self.world.etcd).faults = crate::simulated::NetworkFaults::default();
        let timers = self.runtime.timers();
        timers.sleep(Duration::from_secs(15)).await;
        self.check()?;
        let revision = locked(&self.world.etcd).data().revision();
        for machine in 0..self.gateways {
            let seen = locked(&self.world.disks[machine]).highest.as_ref().map_or(0, |seen| seen.revision);
            let is_running = !self.down.contains(&machine) && !self.has_stopped(machine);
            if is_running && seen > revision {
                return Err(format!("gateway {machine} goes on at revision {revision}, and has seen {seen}"));
            }
        }
        self.begin_epoch().await?;
        self.heal();
        self.recover().await
    }

    /// An administrator stops every gateway, restores etcd by the runbook, and begins an epoch with what a site stores.
    async fn begin_epoch(&mut self) -> Result<(), String> {
        self.down.extend(0..self.gateways);
        (0..self.gateways).for_each(|machine| self.runtime.kill(machine));
        locked(&self.world.etcd).begin_again();
        let stored = |disk: &Mutex<DiskData>| {
            let disk = locked(disk);
            (disk.state.clone(), disk.entries.clone())
        };
        let states = self.world.disks.iter().map(stored);
        let (stored, entries) = states.max_by_key(|(state, _)| state.size()).ok_or("no site")?;
        let cosigned = locked(&self.world.model).cosigned;
        let mut peaks = Peaks::default();
        entries.iter().take(cosigned.map_or(0, |(size, _)| size as usize)).for_each(|entry| peaks.push(entry));
        // Before the first sealing, a site has no state.
        let stored = SealedState { log: LOG, ..stored };
        let basis = EpochBasis { stored, cosigned, root_at_cosigned: Some(peaks.root()) };
        let members = self.world.members(ADMINISTRATOR, None);
        let begun = epoch::begin(&members, &basis).await.map_err(|error| format!("the epoch cannot begin: {error}"))?;
        self.runtime.note(|| format!("epoch {} begins with {} entries", begun.epoch, begun.size()));
        Ok(())
    }
}
