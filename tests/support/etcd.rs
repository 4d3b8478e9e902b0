//! Three members of a real etcd on loopback. `NDXP_ETCD` names the program; `simulator/cluster/etcd.sh` puts one into
//! `target/etcd` and prints its path.

use ndxp_gateway::cluster::etcd::EtcdChannel;
use ndxp_gateway::cluster::timers::RuntimeTimers;
use ndxp_gateway::cluster::{EtcdMembers, commit, guard};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tonic::transport::Endpoint;

/// Members.
pub const MEMBERS: usize = 3;
/// How long anything may take on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(40);

/// The members; killed when it is dropped.
pub struct EtcdCluster {
    program: PathBuf,
    folder: tempfile::TempDir,
    ports: Vec<(u16, u16)>,
    running: Vec<Option<Child>>,
    /// Three members write and sync much: one cluster at a time.
    _turn: MutexGuard<'static, ()>,
}

/// Returns the program; without one, says that the test is skipped.
pub fn program() -> Option<PathBuf> {
    let program = std::env::var_os("NDXP_ETCD").map(PathBuf::from);
    if program.is_none() {
        println!("skipped: NDXP_ETCD does not name an etcd (simulator/cluster/etcd.sh)");
    }
    program
}

impl EtcdCluster {
    /// Starts the members, and begins a log in them; `None` without the program.
    pub fn start() -> Option<Self> {
        static TURN: Mutex<()> = Mutex::new(());
        let program = program()?;
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let listeners: Vec<_> = (0..2 * MEMBERS).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = listeners.iter().map(|one| one.local_addr().unwrap().port()).collect();
        let ports = ports.chunks(2).map(|pair| (pair[0], pair[1])).collect();
        drop(listeners);
        let folder = tempfile::tempdir().unwrap();
        let mut cluster = EtcdCluster { program, folder, ports, running: Vec::new(), _turn: turn };
        cluster.running = (0..MEMBERS).map(|at| Some(cluster.spawn(at))).collect();
        cluster.begin_log();
        Some(cluster)
    }

    fn spawn(&self, at: usize) -> Child {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let (client, peer) = self.ports[at];
        let all = self.ports.iter().enumerate().map(|(at, (_, peer))| format!("m{at}={}", url(*peer)));
        let mut command = Command::new(&self.program);
        command.args(["--name", &format!("m{at}"), "--data-dir"]).arg(self.folder.path().join(format!("m{at}")));
        command.args(["--listen-client-urls", &url(client), "--advertise-client-urls", &url(client)]);
        command.args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)]);
        command.args(["--initial-cluster", &all.collect::<Vec<_>>().join(",")]);
        command.args(["--initial-cluster-token", "ndxp-test", "--snapshot-count=5000", "--pre-vote=true"]);
        command.args(["--log-level=error"]).env("GOGC", "50");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Kills a member (`kill -9`).
    pub fn kill(&mut self, at: usize) {
        let mut member = self.running[at].take().expect("it runs");
        member.kill().unwrap();
        member.wait().unwrap();
    }

    /// Starts a member again.
    pub fn restart(&mut self, at: usize) {
        assert!(self.running[at].is_none());
        self.running[at] = Some(self.spawn(at));
    }

    /// The endpoints, from this member on.
    pub fn endpoints(&self, first: usize) -> Vec<Endpoint> {
        let endpoint = |at: usize| format!("http://127.0.0.1:{}", self.ports[(first + at) % MEMBERS].0);
        (0..MEMBERS).map(|at| Endpoint::from_shared(endpoint(at)).unwrap()).collect()
    }

    fn begin_log(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let channels = self.endpoints(0).iter().map(EtcdChannel::new).collect();
            let members = EtcdMembers::new(channels, RuntimeTimers::default(), None);
            let began = Instant::now();
            while commit::begin_log(&members, [7; 16]).await.is_err() || guard::confirmed(&members).await.is_err() {
                assert!(began.elapsed() < LIMIT, "etcd does not start");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        for member in self.running.iter_mut().flatten() {
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}
