//! `cluster status`.

use super::settings;
use crate::cli::output::{Output, print_json, print_rows};
use crate::cli::{CliError, runtime};
use crate::cluster::guard;
use crate::cluster::report::GatewayReport;
use crate::cluster::status::{self, ClusterStatus, MemberView};
use crate::config::Config;
use crate::exchange_log::tiles::checkpoint_path;
use crate::exchange_log::{LogPaths, clock};
use crate::registry::sqlite::SqliteStore;
use crate::server::{connect, registry_path};
use serde_json::{Value, json};

/// What was found.
struct Found {
    status: ClusterStatus,
    /// The URLs of the members.
    urls: Vec<String>,
    /// Why a gateway would stop, or not start.
    fault: Option<String>,
    /// Number of the last change that this folder's replica has.
    replica: Option<u64>,
    /// When this folder has published its last checkpoint, in seconds.
    published_s: Option<u64>,
}

pub(super) fn run(config: &Config, output: Output) -> Result<(), CliError> {
    let found = look(config)?;
    match output {
        Output::Json => print_json(&document(&found))?,
        Output::Human => show(&found),
    }
    match &found.fault {
        Some(fault) => Err(CliError::Failed(fault.clone())),
        None if found.status.checkpoint.is_none() => {
            Err(CliError::Unreachable("etcd has no quorum: log and registry cannot be read".into()))
        }
        None if !found.status.faults.is_empty() => Err(CliError::Failed(found.status.faults.join("; "))),
        None => Ok(()),
    }
}

fn look(config: &Config) -> Result<Found, CliError> {
    let settings = settings(config)?;
    // Read alone: the gateway may run, and the folder may not be there yet.
    let path = registry_path(&config.data);
    let replica = match path.exists() {
        true => SqliteStore::open_with(&path, &config.vault)?.replica_state()?.map(|(number, _)| number),
        false => None,
    };
    let published = checkpoint_path(&LogPaths::new(&config.data).tiles);
    let published = std::fs::metadata(published).and_then(|file| file.modified()).ok();
    let published_s = published.and_then(|time| Some(time.elapsed().ok()?.as_secs()));
    runtime()?.block_on(async {
        let members = connect(settings)?;
        let status = status::read(&members, None).await;
        let fault = guard::confirmed(&members).await.err().filter(|error| !error.may_pass());
        let fault = fault.map(|error| error.to_string());
        Ok(Found { status, urls: settings.etcd.clone(), fault, replica, published_s })
    })
}

fn show(found: &Found) {
    let status = &found.status;
    let rows = found.urls.iter().zip(&status.members).map(|(url, member)| member_row(url, member)).collect();
    print_rows(&["member", "version", "role", "revision", "MiB used", "of", "alarms"], rows, &["of"]);
    match &status.checkpoint {
        None if status.faults.is_empty() => anstream::println!("log: none; `cluster begin` brings one"),
        None => anstream::println!("log: not known"),
        Some(log) => match &log.left_for {
            Some(gateway) => {
                anstream::println!("log: has left with {} entries; {gateway} writes it alone", log.entries);
            }
            None => {
                let sealer = status.sealer.as_ref().map(|sealer| sealer.gateway.as_str());
                let sealer = sealer.unwrap_or("nobody: no gateway runs");
                anstream::println!("log: {} entries sealed, epoch {}; sealer: {sealer}", log.entries, log.epoch);
            }
        },
    }
    if let Some(age) = found.published_s {
        anstream::println!("checkpoint: this site has published its last one {age} s ago");
    }
    let rows: Vec<_> = sites(status).map(|(name, stored, behind)| vec![name, stored.to_string(), behind]).collect();
    if !rows.is_empty() {
        print_rows(&["site", "stored", "behind"], rows, &[]);
    }
    let rows: Vec<_> = reports(status).map(report_row).collect();
    if !rows.is_empty() {
        print_rows(&["gateway", "version", "reported", "registry", "stopped"], rows, &["version"]);
    }
    match (&status.registry, found.replica) {
        (None, _) if status.faults.is_empty() => anstream::println!("registry: none"),
        (None, _) => anstream::println!("registry: not known"),
        (Some(registry), Some(own)) => {
            anstream::println!("registry: change {}; this gateway has change {own}", registry.change)
        }
        (Some(registry), None) => {
            anstream::println!("registry: change {}; this gateway has none of it", registry.change)
        }
    }
}

/// The name of each site, the entries that it stores, and how many it is behind; empty if that is not known.
fn sites(status: &ClusterStatus) -> impl Iterator<Item = (String, u64, String)> + '_ {
    status.gateways.iter().filter_map(|view| {
        let behind = view.behind.map(|behind| behind.to_string()).unwrap_or_default();
        Some((view.name.clone(), view.stored?, behind))
    })
}

fn reports(status: &ClusterStatus) -> impl Iterator<Item = &GatewayReport> {
    status.gateways.iter().filter_map(|view| view.report.as_ref())
}

fn report_row(report: &GatewayReport) -> Vec<String> {
    let age = clock::now_us().saturating_sub(report.time_us).max(0) / 1_000_000;
    let stopped = report.stopped.clone().unwrap_or_default();
    vec![report.gateway.clone(), report.version.clone(), format!("{age} s"), report.change.to_string(), stopped]
}

fn member_row(url: &str, member: &MemberView) -> Vec<String> {
    let name = url.split("://").last().unwrap_or(url).to_owned();
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20).to_string();
    if let Some(fault) = &member.fault {
        return vec![name, String::new(), "away".into(), String::new(), String::new(), String::new(), fault.clone()];
    }
    let role = match (member.is_leader, member.has_leader) {
        (true, _) => "leader",
        (false, true) => "follower",
        (false, false) => "alone",
    };
    let (used, all) = (mebibytes(member.database_bytes_in_use), mebibytes(member.database_bytes));
    vec![name, member.version.clone(), role.into(), member.revision.to_string(), used, all, member.alarms.join(", ")]
}

fn document(found: &Found) -> Value {
    let status = &found.status;
    let member = |(url, member): (&String, &MemberView)| {
        let mut value = json!(member);
        value["member"] = json!(url);
        value
    };
    let site = |view: &status::GatewayView| {
        view.stored.map(|stored| json!({ "site": view.name, "stored": stored, "behind": view.behind }))
    };
    let log = status.checkpoint.as_ref().map(|log| {
        json!({
            "sealed": log.entries,
            "root": log.root,
            "epoch": log.epoch,
            "sealer": status.sealer.as_ref().map(|sealer| &sealer.gateway),
            "left_for": log.left_for,
            "published_here_s": found.published_s,
        })
    });
    let registry = status
        .registry
        .map(|registry| json!({ "change": registry.change, "events": registry.events, "change_here": found.replica }));
    json!({
        "members": found.urls.iter().zip(&status.members).map(member).collect::<Vec<_>>(),
        "log": log,
        "sites": status.gateways.iter().filter_map(site).collect::<Vec<_>>(),
        "gateways": reports(status).collect::<Vec<_>>(),
        "registry": registry,
        "changes": status.changes,
        "faults": status.faults,
        "fault": found.fault,
    })
}
