//! `audit subject`, `audit report`, `audit export`.

use super::to_json;
use crate::cli::CliError;
use crate::cli::output::Output;
use crate::exchange_log::Kind;
use crate::exchange_log::reader::Found;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// Columns of a CSV export: every field of an entry that is a single value, and the lists joined.
const COLUMNS: [&str; 29] = [
    "index",
    "time",
    "kind",
    "exchange",
    "node",
    "client",
    "agency",
    "certificate",
    "token",
    "peer",
    "source",
    "hub",
    "operation",
    "scope",
    "purpose",
    "fields",
    "status",
    "reason",
    "source_code",
    "total_us",
    "source_us",
    "request_bytes",
    "answer_bytes",
    "request_messages",
    "answer_messages",
    "request_commitment",
    "answer_commitment",
    "actor",
    "act",
];

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// The report that a person is owed. Refused exchanges are told too: somebody tried.
pub fn subject(found: &[Found], output: Output) -> Result<(), CliError> {
    let ended = found.iter().filter(|one| matches!(one.entry.kind(), Kind::Exchange | Kind::StreamPart));
    let rows: Vec<Value> = ended
        .map(|one| {
            let entry = &one.entry;
            json!({
                "time": entry.time_text(), "agency": entry.agency, "client": entry.client, "source": entry.source,
                "operation": entry.operation, "purpose": entry.purpose,
                "outcome": if entry.status == 0 { "OK" } else { entry.reason.as_str() },
                "fields": entry.fields, "exchange": entry.id_text(), "index": one.index,
            })
        })
        .collect();
    let header = ["time", "agency", "client", "operation", "purpose", "outcome", "fields told", "entry"];
    output.records(&rows, &header, |row| {
        let operation = text(&row["operation"]).rsplit('.').next().unwrap_or("").to_owned();
        let fields = text(&row["fields"]).replace(' ', "\n");
        let head = [text(&row["time"]), text(&row["agency"]), text(&row["client"]), operation];
        let tail = [text(&row["purpose"]), text(&row["outcome"]), fields, text(&row["index"])];
        head.into_iter().chain(tail).collect()
    })
}

/// A period in numbers.
pub fn period(found: &[Found], output: Output) -> Result<(), CliError> {
    let mut counts: BTreeMap<(String, String, String), (u64, u64)> = BTreeMap::new();
    for one in found.iter().filter(|one| one.entry.kind() == Kind::Exchange) {
        let entry = &one.entry;
        let outcome = if entry.status == 0 { "OK".to_owned() } else { entry.reason.clone() };
        let count = counts.entry((entry.client.clone(), entry.operation.clone(), outcome)).or_default();
        count.0 += 1;
        count.1 += entry.total_us;
    }
    let rows: Vec<Value> = counts
        .into_iter()
        .map(|((client, operation, outcome), (exchanges, total_us))| {
            let mean_ms = total_us as f64 / exchanges as f64 / 1e3;
            json!({ "client": client, "operation": operation, "outcome": outcome, "exchanges": exchanges, "mean_ms": mean_ms })
        })
        .collect();
    output.records(&rows, &["client", "operation", "outcome", "exchanges", "mean ms"], |row| {
        let operation = text(&row["operation"]).rsplit('.').next().unwrap_or("").to_owned();
        let mean = format!("{:.1}", row["mean_ms"].as_f64().unwrap_or(0.0));
        vec![text(&row["client"]), operation, text(&row["outcome"]), text(&row["exchanges"]), mean]
    })
}

/// Entries in a file.
pub fn export(found: &[Found], out: &Path, output: Output) -> Result<(), CliError> {
    let failed = |error: csv::Error| CliError::Failed(format!("{}: {error}", out.display()));
    match out.extension().and_then(|ending| ending.to_str()) {
        Some("jsonl") => {
            let mut file = std::io::BufWriter::new(std::fs::File::create(out)?);
            for one in found {
                writeln!(file, "{}", to_json(one))?;
            }
            file.flush()?;
        }
        Some("csv") => {
            let mut file = csv::Writer::from_path(out).map_err(failed)?;
            file.write_record(COLUMNS).map_err(failed)?;
            for one in found {
                let row = to_json(one);
                file.write_record(COLUMNS.iter().map(|name| text(&row[*name]))).map_err(failed)?;
            }
            file.flush()?;
        }
        _ => return Err(CliError::Usage("--out must end in .jsonl or .csv".into())),
    }
    let value = json!({ "entries": found.len(), "file": out });
    output.result(&value, || format!("{} entries in {}", found.len(), out.display()))
}
