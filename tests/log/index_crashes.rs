//! What a crash leaves of the search index, by seed: whatever combination of main file and write-ahead log a crash leaves, torn or
//! lost, searches and look-ups return what the log has, `verify --index` reports whether the index is complete, and the thread that
//! follows the log repairs it. A process that is killed while it builds the index leaves nothing that is trusted. `NDXP_INDEX_CRASHES`
//! for more seeds.

use crate::alterations::Numbers;
use crate::support::until;
use ndxp_gateway::audit::index::{self, IndexThread, SearchIndex};
use ndxp_gateway::audit::query::Query;
use ndxp_gateway::audit::search;
use ndxp_gateway::exchange_log::checkpoint::LogSigner;
use ndxp_gateway::exchange_log::entry::Pseudonym;
use ndxp_gateway::exchange_log::reader::LogReader;
use ndxp_gateway::exchange_log::{Entry, ExchangeLog, Kind};
use ndxp_gateway::keyfile::Vault;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Seeds; `NDXP_INDEX_CRASHES` for more.
const SEEDS: u64 = 40;
/// Times that a process is killed while it makes the index.
const KILLS: u64 = 8;
const SECTOR: usize = 512;
/// SQLite's page size.
const PAGE: usize = 4_096;

fn person(number: u64) -> Pseudonym {
    Pseudonym { key: "2026-11".into(), value: number.to_be_bytes().repeat(2) }
}

fn entry(number: u64) -> Entry {
    Entry {
        client: format!("c{}", number % 7),
        operation: format!("pkg.Service/Do{}", number % 5),
        purpose: format!("H49-{}", number % 400),
        subjects: vec![person(number % 900)],
        ..Entry::begin(Kind::Exchange, "dc1")
    }
}

/// A log, the searches, and the expected results.
struct Indexed {
    folder: tempfile::TempDir,
    size: u64,
    queries: Vec<(Query, Vec<u64>)>,
}

impl Indexed {
    fn append(folder: &Path, key: &[u8], numbers: std::ops::Range<u64>) {
        let log = ExchangeLog::open(folder, LogSigner::from_pkcs8("log.test/c", key).unwrap()).unwrap();
        let last = numbers.end - 1;
        (numbers.start..last).for_each(|number| log.append_detached(&entry(number)).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(log.append(&entry(last))).unwrap();
    }

    fn of(folder: tempfile::TempDir, size: u64) -> Self {
        let reader = LogReader::open(folder.path()).unwrap();
        let id: [u8; 16] = reader.entry(size / 3).unwrap().unwrap().exchange_id.try_into().unwrap();
        let queries = [
            Query { subject: Some(vec![person(17), person(18)]), ..Query::default() },
            Query { exchange: Some(id), ..Query::default() },
            Query { purpose: Some("H49-33".into()), client: Some("c5".into()), ..Query::default() },
            Query { operation: Some("Do3".into()), purpose: Some("H49-33".into()), ..Query::default() },
            // Nobody.
            Query { subject: Some(vec![person(5_000)]), ..Query::default() },
        ];
        let naive = |query: Query| {
            let mut all = Vec::new();
            let visit = |one: ndxp_gateway::exchange_log::reader::Found| {
                all.extend(query.fits(&one.entry).then_some(one.index));
                true
            };
            reader.newest_first(u64::MAX, visit).unwrap();
            (query, all)
        };
        Indexed { queries: queries.into_iter().map(naive).collect(), size, folder }
    }

    fn data(&self) -> &Path {
        self.folder.path()
    }

    /// Every search returns what the log has.
    fn tells_the_truth(&self, what: &str) {
        let reader = LogReader::open(self.data()).unwrap();
        for (query, truth) in &self.queries {
            let index = SearchIndex::read(self.data(), &Vault::default());
            let (mut found, mut before) = (Vec::new(), Some(u64::MAX));
            while before.is_some() {
                match search::page(&reader, index.as_ref(), query, before, 50, None) {
                    Ok(page) => {
                        found.extend(page.found.iter().map(|one| one.index));
                        before = page.before;
                    }
                    // A fault of the index is not a fault of the search.
                    Err(error) => panic!("{what}: {error}"),
                }
            }
            assert_eq!(&found, truth, "{what}: {query:?}");
        }
    }

    /// Whether `verify --index` passes.
    fn is_whole(&self) -> bool {
        let checked = index::check(self.data(), &Vault::default(), |_, _| true).unwrap().unwrap_or_default();
        checked.found == 0 && checked.entries == self.size / 256 * 256
    }

    /// The thread that follows the log repairs the effects of a crash automatically, as soon as it or a search finds them.
    fn is_mended(&self, what: &str) {
        let following = IndexThread::start(self.data(), &Vault::default()).unwrap();
        let reader = LogReader::open(self.data()).unwrap();
        let has_all = || {
            let index = SearchIndex::read(self.data(), &Vault::default());
            index.is_some_and(|index| index.indexed(&reader) == self.size / 256 * 256)
        };
        until(what, has_all);
        self.tells_the_truth(what);
        // Also if the search has found a file that SQLite cannot read, and removed it.
        until(what, has_all);
        drop(following);
    }
}

/// The index's files at one point of its construction.
#[derive(Clone)]
struct Moment {
    main: Vec<u8>,
    wal: Vec<u8>,
}

impl Moment {
    fn of(data: &Path) -> Self {
        let read = |name: &str| std::fs::read(data.join("index").join(name)).unwrap_or_default();
        Moment { main: read("log.sqlite"), wal: read("log.sqlite-wal") }
    }
}

/// The pieces of a newer file that reached the disk over an older one.
fn torn(older: &[u8], newer: &[u8], unit: usize, kept: usize, numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = older.to_vec();
    for at in (0..newer.len()).step_by(unit) {
        let piece = &newer[at..(at + unit).min(newer.len())];
        if numbers.below(100) < kept {
            bytes.resize(bytes.len().max(at + piece.len()), 0);
            bytes[at..at + piece.len()].copy_from_slice(piece);
        }
    }
    bytes
}

/// A possible state after a crash, with its name.
fn crashed(moments: &[Moment], numbers: &mut Numbers) -> (String, Moment) {
    let (one, other) = (numbers.below(moments.len()), numbers.below(moments.len()));
    let (older, newer) = (one.min(other), one.max(other));
    let (before, after) = (&moments[older], &moments[newer]);
    let unit = [SECTOR, PAGE][numbers.below(2)];
    let kept = [10, 50, 90, 99][numbers.below(4)];
    let (what, mut main, mut wal) = match numbers.below(8) {
        0 => ("the log of writes is lost", after.main.clone(), Vec::new()),
        1 => ("an older main file", before.main.clone(), after.wal.clone()),
        2 => ("an older log of writes", after.main.clone(), before.wal.clone()),
        3 => ("a torn main file", torn(&before.main, &after.main, unit, kept, numbers), after.wal.clone()),
        4 => ("a torn log of writes", after.main.clone(), torn(&before.wal, &after.wal, unit, kept, numbers)),
        5 => ("a torn main file alone", torn(&before.main, &after.main, unit, kept, numbers), Vec::new()),
        6 => (
            "pieces that never came",
            torn(&[], &after.main, unit, kept, numbers),
            torn(&[], &after.wal, unit, kept, numbers),
        ),
        _ => ("as it was", after.main.clone(), after.wal.clone()),
    };
    for (file, bytes) in [("main", &mut main), ("log", &mut wal)] {
        if numbers.below(5) == 0 {
            let length = numbers.below(bytes.len() + 1);
            bytes.truncate(if file == "log" { length } else { length / unit * unit });
        }
    }
    (format!("{what}: {older} and {newer} of {}, {kept} % by {unit}", moments.len()), Moment { main, wal })
}

#[test]
fn l7_after_any_crash_searches_are_right_and_the_index_is_repaired() {
    let folder = tempfile::tempdir().unwrap();
    let (data, vault) = (folder.path(), Vault::default());
    let key = LogSigner::generate().unwrap();
    // Points of its construction: after each transaction, with a write-ahead log before and after its checkpoint.
    let mut moments = vec![Moment { main: Vec::new(), wal: Vec::new() }];
    let (mut size, mut open) = (0, None::<SearchIndex>);
    for (step, more) in [300, 700, 300, 2_400, 600, 300].into_iter().enumerate() {
        Indexed::append(data, &key, size..size + more);
        size += more;
        let reader = LogReader::open(data).unwrap();
        let index = open.get_or_insert_with(|| SearchIndex::follow(data, &vault).unwrap());
        while index.take_in(&reader).unwrap() {}
        moments.push(Moment::of(data));
        if step % 2 == 1 {
            // The last connection checkpoints the write-ahead log when it closes.
            open = None;
            moments.push(Moment::of(data));
        }
    }
    drop(open);
    assert!(moments.iter().any(|one| one.wal.len() > 50_000), "no log of writes was seen");
    let log = Indexed::of(folder, size);
    assert!(log.is_whole());
    log.tells_the_truth("whole");
    let seeds = std::env::var("NDXP_INDEX_CRASHES").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS);
    let (mut whole, mut usable) = (0, 0);
    for seed in 0..seeds {
        let mut numbers = Numbers(seed);
        let (what, left) = crashed(&moments, &mut numbers);
        let put = || {
            SearchIndex::remove(log.data()).unwrap();
            std::fs::write(log.data().join("index/log.sqlite"), &left.main).unwrap();
            if !left.wal.is_empty() {
                std::fs::write(log.data().join("index/log.sqlite-wal"), &left.wal).unwrap();
            }
        };
        let what = format!("seed {seed}: {what}");
        put();
        log.tells_the_truth(&what);
        put();
        let is_whole = log.is_whole();
        whole += u64::from(is_whole);
        usable += u64::from(SearchIndex::read(log.data(), &vault).is_some());
        if !is_whole {
            log.is_mended(&what);
        }
    }
    println!("{seeds} crashes: {whole} left all of it, {usable} something that opens");
    assert!(whole > 0 && usable > whole && whole < seeds, "{whole} whole, {usable} usable of {seeds}");
}

#[test]
fn l7_a_process_killed_while_it_builds_the_index_leaves_nothing_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let key = LogSigner::generate().unwrap();
    // A transaction and some.
    let size = 90 * 256 + 99;
    Indexed::append(folder.path(), &key, 0..size);
    let log = Indexed::of(folder, size);
    let rebuild = || {
        Command::new(env!("CARGO_BIN_EXE_ndxp-gateway"))
            .args(["audit", "--data", log.data().to_str().unwrap(), "index", "--rebuild"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let began = Instant::now();
    assert!(rebuild().wait().unwrap().success());
    let took = began.elapsed();
    assert!(log.is_whole());
    let mut numbers = Numbers(7);
    let mut unfinished = 0;
    for round in 0..KILLS {
        let mut child = rebuild();
        std::thread::sleep(took.mul_f64(numbers.below(100) as f64 / 100.0));
        child.kill().unwrap();
        child.wait().unwrap();
        unfinished += u64::from(!log.is_whole());
        log.tells_the_truth(&format!("kill {round}"));
    }
    assert!(unfinished > 0, "none of {KILLS} kills came in time");
    log.is_mended("the last one");
    assert!(log.is_whole());
}
