//! A witness that signs that the entries are stored at its site, too (C2SP tlog-mirror): only those that are there, and none
//! any more once some are lost.

use crate::support::witness::{RunningWitness, config, with_policy};
use crate::support::{Stage, until};
use crate::witnesses::exchange;
use http::StatusCode;
use ndxp_gateway::exchange_log::checkpoint::{LogSigner, LogVerifier};
use ndxp_gateway::exchange_log::pruned::PRUNE_EVENT;
use ndxp_gateway::exchange_log::reader::LogReader;
use ndxp_gateway::exchange_log::seal::Sealer;
use ndxp_gateway::exchange_log::tree::{Edge, Hash, leaf_hash, tree_hash};
use ndxp_gateway::exchange_log::{Entry, Kind, LogPaths, proof, pruned};
use ndxp_gateway::witness::config::WitnessConfig;
use ndxp_gateway::witness::request::AddCheckpoint;
use ndxp_gateway::witness::server::{WitnessResponse, WitnessService};
use std::path::{Path, PathBuf};
use std::time::Duration;

const ORIGIN: &str = "log.example/a";

/// A log, the folder of a gateway that stores it, and that of a witness beside it.
struct Site {
    folder: tempfile::TempDir,
    key: Vec<u8>,
    entries: Vec<Vec<u8>>,
    sealer: Sealer,
}

impl Site {
    fn of(entries: Vec<Vec<u8>>) -> Self {
        let (folder, key) = (tempfile::tempdir().unwrap(), LogSigner::generate().unwrap());
        let signer = LogSigner::from_pkcs8(ORIGIN, &key).unwrap();
        let sealer = Sealer::open(LogPaths::new(&folder.path().join("data")), signer).unwrap();
        Site { folder, key, entries, sealer }
    }

    fn new() -> Self {
        Site::of((0..2_000).map(|number| format!("entry {number}").into_bytes()).collect())
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.data().join("log")
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("witness")
    }

    fn signer(&self) -> LogSigner {
        LogSigner::from_pkcs8(ORIGIN, &self.key).unwrap()
    }

    fn config(&self) -> WitnessConfig {
        let logs = vec![self.signer().verifier()];
        let stores = [(ORIGIN.to_owned(), self.log())].into();
        WitnessConfig { stores, ..config("w.example/stores", &self.state(), self.folder.path(), logs, 0) }
    }

    fn witness(&self) -> WitnessService {
        WitnessService::make_keys(&self.config()).unwrap();
        WitnessService::open(&self.config()).unwrap()
    }

    /// The gateway stores entries up to a number.
    fn store(&mut self, size: usize) {
        let from = usize::try_from(self.sealer.size()).unwrap();
        let note = self.note(size);
        self.sealer.store(&self.entries[from..size], &note).unwrap();
    }

    fn note(&self, size: usize) -> String {
        self.signer().sign(size as u64, &root(&leaves(&self.entries[..size])))
    }

    fn ask(&self, witness: &WitnessService, old: usize, size: usize) -> WitnessResponse {
        request(witness, &leaves(&self.entries), old, size, self.note(size))
    }

    fn bundle(&self, name: &str) -> PathBuf {
        self.log().join("tile/entries").join(name)
    }
}

fn leaves(entries: &[Vec<u8>]) -> Vec<Hash> {
    entries.iter().map(|entry| leaf_hash(entry)).collect()
}

fn root(leaves: &[Hash]) -> Hash {
    let mut edge = Edge::default();
    leaves.iter().for_each(|leaf| drop(edge.push(*leaf)));
    edge.root()
}

fn request(witness: &WitnessService, leaves: &[Hash], old: usize, size: usize, note: String) -> WitnessResponse {
    let node = |level: u32, at: u64| {
        let (from, to) = ((at << level) as usize, ((at + 1) << level) as usize);
        Ok(tree_hash(&leaves[from..to]))
    };
    let old = old as u64;
    let proof = proof::consistency(&node, old, size as u64).unwrap();
    witness.add_checkpoint(AddCheckpoint { old, proof, note }.to_text().as_bytes(), 1_000)
}

fn is_cosigned(told: &WitnessResponse) {
    assert!(matches!(told, WitnessResponse::Cosigned(_)), "{told:?}");
}

/// The reason of a refusal that another request may end.
fn reason(told: WitnessResponse) -> String {
    match told {
        WitnessResponse::Refused(StatusCode::SERVICE_UNAVAILABLE, reason) => reason.into_owned(),
        other => panic!("{other:?}"),
    }
}

/// Asks until it is cosigned.
fn cosigned_soon(site: &Site, witness: &WitnessService, old: usize, size: usize) {
    until("it is cosigned", || matches!(site.ask(witness, old, size), WitnessResponse::Cosigned(_)));
}

fn replace(file: &Path, from: &[u8], to: &[u8]) {
    let bytes = std::fs::read(file).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    std::fs::write(file, [&bytes[..at], to, &bytes[at + from.len()..]].concat()).unwrap();
}

#[test]
fn only_entries_that_are_there_are_cosigned() {
    let mut site = Site::new();
    let witness = site.witness();
    let told = reason(site.ask(&witness, 0, 300));
    assert!(told.contains("not all stored here yet") && told.contains("checkpoint"), "{told}");
    site.store(300);
    is_cosigned(&site.ask(&witness, 0, 300));
    // The site is behind; it comes while the witness waits.
    let told = reason(site.ask(&witness, 300, 700));
    assert!(told.contains("is one of 300 entries, not of 700"), "{told}");
    let mut sealer = Sealer::open(LogPaths::new(&site.data()), site.signer()).unwrap();
    let note = site.note(700);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| match &witness.losses()[..] {
            [] => request(&witness, &leaves(&site.entries), 300, 700, note),
            losses => panic!("{losses:?}"),
        });
        std::thread::sleep(Duration::from_millis(100));
        sealer.store(&site.entries[300..700], &site.note(700)).unwrap();
        is_cosigned(&waiting.join().unwrap());
    });
    // It is asked once more for the same.
    is_cosigned(&site.ask(&witness, 700, 700));
    assert_eq!(site.ask(&witness, 300, 700), WitnessResponse::Conflict(700));
}

#[test]
fn a_bundle_that_is_missing_or_another_one_is_not_cosigned_until_it_is_there() {
    let mut site = Site::new();
    let witness = site.witness();
    site.store(200);
    is_cosigned(&site.ask(&witness, 0, 200));
    site.store(1_500);
    let (second, away) = (site.bundle("002"), site.folder.path().join("away"));
    std::fs::rename(&second, &away).unwrap();
    let told = reason(site.ask(&witness, 200, 1_500));
    assert!(told.contains("tile/entries/002"), "{told}");
    // Its hash tile is there, and is no substitute.
    assert!(site.log().join("tile/0/002").exists());
    std::fs::rename(&away, &second).unwrap();
    // One letter of one entry; also in the last bundle, which is not whole.
    for (name, entry) in [("002", "entry 600"), ("005.p/220", "entry 1499")] {
        let file = site.bundle(name);
        replace(&file, entry.as_bytes(), entry.replace("entry", "Entry").as_bytes());
        let told = reason(site.ask(&witness, 200, 1_500));
        assert!(told.contains("do not lead to the root of the checkpoint of 1500 entries"), "{told}");
        replace(&file, entry.replace("entry", "Entry").as_bytes(), entry.as_bytes());
    }
    assert_eq!(witness.losses(), [], "nothing was promised of them");
    cosigned_soon(&site, &witness, 200, 1_500);
}

#[test]
fn a_restart_goes_on_and_a_fork_is_refused() {
    let mut site = Site::new();
    site.store(1_000);
    is_cosigned(&site.ask(&site.witness(), 0, 1_000));
    // What was checked is not read again: a bundle below it is away meanwhile.
    let (first, away) = (site.bundle("000"), site.folder.path().join("away"));
    std::fs::rename(&first, &away).unwrap();
    let witness = site.witness();
    site.store(1_400);
    is_cosigned(&site.ask(&witness, 1_000, 1_400));
    std::fs::rename(&away, &first).unwrap();
    // Another tree, by the log's key: as every witness, it refuses that.
    let mut other = leaves(&site.entries);
    other[3] = leaf_hash(b"other");
    let forked = site.signer().sign(1_900, &root(&other[..1_900]));
    let told = request(&witness, &other, 1_400, 1_900, forked);
    assert!(matches!(told, WitnessResponse::Refused(StatusCode::UNPROCESSABLE_ENTITY, _)), "{told:?}");
    // Another one that continues what was signed, and is not what is stored.
    site.store(1_900);
    let mut other = leaves(&site.entries);
    other[1_700] = leaf_hash(b"other");
    let forked = site.signer().sign(1_900, &root(&other[..1_900]));
    let told = reason(request(&witness, &other, 1_400, 1_900, forked));
    assert!(told.contains("do not lead to the root"), "{told}");
    is_cosigned(&site.ask(&witness, 1_400, 1_900));
    // Without what it has saved, it reads all again, and finds what it promised.
    let saved = std::fs::read_dir(site.state()).unwrap().map(|file| file.unwrap().path());
    saved
        .filter(|file| file.extension().is_some_and(|end| end == "stored"))
        .for_each(|file| std::fs::remove_file(file).unwrap());
    let witness = site.witness();
    is_cosigned(&site.ask(&witness, 1_900, 1_900));
    std::fs::rename(&first, &away).unwrap();
    assert!(witness.look());
    assert_eq!(witness.losses().len(), 1);
}

#[test]
fn entries_that_were_promised_and_are_lost_are_an_alarm_until_they_are_back() {
    let mut site = Site::new();
    site.store(1_000);
    let witness = site.witness();
    is_cosigned(&site.ask(&witness, 0, 1_000));
    assert!(witness.look() && witness.losses().is_empty());
    let (file, away) = (site.bundle("001"), site.folder.path().join("away"));
    std::fs::rename(&file, &away).unwrap();
    witness.look();
    let [(origin, loss)] = &witness.losses()[..] else { panic!() };
    assert!(origin == ORIGIN && loss.contains("tile/entries/001"), "{loss}");
    site.store(1_100);
    assert!(reason(site.ask(&witness, 1_000, 1_100)).contains("lost"));
    // It stays over a restart, and ends when all entries are there again, not before.
    let witness = site.witness();
    assert_eq!(witness.losses().len(), 1);
    assert!(reason(site.ask(&witness, 1_000, 1_100)).contains("lost"));
    witness.look();
    assert_eq!(witness.losses().len(), 1);
    std::fs::rename(&away, &file).unwrap();
    until("it is back", || witness.look() && witness.losses().is_empty());
    cosigned_soon(&site, &witness, 1_000, 1_100);
    // One letter of an entry that was promised.
    replace(&file, b"entry 300", b"entry 3OO");
    witness.look();
    assert!(witness.losses()[0].1.contains("001"), "{:?}", witness.losses());
    replace(&file, b"entry 3OO", b"entry 300");
    until("it is back", || witness.look() && witness.losses().is_empty());
    // The whole folder, which a request finds.
    std::fs::rename(site.log(), site.folder.path().join("gone")).unwrap();
    reason(site.ask(&witness, 1_100, 1_200));
    until("it is an alarm", || !witness.losses().is_empty());
    assert!(witness.losses()[0].1.contains("checkpoint"), "{:?}", witness.losses());
}

#[test]
fn the_end_of_what_was_promised_is_read_at_the_start() {
    let mut site = Site::new();
    site.store(1_000);
    is_cosigned(&site.ask(&site.witness(), 0, 1_000));
    replace(&site.bundle("003.p/232"), b"entry 999", b"entry 99O");
    let witness = site.witness();
    assert!(!witness.look(), "not before it was read");
    assert!(reason(site.ask(&witness, 1_000, 1_000)).contains("lost"));
    assert_eq!(witness.losses().len(), 1);
}

fn pruning(of: &str) -> Vec<u8> {
    let (event, object) = (PRUNE_EVENT.to_owned(), of.to_owned());
    Entry { event, object, ..Entry::begin(Kind::Admin, "gateway") }.to_bytes()
}

#[test]
fn pruned_bundles_are_no_loss_if_an_entry_says_so() {
    let mut entries = Site::new().entries;
    entries[1_200] = pruning("bundles:0-1");
    entries[1_800] = pruning("bundles:2-2");
    let mut site = Site::of(entries);
    site.store(1_100);
    let witness = site.witness();
    is_cosigned(&site.ask(&witness, 0, 1_100));
    // The witness is behind: the entry about it comes later.
    site.store(1_250);
    pruned::prune(&LogPaths::new(&site.data()), &[0..=1]).unwrap();
    assert!(witness.look() && witness.look() && witness.losses().is_empty(), "{:?}", witness.losses());
    is_cosigned(&site.ask(&witness, 1_100, 1_250));
    assert!(witness.look() && witness.losses().is_empty(), "{:?}", witness.losses());
    // A new witness has never seen those; the log's own entries explain that, and its hash tiles lead to the root.
    std::fs::remove_dir_all(site.state()).unwrap();
    let witness = site.witness();
    is_cosigned(&site.ask(&witness, 0, 1_250));
    assert!(witness.look() && witness.losses().is_empty());
    // The entry is about another gateway's folder, unless the list of this one has it, too.
    let (list, away) = (site.log().join("pruned"), site.folder.path().join("away"));
    std::fs::rename(&list, &away).unwrap();
    witness.look();
    assert!(witness.losses()[0].1.contains("tile/entries/00"), "{:?}", witness.losses());
    std::fs::rename(&away, &list).unwrap();
    until("it is listed", || witness.look() && witness.losses().is_empty());
    // A line in the list alone hides nothing, from either.
    pruned::prune(&LogPaths::new(&site.data()), &[2..=2]).unwrap();
    witness.look();
    assert!(witness.losses()[0].1.contains("bundle 2 is listed as pruned"), "{:?}", witness.losses());
    std::fs::remove_dir_all(site.state()).unwrap();
    let witness = site.witness();
    let told = reason(site.ask(&witness, 0, 1_250));
    assert!(told.contains("002 is listed as pruned"), "{told}");
    site.store(1_900);
    cosigned_soon(&site, &witness, 0, 1_900);
    // The list says that more was pruned than the entries do, and that what was to explain it was not read yet: once.
    site.store(1_950);
    pruned::prune(&LogPaths::new(&site.data()), &[3..=3]).unwrap();
    assert!(witness.look() && witness.losses().is_empty());
    is_cosigned(&site.ask(&witness, 1_900, 1_950));
    witness.look();
    assert!(witness.losses()[0].1.contains("bundle 3 is listed as pruned"), "{:?}", witness.losses());
}

#[test]
fn the_folders_are_those_of_all_logs_or_of_none() {
    let (site, other) = (Site::new(), LogSigner::from_pkcs8("log.example/b", &LogSigner::generate().unwrap()).unwrap());
    let file = site.folder.path().join("witness.toml");
    let read = |stores: &str| {
        let (a, b) = (site.signer().verifier(), other.verifier());
        let text = format!(
            "name = \"w.example/x\"\nlisten = \"127.0.0.1:0\"\nstate = \"w\"\nlogs = [\"{a}\", \"{b}\"]\n\
             [tls]\ncertificate = \"a\"\nkey = \"b\"\n{stores}"
        );
        std::fs::write(&file, text).unwrap();
        WitnessConfig::load(&file).map(|config| config.stores).map_err(|faults| format!("{faults:?}"))
    };
    assert!(read("").unwrap().is_empty());
    let both = read("[stores]\n\"log.example/a\" = \"log\"\n\"log.example/b\" = \"/srv/b\"\n").unwrap();
    assert_eq!(both["log.example/a"], site.folder.path().join("log"));
    assert_eq!(both["log.example/b"], Path::new("/srv/b"));
    let error = read("[stores]\n\"log.example/a\" = \"log\"\n").unwrap_err();
    assert!(error.contains("log.example/b") && error.contains("those of each of its logs"), "{error}");
    let error = read("[stores]\n\"log.example/c\" = \"log\"\n").unwrap_err();
    assert!(error.contains("is the origin of no log"), "{error}");
}

#[test]
fn one_key_makes_one_promise() {
    let site = Site::new();
    let plain = || WitnessConfig { stores: Default::default(), ..site.config() };
    WitnessService::make_keys(&site.config()).unwrap();
    let error = WitnessService::open(&plain()).err().unwrap().to_string();
    assert!(error.contains("stores entries") && error.contains("mirror"), "{error}");
    assert!(WitnessService::make_keys(&plain()).is_err());
    std::fs::remove_dir_all(site.state()).unwrap();
    WitnessService::make_keys(&plain()).unwrap();
    assert!(WitnessService::open(&site.config()).err().unwrap().to_string().contains("stores no entries"));
}

/// The log of a whole gateway, and the witness over HTTPS.
#[test]
fn a_gateway_waits_for_a_witness_whose_site_lacks_the_entries() {
    let mut stage = Stage::start();
    stage.system("one-stop-shop");
    exchange(&stage);
    drop(stage.gateway.take());
    let key = LogVerifier::parse(&std::fs::read_to_string(stage.data().join("log/vkey")).unwrap()).unwrap();
    let (states, pki) = (tempfile::tempdir().unwrap(), stage.folder.path.join("pki"));
    // The folder of the site: for now, one that is not there.
    let site = states.path().join("site");
    let stores = [(key.origin().to_owned(), site.clone())].into();
    let of = config("w.example/stores", &states.path().join("witness"), &pki, vec![key], 0);
    let witness = RunningWitness::start(WitnessConfig { stores, ..of });
    let vkey = std::fs::read_to_string(states.path().join("witness/vkey")).unwrap();
    let vkey = vkey.lines().next().unwrap();
    with_policy(&mut stage, &format!("witness dc2 {vkey} https://127.0.0.1:{}\nquorum dc2\n", witness.port));
    let metrics = || crate::support::ops_text(&stage, "/metrics");
    until("it was asked", || metrics().contains("ndxp_witness_failures_total{witness=\"dc2\"} 1"));
    let published = || LogReader::open(&stage.data()).unwrap().published().unwrap();
    assert_eq!(published(), None);
    std::os::unix::fs::symlink(stage.data().join("log"), &site).unwrap();
    until("it is cosigned", || published().is_some());
    assert!(ndxp_gateway::witness::alarm::read(&stage.data()).is_none(), "that is no fork");
}
