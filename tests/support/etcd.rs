//! Three members of a real etcd on loopback. `NDXP_ETCD` names the program; `simulator/cluster/etcd.sh` puts one into
//! `target/etcd` and prints its path.

use ndxp_gateway::cluster::etcd::{EtcdAccess, EtcdChannel};
use ndxp_gateway::cluster::timers::RuntimeTimers;
use ndxp_gateway::cluster::{EtcdMembers, commit, guard};
use ndxp_gateway::identity::tls::client_config;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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
    certificates: Option<Certificates>,
    /// Three members write and sync much: one cluster at a time.
    _turn: MutexGuard<'static, ()>,
}

/// The CAs of the client ports and of the peer ports, with certificates of the members: `deploy/cluster/certificates.sh`.
pub struct Certificates {
    clients: PathBuf,
    peers: PathBuf,
}

/// Returns the program; without one, says that the test is skipped.
pub fn program() -> Option<PathBuf> {
    let program = std::env::var_os("NDXP_ETCD").map(PathBuf::from);
    if program.is_none() {
        println!("skipped: NDXP_ETCD does not name an etcd (simulator/cluster/etcd.sh)");
    }
    program
}

impl Certificates {
    fn make(folder: &Path) -> Self {
        let made = Certificates { clients: folder.join("clients"), peers: folder.join("peers") };
        certificate(&made.clients, &["ca"]);
        certificate(&made.peers, &["ca"]);
        for at in 0..MEMBERS {
            certificate(&made.clients, &["server", &format!("m{at}"), "127.0.0.1", "localhost"]);
            certificate(&made.peers, &["peer", &format!("m{at}"), "127.0.0.1"]);
        }
        certificate(&made.clients, &["user", "gateway"]);
        made
    }

    fn options(&self, command: &mut Command, at: usize) {
        for (prefix, folder) in [("--", &self.clients), ("--peer-", &self.peers)] {
            let file = |name: String| folder.join(name);
            command.arg(format!("{prefix}cert-file")).arg(file(format!("m{at}.pem")));
            command.arg(format!("{prefix}key-file")).arg(file(format!("m{at}.key")));
            command.arg(format!("{prefix}trusted-ca-file")).arg(file("ca.pem".into()));
            command.arg(format!("{prefix}client-cert-auth"));
        }
        command.args(["--tls-min-version=TLS1.3", "--enable-grpc-gateway=false"]);
    }
}

/// Runs `deploy/cluster/certificates.sh` in a folder.
pub fn certificate(folder: &Path, arguments: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/cluster/certificates.sh");
    let made = Command::new(script).arg(folder).args(arguments).output().unwrap();
    assert!(made.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&made.stderr));
}

impl EtcdCluster {
    /// Starts the members without TLS, and begins a log in them; `None` without the program.
    pub fn start() -> Option<Self> {
        Self::start_with(false)
    }

    /// Starts the members with TLS, client certificates required, and begins a log in them; `None` without the program.
    pub fn start_secured() -> Option<Self> {
        Self::start_with(true)
    }

    /// Starts the members without TLS, in which no log is yet; `None` without the program.
    pub fn empty() -> Option<Self> {
        Self::spawn_all(false)
    }

    fn start_with(tls: bool) -> Option<Self> {
        let cluster = Self::spawn_all(tls)?;
        cluster.begin_log();
        Some(cluster)
    }

    fn spawn_all(tls: bool) -> Option<Self> {
        static TURN: Mutex<()> = Mutex::new(());
        let program = program()?;
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let listeners: Vec<_> = (0..2 * MEMBERS).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = listeners.iter().map(|one| one.local_addr().unwrap().port()).collect();
        let ports = ports.chunks(2).map(|pair| (pair[0], pair[1])).collect();
        drop(listeners);
        let folder = tempfile::tempdir().unwrap();
        let certificates = tls.then(|| Certificates::make(&folder.path().join("pki")));
        let mut cluster = EtcdCluster { program, folder, ports, running: Vec::new(), certificates, _turn: turn };
        cluster.running = (0..MEMBERS).map(|at| Some(cluster.spawn(at))).collect();
        Some(cluster)
    }

    fn spawn(&self, at: usize) -> Child {
        let (client, peer) = self.ports[at];
        let all = self.ports.iter().enumerate().map(|(at, (_, peer))| format!("m{at}={}", self.url(*peer)));
        let mut command = Command::new(&self.program);
        command.args(["--name", &format!("m{at}"), "--data-dir"]).arg(self.folder.path().join(format!("m{at}")));
        command.args(["--listen-client-urls", &self.url(client), "--advertise-client-urls", &self.url(client)]);
        command.args(["--listen-peer-urls", &self.url(peer), "--initial-advertise-peer-urls", &self.url(peer)]);
        command.args(["--initial-cluster", &all.collect::<Vec<_>>().join(",")]);
        command.args(["--initial-cluster-token", "ndxp-test", "--snapshot-count=5000", "--pre-vote=true"]);
        command.args(["--log-level=error"]).env("GOGC", "50");
        if let Some(certificates) = &self.certificates {
            certificates.options(&mut command, at);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn url(&self, port: u16) -> String {
        format!("{}://127.0.0.1:{port}", if self.certificates.is_some() { "https" } else { "http" })
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

    /// The members, from this one on; with TLS as the user `gateway`.
    pub fn access(&self, first: usize) -> EtcdAccess {
        self.access_as(first, self.certificates.as_ref().map(|made| (&*made.clients, "gateway")))
    }

    /// The members, from this one on, with a certificate of this folder; `None`: without any certificate.
    pub fn access_as(&self, first: usize, own: Option<(&Path, &str)>) -> EtcdAccess {
        let urls: Vec<_> = (0..MEMBERS).map(|at| self.url(self.ports[(first + at) % MEMBERS].0)).collect();
        let own = own.map(|(folder, name)| [folder.join(format!("{name}.pem")), folder.join(format!("{name}.key"))]);
        let tls = self.certificates.as_ref().map(|made| {
            let own = own.as_ref().map(|[certificate, key]| (&**certificate, &**key));
            client_config(&made.clients.join("ca.pem"), own, &[b"h2"]).unwrap()
        });
        EtcdAccess::new(&urls, tls).unwrap()
    }

    /// A folder for certificates of the CA of the client ports.
    pub fn clients(&self) -> &Path {
        &self.certificates.as_ref().expect("with TLS").clients
    }

    /// The URLs of the client ports.
    pub fn client_urls(&self) -> Vec<String> {
        self.ports.iter().map(|(client, _)| self.url(*client)).collect()
    }

    /// The URLs of the peer ports.
    pub fn peer_urls(&self) -> Vec<String> {
        self.ports.iter().map(|(_, peer)| self.url(*peer)).collect()
    }

    fn begin_log(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let access = self.access(0);
            let members = EtcdMembers::<EtcdChannel, _>::new(access.channels(), RuntimeTimers::default(), None);
            let began = Instant::now();
            while commit::begin_log(&members, [7; 16]).await.is_err() || guard::confirmed(&members).await.is_err() {
                assert!(began.elapsed() < LIMIT, "etcd does not start: {:?}", access.faults());
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
