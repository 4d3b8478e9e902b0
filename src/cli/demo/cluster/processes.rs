//! The processes of the tour: three members of etcd and three gateways, each of which may be killed and started again.

use crate::cli::CliError;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Members, and gateways.
pub const SITES: usize = 3;
/// How long a process may take to listen.
const STARTED_WITHIN: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

/// A process that may end and begin again.
pub struct Process {
    /// Its name in the tour.
    pub name: String,
    command: Box<dyn Fn() -> Command>,
    /// It has started when this accepts connections.
    listens: SocketAddr,
    output: PathBuf,
    running: Option<Child>,
}

impl Process {
    fn new(name: String, listens: u16, folder: &Path, command: impl Fn() -> Command + 'static) -> Self {
        let output = folder.join(format!("{name}.log"));
        let listens = SocketAddr::from(([127, 0, 0, 1], listens));
        Process { name, command: Box::new(command), listens, output, running: None }
    }

    /// Starts it; does not wait until it has started.
    pub fn spawn(&mut self) -> Result<(), CliError> {
        let output = File::options().create(true).append(true).open(&self.output)?;
        let mut command = (self.command)();
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let failed = |error: std::io::Error| CliError::Failed(format!("{} cannot be started: {error}", self.name));
        self.running = Some(command.spawn().map_err(failed)?);
        Ok(())
    }

    /// Waits until it accepts connections.
    pub fn wait_until_started(&mut self) -> Result<(), CliError> {
        let began = Instant::now();
        while std::net::TcpStream::connect_timeout(&self.listens, PAUSE).is_err() {
            let ended = self.running.as_mut().map(Child::try_wait).transpose()?.flatten();
            if ended.is_some() || began.elapsed() > STARTED_WITHIN {
                let last = std::fs::read_to_string(&self.output).unwrap_or_default();
                let last: Vec<&str> = last.lines().rev().take(5).collect();
                let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
                return Err(CliError::Failed(format!("{} does not start:\n{last}", self.name)));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Kills it as a power cut would (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ports that nobody listens at now.
pub fn free_ports(count: usize) -> std::io::Result<Vec<u16>> {
    let listeners: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    listeners.iter().map(|one| Ok(one.local_addr()?.port())).collect()
}

/// Where etcd is found if it is not named: in `PATH`, and where CI unpacks it.
pub fn find_etcd(named: Option<&Path>) -> Result<PathBuf, CliError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).map(|folder| folder.join("etcd")).collect();
    places.push(PathBuf::from("target/etcd/usr/bin/etcd"));
    let found = match named {
        Some(named) => Some(named.to_owned()).filter(|named| named.is_file()),
        None => places.into_iter().find(|place| place.is_file()),
    };
    found.ok_or_else(|| {
        CliError::Failed(
            "there is no etcd here: install Debian 13's package (apt-get install etcd-server), run simulator/cluster/etcd.sh in the \
             sources, or name the program: --etcd FILE"
                .into(),
        )
    })
}

/// The members: their processes, and their URLs.
pub fn members(program: &Path, folder: &Path) -> Result<(Vec<Process>, Vec<String>), CliError> {
    let ports = free_ports(2 * SITES)?;
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let (client, peer) = ports.split_at(SITES);
    let all = peer.iter().zip(1..).map(|(peer, at)| format!("etcd{at}={}", url(*peer)));
    let all = all.collect::<Vec<_>>().join(",");
    let process = |at: usize| {
        let (name, program, all) = (format!("etcd{}", at + 1), program.to_owned(), all.clone());
        let (client, peer, data) = (url(client[at]), url(peer[at]), folder.join(&name));
        let own = name.clone();
        let command = move || {
            let mut command = Command::new(&program);
            command.args(["--name", &own, "--data-dir"]).arg(&data);
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            command.args(["--initial-cluster", &all, "--initial-cluster-token", "ndxp-demo"]);
            // Rule 21 of the cluster's rules: what raft keeps in memory, and how members are compared.
            command.args(["--snapshot-count=5000", "--experimental-snapshot-catchup-entries=1000", "--pre-vote=true"]);
            command.args([
                "--quota-backend-bytes=4294967296",
                "--experimental-corrupt-check-time=1m",
                "--log-level=error",
            ]);
            command.env("GOGC", "50");
            command
        };
        Process::new(name, ports[at], folder, command)
    };
    Ok(((0..SITES).map(process).collect(), client.iter().map(|port| url(*port)).collect()))
}

/// A gateway's process, by its configuration.
pub fn gateway(name: &str, grpc: u16, config: &Path, folder: &Path) -> Result<Process, CliError> {
    let (program, config) = (std::env::current_exe()?, config.to_owned());
    let command = move || {
        let mut command = Command::new(&program);
        command.arg("serve").arg("--config").arg(&config).env("NDXP_LOG", "info");
        command
    };
    Ok(Process::new(name.to_owned(), grpc, folder, command))
}
