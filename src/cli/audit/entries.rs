//! Reading entries by `ndxp.audit.v1`: page by page, of one exchange, and as they come.

use super::filter::Filter;
use super::to_json;
use crate::audit::service::api;
use crate::cli::CliError;
use crate::cli::output::{cell, short};
use crate::cli::session::{PAGE, Session};
use crate::exchange_log::reader::Found;
use serde_json::Value;
use tonic::{Code, Status};

/// An entry as it was sent; one without is no entry.
fn found(message: api::LogEntry) -> Option<Found> {
    let index = message.index;
    message.entry.map(|entry| Found { index, entry })
}

/// The newest entries that fit and that `keep` takes, newest first, at most `limit`.
pub fn newest(
    session: &Session,
    filter: &Filter,
    limit: usize,
    keep: impl Fn(&Found) -> bool,
) -> Result<Vec<Found>, CliError> {
    let (query, reason) = (filter.request(), filter.why());
    let page_size = u32::try_from(limit).unwrap_or(PAGE).clamp(1, PAGE);
    session.pages(limit, keep, |page_token| {
        let mut audit = session.audit();
        let (query, reason) = (Some(query.clone()), reason.clone());
        async move {
            let request = api::SearchRequest { query, page_size, page_token, reason };
            let page = audit.search(request).await?.into_inner();
            Ok((page.entries.into_iter().filter_map(found).collect(), page.next_page_token))
        }
    })
}

/// The entries of an exchange, oldest first; or the one at an index.
pub fn named(session: &Session, exchange: &str) -> Result<Vec<Found>, CliError> {
    let request = match exchange.parse() {
        Ok(index) => api::GetRequest { exchange_id: String::new(), index: Some(index) },
        Err(_) if uuid::Uuid::parse_str(exchange).is_ok() => {
            api::GetRequest { exchange_id: exchange.to_owned(), index: None }
        }
        Err(_) => {
            let wrong = format!("{exchange:?} is neither an exchange's id nor an entry's index");
            return Err(CliError::Usage(wrong));
        }
    };
    let got = session.block_on(async {
        match session.audit().get(request).await {
            Ok(got) => Ok(Some(got.into_inner())),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status),
        }
    })?;
    let got = got.ok_or_else(|| CliError::Failed(format!("OBJECT_UNKNOWN: the log has no exchange {exchange:?}")))?;
    Ok(got.entries.into_iter().filter_map(found).collect())
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

/// `Service/Method` of a call, or an administrator's act with its object.
pub fn what(row: &Value) -> String {
    match cell(&row["operation"]).rsplit('.').next() {
        Some("") | None => short(&format!("{} {}", cell(&row["act"]), cell(&row["object"]))),
        Some(name) => short(name),
    }
}

/// The client of a call, or who administered.
pub fn who(row: &Value) -> String {
    [cell(&row["client"]), cell(&row["actor"])].into_iter().find(|text| !text.is_empty()).unwrap_or_default()
}

/// How it ended.
pub fn outcome(row: &Value) -> String {
    let reason = cell(&row["reason"]);
    if reason.is_empty() { "OK".to_owned() } else { reason }
}

fn line(row: &Value) -> String {
    let text = |name: &str| cell(&row[name]);
    format!("{} {} {} {} {} {}", text("index"), text("time"), who(row), what(row), outcome(row), text("exchange"))
}
