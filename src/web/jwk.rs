//! Public keys as JWKs (RFC 7517, RFC 8037).

use crate::registry::SigningKey;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

/// The JWK of a public key; `None` if its PEM cannot be read.
pub(super) fn jwk(key: &SigningKey) -> Option<Value> {
    let spki = SubjectPublicKeyInfoDer::from_pem_slice(key.public_pem.as_bytes()).ok()?;
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    // The key is the end of its SPKI: 32 bytes of Ed25519 (RFC 8410), or an uncompressed point of P-256 (RFC 5480).
    let bytes = spki.as_ref();
    if key.algorithm == "EdDSA" {
        let x = bytes.last_chunk::<32>()?;
        return Some(
            json!({ "kty": "OKP", "crv": "Ed25519", "kid": key.kid, "use": "sig", "alg": "EdDSA", "x": text(x) }),
        );
    }
    let [4, point @ ..] = bytes.last_chunk::<65>()? else { return None };
    let (x, y) = point.split_at(32);
    Some(json!({
        "kty": "EC", "crv": "P-256", "kid": key.kid, "use": "sig", "alg": "ES256", "x": text(x), "y": text(y),
    }))
}
