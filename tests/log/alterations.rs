//! The alteration table: a data folder with everything in it that a gateway writes ([`super::finished`]), each of its files altered in
//! many ways. `audit verify` notices every one (with `--index` for the index, with `--registry` for the registry), and no search,
//! look-up or report tells an untruth: it fails, or mends what was altered and says what the log has. A file that no row of the
//! table is about makes the test fail. The table in docs/exchange-log.md is what this prints (`--nocapture`).
//!
//! `NDXP_ALTERATIONS=100` alters each file in so many ways; unless given, CI makes [`FEW`]. The long form writes its totals to
//! `alterations.md` in cargo's folder for tests (`target/tmp`) as it goes, so that nothing is lost when it is cut off, and names
//! everything that goes unnoticed at its end, not the first alone.

use super::finished::{Files, Finished, LAG, SEGMENT, all_files, is_segment};
use super::totals::{Rows, Table};
use crate::support;
use futures_util::StreamExt;
use ndxp_gateway::audit::folder::{self, Expected};
use ndxp_gateway::audit::index;
use ndxp_gateway::audit::replay::Replay;
use ndxp_gateway::audit::service::api::audit_service_server::AuditService;
use ndxp_gateway::audit::service::{Audit, api};
use ndxp_gateway::exchange_log::checkpoint::LogVerifier;
use ndxp_gateway::exchange_log::key;
use ndxp_gateway::exchange_log::verify::{Against, verify_data};
use ndxp_gateway::keyfile::Vault;
use prost::Message;
use std::collections::VecDeque;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tokio::runtime::Runtime;
use tonic::Request;

/// Alterations of each file in CI: each kind once, and some more.
const FEW: usize = 12;
/// Folders that are altered concurrently: failing readers retry, with a wait.
const WORKERS: usize = 24;
/// Alterations of a file that one of them makes one after the other.
const AT_ONCE: usize = 4;

/// What may go unnoticed of a kind of file. Whatever it is, every command prints what it printed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// Nothing.
    Nothing,
    /// Missing or older: the gateway rebuilds it, and its earlier content is still true.
    Derived,
    /// Changes of no row and no structure of a database: SQLite's own check passes, and every row is the same. For the registry
    /// also an older one in which no object differs.
    NoRow,
    /// The same, and missing or older: the rest is counted from the log.
    DerivedRows,
    /// Anything: no command reads it.
    Unread,
}
use Rest::{Derived, DerivedRows, NoRow, Nothing, Unread};

/// A kind of file: its row in the table, its files, and the alterations that may be undetected.
type Kind = (&'static str, fn(&str) -> bool, Rest);

const KINDS: [Kind; 29] = [
    ("entry bundles", |path| path.starts_with("log/tile/entries/") && !path.contains(".p/"), Nothing),
    ("the bundle that is not full", |path| path.starts_with("log/tile/entries/") && path.contains(".p/"), Nothing),
    ("hash tiles", |path| path.starts_with("log/tile/") && !path.contains("entries") && !path.contains(".p/"), Nothing),
    (
        "hash tiles of the right edge",
        |path| path.starts_with("log/tile/") && !path.contains("entries") && path.contains(".p/"),
        Nothing,
    ),
    ("`log/checkpoint`", |path| path == "log/checkpoint", Nothing),
    ("`log/vkey`", |path| path == "log/vkey", Nothing),
    ("`log/policy`", |path| path == "log/policy", Nothing),
    ("`log/cosigned`", |path| path == "log/cosigned", Nothing),
    ("`log/pruned`", |path| path == "log/pruned", Nothing),
    ("`state/signed-checkpoint`", |path| path == "state/signed-checkpoint", Nothing),
    ("`state/holds.json`", |path| path == "state/holds.json", Nothing),
    ("`state/fork-alarm.json`", |path| path == "state/fork-alarm.json", Nothing),
    ("`state/acts.json`", |path| path == "state/acts.json", Derived),
    ("`state/intents-ended`", |path| path == "state/intents-ended", Derived),
    ("`state/index-verified.json`", |path| path == "state/index-verified.json", Derived),
    ("`state/drift.json`", |path| path == "state/drift.json", Derived),
    ("`state/revocation.json`", |path| path == "state/revocation.json", Nothing),
    ("`issued.sqlite`", |path| path == "issued.sqlite", NoRow),
    ("`usage.sqlite`", |path| path.starts_with("usage.sqlite"), DerivedRows),
    ("`keys/log.key`", |path| path == "keys/log.key", Nothing),
    ("`keys/acts.key`", |path| path == "keys/acts.key", Nothing),
    ("`keys/index.key`", |path| path == "keys/index.key", Nothing),
    ("keys of pseudonyms", |path| path.starts_with("keys/pseudonyms") && path.ends_with(".key"), Nothing),
    ("their marks (`.made`)", |path| path.starts_with("keys/pseudonyms") && path.ends_with(".made"), Nothing),
    ("signing keys of tokens", |path| path.starts_with("keys/signing/"), Nothing),
    ("`index/log.sqlite`", |path| path == "index/log.sqlite", NoRow),
    ("`registry.sqlite`", |path| path.starts_with("registry.sqlite"), NoRow),
    ("journal, everything sealed", |path| path.ends_with(".seg"), Nothing),
    ("what no command reads", is_unread, Unread),
];

/// Locks, and unfinished files.
fn is_unread(path: &str) -> bool {
    ["journal/lock", "journal/spare", "journal/unnamed"].contains(&path)
        || path.ends_with("/.making")
        || path.ends_with(".new")
}

struct Folder {
    data: PathBuf,
    key: LogVerifier,
    exchange: String,
    person: String,
    policy: String,
    runtime: Runtime,
}
fn whole(entries: Vec<api::LogEntry>) -> Vec<(u64, Vec<u8>)> {
    entries.into_iter().map(|one| (one.index, one.entry.unwrap_or_default().to_bytes())).collect()
}

/// The output of each of four commands: entries by index, or counts; `None` if it fails.
type Printed = [Option<Vec<(u64, Vec<u8>)>>; 4];

/// A file's bytes, if it exists.
type Content = Option<Vec<u8>>;

impl Folder {
    /// Every page of a search; `None` if it fails.
    fn search(&self, audit: &Audit, query: &api::Query, from_log: bool) -> Option<Vec<(u64, Vec<u8>)>> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let (query, reason) = (Some(query.clone()), "1/CV".to_owned());
            let request = api::SearchRequest { query, page_size: 1_000, page_token, reason, from_log };
            let page = self.runtime.block_on(audit.search(Request::new(request))).ok()?.into_inner();
            all.extend(whole(page.entries));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Some(all);
            }
        }
    }

    /// The counts of everything.
    fn report(&self, audit: &Audit) -> Option<Vec<(u64, Vec<u8>)>> {
        let request = api::CountExchangesRequest { bucket: api::Bucket::Day.into(), ..Default::default() };
        self.runtime.block_on(async {
            let mut parts = audit.count_exchanges(Request::new(request)).await.ok()?.into_inner();
            while let Some(part) = parts.next().await {
                let part = part.ok()?;
                if part.complete.is_some() {
                    return Some((part.not_counted..).zip(part.counts.iter().map(Message::encode_to_vec)).collect());
                }
            }
            None
        })
    }

    /// The output of the commands; `None` for each failing one.
    fn told(&self) -> Printed {
        let _entered = self.runtime.enter();
        let Ok(audit) = Audit::local(&self.data, None, &Vault::default()) else { return [const { None }; 4] };
        let client = api::Query { client: "one-stop-shop".into(), ..api::Query::default() };
        let show = api::GetRequest { exchange_id: self.exchange.clone(), index: None };
        let show = self.runtime.block_on(audit.get(Request::new(show))).ok();
        let about = api::Query { subject: self.person.clone(), ..api::Query::default() };
        // Like the command: no output before the log itself was searched.
        let subject = self.search(&audit, &about, false).and_then(|found| match found.is_empty() {
            true => self.search(&audit, &about, true),
            false => Some(found),
        });
        let show = show.map(|got| whole(got.into_inner().entries));
        [self.search(&audit, &client, false), show, subject, self.report(&audit)]
    }

    /// The fault that `audit verify --index --registry` finds; `None` if it passes.
    fn verified(&self) -> Option<String> {
        let (data, vault) = (&self.data, Vault::default());
        let chain = match key::chain(data, &vault, &self.key) {
            Err(error) => return Some(format!("verify: {error}")),
            Ok(chain) => chain,
        };
        let against = Against { max_lag: Some(LAG / 2), chain: chain.as_ref(), ..Against::default() };
        let report = match verify_data(data, None, Some(&self.key), against, |_, _| {}) {
            Err(error) => return Some(format!("verify: {error}")),
            Ok(report) => report,
        };
        let expected = Expected { policy: Some(Some(&self.policy)), hsm: false, revocation: true };
        match folder::check(data, &vault, &expected, (&self.key, &report.admin_events), || {}) {
            Err(error) => return Some(format!("verify: {error}")),
            Ok(faults) => {
                if let Some(fault) = faults.first() {
                    return Some(format!("verify: {fault}"));
                }
            }
        }
        match index::check(data, &vault, |_, _| true) {
            Err(error) => return Some(format!("verify --index: {error}")),
            Ok(None) => return Some("verify --index: there is no index".into()),
            Ok(Some(checked)) if checked.found > 0 => {
                return Some(format!("verify --index: {}", checked.differences[0]));
            }
            Ok(Some(checked)) if checked.entries < checked.sealed / 256 * 256 => {
                return Some("verify --index: not all is in it".into());
            }
            Ok(Some(_)) => {}
        }
        match Replay::default().with_issued_tokens().confirmed_differences(data, &data.join("registry.sqlite"), || {}) {
            Err(error) => Some(format!("verify --registry: {error}")),
            Ok(found) => found.first().map(|first| format!("verify --registry: {first}")),
        }
    }

    /// A copy of the folder.
    fn copied_to(finished: &Finished, data: &Path) -> Folder {
        finished.now.iter().for_each(|(path, bytes)| put(data, path, Some(bytes), SEGMENT));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let Finished { key, exchange, person, policy, .. } = finished;
        let (key, exchange, person, policy) = (key.clone(), exchange.clone(), person.clone(), policy.clone());
        Folder { data: data.to_owned(), key, exchange, person, policy, runtime }
    }

    /// Alters a file in these ways; returns the outcome of each.
    fn alter(&self, finished: &Finished, path: &Path, rest: Rest, truth: &Printed, ways: Range<usize>) -> Rows {
        let Finished { now, older, foreign, .. } = finished;
        let seed = path.as_os_str().len() * 1_000 + ways.start;
        let (original, mut numbers, mut rows_by_way) = (&now[path], Numbers(seed as u64), Rows::default());
        let same_kind = |other: &&PathBuf| {
            *other != path && other.parent() == path.parent() && other.extension() == path.extension()
        };
        for number in ways {
            let neighbour = now.keys().find(same_kind).map(|other| now[other].clone());
            let others = (neighbour, older.get(path).cloned(), foreign.get(path).cloned());
            let Some((way, bytes)) = altered(number, original, others, &mut numbers) else { continue };
            let what = format!("{}: {way} ({number})", path.display());
            let length = if way == "cut" || way == "emptied" { 0 } else { SEGMENT };
            let apply = || {
                restore(&self.data, now, path);
                put(&self.data, path, bytes.as_deref(), length);
            };
            apply();
            let found = self.verified();
            // A file that verify itself may have repaired is altered again.
            apply();
            let same = matches!(rest, NoRow | DerivedRows) && rows(&self.data.join(path)) == rows_of(original);
            let printed = self.told();
            let row = rows_by_way.entry(way).or_default();
            for (told, truth) in printed.iter().zip(truth) {
                match told {
                    Some(_) if told != truth => row.faults.push(format!("{what}: an untruth")),
                    Some(_) => row.truth += 1,
                    None => row.failed += 1,
                }
            }
            row.made += 1;
            match found.as_deref() {
                Some(found) if found.starts_with("verify --index") => row.by_index += 1,
                Some(found) if found.starts_with("verify --registry") => row.by_registry += 1,
                Some(_) => row.by_verify += 1,
                None => {
                    let may = match rest {
                        Nothing => false,
                        Derived => ["deleted", "older"].contains(&way),
                        DerivedRows => same || ["deleted", "older"].contains(&way),
                        NoRow => same || way == "older" && path.ends_with("registry.sqlite"),
                        Unread => true,
                    };
                    if !may || printed != *truth {
                        row.faults.push(format!("{what}: verify is content"));
                    }
                }
            }
        }
        restore(&self.data, now, path);
        if let Some(found) = self.verified() {
            let fault = format!("{}: it is back, and verify says: {found}", path.display());
            rows_by_way.entry("put back").or_default().faults.push(fault);
        }
        rows_by_way
    }
}

/// What a database is made of; whether a letter of a statement is a capital means nothing to SQLite.
const SCHEMA: &str = "SELECT type, lower(name), lower(tbl_name), rootpage, lower(sql) FROM sqlite_schema ORDER BY 2";

/// Everything that a database holds, where SQLite finds nothing wrong with it.
fn rows(path: &Path) -> Option<Vec<String>> {
    use rusqlite::{Connection, OpenFlags};
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
    let text = |sql: &str| -> Option<Vec<String>> {
        let mut statement = connection.prepare(sql).ok()?;
        let columns = statement.column_count();
        let mut found = statement.query([]).ok()?;
        let mut all = Vec::new();
        while let Some(row) = found.next().ok()? {
            let values = (0..columns).map(|at| Some(format!("{:?}", row.get_ref(at).ok()?)));
            all.push(values.collect::<Option<Vec<_>>>()?.join(","));
        }
        Some(all)
    };
    if text("PRAGMA integrity_check")? != ["Text([111, 107])"] {
        return None;
    }
    let mut all = [text("PRAGMA user_version")?, text(SCHEMA)?].concat();
    let mut tables = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").ok()?;
    let tables = tables.query_map([], |row| row.get::<_, String>(0)).ok()?.collect::<Result<Vec<_>, _>>().ok()?;
    // The number of the next act is not of these rows: a start takes it from the log.
    for table in tables.into_iter().filter(|table| table != "sqlite_sequence") {
        all.extend(text(&format!("SELECT * FROM \"{table}\" ORDER BY 1"))?);
    }
    Some(all)
}

/// The rows of a database in memory.
fn rows_of(bytes: &[u8]) -> Option<Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("copy"), bytes).unwrap();
    rows(&folder.path().join("copy"))
}

/// Numbers by a seed (SplitMix64).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) % most.max(1) as u64) as usize
    }
}

/// What becomes of a file: `None`, it is gone. With how that is called.
fn altered(
    number: usize,
    original: &[u8],
    (neighbour, older, foreign): (Content, Content, Content),
    numbers: &mut Numbers,
) -> Option<(&'static str, Option<Vec<u8>>)> {
    // Where it holds something: behind that are a journal's zeros.
    let used = original.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1).min(original.len());
    let flipped = |at: usize, bit: usize| {
        let mut bytes = original.to_vec();
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << bit;
        }
        Some(bytes)
    };
    let made = match number {
        0 => ("deleted", None),
        1 => ("emptied", Some(Vec::new())),
        2 => ("zeros", Some(vec![0; original.len()])),
        3 => ("first bit", flipped(0, 0)),
        4 => ("last bit", flipped(used.saturating_sub(1), 7)),
        5 => ("another of its kind", Some(neighbour?)),
        6 => ("older", Some(older?)),
        7 => ("another log's", Some(foreign?)),
        8 => ("cut", Some(original[..numbers.below(used)].to_vec())),
        9 => ("a byte more", Some([original, b"\n"].concat())),
        10 => ("halves swapped", {
            let (one, other) = original[..used].split_at(used / 2);
            Some([other, one, &original[used..]].concat())
        }),
        _ if numbers.below(4) == 0 => ("cut", Some(original[..numbers.below(used)].to_vec())),
        _ => ("a bit", flipped(numbers.below(used), numbers.below(8))),
    };
    (made.1.as_deref() != Some(original)).then_some(made)
}

/// Writes or removes a file; one of the journal's has its whole `length`, zeros behind what it holds.
fn put(data: &Path, path: &Path, bytes: Option<&[u8]>, length: u64) {
    let whole = data.join(path);
    match bytes {
        Some(bytes) => {
            std::fs::create_dir_all(whole.parent().unwrap()).unwrap();
            // Another file of that name: SQLite may have the one that is there in its memory.
            let _ = std::fs::remove_file(&whole);
            std::fs::write(&whole, bytes).unwrap();
            if is_segment(path) && length > bytes.len() as u64 {
                std::fs::File::options().write(true).open(&whole).unwrap().set_len(length).unwrap();
            }
        }
        None => drop(std::fs::remove_file(&whole)),
    }
}

/// Puts a file back, and what commands write: the index with its key, which searches mend, and what SQLite keeps beside a file.
fn restore(data: &Path, now: &Files, path: &Path) {
    for (path, bytes) in now.iter().filter(|(other, _)| {
        *other == path || other.starts_with("keys") || other.starts_with("index") || other.starts_with("state")
    }) {
        put(data, path, Some(bytes), SEGMENT);
    }
    for file in ["index/log", "registry", "usage", "issued"] {
        for ending in ["sqlite-wal", "sqlite-shm"] {
            let path = PathBuf::from(format!("{file}.{ending}"));
            put(data, &path, now.get(&path).map(Vec::as_slice), 0);
        }
    }
}

#[test]
fn every_alteration_is_detected_and_no_output_is_wrong() {
    let finished = Finished::make();
    let now = &finished.now;
    let kind_of = |path: &Path| {
        let path = path.to_str().unwrap();
        KINDS.iter().position(|(_, fits, _)| fits(path)).unwrap_or_else(|| panic!("{path} is in no row of the table"))
    };
    let asked: Option<usize> = std::env::var("NDXP_ALTERATIONS").ok().and_then(|text| text.parse().ok());
    let most = asked.unwrap_or(FEW);
    for (at, (name, ..)) in KINDS.iter().enumerate() {
        assert!(now.keys().any(|path| kind_of(path) == at), "the folder has no {name}");
    }
    let ways = (0..most).step_by(AT_ONCE).map(|first| first..(first + AT_ONCE).min(most));
    let tasks = ways.flat_map(|ways| now.keys().map(move |path| (kind_of(path), path, ways.clone())));
    let tasks = tasks.collect::<VecDeque<_>>();
    let table = Table::new(KINDS.iter().map(|(name, ..)| *name), tasks.len());
    let (tasks, table) = (Mutex::new(tasks), Mutex::new(table));
    let file = asked.map(|_| Path::new(env!("CARGO_TARGET_TMPDIR")).join("alterations.md"));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let copy = tempfile::tempdir().unwrap();
                let folder = Folder::copied_to(&finished, copy.path());
                let truth = folder.told();
                assert!(truth.iter().all(|told| told.as_ref().is_some_and(|told| !told.is_empty())), "{truth:?}");
                assert_eq!(folder.verified(), None);
                while let Some((kind, path, ways)) = { tasks.lock().unwrap().pop_front() } {
                    let rows = folder.alter(&finished, path, KINDS[kind].2, &truth, ways);
                    table.lock().unwrap().take(kind, rows, file.as_deref());
                }
            });
        }
    });
    let table = table.into_inner().unwrap();
    println!("{}", table.text());
    let faults = table.faults();
    assert!(faults.is_empty(), "{faults:#?}");
    strays(&finished);
    several_at_once(&finished);
    the_command_says_so(&finished);
}

/// Files that should not be there at all, and lists that hide.
fn strays(finished: &Finished) {
    let copy = tempfile::tempdir().unwrap();
    let folder = Folder::copied_to(finished, copy.path());
    let truth = folder.told();
    let stray: [(&str, Vec<u8>); 11] = [
        ("log/tile/0/000.p/7", vec![7; 7 * 32]),
        ("log/tile/entries/000.p/1", vec![0, 1, 9]),
        ("log/tile/0/900", vec![7; 256 * 32]),
        ("log/tile/x/000", vec![7; 32]),
        ("log/notes.txt", b"mine".to_vec()),
        ("log/pruned", b"0 0\n2 2\n".to_vec()),
        ("log/pruned", b"00 0\n".to_vec()),
        ("state/holds.json.bak", b"{}".to_vec()),
        ("keys/log.key.old", vec![7; 32]),
        ("keys/signing/other.pem", b"mine".to_vec()),
        ("keys/pseudonyms/1999-01.key", vec![7; 64]),
    ];
    for (path, bytes) in stray {
        let (path, before) = (Path::new(path), finished.now.get(Path::new(path)));
        put(&folder.data, path, Some(&bytes), 0);
        assert!(folder.verified().is_some(), "{path:?}");
        assert_eq!(folder.told(), truth, "{path:?}");
        put(&folder.data, path, before.map(Vec::as_slice), 0);
        let _ = std::fs::remove_dir(folder.data.join(path).parent().unwrap());
        put(
            &folder.data,
            &path.with_extension("made"),
            finished.now.get(&path.with_extension("made")).map(Vec::as_slice),
            0,
        );
    }
    assert_eq!(folder.verified(), None);
}

/// Files that name each other, gone together.
fn several_at_once(finished: &Finished) {
    let copy = tempfile::tempdir().unwrap();
    let folder = Folder::copied_to(finished, copy.path());
    type Of = fn(&str) -> bool;
    let gone: [(Of, &str); 4] = [
        // Without the mark, nobody could tell that there was a key; with it, it may have been destroyed on purpose.
        (|path| path.starts_with("keys/pseudonyms/"), "keys/pseudonyms: the log names people by the key of "),
        (|path| path.starts_with("registry.sqlite"), "registry.sqlite: is missing"),
        (|path| ["state/holds.json", "state/acts.json"].contains(&path), "state/holds.json: hold 2"),
        (|path| ["state/revocation.json", "state/drift.json"].contains(&path), "state/revocation.json: is missing"),
    ];
    for (of, told) in gone {
        let files = || finished.now.keys().filter(|path| of(path.to_str().unwrap()));
        assert!(files().count() > 0, "{told}");
        files().for_each(|path| put(&folder.data, path, None, 0));
        let found = folder.verified().unwrap_or_default();
        assert!(found.contains(told), "{told}: {found}");
        files().for_each(|path| put(&folder.data, path, Some(&finished.now[path]), 0));
        assert_eq!(folder.verified(), None, "{told}: it is back");
    }
}

/// The command itself, of a sample: it fails, and names the file.
fn the_command_says_so(finished: &Finished) {
    let (data, now) = (finished.stage.data(), &finished.now);
    let verify = || support::audit_cli(&finished.stage, &["verify", "--index", "--registry"]);
    assert!(verify().0, "{:?}", verify());
    let as_before = all_files(&data);
    for path in [
        "log/tile/entries/001",
        "log/tile/0/001",
        "log/checkpoint",
        "state/signed-checkpoint",
        "state/holds.json",
        "state/fork-alarm.json",
        "keys/log.key",
        "index/log.sqlite",
    ] {
        let mut bytes = now[Path::new(path)].clone();
        let middle = bytes.len() / 2;
        // Of a database, more: some of its bytes are no row's.
        let some = if path.ends_with("sqlite") { bytes.len() } else { 64 };
        bytes[middle..].iter_mut().take(some).for_each(|byte| *byte ^= 1);
        put(&data, Path::new(path), Some(&bytes), 0);
        let (content, _, told) = verify();
        let named = if path.contains("index") { "search index" } else { path };
        assert!(!content && told.contains(named), "{path}: {told}");
        let (shown, told, why) = support::audit_cli(&finished.stage, &["show", &finished.exchange]);
        assert!(!shown || told.contains(&finished.exchange), "{path}: {told}");
        // The message names the wrong file, not to look elsewhere.
        assert!(shown || why.contains("not what was written: "), "{path}: {why}");
        restore(&data, &as_before, Path::new(path));
    }
    // Without its checkpoint, a log that was pruned is not read; which one is behind the other is said before.
    for path in ["log/checkpoint", "state/signed-checkpoint"].map(Path::new) {
        put(&data, path, None, 0);
        let (_, _, told) = support::audit_cli(&finished.stage, &["search", "--limit", "1"]);
        let warned = told.contains(&format!("{} is missing", path.display())) && told.contains("audit verify");
        assert!(warned && !verify().0, "{path:?}: {told}");
        restore(&data, &as_before, path);
    }
    put(&data, Path::new("log/vkey"), None, 0);
    assert!(verify().2.contains("log/vkey: "), "{}", verify().2);
    restore(&data, &as_before, Path::new("log/vkey"));
    assert!(verify().0, "{:?}", verify());
}
