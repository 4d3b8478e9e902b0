//! The run over a real etcd: three members and three gateways as processes on loopback. The conformance suite first; then
//! batches are written while a member and the sealer are killed, and a sealer is stopped in the middle of signing.

use crate::cluster::commit;
use crate::cluster::timers::RuntimeTimers;
use crate::cluster::{EtcdMembers, Incarnation};
use crate::conformance;
use crate::model::Model;
use crate::process::{FileDisk, WRITES, channels};
use crate::runtime::locked;
use base64::Engine;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Members, and gateways.
pub const NODES: usize = 3;
/// How long anything may take.
pub const LIMIT: Duration = Duration::from_secs(40);

/// A process that is killed with its owner.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Sends a signal by its name.
    fn signal(&self, name: &str) -> Result<(), String> {
        let sent = Command::new("kill").args([format!("-{name}"), self.0.id().to_string()]).status();
        sent.map_err(|error| error.to_string())?.success().then_some(()).ok_or_else(|| format!("kill -{name} failed"))
    }
}

/// A member of etcd.
pub struct Member {
    program: PathBuf,
    folder: PathBuf,
    ports: Vec<(u16, u16)>,
    at: usize,
    pub process: Option<Process>,
}

impl Member {
    pub fn start(&mut self) -> Result<(), String> {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let (client, peer) = self.ports[self.at];
        let all: Vec<String> =
            self.ports.iter().enumerate().map(|(at, (_, peer))| format!("m{at}={}", url(*peer))).collect();
        let mut command = Command::new(&self.program);
        command.args(["--name", &format!("m{}", self.at), "--data-dir"]).arg(&self.folder);
        command.args(["--listen-client-urls", &url(client), "--advertise-client-urls", &url(client)]);
        command.args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)]);
        command.args(["--initial-cluster", &all.join(","), "--initial-cluster-token", "ndxp-test"]);
        command.args(["--snapshot-count=5000", "--pre-vote=true", "--log-level=error"]);
        command.env("GOGC", "50").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|error| format!("{}: {error}", self.program.display()))?;
        self.process = Some(Process(child));
        Ok(())
    }
}

/// Ports that are free now.
fn free_ports() -> Result<Vec<(u16, u16)>, String> {
    let listeners: Result<Vec<TcpListener>, _> = (0..2 * NODES).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    let listeners = listeners.map_err(|error| error.to_string())?;
    let ports: Vec<u16> = listeners.iter().filter_map(|one| one.local_addr().ok()).map(|one| one.port()).collect();
    Ok(ports.chunks(2).map(|pair| (pair[0], pair[1])).collect())
}

/// A gateway's process, and what it promises.
struct Gateway {
    root: PathBuf,
    machine: usize,
    endpoints: Vec<String>,
    heard: Arc<Mutex<Heard>>,
    process: Option<Process>,
}

/// What all gateways have said.
#[derive(Default)]
struct Heard {
    model: Model,
    /// The gateway that has published last, and how often any has.
    sealer: Option<usize>,
    publications: u64,
    /// How often a gateway has begun to sign.
    signatures: [u64; NODES],
    other: Vec<String>,
}

impl Gateway {
    fn start(&mut self) -> Result<(), String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.arg("gateway").arg(&self.root).arg(self.machine.to_string()).args(&self.endpoints);
        let mut child = command.stdout(Stdio::piped()).spawn().map_err(|error| error.to_string())?;
        let out = child.stdout.take().ok_or("no output")?;
        self.process = Some(Process(child));
        let (heard, machine) = (self.heard.clone(), self.machine);
        std::thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).for_each(|line| locked(&heard).hear(machine, &line));
        });
        Ok(())
    }
}

impl Heard {
    fn hear(&mut self, machine: usize, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["ack", writer, seq, entries @ ..] => {
                let Some((writer, seq)) = Incarnation::parse(writer).zip(seq.parse().ok()) else { return };
                let entries = entries.iter().map(|entry| entry.as_bytes().to_vec()).collect();
                self.model.acknowledge_entries(writer, seq, entries);
            }
            ["publish", size, root] => {
                let root = base64::engine::general_purpose::STANDARD.decode(root).ok();
                let Some((size, root)) = size.parse().ok().zip(root.and_then(|root| root.try_into().ok())) else {
                    return;
                };
                self.model.publish_root(size, root);
                self.publications += 1;
                self.sealer = Some(machine);
            }
            ["sign", _] => self.signatures[machine] += 1,
            _ => self.other.push(format!("gateway {machine}: {line}")),
        }
    }
}

/// Waits for a fact.
pub fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) -> Result<Duration, String> {
    let began = Instant::now();
    while !holds() {
        if began.elapsed() > limit {
            return Err(format!("{what}: not within {} s", limit.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(began.elapsed())
}

/// The processes of a run.
struct Scene {
    members: Vec<Member>,
    gateways: Vec<Gateway>,
    heard: Arc<Mutex<Heard>>,
    root: PathBuf,
}

/// Starts the members of a cluster in a folder; returns them with their addresses.
///
/// # Errors
/// The program cannot be started.
pub fn members(program: &Path, root: &Path) -> Result<(Vec<Member>, Vec<String>), String> {
    let ports = free_ports()?;
    let member = |at| Member {
        program: program.to_owned(),
        folder: root.join(format!("member{at}")),
        ports: ports.clone(),
        at,
        process: None,
    };
    let mut members: Vec<Member> = (0..NODES).map(member).collect();
    members.iter_mut().try_for_each(Member::start)?;
    let endpoints = ports.iter().map(|(client, _)| format!("http://127.0.0.1:{client}")).collect();
    Ok((members, endpoints))
}

/// Runs everything over the etcd of this program.
///
/// # Errors
/// What has failed.
pub fn run(program: &Path) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let root = folder.path().to_owned();
    let (members, endpoints) = members(program, &root)?;
    let began = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let passed = runtime.block_on(begin(&endpoints))?;
    println!("real etcd: {passed} cases of the contract in {:.1} s", began.elapsed().as_secs_f64());
    let heard: Arc<Mutex<Heard>> = Arc::default();
    let gateway = |machine| Gateway {
        root: root.clone(),
        machine,
        endpoints: endpoints.clone(),
        heard: heard.clone(),
        process: None,
    };
    let gateways = (0..NODES).map(gateway).collect();
    let mut scene = Scene { members, gateways, heard: heard.clone(), root: root.clone() };
    let result = scene.play();
    if result.is_err() {
        locked(&heard).other.iter().for_each(|line| println!("{line}"));
    }
    // The gateways of the log go on: they seal the admin events of the registry's changes.
    result.and_then(|()| crate::replicas::real::run(&mut scene.members, &endpoints, root))
}

/// Waits for the members, runs the conformance suite, and begins a log.
async fn begin(endpoints: &[String]) -> Result<usize, String> {
    let (members, timers) = (channels(endpoints, 0), RuntimeTimers::default());
    let cluster = EtcdMembers::new(members.clone(), timers, None);
    let began = Instant::now();
    while let Err(error) = crate::cluster::version::check(&cluster).await {
        if began.elapsed() > LIMIT {
            return Err(format!("etcd does not start: {error}"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // All of them, not only a majority.
    for member in &members {
        while let Err(error) = crate::cluster::member::EtcdMember::range(member, &Default::default()).await {
            if began.elapsed() > LIMIT || matches!(error, crate::cluster::ClusterError::Refused(_)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let passed = conformance::run(&members, &timers).await?.len();
    commit::begin_log(&cluster, [3; 16]).await.map_err(|error| error.to_string())?;
    Ok(passed)
}

impl Scene {
    fn play(&mut self) -> Result<(), String> {
        std::fs::write(self.root.join(WRITES), b"").map_err(|error| error.to_string())?;
        self.gateways.iter_mut().try_for_each(Gateway::start)?;
        self.progress("three gateways write and one seals")?;
        for at in 0..NODES {
            self.members[at].process = None;
            let took = self.progress("a member was killed")?;
            println!("real etcd: member {at} killed, sealed again after {:.1} s", took.as_secs_f64());
            self.members[at].start()?;
            self.progress("a member was started")?;
        }
        let sealer = locked(&self.heard).sealer.ok_or("nobody seals")?;
        self.gateways[sealer].process = None;
        let took = self.progress("the sealer was killed")?;
        println!("real etcd: sealer {sealer} killed, sealed again after {:.1} s", took.as_secs_f64());
        self.gateways[sealer].start()?;
        for _ in 0..2 {
            self.stop_while_signing()?;
        }
        self.finish()
    }

    /// Three more checkpoints are published, and batches acknowledged.
    fn progress(&self, what: &str) -> Result<Duration, String> {
        let (before, acknowledged) = {
            let heard = locked(&self.heard);
            (heard.publications, heard.model.acknowledged())
        };
        until(what, LIMIT, || {
            let heard = locked(&self.heard);
            heard.publications >= before + 3 && heard.model.acknowledged() > acknowledged + 20
        })
    }

    /// SIGSTOP between the beginning of a signature and its commit; SIGCONT when another one has sealed.
    fn stop_while_signing(&self) -> Result<(), String> {
        let sealer = locked(&self.heard).sealer.ok_or("nobody seals")?;
        let process = self.gateways[sealer].process.as_ref().ok_or("no process")?;
        let before = locked(&self.heard).signatures[sealer];
        until("it signs", LIMIT, || locked(&self.heard).signatures[sealer] > before)?;
        process.signal("STOP")?;
        let took = until("another one seals", LIMIT, || locked(&self.heard).sealer != Some(sealer))?;
        self.progress("another one seals on")?;
        process.signal("CONT")?;
        println!("real etcd: sealer {sealer} stopped while signing, another sealed after {:.1} s", took.as_secs_f64());
        self.progress("the stopped one goes on").map(drop)
    }

    /// Writing ends; every site stores the same, in which everything acknowledged is once.
    fn finish(&self) -> Result<(), String> {
        std::fs::remove_file(self.root.join(WRITES)).map_err(|error| error.to_string())?;
        std::thread::sleep(Duration::from_secs(2));
        let disk = FileDisk::new(&self.root, 0, NODES);
        let mut last = String::new();
        let settled = until("every site stores everything", LIMIT, || {
            std::thread::sleep(Duration::from_millis(200));
            let logs: Result<Vec<_>, _> = (0..NODES).map(|machine| disk.tiles(machine)).collect();
            let Ok(logs) = logs else { return false };
            let heard = locked(&self.heard);
            last = heard.model.check(&logs[0].1).err().unwrap_or_default();
            last.is_empty() && logs.windows(2).all(|pair| pair[0].1 == pair[1].1)
        });
        settled.map_err(|error| format!("{error}: {last}"))?;
        let heard = locked(&self.heard);
        if let Some(violation) = &heard.model.violation {
            return Err(violation.clone());
        }
        let (batches, entries) = (heard.model.acknowledged(), heard.model.published());
        println!(
            "real etcd: {batches} batches acknowledged, each once among {entries} entries, in {} checkpoints",
            heard.publications
        );
        Ok(())
    }
}
