//! A form sent from a page of this console: its fields, after its session and its CSRF token have been checked.

use super::Console;
use super::failure::Failure;
use super::session::SignedIn;
use axum::body::to_bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, StatusCode, Uri, header};
use std::convert::Infallible;
use std::sync::Arc;

/// Maximum form size in bytes: a certificate chain and some hundred field paths.
const MAX_FORM: usize = 256 << 10;

/// The fields of a form, in order.
#[derive(Debug, Default)]
pub struct Form(Vec<(String, String)>);

impl Form {
    /// Reads `application/x-www-form-urlencoded`.
    pub fn parse(bytes: &[u8]) -> Self {
        Form(form_urlencoded::parse(bytes).into_owned().collect())
    }

    /// Returns a field, trimmed; empty if it is missing.
    pub fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.trim())
    }

    /// How often a field stands there.
    pub fn count(&self, name: &str) -> usize {
        self.0.iter().filter(|(known, _)| known == name).count()
    }

    /// A field as it was sent, blanks included.
    pub fn single(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns every value of a field that may be repeated or have one value per line.
    pub fn list(&self, name: &str) -> Vec<String> {
        let values = self.0.iter().filter(|(known, _)| known == name).flat_map(|(_, value)| value.lines());
        values.map(str::trim).filter(|value| !value.is_empty()).map(str::to_owned).collect()
    }

    /// Returns a field as a whole number, 0 if it is empty; `None` if it is not one.
    pub fn number<N: std::str::FromStr + Default>(&self, name: &str) -> Option<N> {
        let text = self.text(name);
        if text.is_empty() { Some(N::default()) } else { text.parse().ok() }
    }
}

impl<S: Sync> FromRequestParts<S> for Form {
    type Rejection = Infallible;

    /// Reads the fields of a request's query: a form that is sent by GET.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Form::parse(parts.uri.query().unwrap_or_default().as_bytes()))
    }
}

/// A form with its sender's session.
pub struct Sent {
    /// The sender.
    pub session: SignedIn,
    /// The fields.
    pub form: Form,
}

/// Whether a request comes from a page of this origin, by the headers that browsers send: `Sec-Fetch-Site` (W3C Fetch Metadata), `Origin`.
/// The host is the request's authority (HTTP/2) or its `Host` (HTTP/1.1).
pub fn is_same_origin(headers: &HeaderMap, uri: &Uri) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = uri.authority().map(Authority::as_str).or_else(|| text("host"));
    let origin =
        text("origin").is_none_or(|origin| origin.strip_prefix("https://").is_some_and(|named| Some(named) == host));
    origin && text("sec-fetch-site").is_none_or(|site| ["same-origin", "none"].contains(&site))
}

/// Reads the body of a form.
///
/// # Errors
/// 413 if it is larger than 256 kB or incomplete, 415 if it is not a form.
pub async fn read(request: Request) -> Result<Form, StatusCode> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if kind.split(';').next().is_none_or(|kind| !kind.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded"))
    {
        return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let body = to_bytes(request.into_body(), MAX_FORM).await.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?;
    Ok(Form::parse(&body))
}

impl FromRequest<Arc<Console>> for Sent {
    type Rejection = Response;

    /// Checks the session first: without one, the body is not read.
    async fn from_request(request: Request, console: &Arc<Console>) -> Result<Self, Response> {
        let session = SignedIn::of((request.uri().path(), request.headers()), request.extensions(), console);
        let session = session.map_err(IntoResponse::into_response)?;
        Self::checked(session, request).await.map_err(IntoResponse::into_response)
    }
}

impl Sent {
    async fn checked(session: SignedIn, request: Request) -> Result<Self, Failure> {
        let locale = session.locale;
        if !is_same_origin(request.headers(), request.uri()) {
            return Err(Failure::plain(locale, StatusCode::FORBIDDEN, "failure-foreign-form"));
        }
        let form = read(request).await.map_err(|status| Failure::plain(locale, status, "failure-form"))?;
        if !session.has_token(form.text("csrf")) {
            return Err(Failure::plain(locale, StatusCode::FORBIDDEN, "failure-foreign-form"));
        }
        Ok(Sent { session, form })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_as_browsers_encode_it() {
        let form = Form::parse("id=+kho+&scope=a%3Ab&scope=c&names=x%0D%0Ay%0D%0A&n=&m=7x&ten=H%E1%BA%A1".as_bytes());
        assert_eq!((form.text("id"), form.text("ten"), form.text("none")), ("kho", "Hạ", ""));
        assert_eq!(
            (form.list("scope"), form.list("names")),
            (vec!["a:b".into(), "c".into()], vec!["x".into(), "y".into()])
        );
        assert_eq!((form.number::<u32>("n"), form.number::<u32>("m")), (Some(0), None));
    }

    #[test]
    fn a_form_from_another_site_is_refused() {
        let of = |uri: &str, pairs: &[(&'static str, &str)]| {
            let pair =
                |(name, value): &(&'static str, &str)| (http::HeaderName::from_static(name), value.parse().unwrap());
            is_same_origin(&pairs.iter().map(pair).collect(), &uri.parse().unwrap())
        };
        let (old, new) = ("/console/sign-in", "https://a:1/console/sign-in");
        for (uri, host) in [(old, Some(("host", "a:1"))), (new, None)] {
            let with = |more: &[(&'static str, &str)]| of(uri, &host.iter().chain(more).copied().collect::<Vec<_>>());
            assert!(with(&[]) && with(&[("origin", "https://a:1"), ("sec-fetch-site", "same-origin")]), "{uri}");
            for origin in ["https://b", "https://a:11", "null", "http://a:1"] {
                assert!(!with(&[("origin", origin)]), "{uri} {origin}");
            }
            for site in ["cross-site", "same-site"] {
                assert!(!with(&[("sec-fetch-site", site)]), "{uri} {site}");
            }
        }
        assert!(!of(old, &[("origin", "https://a:1")]), "a request without a host");
    }
}
