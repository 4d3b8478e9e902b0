//! `cluster status`.

use super::settings;
use crate::cli::output::{Output, print_json, print_rows};
use crate::cli::{CliError, runtime};
use crate::cluster::adoption::EtcdLog;
use crate::cluster::member::MemberStatus;
use crate::cluster::overview::{self, ClusterOverview};
use crate::cluster::report::GatewayReport;
use crate::cluster::{ClusterError, guard};
use crate::config::Config;
use crate::exchange_log::tiles::checkpoint_path;
use crate::exchange_log::{LogPaths, clock};
use crate::registry::sqlite::SqliteStore;
use crate::server::{connect, registry_path};
use serde_json::{Value, json};

/// What was found.
struct Found {
    members: Vec<(String, Result<MemberStatus, ClusterError>)>,
    overview: Result<ClusterOverview, ClusterError>,
    /// Why a gateway would stop, or not start.
    fault: Option<ClusterError>,
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
    let unreachable = || "etcd has no quorum: log and registry cannot be read".to_owned();
    match (&found.overview, &found.fault) {
        (Err(ClusterError::NoQuorum | ClusterError::OutcomeUnknown(_)), _) => Err(CliError::Unreachable(unreachable())),
        (Err(error), _) | (_, Some(error)) => Err(CliError::Failed(error.to_string())),
        _ => Ok(()),
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
        let status = overview::members(&members).await;
        let overview = overview::read(&members).await;
        let fault = match guard::confirmed(&members).await {
            Err(error) if !error.may_pass() => Some(error),
            _ => None,
        };
        let members = settings.etcd.iter().cloned().zip(status).collect();
        Ok(Found { members, overview, fault, replica, published_s })
    })
}

fn show(found: &Found) {
    let rows = found.members.iter().map(|(url, status)| member_row(url, status)).collect();
    print_rows(&["member", "version", "role", "revision", "MiB used", "of", "alarms"], rows, &["of"]);
    let Ok(overview) = &found.overview else { return };
    let sealed = match &overview.log {
        EtcdLog::Empty => {
            anstream::println!("log: none; `cluster begin` brings one");
            0
        }
        EtcdLog::Left(left) => {
            anstream::println!("log: has left with {} entries; {} writes it alone", left.state.size(), left.gateway);
            left.state.size()
        }
        EtcdLog::Begun(state) => {
            let sealer = overview.sealer.as_deref().unwrap_or("nobody: no gateway runs");
            anstream::println!("log: {} entries sealed, epoch {}; sealer: {sealer}", state.size(), state.epoch);
            state.size()
        }
    };
    if let Some(age) = found.published_s {
        anstream::println!("checkpoint: this site has published its last one {age} s ago");
    }
    let rows: Vec<Vec<String>> = overview
        .sites
        .iter()
        .map(|(site, stored)| vec![site.to_string(), stored.to_string(), sealed.saturating_sub(*stored).to_string()])
        .collect();
    if !rows.is_empty() {
        print_rows(&["site", "stored", "behind"], rows, &[]);
    }
    let now_us = clock::now_us();
    let row = |one: &GatewayReport| {
        let age = now_us.saturating_sub(one.time_us).max(0) / 1_000_000;
        let stopped = one.stopped.clone().unwrap_or_default();
        vec![one.gateway.clone(), one.version.clone(), format!("{age} s"), one.change.to_string(), stopped]
    };
    if !overview.gateways.is_empty() {
        let rows = overview.gateways.iter().map(row).collect();
        print_rows(&["gateway", "version", "reported", "registry", "stopped"], rows, &["version"]);
    }
    match (&overview.registry, found.replica) {
        (None, _) => anstream::println!("registry: none"),
        (Some(head), Some(own)) => {
            anstream::println!("registry: change {}; this gateway has change {own}", head.number)
        }
        (Some(head), None) => anstream::println!("registry: change {}; this gateway has none of it", head.number),
    }
}

fn member_row(url: &str, status: &Result<MemberStatus, ClusterError>) -> Vec<String> {
    let name = url.split("://").last().unwrap_or(url).to_owned();
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20).to_string();
    match status {
        Err(error) => {
            vec![name, String::new(), "away".into(), String::new(), String::new(), String::new(), error.to_string()]
        }
        Ok(status) => {
            let role = if status.leader == status.header.member { "leader" } else { "follower" };
            let revision = status.header.revision.to_string();
            let (used, all) = (mebibytes(status.bytes_in_use), mebibytes(status.bytes));
            vec![name, status.version.clone(), role.into(), revision, used, all, status.alarms.join(", ")]
        }
    }
}

fn document(found: &Found) -> Value {
    let member = |(url, status): &(String, Result<MemberStatus, ClusterError>)| match status {
        Err(error) => json!({ "member": url, "error": error.to_string() }),
        Ok(status) => json!({
            "member": url,
            "id": format!("{:x}", status.header.member),
            "version": status.version,
            "is_leader": status.leader == status.header.member,
            "revision": status.header.revision,
            "database_bytes": status.bytes,
            "database_bytes_in_use": status.bytes_in_use,
            "alarms": status.alarms,
        }),
    };
    let members: Vec<Value> = found.members.iter().map(member).collect();
    let overview = match &found.overview {
        Err(error) => return json!({ "members": members, "error": error.to_string() }),
        Ok(overview) => overview,
    };
    let (state, left) = match &overview.log {
        EtcdLog::Empty => (None, None),
        EtcdLog::Begun(state) => (Some(state), None),
        EtcdLog::Left(left) => (Some(&left.state), Some(left.gateway.to_string())),
    };
    let sealed = state.map_or(0, |state| state.size());
    let sites: Vec<Value> = overview
        .sites
        .iter()
        .map(|(site, stored)| json!({ "site": site.to_string(), "stored": stored, "behind": sealed.saturating_sub(*stored) }))
        .collect();
    let log = state.map(|state| {
        json!({
            "sealed": state.size(),
            "root": crate::hex::hex(&state.root()),
            "epoch": state.epoch,
            "sealer": overview.sealer,
            "left_for": left,
            "published_here_s": found.published_s,
        })
    });
    let registry = overview
        .registry
        .as_ref()
        .map(|head| json!({ "change": head.number, "events": head.events, "change_here": found.replica }));
    let fault = found.fault.as_ref().map(ToString::to_string);
    json!({ "members": members, "log": log, "sites": sites, "gateways": overview.gateways, "registry": registry, "fault": fault })
}
