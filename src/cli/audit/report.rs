//! `audit report`, `audit anomalies`.

use super::complete;
use super::filter::Filter;
use crate::audit::anomalies::LONGEST_US;
use crate::audit::service::api;
use crate::cli::CliError;
use crate::cli::output::{Output, bar, cell, entries, print_json, time, timestamp};
use crate::cli::session::Session;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tonic::Code;

/// A week, in microseconds.
const WEEK_US: i64 = 7 * 86_400_000_000;

/// `Service/Method` of a full name.
pub(super) fn method(operation: &Value) -> String {
    cell(operation).rsplit('.').next().unwrap_or("").to_owned()
}

type CountsKey = (String, String, String, String, String);

/// Sums of exchanges, their durations and the bytes of their responses, by day, client, source, operation and outcome.
#[derive(Default)]
struct ExchangeTotals(BTreeMap<CountsKey, (u64, u64, u64)>);

impl ExchangeTotals {
    fn add(&mut self, key: CountsKey, exchanges: u64, total_us: u64, response_bytes: u64) {
        let sum = self.0.entry(key).or_default();
        *sum = (sum.0 + exchanges, sum.1 + total_us, sum.2 + response_bytes);
    }
}

/// The day of Ho Chi Minh City, where days are counted separately.
fn day(days: bool, seconds: i64) -> String {
    if days { time(seconds).chars().take(10).collect() } else { String::new() }
}

/// Counts of a period, the checkpoint up to which they are complete, and the number of its pruned entries that are not
/// counted.
type PeriodCounts = (ExchangeTotals, Option<api::Complete>, u64);

fn summed(days: bool, counts: Vec<api::Count>) -> ExchangeTotals {
    let mut sums = ExchangeTotals::default();
    for api::Count { from, client, source, operation, outcome, exchanges, total_us, response_bytes, .. } in counts {
        sums.add((day(days, from), client, source, operation, outcome), exchanges, total_us, response_bytes);
    }
    sums
}

pub fn bucket(days: bool) -> i32 {
    if days { api::Bucket::Day.into() } else { api::Bucket::Hour.into() }
}

/// Counts the entries themselves.
pub fn count_exchanges(session: &Session, filter: &Filter, days: bool) -> Result<api::CountExchangesPart, CliError> {
    let progress = bar("counting {bar:40} {pos}/{len} entries, {per_sec}")?;
    let (query, reason) = (Some(filter.request()), filter.why());
    let request = api::CountExchangesRequest { query, bucket: bucket(days), reason };
    let last = session.block_on(async {
        let mut parts = session.audit().count_exchanges(request).await?.into_inner();
        while let Some(part) = parts.message().await? {
            progress.set_length(part.of);
            progress.set_position(part.done);
            if part.complete.is_some() {
                return Ok(Some(part));
            }
        }
        Ok(None)
    });
    progress.finish_and_clear();
    last?.ok_or_else(|| CliError::Failed("the gateway ended before all was counted".into()))
}

fn from_log(session: &Session, filter: &Filter, days: bool) -> Result<PeriodCounts, CliError> {
    let last = count_exchanges(session, filter, days)?;
    Ok((summed(days, last.counts), last.complete, last.not_counted))
}

/// Uses the search index's counts, pruned entries too.
fn from_index(session: &Session, filter: &Filter, days: bool) -> Result<PeriodCounts, CliError> {
    let request = api::StatisticsRequest { query: Some(filter.request()), bucket: bucket(days) };
    let counted = session.read(session.audit().statistics(request))?;
    Ok((summed(days, counted.counts), counted.complete, counted.not_counted))
}

/// Prints a period in numbers, and its anomalies.
pub fn period(
    session: &Session,
    filter: &Filter,
    (days, by_index): (bool, bool),
    output: Output,
) -> Result<(), CliError> {
    let row = |((day, client, source, operation, outcome), (exchanges, total_us, response_bytes)): (
        CountsKey,
        (u64, u64, u64),
    )| {
        let mean_ms = total_us as f64 / exchanges.max(1) as f64 / 1e3;
        let mut row = json!({
            "client": client, "source": source, "operation": operation, "outcome": outcome, "exchanges": exchanges,
            "mean_ms": mean_ms, "response_bytes": response_bytes,
        });
        if days {
            row["day"] = Value::from(day);
        }
        row
    };
    let counts = if by_index { from_index } else { from_log };
    let (sums, complete, not_counted) = counts(session, filter, days)?;
    let rows: Vec<Value> = sums.0.into_iter().map(row).collect();
    let found = anomalies(session, &filter.request())?;
    if output == Output::Json {
        let complete = complete::to_json(complete.as_ref());
        let by = if by_index { "index" } else { "log" };
        return print_json(
            &json!({ "counts": rows, "counted_by": by, "findings": found, "complete": complete, "not_counted": not_counted }),
        );
    }
    let header = ["day", "client", "source", "operation", "outcome", "exchanges", "mean ms"];
    let header = if days { &header[..] } else { &header[1..] };
    output.records(&rows, header, |row| {
        let mean = format!("{:.1}", row["mean_ms"].as_f64().unwrap_or(0.0));
        let names = [cell(&row["client"]), cell(&row["source"]), method(&row["operation"]), cell(&row["outcome"])];
        let day = days.then(|| cell(&row["day"]));
        day.into_iter().chain(names).chain([cell(&row["exchanges"]), mean]).collect()
    })?;
    anstream::println!(
        "anomalies in this period (at most its last 31 days; what is usual is taken from the search index):"
    );
    show_anomalies(&found, output)?;
    if by_index {
        anstream::println!("counted by the search index, which audit verify --index compares with the log");
    }
    if not_counted > 0 {
        anstream::println!(
            "archived and pruned, and not counted: {} that may belong to this period",
            entries(not_counted)
        );
    }
    complete::print(complete.as_ref(), output);
    Ok(())
}

/// Returns the anomalies in the period of a query, or in its last 31 days; of its client, if it names one. Empty if the
/// gateway has no index.
pub fn anomalies(session: &Session, query: &api::Query) -> Result<Vec<Value>, CliError> {
    let to_us = if query.to_us == 0 { jiff::Timestamp::now().as_microsecond() } else { query.to_us };
    let from_us = query.from_us.max(to_us - LONGEST_US);
    if from_us >= to_us {
        return Ok(Vec::new());
    }
    let request = api::ListFindingsRequest { from_us, to_us };
    let found = session.block_on(async {
        match session.audit().list_findings(request).await {
            Ok(found) => Ok(found.into_inner().findings),
            Err(status) if status.code() == Code::NotFound => Ok(Vec::new()),
            Err(status) => Err(status),
        }
    })?;
    let of_client = |one: &api::Finding| query.client.is_empty() || query.client == one.client;
    Ok(found.into_iter().filter(of_client).map(finding).collect())
}

fn finding(found: api::Finding) -> Value {
    let api::Finding { rule, explanation, client, entries, count, id, review, .. } = found;
    let review = review.map(|one: api::Review| {
        json!({ "by": one.by, "time": timestamp(one.time_us.div_euclid(1_000_000)), "reason": one.reason, "entry": one.entry })
    });
    json!({
        "id": id, "rule": rule, "client": client, "explanation": explanation, "count": count, "entries": entries,
        "review": review,
    })
}

fn show_anomalies(rows: &[Value], output: Output) -> Result<(), CliError> {
    output.records(rows, &["rule", "client", "finding", "entries", "reviewed"], |row| {
        let entries: Vec<String> = row["entries"].as_array().into_iter().flatten().take(5).map(cell).collect();
        let more = row["count"].as_u64().unwrap_or(0).saturating_sub(entries.len() as u64);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let seen = [cell(&row["rule"]), cell(&row["client"]), cell(&row["explanation"])];
        let review = &row["review"];
        let reviewed = match review.is_null() {
            true => format!("no: audit review {}", cell(&row["id"])),
            false => format!("{} by {}: {}", cell(&review["time"]), cell(&review["by"]), cell(&review["reason"])),
        };
        seen.into_iter().chain([format!("{}{more}", entries.join(" ")), reviewed]).collect()
    })
}

/// Marks an anomaly as reviewed.
pub fn review(
    session: &Session,
    (id, reason): (String, String),
    (from, to): (Option<i64>, Option<i64>),
    output: Output,
) -> Result<(), CliError> {
    let (from_us, to_us) = last_week(from, to);
    let request = api::ReviewFindingRequest { id: id.clone(), from_us, to_us, reason };
    session.change(async { session.audit().review_finding(request).await })?;
    output.result(&json!({ "reviewed": id }), || format!("reviewed: {id}"))
}

/// A period, by default the last seven days until now.
fn last_week(from: Option<i64>, to: Option<i64>) -> (i64, i64) {
    let to_us = to.unwrap_or_else(|| jiff::Timestamp::now().as_microsecond());
    (from.unwrap_or(to_us - WEEK_US), to_us)
}

/// Prints the anomalies.
pub fn list_anomalies(session: &Session, from: Option<i64>, to: Option<i64>, output: Output) -> Result<(), CliError> {
    let (from_us, to_us) = last_week(from, to);
    let request = api::ListFindingsRequest { from_us, to_us };
    let found = session.read(session.audit().list_findings(request))?;
    show_anomalies(&found.findings.into_iter().map(finding).collect::<Vec<_>>(), output)?;
    complete::print(found.complete.as_ref(), output);
    Ok(())
}
