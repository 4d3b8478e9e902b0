//! The registry's file between the two forms: that of a gateway alone, and a replica of several gateways' registry.

use super::super::RegistryError;
use super::super::replication::ReplicaPosition;
use super::{SqliteStore, admin_events, replica, schema};
use rusqlite::{OptionalExtension, TransactionBehavior, params};

impl SqliteStore {
    /// Makes this file a replica at a position whose number of events is the last one here; with its own rows, as they are.
    /// From now on it is changed through the engine alone. Returns false, and changes nothing, while admin events wait for the
    /// exchange log.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn make_replica(&self, number: u64, state: &[u8]) -> Result<bool, RegistryError> {
        let mut connection = self.connection();
        let whole = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if whole.query_row("SELECT EXISTS (SELECT 1 FROM acts)", [], |row| row.get(0))? {
            return Ok(false);
        }
        whole.execute_batch(schema::REPLICA)?;
        let events = admin_events::last(&whole)?;
        replica::store_position(&whole, &ReplicaPosition { number, events, state: state.to_vec() })?;
        whole.commit()?;
        Ok(true)
    }

    /// Makes this file a gateway's own again, with the rows of the replica and the numbers of its events.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn make_standalone(&self) -> Result<(), RegistryError> {
        let mut connection = self.connection();
        let whole = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        whole.execute_batch(schema::REPLICA)?;
        if let Some(position) = replica::position(&whole)? {
            admin_events::note_after(&whole, position.events)?;
        }
        whole.execute_batch("DROP TABLE replica;")?;
        // A change that is missing: whoever follows reads everything.
        whole.execute_batch("INSERT INTO changes (kind, id) VALUES ('staff', ''); DELETE FROM changes;")?;
        whole.commit()?;
        Ok(())
    }

    /// Returns number and state of the replica's position; `None` for a gateway's own file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn replica_state(&self) -> Result<Option<(u64, Vec<u8>)>, RegistryError> {
        self.readers.read(|connection| {
            let sql = "SELECT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = 'replica')";
            if !connection.query_row(sql, [], |row| row.get::<_, bool>(0))? {
                return Ok(None);
            }
            let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get(1)?));
            Ok(connection.query_row("SELECT number, state FROM replica", params![], read).optional()?)
        })
    }
}
