//! What every page shares: security headers, the style sheet, scripts, and cookies.

use super::ROOT;
use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use maud::Markup;
use tower::ServiceBuilder;
use tower_http::set_header::SetResponseHeaderLayer;

/// No script, nothing from other origins, no framing, forms to this origin only (W3C Content Security Policy Level 3).
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; \
                      base-uri 'none'; require-trusted-types-for 'script'";

/// The same for pages with a live part, which also run the console's own two script files; these fetch from this origin only.
const LIVE_POLICY: &str = "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self'; \
                           form-action 'self'; frame-ancestors 'none'; base-uri 'none'; \
                           require-trusted-types-for 'script'; trusted-types default";

/// htmx 2.0.11, as published; its licence (0BSD) is beside it.
const HTMX: &str = include_str!("assets/htmx.min.js");
/// The Trusted Types policy that lets htmx read responses.
const TRUST: &str = include_str!("assets/trust.js");
/// The style sheet, which a single-file report also embeds.
pub(super) const STYLE: &str = include_str!("style.css");

/// Adds the headers to all pages.
pub fn layered(pages: Router) -> Router {
    let set = |name: HeaderName, value: &'static str| {
        SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
    };
    let layers = ServiceBuilder::new()
        .layer(set(header::CONTENT_SECURITY_POLICY, POLICY))
        .layer(set(header::REFERRER_POLICY, "same-origin"))
        .layer(set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin"))
        .layer(set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin"))
        .layer(set(HeaderName::from_static("permissions-policy"), "interest-cohort=()"))
        .layer(set(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000"))
        // A page is for the person who requested it: no cache keeps it.
        .layer(set(header::CACHE_CONTROL, "no-store"));
    pages.layer(layers)
}

/// Serves the style sheet.
pub async fn style() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "private, max-age=300")];
    (headers, STYLE).into_response()
}

/// Returns a page with a live part.
pub fn live(page: Markup) -> Response {
    ([(header::CONTENT_SECURITY_POLICY, LIVE_POLICY)], page).into_response()
}

/// Serves one of the console's own scripts.
pub async fn script(Path(name): Path<String>) -> Result<Response, StatusCode> {
    let text = match name.as_str() {
        "htmx.min.js" => HTMX,
        "trust.js" => TRUST,
        _ => return Err(StatusCode::NOT_FOUND),
    };
    let kind = "text/javascript; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "private, max-age=300")], text).into_response())
}

/// Returns a cookie of a request.
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let all = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let pairs = all.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(known, _)| *known == name).map(|(_, value)| value).next()
}

/// Returns the console's page that the request comes from (`Referer`), otherwise the first page.
pub fn back(headers: &HeaderMap) -> String {
    let first = format!("{ROOT}/");
    let Some(uri) = headers.get(header::REFERER).and_then(|value| value.to_str().ok()?.parse::<http::Uri>().ok())
    else {
        return first;
    };
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    // A path of this server, whatever host the header names.
    if path.starts_with(&first) && !path.contains("//") { path.to_owned() } else { first }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn back_leads_to_a_page_of_the_console_only() {
        let of = |referer: &str| back(&HeaderMap::from_iter([(header::REFERER, referer.parse().unwrap())]));
        assert_eq!(of("https://gateway.example:8443/console/clients?state=active"), "/console/clients?state=active");
        for elsewhere in [
            "https://other.example/",
            "//other.example/console/",
            "https://a/console//other.example",
            "/log/x",
            "\"",
            "/consoles",
        ] {
            assert_eq!(of(elsewhere), "/console/", "{elsewhere}");
        }
        assert_eq!(back(&HeaderMap::new()), "/console/");
    }

    #[test]
    fn a_cookie_is_found_by_its_complete_name() {
        let headers = HeaderMap::from_iter([(header::COOKIE, "xa=1; a=2;b=3".parse().unwrap())]);
        assert_eq!((cookie(&headers, "a"), cookie(&headers, "b"), cookie(&headers, "c")), (Some("2"), Some("3"), None));
    }
}
