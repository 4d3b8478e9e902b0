//! Files that hold secrets: readable by their owner only, never half-written, and sealed where a key for that is given.
//!
//! A sealed file is `NDXPSEAL1`, a nonce of 12 bytes, and AES-256-GCM over the content, with the file's name as
//! associated data, so that one cannot be put in another's place. The key is HKDF-SHA-256 of the configured secret.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroizing;

const MAGIC: &[u8; 9] = b"NDXPSEAL1";
const NONCE: usize = 12;

/// Writes a new file that only its owner may read (mode 0600), durably, whole or not at all.
pub fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let fresh = path.with_extension(format!("new{}", std::process::id()));
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}

/// Reads and writes private keys, sealed where a secret is configured (`keys.encryption_secret`).
#[derive(Clone, Default)]
pub struct Vault(Option<Arc<RandomizedNonceKey>>);

struct Length32;

impl KeyType for Length32 {
    fn len(&self) -> usize {
        32
    }
}

fn failed(reason: &'static str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, reason)
}

impl Vault {
    /// A vault that seals with this secret; `None` where the system has no AES-256-GCM.
    pub fn sealed(secret: &str) -> Option<Self> {
        let extracted = Salt::new(HKDF_SHA256, b"ndxp-gateway key files").extract(secret.as_bytes());
        let mut key = Zeroizing::new([0; 32]);
        extracted.expand(&[b"v1"], Length32).ok()?.fill(key.as_mut()).ok()?;
        Some(Vault(Some(Arc::new(RandomizedNonceKey::new(&AES_256_GCM, key.as_ref()).ok()?))))
    }

    /// Writes a secret file, sealed where there is a key.
    pub fn write(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        let Some(key) = &self.0 else { return write_private(path, bytes) };
        let mut content = Zeroizing::new(bytes.to_vec());
        let nonce = key.seal_in_place_append_tag(name(path), &mut *content).map_err(|_| failed("cannot be sealed"))?;
        write_private(path, &[MAGIC, nonce.as_ref().as_slice(), &content].concat())
    }

    /// Reads a secret file; where there is none yet, writes what `make` gives.
    pub fn read_or_make(
        &self,
        path: &Path,
        make: impl FnOnce() -> Option<Vec<u8>>,
    ) -> std::io::Result<Zeroizing<Vec<u8>>> {
        match self.read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let fresh = Zeroizing::new(make().ok_or_else(|| failed("no key could be made"))?);
                self.write(path, &fresh)?;
                Ok(fresh)
            }
            read => read,
        }
    }

    /// Reads a secret file. One that was written before there was a key is read as it is.
    pub fn read(&self, path: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
        let bytes = Zeroizing::new(std::fs::read(path)?);
        let Some(sealed) = bytes.strip_prefix(MAGIC) else { return Ok(bytes) };
        let key = self.0.as_ref().ok_or_else(|| failed("is sealed: configure keys.encryption_secret"))?;
        let (nonce, content) = sealed.split_at_checked(NONCE).ok_or_else(|| failed("is cut off"))?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| failed("is cut off"))?;
        let mut content = Zeroizing::new(content.to_vec());
        let opened = key.open_in_place(nonce, name(path), &mut content);
        let length = opened.map_err(|_| failed("is sealed with another secret, or was changed"))?.len();
        content.truncate(length);
        Ok(content)
    }
}

fn name(path: &Path) -> Aad<Vec<u8>> {
    Aad::from(path.file_name().map(|name| name.as_encoded_bytes().to_vec()).unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_file_opens_with_its_secret_and_under_its_name_only() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a.key"), folder.path().join("b.key"));
        let vault = Vault::sealed("correct horse battery staple 0123456789").unwrap();
        vault.write(&path, b"the key").unwrap();
        assert_eq!(vault.read(&path).unwrap().as_slice(), b"the key");
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"the key"));
        std::fs::write(&other, &bytes).unwrap();
        assert!(vault.read(&other).is_err(), "under another name");
        assert!(Vault::sealed("another secret").unwrap().read(&path).is_err());
        assert!(Vault::default().read(&path).is_err());
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            std::fs::write(&path, &changed).unwrap();
            assert!(vault.read(&path).map_or(true, |read| read.as_slice() != b"the key"), "byte {at}");
        }
        std::fs::write(&path, b"plain").unwrap();
        assert_eq!(vault.read(&path).unwrap().as_slice(), b"plain");
    }
}
