//! Three gateways of one province over a real etcd, with the sandbox as their sources.

use crate::etcd::{EtcdCluster, MEMBERS};
use crate::support::{Actor, add_client, add_grant, approved, edit, files, issue, lay, make_key, show, until};
use ndxp_gateway::caller::GatewayClient;
use ndxp_gateway::cluster::registry::import::{begin_registry, import_rows};
use ndxp_gateway::config::Config;
use ndxp_gateway::pki::{CertificateRole, DEFAULT_DAYS, client_uri};
use ndxp_gateway::registry::sqlite::SqliteStore;
use ndxp_gateway::sandbox::folder::DevFolder;
use ndxp_gateway::sandbox::{Sandbox, SandboxConfig};
use ndxp_gateway::server::{EtcdSecrets, Gateway, connect, registry_path, share_keys};
use serde_json::Value;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// How old the view of the registry may be, and when a batch that etcd does not take is refused, where etcd is always there: a busy
/// machine stands still for a second or two.
const MAX_VIEW_AGE: Duration = Duration::from_secs(30);
const REFUSE_AFTER: Duration = Duration::from_secs(10);

/// Calls a day of `kiosk`.
pub const KIOSK_QUOTA: u64 = 40;
pub const ADMINISTRATOR: &str = "first-administrator";
pub const APPROVER: &str = "first-approver";

pub struct Province {
    pub etcd: EtcdCluster,
    pub folder: DevFolder,
    pub gateways: Vec<Option<Gateway>>,
    https: Vec<u16>,
    pub sandbox: Sandbox,
    max_view_age: Duration,
    refuse_after: Duration,
    _dir: tempfile::TempDir,
}

impl Province {
    /// With a client `shop` that has all scopes, and a client `kiosk` that may read enterprises, [`KIOSK_QUOTA`] times a day.
    pub fn start() -> Option<Self> {
        Self::start_with(MAX_VIEW_AGE, REFUSE_AFTER)
    }

    /// The same, whose gateways refuse after other times without etcd.
    pub fn start_with(max_view_age: Duration, refuse_after: Duration) -> Option<Self> {
        let etcd = EtcdCluster::start()?;
        let (dir, folder) = lay(&|_| {});
        let sandbox = Sandbox::start(SandboxConfig::load(&folder.sandbox_config()).map_err(show).unwrap()).unwrap();
        std::fs::write(folder.path.join("secrets/keys"), "0123456789abcdef".repeat(4)).unwrap();
        let listeners: Vec<_> = (0..MEMBERS).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let https = listeners.iter().map(|one| one.local_addr().unwrap().port()).collect();
        drop(listeners);
        let gateways = (0..MEMBERS).map(|_| None).collect();
        let mut province = Province { https, etcd, folder, gateways, sandbox, max_view_age, refuse_after, _dir: dir };
        (0..MEMBERS).for_each(|at| province.configure(at));
        let first = province.config(0);
        let seed = Config { data: province.folder.path.join("data"), ..first };
        province.fill(&seed);
        province.begin(&seed);
        // At once: nobody has sealed and given up what another one needs.
        let configs: Vec<Config> = (0..MEMBERS).map(|at| province.config(at)).collect();
        let starting = configs.into_iter().map(|config| std::thread::spawn(move || Gateway::start(config).unwrap()));
        let starting: Vec<_> = starting.collect();
        province.gateways = starting.into_iter().map(|one| Some(one.join().unwrap())).collect();
        Some(province)
    }

    fn configure(&self, at: usize) {
        let tiles = (0..MEMBERS)
            .filter(|other| *other != at)
            .map(|other| format!("\"https://127.0.0.1:{}\"", self.https[other]));
        let tiles = tiles.collect::<Vec<_>>().join(", ");
        let site = client_uri("gateway");
        let file = self.folder.path.join(format!("gateway{at}.toml"));
        std::fs::copy(self.folder.gateway_config(), &file).unwrap();
        let mut urls: Vec<String> = self.etcd.client_urls().iter().map(|url| format!("\"{url}\"")).collect();
        urls.rotate_left(at);
        edit(&file, |text| {
            let text = text.replace("qn-dc1", &format!("qn-dc{}", at + 1));
            let text = text.replace("data = \"data\"", &format!("data = \"data{at}\""));
            let lines = text.lines().map(|line| match line.split_once(" = \"127.0.0.1:") {
                Some(("https", _)) => format!("https = \"127.0.0.1:{}\"", self.https[at]),
                Some((name, _)) => format!("{name} = \"127.0.0.1:0\""),
                None if line == "[log]" => format!("[log]\nsite_names = [\"{site}\"]"),
                None => line.to_owned(),
            });
            let text = lines.collect::<Vec<_>>().join("\n");
            format!(
                "{text}\n[keys]\nencryption_secret = {{ file = \"secrets/keys\" }}\n[cluster]\netcd = [{}]\n\
                 tiles = [{tiles}]\ntiles_certificate = \"pki/to-sources.pem\"\ntiles_key = \"pki/to-sources.key\"\n\
                 max_view_age_s = {}\nrefuse_after_ms = {}\nspool = [\"budgetunit/GetUnit\"]\n",
                urls.join(", "),
                self.max_view_age.as_secs(),
                self.refuse_after.as_millis()
            )
        });
    }

    pub fn config(&self, at: usize) -> Config {
        Config::load(&self.folder.path.join(format!("gateway{at}.toml"))).map_err(show).unwrap()
    }

    fn fill(&self, seed: &Config) {
        let store = SqliteStore::open_with(&registry_path(&seed.data), &seed.vault).unwrap();
        make_key(&store, seed);
        let contracts = seed.catalogue().map_err(show).unwrap().contracts;
        ["shop", "kiosk"].iter().for_each(|id| add_client(&store, &self.folder, id));
        approved(&store, &contracts, "shop", &["*"]);
        add_grant(&store, &contracts, "kiosk", &["business:read"], |grant| grant.daily_quota = KIOSK_QUOTA);
        for person in [ADMINISTRATOR, APPROVER] {
            self.folder.pki().issue(person, &CertificateRole::Staff(person.into()), DEFAULT_DAYS).unwrap();
        }
    }

    /// Puts registry and keys of the seed's folder into etcd.
    fn begin(&self, seed: &Config) {
        let store = SqliteStore::open_with(&registry_path(&seed.data), &seed.vault).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let members = connect(seed.cluster.as_ref().unwrap()).unwrap();
            let rows = store.shared_rows(None, 1_000).unwrap();
            import_rows(&members, &rows, true).await.unwrap();
            begin_registry(&members, 1, 0).await.unwrap();
            let shared = EtcdSecrets::new(Arc::new(members), seed.vault.clone(), runtime.handle().clone());
            let config = seed.clone();
            tokio::task::spawn_blocking(move || share_keys(&config, &shared).unwrap()).await.unwrap();
        });
    }

    pub fn open(&mut self, at: usize) {
        self.gateways[at] = Some(Gateway::start(self.config(at)).unwrap());
    }

    pub fn gateway(&self, at: usize) -> &Gateway {
        self.gateways[at].as_ref().unwrap()
    }

    pub fn ops(&self, at: usize) -> String {
        self.gateway(at).operator_http.unwrap().to_string()
    }

    pub fn data(&self, at: usize) -> PathBuf {
        self.folder.path.join(format!("data{at}"))
    }

    /// A client's connection to a gateway, with a token of the seed's registry.
    pub fn actor(&self, at: usize, client: &str) -> Actor {
        let first = self.config(0);
        let seed = Config { data: self.folder.path.join("data"), ..first };
        let store = SqliteStore::open_with(&registry_path(&seed.data), &seed.vault).unwrap();
        let token = issue(&store, &seed, &self.folder, client, Duration::from_secs(3_600), Duration::ZERO);
        let base = format!("https://{}", self.gateway(at).address);
        let contracts = seed.catalogue().map_err(show).unwrap().contracts;
        Actor { caller: GatewayClient::new(&base, &files(&self.folder, client)).unwrap(), token, contracts }
    }

    /// A command of a person, through a gateway.
    pub fn by(&self, person: &str, at: usize, arguments: &[&str]) -> Result<Value, String> {
        let base = format!("https://{}", self.gateway(at).address);
        let certificate = format!("pki/{person}.pem");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ndxp-gateway"));
        command.args(["--output", "json"]).args(arguments).current_dir(&self.folder.path).env("NDXP_LOG", "error");
        command.args(["--remote", &base, "--ca", "pki/ca.pem", "--certificate", &certificate]);
        let output = command.env("XDG_CONFIG_HOME", self.folder.path.join("home")).output().unwrap();
        match output.status.success() {
            true => Ok(serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Waits until every site stores what is durable now.
    pub fn settle(&self) -> u64 {
        let running = || self.gateways.iter().flatten();
        running().for_each(|gateway| assert!(gateway.log().seal_now().is_ok()));
        let sizes = || running().map(|gateway| *gateway.log().watch_sealed().borrow()).collect::<Vec<_>>();
        until("the sites store the same", || sizes().windows(2).all(|pair| pair[0] == pair[1]));
        sizes()[0]
    }
}
