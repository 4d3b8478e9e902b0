//! Exports of a search: starting one, its progress, and the file to take away.

use super::{Field, field};
use crate::audit::rows::ExportFormat;
use crate::audit::service::api::audit_service_server::AuditService;
use crate::audit::service::api::{
    DownloadExportRequest, ExportFile, ListExportsRequest, RemoveExportRequest, StartExportRequest,
};
use crate::console::failure::{Failure, FieldFaults, message_of};
use crate::console::form::{Form, Sent};
use crate::console::session::{SignedIn, Watching};
use crate::console::table::table;
use crate::console::text::Locale;
use crate::console::{Console, exchanges, layout, request};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use futures_util::TryStreamExt;
use http::{StatusCode, header};
use maud::{Markup, html};
use std::sync::Arc;

const HERE: &str = "/console/exports";

/// The list and the form, with the search that an address names.
pub async fn page(State(console): State<Arc<Console>>, session: SignedIn, form: Form) -> Result<Response, Failure> {
    shown(&console, &session, &form, &FieldFaults::default()).await
}

async fn found(console: &Console, session: &SignedIn) -> Result<Vec<ExportFile>, Failure> {
    Ok(message_of(session, console.audit.list_exports(request(session, ListExportsRequest {})).await)?.exports)
}

async fn shown(console: &Console, session: &SignedIn, form: &Form, faults: &FieldFaults) -> Result<Response, Failure> {
    let locale = session.locale;
    let all = found(console, session).await?;
    let runs = all.iter().any(|one| !one.complete && one.fault.is_empty());
    let body = html! {
        p.hint { (locale.text("export-hint")) }
        @if runs {
            noscript { p.hint { (locale.text("tail-without-script")) } }
            div #live hx-get={ (HERE) "/live" } hx-trigger="every 1s" { (rows(session, &all)) }
        } @else { (rows(session, &all)) }
        h2 { (locale.text("export-start")) }
        (input(session, form, faults))
    };
    let title = locale.text("menu-exports");
    let page = match runs {
        true => layout::live_page(session, HERE, &title, &body),
        false => layout::page(session, HERE, &title, &body).into_response(),
    };
    Ok(if faults.is_empty() { page } else { (StatusCode::BAD_REQUEST, page).into_response() })
}

/// The part that renews itself while an export goes on.
pub async fn fragment(State(console): State<Arc<Console>>, Watching(session): Watching) -> Result<Markup, Failure> {
    Ok(rows(&session, &found(&console, &session).await?))
}

fn rows(session: &SignedIn, all: &[ExportFile]) -> Markup {
    let locale = session.locale;
    let row = |one: &ExportFile| {
        vec![
            html! { (locale.timestamp(one.started)) },
            html! { (one.format) },
            progress(locale, one),
            html! { (locale.number(one.entries)) },
            html! { (locale.number(one.bytes.div_ceil(1_024))) " kB" },
            html! {
                @if one.complete {
                    p { a href={ (HERE) "/" (one.id) } download { (locale.text("export-download")) } }
                }
                form method="post" action={ (HERE) "/" (one.id) "/remove" } {
                    (layout::token(session))
                    button.quiet type="submit" { (locale.text("export-remove")) }
                }
            },
        ]
    };
    let headings =
        ["export-started", "column-format", "column-state", "export-entries", "export-size", "column-action"];
    table(locale, "menu-exports", &headings, &all.iter().map(row).collect::<Vec<_>>())
}

fn progress(locale: Locale, one: &ExportFile) -> Markup {
    let (key, kind) = match one.fault.as_str() {
        "" if one.complete => ("export-complete", "good"),
        "" => ("export-running", "later"),
        "TOO_LARGE" => ("export-too-large", "wrong"),
        _ => ("export-failed", "wrong"),
    };
    html! {
        span.state.(kind) { (locale.text(key)) }
        @if kind == "later" {
            br;
            progress value=(one.done) max=(one.of.max(1)) aria-label=(locale.text("export-running")) {}
            " " (locale.number(one.done)) " / " (locale.number(one.of))
        }
    }
}

fn input(session: &SignedIn, form: &Form, faults: &FieldFaults) -> Markup {
    let locale = session.locale;
    let text = |name: &'static str, label: &'static str, kind: &'static str| {
        field(locale, &Field { name, label, kind, value: form.text(name), error: None })
    };
    html! {
        form method="post" action=(HERE) {
            (layout::token(session))
            @for (name, key) in exchanges::FIELDS { (text(name, key, "text")) }
            (text("from", "search-from", "datetime-local"))
            (text("to", "search-to", "datetime-local"))
            (faults.of_field("from"))
            (text("reason", "search-reason", "text"))
            (faults.of_field("reason"))
            label { (locale.text("column-format"))
                select name="format" {
                    @for format in ExportFormat::ALL.map(ExportFormat::ending) { option value=(format) selected[form.text("format") == format] { (format) } }
                }
            }
            p.actions { button type="submit" { (locale.text("export-start")) } }
        }
    }
}

/// Starts an export.
pub async fn start(State(console): State<Arc<Console>>, sent: Sent) -> Result<Response, Failure> {
    let Sent { session, form } = sent;
    let Some(query) = exchanges::query(&form) else {
        let faults = FieldFaults::one(session.locale, "from", "failure-instant");
        return shown(&console, &session, &form, &faults).await;
    };
    let (reason, format) = (form.text("reason").to_owned(), form.text("format").to_owned());
    let message = StartExportRequest { query: Some(query), reason, format };
    match console.audit.start_export(request(&session, message)).await {
        Ok(_) => Ok(Redirect::to(HERE).into_response()),
        Err(status) => shown(&console, &session, &form, &FieldFaults::of(&session, &status)?).await,
    }
}

/// The file.
pub async fn file(
    State(console): State<Arc<Console>>,
    session: SignedIn,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let all = found(&console, &session).await?;
    let missing = || Failure::plain(session.locale, StatusCode::NOT_FOUND, "failure-not-found");
    let one = all.iter().find(|one| one.id == id && one.complete).ok_or_else(missing)?;
    let kind = ExportFormat::of(&one.format).map_or("", ExportFormat::media_type);
    let name = format!("ndxp-{}.{}", one.id, one.format);
    let size = one.bytes;
    let parts =
        message_of(&session, console.audit.download_export(request(&session, DownloadExportRequest { id })).await)?;
    let content =
        parts.map_ok(|part| part.content).map_err(|status| std::io::Error::other(status.message().to_owned()));
    let headers = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CONTENT_LENGTH, size.to_string()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    Ok((headers, Body::from_stream(content)).into_response())
}

/// Ends and removes an export.
pub async fn remove(
    State(console): State<Arc<Console>>,
    Path(id): Path<String>,
    sent: Sent,
) -> Result<Redirect, Failure> {
    let session = sent.session;
    message_of(&session, console.audit.remove_export(request(&session, RemoveExportRequest { id })).await)?;
    Ok(Redirect::to(HERE))
}
