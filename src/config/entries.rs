//! Connection entries: one file for each hub, one file for each source. To move a source to another hub, change one
//! line.

mod credentials;

use super::drift::{self, DriftPolicies};
use super::reader::{ConfigFault, Document, Table};
use crate::contract::ContractSet;
use crate::contract::operation::Operation;
use crate::contract::options::fill;
use crate::contract::settings::Settings;
use crate::drivers::connection::{RequestHash, SourceConnection, XRoadIds, XRoadMember};
use crate::drivers::credentials::Credentials;
use crate::drivers::http::HttpEndpoint;
use crate::drivers::registry;
use crate::guard::{BreakerSettings, GuardSettings, RetrySettings};
use crate::http2::client::Keepalive;
use crate::identity::tls;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

/// The sources with a connection entry, by id.
pub type Sources = HashMap<String, Arc<SourceEntry>>;

/// The target of an upstream.
pub struct UpstreamTarget {
    /// The hub's id; `None`: direct.
    pub hub: Option<String>,
    /// Addresses of the hub or source, `https://host:port/prefix`, at least one.
    pub addresses: Vec<String>,
    /// The path of health checks; without it, they are TLS handshakes.
    pub health_path: Option<String>,
    /// Pings towards it, if it speaks gRPC.
    pub keepalive: Keepalive,
    /// TLS towards it.
    pub tls: rustls::ClientConfig,
    path: String,
    credentials: Arc<Credentials>,
}

/// The purpose of a second hub, while a source moves from one to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecondMode {
    /// Calls go there while the first one fails.
    Failover,
    /// This percentage of the calls goes there.
    Share(u32),
    /// Reads go to both; callers get the first one's response, and differences are counted by field.
    Shadow,
}

/// Where and how one source is reached, checked. [`SourceEntry::connect`] makes connections from it.
pub struct SourceEntry {
    /// The source's id.
    pub source: String,
    /// The version of its contract that it implements ("v1").
    pub contract: String,
    /// The primary target.
    pub first: UpstreamTarget,
    /// The secondary target.
    pub second: Option<(SecondMode, UpstreamTarget)>,
    /// Limits of its operations together, except those with separate limits.
    pub guard: GuardSettings,
    /// Operations (`GetHousehold`) with separate limits.
    pub own_guards: BTreeMap<String, GuardSettings>,
    /// The policies for responses with drift.
    pub drift: DriftPolicies,
    /// Whether the trace of an exchange goes to the source (W3C `traceparent`).
    pub trace_context: bool,
    settings: Settings,
    xroad: Option<XRoadIds>,
    max_response: usize,
}

impl SourceEntry {
    /// Makes a connection to an address of one of its targets, with a separate pool; token or session are shared with
    /// all other sources of the hub. `open` counts the connections to gRPC sources.
    pub fn connect(&self, reach: &UpstreamTarget, address: &str, open: &Arc<AtomicUsize>) -> SourceConnection {
        let hub = HttpEndpoint::new(address, reach.tls.clone(), self.max_response);
        SourceConnection {
            source: self.source.clone(),
            hub: reach.hub.clone(),
            endpoint: hub.below(&reach.path),
            login: hub,
            address: address.to_owned(),
            keepalive: reach.keepalive,
            open: open.clone(),
            tls: reach.tls.clone(),
            credentials: reach.credentials.clone(),
            settings: self.settings.clone(),
            xroad: self.xroad.clone(),
            max_response: self.max_response,
        }
    }
}

/// Hubs by id; `None`: something is wrong with the entry, which is reported there.
type Hubs = HashMap<String, Option<HubEntry>>;

struct HubEntry {
    addresses: Vec<String>,
    health_path: Option<String>,
    keepalive: Keepalive,
    tls: rustls::ClientConfig,
    /// By protocol.
    credentials: HashMap<&'static str, Arc<Credentials>>,
}

/// The entries of both folders.
pub struct Entries {
    /// The sources.
    pub sources: Sources,
    /// The files that the entries name.
    pub files: Vec<PathBuf>,
    /// Hubs that no source uses.
    pub unused_hubs: Vec<String>,
    /// Secrets that every account may read.
    pub exposed: Vec<ConfigFault>,
}

/// Reads every hub, then every source.
///
/// # Errors
/// All faults of all files together.
pub fn load(hubs: &Path, sources: &Path, contracts: &ContractSet) -> Result<Entries, Vec<ConfigFault>> {
    let (mut faults, mut about) = (Vec::new(), EntryFiles::default());
    let mut known_hubs: Hubs = HashMap::new();
    for file in toml_files(hubs, &mut faults) {
        let read = |table: &Table<'_>| {
            let (id, hub) = read_hub(table)?;
            // Known by its name, also if something is wrong with the rest.
            let is_new = known_hubs.insert(id.clone(), hub).is_none();
            if !is_new {
                table.fault("hub", format!("hub {id:?} has an entry already"));
            }
            Some(())
        };
        one(&file, read, &mut about, &mut faults);
    }
    let mut found = Sources::new();
    for file in toml_files(sources, &mut faults) {
        let read = |table: &Table<'_>| read_source(table, &known_hubs, contracts);
        let Some(entry) = one(&file, read, &mut about, &mut faults) else { continue };
        let id = entry.source.clone();
        if found.insert(id.clone(), Arc::new(entry)).is_some() {
            faults.push(file_fault(&file, format!("source {id:?} has an entry already")));
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let targets =
        |entry: &Arc<SourceEntry>| [Some(entry.first.hub.clone()), entry.second.as_ref().map(|two| two.1.hub.clone())];
    let used: BTreeSet<String> = found.values().flat_map(targets).flatten().flatten().collect();
    let mut unused_hubs: Vec<String> = known_hubs.into_keys().filter(|hub| !used.contains(hub)).collect();
    unused_hubs.sort_unstable();
    Ok(Entries { sources: found, files: about.named, unused_hubs, exposed: about.exposed })
}

/// What entries say of files: which they name, and which of those are secrets that every account may read.
#[derive(Default)]
struct EntryFiles {
    named: Vec<PathBuf>,
    exposed: Vec<ConfigFault>,
}

/// Reads one entry; `None` if something is wrong with it.
fn one<T>(
    file: &Path,
    read: impl FnOnce(&Table<'_>) -> Option<T>,
    about: &mut EntryFiles,
    faults: &mut Vec<ConfigFault>,
) -> Option<T> {
    let document = Document::open(file).map_err(|fault| faults.push(fault)).ok()?;
    let entry = document.read(read).map_err(|more| faults.extend(more)).ok();
    about.named.extend(document.named());
    about.exposed.extend(document.exposed());
    entry
}

fn file_fault(file: &Path, reason: String) -> ConfigFault {
    ConfigFault { file: file.display().to_string(), line: 0, reason }
}

fn toml_files(folder: &Path, faults: &mut Vec<ConfigFault>) -> Vec<PathBuf> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            faults.push(file_fault(folder, format!("the folder cannot be read: {error}")));
            return Vec::new();
        }
    };
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files
}

fn https(text: &str) -> Result<String, String> {
    let uri: http::Uri = text.parse().map_err(|_| format!("{text:?} is no URL"))?;
    match (uri.scheme_str(), uri.host()) {
        (_, Some(host)) if host.contains("FILL-IN") => {
            Err("has FILL-IN of the example still: write the address".to_owned())
        }
        (Some("https"), Some(_)) if uri.query().is_none() => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err("must be https://host:port, with a path where the service has one".to_owned()),
    }
}

/// One address in quotes, or a list of them: each call goes to the one with the fewest calls in flight.
fn read_addresses(table: &Table<'_>, example: &str) -> Option<Vec<String>> {
    let given = table.text_or_texts("address", example)?;
    let known = given.iter().map(|text| https(text)).collect::<Result<Vec<_>, _>>();
    let known = known.map_err(|reason| table.fault("address", reason)).ok()?;
    let mut distinct = known.clone();
    distinct.sort_unstable();
    distinct.dedup();
    if known.is_empty() || distinct.len() < known.len() {
        table.fault("address", "must be one address, or a list of different ones");
        return None;
    }
    Some(known)
}

fn read_health_path(table: &Table<'_>) -> Option<String> {
    let path = table.text("health_path")?;
    let plain = path.starts_with('/') && path.parse::<http::uri::PathAndQuery>().is_ok();
    if !plain {
        table.fault("health_path", "must be a path, such as \"/health\"");
    }
    plain.then_some(path)
}

/// Interval of pings to a gRPC source or hub: at least 10 s (gRFC A8), at most two hours.
fn read_keepalive(table: &Table<'_>) -> Keepalive {
    let usual = Keepalive::default();
    table.section("keepalive", |table| Keepalive {
        time: Duration::from_secs(table.number("time_s", usual.time.as_secs(), 10..=7_200)),
        timeout: Duration::from_secs(table.number("timeout_s", usual.timeout.as_secs(), 1..=300)),
        without_calls: table.flag("without_calls", usual.without_calls),
    })
}

fn read_tls(table: &Table<'_>) -> Option<rustls::ClientConfig> {
    table.section("tls", |table| {
        let ca = table.needed_path("ca", "../pki/ca.pem");
        let own = match (table.path("certificate"), table.path("key")) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                table.fault("certificate", "certificate and key belong together");
                return None;
            }
        };
        let own = own.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path()));
        // hyper-rustls sets ALPN by the versions that a driver supports.
        let ca = ca?;
        let at_fault = |path: &Path| match own {
            Some((certificate, _)) if certificate == path => "certificate",
            Some((_, key)) if key == path => "key",
            _ => "ca",
        };
        tls::client_config(&ca, own, &[]).map_err(|fault| table.fault(at_fault(&fault.path), &fault)).ok()
    })
}

fn read_hub(table: &Table<'_>) -> Option<(String, Option<HubEntry>)> {
    let id = table.needed("hub", "ndxp");
    let addresses = read_addresses(table, "https://ndxp.example:443");
    let health_path = read_health_path(table);
    let keepalive = read_keepalive(table);
    let tls = read_tls(table);
    let credentials = table.section("credentials", |all| {
        let given =
            registry::protocols().into_iter().filter_map(|protocol| Some((protocol.name, all.table(protocol.name)?)));
        // All are read, so that all faults are reported.
        let read: Vec<_> = given.map(|(name, table)| Some((name, Arc::new(credentials::read(&table)?)))).collect();
        read.into_iter().collect::<Option<HashMap<_, _>>>()
    });
    let parts = addresses.zip(tls).zip(credentials);
    let hub =
        parts.map(|((addresses, tls), credentials)| HubEntry { addresses, health_path, keepalive, tls, credentials });
    Some((id?, hub))
}

fn read_source(table: &Table<'_>, hubs: &Hubs, contracts: &ContractSet) -> Option<SourceEntry> {
    let source = table.parsed("source", "population", |text| {
        let known = contracts.sources().iter().any(|known| known.id == text);
        if known { Ok(text.to_owned()) } else { Err(format!("no contract serves a source {text:?}")) }
    });
    let versions = source.as_ref().map(|source| contracts.versions(source)).unwrap_or_default();
    let contract = match table.text("contract") {
        Some(chosen) if versions.contains(&chosen.as_str()) => Some(chosen),
        Some(chosen) => {
            table.fault("contract", format!("there is no contract {chosen:?} of it: {}", versions.join(", ")));
            None
        }
        None => versions.first().map(|first| (*first).to_owned()),
    };
    let operations: Vec<&Arc<Operation>> = contracts
        .operations()
        .into_iter()
        .filter(|operation| source.as_ref().is_some_and(|source| operation.source.id == *source))
        .filter(|operation| contract.as_ref().is_some_and(|contract| operation.source.version == *contract))
        .collect();
    let protocol = operations.first().map_or("rest", |operation| operation.binding.driver());
    if let Some(unknown) = operations.iter().find(|operation| registry::protocol_of(operation).is_none()) {
        let known: Vec<&str> = registry::protocols().iter().map(|protocol| protocol.name).collect();
        let (operation, name, known) = (&unknown.name, unknown.binding.driver(), known.join(", "));
        table.fault(
            "source",
            format!("{operation} is called by protocol {name:?}, which this gateway does not speak: {known}"),
        );
    }
    let own = table.table("credentials").map(|table| credentials::read(&table).map(Arc::new));
    let path = table.text("path").unwrap_or_default();
    let second = table.table("second").map(|second| {
        let read = read_second(&second, hubs, protocol, &path);
        second.refuse_unknown();
        read
    });
    let reached = match table.text("hub") {
        Some(hub) => through_hub(table, &hub, hubs, protocol, &path),
        None => {
            let addresses = read_addresses(table, "https://source.example:443");
            let (health_path, keepalive, tls) = (read_health_path(table), read_keepalive(table), read_tls(table));
            let reach = |(addresses, tls)| {
                let credentials = Arc::new(Credentials::None);
                UpstreamTarget { hub: None, addresses, health_path, keepalive, tls, credentials, path: path.clone() }
            };
            addresses.zip(tls).map(reach)
        }
    };
    let settings = table.section("settings", |settings| {
        settings
            .keys()
            .into_iter()
            .filter_map(|key| Some((key.clone(), settings.text_or_secret(&key)?)))
            .collect::<Settings>()
    });
    for name in operations.iter().flat_map(|one| &one.request.fields).filter_map(|field| field.case_setting.as_ref()) {
        if settings.get(name).is_some_and(|text| crate::contract::map::case::case_named(text).is_none()) {
            table.fault("settings", format!("{name} must be \"as-given\", \"upper\" or \"folded\""));
        }
    }
    for name in wanted_settings(&operations) {
        if !settings.contains_key(name) {
            table.fault("settings", format!("the contract needs {name}: add it"));
        }
    }
    let xroad = table.table("xroad").map(|xroad| {
        let ids = read_xroad(&xroad);
        xroad.refuse_unknown();
        ids
    });
    if xroad.is_none() && protocol == "xroad" {
        table.fault("xroad", "is missing: an X-Road source needs [xroad] with client and service");
    }
    let (guard, own_guards) = table.section("guard", |table| read_guards(table, &operations));
    let drift = drift::read(table, &operations);
    // A response of the largest known catalogue has some megabytes.
    let max_response = table.number("max_response_bytes", 16 << 20, 1_024..=(1 << 30)) as usize;
    let trace_context = table.flag("trace_context", false);
    let mut first = reached?;
    let credentials_at = if own.is_some() { "credentials" } else { "hub" };
    if let Some(own) = own {
        first.credentials = own?;
    }
    let second = second.map_or(Some(None), |second| second.map(Some))?;
    let others = second.iter().map(|(_, reach)| ("second", reach));
    for (place, reach) in [(credentials_at, &first)].into_iter().chain(others) {
        if let Some(reason) =
            operations.iter().find_map(|one| registry::check_credentials(&reach.credentials, one).err())
        {
            table.fault(place, format!("these credentials are never sent: {reason}"));
        }
    }
    let xroad = xroad.map_or(Some(None), |xroad| xroad.map(Some))?;
    let (source, contract) = (source?, contract?);
    Some(SourceEntry {
        source,
        contract,
        first,
        second,
        guard,
        own_guards,
        drift,
        trace_context,
        settings,
        xroad,
        max_response,
    })
}

/// Reads the second hub of a source that moves.
fn read_second(table: &Table<'_>, hubs: &Hubs, protocol: &str, path: &str) -> Option<(SecondMode, UpstreamTarget)> {
    let path = table.text("path").unwrap_or_else(|| path.to_owned());
    let reached = table.needed("hub", "ndop").and_then(|hub| through_hub(table, &hub, hubs, protocol, &path));
    let share = table.number("share_percent", 10, 1..=99) as u32;
    let mode = table.parsed("mode", "failover", |text| match text {
        "failover" => Ok(SecondMode::Failover),
        "share" => Ok(SecondMode::Share(share)),
        "shadow" => Ok(SecondMode::Shadow),
        _ => Err("must be failover, share or shadow".to_owned()),
    });
    if table.has("share_percent") && !matches!(mode, Some(SecondMode::Share(_)) | None) {
        table.fault("share_percent", "belongs to mode = \"share\"");
    }
    Some((mode?, reached?))
}

fn through_hub(table: &Table<'_>, id: &str, hubs: &Hubs, protocol: &str, path: &str) -> Option<UpstreamTarget> {
    let Some(hub) = hubs.get(id) else {
        let mut known: Vec<&str> = hubs.keys().map(String::as_str).collect();
        known.sort_unstable();
        table.fault("hub", format!("there is no hub {id:?}; known: {}", known.join(", ")));
        return None;
    };
    let hub = hub.as_ref()?;
    let Some(credentials) = hub.credentials.get(protocol).cloned() else {
        table.fault("hub", format!("hub {id:?} has no [credentials.{protocol}], which this source needs"));
        return None;
    };
    Some(UpstreamTarget {
        hub: Some(id.to_owned()),
        addresses: hub.addresses.clone(),
        health_path: hub.health_path.clone(),
        keepalive: hub.keepalive,
        tls: hub.tls.clone(),
        credentials,
        path: path.to_owned(),
    })
}

fn wanted_settings<'c>(operations: &[&'c Arc<Operation>]) -> Vec<&'c str> {
    let setting = |value: &'c fill::Value| match value {
        fill::Value::Setting(name) => Some(name.as_str()),
        _ => None,
    };
    let mut names: Vec<&str> = operations
        .iter()
        .flat_map(|operation| {
            operation.fills.iter().filter(|fill| !fill.optional).filter_map(|fill| setting(&fill.value))
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn read_xroad(table: &Table<'_>) -> Option<XRoadIds> {
    let member = |text: &str| XRoadMember::parse(text).ok_or("must be INSTANCE/CLASS/MEMBER/SUBSYSTEM".to_owned());
    let client = table.parsed("client", "VN/GOV/H49/GATEWAY", member);
    let service = table.parsed("service", "VN/GOV/MOF/DVQHNS", member);
    let user = table.text("user");
    let request_hash = match table.text("request_hash").as_deref() {
        None | Some("check") => RequestHash::Check,
        Some("keep") => RequestHash::Keep,
        Some(_) => {
            table.fault("request_hash", "must be check or keep");
            return None;
        }
    };
    Some(XRoadIds { client: client?, service: service?, user, request_hash })
}

/// Reads the source's guard, and those of operations with separate limits (`[guard.GetHousehold]`), which default to
/// the source's.
fn read_guards(table: &Table<'_>, operations: &[&Arc<Operation>]) -> (GuardSettings, BTreeMap<String, GuardSettings>) {
    let guard = read_guard(table, GuardSettings::default());
    let own = |operation: &&Arc<Operation>| {
        let own = table.table(&operation.name)?;
        let read = read_guard(&own, guard);
        own.refuse_unknown();
        Some((operation.name.clone(), read))
    };
    (guard, operations.iter().filter_map(own).collect())
}

fn read_guard(table: &Table<'_>, default: GuardSettings) -> GuardSettings {
    let ms = |key: &str, default: Duration, bounds| {
        Duration::from_millis(table.number(key, u64::try_from(default.as_millis()).unwrap_or(u64::MAX), bounds))
    };
    let breaker = BreakerSettings {
        window: table.number("breaker_window", default.breaker.window as u64, 4..=10_000) as usize,
        failures_percent: table.number("breaker_failures_percent", default.breaker.failures_percent as u64, 1..=100)
            as usize,
        slow: ms("breaker_slow_ms", default.breaker.slow, 10..=600_000),
        slow_percent: table.number("breaker_slow_percent", default.breaker.slow_percent as u64, 1..=100) as usize,
        open_for: ms("breaker_open_ms", default.breaker.open_for, 100..=600_000),
    };
    let retry = RetrySettings {
        attempts: table.number("attempts", u64::from(default.retry.attempts), 1..=5) as u32,
        backoff: ms("retry_backoff_ms", default.retry.backoff, 1..=10_000),
        budget_percent: table.number("retry_budget_percent", default.retry.budget_percent, 0..=100),
    };
    let concurrency = table.number("concurrency", default.concurrency as u64, 1..=100_000) as usize;
    // By default no more than there are.
    let min = table.number("min_concurrency", default.min.min(concurrency) as u64, 1..=100_000) as usize;
    if min > concurrency {
        table.fault("min_concurrency", format!("must not be above concurrency ({concurrency})"));
    }
    let hedge =
        if table.has("hedge_ms") { Some(ms("hedge_ms", Duration::from_secs(1), 1..=60_000)) } else { default.hedge };
    GuardSettings {
        hedge,
        concurrency,
        min,
        queue: table.number("queue", default.queue as u64, 0..=1_000_000) as usize,
        streams: table.number("streams", default.streams as u64, 1..=1_000_000) as usize,
        breaker,
        retry,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
