//! The file of issued tokens of a replica.

use super::super::{RegistryError, TokenRecord};
use super::rows::list;
use rusqlite::{Connection, params};

/// Records tokens, unless they are there already.
pub(super) fn add_known(issued: &mut Connection, tokens: &[TokenRecord]) -> Result<(), RegistryError> {
    let whole = issued.transaction()?;
    for token in tokens {
        let (scopes, certificate) = (list(&token.scopes), &token.certificate);
        let row = params![token.id, token.client, scopes, certificate, token.issued, token.starts, token.expires];
        let sql = "INSERT OR IGNORE INTO tokens VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        whole.prepare_cached(sql)?.execute(row)?;
    }
    whole.commit()?;
    Ok(())
}
