//! OAuth2 client credentials (RFC 6749, section 4.4) as NDXP's token endpoint has them: one token for all sources of a
//! hub, renewed ahead of its expiry, and once after a refusal.

use super::kept::Kept;
use super::{Secret, sensitive};
use crate::drivers::SourceError;
use crate::drivers::http::{HttpEndpoint, status_error};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// Lifetime where the endpoint does not say.
const DEFAULT_LIFETIME: u64 = 3_600;
/// A token is renewed when this share of its life is left, at most a minute.
const RENEW_AHEAD: u32 = 5;

/// Keys of a city's LGSP that stands in front of the hub.
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

/// The credentials of one hub, with the token that is kept.
#[derive(Debug)]
pub struct OAuth2 {
    client: Arc<Client>,
    kept: Kept,
}

/// Who we are at the token endpoint, and where that is.
#[derive(Debug)]
struct Client {
    token_path: String,
    key: String,
    secret: Secret,
    lgsp: Option<Lgsp>,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    expires_in: Option<u64>,
}

impl OAuth2 {
    /// Credentials for the token endpoint at `token_path` of the hub's address.
    pub fn new(token_path: String, key: String, secret: Secret, lgsp: Option<Lgsp>) -> Self {
        OAuth2 { client: Arc::new(Client { token_path, key, secret, lgsp }), kept: Kept::default() }
    }

    /// A token that is good for a while yet, and its epoch.
    pub async fn token(&self, endpoint: &HttpEndpoint) -> Result<(Secret, u64), SourceError> {
        let fetch = || {
            let (client, endpoint) = (self.client.clone(), endpoint.clone());
            async move { client.fetch(&endpoint).await }
        };
        self.kept.get(endpoint.base(), fetch).await
    }

    /// Forgets the token of this epoch; a newer one stays.
    pub fn drop_token(&self, epoch: u64) {
        self.kept.forget(epoch);
    }

    /// The LGSP header, where one stands in front.
    pub fn lgsp_header(&self, headers: &mut HeaderMap) -> Result<(), SourceError> {
        self.client.lgsp_header(headers)
    }
}

impl Client {
    fn lgsp_header(&self, headers: &mut HeaderMap) -> Result<(), SourceError> {
        if let Some(lgsp) = &self.lgsp {
            headers.insert(HeaderName::from_static("lgspaccesstoken"), lgsp.header()?);
        }
        Ok(())
    }

    /// A token, and for how long it is kept.
    async fn fetch(&self, endpoint: &HttpEndpoint) -> Result<(Secret, Option<Duration>), SourceError> {
        let mut headers = HeaderMap::new();
        let basic = STANDARD.encode(format!("{}:{}", self.key, self.secret.reveal()));
        headers.insert(header::AUTHORIZATION, sensitive(&format!("Basic {basic}"))?);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        self.lgsp_header(&mut headers)?;
        let body = Bytes::from_static(b"grant_type=client_credentials");
        let answer = endpoint.send(Method::POST, &self.token_path, headers, body).await?;
        match status_error(answer.status, &answer.headers) {
            // invalid_client is 401 or 400 (RFC 6749, section 5.2).
            Some(SourceError::Rejected(code)) => return Err(SourceError::CredentialsRefused(code)),
            Some(error) => return Err(error),
            None => {}
        }
        let answer: Answer = serde_json::from_slice(&answer.body)
            .map_err(|_| SourceError::Protocol("the token endpoint's answer has no access_token".into()))?;
        let lifetime = Duration::from_secs(answer.expires_in.unwrap_or(DEFAULT_LIFETIME).min(86_400));
        let ahead = (lifetime / RENEW_AHEAD).min(Duration::from_secs(60));
        Ok((Secret::new(answer.access_token), Some(lifetime - ahead)))
    }
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
