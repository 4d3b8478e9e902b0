//! A simulated gateway: its disk survives crashes, its process does not.

use crate::cluster::batch::EncodedBatch;
use crate::cluster::highest::HighestSeen;
use crate::cluster::own_disk::{OwnDisk, Publication};
use crate::cluster::peaks::Peaks;
use crate::cluster::sealer::SealerSettings;
use crate::cluster::site::{self, SiteTiles};
use crate::cluster::state::SealedState;
use crate::cluster::{
    BatchWriter, ClusterError, ClusterSealer, EtcdMembers, GatewayName, Timers, epoch, guard, version, writer,
};
use crate::exchange_log::tree::Hash;
use crate::model::{Model, note};
use crate::runtime::{Machine, Runtime, SimTimers, locked};
use crate::simulated::{MEMBERS, SimulatedEtcd, SimulatedMember};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What is on a gateway's disk.
#[derive(Default)]
pub struct DiskData {
    batches: Vec<EncodedBatch>,
    pub highest: Option<HighestSeen>,
    pub state: SealedState,
    pub entries: Vec<Vec<u8>>,
    pub is_lost: bool,
}

/// What all machines of a run share.
pub struct World {
    pub runtime: Runtime,
    pub etcd: Arc<Mutex<SimulatedEtcd>>,
    pub model: Mutex<Model>,
    pub disks: Vec<Mutex<DiskData>>,
    /// Appends are durable in order.
    appending: Vec<tokio::sync::Mutex<()>>,
    /// Whether batches are still written.
    pub writes: AtomicBool,
    /// Batches that are not durable yet.
    pub in_flight: AtomicU64,
    /// One of so many signatures is interrupted by a pause of the machine; 0: none.
    pub pause_in_signing: AtomicU64,
    entries: AtomicU64,
    /// Mean time between two batches of a task.
    pace: Duration,
    settings: SealerSettings,
}

type Members = EtcdMembers<SimulatedMember, SimTimers>;

impl World {
    pub fn new(runtime: &Runtime, gateways: usize) -> Arc<Self> {
        let seal_each = Duration::from_millis(100 + runtime.below(900));
        Arc::new(World {
            runtime: runtime.clone(),
            etcd: SimulatedEtcd::new(runtime),
            model: Mutex::default(),
            disks: (0..gateways).map(|_| Mutex::default()).collect(),
            appending: (0..gateways).map(|_| tokio::sync::Mutex::default()).collect(),
            writes: AtomicBool::new(true),
            in_flight: AtomicU64::new(0),
            pause_in_signing: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            pace: Duration::from_millis(40 + runtime.below(400)),
            settings: SealerSettings { seal_each, sites: gateways },
        })
    }

    pub fn members(&self, machine: Machine, seen: Option<(u64, i64)>) -> Members {
        let member =
            |at: usize| SimulatedMember { etcd: self.etcd.clone(), from: machine, member: (machine + at) % MEMBERS };
        EtcdMembers::new((0..MEMBERS).map(member).collect(), self.runtime.timers(), seen)
    }

    /// Starts a gateway's process.
    pub fn start(self: &Arc<Self>, machine: Machine) {
        let world = self.clone();
        self.runtime.note(|| format!("gateway {machine} starts"));
        self.runtime.spawn(machine, async move {
            loop {
                match world.serve(machine).await {
                    Err(error) if error.may_pass() => {
                        world.runtime.note(|| format!("gateway {machine} cannot start: {error}"));
                        world.runtime.timers().sleep(Duration::from_millis(500)).await;
                    }
                    Err(error) => return world.stop(machine, error),
                    Ok(()) => return,
                }
            }
        });
    }

    /// Something has happened that a person has to look into.
    fn stop(&self, machine: Machine, error: ClusterError) {
        self.runtime.note(|| format!("gateway {machine} stops: {error}"));
        locked(&self.model).stops.push((machine, error));
        self.runtime.kill(machine);
    }

    /// The start of a process: guards, what is still open, then a new incarnation.
    async fn serve(self: &Arc<Self>, machine: Machine) -> Result<(), ClusterError> {
        let disk = Arc::new(Machinery { world: self.clone(), machine });
        let seen = disk.highest().await?.map(|seen| (seen.cluster, seen.revision));
        let members = Arc::new(self.members(machine, seen));
        version::check(&members).await?;
        if epoch::enter(&members, &*disk, &*disk).await? {
            self.runtime.note(|| format!("gateway {machine} enters another epoch"));
        }
        let checkpoint = guard::checked(&members, &*disk).await?;
        let offered = writer::offer_unsealed(&members, &*disk, &checkpoint.state).await?;
        self.runtime.note(|| format!("gateway {machine} has offered batches of {} starts again", offered.len()));
        let (name, number) = (name(machine), self.runtime.below(u64::MAX));
        let writer = Arc::new(BatchWriter::begin(members.clone(), disk.clone(), name, number).await?);
        for _ in 0..2 {
            let (world, writer) = (self.clone(), writer.clone());
            self.runtime.spawn(machine, async move { world.write(machine, &writer).await });
        }
        let sealer = ClusterSealer {
            members: members.clone(),
            disk: disk.clone(),
            publication: disk.clone(),
            candidate: writer.incarnation().clone(),
            settings: self.settings.clone(),
        };
        let world = self.clone();
        self.runtime.spawn(machine, async move {
            let error = sealer.run().await;
            world.stop(machine, error);
        });
        let world = self.clone();
        self.runtime.spawn(machine, async move { world.follow(machine, &members, &disk).await });
        Ok(())
    }

    /// Writes batches, and acknowledges them when they are durable.
    async fn write(&self, machine: Machine, writer: &BatchWriter<SimulatedMember, SimTimers, Machinery>) {
        let timers = self.runtime.timers();
        while self.writes.load(Ordering::Relaxed) {
            timers.sleep(self.runtime.some_time(self.pace * 2)).await;
            let entry = |_| format!("entry {}", self.entries.fetch_add(1, Ordering::Relaxed)).into_bytes();
            let batch = match writer.next_batch((0..1 + self.runtime.below(3)).map(entry).collect()) {
                Ok(batch) => batch,
                Err(error) => return self.stop(machine, error),
            };
            let counted = InFlight::new(&self.in_flight);
            let written = writer.write(&batch, |_| (), || ()).await;
            drop(counted);
            match written {
                Ok(()) => locked(&self.model).acknowledge(&batch),
                Err(error) => return self.stop(machine, error),
            }
        }
    }

    /// Keeps the tiles of this site up to date.
    async fn follow(&self, machine: Machine, members: &Members, disk: &Arc<Machinery>) {
        let (timers, mut said) = (self.runtime.timers(), 0);
        loop {
            match site::follow(members, &**disk, &**disk, &name(machine), &mut said).await {
                Err(error) if !error.may_pass() => return self.stop(machine, error),
                followed => {
                    if let Err(error) = followed {
                        self.runtime.note(|| format!("site {machine} cannot follow: {error}"));
                    }
                    timers.sleep(Duration::from_millis(200) + self.runtime.some_time(Duration::from_secs(1))).await;
                }
            }
        }
    }
}

pub fn name(machine: Machine) -> GatewayName {
    GatewayName::parse(&format!("dc{machine}")).expect("a name")
}

/// Counts what is in flight, also if its process is killed.
struct InFlight<'c>(&'c AtomicU64);

impl<'c> InFlight<'c> {
    fn new(count: &'c AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        InFlight(count)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The disk, the key and the tiles of a machine.
pub struct Machinery {
    world: Arc<World>,
    machine: Machine,
}

impl Machinery {
    fn data(&self) -> std::sync::MutexGuard<'_, DiskData> {
        locked(&self.world.disks[self.machine])
    }

    async fn wait(&self, max: Duration) {
        let time = self.world.runtime.some_time(max);
        self.world.runtime.timers().sleep(time).await;
    }
}

impl OwnDisk for Machinery {
    async fn append(&self, batch: &EncodedBatch) -> Result<(), ClusterError> {
        let _turn = self.world.appending[self.machine].lock().await;
        // A crash during the write may keep it or not.
        let early = self.world.runtime.one_in(2);
        if early {
            self.data().batches.push(batch.clone());
        }
        self.wait(Duration::from_millis(3)).await;
        if !early {
            self.data().batches.push(batch.clone());
        }
        Ok(())
    }

    async fn unsealed(&self, state: &SealedState) -> Result<Vec<EncodedBatch>, ClusterError> {
        let is_open = |batch: &&EncodedBatch| !state.is_sealed(&batch.writer, batch.seq);
        Ok(self.data().batches.iter().filter(is_open).cloned().collect())
    }

    async fn store_highest(&self, seen: &HighestSeen) -> Result<(), ClusterError> {
        self.wait(Duration::from_millis(3)).await;
        let mut data = self.data();
        if data.highest.as_ref().is_none_or(|stored| seen.is_newer(stored)) {
            data.highest = Some(seen.clone());
        }
        Ok(())
    }

    async fn highest(&self) -> Result<Option<HighestSeen>, ClusterError> {
        Ok(self.data().highest.clone())
    }
}

impl Publication for Machinery {
    async fn sign(&self, size: u64, root: &Hash) -> Result<String, ClusterError> {
        let runtime = &self.world.runtime;
        let chances = self.world.pause_in_signing.load(Ordering::Relaxed);
        if chances > 0 && runtime.one_in(chances) {
            let time = Duration::from_secs(1 + runtime.below(8));
            runtime.note(|| format!("gateway {} is paused for {time:?} while it signs {size}", self.machine));
            runtime.pause(self.machine, time);
            if runtime.one_in(2) {
                // Stopped only while it sends the commit: that arrives when the machine goes on.
                let until = runtime.timers().now() + time;
                locked(&self.world.etcd).faults.held.insert(self.machine, until);
                return Ok(note(size, root));
            }
        }
        self.wait(Duration::from_millis(4)).await;
        Ok(note(size, root))
    }

    async fn publish(&self, state: &SealedState, entries: &[Vec<u8>]) -> Result<(), ClusterError> {
        let (machine, size, added) = (self.machine, state.size(), entries.len());
        // Tiles first, then the note: what the witnesses cosign is stored at a site.
        self.store(state, entries).await?;
        if self.data().state.size() < size {
            return Err(ClusterError::Signing(format!("site {machine} does not store {size} entries yet")));
        }
        self.world.runtime.note(|| format!("gateway {machine} publishes {size} entries, {added} of them new"));
        locked(&self.world.model).publish(state);
        self.wait(Duration::from_millis(4)).await;
        Ok(())
    }

    async fn last_cosigned(&self) -> Result<Option<(u64, Hash)>, ClusterError> {
        self.wait(Duration::from_millis(4)).await;
        Ok(locked(&self.world.model).cosigned)
    }

    async fn root_at(&self, size: u64) -> Result<Option<Hash>, ClusterError> {
        let data = self.data();
        let Some(entries) = data.entries.get(..size as usize) else { return Ok(None) };
        let mut peaks = Peaks::default();
        entries.iter().for_each(|entry| peaks.push(entry));
        Ok(Some(peaks.root()))
    }
}

impl SiteTiles for Machinery {
    async fn stored(&self) -> Result<SealedState, ClusterError> {
        Ok(self.data().state.clone())
    }

    async fn store(&self, state: &SealedState, entries: &[Vec<u8>]) -> Result<(), ClusterError> {
        self.wait(Duration::from_millis(5)).await;
        let mut data = self.data();
        // The sealer and the follower of a site store at once.
        if data.state.size() + entries.len() as u64 == state.size() && data.state.size() < state.size() {
            data.entries.extend_from_slice(entries);
            data.state = state.clone();
        }
        Ok(())
    }

    async fn fetch(&self, from: u64, to: u64) -> Result<Option<Vec<Vec<u8>>>, ClusterError> {
        self.wait(Duration::from_millis(20)).await;
        let others = self.world.disks.iter().enumerate().filter(|(machine, _)| *machine != self.machine);
        let mut found = others.map(|(_, disk)| locked(disk)).filter(|disk| !disk.is_lost);
        Ok(found.find_map(|disk| disk.entries.get(from as usize..to as usize).map(<[Vec<u8>]>::to_vec)))
    }
}
