//! Read-only connections. Each sees the complete state at the moment when its statement began, and waits for no writer.

use super::super::RegistryError;
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Maximum number of idle connections that stay open. Further concurrent readers open connections that they close
/// afterwards; `crate::admin::work` bounds their number.
const MAX_IDLE: usize = 8;
/// Number of prepared statements of a connection: those of the listings, by filter.
const STATEMENTS: usize = 64;

/// Opens connections to the registry's file with the issued tokens beside it, and caches some.
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    /// Readers of a registry's file.
    pub(super) fn new(path: &Path) -> Self {
        Readers { path: path.to_owned(), idle: Mutex::default() }
    }

    /// A new connection.
    pub(super) fn open(&self) -> Result<Connection, RegistryError> {
        let connection = Connection::open(&self.path)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        let issued = self.path.with_file_name("issued.sqlite");
        let issued = issued.to_str().ok_or_else(|| RegistryError::Store("the folder's name is not UTF-8".into()))?;
        connection.execute("ATTACH DATABASE ?1 AS issued", [issued])?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    }

    /// Reads with a connection that no other reader uses meanwhile.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = idle.map_or_else(|| self.open(), Ok)?;
        let result = read(&connection);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push(connection);
        }
        result
    }
}
