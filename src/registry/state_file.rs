//! Files below `state/` that the gateway keeps for itself and that no entry of the log covers: JSON with a code of the
//! key of admin events (`keys/acts.key`), so that content from anybody else is detected and ignored.

use super::AdminEventKey;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;

const CODE: &str = "{\"code\":\"";
const STATE: &str = "\",\"state\":";

/// The reason that such a file is ignored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateFileError {
    /// Its code is missing, or another key's.
    #[error("was not written with keys/acts.key: one of the two was changed")]
    Foreign,
    /// There is no key that could authenticate it.
    #[error("cannot be checked: there is no keys/acts.key")]
    NoKey,
    /// Its content cannot be read or written.
    #[error("{0}")]
    Malformed(String),
}

/// The input of a code: the file's name, so that no file passes for another, and its content.
fn of(file: &Path, state: &str) -> String {
    format!("{}\n{state}", file.file_name().unwrap_or_default().to_string_lossy())
}

/// Returns the text of a file that holds `state`.
///
/// # Errors
/// The state cannot be encoded as JSON.
pub fn encode(file: &Path, key: &AdminEventKey, state: &impl Serialize) -> Result<String, StateFileError> {
    let state = serde_json::to_string(state).map_err(|error| StateFileError::Malformed(error.to_string()))?;
    Ok(format!("{CODE}{}{STATE}{state}}}", key.code_of_text(&of(file, &state))))
}

/// Returns the state in a file's text exactly as it was written; every byte of it counts.
fn state<'t>(file: &Path, key: &AdminEventKey, text: &'t str) -> Option<&'t str> {
    let (code, state) = text.strip_prefix(CODE)?.strip_suffix('}')?.split_once(STATE)?;
    key.is_code_of_text(&of(file, state), code).then_some(state)
}

/// Returns the state in a file's text.
///
/// # Errors
/// It was not written by [`encode`] with this key, or is another kind of file.
pub fn decode<T: DeserializeOwned>(file: &Path, key: Option<&AdminEventKey>, text: &str) -> Result<T, StateFileError> {
    let state = state(file, key.ok_or(StateFileError::NoKey)?, text).ok_or(StateFileError::Foreign)?;
    serde_json::from_str(state).map_err(|error| StateFileError::Malformed(error.to_string()))
}

/// Returns whether a file exists that was not written with this key.
pub fn is_foreign(file: &Path, key: &AdminEventKey) -> bool {
    match std::fs::read(file) {
        Ok(bytes) => std::str::from_utf8(&bytes).ok().and_then(|text| state(file, key, text)).is_none(),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::keyfile::Vault;

    #[test]
    fn l9_every_byte_of_a_file_is_vouched_for_under_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let key = AdminEventKey::make(&folder.path().join("registry.sqlite"), &Vault::default()).unwrap();
        let (file, other) = (folder.path().join("one.json"), folder.path().join("two.json"));
        assert!(!is_foreign(&file, &key), "none is there");
        let text = encode(&file, &key, &vec![1, 22, 333]).unwrap();
        assert_eq!(decode::<Vec<u32>>(&file, Some(&key), &text), Ok(vec![1, 22, 333]));
        assert!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["state"].is_array());
        std::fs::write(&file, &text).unwrap();
        assert!(!is_foreign(&file, &key));
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                std::fs::write(&file, &bytes).unwrap();
                assert!(is_foreign(&file, &key), "byte {at}, bit {bit}");
                let text = String::from_utf8_lossy(&bytes);
                assert_eq!(decode::<Vec<u32>>(&file, Some(&key), &text), Err(StateFileError::Foreign));
            }
            std::fs::write(&file, &text[..at]).unwrap();
            assert!(is_foreign(&file, &key), "cut at {at}");
        }
        for longer in [format!("{text}\n"), format!(" {text}"), text.replace("[1", "[ 1")] {
            assert_eq!(decode::<Vec<u32>>(&file, Some(&key), &longer), Err(StateFileError::Foreign), "{longer}");
        }
        assert_eq!(decode::<Vec<u32>>(&other, Some(&key), &text), Err(StateFileError::Foreign), "under another name");
        assert_eq!(decode::<Vec<u32>>(&file, None, &text), Err(StateFileError::NoKey));
        assert!(matches!(decode::<String>(&file, Some(&key), &text), Err(StateFileError::Malformed(_))));
    }
}
