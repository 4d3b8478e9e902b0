//! Access tokens: the list, one issued by hand and shown once, and revocation.

use super::failure::{Failure, message_of};
use super::form::{Form, Sent};
use super::layout::{client_link as link, justification};
use super::session::SignedIn;
use super::table::{client_filter, folded, lines, next, properties, table};
use super::{Console, change, layout, request};
use crate::admin::api::admin_service_server::AdminService;
use crate::admin::api::{IssueTokenRequest, ListTokensRequest, Token, TokenId};
use crate::registry::{Role, now};
use axum::extract::{Path, State};
use axum::response::Redirect;
use http::StatusCode;
use maud::{Markup, html};
use std::sync::Arc;

const HERE: &str = "/console/tokens";

/// Shows tokens as a table, each with a revocation form if the signed-in person may revoke it.
pub fn rows(session: &SignedIn, tokens: &[Token]) -> Markup {
    let (locale, now) = (session.locale, now());
    let rows: Vec<Vec<Markup>> = tokens
        .iter()
        .map(|one| {
            let (key, kind) = match one {
                one if one.revoked => ("state-revoked", "gone"),
                one if now >= one.expires => ("state-ended", "gone"),
                one if now < one.starts => ("state-later", "wrong"),
                _ => ("state-in-force", "good"),
            };
            let may = session.has(&[Role::Administrator, Role::Operator]) && !one.revoked && now < one.expires;
            vec![
                html! { code { (one.id) } },
                link(&one.client),
                folded(locale, &one.scopes),
                html! { span.state.(kind) { (locale.text(key)) } },
                html! { (locale.timestamp(one.expires)) },
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
    table(
        locale,
        "menu-tokens",
        &["column-id", "column-client", "column-scopes", "column-state", "column-ends", "column-action"],
        &rows,
    )
}

/// Lists the tokens, with the form that issues one.
pub async fn list(State(console): State<Arc<Console>>, session: SignedIn, query: Form) -> Result<Markup, Failure> {
    let locale = session.locale;
    let (client, state) = (query.text("client"), query.text("state"));
    let message = ListTokensRequest {
        client: client.to_owned(),
        in_force: state == "in-force",
        page_size: 0,
        page_token: query.text("page").to_owned(),
    };
    let found = message_of(&session, console.admin.list_tokens(request(&session, message)).await)?;
    let body = html! {
        @if session.has(&[Role::Administrator]) { (issuing(&session, client)) }
        (client_filter(locale, HERE, client, (state, "in-force", "state-in-force")))
        (rows(&session, &found.tokens))
        (next(locale, HERE, &[("client", client), ("state", state)], &found.next_page_token))
    };
    Ok(layout::page(&session, HERE, &locale.text("menu-tokens"), &body))
}

fn issuing(session: &SignedIn, client: &str) -> Markup {
    let locale = session.locale;
    html! {
        details {
            summary { (locale.text("token-issue")) }
            form method="post" action=(HERE) {
                (layout::token(session))
                label { (locale.text("column-client")) input name="client" required value=(client); }
                label { (locale.text("client-certificate"))
                    textarea name="certificate" rows="6" required spellcheck="false" {}
                }
                label { (locale.text("token-scopes")) textarea name="scope" rows="2" {} }
                label { (locale.text("token-hours")) input name="hours" inputmode="numeric" pattern="[0-9]*"; }
                (justification(locale))
                button type="submit" { (locale.text("token-issue")) }
            }
        }
    }
}

/// Issues a token and shows it, once.
pub async fn issue(State(console): State<Arc<Console>>, Sent { session, form }: Sent) -> Result<Markup, Failure> {
    let locale = session.locale;
    let hours: u32 =
        form.number("hours").ok_or_else(|| Failure::plain(locale, StatusCode::BAD_REQUEST, "failure-number"))?;
    let message = IssueTokenRequest {
        client: form.text("client").to_owned(),
        certificate: form.text("certificate").to_owned(),
        scopes: form.list("scope"),
        lifetime_s: hours.saturating_mul(3_600),
        starts_in_s: 0,
    };
    let issued = message_of(&session, console.admin.issue_token(change(&session, &form, message)).await)?;
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
    Ok(layout::page(&session, HERE, &locale.text("token-issued"), &body))
}

/// Revokes a token.
pub async fn revoke(
    State(console): State<Arc<Console>>,
    Path(id): Path<String>,
    Sent { session, form }: Sent,
) -> Result<Redirect, Failure> {
    let revoked = message_of(&session, console.admin.revoke_token(change(&session, &form, TokenId { id })).await)?;
    Ok(Redirect::to(&format!("{HERE}?client={}", revoked.client)))
}
