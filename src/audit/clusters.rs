//! Many clients that request data of one person, and one dossier or official with many persons: counted in a temporary
//! SQLite database that is filled from the log's entries, hashed up to the checkpoint, and deleted with its connection.
//! The search index only provides the positions of a period's entries.

use super::AuditError;
use super::index::SearchIndex;
use super::query::Query;
use super::search;
use crate::exchange_log::Kind;
use crate::exchange_log::reader::LogReader;
use crate::time_zone;
use rusqlite::types::Value;
use rusqlite::{Connection, params};

/// Maximum number of entries that are shown of each.
pub const SHOWN: usize = 100;

/// A day in Ho Chi Minh City.
fn day(time_us: i64) -> i64 {
    time_zone::day(time_us.div_euclid(1_000_000))
}

/// A cluster of entries.
pub struct Cluster {
    /// Its dossier or client.
    pub name: String,
    /// Number of different others.
    pub others: u64,
    /// Their entries, newest first.
    pub entries: Vec<u64>,
    /// Number of entries.
    pub count: u64,
    /// What they have in common: the person's or official's pseudonym with the day, or the dossier.
    pub key: String,
}

/// The requests of a period by person.
pub struct Clusters(Connection);

impl Clusters {
    /// Reads a period's entries.
    ///
    /// # Errors
    /// The log cannot be read, or the temporary database not be written.
    pub fn read(reader: &LogReader, index: Option<&SearchIndex>, period: &Query) -> Result<Self, AuditError> {
        // An empty name is a database on disk that only this connection knows.
        let connection = Connection::open("")?;
        connection.execute_batch(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536; BEGIN;
             CREATE TABLE requests (idx INTEGER NOT NULL, kind INTEGER NOT NULL, day INTEGER NOT NULL, client TEXT NOT NULL,
                purpose TEXT NOT NULL, official BLOB, person BLOB NOT NULL) STRICT;",
        )?;
        let mut put = connection.prepare("INSERT INTO requests VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
        search::each(reader, index, period, |one| {
            let entry = &one.entry;
            let (place, day) = (i64::try_from(one.index).unwrap_or(i64::MAX), day(entry.time_us));
            let official = entry.official.as_ref().map(|official| official.value.as_slice());
            for person in &entry.subjects {
                put.execute(params![place, entry.kind, day, entry.client, entry.purpose, official, person.value])?;
            }
            Ok(())
        })?;
        drop(put);
        connection.execute_batch("COMMIT; CREATE INDEX by_person ON requests (person, day, client);")?;
        Ok(Clusters(connection))
    }

    /// Returns persons whose data at least this many clients requested on one day.
    ///
    /// # Errors
    /// The temporary database fails.
    pub fn clients_of_one_person(&self, least: usize) -> Result<Vec<Cluster>, AuditError> {
        let of = "kind = ?2 AND person = ?3 AND day = ?4";
        self.of("''", "COUNT(DISTINCT client)", "kind = ?2", "person, day", (of, "person", "day"), least)
    }

    /// Returns dossiers under which data of at least this many persons was requested.
    ///
    /// # Errors
    /// The temporary database fails.
    pub fn people_of_one_dossier(&self, least: usize) -> Result<Vec<Cluster>, AuditError> {
        let of = "?2 > 0 AND purpose = ?3 AND ?4 > 0";
        self.of(
            "purpose",
            "COUNT(DISTINCT person)",
            "?2 > 0 AND purpose LIKE '%-%'",
            "purpose",
            (of, "purpose", "1"),
            least,
        )
    }

    /// Returns officials who requested data of at least this many persons on one day.
    ///
    /// # Errors
    /// The temporary database fails.
    pub fn people_of_one_official(&self, least: usize) -> Result<Vec<Cluster>, AuditError> {
        let (given, of) = ("?2 > 0 AND official IS NOT NULL", "?2 > 0 AND official = ?3 AND day = ?4");
        self.of("MAX(client)", "COUNT(DISTINCT person)", given, "official, day", (of, "official", "day"), least)
    }

    fn of(
        &self,
        name: &str,
        others: &str,
        given: &str,
        by: &str,
        (behind, key, second): (&str, &str, &str),
        least: usize,
    ) -> Result<Vec<Cluster>, AuditError> {
        let sql = format!(
            "SELECT {name}, {others} AS others, COUNT(DISTINCT idx), {key}, {second} FROM requests WHERE {given}
             GROUP BY {by} HAVING others >= ?1"
        );
        let behind = format!("SELECT DISTINCT idx FROM requests WHERE {behind} ORDER BY idx DESC LIMIT ?1");
        let (mut statement, mut behind) = (self.0.prepare(&sql)?, self.0.prepare(&behind)?);
        let exchange = Kind::Exchange as i32;
        let mut rows = statement.query(params![least as i64, exchange])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let (key, second): (Value, i64) = (row.get(3)?, row.get(4)?);
            let text = format!("{key:?} {second}");
            let entries = behind.query_map(params![SHOWN as i64, exchange, key, second], |row| row.get::<_, i64>(0))?;
            found.push(Cluster {
                name: row.get(0)?,
                others: row.get::<_, i64>(1)?.unsigned_abs(),
                count: row.get::<_, i64>(2)?.unsigned_abs(),
                entries: entries.map(|one| one.map(i64::unsigned_abs)).collect::<Result<_, _>>()?,
                key: text,
            });
        }
        Ok(found)
    }
}
