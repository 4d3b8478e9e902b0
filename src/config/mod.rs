//! The gateway's configuration: typed, checked completely at load, with all faults reported together. Unknown keys are
//! refused, secrets come from files or the environment. Defaults are defined where they are read;
//! `docs/configuration.md` is printed from a configuration with all of them.

pub mod cluster;
pub mod drift;
mod endpoint;
pub mod entries;
pub mod names;
mod object_store;
pub mod reader;
mod recorder;
pub mod schema;
pub mod telemetry;
pub mod web;

use crate::access::sites::SiteNames;
use crate::contract::{ContractFault, ContractSet};
use crate::exchange_log::cosignature::Policy;
use crate::identity::handshake_limits::HandshakeLimits;
use crate::identity::tls::{CrlSources, Revocation, TlsFiles};
use crate::issuer::{HsmSettings, IssuerSettings, MAX_LIFETIME};
use crate::keyfile::{SharedSecrets, Vault};
use crate::registry::Network;
use crate::tile_store::ObjectStoreSettings;
pub use cluster::ClusterSettings;
pub use entries::{Entries, SecondMode, SourceEntry, Sources};
pub use names::OfficialNames;
pub use reader::{ConfigFault, Document, Table, fault_at};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
pub use telemetry::TelemetrySettings;
pub use web::WebSettings;

/// Everything that `serve` needs, checked.
#[derive(Clone)]
pub struct Config {
    /// Its file.
    pub file: PathBuf,
    /// Secrets of it that every account may read.
    pub exposed: Vec<ConfigFault>,
    /// This gateway's name in the exchange log.
    pub node: String,
    /// The folder of registry, log and keys.
    pub data: PathBuf,
    /// Addresses and bounds of the listeners.
    pub listen: Listen,
    /// TLS of the gRPC port.
    pub tls: TlsFiles,
    /// Access tokens.
    pub tokens: Tokens,
    /// Reads and writes private keys.
    pub vault: Vault,
    /// The module that holds the signing keys, if there is one.
    pub hsm: Option<HsmSettings>,
    /// The exchange log.
    pub log: LogSettings,
    /// What the HTTPS port has beside OAuth2.
    pub web: WebSettings,
    /// Telemetry beyond metrics: access lines and traces.
    pub telemetry: TelemetrySettings,
    /// The gateways with which it has one log and one registry; `None`: it is alone.
    pub cluster: Option<ClusterSettings>,
    /// Where these gateways share private keys, once there is a connection.
    pub shared_secrets: Option<Arc<dyn SharedSecrets>>,
    /// Folder of further contracts.
    pub contracts_dir: Option<PathBuf>,
    /// Folder of hub entries.
    pub hubs_dir: PathBuf,
    /// Folder of source entries.
    pub sources_dir: PathBuf,
    /// File of official names of agencies and procedures.
    pub names: Option<PathBuf>,
}

/// Addresses and bounds of the listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The gRPC port.
    pub grpc: SocketAddr,
    /// The HTTPS port: OAuth2, JWKS.
    pub https: Option<SocketAddr>,
    /// Networks of balancers: connections from there, and only from there, begin with a PROXY header (version 2).
    pub proxies: Vec<Network>,
    /// Health and metrics, plain HTTP: on loopback only.
    pub operator_http: Option<SocketAddr>,
    /// Threads that serve calls, each with its own connections; by default one a core.
    pub workers: usize,
    /// Largest request message in bytes.
    pub max_message: usize,
    /// Connections at once.
    pub max_connections: usize,
    /// Streams at once on one connection.
    pub max_streams: u32,
    /// Connections at once from one address.
    pub max_connections_per_peer: usize,
    /// Sustained handshakes of one address a second; it may open all its connections at once in addition.
    pub handshakes_per_peer_s: u32,
    /// Handshakes a second of all addresses without an accepted certificate so far.
    pub handshakes_s: u32,
    /// Age at which a connection gets GOAWAY (varied by up to a tenth).
    pub max_connection_age: Duration,
    /// Longest TLS handshake.
    pub handshake_timeout: Duration,
    /// How long a caller may keep its flow-control window closed before its call is reset.
    pub send_timeout: Duration,
    /// Longest wait for calls in flight when the gateway ends.
    pub drain_timeout: Duration,
}

impl Listen {
    /// Returns how many files a gateway may need at once: its connections, and 1,000 for log, registry, sources and the like.
    pub fn open_files(&self) -> u64 {
        self.max_connections as u64 + 1_000
    }

    /// The bounds of handshakes, for all ports together.
    pub fn handshake_limits(&self) -> Arc<HandshakeLimits> {
        let burst = u32::try_from(self.max_connections_per_peer).unwrap_or(u32::MAX);
        HandshakeLimits::new(self.handshakes_per_peer_s, self.handshakes_s, burst)
    }
}

/// The exchange log's name and witnesses.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// The log's name in every checkpoint, as a schema-less URL.
    pub origin: String,
    /// The cosignatures that a checkpoint needs.
    pub policy: Policy,
    /// The unchanged text of the policy's file.
    pub policy_text: Option<String>,
    /// CA of the witnesses' certificates; that of the clients by default.
    pub witness_ca: Option<PathBuf>,
    /// Whether this gateway keeps the search index.
    pub index: bool,
    /// Warns if the data folder's disk will be full in fewer days.
    pub disk_warn_days: u32,
    /// The retention policy; without it, nothing is ever pruned.
    pub retention: Option<Retention>,
    /// The gateways of other sites, which may read the log's files.
    pub sites: SiteNames,
    /// Where its tiles are copied to; `None`: nowhere.
    pub object_store: Option<ObjectStoreSettings>,
}

/// How long entries stay in the log's own folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// The folder of the archive.
    pub archive: PathBuf,
    /// Days.
    pub days: u32,
    /// How often the log is searched for older ones.
    pub every: Duration,
}

/// Issuer, audience and lifetimes of tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// `iss`.
    pub issuer: String,
    /// `aud`.
    pub audience: String,
    /// Tolerated clock skew, in seconds.
    pub leeway_s: u32,
    /// Lifetime of tokens that clients fetch at `/oauth2/token`.
    pub lifetime: Duration,
    /// Longest lifetime of a token that an administrator issues.
    pub max_lifetime: Duration,
    /// How long JWKS may be cached; a new key signs only after this time.
    pub jwks_max_age: Duration,
    /// Days that an issued token stays on record after its end.
    pub keep_ended_days: u32,
    /// Maximum number of ended tokens on record: beyond it, the oldest are removed before their days are over.
    pub max_ended: u64,
    /// How often one client may fetch a token, as a token bucket.
    pub fetches: RateLimit,
    /// How often one client may introspect and revoke tokens.
    pub questions: RateLimit,
}

/// A token bucket: a sustained rate and a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// A second, sustained.
    pub each_second: u32,
    /// The burst.
    pub burst: u32,
}

/// What a gateway serves: contracts and the connections of their sources.
#[derive(Clone, Default)]
pub struct Catalogue {
    /// Every contract.
    pub contracts: ContractSet,
    /// The sources that have a connection entry.
    pub sources: Sources,
    /// Official names of agencies and procedures.
    pub names: Arc<OfficialNames>,
    /// Paths of the operations that are answered from the own disk alone while no majority of etcd responds.
    pub spooled: HashSet<String>,
    /// Hubs that no source uses.
    pub unused_hubs: Vec<String>,
    /// Secrets that every account may read.
    pub exposed: Vec<ConfigFault>,
    /// Files that the entries name: secrets, certificates, keys; and that of the names.
    pub files: Vec<PathBuf>,
}

impl From<ContractFault> for ConfigFault {
    fn from(fault: ContractFault) -> Self {
        ConfigFault { file: fault.file, line: fault.line as usize, reason: fault.reason }
    }
}

impl Config {
    /// Returns the settings of the issuer.
    pub fn issuer_settings(&self) -> IssuerSettings {
        IssuerSettings {
            keys: self.data.join("keys").join("signing"),
            vault: self.vault.clone(),
            shared: self.shared_secrets.clone(),
            hsm: self.hsm.clone(),
            issuer: self.tokens.issuer.clone(),
            audience: self.tokens.audience.clone(),
            longest: self.tokens.max_lifetime,
            jwks_max_age: self.tokens.jwks_max_age,
        }
    }

    /// Reads and checks the gateway's file. The catalogue that it names is read by [`Config::catalogue`].
    ///
    /// # Errors
    /// All faults together, with file, line and reason.
    pub fn load(file: &Path) -> Result<Self, Vec<ConfigFault>> {
        let document = Document::open(file).map_err(|fault| vec![fault])?;
        let config = document.read(|table| read(file, table))?;
        Ok(Config { exposed: document.exposed(), ..config })
    }

    /// Reads only the contracts: administration needs nothing else, whatever is wrong with a source's entry.
    ///
    /// # Errors
    /// All faults together, with file, line and reason.
    pub fn contracts(&self) -> Result<ContractSet, Vec<ConfigFault>> {
        let contracts = match &self.contracts_dir {
            Some(folder) => ContractSet::with_folder(folder),
            None => ContractSet::embedded(),
        };
        contracts.map_err(|faults| faults.into_iter().map(ConfigFault::from).collect())
    }

    /// Reads contracts, hubs and sources; called again at each reload.
    ///
    /// # Errors
    /// All faults together, with file, line and reason.
    pub fn catalogue(&self) -> Result<Catalogue, Vec<ConfigFault>> {
        let contracts = self.contracts()?;
        let unread = |(key, folder): (&str, &PathBuf)| {
            let error = std::fs::read_dir(folder).err()?;
            Some(fault_at(&self.file, key, format!("{}: the folder cannot be read: {error}", folder.display())))
        };
        let folders = [("hubs_dir", &self.hubs_dir), ("sources_dir", &self.sources_dir)];
        let unread: Vec<ConfigFault> = folders.into_iter().filter_map(unread).collect();
        if !unread.is_empty() {
            return Err(unread);
        }
        let Entries { sources, mut files, unused_hubs, exposed } =
            entries::load(&self.hubs_dir, &self.sources_dir, &contracts)?;
        files.extend(self.names.clone());
        let spooled = self.cluster.as_ref().map(|cluster| cluster.spooled(&contracts)).transpose();
        let spooled = spooled.map_err(|reason| vec![fault_at(&self.file, "cluster.spool", reason)])?;
        let names = self.names.as_deref().map_or_else(|| Ok(OfficialNames::default()), OfficialNames::read)?;
        let (names, spooled) = (Arc::new(names), spooled.unwrap_or_default());
        Ok(Catalogue { contracts, sources, names, spooled, unused_hubs, exposed, files })
    }
}

fn read(file: &Path, table: &Table<'_>) -> Option<Config> {
    let node = table.needed("node", "qn-dc1");
    let data = table.needed_path("data", "data");
    let listen = table.section("listen", read_listen);
    let tls = table.section("tls", |tls| read_tls(tls, data.as_deref()));
    let tokens = table.section("tokens", read_tokens);
    let named = table.table("tls").is_some_and(|tls| tls.has("names"));
    let called_by = called_by(listen.as_ref(), tokens.as_ref());
    let tls = tls.map(|tls| if named { tls } else { TlsFiles { names: called_by, ..tls } });
    let (vault, hsm) = table.section("keys", |keys| {
        let vault = if keys.has("encryption_secret") { read_vault(keys) } else { Some(Vault::default()) };
        let hsm = if keys.has("pkcs11") { keys.section("pkcs11", read_hsm).map(Some) } else { Some(None) };
        (vault, hsm)
    });
    let log = table.section("log", |log| {
        let origin = log.parsed("origin", "ndxp.quangninh.gov.vn/log", schemaless);
        let witnesses = log.path("witness_policy").map(|file| read_policy(log, &file));
        let witness_ca = log.path("witness_ca");
        let (policy, policy_text) = match witnesses {
            Some(read) => read.map(|(policy, text)| (policy, Some(text)))?,
            None => (Policy::default(), None),
        };
        let index = log.flag("index", true);
        // Two years online by default (design.md; level-3 systems after Decree 85/2016).
        let days = log.number("keep_days", 730, 1..=36_500) as u32;
        let disk_warn_days = log.number("disk_warn_days", 14, 0..=3_650) as u32;
        let every = Duration::from_secs(log.number("prune_every_s", 86_400, 1..=31_536_000));
        let retention = log.path("archive").map(|archive| Retention { archive, days, every });
        let is_inside = |archive: &Path| data.as_deref().is_some_and(|data| archive.starts_with(data));
        if retention.as_ref().is_some_and(|retention| is_inside(&retention.archive)) {
            log.fault("archive", "must be another folder than data, on another disk if there is one");
        }
        if retention.is_none() && log.has("keep_days") {
            log.fault("keep_days", "needs a folder to archive to: archive = \"archive\"");
        }
        let sites = SiteNames::new(&log.texts("site_names")).map_err(|reason| log.fault("site_names", reason)).ok();
        let client_ca = tls.as_ref().map(|tls| tls.client_ca.as_path());
        let object_store = match log.has("object_store") {
            true => log.section("object_store", |own| object_store::read(own, client_ca)).map(Some),
            false => Some(None),
        };
        let (origin, sites, object_store) = (origin?, sites?, object_store?);
        Some(LogSettings {
            origin,
            policy,
            policy_text,
            witness_ca,
            index,
            disk_warn_days,
            retention,
            sites,
            object_store,
        })
    });
    let client_ca = tls.as_ref().map(|tls| tls.client_ca.as_path());
    let has_port = listen.as_ref().is_none_or(|listen| listen.https.is_some());
    let web = table.section("web", |web| web::read(web, client_ca, has_port));
    let telemetry = table.section("telemetry", |own| telemetry::read(own, client_ca));
    let tls = tls.zip(vault.as_ref()).map(|(tls, vault)| tls.with_vault(vault));
    let seals = vault.as_ref().is_none_or(Vault::seals);
    let cluster = match table.has("cluster") {
        true => table.section("cluster", |own| cluster::read(own, node.as_deref(), tls.as_ref(), seals)).map(Some),
        false => Some(None),
    };
    let contracts_dir = table.path("contracts_dir");
    let hubs_dir = table.needed_path("hubs_dir", "hubs");
    let sources_dir = table.needed_path("sources_dir", "sources");
    let names = table.path("names");
    Some(Config {
        file: file.to_owned(),
        exposed: Vec::new(),
        node: node?,
        data: data?,
        listen: listen?,
        tls: tls?,
        tokens: tokens?,
        vault: vault?,
        hsm: hsm?,
        log: log?,
        web: web?,
        telemetry: telemetry?,
        cluster: cluster?,
        shared_secrets: None,
        contracts_dir,
        hubs_dir: hubs_dir?,
        sources_dir: sources_dir?,
        names,
    })
}

/// A name in signed notes: a URL without its schema.
pub(crate) fn schemaless(text: &str) -> Result<String, String> {
    let plain = !text.is_empty() && !text.contains(['+', '\n', ' ']) && !text.contains("://");
    if plain { Ok(text.to_owned()) } else { Err("must be a URL without its schema, without + or spaces".into()) }
}

/// The witnesses' policy (C2SP tlog-policy).
fn read_policy(table: &Table<'_>, file: &Path) -> Option<(Policy, String)> {
    let read = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()));
    let parse = |text: String| {
        let policy = Policy::parse(&text).map_err(|(line, reason)| format!("{}:{line}: {reason}", file.display()))?;
        Ok((policy, text))
    };
    read.and_then(parse).map_err(|reason| table.fault("witness_policy", reason)).ok()
}

pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is no address: write ip:port, such as 0.0.0.0:7443"))
}

fn read_listen(table: &Table<'_>) -> Option<Listen> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let grpc = table.parsed("grpc", "0.0.0.0:7443", address);
    let https = match table.text("https") {
        Some(text) => address(&text).map(Some).map_err(|reason| table.fault("https", reason)).ok(),
        None => Some(None),
    };
    let operator_http = loopback(table, "operator_http");
    for (key, own, other, theirs) in [
        ("https", https.flatten(), "grpc", grpc),
        ("operator_http", operator_http.flatten(), "grpc", grpc),
        ("operator_http", operator_http.flatten(), "https", https.flatten()),
    ] {
        if own.is_some() && own == theirs && own.is_some_and(|address| address.port() != 0) {
            table.fault(key, format!("is the address of listen.{other}: choose another port"));
        }
    }
    let proxies = table.texts("proxy_protocol_from");
    let proxies = proxies.iter().map(|text| Network::parse(text)).collect::<Result<Vec<_>, _>>();
    let proxies = proxies.map_err(|reason| table.fault("proxy_protocol_from", reason)).ok();
    // 4 MiB is gRPC's own default; the largest known request is a batch of 100 dossiers of some kilobytes.
    let max_message = table.number("max_message_bytes", 4 << 20, 1_024..=(64 << 20)) as usize;
    let listen = Listen {
        grpc: grpc?,
        https: https?,
        operator_http: operator_http?,
        proxies: proxies?,
        workers: table.number("workers", cores, 1..=256) as usize,
        max_message,
        max_connections: table.number("max_connections", 20_000, 1..=1_000_000) as usize,
        max_connections_per_peer: table.number("max_connections_per_peer", 1_000, 1..=1_000_000) as usize,
        // A full handshake is about 0.4 ms of CPU: a peer takes 8 % of a core, all unknown peers 40 %.
        handshakes_per_peer_s: table.number("handshakes_per_peer_s", 200, 1..=1_000_000) as u32,
        handshakes_s: table.number("handshakes_s", 1_000, 1..=1_000_000) as u32,
        max_connection_age: Duration::from_secs(table.number("max_connection_age_s", 3_600, 1..=86_400)),
        max_streams: table.number("max_streams_per_connection", 256, 1..=10_000) as u32,
        handshake_timeout: Duration::from_millis(table.number("handshake_timeout_ms", 10_000, 100..=60_000)),
        send_timeout: Duration::from_millis(table.number("send_timeout_ms", 60_000, 1_000..=3_600_000)),
        drain_timeout: Duration::from_millis(table.number("drain_timeout_ms", 30_000, 0..=600_000)),
    };
    Some(listen)
}

/// An optional loopback address: `None` is a fault, `Some(None)` means not given.
fn loopback(table: &Table<'_>, key: &str) -> Option<Option<SocketAddr>> {
    let Some(text) = table.text(key) else { return Some(None) };
    match address(&text) {
        Ok(address) if address.ip().is_loopback() => Some(Some(address)),
        Ok(_) => {
            table.fault(key, "health and metrics are plain HTTP: use a loopback address, such as 127.0.0.1:9464");
            None
        }
        Err(reason) => {
            table.fault(key, reason);
            None
        }
    }
}

/// The default for the names that clients use for the gateway: they fetch its metadata at the host of `tokens.issuer`
/// (RFC 8414, section 3).
fn called_by(listen: Option<&Listen>, tokens: Option<&Tokens>) -> Vec<String> {
    let https = listen.is_some_and(|listen| listen.https.is_some());
    let issuer = tokens.filter(|_| https).and_then(|tokens| tokens.issuer.parse::<http::Uri>().ok());
    let issuer = issuer.filter(|uri| uri.scheme_str() == Some("https"));
    let host = |uri: http::Uri| uri.host().map(|host| host.trim_matches(['[', ']']).to_owned());
    issuer.and_then(host).into_iter().collect()
}

fn read_tls(table: &Table<'_>, data: Option<&Path>) -> Option<TlsFiles> {
    let certificate = table.needed_path("certificate", "pki/gateway.pem");
    let key = table.needed_path("key", "pki/gateway.key");
    let client_ca = table.needed_path("client_ca", "pki/ca.pem");
    let revocation = read_revocation(table, data);
    let allow_tls12 = table.flag("allow_tls12", false);
    let names = table.texts("names");
    let files = TlsFiles {
        certificate: certificate?,
        key: key?,
        client_ca: client_ca?,
        revocation: revocation?,
        names,
        allow_tls12,
    };
    // `serve` and `config check` read the revocation lists themselves: an administrator must be able to suspend a
    // client while a list is at fault.
    table.keep_private("key", &files.key);
    let unchecked = TlsFiles { revocation: Revocation::Unchecked, ..files.clone() };
    match crate::identity::tls::server_config(&unchecked) {
        Ok(_) => Some(files),
        Err(fault) => {
            let key = if fault.path == files.client_ca {
                "client_ca"
            } else if fault.path == files.key {
                "key"
            } else {
                "certificate"
            };
            table.fault(key, fault);
            None
        }
    }
}

/// How revocation is checked. Switching it off needs an explicit setting.
fn read_revocation(table: &Table<'_>, data: Option<&Path>) -> Option<Revocation> {
    let files = table.path_or_paths("crl", "pki/ca.crl");
    let urls = if table.has("crl_url") { table.text_or_texts("crl_url", "http://host/ca.crl")? } else { Vec::new() };
    let urls: Vec<Option<http::Uri>> = urls.iter().map(|text| published(table, text)).collect();
    let every = Duration::from_millis(table.number("crl_every_ms", 500, 200..=3_600_000));
    let none = match table.text("revocation").as_deref() {
        None => false,
        Some("none") => true,
        Some(_) => {
            table.fault("revocation", "must be \"none\", or left out where crl or crl_url name revocation lists");
            return None;
        }
    };
    if none && (table.has("crl") || table.has("crl_url")) {
        table.fault("revocation", "\"none\" and revocation lists (crl, crl_url) exclude each other");
        return None;
    }
    if none {
        return Some(Revocation::Unchecked);
    }
    if files.is_empty() && urls.is_empty() {
        let what = "is missing: add crl = \"pki/ca.crl\" or crl_url = \"http://…\" with the revocation lists of the CAs in \
                    client_ca; or revocation = \"none\", if revoked certificates should be accepted";
        table.fault("crl", what);
        return None;
    }
    let data = data?;
    let (cached, registry) = (data.join("state"), data.join(crate::registry::sqlite::FILE));
    let (record, urls) = (cached.join("revocation.json"), urls.into_iter().collect::<Option<_>>()?);
    Some(Revocation::Checked(CrlSources { files, urls, every, cached, record, registry, vault: Vault::default() }))
}

/// The URL of published revocation lists.
fn published(table: &Table<'_>, text: &str) -> Option<http::Uri> {
    match text.parse::<http::Uri>() {
        Ok(url) if matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some() => Some(url),
        _ => {
            table.fault("crl_url", "must be http://host/path or https://host/path");
            None
        }
    }
}

/// Minimum length of the secret that seals private keys: 128 bits in hexadecimal.
const MIN_SECRET: usize = 32;

pub(crate) fn read_vault(table: &Table<'_>) -> Option<Vault> {
    let secret = table.secret("encryption_secret")?;
    if secret.reveal().len() < MIN_SECRET {
        table.fault("encryption_secret", format!("must have at least {MIN_SECRET} characters: openssl rand -hex 32"));
        return None;
    }
    let vault = Vault::sealed(secret.reveal());
    if vault.is_none() {
        table.fault("encryption_secret", "cannot be used: this system has no AES-256-GCM");
    }
    vault
}

fn read_hsm(table: &Table<'_>) -> Option<HsmSettings> {
    let module = table.needed_path("module", "/usr/lib/softhsm/libsofthsm2.so");
    let token = table.needed("token", "ndxp");
    let pin = table.secret("pin");
    if !cfg!(feature = "pkcs11") {
        table.fault("module", "this gateway was built without PKCS#11: build it with --features pkcs11");
        return None;
    }
    Some(HsmSettings { module: module?, token: token?, pin: pin? })
}

/// A rate under its key, with a burst of four seconds' worth.
fn read_rate(table: &Table<'_>, key: &str, default: u64) -> RateLimit {
    let each_second = table.number(key, default, 1..=100_000) as u32;
    RateLimit { each_second, burst: each_second.saturating_mul(4) }
}

/// Accepts an issuer of OAuth 2.0 (RFC 8414, section 2).
fn issuer(text: &str) -> Result<String, String> {
    let uri = text.parse::<http::Uri>().ok().filter(|uri| uri.scheme_str() == Some("https") && uri.query().is_none());
    let is_issuer = uri.is_some_and(|uri| uri.host().is_some()) && !text.contains('#');
    let wrong = "must be https:// and a host, this gateway's as clients reach it, without query and fragment";
    if is_issuer { Ok(text.to_owned()) } else { Err(wrong.to_owned()) }
}

fn read_tokens(table: &Table<'_>) -> Option<Tokens> {
    let issuer = table.parsed("issuer", "https://ndxp.quangninh.gov.vn", issuer);
    let audience = table.needed("audience", "ndxp-gateway");
    let leeway_s = table.number("leeway_s", 30, 0..=300) as u32;
    let longest = MAX_LIFETIME.as_secs();
    let max_lifetime = table.number("max_lifetime_s", longest, 30..=longest);
    let lifetime = table.number("lifetime_s", max_lifetime.min(3_600), 30..=max_lifetime);
    Some(Tokens {
        issuer: issuer?,
        audience: audience?,
        leeway_s,
        lifetime: Duration::from_secs(lifetime),
        max_lifetime: Duration::from_secs(max_lifetime),
        jwks_max_age: Duration::from_secs(table.number("jwks_max_age_s", 300, 0..=86_400)),
        keep_ended_days: table.number("keep_ended_days", 30, 1..=3_650) as u32,
        // About 2.5 GB.
        max_ended: table.number("max_ended", 10_000_000, 1_000..=1_000_000_000),
        fetches: read_rate(table, "fetches_per_s", 50),
        questions: read_rate(table, "questions_per_s", 500),
    })
}
