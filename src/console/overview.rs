//! The first page: what needs a decision, what ends soon, and how the log is.

use super::failure::{Failure, message_of};
use super::session::SignedIn;
use super::table::{properties, table};
use super::{Console, layout, request};
use crate::admin::api::admin_service_server::AdminService;
use crate::admin::api::{ListGrantsRequest, ListKeysRequest, ListPendingChangesRequest};
use crate::audit::service::api::GetStatusRequest;
use crate::audit::service::api::audit_service_server::AuditService;
use crate::registry::{Role, now};
use axum::extract::State;
use maud::{Markup, html};
use std::sync::Arc;

/// What ends within so many seconds is shown.
const SOON_S: i64 = 30 * 86_400;
/// Grants that are looked through for those that end soon: one page of the registry.
const LOOKED_AT: u32 = 1_000;

/// The page.
pub async fn page(State(console): State<Arc<Console>>, session: SignedIn) -> Result<Markup, Failure> {
    let locale = session.locale;
    let changes = ListPendingChangesRequest { page_size: 1_000, ..Default::default() };
    let changes = message_of(&session, console.admin.list_pending_changes(request(&session, changes)).await)?;
    let waiting = match changes.next_page_token.is_empty() {
        true => locale.number(changes.changes.len() as u64),
        false => format!("> {}", locale.number(changes.changes.len() as u64)),
    };
    let body = html! {
        section.cards {
            a.card href="/console/approvals" {
                strong { (waiting) }
                span { (locale.text("overview-waiting")) }
            }
        }
        (ending(&console, &session).await?)
        @if session.has(&[Role::Auditor]) { (log(&console, &session).await?) }
    };
    Ok(layout::page(&session, "/console/", &locale.text("menu-overview"), &body))
}

/// Grants and signing keys that end within 30 days, the next one first.
async fn ending(console: &Console, session: &SignedIn) -> Result<Markup, Failure> {
    let (locale, now) = (session.locale, now());
    let message = ListGrantsRequest { page_size: LOOKED_AT, ..Default::default() };
    let grants = message_of(session, console.admin.list_grants(request(session, message)).await)?;
    let keys = message_of(session, console.admin.list_keys(request(session, ListKeysRequest {})).await)?;
    let soon = |end: i64| end > now && end - now <= SOON_S;
    let mut all: Vec<(i64, Vec<Markup>)> = Vec::new();
    for grant in grants.grants.iter().filter(|grant| soon(grant.not_after) && !grant.withdrawn) {
        let what = html! { (locale.text("grant")) " " a href={ "/console/grants/" (grant.id) } { (grant.client) } };
        all.push((grant.not_after, vec![what, html! { (locale.timestamp(grant.not_after)) }]));
    }
    for key in keys.keys.iter().filter(|key| soon(key.trusted_until)) {
        let what = html! { (locale.text("signing-key")) " " code { (key.kid) } };
        all.push((key.trusted_until, vec![what, html! { (locale.timestamp(key.trusted_until)) }]));
    }
    all.sort_by_key(|(end, _)| *end);
    let rows: Vec<Vec<Markup>> = all.into_iter().map(|(_, row)| row).collect();
    Ok(html! {
        h2 { (locale.text("overview-ending")) }
        @if !grants.next_page_token.is_empty() {
            p.hint { (locale.with("overview-looked-at", "count", locale.number(LOOKED_AT.into()))) }
        }
        (table(locale, "overview-ending", &["column-what", "column-ends"], &rows))
    })
}

/// How far the log, its checkpoint, its cosignatures and its index are, and what alarms stand.
async fn log(console: &Console, session: &SignedIn) -> Result<Markup, Failure> {
    let locale = session.locale;
    let status = message_of(session, console.audit.get_status(request(session, GetStatusRequest {})).await)?;
    let number = |number: u64| html! { (locale.number(number)) };
    let mut rows = vec![
        ("log-entries", number(status.entries)),
        ("log-sealed", number(status.sealed)),
        ("log-unsealed", number(status.entries.saturating_sub(status.sealed))),
    ];
    if status.needs_witnesses {
        rows.push(("log-cosigned", number(status.cosigned)));
    }
    if status.has_index {
        rows.push(("log-indexed", number(status.indexed)));
    }
    Ok(html! {
        h2 { (locale.text("overview-log")) }
        @for alarm in &status.alarms { div.notice.wrong role="alert" { p { (alarm.text) } } }
        (properties(locale, &rows))
    })
}
