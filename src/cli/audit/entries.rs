//! Reading entries by `ndxp.audit.v1`: page by page, of one exchange, and as they come.

use super::complete::CompleteListing;
use super::filter::Filter;
use super::to_json;
use crate::audit::service::api;
use crate::cli::CliError;
use crate::cli::output::{bar, cell, short};
use crate::cli::session::{PAGE, Session};
use crate::exchange_log::reader::Found;
use serde_json::Value;
use std::cell::RefCell;
use tonic::{Code, Status};

/// An entry as it was sent; one without is no entry.
fn found(message: api::LogEntry) -> Option<Found> {
    let index = message.index;
    message.entry.map(|entry| Found { index, entry })
}

/// Returns the newest matching entries that `keep` accepts, newest first, at most `limit`. If a search for a person
/// finds nothing in the search index, the result is confirmed from the log itself.
pub fn newest(
    session: &Session,
    filter: &Filter,
    limit: usize,
    keep: impl Fn(&Found) -> bool,
) -> Result<CompleteListing<Found>, CliError> {
    let listed = listed(session, filter.request(), filter, limit, &keep)?;
    let by_index = listed.complete.as_ref().is_some_and(|complete| !complete.from_log);
    if listed.found.is_empty() && by_index && filter.has_subject() {
        return self::listed(session, filter.request(), &filter.with_log_alone(), limit, &keep);
    }
    Ok(listed)
}

fn listed(
    session: &Session,
    query: api::Query,
    filter: &Filter,
    limit: usize,
    keep: &impl Fn(&Found) -> bool,
) -> Result<CompleteListing<Found>, CliError> {
    let (reason, from_log) = (filter.why(), filter.is_from_log());
    let page_size = u32::try_from(limit).unwrap_or(PAGE).clamp(1, PAGE);
    // The first page has the newest checkpoint of all; the pages after it go back from there.
    let complete = RefCell::new(None);
    let progress = bar("reading the log {bar:40} {pos}/{len} entries")?;
    let found = session.pages(limit, keep, |page_token| {
        let mut audit = session.audit();
        let (query, reason, complete, progress) = (Some(query.clone()), reason.clone(), &complete, &progress);
        async move {
            let request = api::SearchRequest { query, page_size, page_token, reason, from_log };
            let page = audit.search(request).await?.into_inner();
            if let Some(of_page) = page.complete {
                let mut first = complete.borrow_mut();
                let first = first.get_or_insert(of_page);
                if let (true, Ok(before)) = (from_log, page.next_page_token.parse()) {
                    let size = first.size + first.unsealed;
                    progress.set_length(size);
                    progress.set_position(size.saturating_sub(before));
                }
            }
            Ok((page.entries.into_iter().filter_map(found).collect(), page.next_page_token))
        }
    });
    progress.finish_and_clear();
    Ok(CompleteListing { found: found?, complete: complete.into_inner() })
}

/// Returns the entries of an exchange, oldest first; or the one at an index.
pub fn named(session: &Session, exchange: &str) -> Result<CompleteListing<Found>, CliError> {
    let id = uuid::Uuid::parse_str(exchange);
    let request = match exchange.parse() {
        Ok(index) => api::GetRequest { exchange_id: String::new(), index: Some(index) },
        Err(_) if id.is_ok() => api::GetRequest { exchange_id: exchange.to_owned(), index: None },
        Err(_) => {
            let wrong = format!("{exchange:?} is neither an exchange's id nor an entry's index");
            return Err(CliError::Usage(wrong));
        }
    };
    let (at, missing) =
        (request.index, || CliError::Failed(format!("OBJECT_UNKNOWN: the log has no exchange {exchange:?}")));
    let got = session.block_on(async {
        match session.audit().get(request).await {
            Ok(got) => Ok(Ok(got.into_inner())),
            Err(status) if status.code() == Code::NotFound => Ok(Err(true)),
            // The log is longer than one call may look through.
            Err(status) if status.message().contains("from_log") => Ok(Err(false)),
            Err(status) => Err(status),
        }
    })?;
    let listed = match got {
        Ok(got) => {
            CompleteListing { found: got.entries.into_iter().filter_map(found).collect(), complete: got.complete }
        }
        Err(true) => return Err(missing()),
        Err(false) => {
            let query = api::Query { exchange_id: exchange.to_owned(), ..api::Query::default() };
            let mut listed = listed(session, query, &Filter::default().with_log_alone(), usize::MAX, &|_| true)?;
            listed.found.reverse();
            listed
        }
    };
    if listed.found.is_empty() {
        return Err(missing());
    }
    // The requested entries, and nothing else.
    let is_meant = |one: &Found| match (at, &id) {
        (Some(index), _) => one.index == index,
        (None, Ok(id)) => one.entry.exchange_id == id.as_bytes(),
        (None, Err(_)) => false,
    };
    match listed.found.iter().find(|one| !is_meant(one)) {
        Some(other) => Err(CliError::Failed(format!(
            "the response has entry {}, which does not belong to {exchange:?}",
            other.index
        ))),
        None => Ok(listed),
    }
}

/// Prints entries as they come under the checkpoint, a line each, until the command is ended.
pub fn tail(session: &Session, filter: &Filter, from_index: u64, json: bool) -> Result<(), CliError> {
    let request = api::TailRequest { query: Some(filter.request()), from_index, reason: filter.why() };
    session.block_on(async {
        let mut stream = session.audit().tail(request).await?.into_inner();
        while let Some(message) = stream.message().await? {
            let Some(found) = found(message) else { continue };
            let row = to_json(&found);
            let line = if json { row.to_string() } else { line(&row) };
            anstream::println!("{line}");
        }
        Ok::<_, Status>(())
    })
}

/// Returns `Service/Method` of a call, or an admin event with its object.
pub fn what(row: &Value) -> String {
    match cell(&row["operation"]).rsplit('.').next() {
        Some("") | None => short(&format!("{} {}", cell(&row["event"]), cell(&row["object"]))),
        Some(name) => short(name),
    }
}

/// Returns the client of a call, or the actor of an admin event.
pub fn who(row: &Value) -> String {
    [cell(&row["client"]), cell(&row["actor"])].into_iter().find(|text| !text.is_empty()).unwrap_or_default()
}

/// Returns the outcome.
pub fn outcome(row: &Value) -> String {
    let reason = cell(&row["reason"]);
    if reason.is_empty() { "OK".to_owned() } else { reason }
}

fn line(row: &Value) -> String {
    let text = |name: &str| cell(&row[name]);
    format!("{} {} {} {} {} {}", text("index"), text("time"), who(row), what(row), outcome(row), text("exchange"))
}
