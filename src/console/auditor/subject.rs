//! Subject reports: who looked a person up, as page, PDF and JSON, and the sheet for the citizen. Ids come by POST only: they are in no
//! address, and browsers cache nothing of it.

use super::{Field, day_us, field};
use crate::audit::pdf::{PdfError, TableHeader, citizen_sheet, subject_report};
use crate::audit::query::outcome;
use crate::audit::service::api::audit_service_server::AuditService;
use crate::audit::service::api::{Complete, GetCheckpointRequest, GetStatusRequest, Query, SearchRequest};
use crate::audit::sheet::{Letterhead, Sheet, own_signature};
use crate::console::failure::{Failure, message_of};
use crate::console::form::{Form, Sent};
use crate::console::session::SignedIn;
use crate::console::table::table;
use crate::console::text::Locale;
use crate::console::{Console, exchanges, layout, request};
use crate::contract::formats::{Format, check};
use crate::exchange_log::Kind;
use crate::exchange_log::checkpoint::{Checkpoint, LogVerifier};
use crate::exchange_log::reader::Found;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use maud::{Markup, html};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

const HERE: &str = "/console/people";
/// Entries per page of the search, and the maximum of a report; for a person with more, `audit subject` makes the report.
const PAGE: u32 = 1_000;
const MAX_ENTRIES: usize = 5_000;
/// Maximum duration of the search.
const PATIENCE: Duration = Duration::from_secs(60);
/// Maximum ids of one person.
const MAX_IDS: usize = 16;
/// Maximum length of a heading field, in characters.
const MAX_TEXT: usize = 150;
/// Maximum of documents rendered concurrently: each takes a thread.
static DOCUMENTS: Semaphore = Semaphore::const_new(2);
/// Fields of the sheet's heading, with the keys of their texts.
const HEADING: [(&str, &str); 5] = [
    ("superior", "person-superior"),
    ("agency", "person-agency"),
    ("place", "person-place"),
    ("signer", "person-signer"),
    ("contact", "person-contact"),
];

/// The errors of a form, by field.
#[derive(Default)]
struct Errors {
    ids: Option<&'static str>,
    case: Option<&'static str>,
    from: Option<&'static str>,
    to: Option<&'static str>,
    heading: Option<&'static str>,
}

impl Errors {
    fn any(&self) -> bool {
        [self.ids, self.case, self.from, self.to, self.heading].iter().any(Option::is_some)
    }
}

/// Ids, document number and period of a form.
struct Parameters {
    ids: Vec<String>,
    case: String,
    period: (Option<i64>, Option<i64>),
}

fn parameters(form: &Form) -> Result<Parameters, Errors> {
    let (ids, case) = (form.list("ids"), form.text("case").to_owned());
    let (from, to) = (day_us(form.text("from"), 0), day_us(form.text("to"), 1));
    let ordered = from.zip(to).is_none_or(|(from, to)| to == 0 || from < to);
    let short = |id: &String| id.chars().count() <= 64 && !id.chars().any(char::is_control);
    let errors = Errors {
        ids: (ids.is_empty() || ids.len() > MAX_IDS || !ids.iter().all(short)).then_some("error-ids"),
        case: (case.len() > 64 || check(Format::Code, &case).is_err()).then_some("error-case"),
        from: from.is_none().then_some("error-date"),
        to: if ordered { to.is_none().then_some("error-date") } else { Some("error-period") },
        heading: HEADING
            .iter()
            .any(|(name, _)| {
                let text = form.text(name);
                text.chars().count() > MAX_TEXT || text.chars().any(char::is_control)
            })
            .then_some("error-heading"),
    };
    let time = |us: Option<i64>| us.filter(|us| *us != 0);
    if errors.any() { Err(errors) } else { Ok(Parameters { ids, case, period: (time(from), time(to)) }) }
}

/// Shows the empty form.
pub async fn page(State(console): State<Arc<Console>>, session: SignedIn) -> Result<Markup, Failure> {
    // Anybody but an auditor is refused before they enter an id.
    message_of(&session, console.audit.get_status(request(&session, GetStatusRequest {})).await)?;
    Ok(shown(&session, &Form::default(), &Errors::default(), &html! {}))
}

fn shown(session: &SignedIn, form: &Form, errors: &Errors, below: &Markup) -> Markup {
    let body = html! { (input(session, form, errors)) (below) };
    layout::page(session, HERE, &session.locale.text("menu-people"), &body)
}

/// The report, in the form that was asked for.
pub async fn report(State(console): State<Arc<Console>>, sent: Sent) -> Result<Response, Failure> {
    let Sent { session, form } = sent;
    let locale = session.locale;
    let parameters = match parameters(&form) {
        Ok(parameters) => parameters,
        Err(errors) => {
            return Ok((StatusCode::BAD_REQUEST, shown(&session, &form, &errors, &html! {})).into_response());
        }
    };
    let (found, complete) = about(&console, &session, &parameters).await?;
    let (checkpoint, note) = checkpoint(&console, &session).await?.unzip();
    let head =
        TableHeader::new(&parameters.ids, &parameters.case, parameters.period, checkpoint.as_ref(), complete.as_ref());
    let note = note.unwrap_or_default();
    match form.text("as") {
        "pdf" => document(locale, "report.pdf", move || subject_report(&head, &found)).await,
        "json" => Ok(file("application/json", "report.json", as_json(&found, complete.as_ref()))),
        "sheet" => {
            let sheet = sheet(&console, &form, (parameters, head), &found, &note);
            document(locale, "sheet.pdf", move || citizen_sheet(&sheet)).await
        }
        _ => {
            let sheet = sheet(&console, &form, (parameters, head), &found, &note);
            let below = html! {
                (results(locale, &sheet, &found))
                (exchanges::complete(locale, complete.as_ref()))
            };
            Ok(shown(&session, &form, &Errors::default(), &below).into_response())
        }
    }
}

/// The exchanges about a person, oldest first, with refused ones: they are attempts. If the index finds none, the log itself is read.
async fn about(
    console: &Console,
    session: &SignedIn,
    parameters: &Parameters,
) -> Result<(Vec<Found>, Option<Complete>), Failure> {
    let (mut found, complete) = searched(console, session, parameters, false).await?;
    if !found.is_empty() || complete.as_ref().is_none_or(|complete| complete.from_log) {
        found.reverse();
        return Ok((found, complete));
    }
    let (mut found, complete) = searched(console, session, parameters, true).await?;
    found.reverse();
    Ok((found, complete))
}

async fn searched(
    console: &Console,
    session: &SignedIn,
    parameters: &Parameters,
    from_log: bool,
) -> Result<(Vec<Found>, Option<Complete>), Failure> {
    let (began, mut found, mut complete, mut page_token) = (Instant::now(), Vec::new(), None, String::new());
    let mut ids = parameters.ids.iter().cloned();
    let query = Query {
        subject: ids.next().unwrap_or_default(),
        other_subjects: ids.collect(),
        from_us: parameters.period.0.unwrap_or(0),
        to_us: parameters.period.1.unwrap_or(0),
        ..Query::default()
    };
    loop {
        let message = SearchRequest {
            query: Some(query.clone()),
            page_size: PAGE,
            page_token,
            reason: parameters.case.clone(),
            from_log,
        };
        let page = message_of(session, console.audit.search(request(session, message)).await)?;
        complete = complete.or(page.complete);
        let entries = page.entries.into_iter().filter_map(|one| Some(Found { index: one.index, entry: one.entry? }));
        found.extend(entries.filter(|one| matches!(one.entry.kind(), Kind::Exchange | Kind::StreamPart)));
        if page.next_page_token.is_empty() {
            return Ok((found, complete));
        }
        if found.len() > MAX_ENTRIES || began.elapsed() > PATIENCE {
            return Err(Failure::plain(session.locale, StatusCode::UNPROCESSABLE_ENTITY, "person-too-much"));
        }
        page_token = page.next_page_token;
    }
}

/// The published checkpoint, checked with the log's key; `None` where there is none yet.
async fn checkpoint(console: &Console, session: &SignedIn) -> Result<Option<(Checkpoint, String)>, Failure> {
    let got = message_of(session, console.audit.get_checkpoint(request(session, GetCheckpointRequest {})).await)?;
    if got.checkpoint.is_empty() {
        return Ok(None);
    }
    let unsound = || Failure::plain(session.locale, StatusCode::INTERNAL_SERVER_ERROR, "person-checkpoint");
    let key = LogVerifier::parse(&got.verifier_key).map_err(|_| unsound())?;
    let checkpoint = key.check(&got.checkpoint).map_err(|_| unsound())?;
    Ok(Some((checkpoint, got.checkpoint)))
}

fn sheet(
    console: &Console,
    form: &Form,
    (parameters, head): (Parameters, TableHeader),
    found: &[Found],
    note: &str,
) -> Sheet {
    let text = |name: &str| form.text(name).to_owned();
    Sheet {
        head: Letterhead {
            superior: text("superior"),
            agency: text("agency"),
            city: text("place"),
            signer: text("signer"),
            contact: text("contact"),
        },
        ids: parameters.ids,
        case: parameters.case,
        period: head.period,
        made: crate::registry::now(),
        rows: Sheet::rows_of(&console.contracts.load(), &console.names.load(), found),
        log: head.log,
        complete: head.complete,
        checkpoint: own_signature(note),
    }
}

/// Renders a document outside the serving threads.
async fn document(
    locale: Locale,
    name: &str,
    make: impl FnOnce() -> Result<Vec<u8>, PdfError> + Send + 'static,
) -> Result<Response, Failure> {
    let failed = || Failure::plain(locale, StatusCode::INTERNAL_SERVER_ERROR, "person-document");
    let permit = DOCUMENTS.acquire().await.map_err(|_| failed())?;
    let made = tokio::task::spawn_blocking(move || {
        let made = make();
        drop(permit);
        made
    });
    let bytes = made.await.map_err(|_| failed())?.map_err(|_| failed())?;
    Ok(file("application/pdf", name, bytes))
}

fn file(kind: &'static str, name: &str, bytes: impl Into<axum::body::Body>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    (headers, bytes.into()).into_response()
}

fn as_json(found: &[Found], complete: Option<&Complete>) -> String {
    let entries = found.iter().map(|one| {
        let entry = &one.entry;
        json!({
            "time": entry.time_text(), "agency": entry.agency, "client": entry.client, "source": entry.source,
            "operation": entry.operation, "purpose": entry.purpose, "outcome": outcome(entry), "fields": entry.fields,
            "exchange": entry.id_text(), "index": one.index,
        })
    });
    let complete = complete.map(|complete| {
        json!({
            "size": complete.size, "root": crate::hex::hex(&complete.root), "newest_us": complete.newest_us,
            "unsealed": complete.unsealed, "pruned": complete.pruned, "from_log": complete.from_log,
        })
    });
    json!({ "complete": complete, "entries": entries.collect::<Vec<_>>() }).to_string()
}

/// The sheet on the page: summary, requests, how to verify, where to complain; then each entry.
fn results(locale: Locale, sheet: &Sheet, found: &[Found]) -> Markup {
    let row = |row: &crate::audit::sheet::SheetRow| {
        let kinds = if row.given { row.kinds.join("; ") } else { locale.text("person-not-given") };
        vec![
            html! { (row.day) },
            html! { (row.agency) },
            html! { (row.source) },
            html! { (row.purpose) },
            html! { (kinds) },
            html! { (locale.number(row.count)) },
        ]
    };
    let entry = |one: &Found| {
        vec![
            html! { a href={ "/console/exchanges/" (one.index) } { (locale.timestamp(one.entry.time_us / 1_000_000)) } },
            html! { (one.entry.client) },
            html! { code { (one.entry.operation) } },
            html! { (outcome(&one.entry)) },
        ]
    };
    let headings = ["figures-day", "column-agency", "column-source", "column-purpose", "person-kinds", "person-count"];
    html! {
        section.entry lang="vi" {
            h2 { "Tóm tắt" }
            @for line in sheet.summary() { p { (line) } }
            p { (sheet.complaint()) }
        }
        h2 { (locale.text("person-requests")) }
        (table(locale, "person-requests", &headings, &sheet.rows.iter().map(row).collect::<Vec<_>>()))
        @if !found.is_empty() {
            h2 { (locale.text("person-entries")) }
            (table(locale, "person-entries", &["column-time", "column-client", "column-operation", "column-outcome"],
                &found.iter().map(entry).collect::<Vec<_>>()))
        }
    }
}

fn input(session: &SignedIn, form: &Form, errors: &Errors) -> Markup {
    let locale = session.locale;
    let text = |name: &'static str, label: &'static str, kind: &'static str, error: Option<&'static str>| {
        field(locale, &Field { name, label, kind, value: form.text(name), error })
    };
    html! {
        p.hint { (locale.text("person-hint")) }
        form method="post" action=(HERE) {
            (layout::token(session))
            label { (locale.text("person-ids"))
                textarea name="ids" rows="3" autocomplete="off" required
                    aria-invalid=[errors.ids.map(|_| "true")] aria-describedby=[errors.ids.map(|_| "ids-error")] { (form.list("ids").join("\n")) }
                @if let Some(key) = errors.ids { span.error #ids-error { (locale.text(key)) } }
            }
            (text("case", "person-case", "text", errors.case))
            (text("from", "period-from", "date", errors.from))
            (text("to", "period-to", "date", errors.to))
            details open[errors.heading.is_some()] {
                summary { (locale.text("person-heading")) }
                @if let Some(key) = errors.heading { p.error role="alert" { (locale.text(key)) } }
                @for (name, label) in HEADING { (text(name, label, "text", None)) }
            }
            p.actions {
                button type="submit" name="as" value="page" { (locale.text("person-show")) }
                button.quiet type="submit" name="as" value="sheet" { (locale.text("person-sheet")) }
                button.quiet type="submit" name="as" value="pdf" { (locale.text("person-pdf")) }
                button.quiet type="submit" name="as" value="json" { (locale.text("person-json")) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_shown_beside_its_field() {
        let of = |text: &str| parameters(&Form::parse(text.as_bytes()));
        let good = of("ids=022055356620%0D%0A014055356620&case=12/KN&from=2026-11-01&to=2026-11-01");
        assert!(good.is_ok_and(|parameters| parameters.ids.len() == 2 && parameters.period.0 < parameters.period.1));
        assert!(of("ids=1&case=12/KN").is_ok_and(|parameters| parameters.period == (None, None)));
        assert!(of("ids=1&case=12/KN&from=2026-11-01").is_ok_and(|parameters| parameters.period.1.is_none()));
        let wrong = |text: &str| of(text).err().unwrap_or_default();
        assert!(wrong("case=1").ids.is_some() && wrong("case=1").case.is_none());
        assert!(wrong("ids=1&case=Nguyễn Văn A").case.is_some() && wrong("ids=1").case.is_some());
        assert!(wrong("ids=1&case=1&from=x").from.is_some());
        assert!(wrong("ids=1&case=1&from=2026-11-02&to=2026-11-01").to == Some("error-period"));
        assert!(wrong(&format!("ids=1&case=1&agency={}", "x".repeat(151))).heading.is_some());
        assert!(wrong(&format!("case=1&{}", "ids=1&".repeat(17))).ids.is_some());
    }
}
