//! The auditor's search, and one exchange: all its entries, with their proofs verified on the page and a receipt to download.

use super::failure::{Failure, message_of};
use super::form::Form;
use super::session::SignedIn;
use super::table::{next, properties, table};
use super::text::Locale;
use super::{Console, entry, layout, request};
use crate::audit::service::api::audit_service_server::AuditService;
use crate::audit::service::api::{
    Complete, GetCheckpointRequest, GetReceiptRequest, GetRequest, LogEntry, Query, SearchRequest, get_receipt_request,
};
use crate::exchange_log::Entry;
use crate::exchange_log::checkpoint::LogVerifier;
use crate::exchange_log::receipt::Receipt;
use crate::hex::hex;
use crate::time_zone::HO_CHI_MINH;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use maud::{Markup, html};
use std::sync::Arc;
use tonic::Status;

const HERE: &str = "/console/exchanges";
/// Entries per page.
const PAGE: u32 = 50;
/// Fields of the search, with their texts.
pub(super) const FIELDS: [(&str, &str); 12] = [
    ("client", "column-client"),
    ("agency", "column-agency"),
    ("source", "column-source"),
    ("operation", "column-operation"),
    ("scope", "column-scope"),
    ("outcome", "column-outcome"),
    ("purpose", "column-purpose"),
    ("event", "column-event"),
    ("grant", "grant"),
    ("token", "token"),
    ("subject", "column-subject"),
    ("official", "column-official"),
];

/// An instant as `datetime-local` writes it, in Vietnam time (UTC+7), as Unix time in microseconds; 0 for an empty field.
pub(super) fn instant(text: &str) -> Option<i64> {
    if text.is_empty() {
        return Some(0);
    }
    let local: jiff::civil::DateTime = text.parse().ok()?;
    let at = HO_CHI_MINH.to_timestamp(local).ok()?;
    Some(at.as_microsecond())
}

/// The query of a form; `None` where a moment is none.
pub(super) fn query(form: &Form) -> Option<Query> {
    let text = |name: &str| form.text(name).to_owned();
    Some(Query {
        client: text("client"),
        agency: text("agency"),
        source: text("source"),
        operation: text("operation"),
        scope: text("scope"),
        outcome: text("outcome"),
        purpose: text("purpose"),
        event: text("event"),
        grant: text("grant"),
        token: text("token"),
        from_us: instant(form.text("from"))?,
        to_us: instant(form.text("to"))?,
        subject: text("subject"),
        official: text("official"),
        ..Query::default()
    })
}

/// Shows the search and its results. A search for a person's id needs a reason, and is an entry of its own.
pub async fn search(State(console): State<Arc<Console>>, session: SignedIn, form: Form) -> Result<Markup, Failure> {
    let locale = session.locale;
    let wrong = || Failure::plain(locale, StatusCode::BAD_REQUEST, "failure-instant");
    let message = SearchRequest {
        query: Some(query(&form).ok_or_else(wrong)?),
        page_size: PAGE,
        page_token: form.text("page").to_owned(),
        reason: form.text("reason").to_owned(),
        from_log: form.text("from_log") == "yes",
    };
    let found = message_of(&session, console.audit.search(request(&session, message)).await)?;
    let mut filters: Vec<(&str, &str)> = FIELDS.iter().map(|(name, _)| (*name, form.text(name))).collect();
    filters.extend(["from", "to", "reason", "from_log"].map(|name| (name, form.text(name))));
    let mut export = form_urlencoded::Serializer::new(String::new());
    // Ids of people are asked for again: they are not handed on in another address.
    let handed_on =
        |(name, value): &&(&str, &str)| !value.is_empty() && !["subject", "official", "reason"].contains(name);
    let export = export.extend_pairs(filters.iter().filter(handed_on)).finish();
    let body = html! {
        (filter(locale, &form))
        p { a href={ "/console/exports?" (export) } { (locale.text("export-this")) } }
        (entries(locale, "menu-exchanges", &found.entries))
        (next(locale, HERE, &filters, &found.next_page_token))
        (complete(locale, found.complete.as_ref()))
    };
    Ok(layout::page(&session, HERE, &locale.text("menu-exchanges"), &body))
}

fn filter(locale: Locale, form: &Form) -> Markup {
    let instant = |name: &str, key: &str| {
        html! {
            label { (locale.text(key)) input type="datetime-local" name=(name) value=(form.text(name)); }
        }
    };
    html! {
        form.filter method="get" action=(HERE) {
            @for (name, key) in FIELDS {
                label { (locale.text(key)) input name=(name) value=(form.text(name)) autocomplete="off"; }
            }
            (instant("from", "search-from"))
            (instant("to", "search-to"))
            label { (locale.text("search-reason")) input name="reason" value=(form.text("reason")); }
            label.choice {
                input type="checkbox" name="from_log" value="yes" checked[form.text("from_log") == "yes"];
                (locale.text("search-from-log"))
            }
            button type="submit" { (locale.text("search")) }
        }
        p.hint { (locale.text("search-hint")) }
    }
}

/// Where an entry is looked at: its exchange, or the entry alone where it belongs to none.
fn path_of(one: &LogEntry, entry: &Entry) -> String {
    match uuid::Uuid::from_slice(&entry.exchange_id) {
        Ok(id) if !id.is_nil() => format!("{HERE}/{id}"),
        _ => format!("{HERE}/{}", one.index),
    }
}

/// Entries as a table of this name.
pub(super) fn entries(locale: Locale, name: &str, all: &[LogEntry]) -> Markup {
    let rows: Vec<Vec<Markup>> = all.iter().filter_map(|one| row(locale, one)).collect();
    let headings = ["column-time", "column-kind", "column-client", "column-what", "column-outcome", "column-duration"];
    table(locale, name, &headings, &rows)
}

fn row(locale: Locale, one: &LogEntry) -> Option<Vec<Markup>> {
    let entry = one.entry.as_ref()?;
    let what = if entry.operation.is_empty() { &entry.event } else { &entry.operation };
    let who = if entry.client.is_empty() { &entry.actor } else { &entry.client };
    Some(vec![
        html! { a.moment href=(path_of(one, entry)) { (locale.timestamp(entry.time_us / 1_000_000)) } },
        html! { (entry::kind(locale, entry)) },
        html! { (who) },
        html! { (what) @if !entry.object.is_empty() { br; span.object { (entry.object) } } },
        entry::outcome(entry),
        html! { @if entry.total_us > 0 { (locale.milliseconds(entry.total_us)) } },
    ])
}

/// Shows the checkpoint up to which a page is complete.
pub(super) fn complete(locale: Locale, complete: Option<&Complete>) -> Markup {
    html! {
        @if let Some(complete) = complete {
            section.complete {
                h2 { (locale.text("complete-title")) }
                (properties(locale, &[
                    ("complete-size", html! { (locale.number(complete.size)) }),
                    ("complete-root", html! { code { (hex(&complete.root)) } }),
                    ("complete-newest", html! { (locale.timestamp(complete.newest_us / 1_000_000)) }),
                    ("complete-unsealed", html! { (locale.number(complete.unsealed)) }),
                    ("complete-pruned", html! { (locale.number(complete.pruned)) }),
                ]))
            }
        }
    }
}

fn exchange_or_index(id: &str) -> GetRequest {
    match id.parse::<u64>() {
        Ok(index) => GetRequest { exchange_id: String::new(), index: Some(index) },
        Err(_) => GetRequest { exchange_id: id.to_owned(), index: None },
    }
}

/// Shows one exchange.
pub async fn one(
    State(console): State<Arc<Console>>,
    session: SignedIn,
    Path(id): Path<String>,
) -> Result<Markup, Failure> {
    let locale = session.locale;
    let found = message_of(&session, console.audit.get(request(&session, exchange_or_index(&id))).await)?;
    let verifier = verifier(&console, &session).await;
    let body = html! {
        @for one in &found.entries {
            @if let Some(entry) = &one.entry {
                section.entry {
                    h2 { (entry::kind(locale, entry)) " " (entry::outcome(entry)) }
                    (entry::decision(&console, &session, entry).await)
                    (entry::stages(locale, entry))
                    h3 { (locale.text("entry-facts")) }
                    (properties(locale, &entry::facts(locale, &console.names.load(), one.index, entry)))
                    (proof(&console, &session, &verifier, one.index).await)
                }
            }
        }
        @if found.entries.is_empty() { p.empty { (locale.text("nothing-here")) } }
        (complete(locale, found.complete.as_ref()))
    };
    Ok(layout::page(&session, HERE, &id, &body))
}

/// The key that the log's checkpoint is checked with, or why there is none.
async fn verifier(console: &Console, session: &SignedIn) -> Result<LogVerifier, String> {
    let checkpoint =
        console.audit.get_checkpoint(request(session, GetCheckpointRequest {})).await.map_err(reason_of)?;
    LogVerifier::parse(&checkpoint.get_ref().verifier_key).map_err(|error| error.to_string())
}

/// Verifies an entry's receipt as anybody can, or shows why there is none yet.
async fn proof(console: &Console, session: &SignedIn, verifier: &Result<LogVerifier, String>, index: u64) -> Markup {
    let locale = session.locale;
    match verified(console, session, verifier, index).await {
        Ok(size) => html! {
            p.proof.good { (locale.with("proof-verified", "size", locale.number(size))) }
            p { a href={ (HERE) "/" (index) "/receipt" } download={ "receipt-" (index) ".txt" } { (locale.text("receipt")) } }
        },
        Err(why) => html! { p.proof { (locale.text("proof-none")) " " (why) } },
    }
}

fn reason_of(status: Status) -> String {
    status.message().to_owned()
}

async fn verified(
    console: &Console,
    session: &SignedIn,
    verifier: &Result<LogVerifier, String>,
    index: u64,
) -> Result<u64, String> {
    let text = receipt_of(console, session, index).await.map_err(reason_of)?;
    let receipt = Receipt::parse(&text).map_err(|error| error.to_string())?;
    let (_, checkpoint) = receipt.verify(verifier.as_ref()?).map_err(|error| error.to_string())?;
    Ok(checkpoint.size)
}

async fn receipt_of(console: &Console, session: &SignedIn, index: u64) -> Result<String, Status> {
    let message = GetReceiptRequest { of: Some(get_receipt_request::Of::Index(index)) };
    Ok(console.audit.get_receipt(request(session, message)).await?.into_inner().receipt)
}

/// Returns an entry's receipt as a file.
pub async fn receipt(
    State(console): State<Arc<Console>>,
    session: SignedIn,
    Path(index): Path<String>,
) -> Result<Response, Failure> {
    let index =
        index.parse().map_err(|_| Failure::plain(session.locale, StatusCode::NOT_FOUND, "failure-not-found"))?;
    let text = receipt_of(&console, &session, index).await.map_err(|status| Failure::of(&session, &status))?;
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"receipt-{index}.txt\"")),
    ];
    Ok((headers, text).into_response())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_read_in_vietnam_time() {
        assert_eq!(instant("2026-11-27T07:00"), Some(1_795_737_600_000_000));
        assert_eq!((instant(""), instant("yesterday")), (Some(0), None));
    }

    #[test]
    fn an_exchange_is_found_by_its_id_and_an_entry_by_its_index() {
        assert_eq!(exchange_or_index("17").index, Some(17));
        assert_eq!(exchange_or_index("019ab0c2-5a2e-7c11-9a1e-6d9c1f2b3a4d").index, None);
    }
}
