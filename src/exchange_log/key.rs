//! The log's signing key, `keys/log.key` below the data folder. Only a command makes it, and only if there is no log
//! yet: a new key beside an old log would make signatures that no verifier trusts, and would hide the loss of the old
//! one.

use super::checkpoint::{LogSigner, LogVerifier};
use super::reader::VKEY_FILE;
use super::segment::ChainKey;
use super::tiles::checkpoint_path;
use super::{LogError, LogPaths};
use crate::keyfile::{Vault, private_folder};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The reason that there is no key.
#[derive(Debug, thiserror::Error)]
pub enum LogKeyError {
    /// There is none.
    #[error(
        "{0} is missing: `ndxp-gateway keys init` makes it for a new log; where this log was written before, put its key back"
    )]
    Missing(PathBuf),
    /// It cannot be read, unsealed or written.
    #[error("{0}: {1}")]
    Unusable(PathBuf, String),
    /// No key is made, since there is a log that another key signed.
    #[error(
        "{key} is missing, but {there} is of a log that was signed with it: put the key back, or begin a new log in an empty folder"
    )]
    OfAnotherLog {
        /// The path of the key.
        key: PathBuf,
        /// The existing part of the log.
        there: PathBuf,
    },
    /// The folder cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Returns the path of the key of a data folder's log.
pub fn path(data: &Path) -> PathBuf {
    data.join("keys").join("log.key")
}

fn signer(path: &Path, origin: &str, bytes: &[u8]) -> Result<LogSigner, LogKeyError> {
    let wrong = || LogKeyError::Unusable(path.to_owned(), "is no Ed25519 key (PKCS#8)".into());
    LogSigner::from_pkcs8(origin, bytes).ok_or_else(wrong)
}

/// Reads the key of a data folder's log.
///
/// # Errors
/// The key is missing, or cannot be read or unsealed.
pub fn read(data: &Path, vault: &Vault, origin: &str) -> Result<LogSigner, LogKeyError> {
    let path = path(data);
    match vault.read(&path) {
        Ok(bytes) => signer(&path, origin, &bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(LogKeyError::Missing(path)),
        Err(error) => Err(LogKeyError::Unusable(path, error.to_string())),
    }
}

/// Makes the key if there is neither a key nor a log; returns false if there is a key.
///
/// # Errors
/// There is a log without its key, or the key cannot be written.
pub fn make(data: &Path, vault: &Vault) -> Result<bool, LogKeyError> {
    let path = path(data);
    if path.exists() {
        return Ok(false);
    }
    if let Some(there) = traces(data)? {
        return Err(LogKeyError::OfAnotherLog { key: path, there });
    }
    private_folder(data).map_err(|error| LogError::io(data, &error))?;
    let made = vault.read_own_or_make(&path, LogSigner::generate);
    made.map(|_| true).map_err(|error| LogKeyError::Unusable(path, error.to_string()))
}

/// Returns the key of the journal's chain, to verify a data folder with; `None` if the log's key is missing, or is
/// sealed and its secret is not available, as in an auditor's copy.
///
/// # Errors
/// The key is damaged, or is not the one that this log is verified with.
pub fn chain(data: &Path, vault: &Vault, verifier: &LogVerifier) -> Result<Option<ChainKey>, LogKeyError> {
    let unusable = |error: std::io::Error| LogKeyError::Unusable(path(data), error.to_string());
    if !path(data).exists() || !vault.can_open(&path(data)).map_err(unusable)? {
        return Ok(None);
    }
    let signer = read(data, vault, verifier.origin())?;
    if signer.verifier() == *verifier {
        return Ok(Some(signer.chain_key()));
    }
    Err(LogKeyError::Unusable(path(data), "is not the key that this log is verified with".into()))
}

/// Returns an existing file of a log, if there is one.
fn traces(data: &Path) -> Result<Option<PathBuf>, LogError> {
    let paths = LogPaths::new(data);
    let files = [checkpoint_path(&paths.tiles), paths.tiles.join(VKEY_FILE), paths.signed.clone()];
    let segments = super::journal::segments(&*paths.disk, &paths.journal)?.into_iter().map(|(_, path)| path);
    Ok(files.into_iter().filter(|file| file.exists()).chain(segments).next())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::exchange_log::{Entry, ExchangeLog, Kind};

    #[test]
    fn a_chain_s_key_is_had_where_the_log_s_own_is_at_hand() {
        let folder = tempfile::tempdir().unwrap();
        let (data, vault, open) =
            (folder.path(), Vault::sealed("0123456789abcdef0123456789abcdef").unwrap(), Vault::default());
        make(data, &vault).unwrap();
        let verifier = read(data, &vault, "log.example/k").unwrap().verifier();
        assert!(chain(data, &vault, &verifier).unwrap().is_some());
        assert!(chain(data, &open, &verifier).unwrap().is_none(), "sealed, and the secret is not here");
        let mut bytes = std::fs::read(path(data)).unwrap();
        bytes[30] ^= 1;
        std::fs::write(path(data), &bytes).unwrap();
        assert!(chain(data, &vault, &verifier).is_err(), "damaged");
        std::fs::remove_file(path(data)).unwrap();
        assert!(chain(data, &vault, &verifier).unwrap().is_none());
        make(data, &open).unwrap();
        let error = chain(data, &open, &verifier).unwrap_err().to_string();
        assert!(error.contains("is not the key that this log is verified with"), "{error}");
    }

    #[test]
    fn l11_a_key_is_made_on_command_only_and_never_beside_a_log() {
        let folder = tempfile::tempdir().unwrap();
        let (data, vault) = (folder.path(), Vault::default());
        let read = || read(data, &vault, "log.example/k").map(|signer| signer.verifier());
        let make = || make(data, &vault);
        let error = read().unwrap_err().to_string();
        assert!(error.contains("keys/log.key is missing") && error.contains("keys init"), "{error}");
        assert!(!path(data).exists(), "reading makes nothing");
        assert!(make().unwrap());
        let key = read().unwrap();
        assert!(!make().unwrap() && read().unwrap() == key, "it is made once");
        let bytes = std::fs::read(path(data)).unwrap();
        let log = ExchangeLog::open(data, LogSigner::from_pkcs8("log.example/k", &bytes).unwrap()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(log.append(&Entry::begin(Kind::Exchange, "dc1"))).unwrap();
        drop(log);
        // Lost: whatever remains of its log, no other key replaces it.
        std::fs::remove_file(path(data)).unwrap();
        for left in ["log/checkpoint", "log/vkey", "state/signed-checkpoint", "journal"] {
            let error = make().unwrap_err().to_string();
            assert!(error.contains("put the key back") && error.contains(left), "{error}");
            assert!(!path(data).exists());
            let left = data.join(left);
            if left.is_dir() { std::fs::remove_dir_all(left) } else { std::fs::remove_file(left) }.unwrap();
        }
        assert!(make().unwrap(), "an empty folder begins a new log");
    }
}
