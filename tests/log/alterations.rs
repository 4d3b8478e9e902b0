//! The alteration table: the data folder of a gateway that ran, each of its files altered in many ways. `audit verify` notices every
//! one (with `--index` for the index), and no search, look-up or report tells an untruth: it fails, or mends what was
//! altered and says what the log has. The table in docs/exchange-log.md is what this prints (`--nocapture`).
//!
//! `NDXP_ALTERATIONS=100` makes so many alterations of each kind of file (minutes); unless given, CI makes [`FEW`].

use crate::support;
use ndxp_gateway::audit::index;
use ndxp_gateway::audit::service::api::audit_service_server::AuditService;
use ndxp_gateway::audit::service::{Audit, api};
use ndxp_gateway::exchange_log::checkpoint::{LogSigner, LogVerifier};
use ndxp_gateway::exchange_log::pseudonym;
use ndxp_gateway::exchange_log::reader::LogReader;
use ndxp_gateway::exchange_log::verify::verify_data;
use ndxp_gateway::exchange_log::{Entry, ExchangeLog, Kind as EntryKind};
use ndxp_gateway::keyfile::Vault;
use ndxp_gateway::sandbox::samples::samples;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;
use support::Stage;
use tokio::runtime::Runtime;
use tonic::Request;

/// Alterations of each kind of file in CI: each way once, and some more bits.
const FEW: usize = 12;
/// Folders that are altered at once, beside the first.
const WORKERS: usize = 3;

struct Folder {
    data: PathBuf,
    key: LogVerifier,
    exchange: String,
    person: String,
    runtime: Runtime,
}

fn whole(entries: Vec<api::LogEntry>) -> Vec<(u64, Vec<u8>)> {
    entries.into_iter().map(|one| (one.index, one.entry.unwrap_or_default().to_bytes())).collect()
}

/// What each of three commands prints: entries by index, `None` where it fails.
type Printed = [Option<Vec<(u64, Vec<u8>)>>; 3];

/// A file's bytes, where there is one.
type Content = Option<Vec<u8>>;

impl Folder {
    /// Every page of a search; `None` where it fails.
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

    /// What the commands tell; `None` of each that fails.
    fn told(&self) -> Printed {
        let _entered = self.runtime.enter();
        let Ok(audit) = Audit::local(&self.data, None, &Vault::default()) else { return [None, None, None] };
        let client = api::Query { client: "one-stop-shop".into(), ..api::Query::default() };
        let show = api::GetRequest { exchange_id: self.exchange.clone(), index: None };
        let show = self.runtime.block_on(audit.get(Request::new(show))).ok();
        let about = api::Query { subject: self.person.clone(), ..api::Query::default() };
        // As the command does: nothing is said before the log itself was looked through.
        let subject = self.search(&audit, &about, false).and_then(|found| match found.is_empty() {
            true => self.search(&audit, &about, true),
            false => Some(found),
        });
        [self.search(&audit, &client, false), show.map(|got| whole(got.into_inner().entries)), subject]
    }

    /// What `audit verify --index` finds; `None` where it is content.
    fn verified(&self) -> Option<String> {
        let data = &self.data;
        if let Err(error) = verify_data(data, None, Some(&self.key), Default::default(), |_, _| {}) {
            return Some(format!("verify: {error}"));
        }
        if let Some(fault) =
            pseudonym::check(&pseudonym::folder(data)).unwrap_or_else(|error| vec![error.to_string()]).pop()
        {
            return Some(format!("verify: {fault}"));
        }
        match index::check(data, &Vault::default(), |_, _| true) {
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
        None
    }
}

/// A kind of file: its name, its files, and whether it has bytes that nobody reads, between the rows of a database, or behind what a
/// journal's reader needs.
type Kind = (&'static str, Vec<PathBuf>, bool);
/// Files by their path in the data folder.
type Files = BTreeMap<PathBuf, Vec<u8>>;

impl Folder {
    /// The same folder at another place.
    fn copied_to(&self, data: &Path, files: &Files) -> Folder {
        files.iter().for_each(|(path, bytes)| put(&data.join(path), Some(bytes)));
        std::fs::create_dir_all(data.join("journal")).unwrap();
        for path in files_of_journal(&self.data) {
            std::fs::hard_link(self.data.join(&path), data.join(&path))
                .or_else(|_| std::fs::copy(self.data.join(&path), data.join(&path)).map(drop))
                .unwrap();
        }
        let (key, exchange, person) = (self.key.clone(), self.exchange.clone(), self.person.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Folder { data: data.to_owned(), key, exchange, person, runtime }
    }

    /// Alters a kind of file in so many ways; gives its row of the table.
    fn alter(
        &self,
        (name, files, idle): Kind,
        (now, older, foreign): (&Files, &Files, &Files),
        truth: &Printed,
        (most, seed): (usize, u64),
    ) -> String {
        let data = &self.data;
        let mut numbers = Numbers(seed);
        assert!(!files.is_empty(), "{name}");
        let [mut made, mut noticed, mut unread, mut failed, mut told_truth] = [0; 5];
        for number in 0..most {
            let path = &files[number % files.len()];
            let original = std::fs::read(data.join(path)).unwrap();
            let neighbour =
                files.iter().find(|other| *other != path).and_then(|other| std::fs::read(data.join(other)).ok());
            let others = (neighbour, older.get(path).cloned(), foreign.get(path).cloned());
            let Some((way, bytes)) = altered(number, &original, others, &mut numbers) else { continue };
            let what = format!("{}: {way} ({number})", path.display());
            let apply = || {
                restore(data, now, path, &original);
                put(&data.join(path), bytes.as_deref());
            };
            apply();
            let found = self.verified();
            // What verify itself may have put right is altered again.
            apply();
            for (told, truth) in self.told().iter().zip(truth) {
                match told {
                    Some(told) => {
                        assert_eq!(Some(told), truth.as_ref(), "{what}: an untruth");
                        told_truth += 1;
                    }
                    None => failed += 1,
                }
            }
            made += 1;
            match found {
                Some(_) => noticed += 1,
                None => {
                    assert!(idle, "{what}: verify is content");
                    unread += 1;
                }
            }
            restore(data, now, path, &original);
        }
        assert_eq!(self.verified(), None, "{name}: everything is back");
        format!("| {name} | {made} | {noticed} | {unread} | {failed} | {told_truth} |")
    }
}

/// Numbers by a seed (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: usize) -> usize {
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
    let used = original.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
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
        4 => ("last bit", flipped(used - 1, 7)),
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

fn put(path: &Path, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            // Another file of that name: the journal's are shared by the folders.
            let _ = std::fs::remove_file(path);
            std::fs::write(path, bytes).unwrap();
        }
        None => drop(std::fs::remove_file(path)),
    }
}

fn files_below(folder: &Path, data: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files_below(&path, data, found),
            false => found.push(path.strip_prefix(data).unwrap().to_owned()),
        }
    }
}

/// The small files of a data folder, as they are.
fn kept(data: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = Vec::new();
    ["log", "state", "index", "keys"].iter().for_each(|folder| files_below(&data.join(folder), data, &mut all));
    all.into_iter().filter_map(|path| Some((path.clone(), std::fs::read(data.join(&path)).ok()?))).collect()
}

/// Another log's files: of 700 entries, with an index.
fn foreign() -> BTreeMap<PathBuf, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let signer = LogSigner::from_pkcs8("another.example/log", &LogSigner::generate().unwrap()).unwrap();
    let log = ExchangeLog::open(folder.path(), signer).unwrap();
    let entry = |number: u64| Entry { client: format!("c{number}"), ..Entry::begin(EntryKind::Exchange, "dc9") };
    (0..700).for_each(|number| log.append_unawaited(&entry(number)).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(log.append(&entry(700))).unwrap();
    drop(log);
    index::rebuild(folder.path(), &Vault::default(), |_, _| {}).unwrap();
    let mut files = kept(folder.path());
    files.extend(files_of_journal(folder.path()).into_iter().map(|path| {
        let bytes = std::fs::read(folder.path().join(&path)).unwrap();
        (path, bytes)
    }));
    files
}

fn files_of_journal(data: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    files_below(&data.join("journal"), data, &mut all);
    all.retain(|path| path.extension().is_some_and(|end| end == "seg"));
    all
}

#[test]
fn whatever_is_altered_is_noticed_and_nobody_is_told_an_untruth() {
    let mut stage = Stage::start();
    let shop = stage.system("one-stop-shop");
    let samples = samples(&stage.sandbox.province);
    let asked = samples.iter().find(|one| one.operation.ends_with("/VerifyCitizen")).unwrap().requests[0].clone();
    let person = asked["citizenId"].as_str().unwrap().to_owned();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (data, note) = (stage.data(), |number: u32| stage.store.note("test.act", format!("number:{number}")).unwrap());
    let called = runtime.block_on(async {
        let mut exchange = String::new();
        for _ in 0..3 {
            exchange = shop.call(support::VERIFY, asked.clone()).await.ok().exchange();
        }
        exchange
    });
    let sealed = |least: u64| {
        support::until("acts are sealed", Duration::from_secs(60), || {
            let reader = LogReader::open(&data).unwrap();
            reader.sealed() > least && reader.sealed() == reader.size()
        });
    };
    (0..300).for_each(note);
    sealed(300);
    let older = kept(&data);
    (300..560).for_each(note);
    sealed(560);
    stage.gateway.take().unwrap().stop();
    index::rebuild(&data, &Vault::default(), |_, _| {}).unwrap();

    let key = LogReader::open(&data).unwrap().verifier().clone();
    let folder = Folder { data: data.clone(), key, exchange: called, person, runtime };
    let (now, foreign) = (kept(&data), foreign());
    let truth = folder.told();
    assert!(truth.iter().all(|told| told.as_ref().is_some_and(|told| !told.is_empty())), "{truth:?}");
    assert_eq!(folder.verified(), None);
    let of = |fits: &dyn Fn(&str) -> bool| -> Vec<PathBuf> {
        now.keys().filter(|path| fits(path.to_str().unwrap())).cloned().collect()
    };
    let named = |name: &'static str| of(&|path| path == name);
    let kinds = [
        ("entry bundles", of(&|path| path.starts_with("log/tile/entries/") && !path.contains(".p/")), false),
        (
            "the bundle that is not full",
            of(&|path| path.starts_with("log/tile/entries/") && path.contains(".p/")),
            false,
        ),
        (
            "hash tiles",
            of(&|path| path.starts_with("log/tile/") && !path.contains("entries") && !path.contains(".p/")),
            false,
        ),
        (
            "hash tiles of the edge",
            of(&|path| path.starts_with("log/tile/") && !path.contains("entries") && path.contains(".p/")),
            false,
        ),
        ("log/checkpoint", named("log/checkpoint"), false),
        ("log/vkey", named("log/vkey"), false),
        ("state/signed-checkpoint", named("state/signed-checkpoint"), false),
        ("keys of pseudonyms", of(&|path| path.starts_with("keys/pseudonyms") && path.ends_with(".key")), false),
        ("their marks", of(&|path| path.starts_with("keys/pseudonyms") && path.ends_with(".made")), false),
        ("index/log.sqlite", named("index/log.sqlite"), true),
        ("keys/index.key", named("keys/index.key"), false),
        ("journal", files_of_journal(&data), true),
    ];
    let most = std::env::var("NDXP_ALTERATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(FEW);
    // Readers that fail try again and wait in between: several folders at once. Journals are large, and altered in the first only.
    let copies: Vec<tempfile::TempDir> = (0..WORKERS).map(|_| tempfile::tempdir().unwrap()).collect();
    let (journal, others): (Vec<_>, Vec<_>) =
        kinds.into_iter().enumerate().partition(|(_, (name, ..))| *name == "journal");
    let others = Mutex::new(others);
    let mut lines: Vec<(usize, String)> = std::thread::scope(|scope| {
        let work = |copy: &tempfile::TempDir| {
            let own = folder.copied_to(copy.path(), &now);
            let mut lines = Vec::new();
            while let Some((at, kind)) = { others.lock().unwrap().pop() } {
                lines.push((at, own.alter(kind, (&now, &older, &foreign), &truth, (most, at as u64))));
            }
            lines
        };
        let all: Vec<_> = copies.iter().map(|copy| scope.spawn(move || work(copy))).collect();
        let mut lines: Vec<_> = journal
            .into_iter()
            .map(|(at, kind)| (at, folder.alter(kind, (&now, &older, &foreign), &truth, (most, at as u64))))
            .collect();
        lines.extend(all.into_iter().flat_map(|one| one.join().unwrap()));
        lines
    });
    lines.sort();
    println!("| file | altered | noticed by verify | nothing that is read | a command fails | truth told |");
    lines.iter().for_each(|(_, line)| println!("{line}"));

    // Files that should not be there at all, and lists that hide.
    let stray: [(&str, Vec<u8>); 6] = [
        ("log/tile/0/000.p/7", vec![7; 7 * 32]),
        ("log/tile/entries/000.p/1", vec![0, 1, 9]),
        ("log/tile/0/900", vec![7; 256 * 32]),
        ("log/tile/x/000", vec![7; 32]),
        ("log/notes.txt", b"mine".to_vec()),
        ("log/pruned", b"0 0\n".to_vec()),
    ];
    for (path, bytes) in stray {
        put(&data.join(path), Some(&bytes));
        assert!(folder.verified().is_some(), "{path}");
        assert_eq!(folder.told(), truth, "{path}");
        put(&data.join(path), None);
        let _ = std::fs::remove_dir(data.join(path).parent().unwrap());
    }

    // The command itself, of a sample.
    let command = |args: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_ndxp-gateway")).args(args).current_dir(&stage.folder.path).output();
        let output = output.unwrap();
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let verify = ["audit", "verify", "--index"];
    assert!(command(&verify).0, "{:?}", command(&verify));
    for path in
        ["log/tile/entries/000", "log/tile/0/001", "log/checkpoint", "state/signed-checkpoint", "index/log.sqlite"]
    {
        let mut bytes = now[Path::new(path)].clone();
        let middle = bytes.len() / 2;
        bytes[middle..].iter_mut().take(64).for_each(|byte| *byte ^= 1);
        put(&data.join(path), Some(&bytes));
        let (content, told) = command(&verify);
        assert!(!content, "{path}: {told}");
        let (shown, told) = command(&["audit", "show", &folder.exchange]);
        assert!(!shown || told.contains(&folder.exchange), "{path}: {told}");
        restore(&data, &now, Path::new(path), &now[Path::new(path)]);
    }
    assert!(command(&verify).0);
}

/// Puts a file back, and the index with its key, which searches mend.
fn restore(data: &Path, now: &BTreeMap<PathBuf, Vec<u8>>, path: &Path, original: &[u8]) {
    put(&data.join(path), Some(original));
    ["log.sqlite-wal", "log.sqlite-shm"].iter().for_each(|name| put(&data.join("index").join(name), None));
    for (path, bytes) in now.iter().filter(|(path, _)| path.starts_with("keys") || path.starts_with("index")) {
        put(&data.join(path), Some(bytes));
    }
}
