use super::*;
use crate::audit::query::Query;
use crate::audit::search;
use crate::exchange_log::checkpoint::LogSigner;
use crate::exchange_log::disk::copy_folder;
use crate::exchange_log::entry::Pseudonym;
use crate::exchange_log::reader::LogReader;
use crate::exchange_log::{Entry, ExchangeLog, Kind};
use proptest::prelude::*;

/// Numbers small enough that everything occurs often, and a clock that goes back now and then.
fn entry(number: u64, seed: u64) -> Entry {
    let some = |salt: u64, most: u64| (number ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15 + 2 * salt) >> 33 & (most - 1);
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
        response_subjects: (0..some(30, 4)).map(|at| person(some(31 + at, 8))).collect(),
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
        exchange: None,
        event: None,
        grant: None,
        token: None,
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
                log.append_detached(entry).unwrap();
            }
            // At its time: without the index, a search does not follow times that go back by weeks.
            let time_us = part.last().map_or(0, |last| last.time_us);
            runtime.block_on(log.append(&Entry { time_us, ..Entry::begin(Kind::Admin, "dc1") })).unwrap();
            drop(log);
            if part.len() == first.len() {
                rebuild(folder.path(), &Vault::default(), |_, _| {}).unwrap();
            }
        }
        let reader = LogReader::open(folder.path()).unwrap();
        for whole in [false, true] {
            let index = SearchIndex::read(folder.path(), &Vault::default()).unwrap();
            let whole = whole || rest.len() == first.len();
            let full = if whole { reader.sealed() } else { first.len() as u64 + 1 } / 256 * 256;
            prop_assert_eq!(index.indexed(&reader), full);
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
            rebuild(folder.path(), &Vault::default(), |_, _| {}).unwrap();
        }
    }
}

/// A log of `count` entries of a client, sealed.
fn fill(folder: &Path, key: &[u8], client: &str, count: u64) {
    let log = ExchangeLog::open(folder, LogSigner::from_pkcs8("log.test/i", key).unwrap()).unwrap();
    for number in 0..count {
        let time_us = Entry::begin(Kind::Exchange, "dc1").time_us;
        log.append_detached(&Entry { client: client.into(), time_us, ..entry(number, 7) }).unwrap();
    }
    let last = Entry { client: client.into(), ..Entry::begin(Kind::Exchange, "dc1") };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(log.append(&last)).unwrap();
}

fn found(reader: &LogReader, index: &SearchIndex, query: &Query) -> Vec<u64> {
    let (mut all, mut before) = (Vec::new(), Some(u64::MAX));
    while before.is_some() {
        let page = search::page(reader, Some(index), query, before, 50, None).unwrap();
        all.extend(page.found.iter().map(|one| one.index));
        before = page.before;
    }
    all
}

#[test]
fn an_index_of_another_log_is_thrown_away() {
    let folder = tempfile::tempdir().unwrap();
    let vault = Vault::default();
    // Follows until all full bundles are in an index that the log confirms.
    let followed = || {
        let following = IndexThread::start(folder.path(), &vault).unwrap();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let whole = || {
            let checked = check(folder.path(), &vault, |_, _| true).unwrap().unwrap_or_default();
            checked.found == 0 && checked.entries == 768
        };
        while !whole() {
            assert!(std::time::Instant::now() < end, "{:?}", check(folder.path(), &vault, |_, _| true).unwrap());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        drop(following);
    };
    fill(folder.path(), &LogSigner::generate().unwrap(), "one", 800);
    followed();
    for part in ["log", "journal", "state"] {
        std::fs::remove_dir_all(folder.path().join(part)).unwrap();
    }
    fill(folder.path(), &LogSigner::generate().unwrap(), "other", 800);
    // Until it is followed, the index of another log counts as none.
    let client = |name: &str| Query { client: Some(name.into()), ..Query::default() };
    let count = |name: &str| {
        let (reader, index) =
            (LogReader::open(folder.path()).unwrap(), SearchIndex::read(folder.path(), &vault).unwrap());
        found(&reader, &index, &client(name)).len()
    };
    assert_eq!((count("one"), count("other")), (0, 801));
    followed();
    assert_eq!((count("one"), count("other")), (0, 801));
    // A file that is not a database is rebuilt, too.
    std::fs::write(index_path(folder.path()), b"nonsense, and more of it").unwrap();
    assert!(SearchIndex::read(folder.path(), &vault).is_none());
    followed();
    // So is one with another key.
    std::fs::remove_file(folder.path().join("keys/index.key")).unwrap();
    assert!(SearchIndex::read(folder.path(), &vault).is_none());
    followed();
}

/// A log with its index, and the results that searches must return.
struct Indexed {
    folder: tempfile::TempDir,
    size: u64,
    reader: LogReader,
    queries: Vec<(Query, Vec<u64>)>,
    file: Vec<u8>,
}

impl Indexed {
    fn of(size: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path(), &LogSigner::generate().unwrap(), "c1", size);
        rebuild(folder.path(), &Vault::default(), |_, _| {}).unwrap();
        let connection = Connection::open(index_path(folder.path())).unwrap();
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        drop(connection);
        let file = std::fs::read(index_path(folder.path())).unwrap();
        let reader = LogReader::open(folder.path()).unwrap();
        let person = entry(77, 7).subjects.into_iter().chain(entry(78, 7).subjects).next().unwrap();
        let exchange: [u8; 16] = reader.entry(300).unwrap().unwrap().exchange_id.try_into().unwrap();
        let queries = vec![
            Query { subject: Some(vec![person]), ..Query::default() },
            Query { exchange: Some(exchange), ..Query::default() },
            Query { operation: Some("Do3".into()), from_us: Some(1_790_000_000_000_000), ..Query::default() },
            Query { client: Some("c1".into()), ..Query::default() },
        ];
        let naive = |query: Query| {
            let mut all = Vec::new();
            let visit = |one: crate::exchange_log::reader::Found| {
                all.extend(query.fits(&one.entry).then_some(one.index));
                true
            };
            reader.newest_first(u64::MAX, visit).unwrap();
            assert!(!all.is_empty());
            (query, all)
        };
        let queries = queries.into_iter().map(naive).collect();
        Indexed { size, queries, file, reader, folder }
    }

    fn data(&self) -> &Path {
        self.folder.path()
    }

    fn check(&self) -> Checked {
        check(self.data(), &Vault::default(), |_, _| true).unwrap().unwrap()
    }

    fn is_whole(&self) -> bool {
        let checked = self.check();
        checked.found == 0 && checked.entries == self.size / 256 * 256
    }

    /// Restores the original file.
    fn restore(&self) {
        SearchIndex::remove(self.data()).unwrap();
        std::fs::write(index_path(self.data()), &self.file).unwrap();
    }

    /// Every search returns the truth, whatever was done to the file, and the comparison reports the faults.
    fn hold_against(&self, edit: &str) {
        self.restore();
        let apply = || Connection::open(index_path(self.data())).unwrap().execute_batch(edit).unwrap();
        apply();
        assert!(!self.is_whole(), "{edit}");
        for (query, naive) in &self.queries {
            self.restore();
            apply();
            let index = SearchIndex::read(self.data(), &Vault::default()).unwrap();
            assert_eq!(&found(&self.reader, &index, query), naive, "{edit}");
        }
    }
}

#[test]
fn l7_an_edited_index_is_noticed_mended_and_never_believed() {
    let log = Indexed::of(5 * 256 + 40);
    assert!(log.is_whole());
    let bundle = |position: u64| IndexPart { level: 0, position };
    let (terms, head, hours) = (bundle(1).row(0), bundle(1).row(HEAD), bundle(1).row(part::HOURS));
    for edit in [
        format!("DELETE FROM cells WHERE id = {terms}"),
        format!("UPDATE cells SET bytes = x'' WHERE id = {terms}"),
        format!("UPDATE cells SET bytes = substr(bytes, 1, length(bytes) - 20) WHERE id = {terms}"),
        format!("UPDATE cells SET code = zeroblob(32) WHERE id = {terms}"),
        format!("UPDATE cells SET code = zeroblob(9) WHERE id = {head}"),
        format!("UPDATE cells SET bytes = CAST(bytes || x'00' AS BLOB) WHERE id = {hours}"),
        // Another cell, with its own code.
        format!("INSERT OR REPLACE INTO cells SELECT {terms}, code, bytes FROM cells WHERE id = {}", bundle(2).row(0)),
        format!("INSERT OR REPLACE INTO cells SELECT {terms}, code, bytes FROM cells WHERE id = {head}"),
        format!("DELETE FROM cells WHERE id BETWEEN {terms} AND {hours}"),
        // Everything of the newest parts, and of all.
        format!("DELETE FROM cells WHERE id >= {terms}"),
        "DELETE FROM cells".to_owned(),
        // Rows that claim more than there is, or belong to no part.
        format!("INSERT INTO cells VALUES ({}, x'', x'')", IndexPart { level: 2, position: 3 }.row(0)),
        format!("INSERT INTO cells VALUES ({}, x'', x'')", IndexPart { level: 2, position: (1 << 50) - 1 }.row(HEAD)),
        format!("INSERT INTO cells VALUES ({}, x'', x'')", bundle(900).row(HEAD)),
        format!("INSERT INTO cells VALUES ({}, x'', x'')", i64::MAX),
        "INSERT INTO cells VALUES (-1, x'', x'')".to_owned(),
    ] {
        log.hold_against(&edit);
    }
    // A fault that a search found is repaired in the file.
    log.restore();
    let before = rebuilt();
    let delete = format!("DELETE FROM cells WHERE id = {terms}");
    Connection::open(index_path(log.data())).unwrap().execute_batch(&delete).unwrap();
    let (query, naive) = &log.queries[0];
    assert_eq!(&found(&log.reader, &SearchIndex::read(log.data(), &Vault::default()).unwrap(), query), naive);
    assert!(rebuilt() > before && log.is_whole());
}

#[test]
fn l7_a_cell_of_many_bundles_is_not_believed_either() {
    let log = Indexed::of(4_096 + 256);
    assert!(log.is_whole());
    let large = IndexPart { level: 1, position: 0 };
    let term = terms::subject(&log.queries[0].0.subject.as_ref().unwrap()[0].value);
    log.hold_against(&format!("DELETE FROM cells WHERE id = {}", large.row(large.cell_of(term))));
}

/// With the index's key one can make any index: searches that find other entries can be shortened, and the comparison
/// with the log finds the bundle. An empty response is confirmed from the log itself.
#[test]
fn l7_an_index_made_with_its_key_is_found_by_the_comparison() {
    let folder = tempfile::tempdir().unwrap();
    let (data, vault) = (folder.path(), Vault::default());
    fill(data, &LogSigner::generate().unwrap(), "c1", 2_000);
    rebuild(data, &vault, |_, _| {}).unwrap();
    let reader = LogReader::open(data).unwrap();
    let hidden = 5 * 256 + 17;
    let id: [u8; 16] = reader.entry(hidden).unwrap().unwrap().exchange_id.try_into().unwrap();
    let index = SearchIndex::follow(data, &vault).unwrap();
    let part = IndexPart { level: 0, position: 5 };
    let mut making = PartBuilder::of(part);
    for (place, bytes) in reader.bundle(5).unwrap().unwrap().iter().enumerate() {
        let entry = Entry::from_bytes(bytes).unwrap();
        making.entry(place as u16, &if place == 17 { Entry::default() } else { entry });
    }
    index.put(&reader, part, &making.finish()).unwrap();
    let query = Query { exchange: Some(id), ..Query::default() };
    let index = SearchIndex::read(data, &vault).unwrap();
    assert!(found(&reader, &index, &query).is_empty(), "the index alone is deceived");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let confirmed = search::exchange(&reader, Some(&index), &id, until).unwrap().unwrap();
    assert_eq!(confirmed.iter().map(|one| one.index).collect::<Vec<_>>(), [hidden]);
    assert_eq!(search::exchange(&reader, Some(&index), &[9; 16], until).unwrap().unwrap().len(), 0);
    assert!(search::exchange(&reader, Some(&index), &[9; 16], std::time::Instant::now()).unwrap().is_none());
    let checked = check(data, &vault, |_, _| true).unwrap().unwrap();
    let of_bundle = |one: &IndexDifference| (one.first, one.last) == (5 * 256, 6 * 256 - 1);
    assert!(checked.found > 0 && checked.differences.iter().all(of_bundle), "{checked:?}");
}

/// Printed counts are those of the entries, even if an attacker had the index's key.
#[test]
fn l7_a_report_counts_entries_and_believes_no_index() {
    use crate::audit::statistics::{from_log, statistics};
    let folder = tempfile::tempdir().unwrap();
    let (data, vault) = (folder.path(), Vault::default());
    fill(data, &LogSigner::generate().unwrap(), "c1", 1_000);
    rebuild(data, &vault, |_, _| {}).unwrap();
    let reader = LogReader::open(data).unwrap();
    let index = SearchIndex::follow(data, &vault).unwrap();
    let sum = |counted: crate::audit::statistics::PeriodStatistics| -> u64 {
        counted.counts.unwrap().iter().map(|one| one.exchanges).sum()
    };
    let (all, one) = (Query::default(), Query { source: Some("s1".into()), ..Query::default() });
    let of_log = |query: &Query| from_log(&reader, query, false, 10_000, |_, _| true).unwrap().unwrap();
    let by_index = |query: &Query| statistics(&reader, Some(&index), query, false, 10_000).unwrap();
    let (whole, of_source) = (sum(of_log(&all)), sum(of_log(&one)));
    assert_eq!((whole, of_source), (1_001, sum(by_index(&one))));
    // The counts of a bundle without most of its exchanges, with the key's own code.
    let part = IndexPart { level: 0, position: 1 };
    let mut making = PartBuilder::of(part);
    making.entry(0, &reader.entry(256).unwrap().unwrap());
    let cells = making.finish().into_iter().filter(|(cell, _)| *cell == part::HOURS).collect();
    index.put(&reader, part, &cells).unwrap();
    assert_eq!((sum(by_index(&all)), sum(of_log(&all))), (whole - 255, whole));
    assert_eq!(sum(of_log(&one)), of_source);
    // By every kind of condition; at most as many as requested; none if nobody waits for it.
    let person = entry(77, 7).subjects.into_iter().chain(entry(78, 7).subjects).next().unwrap();
    let about = Query { subject: Some(vec![person]), ..Query::default() };
    let fits = |at| about.fits(&reader.entry(at).unwrap().unwrap());
    assert_eq!(sum(of_log(&about)), (0..1_001).filter(|at| fits(*at)).count() as u64);
    assert!(from_log(&reader, &all, false, 1, |_, _| true).unwrap().unwrap().counts.is_none());
    assert!(from_log(&reader, &all, false, 10_000, |_, _| false).unwrap().is_none());
}

/// The index of a log that was longer: the restored log is shorter than what was followed.
#[test]
fn l7_an_index_that_claims_more_than_the_log_has_is_found_and_finds_nothing_more() {
    let folder = tempfile::tempdir().unwrap();
    let (data, vault, key) = (folder.path(), Vault::default(), LogSigner::generate().unwrap());
    let parts = ["log", "journal", "state"];
    let copy = |from: &Path, to: &Path| {
        for part in parts {
            let _ = std::fs::remove_dir_all(to.join(part));
            copy_folder(&from.join(part), &to.join(part));
        }
    };
    fill(data, &key, "c1", 3 * 256 + 9);
    let shorter = tempfile::tempdir().unwrap();
    copy(data, shorter.path());
    fill(data, &key, "c1", 2 * 256);
    rebuild(data, &vault, |_, _| {}).unwrap();
    let whole = check(data, &vault, |_, _| true).unwrap().unwrap();
    assert_eq!((whole.found, whole.entries), (0, 5 * 256));
    copy(shorter.path(), data);
    let checked = check(data, &vault, |_, _| true).unwrap().unwrap();
    let more: Vec<_> = checked.differences.iter().filter(|one| one.what == "the index has more than the log").collect();
    assert!(more.len() == 1 && (more[0].first, more[0].last) == (3 * 256, 5 * 256 - 1), "{checked:?}");
    let (reader, index) = (LogReader::open(data).unwrap(), SearchIndex::read(data, &vault).unwrap());
    assert_eq!(index.indexed(&reader), 3 * 256, "no more than the log has");
    let client = Query { client: Some("c1".into()), ..Query::default() };
    assert_eq!(found(&reader, &index, &client), (0..=3 * 256 + 9).rev().collect::<Vec<u64>>());
    // As far as the log goes, it is the log's own: nothing else is wrong with it.
    assert_eq!(checked.found, 1, "{checked:?}");
}

/// The record of the last verification is trusted only as the gateway stored it.
#[test]
fn l7_when_an_index_was_verified_is_believed_with_its_key_s_code_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (data, vault) = (folder.path(), Vault::default());
    let file = data.join("state/index-verified.json");
    let at = LastVerification { time: 1_790_000_000, entries: 768, differences: 3 };
    assert!(at.keep(data, &vault).is_ok() && !file.exists(), "without a key nothing vouches for it");
    fill(data, &LogSigner::generate().unwrap(), "c1", 10);
    IndexKey::open(data, &vault).unwrap();
    assert!(verified(data, &vault).is_none() && !is_record_foreign(data, &vault), "there is none");
    at.keep(data, &vault).unwrap();
    assert_eq!(verified(data, &vault), Some(at));
    assert!(!is_record_foreign(data, &vault));
    let own = std::fs::read_to_string(&file).unwrap();
    for (from, to) in [("1790000000", "1890000000"), ("768", "769"), (":3", ":0"), ("\"code\":\"", "\"code\":\"0")] {
        let edited = own.replacen(from, to, 1);
        assert_ne!(edited, own, "{from}");
        std::fs::write(&file, &edited).unwrap();
        assert!(verified(data, &vault).is_none() && is_record_foreign(data, &vault), "{edited}");
    }
    // The same content in other bytes was not written by the gateway either.
    for other in [format!("{own}\n"), own.replacen(':', ": ", 1), own.to_uppercase()] {
        std::fs::write(&file, &other).unwrap();
        assert!(is_record_foreign(data, &vault), "{other}");
    }
    // Another index's key authenticates nothing of this one.
    std::fs::write(&file, &own).unwrap();
    std::fs::remove_file(data.join("keys/index.key")).unwrap();
    assert!(verified(data, &vault).is_none());
    IndexKey::open(data, &vault).unwrap();
    assert!(verified(data, &vault).is_none() && is_record_foreign(data, &vault));
}
