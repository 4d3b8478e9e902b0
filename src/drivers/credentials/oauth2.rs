//! OAuth2 client credentials (RFC 6749, section 4.4) as NDXP's token endpoint has them: one token for all sources of a
//! hub, renewed ahead of its expiry, and once after a refusal.

use super::cached::CachedSecret;
use super::{Secret, sensitive};
use crate::contract::json;
use crate::contract::map::outcome::shorten;
use crate::contract::map::scalar_text;
use crate::drivers::http::{HttpEndpoint, status_error};
use crate::drivers::{CallerFault, GatewayFault, SourceError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Lifetime if the endpoint states none.
const DEFAULT_LIFETIME: u64 = 3_600;
/// Longest lifetime that is accepted, in seconds.
const MAX_LIFETIME: f64 = 86_400.0;
/// A token is renewed when this share of its life is left, at most a minute.
const RENEW_AHEAD: u32 = 5;

/// Keys of a city's LGSP in front of the hub.
#[derive(Debug, Clone)]
pub struct Lgsp {
    /// AccessKey.
    pub access_key: Secret,
    /// SecretKey.
    pub secret_key: Secret,
    /// AppName.
    pub app_name: String,
    /// PartnerCode.
    pub partner_code: String,
    /// PartnerCodeCus.
    pub partner_code_cus: String,
}

/// The credentials of one hub, with the cached token.
#[derive(Debug)]
pub struct OAuth2 {
    client: Arc<OAuth2Client>,
    kept: CachedSecret,
}

/// The gateway's identity at the token endpoint, and the endpoint's path.
#[derive(Debug)]
struct OAuth2Client {
    token_path: String,
    key: String,
    secret: Secret,
    lgsp: Option<Lgsp>,
}

impl OAuth2 {
    /// Credentials for the token endpoint at `token_path` of the hub's address.
    pub fn new(token_path: String, key: String, secret: Secret, lgsp: Option<Lgsp>) -> Self {
        OAuth2 { client: Arc::new(OAuth2Client { token_path, key, secret, lgsp }), kept: CachedSecret::default() }
    }

    /// Returns a token that is valid for a while yet, and its epoch.
    ///
    /// # Errors
    /// The error of the token endpoint's call, by whose fault it is: the gateway's if the endpoint refuses the
    /// credentials.
    pub async fn token(&self, endpoint: &HttpEndpoint) -> Result<(Secret, u64), SourceError> {
        let fetch = || {
            let (client, endpoint) = (self.client.clone(), endpoint.clone());
            async move { client.fetch(&endpoint).await }
        };
        self.kept.get(endpoint.base(), fetch).await
    }

    /// Drops the token of this epoch; a newer one stays.
    pub fn drop_token(&self, epoch: u64) {
        self.kept.forget(epoch);
    }

    /// Adds the LGSP header, if an LGSP is in front.
    ///
    /// # Errors
    /// The gateway's ([`SourceError::Gateway`]) if the LGSP token cannot be made or is not valid in a header.
    pub fn lgsp_header(&self, headers: &mut HeaderMap) -> Result<(), SourceError> {
        self.client.lgsp_header(headers)
    }
}

impl OAuth2Client {
    fn lgsp_header(&self, headers: &mut HeaderMap) -> Result<(), SourceError> {
        if let Some(lgsp) = &self.lgsp {
            headers.insert(HeaderName::from_static("lgspaccesstoken"), lgsp.header()?);
        }
        Ok(())
    }

    /// Fetches a token; returns it with the time for which it is cached.
    async fn fetch(&self, endpoint: &HttpEndpoint) -> Result<(Secret, Option<Duration>), SourceError> {
        let mut headers = HeaderMap::new();
        let basic = STANDARD.encode(format!("{}:{}", self.key, self.secret.reveal()));
        headers.insert(header::AUTHORIZATION, sensitive(&format!("Basic {basic}"))?);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        self.lgsp_header(&mut headers)?;
        let body = Bytes::from_static(b"grant_type=client_credentials");
        let answer = endpoint.send(Method::POST, &self.token_path, headers, body).await?;
        let document = json::parse(&answer.body);
        // The endpoint's own error is more precise than its status (RFC 6749, section 5.2), and some endpoints send it
        // with 200.
        let error = document.as_ref().ok().and_then(|document| document.get("error")?.as_str());
        use {GatewayFault as Fault, SourceError as Error};
        match (status_error(answer.status, &answer.headers), error) {
            (Some(Error::Caller(CallerFault::Rejected(_))), Some(error))
            | (Some(Error::Gateway(Fault::CredentialsRefused(_) | Fault::Forbidden(_))), Some(error))
            | (None, Some(error)) => return Err(Fault::CredentialsRefused(shorten(error.to_owned())).into()),
            (Some(Error::Caller(CallerFault::Rejected(code)) | Error::Gateway(Fault::Forbidden(code))), None) => {
                return Err(Fault::CredentialsRefused(code).into());
            }
            (Some(error), _) => return Err(error),
            (None, None) => {}
        }
        read_token(&document.unwrap_or_default())
    }
}

/// Returns the token and the time for which it is cached. A token that cannot work is refused here: a cached one would
/// not be renewed in time.
fn read_token(document: &Value) -> Result<(Secret, Option<Duration>), SourceError> {
    let wrong = |what: &str| Err(SourceError::protocol(format!("the token endpoint's response {what}")));
    let token = document.get("access_token").and_then(Value::as_str).unwrap_or("");
    // RFC 6750, section 2.1: b64token.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    if token.is_empty() || !token.bytes().all(plain) {
        return wrong("has no access_token that can be sent");
    }
    let kind = document.get("token_type").and_then(Value::as_str).unwrap_or("bearer");
    if !kind.eq_ignore_ascii_case("bearer") {
        return wrong("is of another type than Bearer");
    }
    let seconds = match document.get("expires_in").filter(|value| !value.is_null()) {
        None => DEFAULT_LIFETIME,
        // As text, or with decimals, as some endpoints write it.
        Some(value) => match scalar_text(value).and_then(|text| text.trim().parse::<f64>().ok()) {
            Some(seconds) if seconds >= 1.0 => seconds.min(MAX_LIFETIME) as u64,
            Some(_) => return wrong("is over already"),
            None => return wrong("has an expires_in that is no number"),
        },
    };
    let lifetime = Duration::from_secs(seconds);
    let ahead = (lifetime / RENEW_AHEAD).min(Duration::from_secs(60));
    Ok((Secret::new(token), Some(lifetime - ahead)))
}

impl Lgsp {
    fn header(&self) -> Result<HeaderValue, SourceError> {
        let keys = serde_json::json!({
            "AccessKey": self.access_key.reveal(), "SecretKey": self.secret_key.reveal(), "AppName": self.app_name,
            "PartnerCode": self.partner_code, "PartnerCodeCus": self.partner_code_cus,
        });
        sensitive(&STANDARD.encode(keys.to_string()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn u9_a_token_is_kept_for_a_share_of_its_life_and_for_a_day_at_most() {
        for (seconds, kept) in [(json!(10), 8), (json!(3_600), 3_540), (json!("3600"), 3_540), (json!(1e12), 86_340)] {
            let (_, until) = read_token(&json!({ "access_token": "T", "expires_in": seconds })).unwrap();
            assert_eq!(until, Some(Duration::from_secs(kept)), "{seconds}");
        }
        let (_, until) = read_token(&json!({ "access_token": "T" })).unwrap();
        assert_eq!(until, Some(Duration::from_secs(3_540)));
    }
}
