//! A simulated gateway with its replica: the file survives crashes, the process does not.

use super::operations::{self, Operation, PEOPLE, person};
use super::promises::{Answer, Promises};
use crate::cluster::registry::{ClusterRegistry, IssuedTokens, RegistrySettings};
use crate::cluster::{ClusterError, EtcdMembers, Incarnation, Timers};
use crate::gateway::name;
use crate::registry::replication::{ChangeDraft, CommitOutcome, Replication};
use crate::registry::sqlite::{SqliteReplica, SqliteStore};
use crate::registry::{AdminEvent, RegistryError, Snapshot, Store, TokenRecord};
use crate::runtime::{Machine, Runtime, SimTimers, locked};
use crate::simulated::{MEMBERS, SimulatedEtcd, SimulatedMember};
use serde_json::json;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How old a view may be here: shorter than in production, so that more of it is seen.
pub const MAX_AGE: Duration = Duration::from_secs(3);
/// How soon a revocation is seen everywhere without faults.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Attempts before an administrator gives up because others come first.
const MAX_ATTEMPTS: usize = 100;

pub type Members = EtcdMembers<SimulatedMember, SimTimers>;
type Registry = ClusterRegistry<SimulatedMember, SimTimers, SqliteReplica>;

/// What all machines of a run share.
pub struct World {
    pub runtime: Runtime,
    pub etcd: Arc<Mutex<SimulatedEtcd>>,
    pub promises: Mutex<Promises>,
    /// The folders of the gateways are in this one.
    pub folder: PathBuf,
    /// Whether administrators still work.
    pub works: AtomicBool,
    /// Whether etcd was restored from an old snapshot: a gateway that has seen nothing newer cannot know of what was lost.
    pub is_rolled_back: AtomicBool,
    /// Whether there is no fault at all in this run.
    pub is_calm: bool,
    count: AtomicU64,
    /// Mean time between two changes of an administrator.
    pace: Duration,
    journal: u64,
}

/// Takes what a store would change, instead of making it count: the simulation goes on with it asynchronously.
#[derive(Default)]
struct Recorder(Mutex<Option<ChangeDraft>>);

impl Replication for Recorder {
    fn commit(&self, draft: ChangeDraft) -> Result<CommitOutcome, RegistryError> {
        *locked(&self.0) = Some(draft);
        Err(RegistryError::Store("recorded".into()))
    }

    fn add_tokens(&self, _: &[TokenRecord]) -> Result<(), RegistryError> {
        Err(RegistryError::Store("tokens are put asynchronously here".into()))
    }
}

/// The process of a gateway.
pub struct Gateway {
    machine: Machine,
    store: SqliteStore,
    recorder: Arc<Recorder>,
    pub registry: Registry,
    issued: IssuedTokens<SimulatedMember, SimTimers>,
}

/// The entry of an event: what the checks read of it, and the tag of its change.
pub fn entry(event: &AdminEvent) -> Vec<u8> {
    let changes: Vec<_> = event.changes.iter().map(|one| json!([one.object, one.before, one.after])).collect();
    let (tag, sequence, approved_by) = (&event.justification, event.sequence, &event.approved_by);
    json!({ "tag": tag, "sequence": sequence, "approved_by": approved_by, "changes": changes }).to_string().into_bytes()
}

impl Gateway {
    /// What administrators and callers read.
    pub fn store(&self) -> &SqliteStore {
        &self.store
    }
}

impl World {
    pub fn new(runtime: &Runtime, folder: PathBuf, is_calm: bool) -> Arc<Self> {
        Arc::new(World {
            runtime: runtime.clone(),
            etcd: SimulatedEtcd::new(runtime),
            promises: Mutex::default(),
            folder,
            works: AtomicBool::new(true),
            is_rolled_back: AtomicBool::new(false),
            is_calm,
            count: AtomicU64::new(0),
            pace: Duration::from_millis(30 + runtime.below(200)),
            journal: 2 + runtime.below(30),
        })
    }

    pub fn members(&self, machine: Machine) -> Members {
        let member =
            |at: usize| SimulatedMember { etcd: self.etcd.clone(), from: machine, member: (machine + at) % MEMBERS };
        EtcdMembers::new((0..MEMBERS).map(member).collect(), self.runtime.timers(), None)
    }

    pub fn file(&self, machine: Machine) -> PathBuf {
        self.folder.join(format!("gateway{machine}")).join("registry.sqlite")
    }

    /// Opens the file of a gateway.
    pub fn open(&self, machine: Machine) -> Result<Gateway, RegistryError> {
        let store = SqliteStore::open(&self.file(machine))?;
        let (replica, recorder) = (SqliteReplica::open(&store)?, Arc::new(Recorder::default()));
        let store = store.replicated(recorder.clone())?;
        let settings = RegistrySettings { max_age: MAX_AGE, journal: self.journal };
        let members = Arc::new(self.members(machine));
        let holder = Incarnation { gateway: name(machine), number: self.runtime.below(u64::MAX) };
        let issued = IssuedTokens::new(members.clone(), holder);
        let registry = ClusterRegistry::new(members, replica, Arc::new(entry), settings);
        Ok(Gateway { machine, store, recorder, registry, issued })
    }

    /// Starts a gateway's process.
    pub fn start(self: &Arc<Self>, machine: Machine) {
        self.runtime.note(|| format!("gateway {machine} starts"));
        let gateway = match self.open(machine) {
            Ok(gateway) => Arc::new(gateway),
            Err(error) => {
                return locked(&self.promises).violate(format!("gateway {machine} cannot open its file: {error}"));
            }
        };
        let (world, following) = (self.clone(), gateway.clone());
        self.runtime.spawn(machine, async move {
            let note = |refreshed: Result<(), &ClusterError>| {
                if let Err(error) = refreshed {
                    world.runtime.note(|| format!("gateway {machine} cannot refresh: {error}"));
                }
            };
            let error = following.registry.run(note).await;
            world.stop(machine, error);
        });
        for _ in 0..2 {
            let (world, gateway) = (self.clone(), gateway.clone());
            self.runtime.spawn(machine, async move { world.administer(&gateway).await });
        }
        let (world, serving) = (self.clone(), gateway.clone());
        self.runtime.spawn(machine, async move { world.serve(&serving).await });
        let (world, issuing) = (self.clone(), gateway.clone());
        self.runtime.spawn(machine, async move { world.issue(&issuing).await });
        let world = self.clone();
        self.runtime.spawn(machine, async move { world.read_tokens(&gateway).await });
    }

    /// Something has happened that a person has to look into.
    fn stop(&self, machine: Machine, error: ClusterError) {
        self.runtime.note(|| format!("gateway {machine} stops: {error}"));
        locked(&self.promises).stops.push((machine, error));
        self.runtime.kill(machine);
    }

    /// Clients fetch tokens.
    async fn issue(&self, gateway: &Gateway) {
        while self.works.load(Ordering::Relaxed) {
            self.runtime.timers().sleep(self.runtime.some_time(self.pace * 2)).await;
            let token = |_| operations::token(format!("issued{}", self.count.fetch_add(1, Ordering::Relaxed)));
            let tokens: Vec<_> = (0..1 + self.runtime.below(3)).map(token).collect();
            match gateway.issued.put(&tokens).await {
                Ok(()) => locked(&self.promises).issued.extend(tokens.into_iter().map(|token| token.id)),
                Err(error) if error.may_pass() => {}
                Err(error) => return self.stop(gateway.machine, error),
            }
        }
    }

    /// Reads what was issued at every gateway.
    async fn read_tokens(&self, gateway: &Gateway) {
        loop {
            match gateway.issued.refresh(gateway.registry.replica()).await {
                Err(error) if !error.may_pass() => return self.stop(gateway.machine, error),
                _ => self.runtime.timers().sleep(Duration::from_secs(1)).await,
            }
        }
    }

    async fn administer(&self, gateway: &Gateway) {
        while self.works.load(Ordering::Relaxed) {
            self.runtime.timers().sleep(self.runtime.some_time(self.pace * 2)).await;
            let count = self.count.fetch_add(1, Ordering::Relaxed);
            let who = PEOPLE[self.runtime.below(PEOPLE.len() as u64) as usize];
            match operations::choose(&|end| self.runtime.below(end), &gateway.store, &count.to_string()) {
                Ok(operation) => drop(self.act(gateway, who, &format!("change {count}"), &operation).await),
                Err(error) => locked(&self.promises).violate(format!("the store of a gateway: {error}")),
            }
        }
    }

    /// Somebody asks for a change, and is told what has become of it.
    pub async fn act(&self, gateway: &Gateway, who: &str, tag: &str, operation: &Operation) -> Answer {
        self.answer(tag, Answer::Unknown);
        let answer = match self.attempt(gateway, who, tag, operation).await {
            Ok(()) => {
                let now = self.runtime.timers().now();
                locked(&self.promises).revoked.extend(operation.revokes().map(|token| (token.to_owned(), now)));
                Answer::Made
            }
            Err(Some(ClusterError::OutcomeUnknown(_))) => Answer::Unknown,
            Err(Some(error)) if !error.may_pass() => {
                self.stop(gateway.machine, error);
                Answer::Unknown
            }
            Err(_) => Answer::Refused,
        };
        let machine = gateway.machine;
        self.runtime.note(|| format!("{tag} by {who} at gateway {machine}: {answer:?} {operation:?}"));
        self.answer(tag, answer);
        answer
    }

    fn answer(&self, tag: &str, answer: Answer) {
        locked(&self.promises).answers.insert(tag.into(), answer);
    }

    /// As `SqliteStore` does it with an engine that blocks; `Err(None)`: a rule of the registry refuses it.
    async fn attempt(
        &self,
        gateway: &Gateway,
        who: &str,
        tag: &str,
        operation: &Operation,
    ) -> Result<(), Option<ClusterError>> {
        let store = gateway.store.named(person(who), tag).map_err(|_| None)?;
        for _ in 0..MAX_ATTEMPTS {
            let refused = operation.perform(&*store);
            let Some(draft) = locked(&gateway.recorder.0).take() else {
                self.runtime.note(|| format!("{tag}: {refused:?}"));
                return Err(None);
            };
            if gateway.registry.commit(&draft).await? == CommitOutcome::Applied {
                return Ok(());
            }
            locked(&self.promises).superseded += 1;
        }
        Err(None)
    }

    /// Calls that present revoked tokens: none is served.
    async fn serve(&self, gateway: &Gateway) {
        let (timers, machine) = (self.runtime.timers(), gateway.machine);
        let mut view = Snapshot::default();
        loop {
            timers.sleep(Duration::from_millis(50)).await;
            if self.is_rolled_back.load(Ordering::Relaxed) {
                return;
            }
            match view.follow(&gateway.store) {
                Ok(next) => view = next.unwrap_or(view),
                Err(error) => return locked(&self.promises).violate(format!("gateway {machine}'s view: {error}")),
            }
            let mut promises = locked(&self.promises);
            if gateway.registry.freshness().is_stale() {
                promises.stale += 1;
                continue;
            }
            let (now, limit) = (timers.now(), if self.is_calm { AT_ONCE } else { MAX_AGE });
            let accepted = promises.revoked.iter().find(|(token, at)| now > *at + limit && !view.has_revoked(token));
            if let Some((token, at)) = accepted.cloned() {
                promises.violate(format!("gateway {machine} accepts {token} {:?} after its revocation", now - at));
            }
        }
    }
}
