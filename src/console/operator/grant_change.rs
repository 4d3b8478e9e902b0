//! Changes of a grant: extensions wait for a second person, restrictions take effect at once.

use crate::admin::api::admin_service_server::AdminService;
use crate::admin::api::{ChangeGrantRequest, Grant, GrantId, PreviewGrantChangeResponse};
use crate::console::failure::{Failure, FieldFaults, message_of};
use crate::console::form::{Form, Sent};
use crate::console::layout::{self, justification};
use crate::console::session::SignedIn;
use crate::console::table::{folded, properties};
use crate::console::text::Locale;
use crate::console::{Console, change, request};
use crate::registry::now;
use axum::extract::{Path, State};
use axum::response::Redirect;
use http::StatusCode;
use maud::{Markup, html};
use std::sync::Arc;

const HERE: &str = "/console/grants";

async fn found(console: &Console, session: &SignedIn, id: &str) -> Result<Grant, Failure> {
    message_of(session, console.admin.get_grant(request(session, GrantId { id: id.to_owned() })).await)
}

/// Shows the form with the grant's current values.
pub async fn form(
    State(console): State<Arc<Console>>,
    session: SignedIn,
    Path(id): Path<String>,
) -> Result<Markup, Failure> {
    let grant = found(&console, &session, &id).await?;
    Ok(page(&session, &grant, None, &html! {}, &FieldFaults::default()))
}

/// The form with what was written, or, before that, with what holds.
fn page(session: &SignedIn, grant: &Grant, written: Option<&Form>, preview: &Markup, faults: &FieldFaults) -> Markup {
    let locale = session.locale;
    let list = |name: &str, now: &[String]| written.map_or_else(|| now.join("\n"), |form| form.list(name).join("\n"));
    let text = |name: &str, now: String| written.map_or(now, |form| form.text(name).to_owned());
    let body = html! {
        div.notice { p { (locale.text("grant-change-means")) } }
        (preview)
        (faults.of_field("grant"))
        form method="post" {
            (layout::token(session))
            (area(locale, "scope", "column-scopes", &list("scope", &grant.scopes)))
            (faults.of_field("scopes"))
            (area(locale, "purpose", "column-purposes", &list("purpose", &grant.purposes)))
            p.hint { (locale.text("grant-purposes-hint")) }
            (faults.of_field("purposes"))
            (area(locale, "field", "column-fields", &list("field", &grant.fields)))
            p.hint { (locale.text("grant-fields-hint")) }
            (faults.of_field("fields"))
            label { (locale.text("column-legal-basis")) input name="legal_basis" required value=(text("legal_basis", grant.legal_basis.clone())); }
            (faults.of_field("legal_basis"))
            (number(locale, "days", "grant-more-days", &text("days", String::new())))
            p.hint { (locale.with("grant-ends-hint", "end", locale.timestamp(grant.not_after))) }
            (faults.of_field("not_after"))
            (number(locale, "rate", "grant-rate", &text("rate", grant.rate.to_string())))
            (number(locale, "burst", "grant-burst", &text("burst", grant.burst.to_string())))
            (number(locale, "daily_quota", "column-quota", &text("daily_quota", grant.daily_quota.to_string())))
            p.hint { (locale.text("grant-quota-hint")) }
            (area(locale, "network", "column-networks", &list("network", &grant.networks)))
            p.hint { (locale.text("grant-networks-hint")) }
            (faults.of_field("networks"))
            (justification(locale))
            p.actions {
                button.quiet[written.is_some()] type="submit" name="step" value="look" { (locale.text("grant-preview")) }
                @if written.is_some() { button type="submit" { (locale.text("grant-change")) } }
            }
            a.button.quiet href={ (HERE) "/" (grant.id) } { (locale.text("cancel")) }
        }
    };
    layout::page(session, HERE, &format!("{} {}", locale.text("grant-change"), grant.id), &body)
}

fn area(locale: Locale, name: &str, key: &str, value: &str) -> Markup {
    html! { label { (locale.text(key)) textarea name=(name) rows="3" spellcheck="false" { (value) } } }
}

fn number(locale: Locale, name: &str, key: &str, value: &str) -> Markup {
    html! { label { (locale.text(key)) input name=(name) inputmode="numeric" pattern="[0-9]*" value=(value); } }
}

/// What the change would have refused, in words.
fn preview(locale: Locale, found: &PreviewGrantChangeResponse) -> Markup {
    let number = |number: u64| html! { (locale.number(number)) };
    let mut facts = vec![("preview-exchanges", number(found.exchanges)), ("preview-refused", number(found.refused))];
    for one in &found.by_rule {
        let key = match one.rule.as_str() {
            "scope" => "preview-scope",
            "network" => "preview-network",
            "purpose" => "preview-purpose",
            _ => "preview-quota",
        };
        facts.push((key, number(one.exchanges)));
    }
    if found.reduced > 0 {
        facts.push(("preview-narrowed", number(found.reduced)));
        facts.push(("preview-fields", folded(locale, &found.fields)));
    }
    html! {
        div.notice.wrong[found.refused > 0] role="status" {
            h2 { (locale.text("preview-title")) }
            (properties(locale, &facts))
            @if !found.complete {
                p { (locale.with("preview-partial", "since", locale.timestamp(found.since))) }
            }
        }
    }
}

/// The change that a form asks for; `None` where a number is none.
fn asked(grant: &Grant, form: &Form) -> Option<ChangeGrantRequest> {
    let days: i64 = form.number("days")?;
    let networks = form.list("network");
    Some(ChangeGrantRequest {
        id: grant.id.clone(),
        scopes: form.list("scope"),
        purposes: form.list("purpose"),
        fields: form.list("field"),
        rate: Some(form.number("rate")?),
        burst: Some(form.number("burst")?),
        daily_quota: Some(form.number("daily_quota")?),
        not_before: None,
        not_after: (days > 0).then(|| now().saturating_add(days.saturating_mul(86_400))),
        legal_basis: Some(form.text("legal_basis").to_owned()),
        any_network: networks.is_empty(),
        networks,
    })
}

/// Requests the change.
pub async fn apply(
    State(console): State<Arc<Console>>,
    Path(id): Path<String>,
    Sent { session, form }: Sent,
) -> Result<Result<Redirect, (StatusCode, Markup)>, Failure> {
    let grant = found(&console, &session, &id).await?;
    let wrong = || Failure::plain(session.locale, StatusCode::BAD_REQUEST, "failure-number");
    let message = asked(&grant, &form).ok_or_else(wrong)?;
    if form.text("step") == "look" {
        return match console.admin.preview_grant_change(request(&session, message)).await {
            Ok(found) => {
                let preview = preview(session.locale, found.get_ref());
                Ok(Err((StatusCode::OK, page(&session, &grant, Some(&form), &preview, &FieldFaults::default()))))
            }
            Err(status) => {
                let faults = FieldFaults::of(&session, &status)?;
                Ok(Err((StatusCode::BAD_REQUEST, page(&session, &grant, Some(&form), &html! {}, &faults))))
            }
        };
    }
    match console.admin.change_grant(change(&session, &form, message)).await {
        Ok(changed) if changed.get_ref().pending_change.is_empty() => Ok(Ok(Redirect::to(&format!("{HERE}/{id}")))),
        Ok(_) => Ok(Ok(Redirect::to("/console/approvals"))),
        Err(status) => {
            let faults = FieldFaults::of(&session, &status)?;
            Ok(Err((StatusCode::BAD_REQUEST, page(&session, &grant, Some(&form), &html! {}, &faults))))
        }
    }
}
