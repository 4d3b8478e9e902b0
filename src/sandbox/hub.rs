//! Hubs in front of the sources: NDXP, the province's LGSP, VDXP, and a second REST hub in the role of NDOP. Each has one token
//! endpoint and refuses calls without valid credentials.

use super::faults::{FaultKind, Faults};
use super::http::{HttpReply, HttpRequest, Site};
use super::sources::{RequiredCredential, Source};
use crate::hex::hex;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Maximum clock difference of a timestamp of the SOAP side.
const MAX_SKEW_MS: i64 = 300_000;

/// A hub's credentials for its callers.
#[derive(Debug, Clone)]
pub struct HubKeys {
    /// OAuth2 key.
    pub consumer_key: String,
    /// OAuth2 secret.
    pub consumer_secret: String,
    /// User of the SOAP side.
    pub soap_user: String,
    /// Its secret.
    pub soap_secret: String,
    /// Its API key.
    pub api_key: String,
    /// AccessKey and SecretKey of an LGSP; every call must carry them.
    pub lgsp: Option<(String, String)>,
    /// X-Road members that may call.
    pub xroad_clients: Vec<String>,
    /// Lifetime of a token.
    pub token_lifetime: Duration,
}

/// One hub.
pub struct Hub {
    id: String,
    keys: HubKeys,
    sources: Arc<Vec<Arc<dyn Source>>>,
    faults: Arc<Faults>,
    tokens: Mutex<HashMap<String, (Instant, u64)>>,
}

impl Hub {
    /// Makes a hub in front of these sources.
    pub fn new(id: &str, keys: HubKeys, sources: Arc<Vec<Arc<dyn Source>>>, faults: Arc<Faults>) -> Self {
        Hub { id: id.to_owned(), keys, sources, faults, tokens: Mutex::default() }
    }

    fn source(&self, ask: &HttpRequest) -> Option<&Arc<dyn Source>> {
        self.sources.iter().find(|source| source.takes(ask))
    }

    fn give_token(&self, ask: &HttpRequest) -> HttpReply {
        let basic = STANDARD.encode(format!("{}:{}", self.keys.consumer_key, self.keys.consumer_secret));
        if ask.header("authorization") != Some(&format!("Basic {basic}")) {
            return HttpReply { status: 401, ..HttpReply::json(&json!({ "error": "invalid_client" })) };
        }
        if ask.body.as_ref() != b"grant_type=client_credentials" {
            return HttpReply { status: 400, ..HttpReply::json(&json!({ "error": "unsupported_grant_type" })) };
        }
        let token = uuid::Uuid::new_v4().to_string();
        let entry = (Instant::now() + self.keys.token_lifetime, self.faults.epoch(&self.id));
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).insert(token.clone(), entry);
        HttpReply::json(&json!({
            "access_token": token, "scope": "am_application_scope default", "token_type": "Bearer",
            "expires_in": self.keys.token_lifetime.as_secs(),
        }))
    }

    fn bearer_holds(&self, ask: &HttpRequest) -> bool {
        let Some(token) = ask.header("authorization").and_then(|text| text.strip_prefix("Bearer ")) else {
            return false;
        };
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = self.faults.epoch(&self.id);
        tokens.get(token).is_some_and(|(until, made)| Instant::now() < *until && *made == epoch)
    }

    /// `Authorization: Basic base64(user ":" sha256hex(endpointPath + user + timestamp + secret))`.
    fn hashed_basic_holds(&self, ask: &HttpRequest) -> bool {
        let Some(timestamp) = ask.header("timestamp") else { return false };
        let now = jiff::Timestamp::now().as_millisecond();
        let fresh = timestamp.parse::<i64>().is_ok_and(|sent| (now - sent).abs() < MAX_SKEW_MS);
        let text = format!("{}{}{timestamp}{}", ask.path, self.keys.soap_user, self.keys.soap_secret);
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        let hex = hex(digest.as_ref());
        let basic = STANDARD.encode(format!("{}:{hex}", self.keys.soap_user));
        fresh
            && ask.header("authorization") == Some(&format!("Basic {basic}"))
            && ask.header("apikey") == Some(&self.keys.api_key)
            && ask.header("x-road-client").is_some_and(|client| self.keys.xroad_clients.iter().any(|one| one == client))
    }

    fn lgsp_holds(&self, ask: &HttpRequest) -> bool {
        let Some((access, secret)) = &self.keys.lgsp else { return true };
        let decoded = ask.header("lgspaccesstoken").and_then(|text| STANDARD.decode(text).ok());
        let keys = decoded.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
        keys.is_some_and(|keys| keys["AccessKey"] == *access && keys["SecretKey"] == *secret)
    }
}

impl Site for Hub {
    /// The source's own faults come before the hub's.
    fn fault_target(&self, ask: &HttpRequest) -> String {
        let source = self.source(ask).map(|source| source.id().to_owned());
        match source {
            Some(source) if self.faults.of(&source) != Default::default() => source,
            _ => self.id.clone(),
        }
    }

    fn respond(&self, ask: &HttpRequest) -> HttpReply {
        if self.faults.of(&self.fault_target(ask)).kind == FaultKind::CredentialsRefused || !self.lgsp_holds(ask) {
            return HttpReply::error(401, "invalid_credentials");
        }
        if ask.path == "/token" && ask.method == http::Method::POST {
            return self.give_token(ask);
        }
        let Some(source) = self.source(ask) else { return HttpReply::error(404, "no such resource") };
        let known = match source.required_credential() {
            RequiredCredential::Bearer => self.bearer_holds(ask),
            RequiredCredential::HashedBasic => self.hashed_basic_holds(ask),
            RequiredCredential::XRoad => return source.xroad(ask, &self.keys.xroad_clients),
        };
        if known { source.respond(ask) } else { HttpReply::error(401, "invalid_credentials") }
    }
}
