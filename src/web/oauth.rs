//! OAuth2: client credentials with mutual TLS (RFC 6749, section 4.4; RFC 8705, section 2.1), introspection (RFC 7662),
//! revocation (RFC 7009), metadata (RFC 8414) and keys.

use super::{Asked, Web, json, jwk};
use crate::access::token::Verified;
use crate::exchange_log::{Entry, Kind};
use crate::issuer::{IssueError, IssueRequest, Issuer, Signer};
use crate::registry::{ClientView, Snapshot, now};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::Full;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

type Answer = Response<Full<Bytes>>;

/// Scope of clients that may introspect tokens of others; no contract's.
pub const INTROSPECT: &str = "gateway:introspect";
/// How long public documents may be kept: a new key is announced this long before it can surprise anybody.
const CACHE: &str = "public, max-age=300";

/// The key that tokens are signed with, loaded once.
#[derive(Default)]
pub(super) struct CurrentSigner(ArcSwapOption<Signer>);

impl CurrentSigner {
    fn get(&self, issuer: &Issuer<'_>, registry: &Snapshot) -> Result<Arc<Signer>, IssueError> {
        let wanted = registry.signing().ok_or(IssueError::NoKey)?;
        if let Some(kept) = self.0.load_full()
            && kept.kid == wanted.kid
        {
            return Ok(kept);
        }
        let fresh = Arc::new(issuer.signer(wanted)?);
        self.0.store(Some(fresh.clone()));
        Ok(fresh)
    }
}

/// An error of RFC 6749, section 5.2.
struct Refused {
    error: &'static str,
    description: String,
}

fn refuse(error: &'static str, description: impl Into<String>) -> Refused {
    Refused { error, description: description.into() }
}

fn finished(result: Result<Value, Refused>) -> Answer {
    let Refused { error, description } = match result {
        Ok(body) => return json(StatusCode::OK, &body, "no-store"),
        Err(refused) => refused,
    };
    let status = match error {
        "invalid_client" => StatusCode::UNAUTHORIZED,
        "temporarily_unavailable" => StatusCode::SERVICE_UNAVAILABLE,
        "server_error" => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    };
    json(status, &json!({ "error": error, "error_description": description }), "no-store")
}

/// Parameters of a form; one that stands twice is an error (RFC 6749, section 3.2).
fn form(asked: &Asked) -> Result<HashMap<String, String>, Refused> {
    let kind = asked.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if !kind.starts_with("application/x-www-form-urlencoded") {
        return Err(refuse("invalid_request", "send application/x-www-form-urlencoded"));
    }
    let mut found = HashMap::new();
    for (name, value) in form_urlencoded::parse(&asked.body) {
        if found.insert(name.clone().into_owned(), value.into_owned()).is_some() {
            return Err(refuse("invalid_request", format!("{name} stands twice")));
        }
    }
    Ok(found)
}

impl Web {
    /// The client of the connection's certificate (`tls_client_auth`).
    fn client(&self, asked: &Asked, form: &HashMap<String, String>) -> Result<Arc<ClientView>, Refused> {
        let peer = asked.peer.as_ref().ok_or_else(|| refuse("invalid_client", "no client certificate"))?;
        let client = peer.identify(&self.registry.load());
        let client = client.map_err(|refusal| refuse("invalid_client", refusal.reason.english()))?;
        match form.get("client_id") {
            Some(id) if *id != client.client.id => Err(refuse("invalid_client", "client_id is another's")),
            _ => Ok(client),
        }
    }

    pub(super) async fn token(&self, asked: &Asked) -> Answer {
        let result = self.try_token(asked).await;
        // Who shows no certificate of the CA is anybody at all, and gets no entry.
        if let (Err(refused), Some(peer)) = (&result, &asked.peer) {
            let known = peer.identify(&self.registry.load()).ok();
            let entry = Entry {
                client: known.as_ref().map(|view| view.client.id.clone()).unwrap_or_default(),
                agency: known.map(|view| view.client.agency.clone()).unwrap_or_default(),
                certificate: peer.certificate.thumbprint.0.to_vec(),
                peer: peer.address.to_string(),
                act: "token.fetch".into(),
                status: tonic::Code::PermissionDenied as u32,
                reason: refused.error.to_ascii_uppercase(),
                ..Entry::begin(Kind::Admin, &self.config.node)
            };
            if self.log.append(&entry).await.is_err() {
                return finished(Err(refuse("temporarily_unavailable", "nothing leaves unlogged")));
            }
        }
        finished(result)
    }

    async fn try_token(&self, asked: &Asked) -> Result<Value, Refused> {
        let form = form(asked)?;
        let client = self.client(asked, &form)?;
        match form.get("grant_type").map(String::as_str) {
            Some("client_credentials") => {}
            Some(_) => return Err(refuse("unsupported_grant_type", "only client_credentials")),
            None => return Err(refuse("invalid_request", "grant_type is missing")),
        }
        let Some(peer) = &asked.peer else { return Err(refuse("invalid_client", "no client certificate")) };
        let scopes = form.get("scope").map(String::as_str).unwrap_or("");
        let request = IssueRequest {
            scopes: scopes.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect(),
            certificate: peer.certificate.thumbprint,
            lifetime: self.config.tokens.lifetime,
            starts_in: Duration::ZERO,
        };
        let issuer = Issuer::new(self.store.as_ref(), &self.config);
        let failed = |error: IssueError| match error {
            IssueError::NotGranted { .. } => refuse("invalid_scope", error.to_string()),
            IssueError::Suspended(_) => refuse("invalid_client", error.to_string()),
            other => {
                tracing::error!(error = %other, "no token could be issued");
                refuse("server_error", "the operator was told")
            }
        };
        let record = issuer.prepare(&client, request).map_err(failed)?;
        if record.scopes.is_empty() {
            return Err(refuse("invalid_scope", "this client has no grant in force"));
        }
        let signer = self.signer.get(&issuer, &self.registry.load()).map_err(failed)?;
        let token = issuer.sign(&signer, &record).map_err(|error| {
            // A module's session may be gone: the next request looks for the key anew.
            self.signer.0.store(None);
            failed(error)
        })?;
        let entry = self.entry(peer, &client, &record.id);
        let (scope, lifetime) = (record.scopes.join(" "), record.expires - record.issued);
        let (recorded, logged) = tokio::join!(self.recorder.record(record), self.log.append(&entry));
        if !recorded || logged.is_err() {
            return Err(refuse("temporarily_unavailable", "the token could not be recorded: nothing leaves unlogged"));
        }
        Ok(json!({ "access_token": token, "token_type": "Bearer", "expires_in": lifetime, "scope": scope }))
    }

    fn entry(&self, peer: &crate::identity::Peer, client: &ClientView, token: &str) -> Entry {
        Entry {
            client: client.client.id.clone(),
            agency: client.client.agency.clone(),
            certificate: peer.certificate.thumbprint.0.to_vec(),
            token: token.to_owned(),
            peer: peer.address.to_string(),
            actor: format!("client:{}", client.client.id),
            act: "token.fetch".into(),
            object: format!("token:{token}"),
            ..Entry::begin(Kind::Admin, &self.config.node)
        }
    }

    /// The token that a request is about, where it is one of ours.
    fn about(&self, form: &HashMap<String, String>) -> Result<Option<Verified>, Refused> {
        let token = form.get("token").ok_or_else(|| refuse("invalid_request", "token is missing"))?;
        Ok(self.tokens.verify(token, &self.registry.load(), now()).ok())
    }

    pub(super) fn introspect(&self, asked: &Asked) -> Answer {
        let told = || -> Result<Value, Refused> {
            let form = form(asked)?;
            let caller = self.client(asked, &form)?;
            let registry = self.registry.load();
            let inactive = json!({ "active": false });
            let Some(token) = self.about(&form)? else { return Ok(inactive) };
            let others = caller
                .grants
                .iter()
                .any(|grant| grant.in_force(now()) && grant.scopes.iter().any(|scope| scope == INTROSPECT));
            // A token of another tells nothing to who may not ask (RFC 7662, section 2.2).
            let mine = token.client == caller.client.id;
            let told = (mine || others) && self.tokens.in_force(&token, &registry, now());
            Ok(if told { self.tokens.describe(&token) } else { inactive })
        };
        finished(told())
    }

    pub(super) fn revoke(&self, asked: &Asked) -> Answer {
        let told = || -> Result<Value, Refused> {
            let form = form(asked)?;
            let caller = self.client(asked, &form)?;
            // An unknown token is as good as revoked (RFC 7009, section 2.2); another's is not the caller's to revoke.
            if let Some(token) = self.about(&form)?.filter(|token| token.client == caller.client.id) {
                let Some(peer) = &asked.peer else { return Err(refuse("invalid_client", "no client certificate")) };
                let store = self.store.named(peer.client(&caller.client.id), "");
                match store.and_then(|store| store.revoke_token(&token.id)) {
                    Ok(()) | Err(crate::registry::RegistryError::Unknown(..)) => {}
                    Err(error) => {
                        tracing::error!(%error, "a token could not be revoked");
                        return Err(refuse("temporarily_unavailable", "try again"));
                    }
                }
            }
            Ok(json!({}))
        };
        finished(told())
    }

    pub(super) fn metadata(&self) -> Answer {
        let issuer = &self.config.tokens.issuer;
        let body = json!({
            "issuer": issuer,
            "token_endpoint": format!("{issuer}/oauth2/token"),
            "introspection_endpoint": format!("{issuer}/oauth2/introspect"),
            "revocation_endpoint": format!("{issuer}/oauth2/revoke"),
            "jwks_uri": format!("{issuer}/oauth2/jwks.json"),
            "grant_types_supported": ["client_credentials"],
            "response_types_supported": [],
            "token_endpoint_auth_methods_supported": ["tls_client_auth"],
            "introspection_endpoint_auth_methods_supported": ["tls_client_auth"],
            "revocation_endpoint_auth_methods_supported": ["tls_client_auth"],
            "tls_client_certificate_bound_access_tokens": true,
        });
        json(StatusCode::OK, &body, CACHE)
    }

    pub(super) fn jwks(&self) -> Answer {
        let keys: Vec<Value> = self.registry.load().public_keys(now()).filter_map(jwk::jwk).collect();
        json(StatusCode::OK, &json!({ "keys": keys }), CACHE)
    }
}
