//! NDXP's SOAP side: `Authorization: Basic base64(user ":" sha256hex(endpointPath + user + timestamp + secret))`, with
//! `Timestamp` (Unix ms), `X-Road-OAuth2Client` and `ApiKey` beside it (../shared/sources.md, "How one gets in").

use super::{Secret, sensitive};
use crate::drivers::SourceError;
use crate::drivers::http::HttpEndpoint;
use crate::hex::hex;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, header};

/// User, secret, and the requesting client.
#[derive(Debug)]
pub struct HashedBasic {
    /// User.
    pub user: String,
    /// Secret.
    pub secret: Secret,
    /// `X-Road-OAuth2Client`.
    pub xroad_client: String,
    /// `ApiKey`.
    pub api_key: Secret,
}

impl HashedBasic {
    /// Adds the headers for a request to `path`.
    ///
    /// # Errors
    /// The gateway's ([`SourceError::Gateway`]) if a setting is not valid in a header.
    pub fn headers(&self, endpoint: &HttpEndpoint, path: &str, headers: &mut HeaderMap) -> Result<(), SourceError> {
        let timestamp = jiff::Timestamp::now().as_millisecond().to_string();
        let whole = format!("{}{path}", endpoint.base_path());
        let basic = STANDARD.encode(format!("{}:{}", self.user, self.digest(&whole, &timestamp)));
        headers.insert(header::AUTHORIZATION, sensitive(&format!("Basic {basic}"))?);
        let plain = |text: &str| {
            HeaderValue::from_str(text).map_err(|_| SourceError::internal("a setting is not valid in a header"))
        };
        headers.insert(HeaderName::from_static("timestamp"), plain(&timestamp)?);
        headers.insert(HeaderName::from_static("x-road-client"), plain(&self.xroad_client)?);
        headers.insert(HeaderName::from_static("apikey"), sensitive(self.api_key.reveal())?);
        Ok(())
    }

    fn digest(&self, path: &str, timestamp: &str) -> String {
        let text = format!("{path}{}{timestamp}{}", self.user, self.secret.reveal());
        hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes()).as_ref())
    }
}
