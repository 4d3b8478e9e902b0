//! Approvals: changes that wait for a second person, their effect, and the decision.

use super::failure::{Failure, message_of};
use super::form::{Form, Sent};
use super::layout::justification;
use super::session::SignedIn;
use super::table::{lines, next, properties};
use super::text::Locale;
use super::{Console, change, layout, request};
use crate::admin::api::admin_service_server::AdminService;
use crate::admin::api::{ApproveChangeRequest, ListPendingChangesRequest, PendingChange, RejectChangeRequest};
use crate::registry::Role;
use axum::extract::{Path, State};
use axum::response::Redirect;
use http::StatusCode;
use maud::{Markup, html};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

const HERE: &str = "/console/approvals";
/// Record members that are times, as Unix time in seconds.
const TIMES: [&str; 3] = ["not_before", "not_after", "created"];
/// Changes per page.
const PAGE: u32 = 25;

/// Lists the pending changes.
pub async fn list(State(console): State<Arc<Console>>, session: SignedIn, query: Form) -> Result<Markup, Failure> {
    let locale = session.locale;
    let message = ListPendingChangesRequest { page_size: PAGE, page_token: query.text("page").to_owned() };
    let found = message_of(&session, console.admin.list_pending_changes(request(&session, message)).await)?;
    let body = html! {
        @if found.changes.is_empty() { p.empty { (locale.text("approvals-none")) } }
        @for one in &found.changes { (waiting(&session, one)) }
        (next(locale, HERE, &[], &found.next_page_token))
    };
    Ok(layout::page(&session, HERE, &locale.text("menu-approvals"), &body))
}

fn waiting(session: &SignedIn, one: &PendingChange) -> Markup {
    let locale = session.locale;
    let own = one.requested_by == format!("staff:{}", session.staff);
    let event = locale.text(&format!("change-{}", one.event.replace(['.', '_'], "-")));
    html! {
        section.change {
            h2 { (event) " " code { (one.object) } }
            (properties(locale, &request_facts(locale, one)))
            @if let Some(client) = &one.client {
                (properties(locale, &[
                    ("column-client", html! { a href={ "/console/clients/" (client.id) } { (client.id) } " " (client.agency) }),
                    ("column-names", lines(&client.names)),
                ]))
            }
            (differences(locale, &one.before, &one.after))
            @if own {
                p.hint { (locale.text("approvals-own")) }
            }
            @if session.has(&[Role::Approver]) && !own { (verdict(session, one, "approve", "")) }
            @if session.has(&[Role::Approver, Role::Administrator]) { (verdict(session, one, "reject", "quiet")) }
        }
    }
}

/// Who requested the change, when and why. A grant's reason is in the log only.
fn request_facts(locale: Locale, one: &PendingChange) -> Vec<(&'static str, Markup)> {
    let mut facts = vec![(
        "column-requested-by",
        html! { (one.requested_by) " " (one.requester_address) " " (one.requester_identity_provider) },
    )];
    if one.requested > 0 {
        facts.push(("column-requested", html! { (locale.timestamp(one.requested)) }));
    }
    facts.push(("column-waits-until", html! { (locale.timestamp(one.ends)) }));
    if !one.justification.is_empty() {
        facts.push(("justification", html! { (one.justification) }));
    }
    facts
}

fn verdict(session: &SignedIn, one: &PendingChange, verdict: &str, kind: &str) -> Markup {
    let locale = session.locale;
    html! {
        details {
            summary { (locale.text(&format!("verdict-{verdict}"))) }
            form method="post" action={ (HERE) "/" (one.id) "/" (verdict) } {
                (layout::token(session))
                (justification(locale))
                button class=(kind) type="submit" { (locale.text(&format!("verdict-{verdict}"))) }
            }
        }
    }
}

/// Both records side by side, by member; changed members are marked.
fn differences(locale: Locale, before: &str, after: &str) -> Markup {
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let (before, after) = (read(before), read(after));
    let members =
        |value: &Value| value.as_object().map(|all| all.keys().cloned().collect::<BTreeSet<_>>()).unwrap_or_default();
    // The requester is shown above.
    let shown =
        |name: &String| name != "requester" && (known(&before, name).is_some() || known(&after, name).is_some());
    let names: BTreeSet<String> =
        members(&before).union(&members(&after)).filter(|name| shown(name)).cloned().collect();
    html! {
        div.scroll tabindex="0" role="region" aria-label=(locale.text("differences")) {
            table.differences {
                thead { tr {
                    th scope="col" { (locale.text("column-what")) }
                    th scope="col" { (locale.text("column-before")) }
                    th scope="col" { (locale.text("column-after")) }
                } }
                tbody {
                    @for name in &names {
                        @let (old, new) = (known(&before, name), known(&after, name));
                        tr class=[(old != new).then_some("changed")] {
                            th scope="row" { code { (name) } }
                            td data-label=(locale.text("column-before")) { (value(locale, name, old)) }
                            td data-label=(locale.text("column-after")) { (value(locale, name, new)) }
                        }
                    }
                }
            }
        }
    }
}

fn known<'v>(record: &'v Value, name: &str) -> Option<&'v Value> {
    record.get(name).filter(|value| !value.is_null())
}

fn value(locale: Locale, name: &str, value: Option<&Value>) -> Markup {
    match value {
        Some(Value::Number(seconds)) if TIMES.contains(&name) => {
            html! { (locale.timestamp(seconds.as_i64().unwrap_or(0))) }
        }
        None => html! { "–" },
        Some(Value::String(text)) => html! { (text) },
        Some(Value::Array(items)) => {
            let texts: Vec<String> =
                items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect();
            lines(&texts)
        }
        Some(other) => html! { (other.to_string()) },
    }
}

/// Approves or rejects a change.
pub async fn decide(
    State(console): State<Arc<Console>>,
    Path((id, verdict)): Path<(String, String)>,
    Sent { session, form }: Sent,
) -> Result<Redirect, Failure> {
    let done = match verdict.as_str() {
        "approve" => {
            console.admin.approve_change(change(&session, &form, ApproveChangeRequest { id })).await.map(|_| ())
        }
        "reject" => console.admin.reject_change(change(&session, &form, RejectChangeRequest { id })).await.map(|_| ()),
        _ => return Err(Failure::plain(session.locale, StatusCode::NOT_FOUND, "failure-not-found")),
    };
    done.map_err(|status| Failure::of(&session, &status))?;
    Ok(Redirect::to(HERE))
}
