//! `demo`: everything at once in a temporary folder. Any failed step makes it fail.

mod cluster;
mod participants;
mod proofs;
mod refusals;
mod week;

use super::call::{decode, encode, explain};
use super::output::{Output, print_json, print_rows};
use super::{CliError, runtime, sandbox, serve};
use crate::caller::CompleteResponse;
use crate::config::Config;
use crate::contract::{ContractSet, Operation};
use crate::exchange_log::{LogError, key, verify};
use crate::sandbox::folder::DevFolder;
use crate::sandbox::samples::{Sample, holds, samples};
use crate::sandbox::{Sandbox, SandboxConfig};
use crate::server::Gateway;
use clap::Args;
use participants::{DemoClient, PEOPLE, Participants};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tonic::Code;

/// An operation of open data that needs neither purpose nor official.
const CATALOGUES: &str = "/ndxp.catalogue.v1.CatalogueService/ListCatalogues";
/// How long a change of the registry may take to be in force. The promise is a second, and the tour says how long a revocation took; a busy
/// machine stands still for some more.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(4);

#[derive(Args)]
pub struct DemoArgs {
    /// Stay up after the tour, until Ctrl-C, as a lived-in province: a made-up week is in the log. Prints how to call, and how to sign
    /// in at the console.
    #[arg(long = "stay")]
    keep_running: bool,
    /// Three gateways over three members of etcd instead, of which each is killed in turn while systems call: what was
    /// answered is compared with the logs.
    #[arg(long, conflicts_with = "keep_running")]
    cluster: bool,
    /// The program `etcd`, 3.5.16 or newer; by default the one in PATH.
    #[arg(long, value_name = "FILE", requires = "cluster")]
    etcd: Option<PathBuf>,
    /// Use and keep this folder instead of a temporary one.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// One line of the tour.
struct TourLine {
    source: String,
    operation: String,
    protocol: String,
    result: String,
    elapsed: Duration,
    ok: bool,
}

impl TourLine {
    fn json(&self) -> Value {
        json!({
            "source": self.source, "operation": self.operation, "protocol": self.protocol, "result": self.result,
            "ms": self.elapsed.as_secs_f64() * 1e3, "ok": self.ok,
        })
    }
}

struct Stage {
    folder: DevFolder,
    sandbox: Sandbox,
    gateway: Gateway,
    _throw_away: Option<tempfile::TempDir>,
}

pub fn run(args: &DemoArgs, output: Output) -> Result<(), CliError> {
    if args.cluster {
        return cluster::run(args, output);
    }
    let say = |text: &str| {
        if output == Output::Human {
            anstream::println!("{text}");
        }
    };
    let began = Instant::now();
    let stage = set_up(args, &say)?;
    say(&format!("sandbox: {}", sandbox::describe(&stage.sandbox.province)));
    say(&format!("gateway: https://{}, folder {}", stage.gateway.address, stage.folder.path.display()));
    let config = Config::load(&stage.folder.gateway_config())?;
    let base = format!("https://{}", stage.gateway.address);
    let participants = Participants::enter(&config, &stage.folder, &base, args.keep_running)?;
    let contracts = config.catalogue()?.contracts;
    // The gateway applies changes of the registry within 200 ms.
    std::thread::sleep(Duration::from_millis(600));

    let log_key = key::read(&config.data, &config.vault, &config.log.origin)?.verifier();
    let (operations, refusals, mut proofs) = runtime()?.block_on(async {
        let shop = participants.actor(&base, "one-stop-shop")?;
        let all = samples(&stage.sandbox.province);
        let mut lines = Vec::new();
        for sample in &all {
            lines.push(call(&shop, &contracts, sample).await?);
        }
        for operation in contracts.operations() {
            if !all.iter().any(|sample| sample.operation == operation.full_name) {
                lines.push(missed(operation));
            }
        }
        let refused = refusals::all(&participants, &base, &contracts, &stage.sandbox.province).await?;
        let proofs = vec![
            proofs::receipt(&participants, &base, &log_key).await?,
            proofs::revocation(&participants, &base).await?,
        ];
        Ok::<_, CliError>((lines, refused, proofs))
    })?;
    proofs.push(proofs::altered_byte(&config, &log_key)?);
    let citizen = stage.sandbox.province.people.first().map_or("", |person| person.citizen_id.as_str());
    proofs.push(proofs::sheet(&config, &stage.folder.path, citizen)?);
    if output == Output::Human {
        print_lines(&["source", "operation", "protocol", "result", "ms"], &operations);
        say("refusals, each as it must be:");
        print_lines(&["caller", "call", "expected", "result", "ms"], &refusals);
        say("proofs:");
        print_lines(&["who", "does", "expected", "result", "ms"], &proofs);
    }
    let report = verified(&config)?;
    let misses = operations.iter().chain(&refusals).chain(&proofs).filter(|line| !line.ok).count();
    let summary = format!(
        "{} operations of {} sources, {} refusals, {} proofs, {} log entries verified (root {}…), {:.1} s; {}",
        operations.len(),
        contracts.sources().len(),
        refusals.len(),
        proofs.len(),
        report.sealed + report.tail,
        &report.root[..16],
        began.elapsed().as_secs_f64(),
        if misses == 0 { "everything as it should be".to_owned() } else { format!("{misses} missed") }
    );
    match output {
        Output::Human => say(&summary),
        Output::Json => print_json(&json!({
            "operations": operations.iter().map(TourLine::json).collect::<Vec<_>>(),
            "refusals": refusals.iter().map(TourLine::json).collect::<Vec<_>>(),
            "proofs": proofs.iter().map(TourLine::json).collect::<Vec<_>>(),
            "log": { "sealed": report.sealed, "tail": report.tail, "root": report.root },
            "missed": misses,
        }))?,
    }
    if args.keep_running {
        keep_running(&stage, &participants, say)?;
    }
    let Stage { gateway, sandbox, .. } = stage;
    gateway.stop();
    drop(sandbox);
    if misses == 0 { Ok(()) } else { Err(CliError::Failed(format!("{misses} of the demo's calls went otherwise"))) }
}

/// Lays the folder: a temporary one, unless another is named.
fn lay_folder(args: &DemoArgs) -> Result<(DevFolder, Option<tempfile::TempDir>), CliError> {
    let Some(path) = &args.folder else {
        let made = tempfile::Builder::new().prefix("ndxp-demo-").tempdir()?;
        return Ok((DevFolder::with_free_ports(made.path())?, Some(made)));
    };
    Ok((DevFolder::create(path)?, None))
}

fn set_up(args: &DemoArgs, say: &impl Fn(&str)) -> Result<Stage, CliError> {
    let (folder, throw_away) = lay_folder(args)?;
    let sandbox = Sandbox::start(SandboxConfig::load(&folder.sandbox_config())?)?;
    let mut config = Config::load(&folder.gateway_config())?;
    // No skew is tolerated here, so that an expired token can be shown without waiting for half a minute.
    config.tokens.leeway_s = 0;
    if args.keep_running {
        let entries = week::write(&config, &config.catalogue()?.contracts, &sandbox.province)?;
        say(&format!(
            "the log begins with a made-up week of {entries} exchanges (node {:?}), two anomalies among them",
            week::NODE
        ));
    }
    Ok(Stage { folder, sandbox, gateway: Gateway::start(config)?, _throw_away: throw_away })
}

async fn call(actor: &DemoClient, contracts: &ContractSet, sample: &Sample) -> Result<TourLine, CliError> {
    let path = format!("/{}", sample.operation);
    let operation =
        contracts.operation(&path).ok_or_else(|| CliError::Failed(format!("no contract has {}", sample.operation)))?;
    let requests = sample.requests.iter().map(|request| encode(&operation.request.message, request));
    let requests: Vec<_> = requests.collect::<Result<_, _>>().map_err(CliError::Failed)?;
    let began = Instant::now();
    let answered = actor.call(&path, &sample.purpose, &sample.official, requests).await?;
    let elapsed = began.elapsed();
    let (ok, result) = evaluate(operation, sample, &answered)?;
    Ok(TourLine {
        source: operation.source.id.clone(),
        operation: operation.name.clone(),
        protocol: operation.binding.protocol().into(),
        result,
        elapsed,
        ok,
    })
}

fn evaluate(operation: &Operation, sample: &Sample, answered: &CompleteResponse) -> Result<(bool, String), CliError> {
    if answered.status.code() != Code::Ok {
        return Ok((false, explain(&answered.status)));
    }
    let count = answered.messages.len();
    let Some(first) = answered.messages.first() else { return Ok((false, "no response".into())) };
    let first = decode(&operation.response.message, first)?;
    if count < sample.messages {
        return Ok((false, format!("{count} messages where {} were expected", sample.messages)));
    }
    if !holds(&first, &sample.expect) {
        return Ok((false, format!("{first} lacks some of {}", sample.expect)));
    }
    let bytes: usize = answered.messages.iter().map(bytes::Bytes::len).sum();
    Ok((
        true,
        if sample.messages > 1 { format!("OK, {count} messages, {bytes} bytes") } else { format!("OK, {bytes} bytes") },
    ))
}

fn missed(operation: &Operation) -> TourLine {
    TourLine {
        source: operation.source.id.clone(),
        operation: operation.name.clone(),
        protocol: operation.binding.protocol().into(),
        result: "not called: no sample".into(),
        elapsed: Duration::ZERO,
        ok: false,
    }
}

fn print_lines(header: &[&str], lines: &[TourLine]) {
    let row = |line: &TourLine| {
        let mark = if line.ok { "" } else { "MISSED: " };
        vec![
            line.source.clone(),
            line.operation.clone(),
            line.protocol.clone(),
            format!("{mark}{}", line.result),
            format!("{:.1}", line.elapsed.as_secs_f64() * 1e3),
        ]
    };
    print_rows(header, lines.iter().map(row).collect(), &["protocol", "ms", "expected"]);
}

/// Verifies the log as an auditor would, while the gateway runs.
fn verified(config: &Config) -> Result<verify::Report, CliError> {
    let fail = |error: LogError| CliError::Failed(format!("the log is not verified: {error}"));
    let signer = key::read(&config.data, &config.vault, &config.log.origin)?;
    let against = verify::Against { chain: Some(&signer.chain_key()), ..Default::default() };
    verify::verify_data(&config.data, None, Some(&signer.verifier()), against, |_, _| {}).map_err(fail)
}

fn keep_running(stage: &Stage, participants: &Participants<'_>, say: impl Fn(&str)) -> Result<(), CliError> {
    let pki = stage.folder.path.join("pki");
    say(&format!(
        "\nthe gateway stays up until Ctrl-C; call it from another terminal:\n  \
         ndxp-gateway call CatalogueService/ListCatalogues --to https://{} --ca {} \\\n    --certificate {} --token-file {}",
        stage.gateway.address,
        pki.join("ca.pem").display(),
        pki.join("one-stop-shop.pem").display(),
        participants.token_file("one-stop-shop").display(),
    ));
    if let Some(address) = stage.gateway.https {
        say(&format!("\nthe console: https://{address}/console/ (its CA: {})", pki.join("ca.pem").display()));
        say("import the certificate of one of these people into a browser to sign in:");
        for (id, role) in PEOPLE {
            say(&format!("  {id:5} {role:14} {}", importable(&pki, id)));
        }
    }
    if let Some(address) = stage.gateway.operator_http {
        say(&format!("health and metrics: http://{address}/readyz http://{address}/metrics"));
    }
    serve::wait_for_end()
}

/// Returns a person's certificate as browsers import it: a PKCS #12 file, if `openssl` is there to make it; otherwise the command for it.
fn importable(pki: &Path, id: &str) -> String {
    let (pem, key, p12) = (pki.join(format!("{id}.pem")), pki.join(format!("{id}.key")), pki.join(format!("{id}.p12")));
    let made = std::process::Command::new("openssl")
        .args(["pkcs12", "-export", "-passout", "pass:demo", "-in"])
        .args([&pem, &PathBuf::from("-inkey"), &key, &PathBuf::from("-out"), &p12])
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
    if made.is_ok_and(|status| status.success()) {
        return format!("{} (password: demo)", p12.display());
    }
    let (pem, key) = (pem.display(), key.display());
    format!("openssl pkcs12 -export -passout pass:demo -in {pem} -inkey {key} -out {}", p12.display())
}
