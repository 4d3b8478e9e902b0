//! The key that authenticates acts while they wait in the registry's file for the exchange log. Whoever edits the file with a
//! tool of SQLite has no such key, so a row that they invent, change, move or put back is told from one that was noted with
//! its change, and never becomes an entry in somebody's name.
//!
//! The key lies in `keys/acts.key` beside the registry, sealed where `keys.encryption_secret` is configured. Whoever may read
//! that file as well as write the registry has everything that the gateway has; with the secret kept elsewhere, they have not.

use super::{Act, RegistryError};
use crate::keyfile::{MAC_BYTES, MacKey, Vault};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Bytes of an authentication code.
pub const CODE_BYTES: usize = MAC_BYTES;
/// What a text's code is begun with: no act's is begun so.
const TEXT: &[u8] = b"ndxp text\0";

/// How an act came to be noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// With its change, in one transaction.
    Logged,
    /// By an older version, which authenticated nothing; taken over when its file was upgraded.
    Upgraded,
}

impl Origin {
    fn domain(self) -> &'static [u8] {
        match self {
            Origin::Logged => b"ndxp act",
            Origin::Upgraded => b"ndxp act of an older version",
        }
    }
}

/// Authenticates acts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ActKey(MacKey);

/// Where the key of a registry's file is.
fn path(registry: &Path) -> PathBuf {
    registry.with_file_name("keys").join("acts.key")
}

fn unread(path: &Path, error: &std::io::Error) -> RegistryError {
    RegistryError::Store(format!("{}: {error}", path.display()))
}

impl ActKey {
    /// The key of a registry's file, made where there is none: with a new file, or on command. Acts that were noted with
    /// another one are refused then.
    ///
    /// # Errors
    /// The key cannot be read, unsealed, or made.
    pub fn make(registry: &Path, vault: &Vault) -> Result<Self, RegistryError> {
        let path = path(registry);
        MacKey::open(&path, vault).map(ActKey).map_err(|error| unread(&path, &error))
    }

    /// The key that a registry's file was made with.
    ///
    /// # Errors
    /// It is gone, or lies open where keys are sealed; it cannot be read or unsealed.
    pub fn open(registry: &Path, vault: &Vault) -> Result<Self, RegistryError> {
        let gone = || {
            let told = "is gone, or lies open where keys are sealed (keys.encryption_secret): put it back, or make another \
                        with `ndxp-gateway keys init`; acts that wait to be logged are nobody's then";
            RegistryError::Store(format!("{} {told}", path(registry).display()))
        };
        Self::read(registry, vault)?.ok_or_else(gone)
    }

    /// The key of a registry's file, if there is one.
    ///
    /// # Errors
    /// It cannot be read or unsealed.
    pub fn read(registry: &Path, vault: &Vault) -> Result<Option<Self>, RegistryError> {
        let path = path(registry);
        match vault.read_own(&path) {
            Ok(bytes) => Ok(MacKey::of(&bytes).map(ActKey)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unread(&path, &error)),
        }
    }

    /// An act's code, over everything that its row holds, its place in the sequence included. `changes` is the text of the row.
    pub(super) fn code(&self, origin: Origin, act: &Act, changes: &str) -> [u8; CODE_BYTES] {
        self.0.code(&canonical(origin, act, changes))
    }

    /// Whether a code is that act's, and how it came to be noted.
    pub(super) fn origin(&self, act: &Act, changes: &str, code: &[u8]) -> Option<Origin> {
        [Origin::Logged, Origin::Upgraded]
            .into_iter()
            .find(|origin| self.0.is_code(&canonical(*origin, act, changes), code))
    }

    /// The code of a text that the gateway keeps for itself, as bytes.
    pub fn mac_of_text(&self, text: &str) -> [u8; CODE_BYTES] {
        self.0.code(&[TEXT, text.as_bytes()].concat())
    }

    /// The code of a text that the gateway keeps for itself.
    pub fn code_of_text(&self, text: &str) -> String {
        self.0.code_of_text(TEXT, text)
    }

    /// Whether a code is that of a text.
    pub fn is_code_of_text(&self, text: &str, code: &str) -> bool {
        self.0.is_code_of_text(TEXT, text, code)
    }
}

/// Each field with its length: no two rows have the same bytes.
fn canonical(origin: Origin, act: &Act, changes: &str) -> Vec<u8> {
    let (sequence, time_us) = (act.sequence.to_be_bytes(), act.time_us.to_be_bytes());
    let fields: [&[u8]; 12] = [
        origin.domain(),
        &sequence,
        &act.id,
        &time_us,
        act.actor.as_bytes(),
        &act.certificate,
        act.address.as_bytes(),
        act.act.as_bytes(),
        act.object.as_bytes(),
        act.approved_by.as_bytes(),
        act.justification.as_bytes(),
        changes.as_bytes(),
    ];
    let mut bytes = Vec::with_capacity(fields.iter().map(|field| field.len() + 8).sum());
    for field in fields {
        bytes.extend_from_slice(&(field.len() as u64).to_be_bytes());
        bytes.extend_from_slice(field);
    }
    bytes
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn act() -> Act {
        Act {
            sequence: 7,
            id: [1; 16],
            time_us: 5,
            actor: "staff:lan".into(),
            certificate: vec![2; 32],
            address: "192.0.2.1:1".into(),
            act: "client.add".into(),
            object: "client:a".into(),
            approved_by: String::new(),
            justification: "x".into(),
            changes: Vec::new(),
        }
    }

    #[test]
    fn t4_a_code_is_of_one_row_only() {
        let folder = tempfile::tempdir().unwrap();
        let key = ActKey::make(&folder.path().join("registry.sqlite"), &Vault::default()).unwrap();
        let code = key.code(Origin::Logged, &act(), "[]");
        assert_eq!(key.origin(&act(), "[]", &code), Some(Origin::Logged));
        type Edit<'e> = &'e dyn Fn(&mut Act);
        let edits: &[Edit<'_>] = &[
            &|act| act.sequence = 8,
            &|act| act.id[0] = 9,
            &|act| act.time_us += 1,
            &|act| act.actor = "staff:minh".into(),
            &|act| act.certificate.clear(),
            &|act| act.address.clear(),
            &|act| act.act = "client.retire".into(),
            &|act| act.object.push('b'),
            &|act| act.approved_by = "staff:minh".into(),
            // What one field loses, the next one does not gain.
            &|act| (act.approved_by, act.justification) = ("x".into(), String::new()),
        ];
        for (number, edit) in edits.iter().enumerate() {
            let mut edited = act();
            edit(&mut edited);
            assert_eq!(key.origin(&edited, "[]", &code), None, "{number}");
        }
        assert_eq!(key.origin(&act(), "[1]", &code), None);
        assert_eq!(key.origin(&act(), "[]", &[]), None);
        let upgraded = key.code(Origin::Upgraded, &act(), "[]");
        assert_eq!(key.origin(&act(), "[]", &upgraded), Some(Origin::Upgraded));
        let text = key.code_of_text("7");
        assert!(key.is_code_of_text("7", &text) && !key.is_code_of_text("8", &text) && !key.is_code_of_text("7", ""));
        assert!(!key.is_code_of_text("7", &text.to_uppercase()), "the same number in other digits");
    }

    #[test]
    fn t4_the_key_is_kept_and_one_that_lies_open_where_keys_are_sealed_is_nobodys() {
        let folder = tempfile::tempdir().unwrap();
        let registry = folder.path().join("registry.sqlite");
        assert!(ActKey::read(&registry, &Vault::default()).unwrap().is_none());
        let code = |key: &ActKey| key.code(Origin::Logged, &act(), "[]");
        let open = ActKey::make(&registry, &Vault::default()).unwrap();
        assert_eq!(code(&open), code(&ActKey::make(&registry, &Vault::default()).unwrap()));
        // Where a secret is configured, a key that anybody could have put there does not count.
        let vault = Vault::sealed("0123456789abcdef0123456789abcdef").unwrap();
        let sealed = ActKey::make(&registry, &vault).unwrap();
        assert_ne!(code(&open), code(&sealed));
        assert_eq!(code(&sealed), code(&ActKey::make(&registry, &vault).unwrap()));
        assert!(ActKey::make(&registry, &Vault::default()).is_err(), "sealed");
        // Only who says so gets another one.
        std::fs::remove_file(path(&registry)).unwrap();
        let error = ActKey::open(&registry, &vault).unwrap_err().to_string();
        assert!(error.contains("acts.key is gone") && error.contains("keys init"), "{error}");
        assert!(!path(&registry).exists());
        assert_ne!(code(&ActKey::make(&registry, &vault).unwrap()), code(&sealed));
        std::fs::write(path(&registry), b"short").unwrap();
        assert!(ActKey::make(&registry, &Vault::default()).is_err());
    }

    #[test]
    fn processes_that_start_at_once_have_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let registry = folder.path().join("registry.sqlite");
        let open = || code_of(&ActKey::make(&registry, &Vault::default()).unwrap());
        let codes: Vec<_> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(codes.iter().all(|code| *code == codes[0]));
    }

    fn code_of(key: &ActKey) -> [u8; CODE_BYTES] {
        key.code(Origin::Logged, &act(), "[]")
    }
}
