//! The page of a provincial system's developers, by the system's own certificate: its grants, its use, its newest failures.

use crate::audit::service::api::audit_service_server::AuditService;
use crate::audit::service::api::{GetOwnUseRequest, GetOwnUseResponse, OwnFailure, OwnUse};
use crate::console::failure::{Failure, message_of};
use crate::console::operator::live;
use crate::console::session::{OWN, SignedIn};
use crate::console::table::{lines, table};
use crate::console::text::Locale;
use crate::console::{Console, layout, request};
use crate::registry::{ClientView, now};
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use std::sync::Arc;

/// Shows the client's own page.
pub async fn page(State(console): State<Arc<Console>>, session: SignedIn) -> Result<Response, Failure> {
    if !session.is_client {
        return Ok(Redirect::to("/console/").into_response());
    }
    let locale = session.locale;
    let asked = console.audit.get_own_use(request(&session, GetOwnUseRequest { days: 0 })).await;
    let found = message_of(&session, asked)?;
    let view = console.staff.client(&session.principal);
    let view = view.map_err(|refusal| Failure::of(&session, &refusal.to_status("")))?;
    let body = html! {
        p.actions {
            a.button href="/console/catalogue" { (locale.text("menu-catalogue")) }
            a.button href="/console/may-i" { (locale.text("may-i")) }
        }
        h2 { (locale.text("menu-grants")) }
        (grants(locale, &view))
        h2 { (locale.with("own-use", "days", found.days.to_string())) }
        (uses(locale, &found))
        h2 { (locale.text("own-failures")) }
        (failures(locale, &found.failures))
    };
    Ok(layout::page(&session, OWN, &session.staff, &body).into_response())
}

fn grants(locale: Locale, view: &ClientView) -> Markup {
    let now = now();
    let row = |grant: &crate::registry::GrantView| {
        vec![
            html! { code { (grant.id) } },
            lines(&grant.scopes),
            lines(&grant.purposes),
            lines(&grant.fields),
            html! { (locale.timestamp(grant.not_after)) },
            html! { (locale.number(grant.rate.into())) " / s" @if grant.daily_quota > 0 { br; (locale.number(grant.daily_quota)) } },
        ]
    };
    let rows: Vec<Vec<Markup>> = view.grants.iter().filter(|grant| grant.in_force(now)).map(row).collect();
    let headings =
        ["column-id", "column-scopes", "column-purposes", "column-fields", "column-ends", "own-rate-and-quota"];
    table(locale, "menu-grants", &headings, &rows)
}

fn uses(locale: Locale, found: &GetOwnUseResponse) -> Markup {
    let row = |one: &OwnUse| {
        vec![
            html! { a href={ "/console/catalogue/" (one.operation) } { (one.operation) } },
            html! { code { (one.outcome) } },
            html! { (locale.number(one.exchanges)) },
            html! { (locale.milliseconds(one.mean_us)) },
        ]
    };
    let rows: Vec<Vec<Markup>> = found.uses.iter().map(row).collect();
    let headings = ["column-operation", "column-outcome", "column-calls", "own-mean"];
    html! {
        @if found.counted { (table(locale, "column-calls", &headings, &rows)) }
        @else { p { (locale.text("own-not-counted")) } }
    }
}

fn failures(locale: Locale, all: &[OwnFailure]) -> Markup {
    let row = |one: &OwnFailure| {
        vec![
            html! { (locale.precise(one.time_us)) },
            html! { (one.operation.rsplit('.').next().unwrap_or_default()) },
            html! { code { (one.reason) } @if !one.source_code.is_empty() { " " code { (one.source_code) } } },
            html! { (live::fault(locale, &one.fault)) },
            html! { (live::meaning(locale, &one.reason)) },
            html! { code { (one.exchange_id) } },
        ]
    };
    let headings =
        ["column-time", "column-operation", "column-reason", "column-fault", "column-meaning", "own-exchange"];
    table(locale, "own-failures", &headings, &all.iter().map(row).collect::<Vec<_>>())
}
