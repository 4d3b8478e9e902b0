//! Server-side sessions. Each is bound to the certificate that it was begun with and to one cookie. It ends after 15 minutes without a
//! request, after 8 hours in any case, and at once if the registry no longer knows the person.

use super::headers::cookie;
use super::text::Locale;
use super::{Console, ROOT};
use crate::identity::{Peer, Thumbprint};
use crate::registry::{NameOwner, Role, Snapshot, now};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{digest, rand};
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::request::Parts;
use http::{Extensions, HeaderMap, StatusCode};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The cookie's name. `__Host-` binds it to this host, to HTTPS and to `/` (RFC 6265bis, section 4.1.3.2).
const COOKIE: &str = "__Host-ndxp-console";
/// Maximum time without a request.
const IDLE: Duration = Duration::from_secs(15 * 60);
/// Maximum duration of a session.
const LONGEST: Duration = Duration::from_secs(8 * 3_600);
/// Maximum number of sessions, in all and per person. Only staff with a certificate have one.
const MAX_SESSIONS: (usize, usize) = (1_000, 8);

/// A session; its key is the SHA-256 of its cookie, so that a memory dump holds no usable cookie.
#[derive(Debug)]
struct Record {
    staff: String,
    certificate: Thumbprint,
    token: String,
    began: Instant,
    last: Instant,
}

impl Record {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.last) >= IDLE || now.duration_since(self.began) >= LONGEST
    }
}

/// The sessions of a gateway.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<HashMap<Vec<u8>, Record>>);

fn secret() -> Option<String> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

fn key(cookie: &str) -> Vec<u8> {
    digest::digest(&digest::SHA256, cookie.as_bytes()).as_ref().to_vec()
}

impl Sessions {
    fn all(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Record>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session and returns its `Set-Cookie`. If the person has too many, the least recently used one ends. Returns `None` if
    /// there are too many in all, or if the system's random generator fails.
    pub fn begin(&self, staff: &str, certificate: Thumbprint, now: Instant) -> Option<String> {
        let (cookie, token) = (secret()?, secret()?);
        let mut all = self.all();
        all.retain(|_, record| !record.is_over(now));
        let own = all.iter().filter(|(_, record)| record.staff == staff);
        let (count, oldest) = (own.clone().count(), own.min_by_key(|(_, record)| record.last));
        if let Some(oldest) = oldest.filter(|_| count >= MAX_SESSIONS.1).map(|(key, _)| key.clone()) {
            all.remove(&oldest);
        }
        if all.len() >= MAX_SESSIONS.0 {
            return None;
        }
        all.insert(key(&cookie), Record { staff: staff.to_owned(), certificate, token, began: now, last: now });
        Some(format!("{COOKIE}={cookie}; Path=/; Secure; HttpOnly; SameSite=Strict"))
    }

    /// The person and the CSRF token of a live session on the certificate that it was begun with. `in_use`: a person's request, not one of
    /// a page that refreshes itself; it restarts the idle timeout.
    fn continued(&self, cookie: &str, certificate: Thumbprint, now: Instant, in_use: bool) -> Option<(String, String)> {
        let (mut all, key) = (self.all(), key(cookie));
        if all.get(&key)?.is_over(now) {
            all.remove(&key);
            return None;
        }
        let record = all.get_mut(&key).filter(|record| record.certificate == certificate)?;
        if in_use {
            record.last = now;
        }
        Some((record.staff.clone(), record.token.clone()))
    }

    /// Ends a session and returns the `Set-Cookie` that removes its cookie.
    pub fn end(&self, headers: &HeaderMap) -> String {
        if let Some(cookie) = cookie(headers, COOKIE) {
            self.all().remove(&key(cookie));
        }
        format!("{COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0")
    }
}

/// There is no session: the browser is redirected to the sign-in page.
#[derive(Debug)]
pub struct NotSignedIn;

impl IntoResponse for NotSignedIn {
    fn into_response(self) -> Response {
        Redirect::to(&format!("{ROOT}/sign-in")).into_response()
    }
}

/// A signed-in person.
#[derive(Debug, Clone)]
pub struct SignedIn {
    /// Their id in the registry.
    pub staff: String,
    /// Their roles in the registry now.
    pub roles: Vec<Role>,
    /// The peer of the connection, with their certificate.
    pub peer: Arc<Peer>,
    /// The language of their pages.
    pub locale: Locale,
    /// The name of this gateway.
    pub node: Arc<str>,
    /// The CSRF token that each of their forms carries (OWASP's synchronizer token).
    pub token: String,
}

/// Returns the person whose certificate the connection has presented, if the registry knows them.
pub fn person(peer: &Peer, registry: &Snapshot) -> Option<(String, Vec<Role>)> {
    peer.check_time(now()).ok()?;
    match registry.owner_of(&peer.certificate.names) {
        NameOwner::Staff(staff) => Some((staff.id.clone(), staff.roles.clone())),
        NameOwner::Client(_) | NameOwner::Ambiguous | NameOwner::Unregistered => None,
    }
}

impl SignedIn {
    /// Returns the session of a request.
    ///
    /// # Errors
    /// There is no session, or it has ended.
    pub fn of(headers: &HeaderMap, extensions: &Extensions, console: &Console) -> Result<Self, NotSignedIn> {
        Self::found(headers, extensions, console, true)
    }

    fn found(
        headers: &HeaderMap,
        extensions: &Extensions,
        console: &Console,
        in_use: bool,
    ) -> Result<Self, NotSignedIn> {
        let locale = Locale::of(headers);
        let signed = || {
            let peer = extensions.get::<Arc<Peer>>()?.clone();
            let (id, token) = console.sessions.continued(
                cookie(headers, COOKIE)?,
                peer.certificate.thumbprint,
                Instant::now(),
                in_use,
            )?;
            let (staff, roles) = person(&peer, &console.registry.load()).filter(|(staff, _)| *staff == id)?;
            Some(SignedIn { staff, roles, peer, locale, node: console.node.clone(), token })
        };
        signed().ok_or(NotSignedIn)
    }

    /// Whether they have one of the roles. It decides what a page offers; whether an action is allowed, the called service decides.
    pub fn has(&self, roles: &[Role]) -> bool {
        self.roles.iter().any(|role| roles.contains(role))
    }

    /// Whether a form's token is this session's CSRF token.
    pub fn has_token(&self, token: &str) -> bool {
        verify_slices_are_equal(self.token.as_bytes(), token.as_bytes()).is_ok()
    }
}

impl FromRequestParts<Arc<Console>> for SignedIn {
    type Rejection = NotSignedIn;

    async fn from_request_parts(parts: &mut Parts, console: &Arc<Console>) -> Result<Self, NotSignedIn> {
        SignedIn::of(&parts.headers, &parts.extensions, console)
    }
}

/// The session behind a page that refreshes itself. Its requests do not keep the session alive: an unused one ends although a page is open.
pub struct Watching(pub SignedIn);

impl FromRequestParts<Arc<Console>> for Watching {
    type Rejection = Response;

    /// If the session has ended, htmx goes to the sign-in page.
    async fn from_request_parts(parts: &mut Parts, console: &Arc<Console>) -> Result<Self, Response> {
        let found = SignedIn::found(&parts.headers, &parts.extensions, console, false);
        let to = [("hx-redirect", format!("{ROOT}/sign-in"))];
        found.map(Watching).map_err(|_| match parts.headers.contains_key("hx-request") {
            true => (StatusCode::UNAUTHORIZED, to).into_response(),
            false => NotSignedIn.into_response(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn value(set_cookie: &str) -> String {
        set_cookie.split([';', '=']).nth(1).unwrap().to_owned()
    }

    #[test]
    fn a_session_ends_when_idle_or_old_and_does_not_exist_on_another_certificate() {
        let (sessions, began) = (Sessions::default(), Instant::now());
        let (own, other) = (Thumbprint::of(b"own"), Thumbprint::of(b"other"));
        let set = sessions.begin("lan", own, began).unwrap();
        assert!(set.starts_with("__Host-") && set.ends_with("; Path=/; Secure; HttpOnly; SameSite=Strict"), "{set}");
        let cookie = value(&set);
        assert_eq!(sessions.continued(&cookie, own, began, true).unwrap().0, "lan");
        assert_eq!(sessions.continued(&cookie, other, began, true), None);
        assert_eq!(sessions.continued("invented", own, began, true), None);
        let mut at = began;
        while at + IDLE < began + LONGEST {
            at += IDLE - Duration::from_secs(1);
            assert!(sessions.continued(&cookie, own, at, true).is_some());
        }
        assert_eq!(sessions.continued(&cookie, own, began + LONGEST, true), None, "eight hours are over");
        assert_eq!(sessions.continued(&cookie, own, began, true), None, "it is gone");
        let unused = value(&sessions.begin("lan", own, began).unwrap());
        assert_eq!(sessions.continued(&unused, own, began + IDLE, true), None);
        // A page that refreshes itself keeps no session alive.
        let watched = value(&sessions.begin("lan", own, began).unwrap());
        let half = began + IDLE / 2;
        assert!(sessions.continued(&watched, own, half, false).is_some());
        assert_eq!(sessions.continued(&watched, own, began + IDLE, false), None);
    }

    #[test]
    fn sessions_are_bounded_per_person_and_in_all() {
        let (sessions, own, began) = (Sessions::default(), Thumbprint::of(b"own"), Instant::now());
        let begin = |staff: &str, after: u64| sessions.begin(staff, own, began + Duration::from_millis(after));
        let first = value(&begin("lan", 0).unwrap());
        let second = value(&begin("lan", 1).unwrap());
        (2..=MAX_SESSIONS.1 as u64).for_each(|after| assert!(begin("lan", after).is_some()));
        assert_eq!(sessions.continued(&first, own, began, true), None, "the ninth ends the one unused longest");
        assert!(sessions.continued(&second, own, began + IDLE / 2, true).is_some());
        let others = (MAX_SESSIONS.0 - MAX_SESSIONS.1) as u64;
        (0..others).for_each(|number| assert!(begin(&format!("p{number}"), 20).is_some()));
        assert_eq!(begin("one-more", 20), None);
        let later = began + IDLE + Duration::from_secs(1);
        assert!(sessions.begin("one-more", own, later).is_some(), "those that are over make room");
    }

    #[test]
    fn signing_out_ends_the_session_of_the_cookie() {
        let (sessions, own, began) = (Sessions::default(), Thumbprint::of(b"own"), Instant::now());
        let set = sessions.begin("lan", own, began).unwrap();
        let headers = HeaderMap::from_iter([(http::header::COOKIE, set.split(';').next().unwrap().parse().unwrap())]);
        assert!(sessions.end(&headers).contains("Max-Age=0"));
        assert_eq!(sessions.continued(&value(&set), own, began, true), None);
    }
}
