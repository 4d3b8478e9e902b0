//! Access tokens: the list, one issued by hand and shown once, and revocation.

use super::failure::{Failure, FieldFaults, message_of};
use super::form::{Form, Sent};
use super::last_use::LastUses;
use super::layout::{client_link as link, justification};
use super::session::{SignedIn, Watching};
use super::table::{client_filter, folded, lines, next, properties, table};
use super::{Console, change, layout, request};
use crate::admin::api::admin_service_server::AdminService;
use crate::admin::api::{IssueTokenRequest, ListTokensRequest, Token, TokenId};
use crate::registry::{Role, now};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use maud::{Markup, html};
use std::sync::Arc;

const HERE: &str = "/console/tokens";
/// Tokens on a page: when each was used last is looked up.
const PAGE: u32 = 50;

/// Tokens as a table, each with its revocation where who looks may revoke it.
///
/// # Errors
/// The page that says why it is not known when they were used.
pub async fn rows(console: &Console, session: &SignedIn, tokens: &[Token]) -> Result<Markup, Failure> {
    let (locale, now) = (session.locale, now());
    let object = |one: &Token| format!("token:{}", one.id);
    let uses = LastUses::of(console, session, tokens.iter().map(object).collect()).await?;
    let rows: Vec<Vec<Markup>> = tokens
        .iter()
        .map(|one| {
            let (key, kind) = state(one, now);
            let may = session.has(&[Role::Administrator, Role::Operator]) && !one.revoked && now < one.expires;
            vec![
                html! { a href={ (HERE) "/" (one.id) } { code { (one.id) } } },
                link(&one.client),
                folded(locale, &one.scopes),
                html! { span.state.(kind) { (locale.text(key)) } },
                html! { (locale.timestamp(one.expires)) },
                uses.cell(locale, &object(one)),
                html! {
                    @if may {
                        details {
                            summary { (locale.text("token-revoke")) }
                            form method="post" action={ (HERE) "/" (one.id) "/revoke" } {
                                (layout::token(session))
                                (justification(locale))
                                button.danger type="submit" { (locale.text("token-revoke")) }
                            }
                        }
                    }
                },
            ]
        })
        .collect();
    let headings = [
        "column-id",
        "column-client",
        "column-scopes",
        "column-state",
        "column-ends",
        "column-last-use",
        "column-action",
    ];
    Ok(table(locale, "menu-tokens", &headings, &rows))
}

/// Lists the tokens, with the form that issues one.
pub async fn list(State(console): State<Arc<Console>>, session: SignedIn, query: Form) -> Result<Markup, Failure> {
    shown(&console, &session, &query, &FieldFaults::default()).await
}

/// The list, and the form with what was written and is wrong.
async fn shown(console: &Console, session: &SignedIn, form: &Form, faults: &FieldFaults) -> Result<Markup, Failure> {
    let locale = session.locale;
    let (client, state) = (form.text("client"), form.text("state"));
    // A form that is wrong names a client that there need not be.
    let filter = if faults.is_empty() { client } else { "" };
    let message = ListTokensRequest {
        client: filter.to_owned(),
        in_force: state == "in-force",
        page_size: PAGE,
        page_token: form.text("page").to_owned(),
    };
    let found = message_of(session, console.admin.list_tokens(request(session, message)).await)?;
    let body = html! {
        @if session.has(&[Role::Administrator]) { (issuing(session, form, faults)) }
        (client_filter(locale, HERE, filter, (state, "in-force", "state-in-force")))
        (rows(console, session, &found.tokens).await?)
        (next(locale, HERE, &[("client", filter), ("state", state)], &found.next_page_token))
    };
    Ok(layout::page(session, HERE, &locale.text("menu-tokens"), &body))
}

fn issuing(session: &SignedIn, form: &Form, faults: &FieldFaults) -> Markup {
    let locale = session.locale;
    html! {
        details open[!faults.is_empty()] {
            summary { (locale.text("token-issue")) }
            form method="post" action=(HERE) {
                (layout::token(session))
                label { (locale.text("column-client")) input name="client" required value=(form.text("client")); }
                (faults.of_field("client"))
                label { (locale.text("client-certificate"))
                    textarea name="certificate" rows="6" required spellcheck="false" { (form.text("certificate")) }
                }
                (faults.of_field("certificate"))
                label { (locale.text("token-scopes")) textarea name="scope" rows="2" { (form.list("scope").join("\n")) } }
                (faults.of_field("scopes"))
                label { (locale.text("token-hours")) input name="hours" inputmode="numeric" pattern="[0-9]*" value=(form.text("hours")); }
                (faults.of_field("lifetime_s"))
                (justification(locale))
                button type="submit" { (locale.text("token-issue")) }
            }
        }
    }
}

/// Issues a token and shows it, once.
pub async fn issue(State(console): State<Arc<Console>>, Sent { session, form }: Sent) -> Result<Response, Failure> {
    let locale = session.locale;
    let wrong = async |faults: FieldFaults| {
        let page = shown(&console, &session, &form, &faults).await?;
        Ok((StatusCode::BAD_REQUEST, page).into_response())
    };
    let Some(hours) = form.number::<u32>("hours") else {
        return wrong(FieldFaults::one(locale, "lifetime_s", "failure-number")).await;
    };
    let message = IssueTokenRequest {
        client: form.text("client").to_owned(),
        certificate: form.text("certificate").to_owned(),
        scopes: form.list("scope"),
        lifetime_s: hours.saturating_mul(3_600),
        starts_in_s: 0,
    };
    let issued = match console.admin.issue_token(change(&session, &form, message)).await {
        Ok(issued) => issued.into_inner(),
        Err(status) => return wrong(FieldFaults::of(&session, &status)?).await,
    };
    let record = issued.record.unwrap_or_default();
    let body = html! {
        div.notice { p { (locale.text("token-once")) } }
        label { (locale.text("token"))
            textarea.secret rows="8" readonly spellcheck="false" { (issued.token) }
        }
        (properties(locale, &[
            ("column-id", html! { code { (record.id) } }),
            ("column-client", link(&record.client)),
            ("column-scopes", lines(&record.scopes)),
            ("column-ends", html! { (locale.timestamp(record.expires)) }),
        ]))
    };
    Ok(layout::page(&session, HERE, &locale.text("token-issued"), &body).into_response())
}

/// One token; of a revoked one, what that has done, as it goes on.
pub async fn one(
    State(console): State<Arc<Console>>,
    session: SignedIn,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let token = found(&console, &session, &id).await?;
    let title = session.locale.text("token");
    let facts = facts(&console, &session, &token).await?;
    if token.revocation.is_none() {
        return Ok(layout::page(&session, HERE, &title, &facts).into_response());
    }
    let live = html! {
        div #live hx-get={ (HERE) "/" (token.id) "/live" } hx-trigger="every 2s" { (facts) }
        p { a href={ (HERE) "?client=" (token.client) } { (session.locale.text("menu-tokens")) } }
    };
    Ok(layout::live_page(&session, HERE, &title, &live))
}

/// The part that renews itself.
pub async fn fragment(
    State(console): State<Arc<Console>>,
    Watching(session): Watching,
    Path(id): Path<String>,
) -> Result<Markup, Failure> {
    let token = found(&console, &session, &id).await?;
    facts(&console, &session, &token).await
}

async fn found(console: &Console, session: &SignedIn, id: &str) -> Result<Token, Failure> {
    message_of(session, console.admin.get_token(request(session, TokenId { id: id.to_owned() })).await)
}

async fn facts(console: &Console, session: &SignedIn, token: &Token) -> Result<Markup, Failure> {
    let locale = session.locale;
    let object = format!("token:{}", token.id);
    let used = LastUses::of(console, session, vec![object.clone()]).await?.cell(locale, &object);
    let (key, kind) = state(token, now());
    let mut facts = vec![
        ("column-id", html! { code { (token.id) } }),
        ("column-client", link(&token.client)),
        ("column-state", html! { span.state.(kind) { (locale.text(key)) } }),
        ("column-scopes", lines(&token.scopes)),
        ("column-begins", html! { (locale.timestamp(token.starts)) }),
        ("column-ends", html! { (locale.timestamp(token.expires)) }),
        ("column-last-use", used),
    ];
    if let Some(one) = &token.revocation {
        let took = match one.in_force {
            true => html! { span.state.good { (locale.milliseconds(one.duration_us)) } },
            false => html! { span.state.later { (locale.text("revocation-not-yet")) } },
        };
        facts.push(("revocation-took", took));
        facts.push(("revocation-ended", html! { (locale.number(one.ended)) }));
        facts.push(("entry-node", html! { (session.node) }));
    }
    Ok(properties(locale, &facts))
}

/// A token's state: its text and its look.
fn state(token: &Token, now: i64) -> (&'static str, &'static str) {
    match token {
        one if one.revoked => ("state-revoked", "gone"),
        one if now >= one.expires => ("state-ended", "gone"),
        one if now < one.starts => ("state-later", "wrong"),
        _ => ("state-in-force", "good"),
    }
}

/// Revokes a token.
pub async fn revoke(
    State(console): State<Arc<Console>>,
    Path(id): Path<String>,
    Sent { session, form }: Sent,
) -> Result<Redirect, Failure> {
    let revoked = message_of(&session, console.admin.revoke_token(change(&session, &form, TokenId { id })).await)?;
    Ok(Redirect::to(&format!("{HERE}/{}", revoked.id)))
}
