//! The key that authenticates admin events while they wait in the registry's file for the exchange log. An editor of the file with an
//! SQLite tool has no such key, so a row that is invented, changed, moved or restored is distinguished from one that was recorded with its
//! change, and never becomes an entry in a person's name.
//!
//! The key is in `keys/acts.key` beside the registry, sealed where `keys.encryption_secret` is configured. Anyone who can read that file
//! and write the registry has everything that the gateway has; not so with the secret stored elsewhere.

use super::{AdminEvent, RegistryError};
use crate::keyfile::{MAC_BYTES, MacKey, Vault};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Bytes of an authentication code.
pub const CODE_BYTES: usize = MAC_BYTES;
/// The domain of a text's code: no event's code has it.
const TEXT: &[u8] = b"ndxp text\0";

/// How an event was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// With its change, in one transaction.
    Logged,
    /// By an older version, which authenticated nothing; adopted when its file was upgraded.
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

/// Authenticates admin events. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AdminEventKey(MacKey);

/// Returns the path of the key of a registry's file.
fn path(registry: &Path) -> PathBuf {
    registry.with_file_name("keys").join("acts.key")
}

fn unread(path: &Path, error: &std::io::Error) -> RegistryError {
    RegistryError::Store(format!("{}: {error}", path.display()))
}

impl AdminEventKey {
    /// Reads the key of a registry's file, or makes it if there is none: with a new file, or on command. Events that
    /// another key authenticated are then refused.
    ///
    /// # Errors
    /// The key cannot be read, unsealed, or made.
    pub fn make(registry: &Path, vault: &Vault) -> Result<Self, RegistryError> {
        let path = path(registry);
        MacKey::open(&path, vault).map(AdminEventKey).map_err(|error| unread(&path, &error))
    }

    /// Reads the key that a registry's file was made with.
    ///
    /// # Errors
    /// It is missing, not sealed although keys are sealed, or cannot be read or unsealed.
    pub fn open(registry: &Path, vault: &Vault) -> Result<Self, RegistryError> {
        let gone = || {
            let advice = "is gone, or lies open where keys are sealed (keys.encryption_secret): put it back, or make another \
                        with `ndxp-gateway keys init`; acts that wait to be logged are nobody's then";
            RegistryError::Store(format!("{} {advice}", path(registry).display()))
        };
        Self::read(registry, vault)?.ok_or_else(gone)
    }

    /// Reads the key of a registry's file, if there is one.
    ///
    /// # Errors
    /// It cannot be read or unsealed.
    pub fn read(registry: &Path, vault: &Vault) -> Result<Option<Self>, RegistryError> {
        let path = path(registry);
        match vault.read_own(&path) {
            Ok(bytes) => Ok(MacKey::of(&bytes).map(AdminEventKey)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unread(&path, &error)),
        }
    }

    /// Returns an event's code, over everything in its row, its number in the sequence included. `changes` is the text of the row.
    pub(super) fn code(&self, origin: Origin, event: &AdminEvent, changes: &str) -> [u8; CODE_BYTES] {
        self.0.code(&canonical(origin, event, changes))
    }

    /// Returns how an event was recorded, if a code is that event's.
    pub(super) fn origin(&self, event: &AdminEvent, changes: &str, code: &[u8]) -> Option<Origin> {
        [Origin::Logged, Origin::Upgraded]
            .into_iter()
            .find(|origin| self.0.is_code(&canonical(*origin, event, changes), code))
    }

    /// Returns the code of a text in the gateway's own files, as bytes.
    pub fn mac_of_text(&self, text: &str) -> [u8; CODE_BYTES] {
        self.0.code(&[TEXT, text.as_bytes()].concat())
    }

    /// Returns the code of a text in the gateway's own files.
    pub fn code_of_text(&self, text: &str) -> String {
        self.0.code_of_text(TEXT, text)
    }

    /// Returns whether a code is that of a text.
    pub fn is_code_of_text(&self, text: &str, code: &str) -> bool {
        self.0.is_code_of_text(TEXT, text, code)
    }
}

/// Each field with its length: no two rows have the same bytes.
fn canonical(origin: Origin, event: &AdminEvent, changes: &str) -> Vec<u8> {
    let (sequence, time_us) = (event.sequence.to_be_bytes(), event.time_us.to_be_bytes());
    // Last, and only where there is one: codes of older versions stay valid.
    let provider = event.identity_provider.as_bytes();
    let fields: [&[u8]; 13] = [
        origin.domain(),
        &sequence,
        &event.id,
        &time_us,
        event.actor.as_bytes(),
        &event.certificate,
        event.address.as_bytes(),
        event.event.as_bytes(),
        event.object.as_bytes(),
        event.approved_by.as_bytes(),
        event.justification.as_bytes(),
        changes.as_bytes(),
        provider,
    ];
    let fields = if provider.is_empty() { &fields[..12] } else { &fields[..] };
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

    fn event() -> AdminEvent {
        AdminEvent {
            sequence: 7,
            id: [1; 16],
            time_us: 5,
            actor: "staff:lan".into(),
            certificate: vec![2; 32],
            identity_provider: String::new(),
            address: "192.0.2.1:1".into(),
            event: "client.add".into(),
            object: "client:a".into(),
            approved_by: String::new(),
            justification: "x".into(),
            changes: Vec::new(),
        }
    }

    #[test]
    fn t4_a_code_is_of_one_row_only() {
        let folder = tempfile::tempdir().unwrap();
        let key = AdminEventKey::make(&folder.path().join("registry.sqlite"), &Vault::default()).unwrap();
        let code = key.code(Origin::Logged, &event(), "[]");
        assert_eq!(key.origin(&event(), "[]", &code), Some(Origin::Logged));
        type Edit<'e> = &'e dyn Fn(&mut AdminEvent);
        let edits: &[Edit<'_>] = &[
            &|event| event.sequence = 8,
            &|event| event.id[0] = 9,
            &|event| event.time_us += 1,
            &|event| event.actor = "staff:minh".into(),
            &|event| event.certificate.clear(),
            &|event| event.identity_provider = "https://sso.vn".into(),
            &|event| event.address.clear(),
            &|event| event.event = "client.retire".into(),
            &|event| event.object.push('b'),
            &|event| event.approved_by = "staff:minh".into(),
            // A byte that one field loses is not gained by the next.
            &|event| (event.approved_by, event.justification) = ("x".into(), String::new()),
        ];
        for (number, edit) in edits.iter().enumerate() {
            let mut edited = event();
            edit(&mut edited);
            assert_eq!(key.origin(&edited, "[]", &code), None, "{number}");
        }
        assert_eq!(key.origin(&event(), "[1]", &code), None);
        assert_eq!(key.origin(&event(), "[]", &[]), None);
        let upgraded = key.code(Origin::Upgraded, &event(), "[]");
        assert_eq!(key.origin(&event(), "[]", &upgraded), Some(Origin::Upgraded));
        let text = key.code_of_text("7");
        assert!(key.is_code_of_text("7", &text) && !key.is_code_of_text("8", &text) && !key.is_code_of_text("7", ""));
        assert!(!key.is_code_of_text("7", &text.to_uppercase()), "the same number in other digits");
    }

    #[test]
    fn t4_the_key_is_kept_and_one_that_lies_open_where_keys_are_sealed_is_nobodys() {
        let folder = tempfile::tempdir().unwrap();
        let registry = folder.path().join("registry.sqlite");
        assert!(AdminEventKey::read(&registry, &Vault::default()).unwrap().is_none());
        let code = |key: &AdminEventKey| key.code(Origin::Logged, &event(), "[]");
        let open = AdminEventKey::make(&registry, &Vault::default()).unwrap();
        assert_eq!(code(&open), code(&AdminEventKey::make(&registry, &Vault::default()).unwrap()));
        // If a secret is configured, a key that anybody could have put there is refused.
        let vault = Vault::sealed("0123456789abcdef0123456789abcdef").unwrap();
        let sealed = AdminEventKey::make(&registry, &vault).unwrap();
        assert_ne!(code(&open), code(&sealed));
        assert_eq!(code(&sealed), code(&AdminEventKey::make(&registry, &vault).unwrap()));
        assert!(AdminEventKey::make(&registry, &Vault::default()).is_err(), "sealed");
        // Only an explicit command makes another one.
        std::fs::remove_file(path(&registry)).unwrap();
        let error = AdminEventKey::open(&registry, &vault).unwrap_err().to_string();
        assert!(error.contains("acts.key is gone") && error.contains("keys init"), "{error}");
        assert!(!path(&registry).exists());
        assert_ne!(code(&AdminEventKey::make(&registry, &vault).unwrap()), code(&sealed));
        std::fs::write(path(&registry), b"short").unwrap();
        assert!(AdminEventKey::make(&registry, &Vault::default()).is_err());
    }

    #[test]
    fn processes_that_start_at_once_have_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let registry = folder.path().join("registry.sqlite");
        let open = || code_of(&AdminEventKey::make(&registry, &Vault::default()).unwrap());
        let codes: Vec<_> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(codes.iter().all(|code| *code == codes[0]));
    }

    fn code_of(key: &AdminEventKey) -> [u8; CODE_BYTES] {
        key.code(Origin::Logged, &event(), "[]")
    }
}
