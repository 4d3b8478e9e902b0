//! Sign-in at an OpenID provider: the redirect there, and the redirect back. The session cookie is `SameSite=Strict`, so the way back
//! ends at a page of the console that forwards by itself; no request parameter names a target (no open redirect).

use super::failure::Failure;
use super::form::{Form, is_same_origin};
use super::headers::cookie;
use super::session::{self, Proof};
use super::sign_in::{SIGN_IN, note};
use super::text::Locale;
use super::{Console, layout};
use crate::access::refusals::Identity;
use crate::exchange_log::Entry;
use crate::identity::connections::PeerNetwork;
use crate::identity::principal::{FederatedIdentity, Principal};
use crate::openid::attempts::{Attempt, Attempts, MAX_AGE};
use crate::openid::{Callback, OpenIdSettings, Provider, SignInError};
use crate::shares::{Share, ShareLimits, ShareMetrics, ShareRate, Shares};
use crate::status::Reason;
use crate::web::RemoteAddress;
use axum::extract::{Extension, State};
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};
use http::{HeaderMap, StatusCode, Uri, header};
use maud::html;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// The cookie of an attempt. `Lax`: the provider redirects the browser from another site.
const COOKIE: &str = "__Host-ndxp-openid";
/// Bounds of concurrent steps, in total and per network, and of a network's rate; a sign-in takes two steps.
const STEPS: ShareLimits =
    ShareLimits { total: 64, per_owner: 8, has_headroom: 0, rate: Some(ShareRate { per_second: 2, burst: 60 }) };
/// The pool's label in metrics.
const BY: &str = "openid";

/// The sign-in by a provider.
pub struct OpenId {
    provider: Provider,
    attempts: Attempts,
    steps: Arc<Shares<PeerNetwork>>,
}

impl OpenId {
    /// Returns the sign-in with this provider; `steps` and `attempts` count load.
    pub fn new(settings: OpenIdSettings, (steps, attempts): (ShareMetrics, ShareMetrics)) -> Self {
        let (provider, attempts) = (Provider::new(settings), Attempts::new(attempts));
        OpenId { provider, attempts, steps: Shares::new(STEPS, steps) }
    }

    /// Returns the provider's name for people.
    pub fn name(&self) -> &str {
        &self.provider.settings().name
    }

    fn issuer(&self) -> Arc<str> {
        self.provider.settings().issuer.clone()
    }
}

/// Why a sign-in failed.
#[derive(Clone, Copy)]
enum Refused {
    /// This browser has no pending attempt with this state.
    Attempt,
    /// The provider's failure, or an invalid response.
    Provider(SignInError),
}

impl Refused {
    fn cause(self) -> &'static str {
        match self {
            Refused::Attempt => "attempt_unknown",
            Refused::Provider(error) => error.as_str(),
        }
    }

    /// Returns the page for the failure: status and text.
    fn page(self) -> (StatusCode, &'static str) {
        use SignInError as E;
        match self {
            Refused::Attempt => (StatusCode::FORBIDDEN, "openid-attempt"),
            Refused::Provider(E::Refused) => (StatusCode::FORBIDDEN, "openid-refused"),
            Refused::Provider(
                E::Random
                | E::Unreachable
                | E::Timeout
                | E::TooLarge
                | E::Status
                | E::Metadata
                | E::MetadataIssuer
                | E::Keys,
            ) => (StatusCode::SERVICE_UNAVAILABLE, "openid-unavailable"),
            Refused::Provider(_) => (StatusCode::FORBIDDEN, "openid-untrusted"),
        }
    }
}

type Way<'c> = (&'c Console, &'c OpenId, Locale);

fn way<'c>(console: &'c Console, headers: &HeaderMap) -> Result<Way<'c>, Failure> {
    let locale = Locale::of(headers);
    let none = || Failure::plain(locale, StatusCode::NOT_FOUND, "failure-not-found");
    Ok((console, console.openid.as_ref().ok_or_else(none)?, locale))
}

/// Redirects the browser to the provider. A link leads here, not a form: `form-action` of the page's CSP also applies to redirects
/// of a form, and a provider may redirect to yet another host.
pub async fn begin(
    State(console): State<Arc<Console>>,
    Extension(RemoteAddress(address)): Extension<RemoteAddress>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Failure> {
    let way = way(&console, &headers)?;
    let (console, openid, locale) = way;
    if !is_same_origin(&headers, &uri) {
        return Err(Failure::plain(locale, StatusCode::FORBIDDEN, "failure-foreign-form"));
    }
    let network = PeerNetwork::from(address.ip());
    let _step = step(way, network)?;
    let begun = match openid.provider.begin(locale.code()).await {
        Ok(begun) => begun,
        Err(error) => return Err(refuse(way, address, Refused::Provider(error)).await),
    };
    let before = (cookie(&headers, COOKIE), session::cookie_of(&headers).map(str::to_owned));
    let Some(own) = openid.attempts.add(begun.attempt, network, before, Instant::now()) else {
        return Err(refuse(way, address, Refused::Provider(SignInError::Random)).await);
    };
    console.sign_in.count(BY, "begun");
    let set = format!("{COOKIE}={own}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={}", MAX_AGE.as_secs());
    Ok(([(header::SET_COOKIE, set)], Redirect::to(&begun.address)).into_response())
}

/// Handles the authorization response and begins a session.
pub async fn callback(
    State(console): State<Arc<Console>>,
    Extension(RemoteAddress(address)): Extension<RemoteAddress>,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, Failure> {
    let way = way(&console, &headers)?;
    let (console, openid, locale) = way;
    let _step = step(way, address.ip().into())?;
    let Some((attempt, before)) = attempt(openid, &headers, &form) else {
        return Err(refuse(way, address, Refused::Attempt).await);
    };
    let callback =
        Callback { code: form.text("code"), issuer: form.single("iss"), is_error: form.single("error").is_some() };
    let person = match openid.provider.finish(&attempt, &callback).await {
        Ok(staff) => FederatedIdentity { staff, provider: openid.issuer(), address },
        Err(error) => return Err(refuse(way, address, Refused::Provider(error)).await),
    };
    let principal = Principal::Federated(Arc::new(person));
    let Ok(actor) = console.staff.admit(&principal, &SIGN_IN).await else {
        console.sign_in.count(BY, "staff_unknown");
        return Err(Failure::plain(locale, StatusCode::FORBIDDEN, "openid-unknown"));
    };
    let unavailable = || {
        console.sign_in.count(BY, "unavailable");
        Failure::plain(locale, StatusCode::SERVICE_UNAVAILABLE, "sign-in-unavailable")
    };
    note(console, &principal, actor.id(), SIGN_IN.event).await.ok_or_else(unavailable)?;
    // An earlier session of this browser ends, whoever's it was (session fixation).
    before.iter().for_each(|cookie| console.sessions.end_of(cookie));
    let proof = Proof::Provider(openid.issuer());
    let set = console.sessions.begin(actor.id(), proof, Instant::now()).ok_or_else(unavailable)?;
    console.sign_in.count(BY, "signed_in");
    let over = format!("{COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0");
    let body =
        html! { p { (locale.text("openid-done")) } p { a.button href="/console/" { (locale.text("to-overview")) } } };
    let page = layout::refresh(locale, &locale.text("sign-in-title"), &body);
    Ok((AppendHeaders([(header::SET_COOKIE, set), (header::SET_COOKIE, over)]), page).into_response())
}

fn step((console, openid, locale): Way<'_>, network: PeerNetwork) -> Result<Share<PeerNetwork>, Failure> {
    openid.steps.take(&network, 1).map_err(|_| {
        console.sign_in.count(BY, "too_often");
        Failure::plain(locale, StatusCode::TOO_MANY_REQUESTS, "openid-too-often")
    })
}

/// Removes and returns the attempt with this browser's cookie and the response's state.
fn attempt(openid: &OpenId, headers: &HeaderMap, form: &Form) -> Option<(Attempt, Option<String>)> {
    // No parameter stands twice (RFC 6749, section 3.1).
    let once = ["state", "code", "iss", "error"].iter().all(|name| form.count(name) <= 1);
    once.then(|| openid.attempts.take(cookie(headers, COOKIE)?, form.single("state")?, Instant::now())).flatten()
}

/// Returns the page of a refusal after its entry is in the log, within the bounds of refusals. Neither contains received data.
async fn refuse((console, openid, locale): Way<'_>, address: SocketAddr, why: Refused) -> Failure {
    console.sign_in.count(BY, why.cause());
    tracing::debug!(cause = why.cause(), "nobody has signed in by OpenID");
    let entry = Entry {
        cause: why.cause().to_owned(),
        ..console.staff.sign_in_event(&openid.issuer(), address, SIGN_IN.event)
    };
    let by = Identity::Address(address.ip().into());
    let refused = console.staff.refuse::<()>(by, entry, Reason::SignInFailed.into()).await;
    if refused.is_err_and(|refusal| refusal.reason == Reason::ExchangeLogUnavailable) {
        return Failure::plain(locale, StatusCode::SERVICE_UNAVAILABLE, "sign-in-unavailable");
    }
    let (status, key) = why.page();
    Failure::with_cause(locale, status, key, why.cause())
}
