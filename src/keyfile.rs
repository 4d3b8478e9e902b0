//! Files that hold secrets: readable only by their owner, never half-written, and sealed if there is a key for that.
//!
//! A sealed file is `NDXPSEAL1`, a nonce of 12 bytes, and AES-256-GCM over the content, with the file's name as
//! associated data, so that no file can replace another. The key is HKDF-SHA-256 of the configured secret.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::hmac;
use std::fs::{DirBuilder, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

const MAGIC: &[u8; 9] = b"NDXPSEAL1";
const NONCE: usize = 12;

/// A file that a person requested: an export, a receipt, a report, a token. Only its owner may read it, whatever the umask; it is written
/// atomically; and it replaces no other file unless that was requested.
pub struct NewFile {
    fresh: tempfile::NamedTempFile,
    path: PathBuf,
    force: bool,
}

impl NewFile {
    /// Begins the file; `force`: it may replace an existing one of that name.
    ///
    /// # Errors
    /// There is one already, or the folder is not writable. The error names the file, not the one that it is begun as.
    pub fn create(path: &Path, force: bool) -> std::io::Result<Self> {
        if !force && path.symlink_metadata().is_ok() {
            return Err(there_already(path));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let begun =
            tempfile::Builder::new().prefix(".ndxp-").permissions(Permissions::from_mode(0o600)).tempfile_in(folder);
        let fresh = begun.map_err(|error| {
            // The text ends in the path of the file that could not be begun.
            let text = error.to_string();
            let cause = text.split_once(" at path ").map_or(text.as_str(), |(cause, _)| cause);
            std::io::Error::new(error.kind(), format!("{}: {cause}", path.display()))
        })?;
        Ok(NewFile { fresh, path: path.to_owned(), force })
    }

    /// Opens the file that is written to.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn file(&self) -> std::io::Result<File> {
        self.fresh.as_file().try_clone()
    }

    /// Moves the complete file to its path.
    ///
    /// # Errors
    /// It cannot be synced or renamed.
    pub fn keep(self) -> std::io::Result<()> {
        self.fresh.as_file().sync_all()?;
        let kept = if self.force { self.fresh.persist(&self.path) } else { self.fresh.persist_noclobber(&self.path) };
        kept.map(drop).map_err(|error| match error.error.kind() {
            std::io::ErrorKind::AlreadyExists => there_already(&self.path),
            _ => error.error,
        })
    }

    /// Writes a secret file, sealed if there is a key.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(path: &Path, bytes: &[u8], force: bool) -> std::io::Result<()> {
        let new = NewFile::create(path, force)?;
        new.file()?.write_all(bytes)?;
        new.keep()
    }
}

fn there_already(path: &Path) -> std::io::Error {
    let reason = format!("{} is there already: choose another name, or add --force", path.display());
    std::io::Error::new(std::io::ErrorKind::AlreadyExists, reason)
}

/// Makes a folder that only its owner may enter (mode 0700), whatever the umask. If a folder exists and is open to
/// others, it is closed to them, and that is logged: its content was never meant for them.
///
/// # Errors
/// It cannot be made, or is another user's and open.
pub fn private_folder(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let mode = std::fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        std::fs::set_permissions(path, Permissions::from_mode(0o700))?;
        tracing::warn!(folder = %path.display(), mode = format!("{:o}", mode & 0o7777), "the folder let others in: closed to them (0700)");
    }
    Ok(())
}

/// Writes a new file that only its owner may read (mode 0600), durably and atomically.
///
/// # Errors
/// It cannot be written, synced or renamed.
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

/// Reads and writes private keys, sealed if a secret is configured (`keys.encryption_secret`).
#[derive(Clone, Default)]
pub struct Vault(Option<Arc<RandomizedNonceKey>>);

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Vault(sealed)" } else { "Vault(open)" })
    }
}

/// Equal only if they are the same vault: whether two others have the same secret is unknown.
impl PartialEq for Vault {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }
}

impl Eq for Vault {}

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
    /// A vault that seals with this secret; `None` if the system has no AES-256-GCM.
    pub fn sealed(secret: &str) -> Option<Self> {
        let extracted = Salt::new(HKDF_SHA256, b"ndxp-gateway key files").extract(secret.as_bytes());
        let mut key = Zeroizing::new([0; 32]);
        extracted.expand(&[b"v1"], Length32).ok()?.fill(key.as_mut()).ok()?;
        Some(Vault(Some(Arc::new(RandomizedNonceKey::new(&AES_256_GCM, key.as_ref()).ok()?))))
    }

    /// Writes a secret file, sealed if there is a key.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        let Some(key) = &self.0 else { return write_private(path, bytes) };
        write_private(path, &seal(key, name(path), bytes)?)
    }

    /// Returns a secret as it may be stored elsewhere under a name: always sealed, and of use under that name alone.
    ///
    /// # Errors
    /// There is no secret to seal with.
    pub fn seal_text(&self, name: &str, secret: &[u8]) -> std::io::Result<Vec<u8>> {
        let key = self.0.as_ref().ok_or_else(|| failed("cannot be sealed: configure keys.encryption_secret"))?;
        seal(key, Aad::from(name.as_bytes().to_vec()), secret)
    }

    /// Opens a secret that was stored elsewhere.
    ///
    /// # Errors
    /// It is not sealed, or under another name or with another secret.
    pub fn open_text(&self, name: &str, sealed: &[u8]) -> std::io::Result<Zeroizing<Vec<u8>>> {
        match sealed.strip_prefix(MAGIC) {
            Some(sealed) => self.open(Aad::from(name.as_bytes().to_vec()), sealed),
            None => Err(failed("is not sealed")),
        }
    }

    /// Reads a secret file; if there is none yet, writes the result of `make`.
    ///
    /// # Errors
    /// It cannot be read, unsealed or written; `make` returns nothing.
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

    /// Returns whether this vault seals what it writes.
    pub fn seals(&self) -> bool {
        self.0.is_some()
    }

    /// Returns whether a secret file is sealed, with whichever secret.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn is_sealed(path: &Path) -> std::io::Result<bool> {
        Ok(Zeroizing::new(std::fs::read(path)?).starts_with(MAGIC))
    }

    /// Seals a secret file that lies open; one that is sealed stays as it is.
    ///
    /// # Errors
    /// It cannot be read, unsealed or written.
    pub fn seal(&self, path: &Path) -> std::io::Result<()> {
        if Self::is_sealed(path)? { Ok(()) } else { self.write(path, &self.read(path)?) }
    }

    /// Returns whether this vault can open a secret file: false if it is sealed, and there is no secret.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn can_open(&self, path: &Path) -> std::io::Result<bool> {
        Ok(self.0.is_some() || !std::fs::read(path)?.starts_with(MAGIC))
    }

    /// Reads a secret file that must be of this vault's own making: if there is a key, an unsealed file counts as
    /// missing (`NotFound`), since anybody who can write to the folder could have put it there.
    ///
    /// # Errors
    /// It cannot be read or unsealed; `NotFound` if there is none, or one that is not sealed although there is a key.
    pub fn read_own(&self, path: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
        if self.0.is_some() && !std::fs::read(path)?.starts_with(MAGIC) {
            tracing::warn!(file = %path.display(), "is not sealed although keys.encryption_secret is configured: not used");
            return Err(std::io::ErrorKind::NotFound.into());
        }
        self.read(path)
    }

    /// The same; if there is none, writes the result of `make`. Several processes that do so at once all get one file.
    ///
    /// # Errors
    /// As for [`Vault::read_own`], except `NotFound`; it cannot be written, or `make` returns nothing.
    pub fn read_own_or_make(
        &self,
        path: &Path,
        make: impl FnOnce() -> Option<Vec<u8>>,
    ) -> std::io::Result<Zeroizing<Vec<u8>>> {
        match self.read_own(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            read => return read,
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        private_folder(folder)?;
        // One process at a time checks again and makes it.
        let lock = File::options().write(true).create(true).truncate(false).mode(0o600).open(folder.join(".making"))?;
        lock.lock()?;
        match self.read_own(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let fresh = Zeroizing::new(make().ok_or_else(|| failed("no key could be made"))?);
                self.write(path, &fresh)?;
                Ok(fresh)
            }
            read => read,
        }
    }

    /// Reads a secret file. A file from before there was a key is read unsealed.
    ///
    /// # Errors
    /// It cannot be read or unsealed.
    pub fn read(&self, path: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
        let bytes = Zeroizing::new(std::fs::read(path)?);
        match bytes.strip_prefix(MAGIC) {
            Some(sealed) => self.open(name(path), sealed),
            None => Ok(bytes),
        }
    }

    fn open(&self, name: Aad<Vec<u8>>, sealed: &[u8]) -> std::io::Result<Zeroizing<Vec<u8>>> {
        let key = self.0.as_ref().ok_or_else(|| failed("is sealed: configure keys.encryption_secret"))?;
        let (nonce, content) = sealed.split_at_checked(NONCE).ok_or_else(|| failed("is cut off"))?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| failed("is cut off"))?;
        let mut content = Zeroizing::new(content.to_vec());
        let opened = key.open_in_place(nonce, name, &mut content);
        let length = opened.map_err(|_| failed("is sealed with another secret, or was changed"))?.len();
        content.truncate(length);
        Ok(content)
    }
}

/// Bytes of a [`MacKey`], and of its codes (HMAC-SHA-256).
pub const MAC_BYTES: usize = 32;

/// A random key for authentication codes, in a separate secret file. Cheap to clone, and never printed.
#[derive(Clone)]
pub struct MacKey(Arc<hmac::Key>);

impl std::fmt::Debug for MacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MacKey")
    }
}

impl MacKey {
    /// Reads the key of a file, or makes it if there is none.
    ///
    /// # Errors
    /// It cannot be read, unsealed or made, or the file holds something else.
    pub fn open(path: &Path, vault: &Vault) -> std::io::Result<Self> {
        let make = || {
            let mut key = vec![0; MAC_BYTES];
            aws_lc_rs::rand::fill(&mut key).ok()?;
            Some(key)
        };
        Self::of(&vault.read_own_or_make(path, make)?).ok_or_else(no_mac_key)
    }

    /// Reads the key of a file; `None` if there is none.
    ///
    /// # Errors
    /// As for [`MacKey::open`].
    pub fn read(path: &Path, vault: &Vault) -> std::io::Result<Option<Self>> {
        match vault.read_own(path) {
            Ok(bytes) => Self::of(&bytes).ok_or_else(no_mac_key).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the key of these bytes; `None` if they are invalid.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == MAC_BYTES).then(|| MacKey(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, bytes))))
    }

    /// Returns the code of some bytes.
    pub fn code(&self, bytes: &[u8]) -> [u8; MAC_BYTES] {
        let mut code = [0; MAC_BYTES];
        code.copy_from_slice(hmac::sign(&self.0, bytes).as_ref());
        code
    }

    /// Returns whether a code is that of some bytes; compared in constant time.
    pub fn is_code(&self, bytes: &[u8], code: &[u8]) -> bool {
        hmac::verify(&self.0, bytes, code).is_ok()
    }

    /// Returns a context for bytes that come in parts.
    pub fn context(&self) -> hmac::Context {
        hmac::Context::with_key(&self.0)
    }

    /// Returns the code of a text in the gateway's own files, as hexadecimal digits.
    pub fn code_of_text(&self, domain: &[u8], text: &str) -> String {
        crate::hex::hex(&self.code(&[domain, text.as_bytes()].concat()))
    }

    /// Returns whether a code is that of a text.
    pub fn is_code_of_text(&self, domain: &[u8], text: &str, code: &str) -> bool {
        // Only in the digits that [`MacKey::code_of_text`] writes: no byte of a file can change without changing its
        // meaning.
        let bytes = crate::hex::unhex(code).filter(|bytes| crate::hex::hex(bytes) == code);
        bytes.is_some_and(|bytes| self.is_code(&[domain, text.as_bytes()].concat(), &bytes))
    }
}

fn no_mac_key() -> std::io::Error {
    std::io::Error::other("is no key of 32 bytes")
}

fn seal(key: &RandomizedNonceKey, name: Aad<Vec<u8>>, secret: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut content = Zeroizing::new(secret.to_vec());
    let nonce = key.seal_in_place_append_tag(name, &mut *content).map_err(|_| failed("cannot be sealed"))?;
    Ok([MAGIC, nonce.as_ref().as_slice(), &content].concat())
}

/// Where gateways with one log and one registry agree on private keys, each under a name (`signing/<kid>`). Calls block, for
/// seconds where nobody responds.
pub trait SharedSecrets: Send + Sync {
    /// Stores a secret, unless there is one of this name; returns the one that counts.
    ///
    /// # Errors
    /// Nobody responds, or what is there cannot be opened. Whether it was stored is not known then.
    fn agree(&self, name: &str, secret: &[u8]) -> std::io::Result<Zeroizing<Vec<u8>>>;

    /// Returns the secret of a name, if there is one.
    ///
    /// # Errors
    /// Nobody responds, or what is there cannot be opened.
    fn get(&self, name: &str) -> std::io::Result<Option<Zeroizing<Vec<u8>>>>;

    /// Returns the names with this prefix.
    ///
    /// # Errors
    /// Nobody responds.
    fn names(&self, prefix: &str) -> std::io::Result<Vec<String>>;
}

fn name(path: &Path) -> Aad<Vec<u8>> {
    Aad::from(path.file_name().map(|name| name.as_encoded_bytes().to_vec()).unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_is_stored_elsewhere_is_sealed_and_of_use_under_its_name_alone() {
        let [one, other] = ["one", "other"].map(|secret| Vault::sealed(&secret.repeat(12)).unwrap());
        let sealed = one.seal_text("signing/a", b"key").unwrap();
        assert_eq!(one.open_text("signing/a", &sealed).unwrap().as_slice(), b"key");
        assert!(one.open_text("signing/b", &sealed).is_err() && other.open_text("signing/a", &sealed).is_err());
        assert!(one.open_text("signing/a", b"key").is_err(), "it was not sealed");
        assert!(Vault::default().seal_text("signing/a", b"key").is_err(), "there is no secret to seal with");
    }

    #[test]
    fn a_new_file_is_its_owner_s_and_takes_no_other_s_place_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("receipt.txt");
        NewFile::write(&path, b"one", false).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&path), 0o600);
        let error = NewFile::write(&path, b"two", false).unwrap_err();
        assert!(error.to_string().contains("--force"), "{error}");
        // Also one that appeared meanwhile, and a dangling link.
        let late = folder.path().join("late");
        let new = NewFile::create(&late, false).unwrap();
        std::fs::write(&late, b"another's").unwrap();
        assert!(new.keep().is_err());
        assert_eq!(std::fs::read(&late).unwrap(), b"another's");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/nowhere", &link).unwrap();
        assert!(NewFile::create(&link, false).is_err());
        // With permission it is replaced, with its wider mode.
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        NewFile::write(&path, b"three", true).unwrap();
        assert_eq!((std::fs::read(&path).unwrap().as_slice(), mode(&path)), (b"three".as_slice(), 0o600));
        // A dropped file leaves nothing behind.
        drop(NewFile::create(&folder.path().join("never"), false).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_private_folder_is_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        let (fresh, wide) = (folder.path().join("a/data"), folder.path().join("wide"));
        private_folder(&fresh).unwrap();
        std::fs::create_dir(&wide).unwrap();
        std::fs::set_permissions(&wide, Permissions::from_mode(0o755)).unwrap();
        private_folder(&wide).unwrap();
        assert_eq!((mode(&fresh), mode(&wide)), (0o700, 0o700));
    }

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
