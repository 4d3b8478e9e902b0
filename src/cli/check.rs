//! `config` and `contract`: check and show, before anything runs.

use super::operation_name::unknown;
use super::output::{Output, counted, print_json};
use super::{CliError, ConfigFile};
use crate::config::{Catalogue, Config, ConfigFault, fault_at, schema};
use crate::contract::plan::{FieldKind, MessagePlan};
use crate::contract::warnings::{ContractWarning, warnings};
use crate::contract::{ContractSet, Operation};
use crate::exchange_log::{LockOwner, LogPaths, key};
use crate::guard::GuardSettings;
use crate::identity::tls::Revocation;
use crate::server::{StartError, registry_path};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// There while the package's socket unit is enabled.
const SOCKET_UNIT: &str = "/etc/systemd/system/sockets.target.wants/ndxp-gateway.socket";

#[derive(Args)]
pub struct ConfigArgs {
    #[command(flatten)]
    config: ConfigFile,
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Read everything that `serve` would read: configuration, certificates, contracts, hubs, sources.
    Check,
    /// Show the configuration with every default, and the address of each source. Never shows a secret.
    Show,
    /// Print the JSON Schema of gateway.toml, for editors that complete and check it.
    Schema,
}

pub fn run_config(args: ConfigArgs, output: Output) -> Result<(), CliError> {
    if matches!(args.command, ConfigCommand::Schema) {
        return print_json(&schema::gateway());
    }
    let config = args.config.load()?;
    let catalogue = config.catalogue()?;
    match args.command {
        ConfigCommand::Check => {
            let exposed = [config.exposed.clone(), catalogue.exposed.clone()];
            let gate = crate::server::check_tls(&config);
            let lists = revocation(&config, gate.as_ref().err());
            refuse(&[exposed.concat(), lists, data(&config), ports(&config)].concat())?;
            let gate = gate.map_err(|error| CliError::Usage(error.to_string()))?;
            if !joins(&config) {
                key::read(&config.data, &config.vault, &config.log.origin)
                    .map_err(|error| CliError::Usage(error.to_string()))?;
            }
            let now = crate::registry::now();
            let faults = [gate.faults(now), gate.trust.leftovers(now)].concat();
            if !faults.is_empty() {
                return Err(CliError::Usage(faults.join("\n")));
            }
            let (operations, sources) = (catalogue.contracts.operations().len(), catalogue.sources.len());
            let missing: Vec<&str> = catalogue
                .contracts
                .sources()
                .iter()
                .filter(|source| !catalogue.sources.contains_key(&source.id))
                .map(|source| source.id.as_str())
                .collect();
            let unused = &catalogue.unused_hubs;
            let value = json!({
                "ok": true, "operations": operations, "sources": sources, "unconnected": missing, "unused_hubs": unused,
            });
            output.result(&value, || {
                let rest = if missing.is_empty() {
                    String::new()
                } else {
                    format!("; no connection entry for {}: their operations are not served", missing.join(", "))
                };
                let rest = match unused.is_empty() {
                    true => rest,
                    false => format!("{rest}; no source uses the hub {}", unused.join(", ")),
                };
                let sources = counted(sources as u64, "source", "sources");
                let operations = counted(operations as u64, "operation", "operations");
                format!("{}: {sources}, {operations}{rest}", config.file.display())
            })
        }
        ConfigCommand::Show | ConfigCommand::Schema => print_json(&config_json(&config, &catalogue)),
    }
}

/// Whether keys and registry come from etcd at the first start: a gateway of a cluster with an empty data folder.
pub(super) fn joins(config: &Config) -> bool {
    config.cluster.is_some() && !key::path(&config.data).exists() && !registry_path(&config.data).exists()
}

/// Refuses a configuration with such faults.
fn refuse(faults: &[ConfigFault]) -> Result<(), CliError> {
    let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
    if lines.is_empty() { Ok(()) } else { Err(CliError::Usage(lines.join("\n"))) }
}

/// Revocation lists that cannot be read, or are none: the other files of TLS were read with the configuration.
fn revocation(config: &Config, error: Option<&StartError>) -> Vec<ConfigFault> {
    let key = match &config.tls.revocation {
        Revocation::Checked(sources) if !sources.files.is_empty() => "tls.crl",
        _ => "tls.crl_url",
    };
    match error {
        Some(StartError::Tls(fault)) => vec![fault_at(&config.file, key, fault)],
        _ => Vec::new(),
    }
}

/// A data folder in which no file can be made.
fn data(config: &Config) -> Vec<ConfigFault> {
    let folder = &config.data;
    let probe = if folder.exists() { tempfile::NamedTempFile::new_in(folder).err() } else { None };
    let remedy = "run as the gateway's account, or give it the folder";
    probe
        .map(|error| fault_at(&config.file, "data", format!("{}: {error}: {remedy}", folder.display())))
        .into_iter()
        .collect()
}

/// Addresses of `[listen]` that the gateway cannot have, unless it has them already.
fn ports(config: &Config) -> Vec<ConfigFault> {
    let listen = &config.listen;
    if matches!(LockOwner::of(&LogPaths::new(&config.data)), Ok(Some(_))) {
        return Vec::new();
    }
    let all = [
        ("listen.grpc", Some(listen.grpc)),
        ("listen.https", listen.https),
        ("listen.operator_http", listen.operator_http),
    ];
    let taken = |(key, address): (&str, Option<SocketAddr>)| {
        let bound = address?;
        let error = TcpListener::bind(bound).err()?;
        // systemd listens for the gateway while it does not run.
        let is_ours = error.kind() == ErrorKind::AddrInUse && Path::new(SOCKET_UNIT).exists();
        let remedy = "end what listens there (ss -ltnp), or listen elsewhere";
        let fault = || fault_at(&config.file, key, format!("{bound}: {error}: {remedy}"));
        (!is_ours).then(fault)
    };
    all.into_iter().filter_map(taken).collect()
}

fn guard_json(guard: &GuardSettings) -> Value {
    json!({
        "concurrency": guard.concurrency, "queue": guard.queue,
        "breaker_window": guard.breaker.window, "breaker_failures_percent": guard.breaker.failures_percent,
        "breaker_open_ms": guard.breaker.open_for.as_millis() as u64,
        "breaker_slow_ms": guard.breaker.slow.as_millis() as u64, "breaker_slow_percent": guard.breaker.slow_percent,
        "attempts": guard.retry.attempts, "retry_backoff_ms": guard.retry.backoff.as_millis() as u64,
        "retry_budget_percent": guard.retry.budget_percent,
        "hedge_ms": guard.hedge.map(|after| after.as_millis() as u64),
    })
}

fn config_json(config: &Config, catalogue: &Catalogue) -> Value {
    let listen = &config.listen;
    let lists = match &config.tls.revocation {
        Revocation::Checked(sources) => Some(sources),
        Revocation::Unchecked => None,
    };
    let mut sources: Vec<Value> = catalogue
        .sources
        .values()
        .map(|entry| {
            json!({
                "source": entry.source, "hub": entry.first.hub, "address": entry.first.addresses,
                "second_hub": entry.second.as_ref().and_then(|(_, reach)| reach.hub.as_ref()),
                "guard": guard_json(&entry.guard),
                "own_guards": entry.own_guards.iter().map(|(name, guard)| (name.clone(), guard_json(guard))).collect::<serde_json::Map<_, _>>(),
            })
        })
        .collect();
    sources.sort_by_key(|source| source["source"].to_string());
    json!({
        "node": config.node, "data": config.data,
        "listen": {
            "grpc": listen.grpc, "https": listen.https, "operator_http": listen.operator_http, "workers": listen.workers,
            "max_message_bytes": listen.max_message, "max_connections": listen.max_connections,
            "max_connections_per_peer": listen.max_connections_per_peer,
            "handshakes_per_peer_s": listen.handshakes_per_peer_s, "handshakes_s": listen.handshakes_s,
            "max_connection_age_s": listen.max_connection_age.as_secs(),
            "max_streams_per_connection": listen.max_streams,
            "handshake_timeout_ms": listen.handshake_timeout.as_millis() as u64,
            "send_timeout_ms": listen.send_timeout.as_millis() as u64,
            "drain_timeout_ms": listen.drain_timeout.as_millis() as u64,
        },
        "tls": {
            "certificate": config.tls.certificate, "key": config.tls.key, "client_ca": config.tls.client_ca,
            "names": config.tls.names,
            "revocation": lists.is_none().then_some("none"),
            "crl": lists.map(|lists| &lists.files),
            "crl_url": lists.map(|lists| lists.urls.iter().map(ToString::to_string).collect::<Vec<_>>()),
            "crl_every_ms": lists.map(|lists| lists.every.as_millis() as u64),
            "allow_tls12": config.tls.allow_tls12,
        },
        "tokens": {
            "issuer": config.tokens.issuer, "audience": config.tokens.audience, "leeway_s": config.tokens.leeway_s,
            "lifetime_s": config.tokens.lifetime.as_secs(), "max_lifetime_s": config.tokens.max_lifetime.as_secs(),
            "jwks_max_age_s": config.tokens.jwks_max_age.as_secs(),
            "keep_ended_days": config.tokens.keep_ended_days, "max_ended": config.tokens.max_ended,
            "fetches_per_s": config.tokens.fetches.each_second,
            "questions_per_s": config.tokens.questions.each_second,
        },
        "log": {
            "origin": config.log.origin,
            "index": config.log.index,
            "archive": config.log.retention.as_ref().map(|kept| &kept.archive),
            "keep_days": config.log.retention.as_ref().map(|kept| kept.days),
            "prune_every_s": config.log.retention.as_ref().map(|kept| kept.every.as_secs()),
            "witnesses": config.log.policy.witnesses.iter().map(|one| &one.name).collect::<Vec<_>>(),
        },
        "web": {
            "console": config.web.console,
            "openid": config.web.openid.as_ref().map(|openid| json!({
                "issuer": &*openid.issuer, "name": openid.name, "client_id": openid.client_id,
                "client_secret": openid.client_secret.as_ref().map(|_| "(secret)"), "redirect_uri": openid.redirect_uri,
                "claim": openid.claim, "scopes": openid.scopes, "leeway_s": openid.leeway_s,
            })),
        },
        "telemetry": {
            "access_lines": config.telemetry.access_lines,
            "traces": config.telemetry.traces.as_ref().map(|traces| serde_json::json!({
                "endpoint": traces.endpoint, "sample_percent": traces.sample_percent,
            })),
        },
        "cluster": config.cluster.as_ref().map(|cluster| json!({
            "etcd": cluster.etcd, "tls": cluster.tls.is_some(), "sites": cluster.sites, "tiles": cluster.tiles,
            "max_view_age_s": cluster.max_view_age.as_secs(), "etcd_quota_mib": cluster.etcd_quota >> 20,
            "refuse_after_ms": cluster.refuse_after.as_millis() as u64,
            "start_within_s": cluster.start_within.as_secs(), "own_disk_mib": cluster.own_disk >> 20,
            "spool": cluster.spool,
        })),
        "contracts_dir": config.contracts_dir, "hubs_dir": config.hubs_dir, "sources_dir": config.sources_dir,
        "names": config.names,
        "sources": sources,
    })
}

#[derive(Args)]
pub struct ContractArgs {
    /// Folder of further contracts, beside the embedded ones.
    #[arg(long, value_name = "DIR", global = true)]
    contracts: Option<PathBuf>,
    #[command(subcommand)]
    command: ContractCommand,
}

#[derive(Subcommand)]
enum ContractCommand {
    /// Compile every contract; report every fault with file and line, and warn about cases that an operation cannot
    /// distinguish.
    Check,
    /// List operations: scope, data class, protocol.
    List,
    /// Show an operation: its request and response, with formats and names at the source.
    Show {
        /// `Service/Method`, or a source's id for all of its operations.
        name: String,
    },
    /// Print the operations with one response as an OpenAPI 3.1 document, for callers that send plain JSON.
    Openapi {
        /// The gateway's address as callers reach it.
        #[arg(long, default_value = "https://localhost:8443", value_name = "URL")]
        server: String,
    },
    /// List where sources' responses differ from their contracts, by path and never by value; or report it to their
    /// owners.
    Drift(super::drift::DriftArgs),
}

pub fn run_contract(args: ContractArgs, output: Output) -> Result<(), CliError> {
    if let ContractCommand::Drift(args) = args.command {
        return super::drift::run(args, output);
    }
    let loaded = match &args.contracts {
        Some(folder) => ContractSet::with_folder(folder),
        None => ContractSet::embedded(),
    };
    let contracts = loaded
        .map_err(|faults| CliError::Usage(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))?;
    let operations = contracts.operations();
    match args.command {
        ContractCommand::Drift(args) => super::drift::run(args, output),
        ContractCommand::Check => {
            let (sources, count) = (contracts.sources().len(), operations.len());
            let warned = operations.iter().flat_map(|operation| {
                let of = |warning: ContractWarning| format!("{}: {warning}", operation.full_name);
                warnings(operation).into_iter().map(of).collect::<Vec<_>>()
            });
            let warned: Vec<String> = warned.collect();
            let value = json!({ "ok": true, "sources": sources, "operations": count, "warnings": warned });
            output.result(&value, || {
                let lines: String = warned.iter().map(|warning| format!("warning: {warning}\n")).collect();
                let sources = counted(sources as u64, "source", "sources");
                let operations = counted(count as u64, "operation", "operations");
                format!("{lines}{sources}, {operations}, {}", counted(warned.len() as u64, "warning", "warnings"))
            })
        }
        ContractCommand::Openapi { server } => print_json(&crate::openapi::document(operations, &server)),
        ContractCommand::List => {
            let rows: Vec<Value> = operations.iter().map(|operation| summary(operation)).collect();
            let header = ["source", "operation", "scope", "data", "purpose", "official", "writes", "protocol"];
            output.records(&rows, &header, |row| {
                let text = |name: &str| row[name].as_str().unwrap_or("").to_owned();
                let mark = |name: &str| if row[name] == true { "yes".to_owned() } else { String::new() };
                let operation = text("operation").rsplit('.').next().unwrap_or("").to_owned();
                let head = [text("source"), operation, text("scope"), text("data_class")];
                let marks = [mark("purpose_required"), mark("official_required"), mark("writes"), text("protocol")];
                head.into_iter().chain(marks).collect()
            })
        }
        ContractCommand::Show { name } => {
            let fits = |operation: &&&Arc<Operation>| {
                operation.source.id == name
                    || operation.full_name == name
                    || operation.full_name.ends_with(&format!(".{name}"))
            };
            let found: Vec<&&Arc<Operation>> = operations.iter().filter(fits).collect();
            if found.is_empty() {
                return Err(unknown(&contracts, &name));
            }
            match output {
                Output::Json => print_json(&found.iter().map(|operation| details(operation)).collect::<Vec<_>>()),
                Output::Human => {
                    found.iter().for_each(|operation| print_operation(operation));
                    Ok(())
                }
            }
        }
    }
}

fn summary(operation: &Operation) -> Value {
    json!({
        "source": operation.source.id, "operation": operation.full_name, "scope": operation.scope,
        "data_class": operation.data_class.as_str_name().to_lowercase(),
        "purpose_required": operation.purpose_required, "official_required": operation.official_required,
        "writes": operation.writes, "protocol": operation.binding.protocol(),
        "timeout_ms": operation.timeout.as_millis() as u64,
    })
}

fn details(operation: &Operation) -> Value {
    let mut value = summary(operation);
    value["request"] = Value::from(lines(&operation.request));
    value["response"] = Value::from(lines(&operation.response));
    value
}

fn print_operation(operation: &Operation) {
    anstream::println!("{}", operation.full_name);
    anstream::println!(
        "  {} ({}), {}, {}, timeout {} ms",
        operation.scope,
        operation.data_class.as_str_name().to_lowercase(),
        operation.binding.protocol(),
        if operation.writes { "writes" } else { "reads" },
        operation.timeout.as_millis()
    );
    let needed = [(operation.purpose_required, "ndxp-purpose"), (operation.official_required, "ndxp-official")];
    let needed: Vec<&str> = needed.iter().filter(|(needed, _)| *needed).map(|(_, name)| *name).collect();
    if !needed.is_empty() {
        anstream::println!("  metadata required: {}", needed.join(", "));
    }
    for (what, plan) in [("request", &operation.request), ("response", &operation.response)] {
        anstream::println!("  {what} {}", plan.message.name());
        lines(plan).iter().for_each(|line| anstream::println!("    {line}"));
    }
    anstream::println!();
}

/// Every field by path: its type, its rule, its name at the source.
fn lines(plan: &MessagePlan) -> Vec<String> {
    let mut found = Vec::new();
    describe(plan, "", &mut found);
    found
}

fn describe(plan: &MessagePlan, above: &str, found: &mut Vec<String>) {
    for field in &plan.fields {
        let path = if above.is_empty() { field.name.clone() } else { format!("{above}.{}", field.name) };
        let kind = match &field.kind {
            FieldKind::Message(inner) => inner.message.name().to_owned(),
            FieldKind::Enum(_) => field.field.kind().as_enum().map_or(String::new(), |kind| kind.name().to_owned()),
            FieldKind::Date(_) => "date".into(),
            FieldKind::Time(_) => "time".into(),
            FieldKind::Remaining => "map".into(),
            _ => format!("{:?}", field.field.kind()).to_lowercase(),
        };
        let mut line = format!("{path}: {}{kind}", if field.list { "list of " } else { "" });
        if field.required {
            line.push_str(", required");
        }
        if let Some(group) = field.group.and_then(|group| plan.groups.get(group)) {
            line.push_str(&format!(", one of {group}"));
        }
        if let Some(format) = field.format {
            line.push_str(&format!(", {}", crate::contract::formats::expectation(format)));
        }
        let names: Vec<String> = field.names.iter().map(|name| name.parts.join("/")).collect();
        line.push_str(&format!(" [{}]", names.join(" | ")));
        found.push(line);
        if let FieldKind::Message(inner) = &field.kind {
            describe(inner, &path, found);
        }
    }
}
