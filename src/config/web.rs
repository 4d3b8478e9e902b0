//! `[web]`: the console on the HTTPS port, and the OpenID provider of its users without a certificate.

use super::Table;
use crate::identity::tls;
use crate::openid::{OpenIdSettings, is_https};
use std::path::Path;

/// Path of the redirect URI.
pub const CALLBACK: &str = "/console/openid/callback";
/// Longest name on the button, in characters.
const MAX_NAME: usize = 60;

/// The settings of the HTTPS port beside OAuth2.
#[derive(Clone)]
pub struct WebSettings {
    /// Whether the console is served.
    pub console: bool,
    /// The OpenID provider for sign-in at the console, beside certificates.
    pub openid: Option<OpenIdSettings>,
}

/// `client_ca`: the default CA of the provider's certificate; `has_port`: whether there is an HTTPS port.
pub(super) fn read(table: &Table<'_>, client_ca: Option<&Path>, has_port: bool) -> Option<WebSettings> {
    let console = table.flag("console", true);
    if !table.has("openid") {
        return Some(WebSettings { console, openid: None });
    }
    if !console {
        table.fault("openid", "is for signing in at the console: take console = false away, or this table");
    }
    if !has_port {
        table.fault("openid", "is for signing in at the console, which needs the HTTPS port: add listen.https");
    }
    let openid = table.section("openid", |openid| read_openid(openid, client_ca));
    Some(WebSettings { console, openid: Some(openid?) })
}

fn read_openid(table: &Table<'_>, client_ca: Option<&Path>) -> Option<OpenIdSettings> {
    let issuer = table.parsed("issuer", "https://sso.quangninh.gov.vn", issuer);
    let client_id = table.parsed("client_id", "ndxp-gateway", |text| plain("client_id", text, 255));
    let client_secret = if table.has("client_secret") { table.secret("client_secret").map(Some) } else { Some(None) };
    let example = format!("https://ndxp.quangninh.gov.vn:8443{CALLBACK}");
    let redirect_uri = table.parsed("redirect_uri", &example, redirect_uri);
    // `sub` is the only claim that a provider never gives to somebody else (OpenID Connect Core 1.0, section 5.7).
    let claim = table.text("claim").unwrap_or_else(|| "sub".to_owned());
    let claim = plain("claim", &claim, 64).map_err(|fault| table.fault("claim", fault)).ok();
    let scopes = table.texts("scopes");
    let scopes = scopes.iter().map(|scope| plain("a scope", scope, 64)).collect::<Result<Vec<_>, _>>();
    let scopes = scopes.map_err(|fault| table.fault("scopes", fault)).ok();
    let leeway_s = table.number("leeway_s", 30, 0..=300) as u32;
    let issuer = issuer?;
    let host = || issuer.parse::<http::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default();
    let name = table.text("name").unwrap_or_else(host);
    if name.trim().is_empty() || name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
        table.fault("name", format!("must be what people call the provider, in at most {MAX_NAME} characters"));
    }
    let own = table.path("ca");
    let ca = own.as_deref().or(client_ca)?;
    let tls = tls::client_config(ca, None, &[]).map_err(|fault| table.fault("ca", fault)).ok();
    Some(OpenIdSettings {
        issuer: issuer.into(),
        name,
        client_id: client_id?,
        client_secret: client_secret?,
        redirect_uri: redirect_uri?,
        claim: claim?,
        scopes: scopes?,
        leeway_s,
        tls: tls?,
    })
}

/// Accepts printable ASCII without spaces, quotes and backslashes.
fn plain(what: &str, text: &str, max: usize) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    if !text.is_empty() && text.len() <= max && text.bytes().all(is_plain) {
        return Ok(text.to_owned());
    }
    Err(format!("{what} must be 1 to {max} characters of ASCII without spaces, quotes and backslashes"))
}

/// Accepts an issuer identifier (OpenID Connect Discovery 1.0, section 4.1): its ID tokens decide who may act here.
fn issuer(text: &str) -> Result<String, String> {
    if is_https(text) && !text.contains('?') {
        return Ok(text.to_owned());
    }
    Err("must be the provider's issuer as its metadata has it, https://… without query and fragment".to_owned())
}

fn redirect_uri(text: &str) -> Result<String, String> {
    let is_own = text.parse::<http::Uri>().is_ok_and(|uri| uri.path() == CALLBACK && uri.query().is_none());
    if is_https(text) && is_own {
        return Ok(text.to_owned());
    }
    Err(format!(
        "must be https://, this gateway as browsers reach it, and {CALLBACK}, as it is registered at the provider"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_and_a_redirect_uri_are_of_tls_and_exact() {
        for good in ["https://sso.example", "https://sso.example:8443/realms/x", "https://sso.example/"] {
            assert!(issuer(good).is_ok(), "{good}");
        }
        for wrong in
            ["http://sso.example", "sso.example", "", "https://sso.example?a=b", "https://sso.example#x", "https://"]
        {
            assert!(issuer(wrong).is_err(), "{wrong}");
        }
        assert!(redirect_uri("https://gateway.example:8443/console/openid/callback").is_ok());
        for wrong in [
            "http://gateway.example/console/openid/callback",
            "https://gateway.example/console/openid/callback/",
            "https://gateway.example/console/openid/callback?x=y",
            "https://gateway.example/elsewhere",
            "/console/openid/callback",
        ] {
            assert!(redirect_uri(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_text_that_is_sent_has_nothing_that_means_something_else() {
        assert!(plain("x", "ndxp-gateway", 64).is_ok() && plain("x", "https://sso.vn/staff_id", 64).is_ok());
        for wrong in ["", "a b", "a\"b", "a\\b", "tên", "a\nb"] {
            assert!(plain("x", wrong, 64).is_err(), "{wrong}");
        }
        assert!(plain("x", &"a".repeat(65), 64).is_err());
    }
}
