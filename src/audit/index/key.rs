//! The key that authenticates the content of the index. An attacker who edits the index's file with an SQLite tool, or replaces
//! it, does not have the key, and every page of a search detects it. An attacker who can also read `keys/index.key` can make
//! any index; `audit verify --index` finds that, since it recomputes everything from the log.
//!
//! The key is derived data like the index: if it is missing, both are rebuilt.

use super::part::IndexPart;
use crate::exchange_log::tree::Hash;
use crate::keyfile::{MacKey, Vault};
use aws_lc_rs::hmac;
use std::path::{Path, PathBuf};

/// Prefix of a text's code, different from that of a cell.
const TEXT: &[u8] = b"ndxp index text\0";

/// The key of a data folder's index. Cheap to clone.
#[derive(Debug, Clone)]
pub struct IndexKey(MacKey);

fn path(data: &Path) -> PathBuf {
    data.join("keys").join("index.key")
}

fn named(error: std::io::Error) -> std::io::Error {
    std::io::Error::new(error.kind(), format!("keys/index.key: {error}"))
}

impl IndexKey {
    /// Reads the key of a data folder, or makes it if there is none.
    ///
    /// # Errors
    /// It cannot be read, unsealed or made.
    pub fn open(data: &Path, vault: &Vault) -> std::io::Result<Self> {
        MacKey::open(&path(data), vault).map(IndexKey).map_err(named)
    }

    /// Reads the key of a data folder; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read or unsealed.
    pub fn read(data: &Path, vault: &Vault) -> std::io::Result<Option<Self>> {
        Ok(MacKey::read(&path(data), vault).map_err(named)?.map(IndexKey))
    }

    fn context(&self, part: IndexPart, cell: u16, node: &Hash, bytes: &[u8]) -> hmac::Context {
        let mut context = self.0.context();
        context.update(b"ndxp index 2\0");
        // The node above the cell's entries: in another log, or at another position, it differs.
        context.update(node);
        context.update(&part.row(cell).to_be_bytes());
        context.update(bytes);
        context
    }

    /// Returns the code of a cell of the entries below a node of the log's tree.
    pub fn code(&self, part: IndexPart, cell: u16, node: &Hash, bytes: &[u8]) -> Vec<u8> {
        self.context(part, cell, node, bytes).sign().as_ref().to_vec()
    }

    /// Returns whether a code is that of a cell.
    pub fn is_code(&self, part: IndexPart, cell: u16, node: &Hash, bytes: &[u8], code: &[u8]) -> bool {
        let own = self.context(part, cell, node, bytes).sign();
        aws_lc_rs::constant_time::verify_slices_are_equal(own.as_ref(), code).is_ok()
    }

    /// Returns the code of a text that the gateway keeps for itself.
    pub fn code_of_text(&self, text: &str) -> String {
        self.0.code_of_text(TEXT, text)
    }

    /// Returns whether a code is that of a text.
    pub fn is_code_of_text(&self, text: &str, code: &str) -> bool {
        self.0.is_code_of_text(TEXT, text, code)
    }
}
