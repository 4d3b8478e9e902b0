//! Following the log.

use super::{AuditError, BATCH, Index, MAX_NAMES, Name, Person, TABLES, VERSION, index_path};
use crate::audit::query::outcome;
use crate::audit::statistics::HOUR_US;
use crate::exchange_log::reader::LogReader;
use crate::exchange_log::tree::{TILE, leaf_hash};
use crate::exchange_log::{Entry, Kind, remove_file};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::HashMap;
use std::path::Path;

/// How far the index is.
struct State {
    indexed: u64,
    /// The leaf hash of the last entry: tells an index of another log.
    last: Vec<u8>,
    /// The latest time so far, and the most that an entry was behind it.
    high_us: i64,
    late_us: i64,
}

type HourKey = [i64; 6];

impl Index {
    /// Opens or makes the index of a data folder for writing. One that cannot be used is made anew.
    pub fn follow(data: &Path) -> Result<Self, AuditError> {
        let path = index_path(data);
        crate::exchange_log::make_folder(path.parent().unwrap_or(data))?;
        match Self::open(&path) {
            Ok(index) => Ok(index),
            Err(error) => {
                tracing::warn!(%error, "the search index cannot be used and is made anew");
                Self::remove(data)?;
                Self::open(&path)
            }
        }
    }

    /// Throws the index away.
    pub fn remove(data: &Path) -> Result<(), AuditError> {
        let path = index_path(data);
        for ending in ["", "-wal", "-shm"] {
            remove_file(&path.with_file_name(format!("log.sqlite{ending}")))?;
        }
        Ok(())
    }

    fn open(path: &Path) -> Result<Self, AuditError> {
        let connection = Connection::open(path)?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536; PRAGMA temp_store = MEMORY;",
        )?;
        connection.set_prepared_statement_cache_capacity(64);
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version != 0 && version != VERSION {
            return Err(rusqlite::Error::InvalidQuery.into());
        }
        connection.execute_batch(TABLES)?;
        connection.pragma_update(None, "user_version", VERSION)?;
        Ok(Index { connection, names: HashMap::new() })
    }

    /// Whether the index is of this log: the last entry that it knows is there. (One that was pruned is believed.)
    pub fn is_of(&self, reader: &LogReader) -> Result<bool, AuditError> {
        let Some(state) = self.state()? else { return Ok(true) };
        let Some(last) = state.indexed.checked_sub(1) else { return Ok(true) };
        if last >= reader.sealed() {
            return Ok(false);
        }
        Ok(reader.entry_bytes(last)?.is_none_or(|bytes| leaf_hash(&bytes).as_slice() == state.last))
    }

    /// Takes in sealed entries, one batch at most; true where more are waiting.
    pub fn take_in(&mut self, reader: &LogReader) -> Result<bool, AuditError> {
        if self.indexed()? >= reader.sealed() {
            return Ok(false);
        }
        // How far it is, is read within the transaction: another process may be making the index anew.
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let done = self.take_batch(reader).and_then(|indexed| {
            self.connection.execute_batch("COMMIT")?;
            Ok(indexed)
        });
        if done.is_err() {
            // Numbers of names that were not kept after all must not be used again.
            self.names.clear();
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        done.map(|indexed| indexed < reader.sealed())
    }

    fn take_batch(&mut self, reader: &LogReader) -> Result<u64, AuditError> {
        let mut state = self.state()?.unwrap_or(State { indexed: 0, last: Vec::new(), high_us: i64::MIN, late_us: 0 });
        let (begin, mut hours) = (state.indexed, HashMap::<HourKey, [i64; 3]>::new());
        let tile = TILE as u64;
        while state.indexed < reader.sealed() && state.indexed - begin < BATCH as u64 {
            let bundle = state.indexed / tile;
            let skip = (state.indexed % tile) as usize;
            if skip == 0 {
                let mark = "INSERT OR REPLACE INTO marks VALUES (?1, ?2)";
                self.connection.prepare_cached(mark)?.execute(params![state.indexed as i64, state.high_us])?;
            }
            let Some(entries) = reader.bundle(bundle)? else {
                // Pruned before it was taken in.
                state.indexed = ((bundle + 1) * tile).min(reader.sealed());
                continue;
            };
            for bytes in entries.iter().skip(skip) {
                let entry = Entry::from_bytes(bytes).unwrap_or_default();
                self.take_entry(state.indexed, &entry, &mut hours)?;
                state.high_us = state.high_us.max(entry.time_us);
                state.late_us = state.late_us.max(state.high_us - entry.time_us);
                state.indexed += 1;
            }
            if let Some(last) = entries.last() {
                state.last = leaf_hash(last).to_vec();
            }
        }
        let count = "INSERT INTO hours VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO UPDATE SET
            exchanges = exchanges + excluded.exchanges, total_us = total_us + excluded.total_us,
            answer_bytes = answer_bytes + excluded.answer_bytes";
        for (key, values) in hours {
            let all = key.into_iter().chain(values);
            self.connection.prepare_cached(count)?.execute(rusqlite::params_from_iter(all))?;
        }
        self.connection.execute(
            "INSERT OR REPLACE INTO state VALUES (1, ?1, ?2, ?3, ?4)",
            params![state.indexed as i64, state.last, state.high_us, state.late_us],
        )?;
        Ok(state.indexed)
    }

    fn take_entry(
        &mut self,
        place: u64,
        entry: &Entry,
        hours: &mut HashMap<HourKey, [i64; 3]>,
    ) -> Result<(), AuditError> {
        let place = i64::try_from(place).unwrap_or(i64::MAX);
        let client = self.name(Name::Client, &entry.client)?;
        let agency = self.name(Name::Agency, &entry.agency)?;
        let source = self.name(Name::Source, &entry.source)?;
        let operation = self.name(Name::Operation, &entry.operation)?;
        let scope = self.name(Name::Scope, &entry.scope)?;
        let purpose = self.name(Name::Purpose, &entry.purpose)?;
        let outcome = self.name(Name::Outcome, outcome(entry))?;
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO entries VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?
            .execute(params![
                place,
                entry.time_us,
                entry.kind,
                client,
                agency,
                source,
                operation,
                scope,
                purpose,
                outcome
            ])?;
        let mut person = self.connection.prepare_cached("INSERT OR IGNORE INTO people VALUES (?1, ?2, ?3)")?;
        for subject in &entry.subjects {
            person.execute(params![place, Person::Subject as i64, subject.value])?;
        }
        for subject in &entry.answer_subjects {
            person.execute(params![place, Person::Answered as i64, subject.value])?;
        }
        if let Some(official) = &entry.official {
            person.execute(params![place, Person::Official as i64, official.value])?;
        }
        self.connection
            .prepare_cached("INSERT OR IGNORE INTO exchanges VALUES (?1, ?2)")?
            .execute(params![entry.exchange_id, place])?;
        if entry.kind() == Kind::Exchange {
            let key = [entry.time_us.div_euclid(HOUR_US), client, agency, source, operation, outcome];
            let sums = hours.entry(key).or_default();
            sums[0] += 1;
            sums[1] += i64::try_from(entry.total_us).unwrap_or(0);
            sums[2] += i64::try_from(entry.answer_bytes).unwrap_or(0);
        }
        Ok(())
    }

    /// The number of a name, given where it has none yet.
    fn name(&mut self, kind: Name, text: &str) -> Result<i64, AuditError> {
        // One look-up in the usual case; the key is only made for new names.
        if let Some(known) = self.names.get(&(kind, text.to_owned())) {
            return Ok(*known);
        }
        let find = "SELECT id FROM names WHERE kind = ?1 AND text = ?2";
        let found = self.connection.prepare_cached(find)?.query_row(params![kind as i64, text], |row| row.get(0));
        let number = match found.optional()? {
            Some(number) => number,
            None => {
                let add = "INSERT INTO names (kind, text) VALUES (?1, ?2)";
                self.connection.prepare_cached(add)?.insert(params![kind as i64, text])?
            }
        };
        if self.names.len() >= MAX_NAMES {
            self.names.clear();
        }
        self.names.insert((kind, text.to_owned()), number);
        Ok(number)
    }

    fn state(&self) -> Result<Option<State>, AuditError> {
        let read = |row: &rusqlite::Row<'_>| {
            let indexed: i64 = row.get(0)?;
            Ok(State { indexed: indexed.unsigned_abs(), last: row.get(1)?, high_us: row.get(2)?, late_us: row.get(3)? })
        };
        let state = "SELECT indexed, last, high_us, late_us FROM state";
        Ok(self.connection.prepare_cached(state)?.query_row([], read).optional()?)
    }

    /// Forgets entries that were pruned from the log. Counts by the hour stay: they name nobody.
    pub fn forget(&mut self, places: std::ops::Range<u64>) -> Result<(), AuditError> {
        let whole = self.connection.transaction()?;
        let (from, to) = (places.start as i64, places.end as i64);
        for table in ["entries", "people", "exchanges"] {
            whole.execute(&format!("DELETE FROM {table} WHERE idx >= ?1 AND idx < ?2"), [from, to])?;
        }
        whole.commit()?;
        Ok(())
    }
}
