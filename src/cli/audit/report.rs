//! `audit subject`, `audit report`, `audit odd`.

use super::filter::Opened;
use crate::audit::index::{Hour, Index};
use crate::audit::odd::{Finding, LONGEST_US, findings};
use crate::audit::paper::{Head, subject_report};
use crate::audit::query::{Query, outcome};
use crate::audit::statistics::statistics;
use crate::cli::CliError;
use crate::cli::output::{Output, cell, print_json, time};
use crate::exchange_log::Kind;
use crate::exchange_log::reader::Found;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// A week, in microseconds.
const WEEK_US: i64 = 7 * 86_400_000_000;

/// What was asked for on paper.
pub struct Asked {
    pub id: String,
    pub case: String,
    pub from: Option<i64>,
    pub to: Option<i64>,
}

/// The exchanges about a person, newest first. Refused ones too: somebody tried.
pub fn about(log: &Opened, query: &Query) -> Result<Vec<Found>, CliError> {
    let mut found = log.newest(query, usize::MAX)?;
    found.retain(|one| matches!(one.entry.kind(), Kind::Exchange | Kind::StreamPart));
    Ok(found)
}

/// The report that a person is owed, as a PDF.
pub fn paper(log: &Opened, mut found: Vec<Found>, asked: &Asked, file: &Path, output: Output) -> Result<(), CliError> {
    found.reverse();
    let day = |at: i64| time(at / 1_000_000);
    let period = match (asked.from, asked.to) {
        (None, None) => "toàn bộ nhật ký".to_owned(),
        (Some(from), None) => format!("từ {}", day(from)),
        (None, Some(to)) => format!("đến trước {}", day(to)),
        (Some(from), Some(to)) => format!("từ {} đến trước {}", day(from), day(to)),
    };
    let checkpoint = log.reader.checkpoint.as_ref();
    let head = Head {
        id: asked.id.clone(),
        case: asked.case.clone(),
        period,
        made: time(crate::registry::now()),
        log: checkpoint.map_or_else(String::new, |one| {
            format!("Nhật ký {}, {} bản ghi, gốc {}", one.origin, one.size, crate::hex::hex(&one.root))
        }),
    };
    let bytes = subject_report(&head, &found).map_err(|error| CliError::Failed(error.to_string()))?;
    // Somebody's report is nobody else's to read.
    crate::keyfile::write_private(file, &bytes)?;
    let value = json!({ "entries": found.len(), "file": file });
    output.result(&value, || format!("{} entries in {}", found.len(), file.display()))
}

/// The report that a person is owed.
pub fn subject(found: &[Found], output: Output) -> Result<(), CliError> {
    let rows: Vec<Value> = found
        .iter()
        .map(|one| {
            let entry = &one.entry;
            json!({
                "time": entry.time_text(), "agency": entry.agency, "client": entry.client, "source": entry.source,
                "operation": entry.operation, "purpose": entry.purpose, "outcome": outcome(entry),
                "fields": entry.fields, "exchange": entry.id_text(), "index": one.index,
            })
        })
        .collect();
    let header = ["time", "agency", "client", "operation", "purpose", "outcome", "fields told", "entry"];
    output.records(&rows, &header, |row| {
        let fields = cell(&row["fields"]).replace(' ', "\n");
        let head = [cell(&row["time"]), cell(&row["agency"]), cell(&row["client"]), method(&row["operation"])];
        let tail = [cell(&row["purpose"]), cell(&row["outcome"]), fields, cell(&row["index"])];
        head.into_iter().chain(tail).collect()
    })
}

/// `Service/Method` of a full name.
fn method(operation: &Value) -> String {
    cell(operation).rsplit('.').next().unwrap_or("").to_owned()
}

/// A period in numbers: from the counts by the hour where they can tell, otherwise from the entries.
pub fn period(log: &Opened, query: &Query, days: bool, output: Output) -> Result<(), CliError> {
    let counts = statistics(&log.reader, log.index.as_ref(), query, days, usize::MAX)?.unwrap_or_default();
    let mut sums: BTreeMap<_, (u64, u64, u64)> = BTreeMap::new();
    for Hour { hour, client, source, operation, outcome, exchanges, total_us, answer_bytes, .. } in counts {
        let day = if days { hour } else { 0 };
        let sum = sums.entry((day, client, source, operation, outcome)).or_default();
        *sum = (sum.0 + exchanges, sum.1 + total_us, sum.2 + answer_bytes);
    }
    let rows: Vec<Value> = sums
        .into_iter()
        .map(|((day, client, source, operation, outcome), (exchanges, total_us, answer_bytes))| {
            let mean_ms = total_us as f64 / exchanges as f64 / 1e3;
            let mut row = json!({
                "client": client, "source": source, "operation": operation, "outcome": outcome, "exchanges": exchanges,
                "mean_ms": mean_ms, "answer_bytes": answer_bytes,
            });
            if days {
                row["day"] = Value::from(&time(day * 3_600)[..10]);
            }
            row
        })
        .collect();
    let odd = match &log.index {
        Some(index) => found_odd(index, query)?,
        None => Vec::new(),
    };
    if output == Output::Json {
        return print_json(&json!({ "counts": rows, "findings": odd }));
    }
    let header = ["day", "client", "source", "operation", "outcome", "exchanges", "mean ms"];
    let header = if days { &header[..] } else { &header[1..] };
    output.records(&rows, header, |row| {
        let mean = format!("{:.1}", row["mean_ms"].as_f64().unwrap_or(0.0));
        let names = [cell(&row["client"]), cell(&row["source"]), method(&row["operation"]), cell(&row["outcome"])];
        let day = days.then(|| cell(&row["day"]));
        day.into_iter().chain(names).chain([cell(&row["exchanges"]), mean]).collect()
    })?;
    anstream::println!("odd in this period (at most its last 31 days):");
    show_odd(&odd, output)
}

/// What is odd in the period of a query, or in its last 31 days; of its client, where it names one.
fn found_odd(index: &Index, query: &Query) -> Result<Vec<Value>, CliError> {
    let to = query.to_us.unwrap_or_else(|| jiff::Timestamp::now().as_microsecond());
    let from = query.from_us.unwrap_or(i64::MIN).max(to - LONGEST_US);
    let mut found = if from < to { findings(index, from, to)? } else { Vec::new() };
    found.retain(|one| query.client.as_ref().is_none_or(|client| *client == one.client));
    Ok(found.into_iter().map(finding).collect())
}

fn finding(found: Finding) -> Value {
    let Finding { rule, explanation, client, entries, count } = found;
    json!({ "rule": rule.as_str(), "client": client, "explanation": explanation, "count": count, "entries": entries })
}

fn show_odd(rows: &[Value], output: Output) -> Result<(), CliError> {
    output.records(rows, &["rule", "client", "what was seen", "entries"], |row| {
        let entries: Vec<String> = row["entries"].as_array().into_iter().flatten().take(5).map(cell).collect();
        let more = row["count"].as_u64().unwrap_or(0).saturating_sub(entries.len() as u64);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let seen = [cell(&row["rule"]), cell(&row["client"]), cell(&row["explanation"])];
        seen.into_iter().chain([format!("{}{more}", entries.join(" "))]).collect()
    })
}

/// What is odd.
pub fn odd(data: &Path, from: Option<i64>, to: Option<i64>, output: Output) -> Result<(), CliError> {
    let to = to.unwrap_or_else(|| jiff::Timestamp::now().as_microsecond());
    let from = from.unwrap_or(to - WEEK_US);
    if from >= to || to - from > LONGEST_US {
        return Err(CliError::Usage("--to must be after --from, by at most 31 days".into()));
    }
    let index = Index::read(data)?;
    let index = index.ok_or_else(|| CliError::Failed("there is no index yet: audit index --rebuild".into()))?;
    let rows: Vec<Value> = findings(&index, from, to)?.into_iter().map(finding).collect();
    show_odd(&rows, output)
}
