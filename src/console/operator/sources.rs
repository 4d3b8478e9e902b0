//! Sources: their figures, their limits and breakers, and the errors of their exchanges.

use super::{live, notices};
use crate::admin::api::admin_service_server::AdminService;
use crate::admin::api::{AddressCheck, EndpointOverview, GuardOverview, Notice, RecentError, SourceId, SourceOverview};
use crate::console::failure::{Failure, FieldFaults, message_of};
use crate::console::form::{Form, Sent};
use crate::console::session::{SignedIn, Watching};
use crate::console::table::{properties, table};
use crate::console::text::Locale;
use crate::console::{Console, layout, request};
use crate::registry::Role;
use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use maud::{Markup, html};
use std::sync::Arc;

const HERE: &str = "/console/sources";

/// Lists the sources.
pub async fn list(State(console): State<Arc<Console>>, session: SignedIn) -> Result<Markup, Failure> {
    let overview = live::overview(&console, &session).await?;
    let body = live::sources(session.locale, &overview.sources);
    Ok(layout::page(&session, HERE, &session.locale.text("menu-sources"), &body))
}

async fn found(console: &Console, session: &SignedIn, id: &str) -> Result<SourceOverview, Failure> {
    let overview = live::overview(console, session).await?;
    let mut sources = overview.sources.into_iter().filter(|source| !id.is_empty() && source.id == id);
    sources.next().ok_or_else(|| Failure::plain(session.locale, StatusCode::NOT_FOUND, "failure-not-found"))
}

/// Shows one source.
pub async fn one(
    State(console): State<Arc<Console>>,
    session: SignedIn,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    page(&console, &session, &id, Shown::default()).await
}

/// What a source's page shows beside the source: the result of a check, and the notice's form with its faults.
#[derive(Default)]
struct Shown {
    checked: Option<Vec<AddressCheck>>,
    form: Form,
    faults: FieldFaults,
}

async fn page(console: &Console, session: &SignedIn, id: &str, shown: Shown) -> Result<Response, Failure> {
    let source = found(console, session, id).await?;
    let notice = notices::of(console, session, id).await?;
    let body = body(session, &source, notice.as_ref(), &shown);
    Ok(layout::live_page(session, HERE, &live::name(session.locale, &source), &body))
}

/// A source's page with the form of its notice, as it was sent, and its faults.
pub async fn with_notice_form(
    console: &Console,
    session: &SignedIn,
    id: &str,
    (form, faults): (Form, FieldFaults),
) -> Result<Response, Failure> {
    page(console, session, id, Shown { form, faults, checked: None }).await
}

fn body(session: &SignedIn, source: &SourceOverview, notice: Option<&Notice>, shown: &Shown) -> Markup {
    let locale = session.locale;
    html! {
        p.actions {
            a.button href={ "/console/catalogue?source=" (source.id) } { (locale.text("source-operations")) }
            a.button.quiet href={ "/console/contracts?source=" (source.id) } { (locale.text("source-drift")) }
        }
        @if session.has(&[Role::Administrator, Role::Operator]) {
            form method="post" action={ (HERE) "/" (source.id) "/check" } {
                (layout::token(session))
                button.quiet type="submit" { (locale.text("source-check")) }
                p.hint { (locale.text("source-check-hint")) }
            }
        }
        @if let Some(all) = &shown.checked { div role="status" { h2 { (locale.text("source-checked")) } (checks(locale, all)) } }
        div #live hx-get={ (HERE) "/" (source.id) "/live" } hx-trigger="every 5s" { (part(locale, source)) }
        (notices::section(session, &source.id, notice, (&shown.form, &shown.faults)))
    }
}

/// Checks a source, and shows what that has found.
pub async fn check(
    State(console): State<Arc<Console>>,
    Path(id): Path<String>,
    Sent { session, .. }: Sent,
) -> Result<Response, Failure> {
    let checked = console.admin.check_source(request(&session, SourceId { id: id.clone() })).await;
    let checked = Some(message_of(&session, checked)?.checks);
    page(&console, &session, &id, Shown { checked, ..Shown::default() }).await
}

fn checks(locale: Locale, all: &[AddressCheck]) -> Markup {
    let row = |one: &AddressCheck| {
        let (key, kind) = if one.reachable { ("check-reached", "good") } else { ("check-not-reached", "wrong") };
        let hub = if one.hub.is_empty() { locale.text("hub-none") } else { one.hub.clone() };
        vec![
            html! { code { (one.address) } },
            html! { (hub) },
            html! { span.state.(kind) { (locale.text(key)) } @if !one.fault.is_empty() { br; (one.fault) } },
            html! { (locale.milliseconds(one.duration_us)) },
        ]
    };
    let headings = ["column-address", "column-hub", "column-state", "column-duration"];
    table(locale, "source-checked", &headings, &all.iter().map(row).collect::<Vec<_>>())
}

/// Returns the part of its page that refreshes itself.
pub async fn fragment(
    State(console): State<Arc<Console>>,
    Watching(session): Watching,
    Path(id): Path<String>,
) -> Result<Markup, Failure> {
    Ok(part(session.locale, &found(&console, &session, &id).await?))
}

fn part(locale: Locale, source: &SourceOverview) -> Markup {
    let number = |number: u64| html! { (locale.number(number)) };
    let times = |p50, p99| html! { (live::millis(locale, p50)) " / " (live::millis(locale, p99)) };
    html! {
        (properties(locale, &[
            ("column-id", html! { code { (source.id) } }),
            ("source-owner", html! { (source.owner) }),
            ("source-contract", html! { (source.contract) }),
            ("column-breaker", live::breaker(locale, live::worst(source))),
            ("source-calls", number(source.calls)),
            ("source-times", times(source.p50_us, source.p99_us)),
            ("source-own-times", times(source.source_p50_us, source.source_p99_us)),
            ("source-faults-source", number(source.source_faults)),
            ("source-faults-hub", number(source.hub_faults)),
            ("source-faults-gateway", number(source.gateway_faults)),
            ("source-faults-caller", number(source.caller_faults)),
        ]))
        h2 { (locale.text("source-errors")) }
        (errors(locale, &source.errors))
        h2 { (locale.text("source-endpoints")) }
        (endpoints(locale, &source.endpoints))
        h2 { (locale.text("source-limits")) }
        (guards(locale, &source.guards))
    }
}

fn errors(locale: Locale, all: &[RecentError]) -> Markup {
    let row = |error: &RecentError| {
        vec![
            html! { code { (error.reason) } },
            html! { (live::fault(locale, &error.fault)) },
            html! { (locale.timestamp(error.last_seen)) },
            html! { (live::meaning(locale, &error.reason)) },
        ]
    };
    let headings = ["column-reason", "column-fault", "column-last-seen", "column-meaning"];
    table(locale, "source-errors", &headings, &all.iter().map(row).collect::<Vec<_>>())
}

fn endpoints(locale: Locale, all: &[EndpointOverview]) -> Markup {
    let row = |one: &EndpointOverview| {
        let (key, kind) = if one.up { ("endpoint-up", "good") } else { ("endpoint-left-alone", "wrong") };
        let hub = if one.hub.is_empty() { locale.text("hub-none") } else { one.hub.clone() };
        vec![html! { code { (one.address) } }, html! { (hub) }, html! { span.state.(kind) { (locale.text(key)) } }]
    };
    let headings = ["column-address", "column-hub", "column-state"];
    table(locale, "source-endpoints", &headings, &all.iter().map(row).collect::<Vec<_>>())
}

fn guards(locale: Locale, all: &[GuardOverview]) -> Markup {
    let of = |now: u32, most: u32| html! { (locale.number(now.into())) " / " (locale.number(most.into())) };
    let row = |guard: &GuardOverview| {
        vec![
            html! { code { (guard.name) } },
            live::breaker(locale, guard.breaker()),
            html! { (locale.number(guard.breaker_clients.into())) },
            of(guard.concurrency, guard.max_concurrency),
            of(guard.queued, guard.max_queued),
            of(guard.streams, guard.max_streams),
        ]
    };
    let headings = [
        "column-guard",
        "column-breaker",
        "column-breaker-clients",
        "column-concurrency",
        "column-queued",
        "column-streams",
    ];
    table(locale, "source-limits", &headings, &all.iter().map(row).collect::<Vec<_>>())
}
