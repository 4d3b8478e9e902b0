//! Checkpoints: C2SP tlog-checkpoint in a signed note (https://c2sp.org/tlog-checkpoint, https://c2sp.org/signed-note),
//! Ed25519.

use super::note::{self, Note, NoteError, VerifierKey};
use super::segment::ChainKey;
use super::tree::Hash;
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

/// The reason that a checkpoint is not trusted.
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
pub struct LogVerifier(VerifierKey);

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

    /// The log's name in every checkpoint.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns what others need to check signatures.
    pub fn verifier(&self) -> LogVerifier {
        let key = self.pair.public_key().as_ref().to_vec();
        LogVerifier(VerifierKey { name: self.origin.clone(), signature_type: ALGORITHM_ED25519, key })
    }

    /// Returns the key of the journal's chain. Only the holder of the signing key can make it: it is derived from a
    /// signature (Ed25519 makes the same one each time) that never leaves this function.
    pub fn chain_key(&self) -> ChainKey {
        let text = [b"ndxp journal chain 1\0", self.origin.as_bytes()].concat();
        let secret = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, self.pair.sign(&text).as_ref());
        ChainKey::new(secret.as_ref())
    }

    /// A signed checkpoint.
    pub fn sign(&self, size: u64, root: &Hash) -> String {
        let text = format!("{}\n{size}\n{}\n", self.origin, STANDARD.encode(root));
        let id = note::key_id(&self.origin, ALGORITHM_ED25519, self.pair.public_key().as_ref());
        let line = note::signature_line(&self.origin, id, self.pair.sign(text.as_bytes()).as_ref());
        format!("{text}\n{line}")
    }
}

impl LogVerifier {
    /// Reads `name+hash+key`.
    ///
    /// # Errors
    /// [`CheckpointError::BadKey`].
    pub fn parse(vkey: &str) -> Result<Self, CheckpointError> {
        let key = VerifierKey::parse(vkey).filter(|key| key.signature_type == ALGORITHM_ED25519 && key.key.len() == 32);
        key.map(LogVerifier).ok_or(CheckpointError::BadKey)
    }

    /// The log's name.
    pub fn origin(&self) -> &str {
        &self.0.name
    }

    /// Checks a signed checkpoint: its form, its origin, and every signature under this key.
    ///
    /// # Errors
    /// Every kind but [`CheckpointError::BadKey`].
    pub fn check(&self, note: &str) -> Result<Checkpoint, CheckpointError> {
        let note = Note::parse(note)?;
        let checkpoint = Checkpoint::parse(note.text)?;
        if checkpoint.origin != self.origin() || self.signatures(&note)?.is_empty() {
            return Err(CheckpointError::NoSignature);
        }
        Ok(checkpoint)
    }

    /// Returns the lines of a note that are signatures by this key.
    ///
    /// # Errors
    /// [`CheckpointError::BadSignature`] if one of them does not verify.
    pub fn signatures<'n>(&self, note: &Note<'n>) -> Result<Vec<&'n str>, CheckpointError> {
        let key = UnparsedPublicKey::new(&ED25519, &self.0.key);
        let verify = |one: &note::Signature<'_>| key.verify(note.text.as_bytes(), &one.bytes).is_ok();
        Ok(note.signed_by(&self.0.name, self.0.id(), verify)?.into_iter().map(|one| one.line).collect())
    }
}

impl std::fmt::Display for LogVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl From<NoteError> for CheckpointError {
    fn from(error: NoteError) -> Self {
        match error {
            NoteError::Malformed => CheckpointError::Malformed,
            NoteError::BadSignature => CheckpointError::BadSignature,
        }
    }
}

impl Checkpoint {
    /// Reads a checkpoint's text, without its signatures: three lines, and extension lines that are not empty.
    ///
    /// # Errors
    /// [`CheckpointError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        read_text(text).ok_or(CheckpointError::Malformed)
    }
}

fn read_text(text: &str) -> Option<Checkpoint> {
    let mut lines = text.strip_suffix('\n')?.split('\n');
    let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
    if origin.is_empty() || lines.any(str::is_empty) {
        return None;
    }
    let root = STANDARD.decode(root).ok()?.try_into().ok()?;
    Some(Checkpoint { origin: origin.to_owned(), size: decimal(size)?, root })
}

/// A number as the specifications of transparency logs write it: ASCII digits, no leading zero, below 2^63.
pub fn decimal(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|number| plain && *number <= i64::MAX.unsigned_abs())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The verifier key and note of the package example of golang.org/x/mod/sumdb/note, the origin of signed-note.
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

    #[test]
    fn w_a_checkpoint_is_read_to_the_letter() {
        let root = STANDARD.encode([7; 32]);
        let read = |text: &str| Checkpoint::parse(text).map(|checkpoint| checkpoint.size);
        assert_eq!(read(&format!("a\n0\n{root}\n")), Ok(0));
        assert_eq!(read(&format!("a\n5\n{root}\nmore\n")), Ok(5));
        for text in [
            format!("a\n5\n{root}"),
            format!("a\n5\n{root}\n\nmore\n"),
            format!("\n5\n{root}\n"),
            format!("a\n+5\n{root}\n"),
            format!("a\n5 \n{root}\n"),
            format!("a\n9223372036854775808\n{root}\n"),
            format!("a\n5\n{}\n", STANDARD.encode([7; 31])),
            format!("a\n5\n{}\n", root.trim_end_matches('=')),
            "a\n5\n".to_owned(),
        ] {
            assert_eq!(read(&text), Err(CheckpointError::Malformed), "{text:?}");
        }
    }
}
