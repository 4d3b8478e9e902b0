//! Following the log.

use super::part::{Cells, HEAD, HOURS, IndexPart, LEVELS, PartBuilder};
use super::{AuditError, BATCH, IndexKey, SearchIndex, TABLES, VERSION, derive, index_path};
use crate::exchange_log::reader::LogReader;
use crate::exchange_log::remove_file;
use crate::exchange_log::tree::TILE;
use crate::keyfile::Vault;
use rusqlite::{Connection, params};
use std::cell::RefCell;
use std::path::Path;

impl SearchIndex {
    /// Opens or creates the index of a data folder for writing. One that cannot be used is rebuilt.
    ///
    /// # Errors
    /// Its file or its key cannot be created.
    pub fn follow(data: &Path, vault: &Vault) -> Result<Self, AuditError> {
        let path = index_path(data);
        crate::exchange_log::make_folder(path.parent().unwrap_or(data))?;
        let key = IndexKey::open(data, vault).map_err(|error| AuditError::IndexKey(error.to_string()))?;
        match Self::open(&path, key.clone()) {
            Ok(index) => Ok(index),
            Err(error) => {
                tracing::warn!(%error, "the search index cannot be used and is rebuilt");
                Self::remove(data)?;
                Self::open(&path, key)
            }
        }
    }

    /// Removes the index's files.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn remove(data: &Path) -> Result<(), AuditError> {
        let path = index_path(data);
        for ending in ["", "-wal", "-shm"] {
            remove_file(&path.with_file_name(format!("log.sqlite{ending}")))?;
        }
        Ok(())
    }

    fn open(path: &Path, key: IndexKey) -> Result<Self, AuditError> {
        let connection = Connection::open(path)?;
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA cache_size = -16384;")?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version != 0 && version != VERSION {
            return Err(rusqlite::Error::InvalidQuery.into());
        }
        connection.execute_batch(TABLES)?;
        connection.pragma_update(None, "user_version", VERSION)?;
        Ok(SearchIndex { connection, key, path: path.to_owned(), fresh: RefCell::default() })
    }

    /// Returns whether the index belongs to this log and this key: its first and last parts do.
    ///
    /// # Errors
    /// The index or the log cannot be read.
    pub fn is_of(&self, reader: &LogReader) -> Result<bool, AuditError> {
        let claimed = self.claimed()?;
        if self.is_too_long(reader)? {
            return Ok(false);
        }
        for bundle in [Some(0), claimed.checked_sub(1)].into_iter().flatten().filter(|_| claimed > 0) {
            let part = IndexPart::over(bundle, claimed);
            let (level, index) = part.node();
            if self.stored(part, HEAD, &reader.node(level, index)?).is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns whether it claims more entries than the log has: then somebody added rows to it.
    pub(super) fn is_too_long(&self, reader: &LogReader) -> Result<bool, AuditError> {
        Ok(self.claimed()? > reader.sealed() / TILE as u64)
    }

    /// Indexes full bundles, one batch at most, and returns whether more are waiting.
    ///
    /// # Errors
    /// The log cannot be read, or the index not be written; the batch is then indexed the next time.
    pub fn take_in(&mut self, reader: &LogReader) -> Result<bool, AuditError> {
        let full = reader.sealed() / TILE as u64;
        if self.claimed()? >= full {
            return Ok(false);
        }
        // Its length is read within the transaction: another process may be rebuilding the index.
        self.within(|index| {
            let (begin, mut next) = (index.claimed()?, index.claimed()?);
            while next < full && next - begin < BATCH {
                next = index.take_part(reader, next, full)?;
            }
            Ok(next < full)
        })
    }

    /// Runs work in one transaction.
    pub(super) fn within<T>(&self, work: impl FnOnce(&Self) -> Result<T, AuditError>) -> Result<T, AuditError> {
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let done = work(self).and_then(|done| {
            self.connection.execute_batch("COMMIT")?;
            Ok(done)
        });
        if done.is_err() {
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        done
    }

    /// Indexes the largest part that begins at a bundle, and merges the parts that this completes.
    fn take_part(&self, reader: &LogReader, next: u64, full: u64) -> Result<u64, AuditError> {
        let fits = |level: &u8| {
            let part = IndexPart { level: *level, position: next >> (4 * level) }.bundles();
            part.start == next && part.end <= full
        };
        let level = (0..LEVELS).rev().find(fits).unwrap_or(0);
        let part = IndexPart { level, position: next >> (4 * level) };
        self.put(reader, part, &derive(reader, part)?)?;
        let end = part.bundles().end;
        for level in level + 1..LEVELS {
            match (end >> (4 * level)).checked_sub(1).map(|position| IndexPart { level, position }) {
                Some(whole) if whole.bundles().end == end => self.put_together(reader, whole)?,
                _ => break,
            }
        }
        Ok(end)
    }

    /// Merges 16 parts. If one of them is faulty, everything is taken from the log.
    fn put_together(&self, reader: &LogReader, whole: IndexPart) -> Result<(), AuditError> {
        let smaller = || {
            (16 * whole.position..16 * (whole.position + 1))
                .map(|position| IndexPart { level: whole.level - 1, position })
        };
        let mut making = Some(PartBuilder::of(whole));
        for part in smaller() {
            let (level, index) = part.node();
            let node = reader.node(level, index)?;
            making = making.and_then(|mut making| {
                making.part(part, |cell| self.stored(part, cell, &node).ok())?;
                Some(making)
            });
        }
        let cells = match making {
            Some(making) => making.finish(),
            None => derive(reader, whole)?,
        };
        self.put(reader, whole, &cells)?;
        smaller().try_for_each(|part| self.remove_part(part))
    }

    pub(super) fn put(&self, reader: &LogReader, part: IndexPart, cells: &Cells) -> Result<(), AuditError> {
        let (level, index) = part.node();
        let node = reader.node(level, index)?;
        let mut put = self.connection.prepare_cached("INSERT OR REPLACE INTO cells VALUES (?1, ?2, ?3)")?;
        for (cell, bytes) in cells {
            put.execute(params![part.row(*cell), self.key.code(part, *cell, &node, bytes), bytes])?;
        }
        Ok(())
    }

    fn remove_part(&self, part: IndexPart) -> Result<(), AuditError> {
        let mut remove = self.connection.prepare_cached("DELETE FROM cells WHERE id BETWEEN ?1 AND ?2")?;
        remove.execute([part.row(0), part.row(HOURS)])?;
        Ok(())
    }

    /// Removes entries that were pruned from the log. Counts by the hour stay: they name no person.
    ///
    /// # Errors
    /// The index cannot be written.
    pub fn forget(&mut self, reader: &LogReader, bundles: std::ops::Range<u64>) -> Result<(), AuditError> {
        let mut next = bundles.start;
        while next < bundles.end.min(self.claimed()?) {
            let part = IndexPart::over(next, self.claimed()?);
            let (level, index) = part.node();
            let counts = self.stored(part, HOURS, &reader.node(level, index)?);
            let mut cells = derive(reader, part)?;
            cells.extend(counts.ok().map(|counts| (HOURS, counts)));
            self.within(|index| index.put(reader, part, &cells))?;
            next = part.bundles().end;
        }
        Ok(())
    }
}
