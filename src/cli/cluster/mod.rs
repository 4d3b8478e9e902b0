//! `cluster`: log and registry of several gateways over etcd.

mod epoch;
mod migrate;
mod status;

pub(super) use migrate::{begin_before_serving, is_to_begin};

use super::confirmation::Confirmation;
use super::output::Output;
use super::{CliError, ConfigFile};
use crate::config::{ClusterSettings, Config};
use clap::{Args, Subcommand};

#[derive(Args)]
pub struct ClusterArgs {
    #[command(flatten)]
    config: ConfigFile,
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Subcommand)]
enum ClusterCommand {
    /// Bring the log and the registry of this data folder into the etcd of [cluster]: all of a gateway that ran alone, or
    /// those that `init`, `keys init` and `staff bootstrap` have laid. The gateway must not run. Interrupted, it goes on
    /// when it is given again.
    Begin,
    /// Take the log and the registry out of etcd, back into this data folder: this gateway runs alone then, and every other
    /// one is refused. No gateway may run, and everything must be sealed. Interrupted, it goes on when it is given again.
    Leave {
        #[command(flatten)]
        confirmation: Confirmation,
    },
    /// Begin the next epoch, after etcd was restored as a whole and every gateway has stopped (ETCD_ROLLED_BACK). An
    /// administrator requests it, and an approver, another person, approves it; both in the data folder of the gateway that
    /// stores most. Its gateway must not run. Then every gateway is started again.
    Epoch(epoch::EpochArgs),
    /// Show etcd's members, the log and its sealer, what each site stores, and the registry.
    Status,
}

pub fn run(args: ClusterArgs, output: Output) -> Result<(), CliError> {
    let config = args.config.load()?;
    match args.command {
        ClusterCommand::Begin => migrate::begin(&config, output),
        ClusterCommand::Leave { confirmation } => migrate::leave(&config, confirmation, output),
        ClusterCommand::Epoch(args) => epoch::run(&config, &args, output),
        ClusterCommand::Status => status::run(&config, output),
    }
}

/// The part of the configuration about the cluster.
fn settings(config: &Config) -> Result<&ClusterSettings, CliError> {
    let missing = || format!("{} has no [cluster]: name etcd's members there first", config.file.display());
    config.cluster.as_ref().ok_or_else(|| CliError::Usage(missing()))
}
