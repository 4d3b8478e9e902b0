//! OAuth2: client credentials with mutual TLS (RFC 6749, section 4.4; RFC 8705, section 2.1), introspection (RFC 7662),
//! revocation (RFC 7009), metadata (RFC 8414) and keys.

use super::rates::Rates;
use super::{Web, WebRequest, WebResponse, json, jwk};
use crate::access::refusals::{self as access_refusals, Identity};
use crate::access::token::VerifiedToken;
use crate::config::Tokens;
use crate::exchange_log::{Entry, Kind, entry};
use crate::issuer::{IssueError, IssueRequest, Issuer, Signer};
use crate::registry::admin_event::canonical_json;
use crate::registry::{ClientView, SigningKey, TokenRecord, now};
use crate::status::{Reason, Refusal};
use crate::telemetry::OAuthMetrics;
use crate::work::{WorkLimits, WorkPool};
use arc_swap::ArcSwapOption;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, StatusCode, header};
use mime::Mime;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The challenge of a 401: the certificate of the connection identifies the client. There is no registered scheme for that.
pub(super) const CERTIFICATE_CHALLENGE: &str = "ClientCertificate realm=\"ndxp-gateway\"";

/// How long a revocation waits until this port has loaded the registry's change.
const FOLLOWED_WITHIN: std::time::Duration = std::time::Duration::from_secs(2);
/// Scope of clients that may introspect tokens of others; it belongs to no contract.
pub const INTROSPECT: &str = "gateway:introspect";
/// How long the metadata may be cached.
const CACHE: &str = "public, max-age=300";

/// The loaded signing key of tokens. Cheap to clone.
#[derive(Default, Clone)]
pub(super) struct CurrentSigner(Arc<ArcSwapOption<Signer>>);

impl CurrentSigner {
    /// Returns the signer of this key, if it is loaded.
    fn kept(&self, wanted: &SigningKey) -> Option<Arc<Signer>> {
        self.0.load_full().filter(|kept| kept.kid == wanted.kid)
    }

    fn load(&self, issuer: &Issuer<'_>, wanted: &SigningKey) -> Result<Arc<Signer>, IssueError> {
        if let Some(kept) = self.kept(wanted) {
            return Ok(kept);
        }
        let fresh = Arc::new(issuer.signer(wanted)?);
        self.0.store(Some(fresh.clone()));
        Ok(fresh)
    }
}

/// Blocking work in flight: loading signing keys, keys in a module, and revocations.
const WORK: WorkLimits = WorkLimits { running: 4, all: 256, each: 16, rate: None };

/// The limits of the endpoints.
pub(super) struct OAuthLimits {
    fetches: Rates,
    questions: Rates,
    work: WorkPool,
    metrics: OAuthMetrics,
}

impl OAuthLimits {
    pub(super) fn new(tokens: &Tokens, metrics: OAuthMetrics) -> Self {
        OAuthLimits {
            fetches: Rates::new(tokens.fetches),
            questions: Rates::new(tokens.questions),
            work: WorkPool::new(WORK, metrics.work.clone()),
            metrics,
        }
    }
}

/// Converts the reason that no token was issued to OAuth2's errors.
fn not_issued(error: IssueError) -> OAuthError {
    match error {
        IssueError::NotGranted { .. } | IssueError::NoScopeInForce { .. } | IssueError::TooLarge { .. } => {
            refuse("invalid_scope", error.to_string())
        }
        IssueError::Suspended(_) | IssueError::Retired(_) => refuse("invalid_client", error.to_string()),
        other => {
            tracing::error!(error = %other, "no token could be issued");
            refuse("server_error", "the operator was notified")
        }
    }
}

/// Too much work is in flight, or it failed.
fn busy(refusal: Refusal) -> OAuthError {
    match refusal.reason {
        Reason::AdministrationBusy => too_often(Duration::from_secs(1)),
        _ => refuse("temporarily_unavailable", "try again"),
    }
}

/// An error of RFC 6749, section 5.2.
struct OAuthError {
    error: &'static str,
    description: String,
    /// The reason in the log, if it differs from the error's own.
    reason: Option<Reason>,
    /// Set if the client exceeds its rate: HTTP 429 (RFC 6585, section 4) with `Retry-After`.
    wait: Option<Duration>,
}

fn refuse(error: &'static str, description: impl Into<String>) -> OAuthError {
    OAuthError { error, description: description.into(), reason: None, wait: None }
}

/// Refuses a client that exceeds its rate, with the time to wait.
fn too_often(wait: Duration) -> OAuthError {
    OAuthError {
        wait: Some(wait),
        reason: Some(Reason::RateLimited),
        ..refuse("temporarily_unavailable", "too many requests: wait as Retry-After says")
    }
}

impl OAuthError {
    /// Returns the reason in the table of statuses, which has every refusal of the gateway.
    fn reason(&self) -> Reason {
        self.reason.unwrap_or(match self.error {
            "invalid_client" => Reason::ClientUnknown,
            "invalid_scope" => Reason::ScopeNotGranted,
            "unauthorized_client" => Reason::TokenNotBound,
            "unsupported_grant_type" => Reason::GrantTypeUnsupported,
            "temporarily_unavailable" | "server_error" => Reason::RegistryUnavailable,
            _ => Reason::RequestMalformed,
        })
    }
}

/// Returns a description in the permitted character set: printable ASCII without quotation marks and backslashes (RFC
/// 6749, section 5.2).
fn in_charset(description: &str) -> String {
    let fit = |c| match c {
        '"' | '`' => '\'',
        '\\' => '/',
        ' '..='~' => c,
        _ => '?',
    };
    description.chars().map(fit).collect()
}

/// Returns the response to a request, or its error. A client that sends a password gets the matching challenge; every
/// other client gets the challenge that HTTP requires with a 401 (RFC 9110, section 11.6.1), which states how to
/// authenticate here: by the certificate of the connection.
fn finished(request: &WebRequest, result: Result<Value, OAuthError>) -> WebResponse {
    let OAuthError { error, description, wait, .. } = match result {
        Ok(body) => return json(StatusCode::OK, &body, "no-store"),
        Err(refused) => refused,
    };
    let status = match error {
        _ if wait.is_some() => StatusCode::TOO_MANY_REQUESTS,
        "invalid_client" => StatusCode::UNAUTHORIZED,
        "temporarily_unavailable" => StatusCode::SERVICE_UNAVAILABLE,
        "server_error" => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    };
    let mut answer =
        json(status, &json!({ "error": error, "error_description": in_charset(&description) }), "no-store");
    if let Some(wait) = wait {
        // Whole seconds, rounded up.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        answer.headers_mut().insert(header::RETRY_AFTER, seconds.max(1).into());
    }
    if status == StatusCode::UNAUTHORIZED {
        let basic = request.headers.get(header::AUTHORIZATION).is_some_and(|value| scheme(value) == "basic");
        let challenge = if basic { "Basic realm=\"ndxp-gateway\"" } else { CERTIFICATE_CHALLENGE };
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    answer
}

/// The scheme of an `Authorization` header, in lower case.
fn scheme(value: &HeaderValue) -> String {
    let text = value.to_str().unwrap_or("");
    text.split(' ').next().unwrap_or("").to_ascii_lowercase()
}

/// Returns the client id of an `Authorization` header (RFC 6749, section 2.3.1); the password is ignored, since the
/// certificate authenticates the client. `None` if the header has no Basic credentials.
fn basic_id(value: &HeaderValue) -> Option<String> {
    let (_, encoded) = value.to_str().ok().filter(|_| scheme(value) == "basic")?.split_once(' ')?;
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, _) = decoded.split_once(':')?;
    // The id is form-encoded before it is Base64.
    form_urlencoded::parse(id.as_bytes()).next().map(|(id, _)| id.into_owned())
}

/// Reads the parameters of a form; a repeated one is an error, and one without a value counts as missing (RFC 6749,
/// section 3.2).
fn form(request: &WebRequest) -> Result<HashMap<String, String>, OAuthError> {
    let mut kinds = request.headers.get_all(header::CONTENT_TYPE).iter();
    let kind: Option<Mime> = kinds.next().and_then(|value| value.to_str().ok()?.parse().ok());
    let fits = |kind: &Mime| {
        kind.type_() == mime::APPLICATION && kind.subtype() == mime::WWW_FORM_URLENCODED && kind.suffix().is_none()
    };
    if !kind.as_ref().is_some_and(fits) || kinds.next().is_some() {
        return Err(refuse("invalid_request", "send application/x-www-form-urlencoded"));
    }
    let mut found = HashMap::new();
    for (name, value) in form_urlencoded::parse(&request.body) {
        if found.insert(name.clone().into_owned(), value.into_owned()).is_some() {
            return Err(refuse("invalid_request", format!("{name} occurs twice")));
        }
    }
    found.retain(|_, value| !value.is_empty());
    Ok(found)
}

impl Web {
    /// The client of the connection's certificate (`tls_client_auth`).
    fn client(&self, request: &WebRequest, form: &HashMap<String, String>) -> Result<Arc<ClientView>, OAuthError> {
        let peer = request.peer.as_ref().ok_or_else(|| refuse("invalid_client", "no client certificate"))?;
        let client = peer.identify(&self.registry.load());
        let client = client.map_err(|refusal| OAuthError {
            reason: Some(refusal.reason),
            ..refuse("invalid_client", refusal.reason.english())
        })?;
        let another = |what: &str| OAuthError {
            reason: Some(Reason::TokenNotBound),
            ..refuse("invalid_client", format!("{what} of another client than the certificate's"))
        };
        if form.get("client_id").is_some_and(|id| *id != client.client.id) {
            return Err(another("client_id"));
        }
        let mut said = request.headers.get_all(header::AUTHORIZATION).iter();
        match said.next().map(basic_id) {
            None => {}
            Some(Some(id)) if id == client.client.id && said.next().is_none() => {}
            Some(Some(_)) => return Err(another("credentials")),
            Some(None) => return Err(refuse("invalid_client", "authenticate by the certificate of the connection")),
        }
        Ok(client)
    }

    pub(super) async fn token(&self, request: &WebRequest) -> WebResponse {
        let result = self.try_token(request).await;
        // A client without a certificate of the CA is unknown, and gets no entry.
        let (Err(refused), Some(peer)) = (&result, &request.peer) else { return finished(request, result) };
        let known = peer.identify(&self.registry.load()).ok();
        let by = match &known {
            Some(view) => Identity::Client(view.client.id.as_str().into()),
            None => Identity::Certificate(peer.certificate.thumbprint),
        };
        let entry = Entry {
            client: known.as_ref().map(|view| view.client.id.clone()).unwrap_or_default(),
            agency: known.map(|view| view.client.agency.clone()).unwrap_or_default(),
            certificate: peer.certificate.thumbprint.0.to_vec(),
            peer: peer.address.to_string(),
            event: "token.fetch".into(),
            status: refused.reason().code() as u32,
            reason: refused.reason().as_str().to_owned(),
            ..Entry::begin(Kind::Admin, &self.config.node)
        };
        // A refusal discloses nothing: its entries are rate-limited, and the next one counts the omitted ones.
        if self.refusals.note(access_refusals::RefusalKind::Token, by, entry).await.is_err() {
            return finished(request, Err(refuse("temporarily_unavailable", "nothing leaves unlogged")));
        }
        finished(request, result)
    }

    /// Takes one request from a client's bucket; all unregistered clients share one.
    fn in_time(&self, rates: &Rates, endpoint: &'static str, client: &str) -> Result<(), OAuthError> {
        rates.take(client, Instant::now()).map_err(|wait| {
            self.limits.metrics.limited(endpoint);
            too_often(wait)
        })
    }

    /// Returns a client within its rate.
    fn client_in_time(
        &self,
        rates: &Rates,
        endpoint: &'static str,
        request: &WebRequest,
        form: &HashMap<String, String>,
    ) -> Result<Arc<ClientView>, OAuthError> {
        let client = self.client(request, form);
        self.in_time(rates, endpoint, client.as_ref().map(|view| view.client.id.as_str()).unwrap_or_default())?;
        client
    }

    async fn try_token(&self, request: &WebRequest) -> Result<Value, OAuthError> {
        let form = form(request)?;
        let client = self.client_in_time(&self.limits.fetches, "token", request, &form)?;
        match form.get("grant_type").map(String::as_str) {
            Some("client_credentials") => {}
            Some(_) => return Err(refuse("unsupported_grant_type", "only client_credentials")),
            None => return Err(refuse("invalid_request", "grant_type is missing")),
        }
        let Some(peer) = &request.peer else { return Err(refuse("invalid_client", "no client certificate")) };
        let scopes = form.get("scope").map(String::as_str).unwrap_or("");
        let request = IssueRequest {
            scopes: scopes.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect(),
            certificate: peer.certificate.thumbprint,
            lifetime: self.config.tokens.lifetime,
            starts_in: Duration::ZERO,
        };
        let record = self.prepare(&client, request).await?;
        let (token, record) = self.sign(record).await?;
        let entry = self.entry(peer, &client, &record);
        let (scope, lifetime) = (record.scopes.join(" "), record.expires - record.issued);
        let (recorded, logged) = tokio::join!(self.recorder.record(record), self.log.append(&entry));
        if !recorded || logged.is_err() {
            return Err(refuse("temporarily_unavailable", "the token could not be recorded: nothing leaves unlogged"));
        }
        Ok(json!({ "access_token": token, "token_type": "Bearer", "expires_in": lifetime, "scope": scope }))
    }

    /// Prepares the token's record. The explanation why nothing is granted is looked up off this thread.
    async fn prepare(&self, client: &Arc<ClientView>, request: IssueRequest) -> Result<TokenRecord, OAuthError> {
        let now = now();
        let granted = |scope: &String| client.granted(scope).any(|grant| grant.in_force(now));
        let any = client.grants.iter().any(|grant| grant.in_force(now) && !grant.scopes.is_empty());
        if any && request.scopes.iter().all(granted) {
            return Issuer::new(self.store.as_ref(), self.config.issuer_settings())
                .prepare(client, request)
                .map_err(not_issued);
        }
        let (store, config, client) = (self.store.clone(), self.config.clone(), client.clone());
        let owner = client.client.id.clone();
        let work = move || {
            let issuer = Issuer::new(store.as_ref(), config.issuer_settings());
            let record = issuer.prepare(&client, request)?;
            if record.scopes.is_empty() {
                let client = client.client.id.clone();
                return Err(IssueError::NoScopeInForce { why: issuer.why_not(&client, None), client });
            }
            Ok(record)
        };
        self.limits.work.run(&owner, work).await.map_err(busy)?.map_err(not_issued)
    }

    /// Signs a prepared record. A key that is not loaded yet, or is in a module, is used off this thread.
    async fn sign(&self, record: TokenRecord) -> Result<(String, TokenRecord), OAuthError> {
        let wanted = self.registry.load().signing(now()).cloned().ok_or_else(|| not_issued(IssueError::NoKey))?;
        if let Some(signer) = self.signer.kept(&wanted).filter(|signer| signer.is_local()) {
            let issuer = Issuer::new(self.store.as_ref(), self.config.issuer_settings());
            return issuer.sign(&signer, &record).map(|token| (token, record)).map_err(not_issued);
        }
        let (store, config, signers) = (self.store.clone(), self.config.clone(), self.signer.clone());
        let owner = record.client.clone();
        let work = move || {
            let issuer = Issuer::new(store.as_ref(), config.issuer_settings());
            let signer = signers.load(&issuer, &wanted)?;
            let token = issuer.sign(&signer, &record).inspect_err(|_| {
                // A module's session may be lost: the next request loads the key again.
                signers.0.store(None);
            })?;
            Ok((token, record))
        };
        self.limits.work.run(&owner, work).await.map_err(busy)?.map_err(not_issued)
    }

    /// Returns the entry of a token that a client fetched: it has all its claims, like that of a token that an
    /// administrator issued.
    fn entry(&self, peer: &crate::identity::Peer, client: &ClientView, record: &TokenRecord) -> Entry {
        let (token, object) = (record.id.as_str(), format!("token:{}", record.id));
        let after = serde_json::to_value(record).map(|record| canonical_json(&record)).unwrap_or_default();
        let changes = vec![entry::Change { object: object.clone(), before: "null".into(), after }];
        Entry {
            client: client.client.id.clone(),
            agency: client.client.agency.clone(),
            certificate: peer.certificate.thumbprint.0.to_vec(),
            token: token.to_owned(),
            peer: peer.address.to_string(),
            actor: format!("client:{}", client.client.id),
            event: "token.fetch".into(),
            object,
            changes,
            ..Entry::begin(Kind::Admin, &self.config.node)
        }
    }

    /// Returns the token of a request, if this gateway issued it.
    fn about(&self, form: &HashMap<String, String>) -> Result<Option<VerifiedToken>, OAuthError> {
        let token = form.get("token").ok_or_else(|| refuse("invalid_request", "token is missing"))?;
        Ok(self.tokens.verify(token, &self.registry.load(), now()).ok())
    }

    pub(super) fn introspect(&self, request: &WebRequest) -> WebResponse {
        let introspected = || -> Result<Value, OAuthError> {
            let form = form(request)?;
            let caller = self.client_in_time(&self.limits.questions, "introspect", request, &form)?;
            let registry = self.registry.load();
            let inactive = json!({ "active": false });
            let Some(token) = self.about(&form)? else { return Ok(inactive) };
            let others = caller
                .grants
                .iter()
                .any(|grant| grant.in_force(now()) && grant.scopes.iter().any(|scope| scope == INTROSPECT));
            // Another client's token discloses nothing to a client without the right to introspect it (RFC 7662,
            // section 2.2).
            let mine = token.client == caller.client.id;
            let scopes = match mine || others {
                true => self.tokens.scopes_in_force(&token, &registry, now()),
                false => Vec::new(),
            };
            Ok(if scopes.is_empty() { inactive } else { self.tokens.describe(&token, &scopes) })
        };
        finished(request, introspected())
    }

    pub(super) async fn revoke(&self, request: &WebRequest) -> WebResponse {
        finished(request, self.try_revoke(request).await)
    }

    async fn try_revoke(&self, request: &WebRequest) -> Result<Value, OAuthError> {
        let form = form(request)?;
        let caller = self.client_in_time(&self.limits.questions, "revoke", request, &form)?;
        // An unknown token counts as revoked (RFC 7009, section 2.2); the newest state decides whether it is unknown.
        let token = match self.about(&form)? {
            Some(token) => Some(token),
            None => {
                self.must_follow(&caller.client.id).await?;
                self.about(&form)?
            }
        };
        if let Some(token) = token {
            // A client may not revoke another client's token; the token stays valid, and the response says so (section
            // 2.1).
            if token.client != caller.client.id {
                return Err(refuse("unauthorized_client", "the token was issued to another client"));
            }
            let id = caller.client.id.clone();
            let Some(peer) = &request.peer else { return Err(refuse("invalid_client", "no client certificate")) };
            let store = self.store.named(peer.client(&id), "");
            let revoke = move || store.and_then(|store| store.revoke_shown_token(&token.record()));
            match self.limits.work.run(&id, revoke).await.map_err(busy)? {
                Ok(()) => {}
                Err(error) => {
                    tracing::error!(%error, "a token could not be revoked");
                    return Err(refuse("temporarily_unavailable", "try again"));
                }
            }
        }
        Ok(json!({}))
    }

    /// Waits until this port has loaded the registry's state at the time of the request: a key of a moment ago, for
    /// example.
    async fn must_follow(&self, client: &str) -> Result<(), OAuthError> {
        let store = self.store.named(crate::registry::Actor::System, "");
        let revision = self.limits.work.run(client, move || store.and_then(|store| store.revision()));
        let revision = revision.await.map_err(busy)?.map_err(|error| {
            tracing::error!(%error, "nobody can tell whether a token is known");
            refuse("temporarily_unavailable", "try again")
        })?;
        let end = tokio::time::Instant::now() + FOLLOWED_WITHIN;
        while self.registry.load().revision() < revision {
            if tokio::time::Instant::now() > end {
                return Err(refuse("temporarily_unavailable", "try again"));
            }
            tokio::time::sleep(FOLLOWED_WITHIN / 20).await;
        }
        Ok(())
    }

    pub(super) fn metadata(&self) -> WebResponse {
        let issuer = &self.config.tokens.issuer;
        let body = json!({
            "issuer": issuer,
            "token_endpoint": format!("{issuer}/oauth2/token"),
            "introspection_endpoint": format!("{issuer}/oauth2/introspect"),
            "revocation_endpoint": format!("{issuer}/oauth2/revoke"),
            "jwks_uri": format!("{issuer}/oauth2/jwks.json"),
            "grant_types_supported": ["client_credentials"],
            "token_endpoint_auth_methods_supported": ["tls_client_auth"],
            "introspection_endpoint_auth_methods_supported": ["tls_client_auth"],
            "revocation_endpoint_auth_methods_supported": ["tls_client_auth"],
            "tls_client_certificate_bound_access_tokens": true,
        });
        json(StatusCode::OK, &body, CACHE)
    }

    pub(super) fn jwks(&self) -> WebResponse {
        let keys: Vec<Value> = self.registry.load().public_keys(now()).filter_map(jwk::jwk).collect();
        let mut answer = json(StatusCode::OK, &json!({ "keys": keys }), CACHE);
        // A new key signs only when no cached copy without it can be in use any more (`Issuer::rotate_key`).
        let seconds = self.config.tokens.jwks_max_age.as_secs();
        if let Ok(cache) = HeaderValue::from_str(&format!("public, max-age={seconds}")) {
            answer.headers_mut().insert(header::CACHE_CONTROL, cache);
        }
        answer
    }
}
