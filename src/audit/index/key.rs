//! The key that vouches for what the index holds. Whoever edits the index's file with a tool of SQLite, or puts another in its
//! place, lacks it, and every page of a search notices. Whoever may read `keys/index.key` as well can make an index that says
//! what they like; `audit verify --index` finds that, since it recomputes everything from the log.
//!
//! The key is as derived as the index: where it is gone, both are made anew.

use super::part::Part;
use crate::exchange_log::tree::Hash;
use crate::keyfile::Vault;
use aws_lc_rs::hmac;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const KEY_BYTES: usize = 32;

/// The key of a data folder's index. Cheap to clone.
#[derive(Clone)]
pub struct IndexKey(Arc<hmac::Key>);

impl std::fmt::Debug for IndexKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IndexKey")
    }
}

fn path(data: &Path) -> PathBuf {
    data.join("keys").join("index.key")
}

impl IndexKey {
    /// The key of a data folder, made where there is none.
    ///
    /// # Errors
    /// It cannot be read, unsealed or made.
    pub fn open(data: &Path, vault: &Vault) -> std::io::Result<Self> {
        let make = || {
            let mut key = vec![0; KEY_BYTES];
            aws_lc_rs::rand::fill(&mut key).ok()?;
            Some(key)
        };
        Self::of(&vault.read_own_or_make(&path(data), make)?)
    }

    /// The key of a data folder; `None` where there is none.
    ///
    /// # Errors
    /// It cannot be read or unsealed.
    pub fn read(data: &Path, vault: &Vault) -> std::io::Result<Option<Self>> {
        match vault.read_own(&path(data)) {
            Ok(bytes) => Self::of(&bytes).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn of(bytes: &[u8]) -> std::io::Result<Self> {
        let whole = bytes.len() == KEY_BYTES;
        let key = whole.then(|| IndexKey(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, bytes))));
        key.ok_or_else(|| std::io::Error::other("keys/index.key is no key of 32 bytes"))
    }

    fn context(&self, part: Part, cell: u16, node: &Hash, bytes: &[u8]) -> hmac::Context {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(b"ndxp index 2\0");
        // The entries that the cell is of: another log's, or another place's, have another node.
        context.update(node);
        context.update(&part.row(cell).to_be_bytes());
        context.update(bytes);
        context
    }

    /// The code of a cell of the entries below a node of the log's tree.
    pub fn code(&self, part: Part, cell: u16, node: &Hash, bytes: &[u8]) -> Vec<u8> {
        self.context(part, cell, node, bytes).sign().as_ref().to_vec()
    }

    /// Whether a code is that of a cell.
    pub fn is_code(&self, part: Part, cell: u16, node: &Hash, bytes: &[u8], code: &[u8]) -> bool {
        let own = self.context(part, cell, node, bytes).sign();
        aws_lc_rs::constant_time::verify_slices_are_equal(own.as_ref(), code).is_ok()
    }

    /// The code of a text that the gateway keeps for itself.
    pub fn code_of_text(&self, text: &str) -> String {
        crate::hex::hex(hmac::sign(&self.0, &[b"ndxp index text\0", text.as_bytes()].concat()).as_ref())
    }
}
