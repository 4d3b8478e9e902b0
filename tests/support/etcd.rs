//! Three members of a real etcd on loopback. `NDXP_ETCD` names the program; `simulator/cluster/etcd.sh` puts one into
//! `target/etcd` and prints its path.
#![allow(dead_code, reason = "each suite uses its own part")]

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
    /// Of each member: client port, peer port, and that of health and metrics.
    ports: Vec<[u16; 3]>,
    /// Of each member: the client port and the peer port by which other data centres reach it.
    far: Vec<[u16; 2]>,
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
        for user in ["gateway", "root"] {
            certificate(&made.clients, &["user", user]);
        }
        made
    }
}

/// A file of what operators install (`deploy/cluster/`).
fn deployed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/cluster").join(name)
}

/// Runs `deploy/cluster/certificates.sh` in a folder.
pub fn certificate(folder: &Path, arguments: &[&str]) {
    let script = deployed("certificates.sh");
    let made = Command::new(script).arg(folder).args(arguments).output().unwrap();
    assert!(made.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&made.stderr));
}

impl EtcdCluster {
    /// Starts the members without TLS, and begins a log in them; `None` without the program.
    pub fn start() -> Option<Self> {
        Self::start_with(false)
    }

    /// Starts the members as operators do: with `deploy/cluster/etcd.yml`, TLS, client certificates, and the rights that
    /// `deploy/cluster/roles.sh` grants. Begins a log in them as a gateway; `None` without the program.
    pub fn start_secured() -> Option<Self> {
        Self::start_with(true)
    }

    /// The same, each in a data centre of its own: the others reach its ports through what `far` returns for them.
    pub fn start_far(far: impl Fn(u16) -> u16) -> Option<Self> {
        let cluster = Self::spawn_all(true, far)?;
        cluster.begin_log();
        Some(cluster)
    }

    /// Starts the members without TLS, in which no log is yet; `None` without the program.
    pub fn empty() -> Option<Self> {
        Self::spawn_all(false, |port| port)
    }

    fn start_with(tls: bool) -> Option<Self> {
        let cluster = Self::spawn_all(tls, |port| port)?;
        cluster.begin_log();
        Some(cluster)
    }

    fn spawn_all(tls: bool, far: impl Fn(u16) -> u16) -> Option<Self> {
        static TURN: Mutex<()> = Mutex::new(());
        let program = program()?;
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let listeners: Vec<_> = (0..3 * MEMBERS).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = listeners.iter().map(|one| one.local_addr().unwrap().port()).collect();
        let ports: Vec<_> = ports.chunks(3).map(|three| [three[0], three[1], three[2]]).collect();
        drop(listeners);
        let far = ports.iter().map(|[client, peer, _]| [far(*client), far(*peer)]).collect();
        let folder = tempfile::tempdir().unwrap();
        let certificates = tls.then(|| Certificates::make(&folder.path().join("pki")));
        let mut cluster = EtcdCluster { program, folder, ports, far, running: Vec::new(), certificates, _turn: turn };
        cluster.running = (0..MEMBERS).map(|at| Some(cluster.spawn(at, "new"))).collect();
        if tls {
            cluster.grant_rights();
        }
        Some(cluster)
    }

    fn spawn(&self, at: usize, state: &str) -> Child {
        let [client, peer, health] = self.ports[at];
        let all = self.far.iter().enumerate().map(|(at, [_, peer])| format!("m{at}={}", self.url(*peer)));
        let settings = [
            ("name", format!("m{at}")),
            ("data-dir", self.data(at).display().to_string()),
            ("listen-client-urls", self.url(client)),
            ("advertise-client-urls", self.url(client)),
            ("listen-peer-urls", self.url(peer)),
            ("initial-advertise-peer-urls", self.url(self.far[at][1])),
            ("initial-cluster", all.collect::<Vec<_>>().join(",")),
            ("initial-cluster-state", state.to_owned()),
        ];
        let mut command = Command::new(&self.program);
        command.env("GOGC", "50").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match &self.certificates {
            Some(_) => {
                let health = ("listen-client-http-urls", format!("http://127.0.0.1:{health}"));
                command.arg("--config-file").arg(self.config(at, &[&settings[..], &[health]].concat()));
            }
            None => {
                command.args(settings.map(|(name, value)| format!("--{name}={value}")));
                command.args(["--initial-cluster-token=ndxp-test", "--snapshot-count=5000", "--log-level=error"]);
            }
        }
        command.spawn().unwrap()
    }

    /// The member's file: that of operators, with these settings in place of its own.
    fn config(&self, at: usize, settings: &[(&str, String)]) -> PathBuf {
        let text = std::fs::read_to_string(deployed("etcd.yml")).unwrap();
        let line = |line: &str| match settings.iter().find(|(name, _)| line.starts_with(&format!("{name}:"))) {
            Some((name, value)) => format!("{name}: {value}"),
            None => line.replace("/etc/etcd", &self.pki().display().to_string()).replace("member.", &format!("m{at}.")),
        };
        let lines = text.lines().map(line);
        let file = self.folder.path().join(format!("m{at}.yml"));
        std::fs::write(&file, lines.collect::<Vec<_>>().join("\n")).unwrap();
        file
    }

    fn data(&self, at: usize) -> PathBuf {
        self.folder.path().join(format!("m{at}"))
    }

    fn pki(&self) -> PathBuf {
        self.folder.path().join("pki")
    }

    fn grant_rights(&self) {
        let began = Instant::now();
        loop {
            let mut script = Command::new(deployed("roles.sh"));
            script.arg(self.client_urls().join(",")).arg(self.clients()).env("ETCDCTL", self.etcdctl());
            let done = script.output().unwrap();
            if done.status.success() {
                return;
            }
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            assert!(began.elapsed() < LIMIT, "rights are not granted: {said}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// etcdctl, which `simulator/cluster/etcd.sh` puts beside etcd.
    fn etcdctl(&self) -> PathBuf {
        self.program.with_file_name("etcdctl")
    }

    /// Runs etcdctl as a user at a member that runs; returns what it has printed, or its error.
    pub fn control(&self, user: &str, arguments: &[&str]) -> Result<String, String> {
        let at = self.running.iter().position(Option::is_some).expect("one runs");
        let mut command = Command::new(self.etcdctl());
        command.args(["--endpoints", &self.url(self.ports[at][0]), "--cacert"]).arg(self.clients().join("ca.pem"));
        command.arg("--cert").arg(self.clients().join(format!("{user}.pem")));
        command.arg("--key").arg(self.clients().join(format!("{user}.key"))).args(arguments);
        let done = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
    }

    /// As the administrator, once the members have been connected to each other for five seconds: etcd refuses it before.
    fn eventually(&self, arguments: &[&str]) {
        let began = Instant::now();
        while let Err(said) = self.control("root", arguments) {
            assert!(began.elapsed() < LIMIT, "{arguments:?}: {said}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Replaces a member that was lost with its disk, as `docs/cluster.md` says: removed, added, started with an empty folder.
    pub fn replace(&mut self, at: usize) {
        assert!(self.running[at].is_none());
        let (name, peer) = (format!("m{at}"), self.url(self.ports[at][1]));
        let members = self.control("root", &["member", "list"]).unwrap();
        let line = members.lines().find(|line| line.contains(&peer)).unwrap();
        self.eventually(&["member", "remove", line.split(',').next().unwrap()]);
        std::fs::remove_dir_all(self.data(at)).unwrap();
        self.eventually(&["member", "add", &name, &format!("--peer-urls={peer}")]);
        self.running[at] = Some(self.spawn(at, "existing"));
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
        self.running[at] = Some(self.spawn(at, "new"));
    }

    /// The members, from this one on; with TLS as the user `gateway`.
    pub fn access(&self, first: usize) -> EtcdAccess {
        self.access_as(first, self.certificates.as_ref().map(|made| (&*made.clients, "gateway")))
    }

    /// The members, from this one on, with a certificate of this folder; `None`: without any certificate.
    pub fn access_as(&self, first: usize, own: Option<(&Path, &str)>) -> EtcdAccess {
        let far = (1..MEMBERS).map(|next| self.far[(first + next) % MEMBERS][0]);
        let urls: Vec<_> = std::iter::once(self.ports[first][0]).chain(far).map(|port| self.url(port)).collect();
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
        self.ports.iter().map(|[client, ..]| self.url(*client)).collect()
    }

    /// The URLs of the peer ports.
    pub fn peer_urls(&self) -> Vec<String> {
        self.ports.iter().map(|[_, peer, _]| self.url(*peer)).collect()
    }

    /// The address of a member's health and metrics: a secured one has them without TLS, on this machine alone.
    pub fn operator_http(&self, at: usize) -> String {
        format!("127.0.0.1:{}", self.ports[at][2])
    }

    /// The processes of the members that run.
    pub fn processes(&self) -> Vec<u32> {
        self.running.iter().flatten().map(Child::id).collect()
    }

    /// Bytes of the largest member's database on its disk.
    pub fn database_bytes(&self) -> u64 {
        let size = |at| std::fs::metadata(self.data(at).join("member/snap/db")).map_or(0, |file| file.len());
        (0..MEMBERS).map(size).max().unwrap_or_default()
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
