//! Checkpoints: C2SP tlog-checkpoint in a signed note (https://c2sp.org/tlog-checkpoint, https://c2sp.org/signed-note),
//! Ed25519.

use super::segment::ChainKey;
use super::tree::Hash;
use crate::hex::hex;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Signature type of Ed25519 in signed notes.
const ALGORITHM_ED25519: u8 = 1;

/// The root of the log at a size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name, as a schema-less URL.
    pub origin: String,
    /// Entries.
    pub size: u64,
    /// Root.
    pub root: Hash,
}

/// Why a checkpoint is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Not in the form of a checkpoint.
    #[error("it is not in the form of a checkpoint")]
    Malformed,
    /// No signature by the log's key.
    #[error("it has no signature by the log's key")]
    NoSignature,
    /// The signature by the log's key does not verify.
    #[error("its signature does not verify")]
    BadSignature,
    /// The verifier key is not one.
    #[error("the verifier key is not of the form name+hash+key")]
    BadKey,
}

/// Signs for a log.
pub struct LogSigner {
    origin: String,
    pair: Ed25519KeyPair,
}

/// Checks a log's signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogVerifier {
    origin: String,
    key: Vec<u8>,
}

/// A key's id in signed notes.
pub(super) fn key_id(name: &str, algorithm: u8, key: &[u8]) -> [u8; 4] {
    let text = [name.as_bytes(), b"\n", &[algorithm], key].concat();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &text);
    let mut id = [0; 4];
    id.copy_from_slice(&digest.as_ref()[..4]);
    id
}

/// Name and key of `name+hash+key`, for a key of this type.
pub(super) fn open_vkey(vkey: &str, of: u8) -> Result<(String, Vec<u8>), CheckpointError> {
    let mut parts = vkey.trim().splitn(3, '+');
    let (Some(name), Some(hash), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(CheckpointError::BadKey);
    };
    let bytes = STANDARD.decode(key).map_err(|_| CheckpointError::BadKey)?;
    let (algorithm, key) = bytes.split_first().ok_or(CheckpointError::BadKey)?;
    if *algorithm != of || key.len() != 32 || hex(&key_id(name, of, key)) != hash {
        return Err(CheckpointError::BadKey);
    }
    Ok((name.to_owned(), key.to_vec()))
}

impl LogSigner {
    /// A signer from a PKCS#8 key.
    pub fn from_pkcs8(origin: &str, pkcs8: &[u8]) -> Option<Self> {
        Some(LogSigner { origin: origin.to_owned(), pair: Ed25519KeyPair::from_pkcs8(pkcs8).ok()? })
    }

    /// A new key, as PKCS#8.
    pub fn generate() -> Option<Vec<u8>> {
        let random = aws_lc_rs::rand::SystemRandom::new();
        Some(Ed25519KeyPair::generate_pkcs8(&random).ok()?.as_ref().to_vec())
    }

    /// The name that stands in every checkpoint.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// What others need to check signatures.
    pub fn verifier(&self) -> LogVerifier {
        LogVerifier { origin: self.origin.clone(), key: self.pair.public_key().as_ref().to_vec() }
    }

    /// The key of the journal's chain. Only who has the signing key can make it: it is derived from a signature (which
    /// Ed25519 makes the same each time) that never leaves here.
    pub(super) fn chain_key(&self) -> ChainKey {
        let text = [b"ndxp journal chain 1\0", self.origin.as_bytes()].concat();
        let secret = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, self.pair.sign(&text).as_ref());
        ChainKey::new(secret.as_ref())
    }

    /// A signed checkpoint.
    pub fn sign(&self, size: u64, root: &Hash) -> String {
        let text = format!("{}\n{size}\n{}\n", self.origin, STANDARD.encode(root));
        let id = key_id(&self.origin, ALGORITHM_ED25519, self.pair.public_key().as_ref());
        let signature = self.pair.sign(text.as_bytes());
        let line = STANDARD.encode([id.as_slice(), signature.as_ref()].concat());
        format!("{text}\n— {} {line}\n", self.origin)
    }
}

impl LogVerifier {
    /// Reads `name+hash+key`.
    pub fn parse(vkey: &str) -> Result<Self, CheckpointError> {
        let (origin, key) = open_vkey(vkey, ALGORITHM_ED25519)?;
        Ok(LogVerifier { origin, key })
    }

    /// The log's name.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Checks a signed checkpoint.
    pub fn check(&self, note: &str) -> Result<Checkpoint, CheckpointError> {
        let (text, signatures) = note.split_once("\n\n").ok_or(CheckpointError::Malformed)?;
        let text = format!("{text}\n");
        let checkpoint = parse(&text)?;
        if checkpoint.origin != self.origin {
            return Err(CheckpointError::NoSignature);
        }
        for line in signatures.lines() {
            let Some((name, signature)) = line.strip_prefix("— ").and_then(|rest| rest.split_once(' ')) else {
                return Err(CheckpointError::Malformed);
            };
            let bytes = STANDARD.decode(signature).map_err(|_| CheckpointError::Malformed)?;
            if name != self.origin || !bytes.starts_with(&key_id(&self.origin, ALGORITHM_ED25519, &self.key)) {
                continue;
            }
            return UnparsedPublicKey::new(&ED25519, &self.key)
                .verify(text.as_bytes(), &bytes[4..])
                .map(|()| checkpoint.clone())
                .map_err(|_| CheckpointError::BadSignature);
        }
        Err(CheckpointError::NoSignature)
    }
}

impl std::fmt::Display for LogVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let id = hex(&key_id(&self.origin, ALGORITHM_ED25519, &self.key));
        let key = STANDARD.encode([&[ALGORITHM_ED25519], self.key.as_slice()].concat());
        write!(f, "{}+{id}+{key}", self.origin)
    }
}

/// Reads a checkpoint's text, without its signatures.
fn parse(text: &str) -> Result<Checkpoint, CheckpointError> {
    let mut lines = text.lines();
    let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
        return Err(CheckpointError::Malformed);
    };
    let plain = size == "0" || !size.starts_with('0') && size.bytes().all(|byte| byte.is_ascii_digit());
    let size = size.parse().ok().filter(|_| plain).ok_or(CheckpointError::Malformed)?;
    let root = STANDARD.decode(root).ok().and_then(|root| root.try_into().ok()).ok_or(CheckpointError::Malformed)?;
    if origin.is_empty() {
        return Err(CheckpointError::Malformed);
    }
    Ok(Checkpoint { origin: origin.to_owned(), size, root })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The verifier key and note of golang.org/x/mod/sumdb/note's package example, from which signed-note came.
    #[test]
    fn a_verifier_key_of_another_implementation_is_read() {
        let vkey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        assert_eq!(LogVerifier::parse(vkey).unwrap().to_string(), vkey);
        assert!(LogVerifier::parse(&vkey.replace("c74f", "c74e")).is_err());
    }

    #[test]
    fn a_changed_checkpoint_is_not_believed() {
        let signer = LogSigner::from_pkcs8("log.test/a", &LogSigner::generate().unwrap()).unwrap();
        let note = signer.sign(42, &[7; 32]);
        let verifier = LogVerifier::parse(&signer.verifier().to_string()).unwrap();
        assert_eq!(verifier.check(&note).unwrap().size, 42);
        assert_eq!(verifier.check(&note.replace("\n42\n", "\n43\n")), Err(CheckpointError::BadSignature));
        assert_eq!(verifier.check(&note.replace("\n42\n", "\n042\n")), Err(CheckpointError::Malformed));
        let other = LogSigner::from_pkcs8("log.test/a", &LogSigner::generate().unwrap()).unwrap();
        assert_eq!(other.verifier().check(&note), Err(CheckpointError::NoSignature));
        assert_eq!(verifier.check("x"), Err(CheckpointError::Malformed));
    }
}
