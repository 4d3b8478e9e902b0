//! Signing keys of access tokens: the list, rotation and retirement.

use crate::admin::api::admin_service_server::AdminService;
use crate::admin::api::{Key, KeyId, KeyState, ListKeysRequest, RotateKeyRequest};
use crate::console::failure::{Failure, message_of};
use crate::console::form::Sent;
use crate::console::layout::justification;
use crate::console::session::SignedIn;
use crate::console::table::table;
use crate::console::{Console, change, layout, request};
use crate::registry::Role;
use axum::extract::{Path, State};
use axum::response::Redirect;
use maud::{Markup, html};
use std::sync::Arc;

const HERE: &str = "/console/keys";

/// Lists the keys, with the form for a new one.
pub async fn list(State(console): State<Arc<Console>>, session: SignedIn) -> Result<Markup, Failure> {
    let locale = session.locale;
    let found = message_of(&session, console.admin.list_keys(request(&session, ListKeysRequest {})).await)?;
    let may = session.has(&[Role::Administrator]);
    let rows: Vec<Vec<Markup>> = found
        .keys
        .iter()
        .map(|key| {
            vec![
                html! { code { (key.kid) } },
                html! { (key.algorithm) },
                state(&session, key),
                html! { (locale.timestamp(key.signs_from)) },
                html! { @if key.trusted_until == 0 { "–" } @else { (locale.timestamp(key.trusted_until)) } },
                html! { @if may && key.state() != KeyState::KeyRetired { (retirement(&session, key)) } },
            ]
        })
        .collect();
    let headings =
        ["column-id", "column-algorithm", "column-state", "column-signs-from", "column-trusted-until", "column-action"];
    let body = html! {
        @if may { (rotation(&session)) }
        (table(locale, "menu-keys", &headings, &rows))
    };
    Ok(layout::page(&session, HERE, &locale.text("menu-keys"), &body))
}

fn state(session: &SignedIn, key: &Key) -> Markup {
    let (text, kind) = match key.state() {
        KeyState::KeyPublished => ("key-published", "later"),
        KeyState::KeySigning => ("key-signing", "good"),
        KeyState::KeyReplaced => ("key-replaced", "gone"),
        KeyState::KeyRetired => ("key-retired", "gone"),
        KeyState::Unspecified => ("key-unknown", "gone"),
    };
    html! { span.state.(kind) { (session.locale.text(text)) } }
}

fn rotation(session: &SignedIn) -> Markup {
    let locale = session.locale;
    html! {
        details {
            summary { (locale.text("key-rotate")) }
            form method="post" action="/console/keys/rotate" {
                (layout::token(session))
                p { (locale.text("key-rotate-means")) }
                label { (locale.text("column-algorithm"))
                    select name="algorithm" {
                        option value="ES256" { "ES256" }
                        option value="EdDSA" { "EdDSA" }
                    }
                }
                label.choice { input type="checkbox" name="now" value="yes"; (locale.text("key-now")) }
                p.hint { (locale.text("key-now-hint")) }
                (justification(locale))
                button type="submit" { (locale.text("key-rotate")) }
            }
        }
    }
}

fn retirement(session: &SignedIn, key: &Key) -> Markup {
    let locale = session.locale;
    html! {
        details {
            summary { (locale.text("key-retire")) }
            form method="post" action={ (HERE) "/" (key.kid) "/retire" } {
                (layout::token(session))
                p { (locale.text("key-retire-means")) }
                (justification(locale))
                button.danger type="submit" { (locale.text("key-retire")) }
            }
        }
    }
}

/// Makes a new key.
pub async fn rotate(State(console): State<Arc<Console>>, Sent { session, form }: Sent) -> Result<Redirect, Failure> {
    let message = RotateKeyRequest { algorithm: form.text("algorithm").to_owned(), now: form.text("now") == "yes" };
    message_of(&session, console.admin.rotate_key(change(&session, &form, message)).await)?;
    Ok(Redirect::to(HERE))
}

/// Retires a key: its tokens are no longer trusted.
pub async fn retire(
    State(console): State<Arc<Console>>,
    Path(kid): Path<String>,
    Sent { session, form }: Sent,
) -> Result<Redirect, Failure> {
    message_of(&session, console.admin.retire_key(change(&session, &form, KeyId { kid })).await)?;
    Ok(Redirect::to(HERE))
}
