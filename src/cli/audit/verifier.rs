//! `ndxp-verify`: what an auditor, an agency or a citizen's lawyer checks on a machine of their own, with the log's public key and
//! nothing else. It reads files, opens no connection, and needs no configuration.

use super::{export, receipt, verify};
use crate::cli::CliError;
use crate::cli::output::{Output, bar, duration, entries, time, timestamp};
use crate::exchange_log::checkpoint::LogVerifier;
use crate::exchange_log::cosignature::{Policy, plausible_times};
use crate::exchange_log::verify::{Against, LogFolder};
use clap::{Parser, Subcommand};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Verify receipts, exports, checkpoints and copies of an NDXP gateway's log, offline, with the log's public key.
#[derive(Parser)]
#[command(name = "ndxp-verify", version, long_about = None, propagate_version = true)]
#[command(after_help = "Examples:\n  \
    ndxp-verify --key log.vkey receipt receipt.tlog-proof\n  \
    ndxp-verify --key log.vkey export entries.csv\n  \
    ndxp-verify --key log.vkey --policy witnesses.policy checkpoint checkpoint.txt\n  \
    ndxp-verify --key log.vkey log /media/copy/log --since checkpoint.txt\n\n\
    Take the key from the minutes of the log's key ceremony or from another auditor, never from the folder or the machine\n\
    that you check: whoever altered the log can have replaced the key beside it.\n\n\
    Exit codes: 0 verified; 1 not verified; 2 wrong usage, or a file that cannot be read.")]
pub(in crate::cli) struct Verifier {
    /// The log's public key: `name+hash+key`, or a file with it.
    #[arg(long, global = true, value_name = "KEY|FILE", env = "NDXP_LOG_KEY")]
    key: Option<String>,
    /// The witnesses that must have cosigned (C2SP tlog-policy); none by default.
    #[arg(long, global = true, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// How results are printed.
    #[arg(long, global = true, value_enum, default_value = "human", env = "NDXP_OUTPUT")]
    pub(in crate::cli) output: Output,
    #[command(subcommand)]
    command: Verified,
}

/// What is verified.
#[derive(Subcommand)]
enum Verified {
    /// Verify a receipt (C2SP tlog-proof): its signature, its path and its entry, and print the entry.
    Receipt {
        /// The receipt, as `audit prove`, the console or `GetReceipt` made it.
        file: PathBuf,
    },
    /// Verify an export: each entry against the proofs in FILE.proofs beside it, each row against its entry.
    Export {
        /// The export: `.jsonl`, `.csv` or `.parquet`.
        file: PathBuf,
    },
    /// Verify a signed checkpoint and its cosignatures.
    Checkpoint {
        /// The checkpoint, as the gateway publishes it at `/log/checkpoint`.
        file: PathBuf,
    },
    /// Recompute every hash of a copy of a log, and check its signed checkpoint.
    Log {
        /// The folder with `checkpoint` and `tile`.
        folder: PathBuf,
        /// Folder with the bundles that were pruned: they are verified, too.
        #[arg(long, value_name = "DIR")]
        archive: Option<PathBuf>,
        /// An older checkpoint of this log: the log must still begin with its tree.
        #[arg(long, value_name = "FILE")]
        since: Option<PathBuf>,
        /// How long entries may wait for a cosignature (s, m, h, d), counted until now; unlimited by default, as a copy grows old.
        #[arg(long, value_name = "TIME", value_parser = duration)]
        max_lag: Option<Duration>,
    },
}

/// Verifies what the command line names; `Ok` means that it is verified.
pub(in crate::cli) fn run(args: &Verifier) -> Result<(), CliError> {
    let key = key(args.key.as_deref())?;
    let policy = args.policy.as_deref().map(verify::read_policy).transpose()?;
    match &args.command {
        Verified::Receipt { file } => receipt::verify(readable(file)?, &key, policy.as_ref(), args.output),
        Verified::Export { file } => export::verify(readable(file)?, &key, policy.as_ref(), args.output),
        Verified::Checkpoint { file } => checkpoint(file, &key, policy.as_ref(), args.output),
        Verified::Log { folder, archive, since, max_lag } => {
            readable(folder)?;
            let older = since.as_deref().map(|file| older(file, &key)).transpose()?;
            let against = Against { policy: policy.as_ref(), older: older.as_ref(), max_lag: *max_lag, chain: None };
            let progress = bar("verifying {bar:40} {pos}/{len} entries, {per_sec}")?;
            let files = LogFolder::with(folder, archive.as_deref());
            let report = crate::exchange_log::verify::verify(&files, &key, against, |done, of| {
                progress.set_length(of);
                progress.set_position(done);
            });
            progress.finish_and_clear();
            let report = report.map_err(|error| CliError::Failed(format!("not verified: {error}")))?;
            verify::print(&report, (None, None), true, args.output)
        }
    }
}

fn key(given: Option<&str>) -> Result<LogVerifier, CliError> {
    let given = given
        .ok_or_else(|| CliError::Usage("give the log's public key: --key KEY, --key FILE, or NDXP_LOG_KEY".into()))?;
    verify::given_key("--key", given)
}

/// Returns the path if it exists: a wrong name is wrong usage, not a log that was altered.
fn readable(file: &Path) -> Result<&Path, CliError> {
    match std::fs::metadata(file) {
        Ok(_) => Ok(file),
        Err(error) => Err(CliError::Usage(format!("{}: {error}", file.display()))),
    }
}

fn older(file: &Path, key: &LogVerifier) -> Result<crate::exchange_log::checkpoint::Checkpoint, CliError> {
    let text = verify::read_text(file)?;
    key.check(&text).map_err(|error| CliError::Failed(format!("not verified: {}: {error}", file.display())))
}

fn checkpoint(file: &Path, key: &LogVerifier, policy: Option<&Policy>, output: Output) -> Result<(), CliError> {
    let note = verify::read_text(file)?;
    let failed = |reason: &str| CliError::Failed(format!("not verified: {}: {reason}", file.display()));
    let checkpoint = key.check(&note).map_err(|error| failed(&error.to_string()))?;
    // Which entry is the newest is not known here: a cosignature must only not be from the future.
    let cosigned = match policy {
        None => Vec::new(),
        Some(policy) => {
            let quorum = policy.quorum(&note, &plausible_times(0, crate::registry::now()));
            let quorum = quorum.map_err(|error| failed(&error.to_string()))?;
            quorum.ok_or_else(|| failed("it lacks cosignatures that the policy of witnesses wants"))?
        }
    };
    let at = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
    let by = cosigned.iter().map(|one| json!({ "witness": one.witness, "time": timestamp(at(one.time)) }));
    let by: Vec<_> = by.collect();
    let root = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, checkpoint.root);
    let value =
        json!({ "verified": true, "origin": checkpoint.origin, "size": checkpoint.size, "root": root, "cosigned": by });
    output.result(&value, || {
        let head =
            format!("verified: checkpoint of {} of {}, root {root}", entries(checkpoint.size), checkpoint.origin);
        let lines = cosigned.iter().map(|one| format!("\ncosigned by {} on {}", one.witness, time(at(one.time))));
        lines.fold(head, |head, line| head + &line)
    })
}
