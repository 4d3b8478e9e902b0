//! The command line: one file a command group.

mod audit;
mod bench;
mod call;
mod certs;
mod changes;
mod check;
mod client_name;
mod clients;
mod cluster;
mod confirmation;
mod demo;
mod doctor;
mod drift;
mod examples;
mod grants;
mod init;
mod keys;
mod last_use;
mod layout;
mod manual;
mod operation_name;
mod output;
mod probe;
mod profile;
mod sandbox;
mod serve;
mod session;
mod sources;
mod staff;
mod suggestion;
mod token_fetch;
mod tokens;
mod witness;

use crate::caller::CallerError;
use crate::config::{Config, ConfigFault};
use crate::contract::validate::Violation;
use crate::exchange_log::LogError;
use crate::exchange_log::key::LogKeyError;
use crate::issuer::IssueError;
use crate::pki::PkiError;
use crate::registry::RegistryError;
use crate::sandbox::SandboxError;
use crate::server::StartError;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use output::Output;
use std::path::PathBuf;
use std::process::ExitCode;
use tonic_types::StatusExt;

/// Gateway between a province's systems and the national databases: typed gRPC in, each source's own protocol out,
/// every exchange in a tamper-evident log before its response leaves.
#[derive(Parser)]
#[command(name = "ndxp-gateway", version, about, long_about = None, propagate_version = true)]
#[command(after_help = "Exit codes: 0 done; 1 refused, failed or not verified; 2 wrong usage or configuration; \
                        3 the gateway cannot be reached.\nLogs go to standard error; NDXP_LOG sets their level.")]
struct Cli {
    /// How results are printed.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "human",
        env = "NDXP_OUTPUT",
        help_heading = "Global options"
    )]
    output: Output,
    /// Show every column and line of a table, whatever the terminal's width.
    #[arg(long, global = true, help_heading = "Global options")]
    wide: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show everything at once in a temporary folder: PKI, sandbox, gateway, a call of every operation, refusals, the
    /// log.
    Demo(demo::DemoArgs),
    /// Lay a production folder: configuration, examples of hubs and sources, units, keys, the first two people.
    Init(init::InitArgs),
    /// Run the gateway.
    Serve(serve::ServeArgs),
    /// Run the ten sources on loopback, or set up a development folder for them.
    Sandbox(sandbox::SandboxArgs),
    /// Manage a development CA: certificates for gateways, clients and sandbox (production has its own CA).
    #[command(subcommand)]
    Certs(certs::CertsCommand),
    /// Manage provincial systems that may call.
    Client(clients::ClientArgs),
    /// Manage the rights of clients.
    Grant(grants::GrantArgs),
    /// Manage staff.
    Staff(staff::StaffArgs),
    /// Check a source, or tell its callers of its maintenance.
    Source(sources::SourceArgs),
    /// Manage changes that wait for a second person.
    Change(changes::ChangeArgs),
    /// Manage access tokens.
    Token(tokens::TokenArgs),
    /// Manage keys: the gateway's own, made before its first start, and the signing keys of access tokens.
    Keys(keys::KeysArgs),
    /// Manage profiles of the gateways that you administer remotely, each with your certificate.
    #[command(subcommand)]
    Profile(profile::ProfileCommand),
    /// Call an operation as a provincial system, JSON in and out.
    Call(call::CallArgs),
    /// Put load on a running gateway, and report throughput and latency.
    Bench(bench::BenchArgs),
    /// Witness other machines' logs: sign that they only grow, and never sign another history.
    Witness(witness::WitnessArgs),
    /// Search, show and verify the exchange log.
    Audit(audit::AuditArgs),
    /// Several gateways over etcd: bring this gateway's log and registry there, or back; show how they are.
    Cluster(cluster::ClusterArgs),
    /// Look for what keeps a gateway from its work, or soon will: certificates, keys, ports, disk, clock, sources, witnesses.
    Doctor(doctor::DoctorArgs),
    /// Succeed if the gateway of this machine is alive, or ready: for the probes of containers and balancers.
    Probe(probe::ProbeArgs),
    /// Check the gateway's configuration, or show it with every default.
    Config(check::ConfigArgs),
    /// Check, list or show contracts; list where sources have drifted from them.
    Contract(check::ContractArgs),
    /// Print completions of this command line for a shell.
    Completions(manual::CompletionsArgs),
    /// Write the pages of this command line for man(1), one a command.
    Man(manual::ManArgs),
}

/// The gateway's configuration file.
#[derive(Args, Clone)]
struct ConfigFile {
    /// The gateway's configuration.
    #[arg(long, global = true, env = "NDXP_CONFIG", default_value = "gateway.toml", value_name = "FILE")]
    config: PathBuf,
}

impl ConfigFile {
    fn load(&self) -> Result<Config, CliError> {
        Ok(Config::load(&self.config)?)
    }
}

/// The reason that a command failed.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// The command or the configuration is wrong.
    #[error("{0}")]
    Usage(String),
    /// The command was refused, or failed.
    #[error("{0}")]
    Failed(String),
    /// The gateway cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    /// The gateway refused a call: what to tell a person, and the status for scripts.
    #[error("{text}")]
    Refused {
        /// The status in words, with what to do.
        text: String,
        /// The exit code.
        exit_code: u8,
        /// The status as it came.
        status: Box<tonic::Status>,
    },
}

impl From<crate::audit::AuditError> for CliError {
    fn from(error: crate::audit::AuditError) -> Self {
        CliError::Failed(error.to_string())
    }
}

impl CliError {
    fn code(&self) -> u8 {
        match self {
            CliError::Failed(_) => 1,
            CliError::Usage(_) => 2,
            CliError::Unreachable(_) => 3,
            CliError::Refused { exit_code, .. } => *exit_code,
        }
    }

    /// The error as JSON; of a refusal, with status, reason, exchange and violations as fields.
    fn json(&self) -> serde_json::Value {
        let mut error = serde_json::json!({ "error": self.to_string(), "exit_code": self.code() });
        if let (CliError::Refused { status, .. }, Some(fields)) = (self, error.as_object_mut()) {
            let details = status.get_error_details();
            let violation = |one: &tonic_types::FieldViolation| serde_json::json!({ "field": one.field, "description": one.description });
            fields.insert("status".into(), format!("{:?}", status.code()).into());
            fields.insert("message".into(), status.message().into());
            if let Some(info) = details.error_info() {
                fields.insert("reason".into(), info.reason.as_str().into());
                for (name, value) in &info.metadata {
                    fields.insert(name.clone(), value.as_str().into());
                }
            }
            if let Some(bad) = details.bad_request() {
                fields.insert("violations".into(), bad.field_violations.iter().map(violation).collect());
            }
            if let Some(delay) = details.retry_info().and_then(|retry| retry.retry_delay) {
                fields.insert("retry_after_s".into(), delay.as_secs_f64().into());
            }
        }
        error
    }
}

impl From<Vec<ConfigFault>> for CliError {
    fn from(faults: Vec<ConfigFault>) -> Self {
        CliError::Usage(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }
}

impl From<Violation> for CliError {
    fn from(violation: Violation) -> Self {
        CliError::Usage(format!("{} {}", violation.field, violation.description))
    }
}

impl From<StartError> for CliError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Config(faults) => faults.into(),
            StartError::Tls(fault) => CliError::Usage(fault.to_string()),
            other => CliError::Failed(other.to_string()),
        }
    }
}

impl From<SandboxError> for CliError {
    fn from(error: SandboxError) -> Self {
        match error {
            SandboxError::Config(faults) => faults.into(),
            other => CliError::Failed(other.to_string()),
        }
    }
}

impl From<CallerError> for CliError {
    fn from(error: CallerError) -> Self {
        match error {
            CallerError::Unreachable(..) => CliError::Unreachable(error.to_string()),
            other => CliError::Failed(other.to_string()),
        }
    }
}

macro_rules! failures {
    ($($error:ty),*) => {
        $(impl From<$error> for CliError {
            fn from(error: $error) -> Self {
                CliError::Failed(error.to_string())
            }
        })*
    };
}

failures!(LogKeyError, RegistryError, IssueError, PkiError, LogError, std::io::Error);

/// The command line, with its examples.
fn command() -> clap::Command {
    examples::with_examples(Cli::command())
}

/// Parses the command line, runs the command, and returns the exit code.
pub fn run() -> ExitCode {
    let parsed = command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && wants_json() => {
            let text = error.to_string();
            let reason = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            return finish(Err(CliError::Usage(reason)), Output::Json);
        }
        Err(error) => error.exit(),
    };
    // Files that commands write are private, whatever the umask was.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    if cli.wide {
        output::show_all();
    }
    let quiet = matches!(cli.command, Command::Demo(_));
    crate::telemetry::start_logging(if quiet { "warn" } else { "info" });
    let result = match cli.command {
        Command::Demo(args) => demo::run(&args, cli.output),
        Command::Init(args) => init::run(&args, cli.output),
        Command::Serve(args) => serve::run(&args),
        Command::Sandbox(args) => sandbox::run(args, cli.output),
        Command::Certs(command) => certs::run(command, cli.output),
        Command::Client(args) => clients::run(args, cli.output),
        Command::Grant(args) => grants::run(args, cli.output),
        Command::Staff(args) => staff::run(args, cli.output),
        Command::Source(args) => sources::run(args, cli.output),
        Command::Change(args) => changes::run(args, cli.output),
        Command::Token(args) => tokens::run(args, cli.output),
        Command::Keys(args) => keys::run(args, cli.output),
        Command::Profile(command) => profile::run(command, cli.output),
        Command::Call(args) => call::run(args, cli.output),
        Command::Bench(args) => bench::run(&args, cli.output),
        Command::Witness(args) => witness::run(&args),
        Command::Audit(args) => audit::run(args, cli.output),
        Command::Cluster(args) => cluster::run(args, cli.output),
        Command::Doctor(args) => doctor::run(&args, cli.output),
        Command::Probe(args) => probe::run(&args, cli.output),
        Command::Config(args) => check::run_config(args, cli.output),
        Command::Contract(args) => check::run_contract(args, cli.output),
        Command::Completions(args) => manual::run_completions(&args),
        Command::Man(args) => manual::run_man(&args),
    };
    finish(result, cli.output)
}

/// Whether errors are to be JSON, where the command line cannot be parsed.
fn wants_json() -> bool {
    let args: Vec<String> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let given =
        args.windows(2).any(|pair| pair == ["--output", "json"]) || args.iter().any(|arg| arg == "--output=json");
    given || std::env::var("NDXP_OUTPUT").is_ok_and(|output| output == "json")
}

/// Parses the command line of `ndxp-verify`, verifies, and returns the exit code.
pub fn run_verifier() -> ExitCode {
    let args = audit::Verifier::parse();
    finish(audit::run_verifier(&args), args.output)
}

/// Prints the error, if there is one, and returns the exit code.
fn finish(result: Result<(), CliError>, output: Output) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = error.to_string();
            match output {
                _ if text.is_empty() => {}
                Output::Json => eprintln!("{}", error.json()),
                Output::Human => anstream::eprintln!("error: {text}"),
            }
            ExitCode::from(error.code())
        }
    }
}

/// Makes a runtime for one command.
fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
