//! `sandbox`: the ten sources on loopback.

use super::call::encode;
use super::output::{Output, print_json, table};
use super::{CliError, serve};
use crate::contract::ContractSet;
use crate::hex::hex;
use crate::sandbox::folder::DevFolder;
use crate::sandbox::samples::{Sample, samples};
use crate::sandbox::{Province, Sandbox, SandboxConfig};
use clap::{Args, Subcommand};
use serde_json::Value;
use std::path::{Path, PathBuf};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct SandboxArgs {
    /// The sandbox's configuration.
    #[arg(long, default_value = "sandbox.toml", value_name = "FILE")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<SandboxCommand>,
}

#[derive(Subcommand)]
enum SandboxCommand {
    /// Set up a development folder: PKI, secrets, the log's key, configuration of gateway and sandbox.
    Init {
        /// The folder; created if it is missing.
        #[arg(long, default_value = "dev", value_name = "DIR")]
        folder: PathBuf,
        /// Use ports that are free now, instead of the usual ones.
        #[arg(long)]
        free_ports: bool,
    },
    /// Print one call of every operation, with the sandbox's response.
    Samples {
        /// The sandbox's configuration.
        #[arg(long, default_value = "sandbox.toml", value_name = "FILE")]
        config: PathBuf,
    },
}

pub fn run(args: SandboxArgs, output: Output) -> Result<(), CliError> {
    match args.command {
        None => run_sources(&args.config),
        Some(SandboxCommand::Init { folder, free_ports }) => {
            let made = if free_ports { DevFolder::with_free_ports(&folder)? } else { DevFolder::create(&folder)? };
            output.result(&made.path, || next_steps(&folder))
        }
        Some(SandboxCommand::Samples { config }) => print_samples(&config, output),
    }
}

fn next_steps(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "made {folder}: gateway.toml, sandbox.toml, hubs, sources, pki, secrets, the log's key in data/keys\nnext, each in a terminal of its own:\n  \
         ndxp-gateway sandbox --config {folder}/sandbox.toml\n  ndxp-gateway serve --config {folder}/gateway.toml"
    )
}

fn run_sources(config: &Path) -> Result<(), CliError> {
    let config = SandboxConfig::load(config)?;
    let mut listening = table(&["service", "address"]);
    listening.add_row(["control (faults)", &format!("http://{}/faults", config.control)]);
    for (id, address, _) in &config.hubs {
        listening.add_row([format!("hub {id}"), format!("https://{address}")]);
    }
    for (id, address) in [
        ("publicservice", config.publicservice.0),
        ("catalogue", config.catalogue.0),
        ("officials", config.officials),
        ("population (own door)", config.population.0),
    ] {
        listening.add_row([id.to_owned(), format!("https://{address}")]);
    }
    let sandbox = Sandbox::start(config)?;
    anstream::println!("{listening}");
    anstream::println!("{}", describe(&sandbox.province));
    serve::wait_for_end()
}

/// Describes the content of the province, in one line.
pub fn describe(province: &Province) -> String {
    format!(
        "{} people in {} households, {} enterprises, {} parcels, {} officials, {} dossiers",
        province.people.len(),
        province.households.len(),
        province.enterprises.len(),
        province.parcels.len(),
        province.officials.len(),
        province.dossiers.len()
    )
}

/// A sample that also has its requests as the bytes of their messages (`encoded`, in hexadecimal): for load generators.
fn with_bytes(sample: &Sample) -> Result<Value, CliError> {
    let contracts = ContractSet::embedded().map_err(|_| CliError::Failed("the contracts cannot be read".into()))?;
    let operation = contracts.operation(&format!("/{}", sample.operation));
    let operation = operation.ok_or_else(|| CliError::Failed(format!("no contract has {}", sample.operation)))?;
    let encoded = |request| encode(&operation.request.message, request).map(|bytes| hex(&bytes));
    let encoded: Result<Vec<String>, String> = sample.requests.iter().map(encoded).collect();
    let mut value = serde_json::to_value(sample).map_err(|error| CliError::Failed(error.to_string()))?;
    value["encoded"] = encoded.map_err(CliError::Failed)?.into();
    Ok(value)
}

fn print_samples(config: &Path, output: Output) -> Result<(), CliError> {
    let config = SandboxConfig::load(config)?;
    let all = samples(&Province::new(config.seed, config.people));
    if output == Output::Json {
        return print_json(&all.iter().map(with_bytes).collect::<Result<Vec<_>, _>>()?);
    }
    for sample in &all {
        let data = sample.requests.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        anstream::println!(
            "{} --purpose {} --official {}\n{data}\n",
            sample.operation,
            sample.purpose,
            sample.official
        );
    }
    Ok(())
}
