//! The first page: pending decisions, the gateway's current state, what expires soon, and the state of the log.

use super::failure::{Failure, message_of};
use super::last_use::LastUses;
use super::session::SignedIn;
use super::table::{properties, table};
use super::text::Locale;
use super::{Console, layout, operator, request};
use crate::admin::api::admin_service_server::AdminService;
use crate::admin::api::{
    FileEnd, GetOverviewResponse, Grant, ListGrantsRequest, ListGrantsResponse, ListKeysRequest,
    ListPendingChangesRequest, ListTokensRequest,
};
use crate::audit::service::api::audit_service_server::AuditService;
use crate::audit::service::api::{GetStatusRequest, GetStatusResponse};
use crate::registry::{Role, now};
use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};
use std::sync::Arc;

/// How far ahead expiries are shown, in seconds.
const SOON_S: i64 = 30 * 86_400;
/// A grant that nobody has used for so long needs a decision.
const UNUSED_S: i64 = 90 * 86_400;
/// Grants that are looked through for those that end soon: as many as a page reads in some 10 ms.
const LOOKED_AT: u32 = 500;

/// Shows the page.
pub async fn page(State(console): State<Arc<Console>>, session: SignedIn) -> Result<Response, Failure> {
    let locale = session.locale;
    let overview = operator::live::overview(&console, &session).await?;
    let changes = ListPendingChangesRequest { page_size: 1_000, ..Default::default() };
    let changes = message_of(&session, console.admin.list_pending_changes(request(&session, changes)).await)?;
    let waiting = match changes.next_page_token.is_empty() {
        true => locale.number(changes.changes.len() as u64),
        false => format!("> {}", locale.number(changes.changes.len() as u64)),
    };
    let grants = ListGrantsRequest { page_size: LOOKED_AT, ..Default::default() };
    let grants = message_of(&session, console.admin.list_grants(request(&session, grants)).await)?;
    let status = match session.has(&[Role::Auditor]) {
        true => Some(message_of(&session, console.audit.get_status(request(&session, GetStatusRequest {})).await)?),
        false => None,
    };
    let body = html! {
        section.cards aria-label=(locale.text("overview-decisions")) {
            a.card href="/console/approvals" {
                strong { (waiting) }
                span { (locale.text("overview-waiting")) }
            }
            (unused(&console, &session, &grants).await?)
            @if let Some(status) = &status {
                a.card href="/console/findings" {
                    strong { (status.open_findings.map_or_else(|| "…".to_owned(), |open| locale.number(open))) }
                    span { (locale.text("overview-open-findings")) }
                }
            }
        }
        div #live hx-get="/console/live" hx-trigger="every 5s" { (operator::live::part(locale, &overview)) }
        (ending(&console, &session, &overview, &grants).await?)
        @if let Some(status) = &status { (log(locale, status)) }
    };
    Ok(layout::live_page(&session, "/console/", &locale.text("menu-overview"), &body))
}

/// How many grants in force nobody has used for long; of the first thousand.
async fn unused(console: &Console, session: &SignedIn, grants: &ListGrantsResponse) -> Result<Markup, Failure> {
    let (locale, now) = (session.locale, now());
    // A new grant has not been there for long.
    let old = |grant: &&Grant| !grant.withdrawn && grant.not_after > now && grant.not_before < now - UNUSED_S;
    let objects: Vec<String> = grants.grants.iter().filter(old).map(|grant| format!("grant:{}", grant.id)).collect();
    let (count, complete) = LastUses::of(console, session, objects.clone()).await?.unused(&objects);
    let more = if complete && grants.next_page_token.is_empty() { "" } else { "≥ " };
    Ok(html! {
        a.card href="/console/grants" {
            strong { (more) (locale.number(count)) }
            span { (locale.text("overview-unused")) }
        }
    })
}

/// What ends, and when: Unix time in seconds.
type Ends = Vec<(i64, Markup)>;

fn is_soon(end: i64) -> bool {
    let now = now();
    end > now && end - now <= SOON_S
}

/// What ends within 30 days, the next one first: certificates and lists of the gateway, grants, signing keys; and how many tokens.
async fn ending(
    console: &Console,
    session: &SignedIn,
    overview: &GetOverviewResponse,
    grants: &ListGrantsResponse,
) -> Result<Markup, Failure> {
    let locale = session.locale;
    let keys = message_of(session, console.admin.list_keys(request(session, ListKeysRequest {})).await)?;
    let mut all: Ends = files(locale, overview);
    for grant in grants.grants.iter().filter(|grant| is_soon(grant.not_after) && !grant.withdrawn) {
        let what = html! { (locale.text("grant")) " " a href={ "/console/grants/" (grant.id) } { (grant.client) } };
        all.push((grant.not_after, what));
    }
    for key in keys.keys.iter().filter(|key| is_soon(key.trusted_until)) {
        all.push((key.trusted_until, html! { (locale.text("signing-key")) " " code { (key.kid) } }));
    }
    all.extend(tokens(console, session).await?);
    all.sort_by_key(|(end, _)| *end);
    let rows = all.into_iter().map(|(end, what)| vec![what, html! { (locale.timestamp(end)) }]);
    let rows: Vec<Vec<Markup>> = rows.collect();
    Ok(html! {
        h2 { (locale.text("overview-ending")) }
        @if !grants.next_page_token.is_empty() {
            p.hint { (locale.with("overview-looked-at", "count", locale.number(LOOKED_AT.into()))) }
        }
        (table(locale, "overview-ending", &["column-what", "column-ends"], &rows))
    })
}

/// Certificates, CAs and revocation lists, expired ones included.
fn files(locale: Locale, overview: &GetOverviewResponse) -> Ends {
    let ended = |end: i64| end <= now();
    let near = overview.ends.iter().filter(|one| is_soon(one.at) || ended(one.at));
    let what = |one: &FileEnd, gone: bool| {
        html! {
            code { (one.file) } " "
            @if one.revocation_list { (locale.text("overview-revocation-list")) " " }
            (one.what)
            @if gone { " " span.state.wrong { (locale.text("state-ended")) } }
        }
    };
    near.map(|one| (one.at, what(one, ended(one.at)))).collect()
}

/// Tokens are many and live for hours: one line for all of them, placed at the latest end within the period.
async fn tokens(console: &Console, session: &SignedIn) -> Result<Option<(i64, Markup)>, Failure> {
    let locale = session.locale;
    let message = ListTokensRequest { in_force: true, page_size: LOOKED_AT, ..Default::default() };
    let found = message_of(session, console.admin.list_tokens(request(session, message)).await)?;
    let soon: Vec<i64> = found.tokens.iter().map(|token| token.expires).filter(|end| is_soon(*end)).collect();
    let more = if found.next_page_token.is_empty() { "" } else { "> " };
    let count = format!("{more}{}", locale.number(soon.len() as u64));
    Ok(soon.into_iter().max().map(|last| {
        let words = locale.with("overview-tokens", "count", count);
        (last, html! { a href="/console/tokens?state=in-force" { (words) } })
    }))
}

/// How far the log, its checkpoint, its cosignatures and its index are, and what alarms stand.
fn log(locale: Locale, status: &GetStatusResponse) -> Markup {
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
    html! {
        h2 { (locale.text("overview-log-contents")) }
        @for alarm in &status.alarms {
            div.notice.wrong role="alert" {
                p { (alarm.text) }
                p { a href="/console/checkpoints" { (locale.text("alarm-acknowledge")) } }
            }
        }
        (properties(locale, &rows))
        p { a href="/console/checkpoints" { (locale.text("menu-checkpoints")) } }
    }
}
