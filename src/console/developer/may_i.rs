//! Whether a client's call is allowed, and if not, which rule refuses it.

use crate::admin::api::admin_service_server::AdminService;
use crate::admin::api::{CanIRequest, CanIResponse};
use crate::console::failure::{Failure, FieldFaults};
use crate::console::form::Form;
use crate::console::operator::live;
use crate::console::session::SignedIn;
use crate::console::table::properties;
use crate::console::text::Locale;
use crate::console::{Console, layout, request};
use axum::extract::State;
use http::StatusCode;
use maud::{Markup, html};
use std::sync::Arc;

const HERE: &str = "/console/catalogue";

/// Shows the form and, once it is submitted, the decision.
pub async fn page(
    State(console): State<Arc<Console>>,
    session: SignedIn,
    query: Form,
) -> Result<(StatusCode, Markup), Failure> {
    let locale = session.locale;
    let text = |name: &str| query.text(name).to_owned();
    let client = if session.is_client { session.staff.clone() } else { text("client") };
    let (mut status, mut faults, mut decision) = (StatusCode::OK, FieldFaults::default(), html! {});
    if !client.is_empty() && !query.text("operation").is_empty() {
        let message = CanIRequest {
            client,
            operation: text("operation"),
            purpose: text("purpose"),
            official: text("official"),
            address: text("address"),
            at: 0,
        };
        match console.admin.can_i(request(&session, message)).await {
            Ok(found) => decision = shown(&session, found.get_ref()),
            Err(wrong) => {
                faults = FieldFaults::of(&session, &wrong)?;
                status = StatusCode::BAD_REQUEST;
            }
        }
    }
    let body = html! { (decision) (question(&session, &console, &query, &faults)) };
    Ok((status, layout::page(&session, HERE, &locale.text("may-i"), &body)))
}

fn question(session: &SignedIn, console: &Console, query: &Form, faults: &FieldFaults) -> Markup {
    let locale = session.locale;
    let contracts = console.contracts.load();
    let chosen = query.text("operation").trim_start_matches('/').to_owned();
    html! {
        form method="get" action="/console/may-i" {
            @if !session.is_client {
                label { (locale.text("column-client")) input name="client" required value=(query.text("client")); }
                (faults.of_field("client"))
            }
            label { (locale.text("column-operation"))
                select name="operation" required {
                    @for one in contracts.operations() {
                        option value=(one.full_name) selected[one.full_name == chosen] { (one.source.id) ": " (one.name) }
                    }
                }
            }
            (faults.of_field("operation"))
            label { (locale.text("column-purpose")) input name="purpose" value=(query.text("purpose")); }
            p.hint { (locale.text("may-i-purpose-hint")) }
            (faults.of_field("ndxp-purpose"))
            label { (locale.text("may-i-official")) input name="official" value=(query.text("official")); }
            (faults.of_field("ndxp-official"))
            @if !session.is_client {
                label { (locale.text("may-i-address")) input name="address" value=(query.text("address")); }
                p.hint { (locale.text("may-i-address-hint")) }
                (faults.of_field("address"))
            }
            button type="submit" { (locale.text("may-i-ask")) }
        }
    }
}

/// Why a rule refuses: the service's own words in English, the rule's in Vietnamese.
fn explanation(locale: Locale, found: &CanIResponse) -> String {
    let key = format!("may-i-rule-{}", found.rule);
    let words = locale.text(&key);
    if locale == Locale::English || words == key { found.explanation.clone() } else { words }
}

fn shown(session: &SignedIn, found: &CanIResponse) -> Markup {
    let locale = session.locale;
    let grants = html! {
        @for (at, grant) in found.grants.iter().enumerate() {
            @if at > 0 { ", " }
            @if session.is_client { code { (grant) } }
            @else { a href={ "/console/grants/" (grant) } { code { (grant) } } }
        }
    };
    if found.allowed {
        return html! {
            div.notice role="status" {
                p { strong.state.good { (locale.text("may-i-allowed")) } }
                p { (locale.text("may-i-grant")) " " (grants) }
            }
        };
    }
    html! {
        div.notice.wrong role="status" {
            p { strong.state.wrong { (locale.text("may-i-refused")) } }
            p { (live::meaning(locale, &found.reason)) }
        }
        (properties(locale, &[
            ("entry-rule", html! { code { (found.rule) } }),
            ("column-reason", html! { code { (found.reason) } }),
            ("may-i-explanation", html! { (explanation(locale, found)) }),
            ("may-i-nearest", html! { @if found.grants.is_empty() { "–" } @else { (grants) } }),
        ]))
    }
}
