//! Issued tokens and their revocations.

use super::super::{MAX_SKEW_S, RegistryError, TokenRecord, now};
use super::changing::TouchedObjects;
use super::{SqliteStore, constraint, issued};
use rusqlite::params;

/// Records tokens in the file of issued ones, once the engine has them if there is one.
pub(super) fn add(store: &SqliteStore, tokens: &[TokenRecord]) -> Result<(), RegistryError> {
    if let Some(replication) = &store.replication {
        // Before the engine has them: afterwards they are known here.
        issued::must_be_new(&store.issued(), tokens)?;
        replication.add_tokens(tokens)?;
        // The gateway may have read them already, as those of others.
        return issued::add_known(&mut store.issued(), tokens);
    }
    let mut file = store.issued();
    let whole = file.transaction()?;
    for token in tokens {
        let added = issued::insert(&whole, "INSERT", token);
        added.map_err(|error| constraint(error, "token", &token.id, &token.client))?;
    }
    whole.commit()?;
    Ok(())
}

/// Removes tokens that expired before a time, with their revocations, at most `most`; returns their number.
pub(super) fn remove_ended(store: &SqliteStore, before: i64, most: usize) -> Result<usize, RegistryError> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let sql =
        "DELETE FROM tokens WHERE rowid IN (SELECT rowid FROM tokens WHERE expires < ?1 ORDER BY expires LIMIT ?2)";
    let removed = store.issued().prepare_cached(sql)?.execute(params![before, most])?;
    // A token may be accepted for some time after its end: until then its revocation must be known.
    let before = before.min(now() - MAX_SKEW_S);
    if store.replication.is_none() {
        store.connection().prepare_cached(REMOVE_REVOCATIONS)?.execute(params![before, most])?;
    }
    Ok(removed)
}

/// Removes revocations of tokens that expired before a time, the oldest first, at most so many.
const REMOVE_REVOCATIONS: &str = "DELETE FROM revocations
    WHERE rowid IN (SELECT rowid FROM revocations WHERE expires < ?1 ORDER BY expires LIMIT ?2)";
/// How many of them each further revocation removes: so they do not add up in an engine that several gateways share.
const REMOVED_ALONG: i64 = 10;

/// Revokes a token.
pub(super) fn revoke(store: &SqliteStore, before: &TokenRecord) -> Result<(), RegistryError> {
    let id = before.id.as_str();
    store.change("token.revoke", format!("token:{id}"), |changing| {
        if store.replication.is_some() {
            // Nothing else removes them there. Before: this one stays, even if its token has ended.
            changing.prepare_cached(REMOVE_REVOCATIONS)?.execute(params![now() - MAX_SKEW_S, REMOVED_ALONG])?;
        }
        let sql = "INSERT OR IGNORE INTO revocations VALUES (?1, ?2)";
        changing.execute(sql, params![id, before.expires])?;
        changing.touch(TouchedObjects::Token(id.to_owned()));
        let after = TokenRecord { revoked: true, ..before.clone() };
        changing.record("token", id, Some(before), Some(&after))
    })
}
