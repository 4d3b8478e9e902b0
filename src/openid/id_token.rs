//! Validates an ID token (OpenID Connect Core 1.0, section 3.1.3.7): its signature by the crate `jsonwebtoken`, its claims here, each
//! failure with a cause of its own.

use super::SignInError;
use crate::secret::Secret;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Map, Value};

/// The accepted algorithms: signatures by a private key that only the provider has.
const ALGORITHMS: [Algorithm; 4] = [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA];
/// Longest claim accepted as a staff id, in bytes: somewhat above the longest staff id.
const MAX_CLAIM: usize = 128;

/// The header's algorithm and key id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TokenHeader {
    pub algorithm: Algorithm,
    pub key: Option<String>,
}

/// What a token's claims must match.
pub(super) struct Expected<'e> {
    pub issuer: &'e str,
    pub audience: &'e str,
    pub nonce: &'e str,
    pub access_token: &'e Secret,
    pub claim: &'e str,
    pub leeway_s: i64,
}

/// Parses a token's header.
///
/// # Errors
/// The token is malformed; its algorithm is not accepted (`none` and HMAC among others); it has a critical extension (RFC 7515,
/// section 4.1.11), or its `typ` is another kind of token.
pub(super) fn header(token: &Secret) -> Result<TokenHeader, SignInError> {
    let token = token.reveal();
    let first = token.split('.').next().filter(|_| token.matches('.').count() == 2).ok_or(SignInError::Malformed)?;
    let bytes = URL_SAFE_NO_PAD.decode(first).map_err(|_| SignInError::Malformed)?;
    let header: Map<String, Value> = serde_json::from_slice(&bytes).map_err(|_| SignInError::Malformed)?;
    let text = |name: &str| header.get(name).and_then(Value::as_str);
    let algorithm = text("alg").and_then(|name| name.parse().ok()).filter(|one| ALGORITHMS.contains(one));
    let algorithm = algorithm.ok_or(SignInError::Algorithm)?;
    let is_jwt =
        header.get("typ").is_none_or(|kind| kind.as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("jwt")));
    if header.contains_key("crit") || !is_jwt {
        return Err(SignInError::Malformed);
    }
    Ok(TokenHeader { algorithm, key: text("kid").map(str::to_owned) })
}

/// Validates a token and returns its claim that identifies the person.
///
/// # Errors
/// The first claim that is invalid.
pub(super) fn verify(
    token: &Secret,
    header: &TokenHeader,
    keys: &[DecodingKey],
    expected: &Expected<'_>,
    now: i64,
) -> Result<String, SignInError> {
    let claims = signed(token, header, keys)?;
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if text("iss") != Some(expected.issuer) {
        return Err(SignInError::Issuer);
    }
    check_audience(&claims, expected.audience)?;
    check_times(&claims, now, expected.leeway_s)?;
    let nonce = text("nonce").unwrap_or_default();
    verify_slices_are_equal(nonce.as_bytes(), expected.nonce.as_bytes()).map_err(|_| SignInError::Nonce)?;
    if let Some(hash) = claims.get("at_hash")
        && hash.as_str() != Some(&half_hash(header.algorithm, expected.access_token))
    {
        return Err(SignInError::AccessTokenHash);
    }
    let claim = text(expected.claim).filter(|claim| !claim.is_empty() && claim.len() <= MAX_CLAIM);
    claim.map(str::to_owned).ok_or(SignInError::Claim)
}

/// Returns the claims of a token that one of these keys has signed.
fn signed(token: &Secret, header: &TokenHeader, keys: &[DecodingKey]) -> Result<Map<String, Value>, SignInError> {
    let mut validation = Validation::new(header.algorithm);
    // The claims are checked above, each by itself.
    validation.required_spec_claims.clear();
    (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
    let mut why = SignInError::KeyUnknown;
    for key in keys {
        match jsonwebtoken::decode::<Map<String, Value>>(token.reveal(), key, &validation) {
            Ok(read) => return Ok(read.claims),
            Err(error) => {
                why = match error.kind() {
                    jsonwebtoken::errors::ErrorKind::Json(_) => SignInError::Malformed,
                    _ => SignInError::Signature,
                }
            }
        }
    }
    Err(why)
}

/// Checks that the audience is this client; with several audiences or an `azp`, that `azp` is this client too.
fn check_audience(claims: &Map<String, Value>, client: &str) -> Result<(), SignInError> {
    let (is_for, several) = match claims.get("aud") {
        Some(Value::String(one)) => (one == client, false),
        Some(Value::Array(all)) => (all.iter().any(|one| one.as_str() == Some(client)), all.len() > 1),
        _ => (false, false),
    };
    let authorized = match claims.get("azp") {
        Some(party) => party.as_str() == Some(client),
        None => !several,
    };
    if is_for && authorized { Ok(()) } else { Err(SignInError::Audience) }
}

/// Longest age of a token beside the clock skew, in seconds: it is issued in response to a request of seconds ago.
const MAX_AGE_S: i64 = 600;

fn check_times(claims: &Map<String, Value>, now: i64, leeway: i64) -> Result<(), SignInError> {
    let time = |name: &str| claims.get(name).map(|value| value.as_f64().filter(|time| (0.0..=1e15).contains(time)));
    // Whole seconds: what is beyond them is far within the skew.
    let whole = |time: Option<f64>| time.map(|time| time as i64);
    let end = whole(time("exp").flatten()).ok_or(SignInError::Expired)?;
    if now >= end + leeway {
        return Err(SignInError::Expired);
    }
    let issued = whole(time("iat").flatten()).ok_or(SignInError::IssuedAt)?;
    let begins = match time("nbf") {
        Some(begins) => whole(begins).ok_or(SignInError::IssuedAt)?,
        None => issued,
    };
    let old = now - issued > MAX_AGE_S + leeway;
    if old || issued > now + leeway || begins > now + leeway { Err(SignInError::IssuedAt) } else { Ok(()) }
}

/// Returns the left half of the digest by the algorithm's hash (OpenID Connect Core, section 3.1.3.6); for Ed25519, of SHA-512.
fn half_hash(algorithm: Algorithm, token: &Secret) -> String {
    let hash = if algorithm == Algorithm::EdDSA { &digest::SHA512 } else { &digest::SHA256 };
    let digest = digest::digest(hash, token.reveal().as_bytes());
    URL_SAFE_NO_PAD.encode(&digest.as_ref()[..digest.as_ref().len() / 2])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claims(value: Value) -> Map<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_a_signature_by_a_private_key_is_looked_at() {
        let of = |value: Value| {
            let text = URL_SAFE_NO_PAD.encode(value.to_string());
            header(&Secret::new(format!("{text}.e30.AA")))
        };
        for name in ["RS256", "PS256", "ES256", "EdDSA"] {
            assert!(of(json!({ "alg": name, "typ": "JWT", "kid": "1" })).is_ok(), "{name}");
        }
        for name in ["none", "None", "HS256", "HS512", "RS1", "rs256", "ES384", ""] {
            assert_eq!(of(json!({ "alg": name })), Err(SignInError::Algorithm), "{name}");
        }
        assert_eq!(of(json!({})), Err(SignInError::Algorithm));
        assert_eq!(of(json!({ "alg": "RS256", "crit": ["x"] })), Err(SignInError::Malformed));
        assert_eq!(of(json!({ "alg": "RS256", "typ": "at+jwt" })), Err(SignInError::Malformed));
        for text in ["", "a.b", "a.b.c.d", "é.e30.AA", "e30", "W10.e30.AA"] {
            assert_eq!(header(&Secret::new(text)), Err(SignInError::Malformed), "{text}");
        }
    }

    #[test]
    fn an_audience_is_this_client_and_asked_for_by_it() {
        let of = |value: Value| check_audience(&claims(value), "gw").is_ok();
        assert!(of(json!({ "aud": "gw" })) && of(json!({ "aud": ["gw"] })) && of(json!({ "aud": "gw", "azp": "gw" })));
        assert!(of(json!({ "aud": ["gw", "other"], "azp": "gw" })));
        for wrong in [
            json!({}),
            json!({ "aud": "GW" }),
            json!({ "aud": ["other"] }),
            json!({ "aud": ["gw", "other"] }),
            json!({ "aud": "gw", "azp": "other" }),
            json!({ "aud": "gw", "azp": 1 }),
            json!({ "aud": { "gw": 1 } }),
        ] {
            assert!(!of(wrong.clone()), "{wrong}");
        }
    }

    #[test]
    fn a_token_is_of_now_within_the_clocks_skew() {
        let of = |value: Value| check_times(&claims(value), 10_000, 30);
        let times = |iat: i64, exp: i64| of(json!({ "iat": iat, "exp": exp }));
        for (iat, exp) in [(10_000, 10_100), (10_030, 10_100), (9_990, 9_971), (9_370, 10_100)] {
            assert_eq!(times(iat, exp), Ok(()), "{iat} {exp}");
        }
        assert_eq!(times(9_900, 9_970), Err(SignInError::Expired));
        assert_eq!(times(10_031, 10_100), Err(SignInError::IssuedAt));
        assert_eq!(times(9_369, 10_100), Err(SignInError::IssuedAt));
        assert_eq!(of(json!({ "iat": 10_000.5, "exp": 10_100.0, "nbf": 10_029 })), Ok(()));
        for (wrong, why) in [
            (json!({ "iat": 10_000 }), SignInError::Expired),
            (json!({ "exp": 10_100 }), SignInError::IssuedAt),
            (json!({ "iat": 10_000, "exp": 10_100, "nbf": 10_031 }), SignInError::IssuedAt),
            (json!({ "iat": 10_000, "exp": 10_100, "nbf": "x" }), SignInError::IssuedAt),
            (json!({ "iat": 10_000, "exp": "10100" }), SignInError::Expired),
            (json!({ "iat": -1, "exp": 10_100 }), SignInError::IssuedAt),
            (json!({ "iat": 10_000, "exp": 1e300 }), SignInError::Expired),
        ] {
            assert_eq!(of(wrong.clone()), Err(why), "{wrong}");
        }
    }

    #[test]
    fn the_half_of_a_digest_is_the_standard_s() {
        // OpenID Connect Core 1.0, appendix A.3.
        let token = Secret::new("jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y");
        assert_eq!(half_hash(Algorithm::RS256, &token), "77QmUPtjPfzWtF2AnpK9RQ");
    }
}
