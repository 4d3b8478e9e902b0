//! The run over a real etcd: three gateways as processes change the registry at once, while each member and each gateway is
//! killed in turn; one gateway comes back without its file. The gateways of the log run beside them and seal the admin events.

use super::final_state::{self, Contents};
use super::operations::{Operation, PEOPLE, first_steps, person};
use super::process::{file, open};
use super::promises::{Answer, Promises};
use crate::cluster::EtcdMembers;
use crate::cluster::registry::import;
use crate::cluster::timers::RuntimeTimers;
use crate::process::{FileDisk, WRITES, channels};
use crate::real::{LIMIT, Member, NODES, Process, until};
use crate::registry::Store;
use crate::registry::sqlite::SqliteStore;
use crate::runtime::locked;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// What all gateways have said.
#[derive(Default)]
struct Heard {
    promises: Promises,
    made: usize,
    refused: usize,
    unknown: usize,
    /// When revocations were acknowledged, and how long after that each gateway knew them.
    revoked: BTreeMap<String, Instant>,
    seen: Vec<Duration>,
    /// Nothing was killed for some time.
    is_calm: bool,
    other: Vec<String>,
}

impl Heard {
    fn hear(&mut self, machine: usize, line: &str) {
        let words: Vec<&str> = line.trim_end().split(' ').collect();
        let mut answer = |tag: &str, answer| {
            self.promises.answers.insert(tag.into(), answer);
        };
        match words.as_slice() {
            ["ask", tag] => answer(tag, Answer::Unknown),
            ["made", tag, token @ ..] => {
                answer(tag, Answer::Made);
                self.made += 1;
                if let ([token], true) = (token, self.is_calm) {
                    self.revoked.insert((*token).into(), Instant::now());
                }
            }
            ["refused", tag] => {
                answer(tag, Answer::Refused);
                self.refused += 1;
            }
            ["unknown", _] => self.unknown += 1,
            ["issued", token] => self.promises.issued.extend([(*token).to_owned()]),
            ["sees", token] => self.seen.extend(self.revoked.get(*token).map(Instant::elapsed)),
            _ => self.other.push(format!("replica {machine}: {line}")),
        }
    }
}

/// The processes of the run.
pub struct Scene<'m> {
    members: &'m mut [Member],
    endpoints: Vec<String>,
    root: PathBuf,
    heard: Arc<Mutex<Heard>>,
    gateways: Vec<Option<Process>>,
}

/// Runs everything over these members.
///
/// # Errors
/// What has failed.
pub fn run(members: &mut [Member], endpoints: &[String], root: PathBuf) -> Result<(), String> {
    let (heard, gateways) = (Arc::default(), (0..NODES).map(|_| None).collect());
    let mut scene = Scene { members, endpoints: endpoints.to_vec(), root, heard, gateways };
    let result = scene.play();
    if result.is_err() {
        locked(&scene.heard).other.iter().for_each(|line| println!("{line}"));
    }
    result
}

impl Scene<'_> {
    fn play(&mut self) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        self.begin(&runtime)?;
        std::fs::write(self.root.join(WRITES), b"").map_err(|error| error.to_string())?;
        (0..NODES).try_for_each(|machine| self.start(machine))?;
        self.progress("three gateways change the registry")?;
        self.measure()?;
        for at in 0..NODES {
            self.members[at].process = None;
            let took = self.progress("a member was killed")?;
            println!("real etcd: member {at} killed, the registry changed again after {:.1} s", took.as_secs_f64());
            self.members[at].start()?;
            self.gateways[at] = None;
            self.progress("a gateway was killed")?;
            if at == 1 {
                // Its replica begins again from the rows.
                let folder = file(&self.root, at);
                std::fs::remove_dir_all(folder.parent().unwrap_or(&folder)).map_err(|error| error.to_string())?;
            }
            self.start(at)?;
            self.progress("a gateway was started")?;
        }
        self.finish(&runtime)
    }

    /// Begins the registry with its first people, through one gateway.
    fn begin(&self, runtime: &Runtime) -> Result<(), String> {
        let members = EtcdMembers::new(self.channels(runtime), RuntimeTimers::default(), None);
        runtime.block_on(import::begin_registry(&members, 0xbb, 0)).map_err(|error| error.to_string())?;
        let (store, registry, _) = open(&self.root, 0, &self.endpoints, runtime)?;
        runtime.block_on(registry.refresh()).map_err(|error| error.to_string())?;
        let act = |tag: String, who: &str, operation: &Operation| {
            locked(&self.heard).promises.answers.insert(tag.clone(), Answer::Made);
            let store = store.named(person(who), &tag);
            store.and_then(|store| operation.perform(&*store)).map_err(|error| format!("{operation:?}: {error}"))
        };
        for (at, (who, operation)) in first_steps().iter().enumerate() {
            act(format!("begin.{at}"), who, operation)?;
        }
        for waiting in store.pending_changes("", 9).map_err(|error| error.to_string())? {
            act(format!("approve.{}", waiting.id), PEOPLE[1], &Operation::ApproveChange { id: waiting.id })?;
        }
        Ok(())
    }

    fn channels(&self, runtime: &Runtime) -> Vec<crate::cluster::etcd::EtcdChannel> {
        let _entered = runtime.enter();
        channels(&self.endpoints, 0)
    }

    fn start(&mut self, machine: usize) -> Result<(), String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.arg("replica").arg(&self.root).arg(machine.to_string()).args(&self.endpoints);
        let mut child = command.stdout(Stdio::piped()).spawn().map_err(|error| error.to_string())?;
        let out = child.stdout.take().ok_or("no output")?;
        self.gateways[machine] = Some(Process(child));
        let heard = self.heard.clone();
        std::thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).for_each(|line| locked(&heard).hear(machine, &line));
        });
        Ok(())
    }

    /// Thirty more changes are made.
    fn progress(&self, what: &str) -> Result<Duration, String> {
        let before = locked(&self.heard).made;
        until(what, LIMIT, || locked(&self.heard).made >= before + 30)
    }

    /// How soon a revocation is in force at every gateway, without faults.
    fn measure(&self) -> Result<(), String> {
        locked(&self.heard).is_calm = true;
        until("revocations are seen", LIMIT, || locked(&self.heard).seen.len() >= 3 * 20)?;
        let mut heard = locked(&self.heard);
        heard.is_calm = false;
        heard.seen.sort();
        let (middle, last) = (heard.seen[heard.seen.len() / 2], heard.seen[heard.seen.len() - 1]);
        println!(
            "real etcd: {} revocations in force at each gateway after {} ms (middle), {} ms (at last)",
            heard.revoked.len(),
            middle.as_millis(),
            last.as_millis()
        );
        // The slowest ones say how busy this machine is.
        match middle < Duration::from_secs(1) {
            true => Ok(()),
            false => Err(format!("half of the revocations took more than {middle:?}")),
        }
    }

    /// Nobody changes anything any more: every replica has what etcd has, which keeps every rule and every promise.
    fn finish(&self, runtime: &Runtime) -> Result<(), String> {
        std::fs::remove_file(self.root.join(WRITES)).map_err(|error| error.to_string())?;
        let mut last = String::new();
        let settled = until("the replicas are equal", LIMIT, || {
            std::thread::sleep(Duration::from_millis(500));
            last = self.outcome(runtime).err().unwrap_or_default();
            last.is_empty()
        });
        settled.map_err(|error| format!("{error}: {last}"))?;
        let heard = locked(&self.heard);
        println!(
            "real etcd: {} changes of the registry made, {} refused, {} unknown; every rule kept, every replica equal",
            heard.made, heard.refused, heard.unknown
        );
        println!("real etcd: {} tokens issued, each known at every gateway", heard.promises.issued.len());
        Ok(())
    }

    fn outcome(&self, runtime: &Runtime) -> Result<(), String> {
        let members = EtcdMembers::new(self.channels(runtime), RuntimeTimers::default(), None);
        let contents = Contents::read(|read| runtime.block_on(members.range(read)))?;
        let rows = contents.rows()?;
        for machine in 0..NODES {
            let there = final_state::rows_in_file(&file(&self.root, machine))?;
            if let Some(key) = rows.keys().chain(there.keys()).find(|key| rows.get(*key) != there.get(*key)) {
                return Err(format!("replica {machine} differs in {}", String::from_utf8_lossy(key)));
            }
        }
        for machine in 0..NODES {
            let issued = &locked(&self.heard).promises.issued;
            if let Some(token) = final_state::missing_token(&file(&self.root, machine), issued)? {
                return Err(format!("replica {machine} does not know {token}"));
            }
        }
        let store = SqliteStore::open(&file(&self.root, 0)).map_err(|error| error.to_string())?;
        // The gateways of the log have sealed the events among their own entries; each site has them once.
        let disk = FileDisk::new(&self.root, 0, NODES);
        for site in 0..NODES {
            let (_, mut entries) = disk.tiles(site).map_err(|error| error.to_string())?;
            entries.retain(|entry| entry.starts_with(b"{"));
            locked(&self.heard).promises.check(&final_state::check(&contents, &entries, 0, &store)?)?;
        }
        Ok(())
    }
}
