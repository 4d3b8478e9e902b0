//! `audit prove` and `audit verify --receipt`.

use super::{entries, to_json};
use crate::audit::service::api;
use crate::cli::CliError;
use crate::cli::output::{Output, entries as counted_entries};
use crate::cli::session::Session;
use crate::exchange_log::checkpoint::LogVerifier;
use crate::exchange_log::cosignature::{Policy, plausible_times};
use crate::exchange_log::reader::Found;
use crate::exchange_log::receipt::Receipt;
use crate::keyfile::NewFile;
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};
use tonic::Code;

/// How long an entry may be without a checkpoint.
const CHECKPOINT_WITHIN: Duration = Duration::from_secs(10);
/// Pause between two looks.
const LOOK_EACH: Duration = Duration::from_millis(200);

pub fn prove(session: &Session, exchange: &str, out: Option<(&Path, bool)>, output: Output) -> Result<(), CliError> {
    let last = entries::named(session, exchange)?.found.pop();
    let last = last.ok_or_else(|| CliError::Failed(format!("the log has no exchange {exchange:?}")))?;
    let receipt = receipt_of(session, last.index)?;
    // The receipt must be of the entry that was found, whatever the gateway's index returned.
    let made = Receipt::parse(&receipt.receipt).map_err(|error| CliError::Failed(format!("the receipt: {error}")))?;
    if made.index != last.index || made.entry != last.entry.to_bytes() {
        return Err(CliError::Failed(format!("the receipt is not of entry {}, but of {}", last.index, made.index)));
    }
    match out {
        Some((file, force)) => {
            NewFile::write(file, receipt.receipt.as_ref(), force)?;
            let value = json!({ "index": receipt.index, "file": file });
            output.result(&value, || format!("receipt of entry {} in {}", receipt.index, file.display()))
        }
        None => {
            anstream::print!("{}", receipt.receipt);
            Ok(())
        }
    }
}

/// Waits until a checkpoint covers an entry that is in the log: a running gateway publishes one within moments.
fn receipt_of(session: &Session, index: u64) -> Result<api::GetReceiptResponse, CliError> {
    let begun = Instant::now();
    loop {
        let of = Some(api::get_receipt_request::Of::Index(index));
        let got = session.block_on(async {
            match session.audit().get_receipt(api::GetReceiptRequest { of }).await {
                Ok(got) => Ok(Some(got.into_inner())),
                Err(status) if status.code() == Code::NotFound => Ok(None),
                Err(status) => Err(status),
            }
        })?;
        match got {
            Some(receipt) => return Ok(receipt),
            None if begun.elapsed() < CHECKPOINT_WITHIN => std::thread::sleep(LOOK_EACH),
            None => {
                return Err(CliError::Failed(format!(
                    "entry {index} is not under a checkpoint after {} s: is the gateway running?",
                    CHECKPOINT_WITHIN.as_secs()
                )));
            }
        }
    }
}

pub fn verify(file: &Path, verifier: &LogVerifier, policy: Option<&Policy>, output: Output) -> Result<(), CliError> {
    let failed = |reason: String| CliError::Failed(format!("not verified: {}: {reason}", file.display()));
    let text =
        std::fs::read_to_string(file).map_err(|error| CliError::Usage(format!("{}: {error}", file.display())))?;
    let receipt = Receipt::parse(&text).map_err(|error| failed(error.to_string()))?;
    let (entry, checkpoint) = receipt.verify(verifier).map_err(|error| failed(error.to_string()))?;
    if let Some(policy) = policy {
        check_quorum(policy, &receipt.checkpoint, entry.time_us).map_err(failed)?;
    }
    let entry = to_json(&Found { index: receipt.index, entry });
    let value = json!({ "verified": true, "origin": checkpoint.origin, "size": checkpoint.size, "entry": entry });
    let head =
        format!("verified: entry {} of {} of {}", receipt.index, counted_entries(checkpoint.size), checkpoint.origin);
    output.result(&value, || format!("{head}\n{entry:#}"))
}

/// Checks whether a checkpoint over an entry of this time has the cosignatures that a policy requires; the error has
/// the reason.
pub fn check_quorum(policy: &Policy, checkpoint: &str, entry_time_us: i64) -> Result<(), String> {
    let times = plausible_times(entry_time_us, crate::registry::now());
    match policy.quorum(checkpoint, &times) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => {
            Err("its checkpoint lacks cosignatures that the policy of witnesses wants, or they are from before the \
                         entry or from the future"
                .into())
        }
        Err(error) => Err(format!("its checkpoint: {error}")),
    }
}
