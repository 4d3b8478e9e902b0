//! Rows of the file of issued tokens.

use super::super::{RegistryError, TokenRecord};
use super::rows::list;
use rusqlite::{Connection, params};

/// Records tokens, unless they are there already.
pub(super) fn add_known(issued: &mut Connection, tokens: &[TokenRecord]) -> Result<(), RegistryError> {
    let whole = issued.transaction()?;
    tokens.iter().try_for_each(|token| insert(&whole, "INSERT OR IGNORE", token))?;
    whole.commit()?;
    Ok(())
}

/// Refuses ids that are taken.
pub(super) fn must_be_new(issued: &Connection, tokens: &[TokenRecord]) -> Result<(), RegistryError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM tokens WHERE id = ?1)";
    tokens.iter().try_for_each(|token| super::must_be_new(issued, sql, "token", &token.id))
}

/// Records a token: `INSERT`, or `INSERT OR IGNORE` one that is there already.
pub(super) fn insert(issued: &Connection, how: &str, token: &TokenRecord) -> rusqlite::Result<()> {
    let (scopes, certificate) = (list(&token.scopes), &token.certificate);
    let row = params![token.id, token.client, scopes, certificate, token.issued, token.starts, token.expires];
    issued.prepare_cached(&format!("{how} INTO tokens VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)"))?.execute(row).map(drop)
}
