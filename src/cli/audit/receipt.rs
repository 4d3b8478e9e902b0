//! `audit prove` and `audit verify --receipt`.

use super::filter::Opened;
use super::to_json;
use crate::audit::search;
use crate::cli::CliError;
use crate::cli::output::Output;
use crate::exchange_log::checkpoint::LogVerifier;
use crate::exchange_log::cosignature::Policy;
use crate::exchange_log::reader::Found;
use crate::exchange_log::receipt::Receipt;
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest wait until a new entry is sealed: a checkpoint comes at least every second.
const SEALED_WITHIN: Duration = Duration::from_secs(5);

/// The entries of an exchange, oldest first; or the one at an index.
pub fn named(log: &Opened, exchange: &str) -> Result<Vec<Found>, CliError> {
    if let Ok(index) = exchange.parse::<u64>() {
        if index >= log.reader.size() {
            return Ok(Vec::new());
        }
        let entry = log.reader.entry(index)?;
        return Ok(entry.map(|entry| Found { index, entry }).into_iter().collect());
    }
    let id = uuid::Uuid::parse_str(exchange)
        .map_err(|_| CliError::Usage(format!("{exchange:?} is neither an exchange's id nor an entry's index")))?;
    Ok(search::exchange(&log.reader, log.index.as_ref(), id.as_bytes())?)
}

pub fn prove(data: &Path, exchange: &str, out: Option<&Path>, output: Output) -> Result<(), CliError> {
    let began = Instant::now();
    let receipt = loop {
        let log = Opened::of(data)?;
        let last = named(&log, exchange)?.pop();
        let last = last.ok_or_else(|| CliError::Failed(format!("the log has no exchange {exchange:?}")))?;
        match Receipt::make(&log.reader, last.index)? {
            Some(receipt) => break receipt,
            None if began.elapsed() < SEALED_WITHIN => std::thread::sleep(Duration::from_millis(200)),
            None => {
                return Err(CliError::Failed(
                    "the entry is not under a checkpoint yet: is the gateway running?".into(),
                ));
            }
        }
    };
    match out {
        Some(file) => {
            std::fs::write(file, receipt.to_text())?;
            let value = json!({ "index": receipt.index, "file": file });
            output.result(&value, || format!("receipt of entry {} in {}", receipt.index, file.display()))
        }
        None => {
            anstream::print!("{}", receipt.to_text());
            Ok(())
        }
    }
}

pub fn verify(file: &Path, verifier: &LogVerifier, policy: Option<&Policy>, output: Output) -> Result<(), CliError> {
    let failed = |reason: String| CliError::Failed(format!("not verified: {}: {reason}", file.display()));
    let receipt = Receipt::parse(&std::fs::read_to_string(file)?).map_err(|error| failed(error.to_string()))?;
    let (entry, checkpoint) = receipt.verify(verifier).map_err(|error| failed(error.to_string()))?;
    if policy.is_some_and(|policy| !policy.holds(&receipt.checkpoint)) {
        return Err(failed("its checkpoint lacks cosignatures that the policy of witnesses wants".into()));
    }
    let entry = to_json(&Found { index: receipt.index, entry });
    let value = json!({ "verified": true, "origin": checkpoint.origin, "size": checkpoint.size, "entry": entry });
    let head = format!("verified: entry {} of {} entries of {}", receipt.index, checkpoint.size, checkpoint.origin);
    output.result(&value, || format!("{head}\n{entry:#}"))
}
