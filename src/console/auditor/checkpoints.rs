//! How far the log is signed and cosigned: the latest checkpoint, each witness, the text to take away; and the alarms, with what ends
//! one.

use super::reason_field;
use crate::admin::api::WitnessOverview;
use crate::audit::service::api::audit_service_server::AuditService;
use crate::audit::service::api::{
    AcknowledgeAlarmRequest, Alarm, GetCheckpointRequest, GetCheckpointResponse, GetStatusRequest,
};
use crate::console::failure::{Failure, message_of};
use crate::console::form::{Form, Sent};
use crate::console::session::SignedIn;
use crate::console::table::{properties, table};
use crate::console::text::Locale;
use crate::console::{Console, layout, operator, request};
use crate::exchange_log::checkpoint::{Checkpoint, LogVerifier};
use crate::hex::hex;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use http::{StatusCode, header};
use maud::{Markup, html};
use std::sync::Arc;

const HERE: &str = "/console/checkpoints";

/// The page.
pub async fn page(State(console): State<Arc<Console>>, session: SignedIn) -> Result<Markup, Failure> {
    shown(&console, &session, None).await
}

async fn found(console: &Console, session: &SignedIn) -> Result<GetCheckpointResponse, Failure> {
    message_of(session, console.audit.get_checkpoint(request(session, GetCheckpointRequest {})).await)
}

/// The page; with a form that was sent and is wrong.
async fn shown(console: &Console, session: &SignedIn, wrong: Option<&Form>) -> Result<Markup, Failure> {
    let locale = session.locale;
    let found = found(console, session).await?;
    let status = message_of(session, console.audit.get_status(request(session, GetStatusRequest {})).await)?;
    let overview = operator::live::overview(console, session).await?;
    let age = overview.log.unwrap_or_default().checkpoint_age_s;
    let key = LogVerifier::parse(&found.verifier_key).ok();
    let read = |note: &str| key.as_ref().and_then(|key| key.check(note).ok());
    let (published, latest) = (read(&found.checkpoint), read(&found.latest));
    let body = html! {
        @for alarm in &status.alarms { (alarm_form(session, alarm, wrong)) }
        @match &latest {
            None => p.empty { (locale.text("checkpoint-none")) },
            Some(latest) => {
                (properties(locale, &facts(locale, latest, status.entries, age)))
                @if status.needs_witnesses {
                    h2 { (locale.text("checkpoint-published")) }
                    (cosigned(locale, published.as_ref()))
                }
                h2 { (locale.text("witnesses")) }
                (witnesses(locale, &found, &overview.witnesses, latest.size))
                h2 { (locale.text("checkpoint-text")) }
                (text(locale, &found))
            },
        }
    };
    Ok(layout::page(session, HERE, &locale.text("menu-checkpoints"), &body))
}

fn facts(locale: Locale, latest: &Checkpoint, entries: u64, age: u32) -> Vec<(&'static str, Markup)> {
    let age = locale.with("live-seconds", "seconds", locale.number(age.into()));
    vec![
        ("checkpoint-origin", html! { code { (latest.origin) } }),
        ("complete-size", html! { (locale.number(latest.size)) }),
        ("complete-root", html! { code { (hex(&latest.root)) } }),
        ("live-checkpoint-age", html! { (age) }),
        ("log-unsealed", html! { (locale.number(entries.saturating_sub(latest.size))) }),
    ]
}

/// The checkpoint that counts: the newest with enough cosignatures.
fn cosigned(locale: Locale, published: Option<&Checkpoint>) -> Markup {
    match published {
        None => html! { div.notice.wrong { p { (locale.text("checkpoint-not-cosigned")) } } },
        Some(published) => properties(
            locale,
            &[
                ("complete-size", html! { (locale.number(published.size)) }),
                ("complete-root", html! { code { (hex(&published.root)) } }),
            ],
        ),
    }
}

fn witnesses(locale: Locale, found: &GetCheckpointResponse, states: &[WitnessOverview], size: u64) -> Markup {
    if found.witnesses.is_empty() {
        return html! { p.empty { (locale.text("witnesses-none")) } };
    }
    let row = |one: &crate::audit::service::api::CheckpointWitness| {
        let state = states.iter().find(|state| state.name == one.name);
        let (key, kind) = match state {
            Some(state) if state.up => ("witness-up", "good"),
            Some(_) => ("witness-down", "wrong"),
            None => ("witness-unknown", "gone"),
        };
        let entries = state.map(|state| state.entries).filter(|entries| *entries > 0);
        let number = |number: Option<u64>| number.map_or_else(|| "–".to_owned(), |number| locale.number(number));
        let time = if one.time == 0 { locale.text("witness-not-yet") } else { locale.timestamp(one.time) };
        vec![
            html! { (one.name) },
            html! { span.state.(kind) { (locale.text(key)) } },
            html! { (number(entries)) },
            html! { (number(entries.map(|entries| size.saturating_sub(entries)))) },
            html! { (time) },
        ]
    };
    let rows: Vec<Vec<Markup>> = found.witnesses.iter().map(row).collect();
    let headings = ["column-witness", "column-state", "column-cosigned", "column-behind", "column-cosigned-at"];
    table(locale, "witnesses", &headings, &rows)
}

/// The published checkpoint as it stands, and how it is checked elsewhere.
fn text(locale: Locale, found: &GetCheckpointResponse) -> Markup {
    html! {
        p.hint { (locale.text("checkpoint-hint")) }
        @if found.checkpoint.is_empty() {
            p.empty { (locale.text("checkpoint-none")) }
        } @else {
            pre tabindex="0" { code { (found.checkpoint) } }
            p.actions { a.button.quiet href={ (HERE) "/text" } download="checkpoint.txt" { (locale.text("checkpoint-download")) } }
        }
        (properties(locale, &[("checkpoint-key", html! { code { (found.verifier_key) } })]))
    }
}

fn alarm_form(session: &SignedIn, alarm: &Alarm, wrong: Option<&Form>) -> Markup {
    let locale = session.locale;
    let own = wrong.filter(|form| form.text("id") == alarm.id);
    html! {
        div.notice.wrong role="alert" {
            p { (alarm.text) }
            @if !alarm.evidence.is_empty() { pre tabindex="0" { code { (alarm.evidence) } } }
            details open[own.is_some()] {
                summary { (locale.text("alarm-acknowledge")) }
                form method="post" action={ (HERE) "/acknowledge" } {
                    (layout::token(session))
                    input type="hidden" name="id" value=(alarm.id);
                    (reason_field(locale, "reason", own))
                    button type="submit" { (locale.text("alarm-acknowledge")) }
                }
            }
        }
    }
}

/// The published checkpoint, as a file.
pub async fn file(State(console): State<Arc<Console>>, session: SignedIn) -> Result<Response, Failure> {
    let text = found(&console, &session).await?.checkpoint;
    if text.is_empty() {
        return Err(Failure::plain(session.locale, StatusCode::NOT_FOUND, "checkpoint-none"));
    }
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"checkpoint.txt\""),
    ];
    Ok((headers, text).into_response())
}

/// Ends an alarm, with what was found out.
pub async fn acknowledge(State(console): State<Arc<Console>>, sent: Sent) -> Result<Response, Failure> {
    let Sent { session, form } = sent;
    let message = AcknowledgeAlarmRequest { id: form.text("id").to_owned(), reason: form.text("reason").to_owned() };
    match console.audit.acknowledge_alarm(request(&session, message)).await {
        Ok(_) => Ok(Redirect::to(HERE).into_response()),
        Err(status) if super::is_of_reason(&status) => {
            let page = shown(&console, &session, Some(&form)).await?;
            Ok((StatusCode::BAD_REQUEST, page).into_response())
        }
        Err(status) => Err(Failure::of(&session, &status)),
    }
}
