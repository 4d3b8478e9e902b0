//! The provider's metadata (OpenID Connect Discovery 1.0, section 4): accepted only from the configured issuer, and only with HTTPS
//! endpoints.

use super::SignInError;
use serde::Deserialize;

/// Path of the document, appended to the issuer.
const PLACE: &str = "/.well-known/openid-configuration";

/// The members of the document that the gateway uses.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Metadata {
    issuer: String,
    /// The authorization endpoint, for browsers.
    pub authorization_endpoint: String,
    /// The token endpoint, which redeems codes.
    pub token_endpoint: String,
    /// The URL of the key set.
    pub jwks_uri: String,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Vec<String>,
    #[serde(default)]
    code_challenge_methods_supported: Vec<String>,
    /// Whether authorization responses have `iss` (RFC 9207).
    #[serde(default)]
    pub authorization_response_iss_parameter_supported: bool,
}

/// Returns the URL of an issuer's document.
pub(super) fn address(issuer: &str) -> String {
    format!("{}{PLACE}", issuer.trim_end_matches('/'))
}

/// Returns whether a text is an `https` URL with a host and without user information or a fragment.
pub(crate) fn is_https(text: &str) -> bool {
    let Ok(uri) = text.parse::<http::Uri>() else { return false };
    let host = uri.authority().is_some_and(|host| !host.host().is_empty() && !host.as_str().contains('@'));
    uri.scheme_str() == Some("https") && host && !text.contains('#')
}

impl Metadata {
    /// Parses the document of this issuer.
    ///
    /// # Errors
    /// The document is another issuer's, has an endpoint without TLS, or does not support PKCE with S256.
    pub fn read(bytes: &[u8], issuer: &str) -> Result<Self, SignInError> {
        let read: Metadata = serde_json::from_slice(bytes).map_err(|_| SignInError::Metadata)?;
        if read.issuer != issuer {
            return Err(SignInError::MetadataIssuer);
        }
        let places = [&read.authorization_endpoint, &read.token_endpoint, &read.jwks_uri];
        let pkce = &read.code_challenge_methods_supported;
        let knows_s256 = pkce.is_empty() || pkce.iter().any(|method| method == "S256");
        if knows_s256 && places.into_iter().all(|place| is_https(place)) {
            Ok(read)
        } else {
            Err(SignInError::Metadata)
        }
    }

    /// Returns whether the client secret goes into the body: only if the provider does not support HTTP Basic, the default (Discovery,
    /// section 3).
    pub fn wants_secret_in_body(&self) -> bool {
        let known = &self.token_endpoint_auth_methods_supported;
        let has = |method: &str| known.iter().any(|one| one == method);
        !known.is_empty() && !has("client_secret_basic") && has("client_secret_post")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const ISSUER: &str = "https://sso.example/realms/x";

    fn document(edit: impl Fn(&mut Value)) -> Result<Metadata, SignInError> {
        let mut document = json!({
            "issuer": ISSUER, "authorization_endpoint": "https://sso.example/auth?tenant=1",
            "token_endpoint": "https://sso.example/token", "jwks_uri": "https://keys.example/jwks",
            "more": [1, 2],
        });
        edit(&mut document);
        Metadata::read(document.to_string().as_bytes(), ISSUER)
    }

    #[test]
    fn a_document_is_its_own_issuer_s_and_leads_to_tls_alone() {
        assert!(document(|_| {}).is_ok());
        for other in ["https://sso.example/realms/x/", "https://SSO.example/realms/x", "https://evil.example", ""] {
            let found = document(|document| document["issuer"] = other.into());
            assert_eq!(found.err(), Some(SignInError::MetadataIssuer), "{other}");
        }
        for name in ["authorization_endpoint", "token_endpoint", "jwks_uri"] {
            for wrong in [
                "http://sso.example/x",
                "/x",
                "",
                "https://",
                "https://a@sso.example/x",
                "https://a/x#y",
                "javascript:x",
            ] {
                let found = document(|document| document[name] = wrong.into());
                assert_eq!(found.err(), Some(SignInError::Metadata), "{name} {wrong}");
            }
            assert!(document(|document| document[name] = Value::Null).is_err(), "{name}");
        }
        let pkce =
            |methods: &[&str]| document(|document| document["code_challenge_methods_supported"] = json!(methods));
        assert!(pkce(&["plain", "S256"]).is_ok() && pkce(&["plain"]).is_err());
        assert!(Metadata::read(b"[]", ISSUER).is_err() && Metadata::read(b"{", ISSUER).is_err());
    }

    #[test]
    fn a_secret_goes_into_the_body_only_where_nothing_else_is_taken() {
        let body = |methods: Value| {
            let read = document(|document| document["token_endpoint_auth_methods_supported"] = methods.clone());
            read.unwrap().wants_secret_in_body()
        };
        assert!(!body(json!([])) && !body(json!(["client_secret_post", "client_secret_basic"])));
        assert!(body(json!(["private_key_jwt", "client_secret_post"])));
    }
}
