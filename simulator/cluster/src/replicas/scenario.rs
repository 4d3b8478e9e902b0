//! One run: three gateways change the registry at once, faults for some time, then none: everything must come out right.

use super::final_state::{self, Contents};
use super::gateway::World;
use super::operations::{Operation, PEOPLE, first_steps, person, staff};
use super::promises::Answer;
use crate::cluster::member::RangePage;
use crate::cluster::registry::import;
use crate::cluster::{ClusterError, Timers};
use crate::faults;
use crate::mvcc::Mvcc;
use crate::registry::replication::RowKey;
use crate::registry::sqlite::SqliteStore;
use crate::registry::{Role, Store};
use crate::runtime::{Machine, Runtime, locked};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The kind of fault in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// Nothing.
    None,
    /// Requests and responses are lost, or arrive seconds later; watches lose events.
    Network,
    /// Gateways and members cannot reach each other, also in one direction only.
    Partition,
    /// Gateways crash, some of them lose their disk; members are down.
    Crash,
    /// Gateways are paused.
    Pause,
    /// The quota is reached for some time.
    Full,
    /// All members are restored from an old snapshot.
    AllRestored,
    /// All of them but the last.
    All,
}

const TROUBLES: [Trouble; 10] = [
    Trouble::None,
    Trouble::Network,
    Trouble::Network,
    Trouble::Partition,
    Trouble::Crash,
    Trouble::Pause,
    Trouble::Full,
    Trouble::AllRestored,
    Trouble::All,
    Trouble::All,
];
/// Gateways.
const GATEWAYS: usize = 3;
/// The machine that begins the registry.
const ADMINISTRATOR: Machine = 900;
/// The time by which all replicas are equal without faults.
const RECOVERY: Duration = Duration::from_secs(60);

struct Scenario {
    world: Arc<World>,
    runtime: Runtime,
    trouble: Trouble,
    down: BTreeSet<Machine>,
    snapshot: Option<Mvcc>,
    /// Number of the last admin event before the first change.
    imported: u64,
}

/// Runs a seed in an empty folder, if it has the requested kind of fault; returns the violation with its trace.
pub fn run(seed: u64, only: Option<&str>, folder: &Path, trace: bool) -> Result<(), (String, Vec<String>)> {
    let runtime = Runtime::new(seed, trace);
    let trouble = TROUBLES[runtime.below(TROUBLES.len() as u64) as usize];
    if only.is_some_and(|only| format!("{trouble:?}") != only) {
        return Ok(());
    }
    let world = World::new(&runtime, folder.to_owned(), trouble == Trouble::None);
    let mut scenario = Scenario {
        world: world.clone(),
        runtime: runtime.clone(),
        trouble,
        down: BTreeSet::new(),
        snapshot: None,
        imported: 0,
    };
    let ended = runtime.run(async move { scenario.live().await });
    (0..GATEWAYS).chain([ADMINISTRATOR, crate::simulated::NETWORK]).for_each(|machine| runtime.kill(machine));
    ended.map_err(|violation| (format!("{trouble:?}: {violation}"), runtime.trace()))
}

impl Scenario {
    async fn live(&mut self) -> Result<(), String> {
        self.begin().await?;
        (0..GATEWAYS).for_each(|machine| self.world.start(machine));
        let timers = self.runtime.timers();
        let end = timers.now() + Duration::from_secs(5 + self.runtime.below(15));
        while timers.now() < end {
            timers.sleep(self.runtime.some_time(Duration::from_secs(2))).await;
            self.harm();
            self.check()?;
        }
        if self.is_rolled_back() {
            return self.after_roll_back().await;
        }
        self.heal();
        self.recover().await
    }

    /// Fills etcd with the registry of a single gateway in some runs; returns the number of its last event.
    async fn import(&self) -> Result<u64, String> {
        if self.runtime.one_in(2) {
            return Ok(0);
        }
        let members = self.world.members(ADMINISTRATOR);
        let embedded = SqliteStore::open(&self.world.file(ADMINISTRATOR)).map_err(|error| error.to_string())?;
        for at in 0..7 {
            let add = Operation::AddClient { id: format!("single{at}"), name: format!("single{at}") };
            add.perform(&embedded).map_err(|error| error.to_string())?;
        }
        let mut after: Option<RowKey> = None;
        loop {
            let rows = embedded.shared_rows(after.as_ref(), 3).map_err(|error| error.to_string())?;
            import::import_rows(&members, &rows, after.is_none()).await.map_err(|error| error.to_string())?;
            let Some(last) = rows.last() else { break };
            after = Some(last.key.clone());
        }
        embedded.last_event().map_err(|error| error.to_string())
    }

    /// Begins the registry, and registers the people: each with both roles, as the rules want it.
    async fn begin(&mut self) -> Result<(), String> {
        let (members, events) = (self.world.members(ADMINISTRATOR), self.import().await?);
        import::begin_registry(&members, 0xaa, events).await.map_err(|error| error.to_string())?;
        self.imported = events;
        let first = self.world.open(0).map_err(|error| error.to_string())?;
        first.registry.refresh().await.map_err(|error| error.to_string())?;
        for (at, (who, operation)) in first_steps().iter().enumerate() {
            if self.world.act(&first, who, &format!("begin {at}"), operation).await != Answer::Made {
                return Err(format!("{operation:?} was not made"));
            }
        }
        let minh = PEOPLE[1];
        for at in 0..4 {
            let waiting = first.store().pending_changes("", 1).map_err(|error| error.to_string())?;
            let id = waiting.first().ok_or("nothing waits")?.id.clone();
            let approve = Operation::ApproveChange { id };
            if self.world.act(&first, minh, &format!("approve {at}"), &approve).await != Answer::Made {
                return Err(format!("{approve:?} was not made by {}", person(minh)));
            }
        }
        let people = first.store().staff().map_err(|error| error.to_string())?;
        let both = |id| staff(id, vec![Role::Administrator, Role::Approver]);
        let wanted = ["duc", "hoa", "lan", "minh"].map(both);
        if people == wanted { Ok(()) } else { Err(format!("the people are {people:?}")) }
    }

    /// What may be seen at any time.
    fn check(&self) -> Result<(), String> {
        let promises = locked(&self.world.promises);
        if let Some(violation) = promises.violation.clone().or_else(|| locked(&self.world.etcd).misuse.clone()) {
            return Err(violation);
        }
        let may_stop = |error: &ClusterError| self.is_rolled_back() && matches!(error, ClusterError::RolledBack(_));
        match promises.stops.iter().find(|(_, error)| !may_stop(error)) {
            Some((machine, error)) => Err(format!("gateway {machine} has stopped: {error}")),
            None => Ok(()),
        }
    }

    fn is_rolled_back(&self) -> bool {
        self.world.is_rolled_back.load(Ordering::Relaxed)
    }

    /// One more fault.
    fn harm(&mut self) {
        let harms: &[Trouble] = match self.trouble {
            Trouble::All => {
                &[Trouble::Network, Trouble::Partition, Trouble::Crash, Trouble::Pause, Trouble::Full, Trouble::None]
            }
            Trouble::AllRestored => &[Trouble::AllRestored, Trouble::Crash],
            ref one => std::slice::from_ref(one),
        };
        match harms[self.runtime.below(harms.len() as u64) as usize] {
            Trouble::None | Trouble::All => {}
            Trouble::Network => faults::harm_network(&self.runtime, &self.world.etcd),
            Trouble::Partition => faults::cut(&self.runtime, &self.world.etcd, GATEWAYS),
            Trouble::Crash => self.crash(),
            Trouble::Pause => self.pause(),
            Trouble::AllRestored => self.restore_all(),
            Trouble::Full => {
                let is_full = self.runtime.one_in(3);
                locked(&self.world.etcd).faults.is_full = is_full;
            }
        }
    }

    fn some_gateway(&self) -> Machine {
        self.runtime.below(GATEWAYS as u64) as usize
    }

    fn crash(&mut self) {
        if self.runtime.one_in(4) && self.trouble != Trouble::AllRestored {
            return faults::stop_member(&self.runtime, &self.world.etcd);
        }
        let machine = self.some_gateway();
        if locked(&self.world.promises).stops.iter().any(|(stopped, _)| *stopped == machine) {
            return;
        }
        self.runtime.note(|| format!("gateway {machine} crashes"));
        self.runtime.kill(machine);
        if self.runtime.one_in(3) && self.trouble != Trouble::AllRestored {
            self.runtime.note(|| format!("gateway {machine} has lost its disk"));
            let _ = std::fs::remove_dir_all(self.world.folder.join(format!("gateway{machine}")));
        }
        if self.runtime.one_in(2) {
            self.down.insert(machine);
        } else {
            self.down.remove(&machine);
            self.world.start(machine);
        }
    }

    fn pause(&self) {
        let (machine, time) = (self.some_gateway(), self.runtime.some_time(Duration::from_secs(8)));
        self.runtime.note(|| format!("gateway {machine} is paused for {time:?}"));
        self.runtime.pause(machine, time);
    }

    /// Takes a snapshot of etcd; later all members begin again from it.
    fn restore_all(&mut self) {
        let Some(snapshot) = self.snapshot.take() else {
            self.runtime.note(|| "a snapshot of etcd is taken".into());
            self.snapshot = Some(locked(&self.world.etcd).data().clone());
            return;
        };
        // Once is enough.
        if !self.is_rolled_back() {
            self.runtime.note(|| "all members are restored from the snapshot".into());
            self.world.is_rolled_back.store(true, Ordering::Relaxed);
            locked(&self.world.etcd).restore_all(snapshot);
        }
    }

    /// No gateway goes on that has applied what etcd does not have any more.
    async fn after_roll_back(&mut self) -> Result<(), String> {
        self.heal_network();
        self.runtime.timers().sleep(Duration::from_secs(15)).await;
        self.check()?;
        let revision = locked(&self.world.etcd).data().revision();
        for machine in 0..GATEWAYS {
            let has_stopped = locked(&self.world.promises).stops.iter().any(|(stopped, _)| *stopped == machine);
            if !has_stopped && !self.down.contains(&machine) {
                self.runtime.kill(machine);
                let gateway = self.world.open(machine).map_err(|error| error.to_string())?;
                let refreshed = gateway.registry.refresh().await;
                // One that never applied more than the snapshot has goes on.
                refreshed.map_err(|error| format!("gateway {machine} went on at revision {revision}: {error}"))?;
            }
        }
        Ok(())
    }

    fn heal_network(&self) {
        self.runtime.note(|| "no more faults".into());
        locked(&self.world.etcd).faults = crate::simulated::NetworkFaults::default();
        self.runtime.resume_all();
    }

    fn heal(&mut self) {
        self.heal_network();
        for machine in std::mem::take(&mut self.down) {
            self.world.start(machine);
        }
    }

    async fn recover(&mut self) -> Result<(), String> {
        let timers = self.runtime.timers();
        timers.sleep(Duration::from_secs(2)).await;
        self.world.works.store(false, Ordering::Relaxed);
        let end = timers.now() + RECOVERY;
        loop {
            self.check()?;
            let result = self.outcome();
            if result.is_ok() || timers.now() > end {
                return result;
            }
            timers.sleep(Duration::from_millis(500)).await;
        }
    }

    /// Every replica has what etcd has, which keeps every rule and every promise.
    fn outcome(&self) -> Result<(), String> {
        let contents = Contents::read(|read| {
            let (entries, has_more) = locked(&self.world.etcd).data().range(read)?;
            Ok(RangePage { entries, has_more, ..RangePage::default() })
        })?;
        let rows = contents.rows()?;
        for machine in 0..GATEWAYS {
            let there = final_state::rows_in_file(&self.world.file(machine))?;
            if let Some(key) = rows.keys().chain(there.keys()).find(|key| rows.get(*key) != there.get(*key)) {
                return Err(format!("gateway {machine} differs in {}", String::from_utf8_lossy(key)));
            }
        }
        for machine in 0..GATEWAYS {
            let issued = &locked(&self.world.promises).issued;
            if let Some(token) = final_state::missing_token(&self.world.file(machine), issued)? {
                return Err(format!("gateway {machine} does not know {token}"));
            }
        }
        let store = self.world.open(0).map_err(|error| error.to_string())?;
        let made =
            final_state::check(&contents, &final_state::batched_entries(&contents)?, self.imported, store.store())?;
        locked(&self.world.promises).check(&made)
    }
}
