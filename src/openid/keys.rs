//! The provider's public keys (RFC 7517): fetched on demand, cached for ten minutes, and fetched again for an unknown key id at most
//! once in thirty seconds, whatever key ids tokens have.

use super::id_token::TokenHeader;
use super::{RETRY, SignInError};
use bytes::Bytes;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// Cache lifetime: a key that the provider withdraws is unusable after that.
const AGE: Duration = Duration::from_secs(600);
/// Shortest time between two fetches.
const REFETCH: Duration = Duration::from_secs(30);
/// Most keys of a set that are examined.
const MAX_KEYS: usize = 100;

/// A fetched key set.
struct KeySet {
    keys: Arc<Vec<Jwk>>,
    read: Instant,
}

#[derive(Default)]
struct Read {
    set: Option<KeySet>,
    /// The set is not fetched again before this instant.
    not_before: Option<Instant>,
}

/// The cached keys of a provider.
#[derive(Default)]
pub(super) struct Keys(Mutex<Read>);

impl Keys {
    /// Returns the keys that may have signed a token with this header. `fetch` reads the set on demand.
    ///
    /// # Errors
    /// The set cannot be read, or contains no such key.
    pub async fn of(
        &self,
        header: &TokenHeader,
        fetch: impl Future<Output = Result<Bytes, SignInError>>,
    ) -> Result<Vec<DecodingKey>, SignInError> {
        let mut read = self.0.lock().await;
        let current = read.set.as_ref().filter(|set| set.read.elapsed() < AGE).map(|set| set.keys.clone());
        if let Some(keys) = &current {
            let found = fitting(keys, header);
            if !found.is_empty() {
                return Ok(found);
            }
        }
        if read.not_before.is_some_and(|then| Instant::now() < then) {
            return Err(if current.is_some() { SignInError::KeyUnknown } else { SignInError::Keys });
        }
        read.not_before = Some(Instant::now() + RETRY);
        let keys = Arc::new(parse(&fetch.await?)?);
        read.not_before = Some(Instant::now() + REFETCH);
        read.set = Some(KeySet { keys: keys.clone(), read: Instant::now() });
        let found = fitting(&keys, header);
        if found.is_empty() { Err(SignInError::KeyUnknown) } else { Ok(found) }
    }
}

/// Parses a set; keys of unknown types are ignored (RFC 7517, section 5).
fn parse(bytes: &[u8]) -> Result<Vec<Jwk>, SignInError> {
    let set: Value = serde_json::from_slice(bytes).map_err(|_| SignInError::Keys)?;
    let keys = set.get("keys").and_then(Value::as_array).ok_or(SignInError::Keys)?;
    Ok(keys.iter().take(MAX_KEYS).filter_map(|key| serde_json::from_value(key.clone()).ok()).collect())
}

/// Returns whether a key fits this algorithm and, if it states its use, is for signatures.
fn is_for(key: &Jwk, algorithm: Algorithm) -> bool {
    let kind = match (&key.algorithm, algorithm) {
        (AlgorithmParameters::RSA(_), Algorithm::RS256 | Algorithm::PS256) => true,
        (AlgorithmParameters::EllipticCurve(key), Algorithm::ES256) => key.curve == EllipticCurve::P256,
        (AlgorithmParameters::OctetKeyPair(key), Algorithm::EdDSA) => key.curve == EllipticCurve::Ed25519,
        // A shared secret, whatever it says, is no public key.
        _ => false,
    };
    let own = key.common.key_algorithm.is_none_or(|own| own.to_string().parse() == Ok(algorithm));
    let signs = matches!(key.common.public_key_use, None | Some(PublicKeyUse::Signature));
    kind && own && signs
}

/// Returns the candidate keys: the one with the header's `kid`; without a `kid`, the only key (OpenID Connect Core, section 10.1).
fn fitting(keys: &[Jwk], header: &TokenHeader) -> Vec<DecodingKey> {
    let fits = |key: &&Jwk| is_for(key, header.algorithm);
    let named = |key: &&Jwk| header.key.is_none() || key.common.key_id == header.key;
    let found: Vec<&Jwk> = keys.iter().filter(fits).filter(named).collect();
    if header.key.is_none() && found.len() > 1 {
        return Vec::new();
    }
    found.into_iter().filter_map(|key| DecodingKey::from_jwk(key).ok()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::cell::Cell;

    /// RFC 7517, appendix A.1; RFC 8037, appendix A.2; and keys that are not for signatures.
    fn set(kids: [&str; 2]) -> Bytes {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMst\
                 n64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n9\
                 1CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        json!({ "keys": [
            { "kty": "RSA", "n": n, "e": "AQAB", "kid": kids[0] },
            { "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": kids[1] },
            { "kty": "RSA", "n": n, "e": "AQAB", "kid": "enc", "use": "enc" },
            { "kty": "RSA", "n": n, "e": "AQAB", "kid": "pss", "alg": "PS256" },
            { "kty": "oct", "k": "c2VjcmV0", "kid": "oct" }, { "kty": "new", "kid": "new" }, 7,
        ] })
        .to_string()
        .into()
    }

    fn header(algorithm: Algorithm, key: Option<&str>) -> TokenHeader {
        TokenHeader { algorithm, key: key.map(str::to_owned) }
    }

    #[test]
    fn a_key_is_the_one_that_is_named_and_of_the_algorithm() {
        let keys = parse(&set(["a", "b"])).unwrap();
        let count = |algorithm, key| fitting(&keys, &header(algorithm, key)).len();
        use Algorithm as A;
        assert_eq!((count(A::RS256, Some("a")), count(A::PS256, Some("a")), count(A::EdDSA, Some("b"))), (1, 1, 1));
        assert_eq!((count(A::PS256, Some("pss")), count(A::EdDSA, None), count(A::RS256, None)), (1, 1, 1));
        for (algorithm, key) in [
            (A::RS256, Some("pss")),
            (A::RS256, Some("enc")),
            (A::RS256, Some("b")),
            (A::EdDSA, Some("a")),
            (A::ES256, None),
            (A::PS256, None),
            (A::HS256, Some("oct")),
            (A::HS256, Some("a")),
            (A::RS256, Some("")),
        ] {
            assert_eq!(count(algorithm, key), 0, "{algorithm:?} {key:?}");
        }
        assert!(parse(b"{}").is_err() && parse(b"").is_err() && parse(b"[]").is_err());
    }

    #[tokio::test]
    async fn a_new_key_is_found_and_one_that_nobody_knows_is_not_asked_for_again_and_again() {
        let (keys, asked, first) = (Keys::default(), Cell::new(0), Cell::new("a"));
        let of = async |kid: &str| {
            let fetch = async {
                asked.set(asked.get() + 1);
                if first.get() == "down" { Err(SignInError::Unreachable) } else { Ok(set([first.get(), "x"])) }
            };
            keys.of(&header(Algorithm::RS256, Some(kid)), fetch).await.map(|keys| keys.len())
        };
        let ago = async |passed: Duration| {
            let mut read = keys.0.lock().await;
            read.not_before = read.not_before.and_then(|then| then.checked_sub(passed));
            if let Some(set) = &mut read.set {
                set.read = set.read.checked_sub(passed).unwrap();
            }
        };
        first.set("down");
        assert_eq!(
            (of("a").await, of("a").await, asked.get()),
            (Err(SignInError::Unreachable), Err(SignInError::Keys), 1)
        );
        first.set("a");
        ago(RETRY).await;
        assert_eq!((of("a").await, of("a").await, asked.get()), (Ok(1), Ok(1), 2));
        // The provider has another key from now on.
        first.set("b");
        for _ in 0..10 {
            assert_eq!(of("b").await, Err(SignInError::KeyUnknown));
        }
        assert_eq!(asked.get(), 2);
        ago(REFETCH).await;
        assert_eq!((of("b").await, of("b").await, asked.get()), (Ok(1), Ok(1), 3));
        ago(AGE).await;
        assert_eq!((of("b").await, asked.get()), (Ok(1), 4), "keys that are old are read again");
    }
}
