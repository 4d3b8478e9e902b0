//! Sign-in by the certificate that the browser presents, sign-out, and the choice of a language.

use super::failure::Failure;
use super::form::{Sent, is_same_origin};
use super::headers::back;
use super::session::{OWN, Proof, client_owner};
use super::text::{LANGUAGE_COOKIE, Locale};
use super::{Console, layout};
use crate::access::staff::RoleRule;
use crate::identity::Peer;
use crate::identity::principal::Principal;
use crate::registry::Role;
use crate::shares::{ShareLimits, ShareRate};
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use maud::html;
use std::sync::Arc;
use std::time::Instant;

/// All staff may sign in. A refusal is an entry, within the bounds of refusals.
pub const SIGN_IN: RoleRule = RoleRule {
    method: "SignIn",
    event: "console.sign_in",
    roles: &[Role::Administrator, Role::Approver, Role::Auditor, Role::Operator],
};
const SIGN_OUT: &str = "console.sign_out";

/// Concurrent attempts, in all and per certificate, and the rate per certificate: each success is an entry of the log.
pub const ATTEMPTS: ShareLimits =
    ShareLimits { total: 64, per_owner: 4, has_headroom: 0, rate: Some(ShareRate { per_second: 1, burst: 30 }) };

type Shown = Option<Extension<Arc<Peer>>>;

/// Shows the sign-in page with the owner of the browser's certificate.
pub async fn page(State(console): State<Arc<Console>>, peer: Shown, headers: HeaderMap) -> Response {
    let locale = Locale::of(&headers);
    let registry = console.registry.load();
    let shown = peer.as_ref().map(|peer| Principal::Certificate(peer.0.clone()));
    let known = shown.as_ref().and_then(|shown| shown.staff(&registry).ok());
    let client = shown.as_ref().and_then(|shown| console.staff.client(shown).ok());
    let body = html! {
        @if let Some(openid) = &console.openid {
            // A link: where a form leads is bound by this page's own policy, and a provider may lead on to yet another host.
            p { a.button href="/console/openid" { (locale.with("sign-in-at", "provider", openid.name())) } }
        }
        @match (&peer, &known) {
            (_, Some(staff)) => {
                p { (locale.with("sign-in-as", "staff", staff.id.as_str())) }
                p { @for (at, one) in staff.roles.iter().enumerate() { @if at > 0 { ", " } (layout::role(locale, *one)) } }
                form method="post" action="/console/sign-in" { button type="submit" { (locale.text("sign-in")) } }
            }
            (Some(_), None) if client.is_some() => {
                p { (locale.with("sign-in-as-client", "client", client.as_ref().map_or("", |view| view.client.id.as_str()))) }
                form method="post" action="/console/sign-in" { button type="submit" { (locale.text("sign-in")) } }
            }
            (Some(peer), None) => {
                div.notice.wrong { p { (locale.text("sign-in-unknown")) } }
                ul { @for name in &peer.certificate.names { li { code { (name) } } } }
                form method="post" action="/console/sign-in" { button type="submit" { (locale.text("sign-in")) } }
            }
            (None, None) if console.openid.is_some() => { p { (locale.text("sign-in-or-certificate")) } }
            (None, None) => { div.notice { p { (locale.text("sign-in-no-certificate")) } } }
        }
    };
    layout::anonymous(locale, &locale.text("sign-in-title"), &body).into_response()
}

/// Begins a session, after its entry is in the log.
pub async fn begin(
    State(console): State<Arc<Console>>,
    peer: Shown,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Failure> {
    let locale = Locale::of(&headers);
    if !is_same_origin(&headers, &uri) {
        return Err(Failure::plain(locale, StatusCode::FORBIDDEN, "failure-foreign-form"));
    }
    let Some(Extension(peer)) = peer else {
        return Err(Failure::plain(locale, StatusCode::UNAUTHORIZED, "sign-in-no-certificate"));
    };
    let counted = |outcome| console.sign_in.count("certificate", outcome);
    let often = |_| {
        counted("too_often");
        Failure::plain(locale, StatusCode::TOO_MANY_REQUESTS, "sign-in-too-often")
    };
    let _attempt = console.attempts.take(&peer.certificate.thumbprint, 1).map_err(often)?;
    let refused = |_| {
        counted("staff_unknown");
        Failure::plain(locale, StatusCode::FORBIDDEN, "sign-in-unknown")
    };
    let thumbprint = peer.certificate.thumbprint;
    let principal = Principal::Certificate(peer);
    // A client's certificate lets its developers in, to pages of their own.
    let (owner, onward) = match console.staff.client(&principal) {
        Ok(client) => (client_owner(&client.client.id), OWN),
        Err(_) => {
            let actor = console.staff.admit(&principal, &SIGN_IN).await.map_err(refused)?;
            (actor.id().to_owned(), "/console/")
        }
    };
    let unavailable = || {
        counted("unavailable");
        Failure::plain(locale, StatusCode::SERVICE_UNAVAILABLE, "sign-in-unavailable")
    };
    note(&console, &principal, &owner, SIGN_IN.event).await.ok_or_else(unavailable)?;
    // An earlier session of this browser ends.
    console.sessions.end(&headers);
    let begun = console.sessions.begin(&owner, Proof::Certificate(thumbprint), Instant::now());
    let begun = begun.ok_or_else(unavailable)?;
    counted("signed_in");
    Ok(to(onward, &begun))
}

/// Ends the session (sign-out).
pub async fn end(State(console): State<Arc<Console>>, headers: HeaderMap, sent: Sent) -> Response {
    let cookie = console.sessions.end(&headers);
    let _ = note(&console, &sent.session.principal, &sent.session.owner(), SIGN_OUT).await;
    to("/console/sign-in", &cookie)
}

/// Stores the chosen language in a cookie for a year.
pub async fn language(Path(code): Path<String>, headers: HeaderMap) -> Response {
    let path = back(&headers);
    match Locale::of_code(&code) {
        Some(locale) => {
            let code = locale.code();
            to(
                &path,
                &format!("{LANGUAGE_COOKIE}={code}; Path=/console/; Secure; HttpOnly; SameSite=Lax; Max-Age=31536000"),
            )
        }
        None => Redirect::to(&path).into_response(),
    }
}

/// Writes the entry of the owner of a session who has signed in or out; `None` if it cannot be written.
pub async fn note(console: &Console, principal: &Principal, owner: &str, event: &str) -> Option<()> {
    let mut entry = console.staff.event(principal, event);
    entry.actor = if owner.contains(':') { owner.to_owned() } else { format!("staff:{owner}") };
    console.staff.note(&entry).await.ok().map(drop)
}

fn to(path: &str, cookie: &str) -> Response {
    let mut response = Redirect::to(path).into_response();
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}
