//! `witness`: a witness of other machines' logs.

use super::{CliError, runtime};
use crate::witness::config::WitnessConfig;
use crate::witness::server::WitnessService;
use clap::Args;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

#[derive(Args)]
pub struct WitnessArgs {
    /// The witness's configuration.
    #[arg(long, env = "NDXP_WITNESS_CONFIG", default_value = "witness.toml", value_name = "FILE")]
    config: PathBuf,
    /// Make the witness's keys if there are none yet, and print the public ones, for the policies of the logs that it
    /// witnesses: one of them for each log, the first (ML-DSA-44) if the log supports it.
    #[arg(long)]
    key: bool,
}

pub fn run(args: &WitnessArgs) -> Result<(), CliError> {
    let config = WitnessConfig::load(&args.config)?;
    let failed = |error: crate::witness::server::WitnessError| CliError::Failed(error.to_string());
    if args.key {
        WitnessService::make_keys(&config).map_err(failed)?;
    }
    let witness = Arc::new(WitnessService::open(&config).map_err(failed)?);
    if args.key {
        witness.vkeys().iter().for_each(|key| anstream::println!("{key}"));
        return Ok(());
    }
    let stop = CancellationToken::new();
    runtime()?.block_on(async {
        let bound = |address| anstream::println!("witness {} on https://{address}", config.name);
        tokio::select! {
            served = witness.clone().serve(&config, stop.clone(), bound) => served.map_err(failed),
            ended = super::serve::ended() => ended,
        }
    })
}
