//! Access tokens: checked as RFC 8725 advises, bound to the connection's certificate (RFC 8705), cached when verified.

use crate::identity::Peer;
use crate::issuer::{Claims, MAX_LIFETIME, MAX_TOKEN};
use crate::registry::lists::Lists;
use crate::registry::{ClientView, Snapshot, TokenRecord};
use crate::status::{Reason, Refusal};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use foldhash::quality::RandomState;
use jsonwebtoken::Validation;
use jsonwebtoken::errors::ErrorKind;
use quick_cache::Weighter;
use serde::Deserialize;
use std::sync::{Arc, Mutex, PoisonError};

/// Cached verified tokens, about: one for each client of a province, many times over.
const MAX_CACHED: usize = 100_000;
/// Memory for them in bytes: 100,000 of usual size. A token may be ten times as long, and a client may have many.
const MAX_CACHED_BYTES: u64 = 128 << 20;
/// The size of a cached token in addition to its text, in bytes.
const BESIDE: u64 = 512;

/// Verified tokens by their text, bounded by their size.
type TokenCache = quick_cache::sync::Cache<String, Arc<VerifiedToken>, TokenWeighter, RandomState>;

/// Weighs tokens in bytes.
#[derive(Debug, Clone)]
struct TokenWeighter;

impl Weighter<String, Arc<VerifiedToken>> for TokenWeighter {
    fn weight(&self, token: &String, _: &Arc<VerifiedToken>) -> u64 {
        token.len() as u64 + BESIDE
    }
}

fn token_cache(bytes: u64) -> TokenCache {
    quick_cache::sync::Cache::with(MAX_CACHED, bytes, TokenWeighter, RandomState::default(), Default::default())
}

/// A token with a verified signature and form. Each call checks what changes with time.
#[derive(Debug)]
pub struct VerifiedToken {
    /// `jti`.
    pub id: String,
    /// `client_id`.
    pub client: String,
    /// Scopes.
    pub scopes: Arc<[String]>,
    kid: String,
    x5t: String,
    issued: i64,
    not_before: i64,
    expires: i64,
}

impl VerifiedToken {
    /// Returns its claims, as a record of the registry.
    pub fn record(&self) -> TokenRecord {
        TokenRecord {
            id: self.id.clone(),
            client: self.client.clone(),
            scopes: self.scopes.to_vec(),
            certificate: self.x5t.clone(),
            issued: self.issued,
            starts: self.not_before,
            expires: self.expires,
            revoked: false,
        }
    }
}

/// The header of a token. Anything that could name another key is refused (RFC 8725, section 3.10).
#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: Option<String>,
    kid: Option<String>,
    crit: Option<serde_json::Value>,
    jku: Option<serde_json::Value>,
    jwk: Option<serde_json::Value>,
    x5u: Option<serde_json::Value>,
    x5c: Option<serde_json::Value>,
}

/// Checks tokens.
pub struct TokenChecker {
    issuer: String,
    audience: String,
    /// Tolerated clock skew, in seconds.
    leeway: i64,
    kept: TokenCache,
    /// Scopes of tokens: few different lists.
    scopes: Mutex<Lists>,
}

impl TokenChecker {
    /// Makes a checker for tokens of this issuer and audience.
    pub fn new(issuer: &str, audience: &str, leeway_s: u32) -> Self {
        TokenChecker {
            issuer: issuer.into(),
            audience: audience.into(),
            leeway: i64::from(leeway_s),
            kept: token_cache(MAX_CACHED_BYTES),
            scopes: Mutex::default(),
        }
    }

    /// Returns the token of a call: verified, in force, and bound to this peer.
    ///
    /// # Errors
    /// TOKEN_MISSING or TOKEN_MALFORMED for the header; otherwise as for [`Self::verify`] and [`Self::check_now`].
    pub fn authenticate(
        &self,
        headers: &http::HeaderMap,
        peer: &Peer,
        client: &ClientView,
        registry: &Snapshot,
        now: i64,
    ) -> Result<Arc<VerifiedToken>, Refusal> {
        let token = bearer(headers)?;
        let verified = match self.kept.get(token) {
            Some(kept) => kept,
            None => {
                let fresh = Arc::new(self.verify(token, registry, now)?);
                self.kept.insert(token.to_owned(), fresh.clone());
                fresh
            }
        };
        self.check_now(&verified, peer, client, registry, now)?;
        Ok(verified)
    }

    /// Checks what changes with time in a verified token: its key, its dates, its binding, its revocation.
    ///
    /// # Errors
    /// TOKEN_INVALID, TOKEN_EXPIRED, TOKEN_NOT_YET_VALID, TOKEN_NOT_BOUND_TO_CERTIFICATE or TOKEN_REVOKED.
    pub fn check_now(
        &self,
        token: &VerifiedToken,
        peer: &Peer,
        client: &ClientView,
        registry: &Snapshot,
        now: i64,
    ) -> Result<(), Refusal> {
        self.check_dates(token, registry, now)?;
        // Another client's token is refused as such before anything else about it is checked.
        if token.x5t != peer.certificate.x5t || token.client != client.client.id {
            return Err(Reason::TokenNotBound.into());
        }
        if registry.is_revoked(&token.id, token.issued, &client.client) {
            return Err(Reason::TokenRevoked.into());
        }
        Ok(())
    }

    fn check_dates(&self, token: &VerifiedToken, registry: &Snapshot, now: i64) -> Result<(), Reason> {
        if registry.key(&token.kid, now).is_none() {
            return Err(Reason::TokenInvalid);
        }
        if self.seconds_remaining(token, now) <= 0 {
            return Err(Reason::TokenExpired);
        }
        if now < token.not_before.max(token.issued).saturating_sub(self.leeway) {
            return Err(Reason::TokenNotYetValid);
        }
        Ok(())
    }

    /// Returns the scopes of a verified token that would be accepted now, from its owner on its own connection: those
    /// that a grant in force has. None: it allows nothing.
    pub fn scopes_in_force<'t>(&self, token: &'t VerifiedToken, registry: &Snapshot, now: i64) -> Vec<&'t str> {
        let owner = registry.client(&token.client).filter(|owner| !owner.client.suspended);
        let Some(owner) = owner else { return Vec::new() };
        if self.check_dates(token, registry, now).is_err()
            || registry.is_revoked(&token.id, token.issued, &owner.client)
        {
            return Vec::new();
        }
        let granted = |scope: &&str| owner.granted(scope).any(|grant| grant.in_force(now));
        token.scopes.iter().map(String::as_str).filter(granted).collect()
    }

    /// Returns an active token for introspection (RFC 7662, section 2.2), with the scopes that it has now.
    pub fn describe(&self, token: &VerifiedToken, scopes: &[&str]) -> serde_json::Value {
        serde_json::json!({
            "active": true, "scope": scopes.join(" "), "client_id": token.client, "sub": token.client,
            "aud": self.audience, "iss": self.issuer, "jti": token.id, "iat": token.issued, "nbf": token.not_before,
            "exp": token.expires, "token_type": "Bearer", "cnf": { "x5t#S256": token.x5t },
        })
    }

    /// Returns the seconds until the token is no longer accepted, including the tolerated skew.
    pub fn seconds_remaining(&self, token: &VerifiedToken, now: i64) -> i64 {
        token.expires.saturating_add(self.leeway).saturating_sub(now)
    }

    /// Returns when the token expires or its key is no longer trusted, Unix time in seconds; and the reason.
    pub fn end(&self, token: &VerifiedToken, registry: &Snapshot) -> (i64, Reason) {
        let own = token.expires.saturating_add(self.leeway);
        match registry.key(&token.kid, 0).map(|key| key.trusted_until) {
            Some(key) if key != 0 && key < own => (key, Reason::TokenInvalid),
            _ => (own, Reason::TokenExpired),
        }
    }

    /// Verifies signature and form: everything that stays valid as long as the key does.
    ///
    /// # Errors
    /// TOKEN_MALFORMED if it is no JWT; TOKEN_INVALID or TOKEN_EXPIRED if it is not of this issuer, for this audience, under a known key.
    pub fn verify(&self, token: &str, registry: &Snapshot, now: i64) -> Result<VerifiedToken, Refusal> {
        let malformed = || Refusal::from(Reason::TokenMalformed);
        let invalid = || Refusal::from(Reason::TokenInvalid);
        if token.split('.').count() != 3 {
            return Err(malformed());
        }
        let head = token.split('.').next().unwrap_or("");
        let head = URL_SAFE_NO_PAD.decode(head).map_err(|_| malformed())?;
        // Duplicate names are an error for serde's structs, so no second `alg` can hide.
        let header: Header = serde_json::from_slice(&head).map_err(|_| malformed())?;
        let named_key = header.jku.is_some() || header.jwk.is_some() || header.x5u.is_some() || header.x5c.is_some();
        if named_key || header.crit.is_some() {
            return Err(invalid());
        }
        let typ = header.typ.unwrap_or_default().to_ascii_lowercase();
        if typ != "at+jwt" && typ != "application/at+jwt" {
            return Err(invalid());
        }
        let kid = header.kid.ok_or_else(invalid)?;
        let key = registry.key(&kid, now).ok_or_else(invalid)?;
        // The algorithm is the key's; the token's claim of it must agree.
        if header.alg != format!("{:?}", key.algorithm) {
            return Err(invalid());
        }
        let mut validation = Validation::new(key.algorithm);
        validation.set_audience(&[&self.audience]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Each call checks the times, with separate reasons.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let claims = jsonwebtoken::decode::<Claims>(token, &key.key, &validation)
            .map_err(|error| match error.kind() {
                ErrorKind::Base64(_) | ErrorKind::Utf8(_) => malformed(),
                _ => invalid(),
            })?
            .claims;
        // No issuer makes a longer one: it would outlive its key's retirement.
        let lifetime = claims.exp.saturating_sub(claims.nbf.unwrap_or(claims.iat));
        if lifetime > MAX_LIFETIME.as_secs() as i64 {
            return Err(invalid());
        }
        if !claims.aud.has(&self.audience) || claims.sub != claims.client_id || claims.jti.is_empty() {
            return Err(invalid());
        }
        Ok(VerifiedToken {
            id: claims.jti,
            client: claims.client_id,
            scopes: self.scopes.lock().unwrap_or_else(PoisonError::into_inner).words(&claims.scope),
            kid,
            x5t: claims.cnf.x5t_s256,
            issued: claims.iat,
            not_before: claims.nbf.unwrap_or(claims.iat),
            expires: claims.exp,
        })
    }
}

/// Returns the one Bearer token of a call (RFC 6750, section 2.1).
fn bearer(headers: &http::HeaderMap) -> Result<&str, Refusal> {
    let mut values = headers.get_all(http::header::AUTHORIZATION).iter();
    let value = values.next().ok_or(Reason::TokenMissing)?;
    if values.next().is_some() {
        return Err(Reason::TokenMalformed.into());
    }
    let text = value.to_str().map_err(|_| Reason::TokenMalformed)?;
    let (scheme, token) = text.split_once(' ').ok_or(Reason::TokenMalformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || token.len() > MAX_TOKEN {
        return Err(Reason::TokenMalformed.into());
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_exactly_one_bearer_token_of_a_bounded_size() {
        let long = |length: usize| format!("Bearer {}", "x".repeat(length));
        for (values, wanted) in [
            (vec!["Bearer abc"], Ok("abc")),
            (vec!["bEARER abc"], Ok("abc")),
            (vec![], Err(Reason::TokenMissing)),
            (vec!["Bearer abc", "Bearer abc"], Err(Reason::TokenMalformed)),
            (vec!["Bearer"], Err(Reason::TokenMalformed)),
            (vec!["Bearer "], Err(Reason::TokenMalformed)),
            (vec!["abc"], Err(Reason::TokenMalformed)),
            (vec!["Basic abc"], Err(Reason::TokenMalformed)),
            (vec!["Bearer ab\u{fc}"], Err(Reason::TokenMalformed)),
            (vec![&*long(MAX_TOKEN)], Ok(&long(MAX_TOKEN)[7..])),
            (vec![&*long(MAX_TOKEN + 1)], Err(Reason::TokenMalformed)),
        ] {
            let mut headers = http::HeaderMap::new();
            for value in &values {
                let value = http::HeaderValue::from_bytes(value.as_bytes());
                headers.extend(value.ok().map(|value| (http::header::AUTHORIZATION, value)));
            }
            assert_eq!(bearer(&headers).map_err(|refusal| refusal.reason), wanted, "{:.40?}", values);
        }
    }

    #[test]
    fn d1_verified_tokens_are_bounded_by_their_size_and_number() {
        let verified = |number: usize| {
            Arc::new(VerifiedToken {
                id: number.to_string(),
                client: "shop".into(),
                scopes: Arc::default(),
                kid: String::new(),
                x5t: String::new(),
                issued: 0,
                not_before: 0,
                expires: 0,
            })
        };
        let fill = |count: usize, length: usize| {
            let kept = token_cache(8 << 20);
            for number in 0..count {
                kept.insert(format!("{number:0length$}"), verified(number));
            }
            assert!(kept.weight() <= 8 << 20, "{} bytes", kept.weight());
            kept.len()
        };
        // Large ones are few, usual ones are many.
        let (large, usual) = (fill(5_000, 8_000), fill(50_000, 700));
        assert!((500..=1_000).contains(&large) && (3_500..=7_000).contains(&usual), "{large}, {usual}");
    }
}
