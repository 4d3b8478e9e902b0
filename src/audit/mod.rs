//! What auditors do with the exchange log: search, count, find anomalies, make proofs and exports. Everything here
//! reads the log's files; nothing here is part of an exchange.

pub mod anomalies;
pub mod clusters;
pub mod folder;
pub mod holds;
pub mod index;
pub mod last_use;
pub mod logged_files;
pub mod logged_state;
pub mod pdf;
pub mod periods;
pub mod query;
pub mod remote_log;
pub mod replay;
pub mod retention;
pub mod reviews;
pub mod rows;
pub mod scan;
pub mod search;
pub mod service;
pub mod sheet;
pub mod statistics;

use crate::exchange_log::LogError;

/// The reason that a search or count failed.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] crate::registry::RegistryError),
    /// The registry's file was edited.
    #[error(
        "the registry's file is not what the log says ({0} and {1} more): nothing is pruned, so that the log can still tell who \
         changed what; audit verify --registry names the differences, undo each or do it by a command"
    )]
    Differs(String, usize),
    /// Of several gateways: the log does not have the registry's last changes yet.
    #[error("nothing is pruned now: {0}")]
    Behind(String),
    /// The file of the holds was edited.
    #[error("state/holds.json is not what the log says: {0}; nothing is pruned")]
    Holds(String),
    /// The index, which can be rebuilt from the log.
    #[error("the search index: {0} (audit index --rebuild rebuilds it)")]
    Index(#[from] rusqlite::Error),
    /// The index's key.
    #[error("the search index's key: {0}")]
    IndexKey(String),
}
