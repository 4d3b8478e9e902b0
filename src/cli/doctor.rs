//! `doctor`: what keeps a gateway of this folder from its work, or soon will, and what to do about each. It changes nothing.

use super::check::joins;
use super::keys::open_keys;
use super::output::{Output, bar, counted};
use super::{CliError, ConfigFile, runtime};
use crate::cluster::{guard, status, version};
use crate::config::{Catalogue, ClusterSettings, Config};
use crate::drivers::reachability::check;
use crate::exchange_log::{LockOwner, LogPaths, clock};
use crate::exchange_log::{LogOpener, key};
use crate::identity::tls;
use crate::pki::{Ending, expirations};
use crate::registry::sqlite::SqliteStore;
use crate::registry::{Page, Store, now, signing_key};
use crate::server::{check_tls, connect, registry_path};
use clap::Args;
use serde::Serialize;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Free space of the data folder's disk below which an operator is to look, in bytes: some weeks of a province's log.
const SPACE_LOW: u64 = 5 << 30;
/// Below which it is a fault.
const SPACE_OUT: u64 = 1 << 30;
/// How far the clock may be behind the log's newest entry, in seconds.
const MAX_BEHIND_S: i64 = 5;

#[derive(Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// Reach no source and no witness.
    #[arg(long)]
    offline: bool,
}

/// How a finding is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// In order.
    Ok,
    /// It works, and somebody must look.
    Warn,
    /// It does not work.
    Fault,
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct Finding {
    verdict: Verdict,
    /// The part that is checked.
    part: &'static str,
    what: String,
    /// What to do; empty if nothing.
    remedy: &'static str,
}

/// The report so far.
#[derive(Default)]
struct Report(Vec<Finding>);

impl Report {
    fn ok(&mut self, part: &'static str, what: impl Into<String>) {
        self.0.push(Finding { verdict: Verdict::Ok, part, what: what.into(), remedy: "" });
    }

    fn warn(&mut self, part: &'static str, what: impl Into<String>, remedy: &'static str) {
        self.0.push(Finding { verdict: Verdict::Warn, part, what: what.into(), remedy });
    }

    fn fault(&mut self, part: &'static str, what: impl Into<String>, remedy: &'static str) {
        self.0.push(Finding { verdict: Verdict::Fault, part, what: what.into(), remedy });
    }
}

pub fn run(args: &DoctorArgs, output: Output) -> Result<(), CliError> {
    let mut report = Report::default();
    // Without a configuration nothing else can be checked.
    let config = args.config.load()?;
    report.ok("configuration", config.file.display().to_string());
    let catalogue = match config.catalogue() {
        Ok(catalogue) => Some(catalogue),
        Err(faults) => {
            for fault in faults {
                report.fault("configuration", fault.to_string(), "mend the file: the gateway does not start with it");
            }
            None
        }
    };
    let exposed = catalogue.iter().flat_map(|catalogue| &catalogue.exposed);
    for fault in config.exposed.iter().chain(exposed) {
        report.fault("secrets", fault.to_string(), "chmod 600: whoever reads it is the gateway to others");
    }
    certificates(&config, catalogue.as_ref(), &mut report);
    let runs = process(&config, &mut report);
    ports(&config, runs, &mut report);
    folder(&config, &mut report);
    keys(&config, &mut report);
    time(&config, &mut report);
    if !args.offline {
        if let Some(cluster) = &config.cluster {
            etcd(cluster, &mut report)?;
        }
        endpoints(&config, catalogue.as_ref(), &mut report)?;
    }
    shown(&report.0, output)
}

fn shown(findings: &[Finding], output: Output) -> Result<(), CliError> {
    output.records(findings, &["", "part", "found", "what to do"], |one| {
        let verdict = match one.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fault => "FAULT",
        };
        vec![verdict.to_owned(), one.part.to_owned(), one.what.clone(), one.remedy.to_owned()]
    })?;
    match findings.iter().filter(|one| one.verdict == Verdict::Fault).count() {
        0 => Ok(()),
        faults => Err(CliError::Failed(counted(faults as u64, "fault", "faults"))),
    }
}

/// The gateway's certificate, the CAs and lists of clients, and every certificate that an entry names.
fn certificates(config: &Config, catalogue: Option<&Catalogue>, report: &mut Report) {
    let now = now();
    match check_tls(config) {
        Ok(gate) => {
            let faults = [gate.faults(now), gate.trust.leftovers(now)].concat();
            if faults.is_empty() {
                report.ok("tls", "certificate, key, client CAs and revocation lists fit together");
            }
            for fault in faults {
                report.fault("tls", fault, "the gateway is not ready with it: docs/operation.md, revocation");
            }
        }
        Err(error) => report.fault("tls", error.to_string(), "the gateway does not start with it"),
    }
    let named = catalogue.map(|catalogue| catalogue.files.as_slice()).unwrap_or_default();
    let own = config.tls.files();
    let mut files: Vec<&Path> = named.iter().chain(&own).map(PathBuf::as_path).collect();
    files.sort_unstable();
    files.dedup();
    for file in files {
        for Ending { what, at, .. } in expirations(file).into_iter().filter(|ending| ending.is_near(now)) {
            let what = format!("{what} in {} ends {}", file.display(), super::output::time(at));
            match at <= now {
                true => report.fault("certificate", what, "renew it: nobody accepts it any more"),
                false => report.warn("certificate", what, "renew it before then"),
            }
        }
    }
}

/// The gateway of this folder, if it runs, and the limits of a process.
fn process(config: &Config, report: &mut Report) -> bool {
    match LockOwner::of(&LogPaths::new(&config.data)) {
        Ok(Some(owner)) => {
            report.ok("process", format!("a gateway of this folder runs (process {})", owner.pid()));
            open_files(owner.pid(), config.listen.open_files(), report);
            true
        }
        Ok(None) => {
            report.warn(
                "process",
                "no gateway of this folder runs",
                "start it: serve, or systemctl start ndxp-gateway",
            );
            false
        }
        Err(error) => {
            report.fault("process", error.to_string(), "is the data folder this account's?");
            false
        }
    }
}

/// Whether the gateway's process may have as many files open as its connections need.
fn open_files(pid: i32, needed: u64, report: &mut Report) {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    let hard = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().nth(1));
    match hard.and_then(|hard| hard.parse::<u64>().ok()) {
        Some(files) if files < needed => report.warn(
            "process",
            format!("{files} open files are allowed, and listen.max_connections may need {needed}"),
            "raise LimitNOFILE in the unit, or lower listen.max_connections",
        ),
        Some(files) => report.ok("process", format!("{files} open files are allowed, enough for {needed}")),
        // Unlimited, or another account's process.
        None => {}
    }
}

/// Whether the ports are free, where no gateway of this folder has them.
fn ports(config: &Config, runs: bool, report: &mut Report) {
    let listen = &config.listen;
    let all: [Option<SocketAddr>; 3] = [Some(listen.grpc), listen.https, listen.operator_http];
    for address in all.into_iter().flatten().filter(|_| !runs) {
        match TcpListener::bind(address) {
            Ok(_) => report.ok("port", format!("{address} is free")),
            Err(error) => {
                let remedy = "end what listens there (ss -ltnp), or listen elsewhere ([listen])";
                report.fault("port", format!("{address}: {error}"), remedy);
            }
        }
    }
}

/// The data folder: whose it is, whether it can be written, and how much room its disk has.
fn folder(config: &Config, report: &mut Report) {
    let data = &config.data;
    let Ok(found) = std::fs::metadata(data) else {
        let remedy = "make it (mode 0700), or name it in `data`; then keys init";
        return report.fault("data folder", format!("{} is not there", data.display()), remedy);
    };
    if found.permissions().mode() & 0o077 != 0 {
        let what =
            format!("{} is open to other accounts (mode {:o})", data.display(), found.permissions().mode() & 0o777);
        report.fault("data folder", what, "chmod 700");
    }
    match tempfile::NamedTempFile::new_in(data) {
        Ok(_) => report.ok("data folder", format!("{} can be written", data.display())),
        Err(error) => {
            let remedy = "run as the gateway's account, or give it the folder";
            report.fault("data folder", format!("{}: {error}", data.display()), remedy);
        }
    }
    if let Ok(disk) = rustix::fs::statvfs(data) {
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let what = format!("{:.1} GB are free on its disk", free as f64 / f64::from(1 << 30));
        match free {
            0..SPACE_OUT => report.fault("disk", what, "make room: without it every call is refused"),
            SPACE_OUT..SPACE_LOW => report.warn("disk", what, "make room, or set a retention (log.archive)"),
            _ => report.ok("disk", what),
        }
    }
}

/// The log's key, the signing key of tokens, and the people who administer.
fn keys(config: &Config, report: &mut Report) {
    if joins(config) {
        return report.ok("keys", "they come from etcd at the first start, and the registry with them");
    }
    match key::read(&config.data, &config.vault, &config.log.origin) {
        Ok(_) => report.ok("keys", "the log's key can be read"),
        Err(error) => report.fault("keys", error.to_string(), "keys init before the first start; else restore it"),
    }
    match open_keys(config) {
        Ok(open) => {
            for file in open {
                let what = format!("{} lies open, though keys.encryption_secret is configured", file.display());
                report.warn("keys", what, "stop the gateway, then keys seal");
            }
        }
        Err(error) => report.fault("keys", error.to_string(), "is the data folder this account's?"),
    }
    let path = registry_path(&config.data);
    if !path.exists() {
        return report.warn("registry", "there is none yet", "staff bootstrap, then keys rotate");
    }
    let read = || {
        let store = SqliteStore::open_with(&path, &config.vault)?;
        Ok::<_, crate::registry::RegistryError>((
            store.keys()?,
            store.staff()?,
            store.clients(Page::ALL)?.records.len(),
        ))
    };
    match read() {
        Ok((keys, staff, clients)) => {
            match signing_key(&keys, now()) {
                Some(_) => report.ok("keys", "there is a signing key for tokens"),
                None => report.warn("keys", "there is no signing key: no token can be issued", "keys rotate"),
            }
            match staff.len() {
                0 => report.warn("registry", "nobody administers", "staff bootstrap"),
                people => {
                    let people = counted(people as u64, "person", "people");
                    let clients = counted(clients as u64, "client", "clients");
                    report.ok("registry", format!("staff: {people}; registered: {clients}"))
                }
            }
        }
        Err(error) => report.fault("registry", error.to_string(), "audit verify --registry; restore it from a backup"),
    }
}

/// Whether the clock is behind the log: the gateway would go on from the log's time.
fn time(config: &Config, report: &mut Report) {
    let newest = || {
        let reader = LogOpener::new(&config.data, &config.vault).open().ok()?;
        let mut newest = None;
        reader
            .newest_first(reader.size(), |found| {
                newest = Some(found.entry.time_us);
                false
            })
            .ok()?;
        newest
    };
    let Some(newest) = newest() else { return report.ok("log", "it has no entries yet") };
    let behind = newest.saturating_sub(clock::now_us()).div_euclid(1_000_000);
    match behind > MAX_BEHIND_S {
        true => {
            report.fault("clock", format!("it is {behind} s behind the log's newest entry"), "set the clock (chrony)")
        }
        false => {
            report.ok("clock", format!("the log's newest entry is of {}", super::output::time(newest / 1_000_000)))
        }
    }
}

/// The members of etcd, and whether a gateway may work with what they hold.
fn etcd(settings: &ClusterSettings, report: &mut Report) -> Result<(), CliError> {
    let (status, faults) = runtime()?.block_on(async {
        let members = connect(settings)?;
        let status = status::read(&members, None).await;
        let faults = [version::check(&members).await.err(), guard::confirmed(&members).await.err()];
        Ok::<_, CliError>((status, faults))
    })?;
    for (url, member) in settings.etcd.iter().zip(status.members) {
        let remedy = "docs/cluster.md: its certificates, ports 2379, roles.sh";
        match member.fault {
            Some(fault) => report.fault("etcd", format!("{url}: {fault}"), remedy),
            None => report.ok("etcd", format!("{url}: version {}", member.version)),
        }
    }
    for fault in faults.into_iter().flatten() {
        report.fault("etcd", fault.to_string(), "docs/cluster.md, States in which a gateway stops");
    }
    Ok(())
}

/// Each address of each source, each witness, and each other site of the log.
fn endpoints(config: &Config, catalogue: Option<&Catalogue>, report: &mut Report) -> Result<(), CliError> {
    let mut wanted: Vec<(&'static str, String, String, rustls::ClientConfig, Option<String>)> = Vec::new();
    for entry in catalogue.iter().flat_map(|catalogue| catalogue.sources.values()) {
        let targets = std::iter::once(&entry.first).chain(entry.second.as_ref().map(|(_, target)| target));
        for target in targets {
            for address in &target.addresses {
                let (tls, path) = (target.tls.clone(), target.health_path.clone());
                wanted.push(("source", entry.source.clone(), address.clone(), tls, path));
            }
        }
    }
    let ca = config.log.witness_ca.as_deref().unwrap_or(&config.tls.client_ca);
    let own = (config.tls.certificate.as_path(), config.tls.key.as_path());
    for witness in &config.log.policy.witnesses {
        let Some(url) = &witness.url else { continue };
        match tls::client_config(ca, Some(own), &[]) {
            Ok(tls) => wanted.push(("witness", witness.name.clone(), url.clone(), tls, None)),
            Err(fault) => report.fault("witness", format!("{}: {fault}", witness.name), "see log.witness_ca"),
        }
    }
    let sites = config.cluster.iter().flat_map(|cluster| cluster.tiles.iter().map(|url| (url, &cluster.tiles_tls)));
    wanted.extend(sites.map(|(url, tls)| ("site", "tiles".to_owned(), url.clone(), tls.clone(), None)));
    wanted.sort_by(|one, other| (one.0, &one.1, &one.2).cmp(&(other.0, &other.1, &other.2)));
    let progress = bar("reaching {bar:40} {pos}/{len} addresses")?;
    progress.set_length(wanted.len() as u64);
    let checks = wanted.iter().map(|(_, _, address, tls, path)| {
        let progress = progress.clone();
        async move {
            let checked = check(address, tls, path.as_deref()).await;
            progress.inc(1);
            checked
        }
    });
    let found = runtime()?.block_on(futures_util::future::join_all(checks));
    progress.finish_and_clear();
    for ((part, name, address, ..), checked) in wanted.iter().zip(found) {
        match checked {
            Ok(()) => report.ok(part, format!("{name}: {address}")),
            Err(fault) => {
                report.fault(part, format!("{name}: {address}: {fault}"), "network, name and CA in its entry")
            }
        }
    }
    Ok(())
}
