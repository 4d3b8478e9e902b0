//! `audit report --html`: a period's figures as one static page.

use super::filter::Filter;
use super::report::{anomalies, bucket, count_exchanges};
use crate::audit::service::api;
use crate::cli::CliError;
use crate::cli::output::{Output, cell, counted};
use crate::cli::session::Session;
use crate::console::auditor::figures::Figures;
use crate::console::text::Locale;
use serde_json::json;
use std::path::Path;

/// Counts the period and writes the page.
pub fn write(
    session: &Session,
    filter: &Filter,
    (days, by_index): (bool, bool),
    (file, force, language): (&Path, bool, &str),
    output: Output,
) -> Result<(), CliError> {
    let locale = Locale::of_code(language).unwrap_or(Locale::Vietnamese);
    let query = filter.request();
    let figures = if by_index {
        let request = api::StatisticsRequest { query: Some(query.clone()), bucket: bucket(days) };
        let counted = session.read(session.audit().statistics(request))?;
        let (counts, complete, not_counted) = (counted.counts, counted.complete, counted.not_counted);
        Figures { counts, hours: !days, not_counted, complete, ..Figures::default() }
    } else {
        let counted = count_exchanges(session, filter, days)?;
        let (counts, complete, purposes) = (counted.counts, counted.complete, counted.purposes);
        let (not_counted, other_purposes) = (counted.not_counted, counted.other_purposes);
        Figures { counts, hours: !days, purposes, other_purposes, not_counted, complete }
    };
    let findings: Vec<[String; 4]> = anomalies(session, &query)?
        .iter()
        .map(|one| [cell(&one["rule"]), cell(&one["client"]), cell(&one["explanation"]), cell(&one["count"])])
        .collect();
    let at = |us: i64| if us == 0 { "…".to_owned() } else { locale.timestamp(us / 1_000_000) };
    let period = match (query.from_us, query.to_us) {
        (0, 0) => locale.text("figures-all"),
        (from, to) => format!("{} – {}", at(from), at(to)),
    };
    let page = figures.file(locale, &locale.with("figures-period", "period", period), &findings);
    crate::keyfile::NewFile::write(file, page.as_bytes(), force)?;
    let exchanges: u64 = figures.counts.iter().map(|count| count.exchanges).sum();
    output.result(&json!({ "exchanges": exchanges, "file": file }), || {
        format!("{} in {}", counted(exchanges, "exchange", "exchanges"), file.display())
    })
}
