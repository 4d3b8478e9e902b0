//! `witness`: a witness of other machines' logs.

use super::{CliError, runtime};
use crate::witness::config::WitnessConfig;
use crate::witness::server::Witness;
use clap::Args;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

#[derive(Args)]
pub struct WitnessArgs {
    /// The witness's configuration.
    #[arg(long, env = "NDXP_WITNESS_CONFIG", default_value = "witness.toml", value_name = "FILE")]
    config: PathBuf,
    /// Only print the witness's public key, for the policies of the logs that it witnesses.
    #[arg(long)]
    key: bool,
}

pub fn run(args: &WitnessArgs) -> Result<(), CliError> {
    let config = WitnessConfig::load(&args.config)?;
    let failed = |error: crate::witness::server::WitnessError| CliError::Failed(error.to_string());
    let witness = Arc::new(Witness::open(&config).map_err(failed)?);
    if args.key {
        anstream::println!("{}", witness.vkey());
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
