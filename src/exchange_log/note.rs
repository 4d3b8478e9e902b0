//! Signed notes (https://c2sp.org/signed-note), read strictly: anything that the specification does not allow is
//! refused, so that two readers never see different things in the same bytes.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Maximum number of signatures of a note. The specification requires at least 16; a policy with more witnesses than
/// this is refused.
pub const MAX_SIGNATURES: usize = 64;
/// Largest note, in bytes: this many ML-DSA-44 signatures of 3.3 kB in base64, and a text.
pub const MAX_NOTE: usize = 256 << 10;
/// Bytes of a key's id before each signature.
const KEY_ID: usize = 4;

/// The reason that a note is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not in the form of a signed note, or larger than [`MAX_NOTE`] or [`MAX_SIGNATURES`] allow.
    #[error("it is not in the form of a signed note (c2sp.org/signed-note)")]
    Malformed,
    /// A signature under a known key's name and id does not verify.
    #[error("a signature by a known key does not verify")]
    BadSignature,
}

/// A signature line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature<'n> {
    /// The key's name.
    pub name: &'n str,
    /// The key's id.
    pub id: [u8; KEY_ID],
    /// The signed bytes of the line, without the id.
    pub bytes: Vec<u8>,
    /// The whole line, its final newline included.
    pub line: &'n str,
}

/// A note with a valid form; its signatures were not checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note<'n> {
    /// The signed text, its final newline included.
    pub text: &'n str,
    /// At least one.
    pub signatures: Vec<Signature<'n>>,
}

impl<'n> Note<'n> {
    /// Reads a note.
    ///
    /// # Errors
    /// [`NoteError::Malformed`].
    pub fn parse(note: &'n str) -> Result<Self, NoteError> {
        let control = |byte: u8| byte < b' ' && byte != b'\n';
        if note.len() > MAX_NOTE || note.bytes().any(control) || !note.ends_with('\n') {
            return Err(NoteError::Malformed);
        }
        let (text, signatures) = note.rsplit_once("\n\n").ok_or(NoteError::Malformed)?;
        if text.is_empty() || signatures.is_empty() {
            return Err(NoteError::Malformed);
        }
        let text = &note[..text.len() + 1];
        Ok(Note { text, signatures: parse_signatures(signatures)? })
    }

    /// Returns the signatures of the key with this name and id, each verified by `verify`.
    ///
    /// # Errors
    /// [`NoteError::BadSignature`] if one does not verify: such a note is rejected completely.
    pub fn signed_by(
        &self,
        name: &str,
        id: [u8; KEY_ID],
        verify: impl Fn(&Signature<'n>) -> bool,
    ) -> Result<Vec<&Signature<'n>>, NoteError> {
        let own: Vec<_> = self.signatures.iter().filter(|one| one.name == name && one.id == id).collect();
        if own.iter().all(|one| verify(one)) { Ok(own) } else { Err(NoteError::BadSignature) }
    }
}

/// Reads signature lines, each with its final newline, at most [`MAX_SIGNATURES`].
///
/// # Errors
/// [`NoteError::Malformed`].
pub fn parse_signatures(lines: &str) -> Result<Vec<Signature<'_>>, NoteError> {
    if lines.is_empty()
        || !lines.ends_with('\n')
        || lines.bytes().filter(|&byte| byte == b'\n').count() > MAX_SIGNATURES
    {
        return Err(NoteError::Malformed);
    }
    lines.split_inclusive('\n').map(|line| parse_line(line).ok_or(NoteError::Malformed)).collect()
}

fn parse_line(line: &str) -> Option<Signature<'_>> {
    let (name, signature) = line.strip_suffix('\n')?.strip_prefix("— ")?.split_once(' ')?;
    let bytes = STANDARD.decode(signature).ok()?;
    let (id, bytes) = bytes.split_first_chunk::<KEY_ID>()?;
    let plain = is_key_name(name) && !bytes.is_empty();
    plain.then(|| Signature { name, id: *id, bytes: bytes.to_vec(), line })
}

/// A signature line, its final newline included.
pub fn signature_line(name: &str, id: [u8; KEY_ID], signature: &[u8]) -> String {
    format!("— {name} {}\n", STANDARD.encode([id.as_slice(), signature].concat()))
}

/// Returns whether a key may have this name: not empty, no Unicode space, no control character, no plus.
pub fn is_key_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+')
}

/// A key's id: the first bytes of the SHA-256 of its name, a newline, the signature type and the public key.
pub fn key_id(name: &str, signature_type: u8, key: &[u8]) -> [u8; KEY_ID] {
    let text = [name.as_bytes(), b"\n", &[signature_type], key].concat();
    let mut id = [0; KEY_ID];
    id.copy_from_slice(&digest(&SHA256, &text).as_ref()[..KEY_ID]);
    id
}

/// A verifier key: `name+id+base64(signature type || public key)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    /// The key's name.
    pub name: String,
    /// Its signature type.
    pub signature_type: u8,
    /// The public key.
    pub key: Vec<u8>,
}

impl VerifierKey {
    /// Reads a verifier key; `None` if it has another form, or its id is another key's.
    pub fn parse(vkey: &str) -> Option<Self> {
        let mut parts = vkey.trim().splitn(3, '+');
        let (name, id, key) = (parts.next()?, parts.next()?, parts.next()?);
        let bytes = STANDARD.decode(key).ok()?;
        let (signature_type, key) = bytes.split_first()?;
        let own = crate::hex::hex(&key_id(name, *signature_type, key));
        let known = is_key_name(name) && own == id;
        known.then(|| VerifierKey { name: name.into(), signature_type: *signature_type, key: key.into() })
    }

    /// The key's id.
    pub fn id(&self) -> [u8; KEY_ID] {
        key_id(&self.name, self.signature_type, &self.key)
    }
}

impl std::fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = STANDARD.encode([&[self.signature_type], self.key.as_slice()].concat());
        write!(f, "{}+{}+{key}", self.name, crate::hex::hex(&self.id()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
    use proptest::prelude::*;

    /// The example of the specification.
    const VKEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    const NOTE: &str = "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

    fn check(note: &str) -> Result<usize, NoteError> {
        let key = VerifierKey::parse(VKEY).unwrap();
        let note = Note::parse(note)?;
        let verify = |one: &Signature<'_>| {
            UnparsedPublicKey::new(&ED25519, &key.key).verify(note.text.as_bytes(), &one.bytes).is_ok()
        };
        Ok(note.signed_by(&key.name, key.id(), verify)?.len())
    }

    #[test]
    fn the_specification_s_example_verifies() {
        assert_eq!(check(NOTE), Ok(1));
        assert_eq!(VerifierKey::parse(VKEY).unwrap().to_string(), VKEY);
        assert_eq!(check(&NOTE.replace("example message", "other message")), Err(NoteError::BadSignature));
    }

    #[test]
    fn w_what_the_specification_does_not_allow_is_refused() {
        let line = NOTE.rsplit_once("\n\n").unwrap().1;
        let many = |count| format!("a\n\n{}", line.repeat(count));
        for note in [
            NOTE.trim_end().to_owned(),
            NOTE.replace('\n', "\r\n"),
            NOTE.replace("example message", "example\0message"),
            NOTE.replace("example message", "example\tmessage"),
            format!("{NOTE}trailing\n"),
            format!("{NOTE}\n"),
            format!("{NOTE} \n"),
            NOTE.replace("— ", "- "),
            NOTE.replace("— ", "—  "),
            NOTE.replace("example.com/foo", "example.com/\u{a0}foo"),
            NOTE.replace("example.com/foo", "example.com/+foo"),
            NOTE.replace("example.com/foo", ""),
            NOTE.replace("=\n", "\n"),
            NOTE.replace("=\n", "=x\n"),
            "a\n\n— n AAAA\n".to_owned(),
            "a\n\n".to_owned(),
            "\n\n— n AAAAAAA=\n".to_owned(),
            many(MAX_SIGNATURES + 1),
            format!("{}{NOTE}", "x".repeat(MAX_NOTE)),
        ] {
            assert_eq!(Note::parse(&note), Err(NoteError::Malformed), "{note:?}");
        }
        assert!(Note::parse(&many(MAX_SIGNATURES)).is_ok());
        for vkey in ["", "a+b", "+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", "a b+530d903a+AQ=="] {
            assert_eq!(VerifierKey::parse(vkey), None, "{vkey}");
        }
    }

    #[test]
    fn w_every_signature_under_a_known_key_must_verify_and_others_do_not_count() {
        let line = NOTE.rsplit_once("\n\n").unwrap().1;
        let forged = line.replace("Iney", "Inez");
        assert_eq!(check(&format!("{NOTE}{line}")), Ok(2));
        assert_eq!(check(&format!("{NOTE}{forged}")), Err(NoteError::BadSignature));
        assert_eq!(check(&NOTE.replace(line, &format!("{forged}{line}"))), Err(NoteError::BadSignature));
        let stranger = forged.replace("example.com/foo", "example.com/bar");
        assert_eq!(check(&format!("{NOTE}{stranger}")), Ok(1));
        assert_eq!(check(&NOTE.replace(line, &stranger)), Ok(0));
    }

    #[test]
    fn a_text_may_hold_empty_lines() {
        let note = "a\n\nb\n\n— n AAAAAAA=\n";
        assert_eq!(Note::parse(note).unwrap().text, "a\n\nb\n");
    }

    proptest! {
        #[test]
        fn a_note_that_is_read_is_what_its_parts_say(text in "\\PC{0,40}", name in "[a-z/.]{1,9}", signature in prop::collection::vec(any::<u8>(), 1..80)) {
            let note = format!("{text}x\n\n{}", signature_line(&name, [1, 2, 3, 4], &signature));
            let read = Note::parse(&note).unwrap();
            prop_assert_eq!(read.text, format!("{text}x\n"));
            prop_assert_eq!((read.signatures[0].name, &read.signatures[0].bytes), (name.as_str(), &signature));
        }

        #[test]
        fn nothing_that_is_read_can_be_written_otherwise(note in "[a\n— =+\rA]{0,60}") {
            if let Ok(read) = Note::parse(&note) {
                let lines: String = read.signatures.iter().map(|one| signature_line(one.name, one.id, &one.bytes)).collect();
                prop_assert_eq!(format!("{}\n{lines}", read.text), note);
            }
        }
    }
}
