//! `audit prove` and `audit verify --receipt`.

use super::to_json;
use crate::cli::CliError;
use crate::cli::output::Output;
use crate::exchange_log::checkpoint::LogVerifier;
use crate::exchange_log::reader::{Found, LogReader};
use crate::exchange_log::receipt::Receipt;
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest wait until a new entry is sealed: a checkpoint comes at least every second.
const SEALED_WITHIN: Duration = Duration::from_secs(5);

pub fn prove(data: &Path, exchange: &str, out: Option<&Path>, output: Output) -> Result<(), CliError> {
    let began = Instant::now();
    let receipt = loop {
        let reader = LogReader::open(data)?;
        let index = match exchange.parse::<u64>() {
            Ok(index) => Some(index),
            Err(_) => find_last(&reader, exchange)?,
        };
        let index = index.filter(|index| *index < reader.size());
        let index = index.ok_or_else(|| CliError::Failed(format!("the log has no exchange {exchange:?}")))?;
        match Receipt::make(&reader, index)? {
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

fn find_last(reader: &LogReader, exchange: &str) -> Result<Option<u64>, CliError> {
    let mut found = None;
    reader.newest_first(|one| {
        if one.entry.id_text() == exchange {
            found = Some(one.index);
        }
        found.is_none()
    })?;
    Ok(found)
}

pub fn verify(file: &Path, vkey: &str, output: Output) -> Result<(), CliError> {
    let failed = |reason: String| CliError::Failed(format!("not verified: {}: {reason}", file.display()));
    let verifier = LogVerifier::parse(vkey).map_err(|error| CliError::Usage(format!("--vkey: {error}")))?;
    let receipt = Receipt::parse(&std::fs::read_to_string(file)?).map_err(|error| failed(error.to_string()))?;
    let (entry, checkpoint) = receipt.verify(&verifier).map_err(|error| failed(error.to_string()))?;
    let entry = to_json(&Found { index: receipt.index, entry });
    let value = json!({ "verified": true, "origin": checkpoint.origin, "size": checkpoint.size, "entry": entry });
    let head = format!("verified: entry {} of {} entries of {}", receipt.index, checkpoint.size, checkpoint.origin);
    output.result(&value, || format!("{head}\n{entry:#}"))
}
