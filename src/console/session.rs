//! Server-side sessions. Each is bound to one cookie, and to the certificate that it was begun with, if it was. It ends after 15 minutes
//! without a request, after 8 hours in any case, and at once if the registry no longer knows the person.

use super::Console;
use super::headers::cookie;
use super::text::Locale;
use crate::identity::principal::{FederatedIdentity, Principal};
use crate::identity::{Peer, Thumbprint};
use crate::openid::attempts::{CookieDigest, cookie_digest, secret};
use crate::registry::Role;
use crate::web::RemoteAddress;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Redirect, Response};
use http::request::Parts;
use http::{Extensions, HeaderMap, StatusCode};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The page of those without a session.
const SIGN_IN: &str = "/console/sign-in";
/// The cookie's name. `__Host-` binds it to this host, to HTTPS and to `/` (RFC 6265bis, section 4.1.3.2).
const COOKIE: &str = "__Host-ndxp-console";
/// Maximum time without a request.
const IDLE: Duration = Duration::from_secs(15 * 60);
/// Maximum duration of a session.
const LONGEST: Duration = Duration::from_secs(8 * 3_600);
/// Maximum number of sessions of staff, in all and per person.
const MAX_SESSIONS: (usize, usize) = (1_000, 8);
/// The same of clients' developers: counted apart, so that no client keeps staff out.
const MAX_CLIENT_SESSIONS: (usize, usize) = (500, 2);

/// What somebody has signed in by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// A certificate, which each request of the session must show.
    Certificate(Thumbprint),
    /// The word of an OpenID provider, by its issuer: the cookie alone shows who sends a request.
    Provider(Arc<str>),
}

/// A session; its key is the SHA-256 of its cookie, so that a memory dump holds no usable cookie.
#[derive(Debug)]
struct Record {
    staff: String,
    proof: Proof,
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
pub struct Sessions(Mutex<HashMap<CookieDigest, Record>>);

/// The value of the session's cookie, if a request has one.
pub fn cookie_of(headers: &HeaderMap) -> Option<&str> {
    cookie(headers, COOKIE)
}

impl Sessions {
    fn all(&self) -> MutexGuard<'_, HashMap<CookieDigest, Record>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session and returns its `Set-Cookie`. If the person has too many, the least recently used one ends. Returns `None` if
    /// there are too many in all, or if the system's random generator fails.
    pub fn begin(&self, staff: &str, proof: Proof, now: Instant) -> Option<String> {
        let (cookie, token) = (secret()?, secret()?);
        let mut all = self.all();
        all.retain(|_, record| !record.is_over(now));
        let own = all.iter().filter(|(_, record)| record.staff == staff);
        let (count, oldest) = (own.clone().count(), own.min_by_key(|(_, record)| record.last));
        let is_client = |owner: &str| owner.starts_with(CLIENT);
        let (most, most_of_one) = if is_client(staff) { MAX_CLIENT_SESSIONS } else { MAX_SESSIONS };
        if let Some(oldest) = oldest.filter(|_| count >= most_of_one).map(|(key, _)| *key) {
            all.remove(&oldest);
        }
        if all.values().filter(|record| is_client(&record.staff) == is_client(staff)).count() >= most {
            return None;
        }
        all.insert(cookie_digest(&cookie), Record { staff: staff.to_owned(), proof, token, began: now, last: now });
        Some(format!("{COOKIE}={cookie}; Path=/; Secure; HttpOnly; SameSite=Strict"))
    }

    /// The person, their proof and the CSRF token of a session that goes on: where it was begun with a certificate, on that one.
    /// `in_use`: it is somebody's request, not a page's that renews itself; the time without one begins anew.
    fn continued(
        &self,
        cookie: &str,
        shown: Option<Thumbprint>,
        now: Instant,
        in_use: bool,
    ) -> Option<(String, Proof, String)> {
        let (mut all, key) = (self.all(), cookie_digest(cookie));
        if all.get(&key)?.is_over(now) {
            all.remove(&key);
            return None;
        }
        let holds = |proof: &Proof| match proof {
            Proof::Certificate(begun_with) => shown == Some(*begun_with),
            Proof::Provider(_) => true,
        };
        let record = all.get_mut(&key).filter(|record| holds(&record.proof))?;
        if in_use {
            record.last = now;
        }
        Some((record.staff.clone(), record.proof.clone(), record.token.clone()))
    }

    /// Ends the session of this cookie's value.
    pub fn end_of(&self, cookie: &str) {
        self.all().remove(&cookie_digest(cookie));
    }

    /// Ends a session and returns the `Set-Cookie` that removes its cookie.
    pub fn end(&self, headers: &HeaderMap) -> String {
        cookie_of(headers).iter().for_each(|cookie| self.end_of(cookie));
        format!("{COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0")
    }
}

/// Why a request has no session for its page.
#[derive(Debug)]
pub enum NoSession {
    /// There is none.
    NotSignedIn,
    /// It is a client's, and the page is not for clients.
    ClientsOwn,
}

impl IntoResponse for NoSession {
    fn into_response(self) -> Response {
        Redirect::to(match self {
            NoSession::NotSignedIn => SIGN_IN,
            NoSession::ClientsOwn => OWN,
        })
        .into_response()
    }
}

/// The page of a client's developers.
pub const OWN: &str = "/console/own";
/// In front of a client's id, among the owners of sessions: no id of a person has a colon.
const CLIENT: &str = "client:";
/// The pages that a client's session has, each with all below it.
const CLIENT_PAGES: [&str; 4] = [OWN, "/console/catalogue", "/console/may-i", "/console/sign-out"];

/// Returns the owner of a client's session.
pub fn client_owner(id: &str) -> String {
    format!("{CLIENT}{id}")
}

/// A signed-in person, or the developers of a client, by its certificate.
#[derive(Debug, Clone)]
pub struct SignedIn {
    /// Their id in the registry; of developers, the client's.
    pub staff: String,
    /// Whether it is a client's.
    pub is_client: bool,
    /// Their roles in the registry now.
    pub roles: Vec<Role>,
    /// What they have proved who they are by, and where this request comes from.
    pub principal: Principal,
    /// The language of their pages.
    pub locale: Locale,
    /// The name of this gateway.
    pub node: Arc<str>,
    /// Whether it shares log and registry with others.
    pub in_cluster: bool,
    /// The CSRF token that each of their forms carries (OWASP's synchronizer token).
    pub token: String,
}

impl SignedIn {
    /// Returns the session of a request.
    ///
    /// # Errors
    /// There is no session, or it has ended.
    pub fn of(
        (path, headers): (&str, &HeaderMap),
        extensions: &Extensions,
        console: &Console,
    ) -> Result<Self, NoSession> {
        Self::found((path, headers), extensions, console, true)
    }

    fn found(
        (path, headers): (&str, &HeaderMap),
        extensions: &Extensions,
        console: &Console,
        in_use: bool,
    ) -> Result<Self, NoSession> {
        let locale = Locale::of(headers);
        let signed = || {
            let peer = extensions.get::<Arc<Peer>>();
            let shown = peer.map(|peer| peer.certificate.thumbprint);
            let (id, proof, token) = console.sessions.continued(cookie_of(headers)?, shown, Instant::now(), in_use)?;
            let principal = match proof {
                Proof::Certificate(_) => Principal::Certificate(peer?.clone()),
                Proof::Provider(provider) => {
                    let address = extensions.get::<RemoteAddress>()?.0;
                    Principal::Federated(Arc::new(FederatedIdentity { staff: id.clone(), provider, address }))
                }
            };
            let (node, in_cluster) = (console.node.clone(), console.in_cluster);
            if let Some(id) = id.strip_prefix(CLIENT) {
                let client = console.staff.client(&principal).ok().filter(|view| view.client.id == id)?;
                let (staff, roles) = (client.client.id.clone(), Vec::new());
                return Some(SignedIn { staff, is_client: true, roles, principal, locale, node, in_cluster, token });
            }
            let registry = console.registry.load();
            let staff = principal.staff(&registry).ok().filter(|staff| staff.id == id)?;
            let (staff, roles) = (staff.id.clone(), staff.roles.clone());
            Some(SignedIn { staff, is_client: false, roles, principal, locale, node, in_cluster, token })
        };
        let signed = signed().ok_or(NoSession::NotSignedIn)?;
        let below = |page: &str| path.strip_prefix(page).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        match signed.is_client && !CLIENT_PAGES.into_iter().any(below) {
            true => Err(NoSession::ClientsOwn),
            false => Ok(signed),
        }
    }

    /// Returns the owner of the session, as [`Sessions`] keeps it.
    pub fn owner(&self) -> String {
        if self.is_client { client_owner(&self.staff) } else { self.staff.clone() }
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
    type Rejection = NoSession;

    async fn from_request_parts(parts: &mut Parts, console: &Arc<Console>) -> Result<Self, NoSession> {
        SignedIn::of((parts.uri.path(), &parts.headers), &parts.extensions, console)
    }
}

/// The session behind a page that refreshes itself. Its requests do not keep the session alive: an unused one ends although a page is open.
pub struct Watching(pub SignedIn);

impl FromRequestParts<Arc<Console>> for Watching {
    type Rejection = Response;

    /// If the session has ended, htmx goes to the sign-in page.
    async fn from_request_parts(parts: &mut Parts, console: &Arc<Console>) -> Result<Self, Response> {
        let found = SignedIn::found((parts.uri.path(), &parts.headers), &parts.extensions, console, false);
        found.map(Watching).map_err(|why| match parts.headers.contains_key("hx-request") {
            true => (StatusCode::UNAUTHORIZED, [("hx-redirect", SIGN_IN)]).into_response(),
            false => why.into_response(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(certificate: &[u8]) -> Proof {
        Proof::Certificate(Thumbprint::of(certificate))
    }

    #[test]
    fn a_session_by_a_provider_s_word_needs_no_certificate_and_minds_none() {
        let (sessions, began) = (Sessions::default(), Instant::now());
        let proof = Proof::Provider("https://sso.example".into());
        let cookie = value(&sessions.begin("lan", proof.clone(), began).unwrap());
        for shown in [None, Some(Thumbprint::of(b"any"))] {
            let (staff, by, _) = sessions.continued(&cookie, shown, began, true).unwrap();
            assert_eq!((staff.as_str(), by), ("lan", proof.clone()));
        }
        assert_eq!(sessions.continued(&cookie, None, began + IDLE, true), None);
    }

    fn value(set_cookie: &str) -> String {
        set_cookie.split([';', '=']).nth(1).unwrap().to_owned()
    }

    #[test]
    fn a_session_ends_when_idle_or_old_and_does_not_exist_on_another_certificate() {
        let (sessions, began) = (Sessions::default(), Instant::now());
        let (own, other) = (Some(Thumbprint::of(b"own")), Some(Thumbprint::of(b"other")));
        let set = sessions.begin("lan", of(b"own"), began).unwrap();
        assert!(set.starts_with("__Host-") && set.ends_with("; Path=/; Secure; HttpOnly; SameSite=Strict"), "{set}");
        let cookie = value(&set);
        assert_eq!(sessions.continued(&cookie, own, began, true).unwrap().0, "lan");
        for not_it in [other, None] {
            assert_eq!(sessions.continued(&cookie, not_it, began, true), None);
        }
        assert_eq!(sessions.continued("invented", own, began, true), None);
        let mut at = began;
        while at + IDLE < began + LONGEST {
            at += IDLE - Duration::from_secs(1);
            assert!(sessions.continued(&cookie, own, at, true).is_some());
        }
        assert_eq!(sessions.continued(&cookie, own, began + LONGEST, true), None, "eight hours are over");
        assert_eq!(sessions.continued(&cookie, own, began, true), None, "it is gone");
        let unused = value(&sessions.begin("lan", of(b"own"), began).unwrap());
        assert_eq!(sessions.continued(&unused, own, began + IDLE, true), None);
        // A page that refreshes itself keeps no session alive.
        let watched = value(&sessions.begin("lan", of(b"own"), began).unwrap());
        let half = began + IDLE / 2;
        assert!(sessions.continued(&watched, own, half, false).is_some());
        assert_eq!(sessions.continued(&watched, own, began + IDLE, false), None);
    }

    #[test]
    fn sessions_are_bounded_per_person_and_in_all() {
        let (sessions, own, began) = (Sessions::default(), Some(Thumbprint::of(b"own")), Instant::now());
        let begin = |staff: &str, after: u64| sessions.begin(staff, of(b"own"), began + Duration::from_millis(after));
        let first = value(&begin("lan", 0).unwrap());
        let second = value(&begin("lan", 1).unwrap());
        (2..=MAX_SESSIONS.1 as u64).for_each(|after| assert!(begin("lan", after).is_some()));
        assert_eq!(sessions.continued(&first, own, began, true), None, "the ninth ends the one unused longest");
        assert!(sessions.continued(&second, own, began + IDLE / 2, true).is_some());
        let others = (MAX_SESSIONS.0 - MAX_SESSIONS.1) as u64;
        (0..others).for_each(|number| assert!(begin(&format!("p{number}"), 20).is_some()));
        assert_eq!(begin("one-more", 20), None);
        let later = began + IDLE + Duration::from_secs(1);
        assert!(sessions.begin("one-more", of(b"own"), later).is_some(), "those that are over make room");
    }

    #[test]
    fn clients_keep_no_staff_out() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let begin = |owner: &str| sessions.begin(owner, of(b"own"), now).is_some();
        for number in 0..MAX_CLIENT_SESSIONS.0 {
            assert!(begin(&client_owner(&number.to_string())), "{number}");
        }
        assert!(!begin(&client_owner("one-more")) && begin("lan"));
        // The third of one client ends its first.
        let (sessions, own) = (Sessions::default(), Some(Thumbprint::of(b"own")));
        let at = |second| now + Duration::from_secs(second);
        let mine = |second| value(&sessions.begin(&client_owner("kho"), of(b"own"), at(second)).unwrap());
        let (first, _, third) = (mine(0), mine(1), mine(2));
        assert_eq!(sessions.continued(&first, own, now, true), None);
        assert!(sessions.continued(&third, own, now, true).is_some());
    }

    #[test]
    fn signing_out_ends_the_session_of_the_cookie() {
        let (sessions, own, began) = (Sessions::default(), Some(Thumbprint::of(b"own")), Instant::now());
        let set = sessions.begin("lan", of(b"own"), began).unwrap();
        let headers = HeaderMap::from_iter([(http::header::COOKIE, set.split(';').next().unwrap().parse().unwrap())]);
        assert!(sessions.end(&headers).contains("Max-Age=0"));
        assert_eq!(sessions.continued(&value(&set), own, began, true), None);
    }
}
