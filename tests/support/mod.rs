//! A stage for tests: its own development folder, the sandbox, a gateway, and provincial systems.
#![allow(dead_code, reason = "each suite uses its own part")]

pub mod ca;
pub mod grpc_source;
mod log;
mod people;
mod secured;
pub mod tokens;
pub mod witness;

use bytes::Bytes;
use ndxp_gateway::caller::{CallerError, CallerFiles, CompleteResponse, GatewayClient, StreamingResponse};
use ndxp_gateway::config::Config;
use ndxp_gateway::contract::ContractSet;
use ndxp_gateway::identity::{Thumbprint, tls};
use ndxp_gateway::issuer::{IssueRequest, Issuer, KeyAlgorithm};
use ndxp_gateway::pki::{CertificateRole, DEFAULT_DAYS, client_uri};
use ndxp_gateway::registry::sqlite::SqliteStore;
use ndxp_gateway::registry::{Client, Grant, Store, now};
use ndxp_gateway::sandbox::folder::DevFolder;
use ndxp_gateway::sandbox::samples::OFFICIAL;
use ndxp_gateway::sandbox::{Sandbox, SandboxConfig};
use ndxp_gateway::server::{Gateway, registry_path};
use prost::Message;
use prost_reflect::DynamicMessage;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tonic::Code;

#[allow(unused_imports, reason = "each suite uses its own part")]
pub use log::{entries, exchanges};
#[allow(unused_imports, reason = "each suite uses its own part")]
pub use people::{add_auditor, approved, approved_grant};
#[allow(unused_imports, reason = "each suite uses its own part")]
pub use secured::{sandbox_acceptor, sandbox_config, secured};

pub const PURPOSE: &str = "1.004222";
pub const VERIFY: &str = "/ndxp.population.v1.PopulationService/VerifyCitizen";
pub const CITIZEN: &str = "/ndxp.population.v1.PopulationService/GetCitizen";
pub const ENTERPRISE: &str = "/ndxp.business.v1.BusinessService/GetEnterprise";
pub const UNIT: &str = "/ndxp.budgetunit.v1.BudgetUnitService/GetUnit";
pub const PROCEDURE: &str = "/ndxp.publicservice.v1.PublicServiceService/GetProcedure";
pub const PROGRESS: &str = "/ndxp.publicservice.v1.PublicServiceService/UpdateProgress";
pub const PARCEL: &str = "/ndxp.land.v1.LandService/GetParcel";
pub const CATALOGUE: &str = "/ndxp.catalogue.v1.CatalogueService/StreamCatalogue";
pub const OFFICIAL_OF: &str = "/ndxp.officials.v1.OfficialsService/GetOfficial";
pub const HOUSEHOLD: &str = "/ndxp.insurance.v1.InsuranceService/GetHousehold";

pub struct Stage {
    pub folder: DevFolder,
    pub sandbox: Sandbox,
    pub gateway: Option<Gateway>,
    pub contracts: ContractSet,
    pub store: SqliteStore,
    _dir: tempfile::TempDir,
}

/// A development folder with its own ports, changed by `prepare` before anything starts.
pub fn lay(prepare: &dyn Fn(&DevFolder)) -> (tempfile::TempDir, DevFolder) {
    let dir = tempfile::tempdir().unwrap();
    let folder = DevFolder::with_free_ports(&dir.path().join("dev")).unwrap();
    prepare(&folder);
    (dir, folder)
}

/// The prerequisites of a gateway: a folder, a running sandbox, and a registry with a signing key.
struct Ready {
    dir: tempfile::TempDir,
    folder: DevFolder,
    sandbox: Sandbox,
    config: Config,
    contracts: ContractSet,
    store: SqliteStore,
}

impl Ready {
    fn to_start(prepare: &dyn Fn(&DevFolder)) -> Self {
        let (dir, folder) = lay(prepare);
        let sandbox = Sandbox::start(SandboxConfig::load(&folder.sandbox_config()).map_err(show).unwrap()).unwrap();
        let config = Config::load(&folder.gateway_config()).map_err(show).unwrap();
        let contracts = config.catalogue().map_err(show).unwrap().contracts;
        let store = SqliteStore::open(&registry_path(&config.data)).unwrap();
        make_key(&store, &config);
        Ready { dir, folder, sandbox, config, contracts, store }
    }
}

/// Changes a file of the folder.
pub fn edit(file: &Path, change: impl FnOnce(String) -> String) {
    let text = std::fs::read_to_string(file).unwrap();
    std::fs::write(file, change(text)).unwrap();
}

impl Stage {
    pub fn start() -> Self {
        Self::prepared(&|_| {})
    }

    pub fn prepared(prepare: &dyn Fn(&DevFolder)) -> Self {
        let Ready { dir, folder, sandbox, config, contracts, store } = Ready::to_start(prepare);
        let gateway = Some(Gateway::start(config).unwrap());
        Stage { folder, sandbox, gateway, contracts, store, _dir: dir }
    }

    /// With these keys in the guards of sources.
    pub fn guarded(sources: &[(&str, &str)]) -> Self {
        Self::prepared(&|folder| {
            for (source, keys) in sources {
                edit(&folder.path.join(format!("sources/{source}.toml")), |text| format!("{text}\n[guard]\n{keys}\n"));
            }
        })
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path.join("data")
    }

    /// Files that the entries of sources and hubs refer to.
    pub fn gateway_files(&self) -> Vec<PathBuf> {
        Config::load(&self.folder.gateway_config()).map_err(show).unwrap().catalogue().map_err(show).unwrap().files
    }

    pub fn base(&self) -> String {
        format!("https://{}", self.gateway.as_ref().unwrap().address)
    }

    pub fn ops(&self) -> String {
        self.gateway.as_ref().unwrap().operator_http.unwrap().to_string()
    }

    /// A client with its certificate.
    pub fn client(&self, id: &str) {
        add_client(&self.store, &self.folder, id);
    }

    /// A grant; every scope if `scopes` is `["*"]`.
    pub fn grant(&self, client: &str, scopes: &[&str], change: impl FnOnce(&mut Grant)) -> String {
        add_grant(&self.store, &self.contracts, client, scopes, change)
    }

    /// A client with all rights, ready to call.
    pub fn system(&self, id: &str) -> Actor {
        self.client(id);
        self.grant(id, &["*"], |_| {});
        self.actor(id)
    }

    pub fn token(&self, id: &str, lifetime: Duration, starts_in: Duration) -> String {
        let config = Config::load(&self.folder.gateway_config()).map_err(show).unwrap();
        issue(&self.store, &config, &self.folder, id, lifetime, starts_in)
    }

    /// A client's connection with a new token; earlier changes are in force when this returns.
    pub fn actor(&self, id: &str) -> Actor {
        let token = self.token(id, Duration::from_secs(3_600), Duration::ZERO);
        let revision = self.store.revision().unwrap();
        let follows = || self.gateway.as_ref().is_none_or(|gateway| gateway.registry_revision() >= revision);
        until("the gateway follows the registry", follows);
        self.with_token(id, &token)
    }

    pub fn with_token(&self, id: &str, token: &str) -> Actor {
        Actor {
            caller: GatewayClient::new(&self.base(), &files(&self.folder, id)).unwrap(),
            token: token.to_owned(),
            contracts: self.contracts.clone(),
        }
    }

    /// Waits until the registry's changes are in force in the gateway and in its log.
    pub fn settle(&self) {
        let Some(gateway) = &self.gateway else { return };
        let changed = self.store.revision().unwrap();
        until("the registry is followed", || gateway.registry_revision() >= changed);
        until("acts are in the log", || self.store.admin_events().unwrap().is_empty());
    }
}

pub fn show(faults: Vec<ndxp_gateway::config::ConfigFault>) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

pub fn files(folder: &DevFolder, id: &str) -> CallerFiles {
    let pki = folder.path.join("pki");
    CallerFiles {
        ca: pki.join("ca.pem"),
        certificate: pki.join(format!("{id}.pem")),
        key: pki.join(format!("{id}.key")),
    }
}

fn issuer<'s>(store: &'s SqliteStore, config: &Config) -> Issuer<'s> {
    Issuer::new(store, config.issuer_settings())
}

pub fn make_key(store: &SqliteStore, config: &Config) {
    issuer(store, config).rotate(KeyAlgorithm::default()).unwrap();
}

pub fn add_client(store: &SqliteStore, folder: &DevFolder, id: &str) {
    folder.pki().issue(id, &CertificateRole::Client(id.into()), DEFAULT_DAYS).unwrap();
    store
        .add_client(&Client {
            id: id.into(),
            agency: "H49.12".into(),
            contact: "hotro@quangninh.gov.vn".into(),
            names: vec![client_uri(id)],
            created: now(),
            ..Client::default()
        })
        .unwrap();
}

pub fn add_grant(
    store: &SqliteStore,
    contracts: &ContractSet,
    client: &str,
    scopes: &[&str],
    change: impl FnOnce(&mut Grant),
) -> String {
    let mut all: Vec<String> = contracts.operations().iter().map(|operation| operation.scope.clone()).collect();
    all.sort();
    all.dedup();
    let mut grant = Grant {
        id: format!("g-{}", uuid::Uuid::now_v7().simple()),
        client: client.into(),
        scopes: if scopes == ["*"] { all } else { scopes.iter().map(|one| (*one).to_owned()).collect() },
        purposes: vec!["*".into()],
        fields: vec!["*".into()],
        rate: 100_000,
        burst: 100_000,
        daily_quota: 0,
        not_before: now() - 5,
        not_after: now() + 86_400,
        legal_basis: "test".into(),
        ..Grant::default()
    };
    change(&mut grant);
    store.add_grant(&grant).unwrap();
    grant.id
}

pub fn issue(
    store: &SqliteStore,
    config: &Config,
    folder: &DevFolder,
    id: &str,
    lifetime: Duration,
    starts_in: Duration,
) -> String {
    let chain = tls::certificates(&files(folder, id).certificate).unwrap();
    let view = store.view(id).unwrap();
    let request = IssueRequest { scopes: vec![], certificate: Thumbprint::of(&chain[0]), lifetime, starts_in };
    issuer(store, config).issue(&view, request).unwrap().0
}

#[derive(Clone)]
pub struct Actor {
    pub caller: GatewayClient,
    pub token: String,
    pub contracts: ContractSet,
}

/// A response with its messages as JSON.
pub struct Told {
    pub answered: CompleteResponse,
    pub messages: Vec<Value>,
}

impl Told {
    pub fn code(&self) -> Code {
        self.answered.status.code()
    }

    pub fn reason(&self) -> String {
        self.answered.reason()
    }

    pub fn exchange(&self) -> String {
        self.answered.text("ndxp-exchange-id").to_owned()
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code(), Code::Ok, "{:?}", self.answered.status);
        self
    }
}

impl Actor {
    /// Starts a call with the usual purpose, up to the headers of its response.
    pub async fn start(&self, path: &str, request: Value) -> StreamingResponse {
        let bearer = format!("Bearer {}", self.token);
        let metadata = [("authorization", bearer.as_str()), ("ndxp-purpose", PURPOSE)];
        self.caller.start(path, &metadata, vec![self.encode(path, &request)], None).await.unwrap()
    }

    pub fn encode(&self, path: &str, request: &Value) -> Bytes {
        let operation = self.contracts.operation(path).unwrap_or_else(|| panic!("no operation {path}"));
        DynamicMessage::deserialize(operation.request.message.clone(), request).unwrap().encode_to_vec().into()
    }

    pub fn decode(&self, path: &str, bytes: &Bytes) -> Value {
        let operation = self.contracts.operation(path).unwrap();
        let message = DynamicMessage::decode(operation.response.message.clone(), bytes.clone()).unwrap();
        serde_json::to_value(&message).unwrap()
    }

    /// A call with the usual purpose and official.
    pub async fn call(&self, path: &str, request: Value) -> Told {
        let metadata = [("ndxp-purpose", PURPOSE), ("ndxp-official", OFFICIAL)];
        self.raw(path, &metadata, vec![self.encode(path, &request)]).await.unwrap()
    }

    /// A call with other metadata; the token is added.
    pub async fn raw(&self, path: &str, metadata: &[(&str, &str)], messages: Vec<Bytes>) -> Result<Told, CallerError> {
        let bearer = format!("Bearer {}", self.token);
        let mut whole = metadata.to_vec();
        if !self.token.is_empty() {
            whole.push(("authorization", &bearer));
        }
        let answered = self.caller.call(path, &whole, messages).await?;
        let known = self.contracts.operation(path).is_some();
        let messages =
            if known { answered.messages.iter().map(|one| self.decode(path, one)).collect() } else { Vec::new() };
        Ok(Told { answered, messages })
    }
}

/// How long a fact may take to come true on a busy machine. What a promise gives less time is measured where it is tested.
pub const LIMIT: Duration = Duration::from_secs(60);
/// Within which the gateway promises much.
pub const SECOND: Duration = Duration::from_secs(1);
/// How much later than the gateway promises something may be seen: a busy machine stands still for a second or two.
pub const STALL: Duration = Duration::from_secs(3);

/// Waits until a condition holds; returns how long it took.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    began.elapsed()
}

/// [`until`] beside another future of the same task.
pub async fn comes(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Cancels a call when this holds, as soon as its source has it.
pub async fn cancelled_when<T>(at_source: impl FnMut() -> bool, call: impl Future<Output = T>) {
    tokio::select! {
        _ = call => panic!("it was answered"),
        () = comes("it is at its source", at_source) => {}
    }
}

/// A process of the gateway's binary; dropping it stops it.
pub struct Running(pub Child);

impl Running {
    /// Starts it with these variables and waits until it reports its address.
    pub fn start(folder: &DevFolder, variables: &[(&str, &str)]) -> Self {
        let mut running = Self::spawn(folder, variables);
        let line = running.first_line();
        assert!(line.starts_with("gRPC on"), "{line:?}");
        running
    }

    /// Starts it without waiting. A file that grows too large returns an error, not a signal.
    pub fn spawn(folder: &DevFolder, variables: &[(&str, &str)]) -> Self {
        let child = Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" serve --config \"$1\"", env!("CARGO_BIN_EXE_ndxp-gateway")])
            .arg(folder.gateway_config())
            .env("NDXP_LOG", "warn")
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Running(child)
    }

    /// Its first line of output; empty if it ends before.
    pub fn first_line(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        line
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Kills it.
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A line of /proc/PID/status, in kB.
pub fn memory(gateway: &Running, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.0.id())).unwrap();
    status.lines().find(|line| line.starts_with(name)).unwrap().split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A gateway as a process: folder, sandbox, a client with all rights, and its token.
pub struct Outside {
    pub folder: DevFolder,
    pub config: Config,
    pub contracts: ContractSet,
    pub token: String,
    pub sandbox: Sandbox,
    _dir: tempfile::TempDir,
}

impl Outside {
    pub fn new() -> Self {
        Self::with(&|_| {}, &|store, contracts| drop(add_grant(store, contracts, "one-stop-shop", &["*"], |_| {})))
    }

    /// With a folder that is changed before the start, and a grant approved by a second person.
    pub fn prepared(prepare: &dyn Fn(&DevFolder)) -> Self {
        Self::with(prepare, &|store, contracts| drop(people::approved(store, contracts, "one-stop-shop", &["*"])))
    }

    fn with(prepare: &dyn Fn(&DevFolder), grant: &dyn Fn(&SqliteStore, &ContractSet)) -> Self {
        let Ready { dir, folder, sandbox, config, contracts, store } = Ready::to_start(prepare);
        add_client(&store, &folder, "one-stop-shop");
        grant(&store, &contracts);
        let token = issue(&store, &config, &folder, "one-stop-shop", Duration::from_secs(3_600), Duration::ZERO);
        Outside { folder, config, contracts, token, sandbox, _dir: dir }
    }

    /// A provincial system on its own connection.
    pub fn actor(&self) -> Actor {
        let base = format!("https://{}", self.config.listen.grpc);
        let caller = GatewayClient::new(&base, &files(&self.folder, "one-stop-shop")).unwrap();
        Actor { caller, token: self.token.clone(), contracts: self.contracts.clone() }
    }
}

/// A page of the port with health and metrics.
pub fn ops_text(stage: &Stage, path: &str) -> String {
    ops_page(&stage.ops(), path)
}

/// The same at an address.
pub fn ops_page(address: &str, path: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address.trim_start_matches("http://")).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// Runs `audit` on the folder of a stage: success and output.
pub fn audit_cli(stage: &Stage, arguments: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ndxp-gateway"))
        .args(["--output", "json", "audit", "--data", stage.data().to_str().unwrap()])
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

/// A call with its own deadline.
pub async fn hasty(actor: &Actor, path: &str, request: &Value, timeout: &str) -> Told {
    let message = actor.encode(path, request);
    let metadata = [("ndxp-purpose", PURPOSE), ("ndxp-official", OFFICIAL), ("grpc-timeout", timeout)];
    actor.raw(path, &metadata, vec![message]).await.unwrap()
}

/// The state of a source's breaker, for all clients or for a single one: 0 closed, 1 half open, 2 open.
pub fn breaker(stage: &Stage, source: &str) -> u8 {
    if breaker_clients(stage, source) > 0 { 2 } else { breaker_for_all(stage, source) }
}

/// The state of a source's breaker for all clients.
pub fn breaker_for_all(stage: &Stage, source: &str) -> u8 {
    source_gauge(stage, "breaker_state", source)
}

/// Breakers of a source that are open for a single client.
pub fn breaker_clients(stage: &Stage, source: &str) -> u8 {
    source_gauge(stage, "breaker_clients", source)
}

fn source_gauge(stage: &Stage, name: &str, source: &str) -> u8 {
    let text = ops_text(stage, "/metrics");
    let name = format!("ndxp_{name}{{source=\"{source}\"}} ");
    let line = text.lines().find(|line| line.starts_with(&name)).unwrap();
    line[name.len()..].parse().unwrap()
}
