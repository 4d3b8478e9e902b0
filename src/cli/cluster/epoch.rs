//! `cluster epoch`.

use super::migrate::migrate;
use crate::cli::CliError;
use crate::cli::output::{Output, entries};
use crate::config::Config;
use crate::migration::{EpochPlan, StaffKey};
use crate::server::check_tls;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

#[derive(Args)]
#[group(id = "person", required = true, multiple = false)]
pub struct EpochStep {
    /// Request it, as an administrator.
    #[arg(long)]
    request: bool,
    /// Approve what was requested, as an approver, and begin it.
    #[arg(long)]
    approve: bool,
}

#[derive(Args)]
pub struct EpochArgs {
    #[command(flatten)]
    step: EpochStep,
    /// Your own certificate (PEM), by which the registry knows you.
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// Its key (PEM); the certificate's path with `.key` by default.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// With --request: why etcd was restored (at most 500 characters); it is logged at each gateway.
    #[arg(long, value_name = "TEXT", conflicts_with = "approve")]
    why: Option<String>,
}

pub(super) fn run(config: &Config, args: &EpochArgs, output: Output) -> Result<(), CliError> {
    let (trust, key) = (check_tls(config)?, args.key.clone());
    let key = key.unwrap_or_else(|| args.certificate.with_extension("key"));
    let person = StaffKey { certificate: &args.certificate, key: &key, trust: &trust };
    if args.step.approve {
        let (plan, [requested, approved]) = migrate(config, async |gateway| gateway.approve_epoch(&person).await)?;
        let value = json!({ "plan": plan, "requested_by": requested, "approved_by": approved });
        return output.result(&value, || {
            format!(
                "epoch {} has begun, requested by {requested}, approved by {approved}. Start every gateway: each enters it,\n\
                 and offers what only its own disk has.",
                what(&plan)
            )
        });
    }
    let why = args.why.as_deref().unwrap_or_default();
    let (plan, requested) = migrate(config, async |gateway| gateway.request_epoch(&person, why).await)?;
    output.result(&json!({ "plan": plan, "requested_by": requested }), || {
        format!(
            "{requested} requests epoch {}.\nWithin a day, another person approves it here: cluster epoch --approve",
            what(&plan)
        )
    })
}

fn what(plan: &EpochPlan) -> String {
    let EpochPlan { epoch, size, change, gateway, .. } = plan;
    format!("{epoch}, from the {} and change {change} of the registry that {gateway} has", entries(*size))
}
