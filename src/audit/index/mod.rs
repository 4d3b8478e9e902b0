//! The search index: derived from the log's sealed entries, in one SQLite file that can be thrown away at any time.
//!
//! Texts are numbers here, so a row has about 60 bytes, and an entry with its places in the indexes about 400. A thread of
//! its own follows the log four times a second in batches of [`BATCH`]: one transaction each, without `fsync`, since what
//! a crash takes is derived again. Searches have connections of their own and wait for nobody (WAL).

mod find;
mod follow;
mod thread;

use super::AuditError;
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

pub use find::Hour;
pub use thread::{Following, rebuild};

/// Version of the tables: an index of another one is made anew.
const VERSION: i64 = 1;
/// Most entries in one transaction.
const BATCH: usize = 20_000;
/// Most names that are kept in memory; beyond, they are looked up again.
const MAX_NAMES: usize = 200_000;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS state (
        one INTEGER PRIMARY KEY CHECK (one = 1), indexed INTEGER NOT NULL, last BLOB NOT NULL, high_us INTEGER NOT NULL,
        late_us INTEGER NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS names (
        id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, text TEXT NOT NULL, UNIQUE (kind, text)) STRICT;
    CREATE TABLE IF NOT EXISTS entries (
        idx INTEGER PRIMARY KEY, time_us INTEGER NOT NULL, kind INTEGER NOT NULL, client INTEGER NOT NULL,
        agency INTEGER NOT NULL, source INTEGER NOT NULL, operation INTEGER NOT NULL, scope INTEGER NOT NULL,
        purpose INTEGER NOT NULL, outcome INTEGER NOT NULL) STRICT;
    CREATE INDEX IF NOT EXISTS by_client ON entries (client);
    CREATE INDEX IF NOT EXISTS by_agency ON entries (agency);
    CREATE INDEX IF NOT EXISTS by_operation ON entries (operation);
    CREATE INDEX IF NOT EXISTS by_purpose ON entries (purpose);
    CREATE INDEX IF NOT EXISTS by_outcome ON entries (outcome);
    CREATE TABLE IF NOT EXISTS people (
        idx INTEGER NOT NULL, role INTEGER NOT NULL, value BLOB NOT NULL, PRIMARY KEY (idx, role, value)
        ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS by_person ON people (value, role, idx);
    CREATE TABLE IF NOT EXISTS exchanges (
        id BLOB NOT NULL, idx INTEGER NOT NULL, PRIMARY KEY (id, idx)) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS marks (idx INTEGER PRIMARY KEY, high_us INTEGER NOT NULL) STRICT;
    CREATE INDEX IF NOT EXISTS by_mark ON marks (high_us);
    CREATE TABLE IF NOT EXISTS hours (
        hour INTEGER NOT NULL, client INTEGER NOT NULL, agency INTEGER NOT NULL, source INTEGER NOT NULL,
        operation INTEGER NOT NULL, outcome INTEGER NOT NULL, exchanges INTEGER NOT NULL, total_us INTEGER NOT NULL,
        answer_bytes INTEGER NOT NULL, PRIMARY KEY (hour, client, agency, source, operation, outcome)
        ) STRICT, WITHOUT ROWID;";

/// What a name is the name of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Name {
    Client = 1,
    Agency,
    Source,
    Operation,
    Scope,
    Purpose,
    Outcome,
}

/// Whom a pseudonym stands for.
#[derive(Debug, Clone, Copy)]
enum Person {
    /// Whom the request names.
    Subject = 0,
    Official = 1,
    /// Whom the answer names beside them: found like them, and left out of the rules about who asks about whom.
    Answered = 2,
}

/// The index, for reading or for following the log.
pub struct Index {
    connection: Connection,
    names: HashMap<(Name, String), i64>,
}

/// Where the index of a data folder is.
pub fn index_path(data: &Path) -> PathBuf {
    data.join("index").join("log.sqlite")
}

impl Index {
    /// Opens the index of a data folder for reading; `None` where there is none, or only one of another version.
    pub fn read(data: &Path) -> Result<Option<Self>, AuditError> {
        let path = index_path(data);
        if !path.exists() {
            return Ok(None);
        }
        let connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -65536;")?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        Ok((version == VERSION).then(|| Index { connection, names: HashMap::new() }))
    }

    /// Entries in the index: all before this one.
    pub fn indexed(&self) -> Result<u64, AuditError> {
        let state = "SELECT indexed FROM state";
        let found: Option<i64> = self.connection.prepare_cached(state)?.query_row([], |row| row.get(0)).optional()?;
        Ok(found.unwrap_or(0).unsigned_abs())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::audit::query::Query;
    use crate::audit::search;
    use crate::exchange_log::checkpoint::LogSigner;
    use crate::exchange_log::entry::Pseudonym;
    use crate::exchange_log::reader::LogReader;
    use crate::exchange_log::{Entry, ExchangeLog, Kind};
    use proptest::prelude::*;

    /// Numbers small enough that everything occurs often, and a clock that goes back now and then.
    fn entry(number: u64, seed: u64) -> Entry {
        let some =
            |salt: u64, most: u64| (number ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15 + 2 * salt) >> 33 & (most - 1);
        let person = |of: u64| Pseudonym { key: "2026-11".into(), value: of.to_be_bytes().to_vec() };
        let back = if some(1, 16) == 0 { 40_000_000_000 } else { 0 };
        Entry {
            time_us: 1_790_000_000_000_000 + number as i64 * 37_000_000 - back,
            client: format!("c{}", some(2, 4)),
            agency: ["H49", "H49.1", "H49.12", "H4"][some(3, 4) as usize].into(),
            source: format!("s{}", some(4, 2)),
            operation: format!("pkg.Service/Do{}", some(5, 4)),
            scope: format!("scope{}", some(6, 2)),
            purpose: format!("H49-251103-000{}", some(7, 8)),
            reason: if some(8, 4) == 0 { "FIELD_INVALID".into() } else { String::new() },
            status: if some(8, 4) == 0 { 3 } else { 0 },
            subjects: (0..some(9, 4)).map(|at| person(some(10 + at, 8))).collect(),
            answer_subjects: (0..some(30, 4)).map(|at| person(some(31 + at, 8))).collect(),
            official: (some(20, 2) == 0).then(|| person(some(21, 4))),
            ..Entry::begin(Kind::Exchange, "dc1")
        }
    }

    fn query(pick: [u8; 11]) -> Query {
        let text = |at: usize, make: &dyn Fn(u8) -> String| pick[at].is_multiple_of(3).then(|| make(pick[at] / 3));
        let people = |at: usize| {
            let value = u64::from(pick[at] / 4 % 8).to_be_bytes().to_vec();
            pick[at].is_multiple_of(4).then(|| vec![Pseudonym { key: "2026-11".into(), value }])
        };
        let time =
            |at: usize| pick[at].is_multiple_of(3).then(|| 1_790_000_000_000_000 + i64::from(pick[at]) * 300_000_000);
        Query {
            client: text(0, &|n| format!("c{}", n % 5)),
            agency: text(1, &|n| ["H49", "H49.1", "H4"][usize::from(n % 3)].into()),
            source: text(2, &|n| format!("s{}", n % 3)),
            operation: text(3, &|n| format!("Do{}", n % 5)),
            scope: text(4, &|n| format!("scope{}", n % 3)),
            outcome: text(5, &|n| ["OK", "FIELD_INVALID", "X"][usize::from(n % 3)].into()),
            purpose: text(6, &|n| format!("H49-251103-000{}", n % 9)),
            subject: people(7),
            official: people(8),
            from_us: time(9),
            to_us: time(10),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4))]
        /// With the index, with half of it, and without, page by page: the same entries, though the clock went back.
        #[test]
        fn a_search_finds_what_fits_and_nothing_else(
            seed in any::<u64>(), size in 300u64..1_500, picks in prop::collection::vec(any::<[u8; 11]>(), 60), limit in 1usize..40,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let key = LogSigner::generate().unwrap();
            let open = || ExchangeLog::open(folder.path(), LogSigner::from_pkcs8("log.test/i", &key).unwrap()).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let all: Vec<Entry> = (0..size).map(|number| entry(number, seed)).collect();
            let (first, rest) = all.split_at(all.len() / 2);
            for part in [first, rest] {
                let log = open();
                for entry in part {
                    log.append_unawaited(entry).unwrap();
                }
                runtime.block_on(log.append(&Entry::begin(Kind::Admin, "dc1"))).unwrap();
                drop(log);
                if part.len() == first.len() {
                    rebuild(folder.path(), |_, _| {}).unwrap();
                }
            }
            let reader = LogReader::open(folder.path()).unwrap();
            for whole in [false, true] {
                let index = Index::read(folder.path()).unwrap().unwrap();
                prop_assert_eq!(index.indexed().unwrap() == reader.sealed(), whole || rest.len() == first.len());
                for pick in &picks {
                    let query = query(*pick);
                    let mut naive = Vec::new();
                    reader.newest_first(u64::MAX, |one| {
                        naive.extend(query.fits(&one.entry).then_some(one.index));
                        true
                    }).unwrap();
                    for index in [Some(&index), None] {
                        let (mut found, mut before) = (Vec::new(), Some(u64::MAX));
                        while before.is_some() {
                            let page = search::page(&reader, index, &query, before, limit, None).unwrap();
                            prop_assert!(page.found.len() <= limit);
                            found.extend(page.found.iter().map(|one| one.index));
                            before = page.before;
                        }
                        prop_assert_eq!(&found, &naive, "{:?}", query);
                    }
                }
                rebuild(folder.path(), |_, _| {}).unwrap();
            }
        }
    }

    #[test]
    fn an_index_of_another_log_is_thrown_away() {
        let folder = tempfile::tempdir().unwrap();
        let fill = |client: &str| {
            let signer = LogSigner::from_pkcs8("log.test/i", &LogSigner::generate().unwrap()).unwrap();
            let log = ExchangeLog::open(folder.path(), signer).unwrap();
            let entry = Entry { client: client.into(), ..Entry::begin(Kind::Exchange, "dc1") };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(log.append(&entry)).unwrap();
        };
        let found = |client: &str| {
            let following = Following::start(folder.path()).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(700));
            drop(following);
            let query = Query { client: Some(client.into()), ..Query::default() };
            Index::read(folder.path()).unwrap().unwrap().find(&query, u64::MAX, 10, None).unwrap().0.len()
        };
        fill("one");
        assert_eq!(found("one"), 1);
        for part in ["log", "journal", "state"] {
            std::fs::remove_dir_all(folder.path().join(part)).unwrap();
        }
        fill("other");
        assert_eq!((found("one"), found("other")), (0, 1));
        // One that is no database is made anew, too.
        std::fs::write(index_path(folder.path()), b"nonsense, and more of it").unwrap();
        assert_eq!(found("other"), 1);
    }
}
