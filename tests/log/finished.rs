//! A data folder with every kind of file that a gateway writes: of a gateway that ran with witnesses (one of which has seen a fork),
//! legal holds, pruning, revoked tokens and a verified index, and has ended.

use super::witnesses::{cosigned, tree};
use crate::support::witness::{RunningWitness, config, log_signer, with_policy};
use crate::support::{self, Stage, audit_cli, until};
use ndxp_gateway::audit::index::SearchIndex;
use ndxp_gateway::exchange_log::checkpoint::{LogSigner, LogVerifier};
use ndxp_gateway::exchange_log::journal::SEGMENT_BYTES;
use ndxp_gateway::exchange_log::reader::LogReader;
use ndxp_gateway::exchange_log::{Entry, ExchangeLog, Kind};
use ndxp_gateway::keyfile::Vault;
use ndxp_gateway::registry::sqlite::SqliteStore;
use ndxp_gateway::registry::{AdminEventKey, Store, now, state_file};
use ndxp_gateway::sandbox::samples::samples;
use ndxp_gateway::server::registry_path;
use ndxp_gateway::witness::alarm;
use ndxp_gateway::witness::request::AddCheckpoint;
use ndxp_gateway::witness::server::{WitnessResponse, WitnessService};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Files by their path in the data folder.
pub type Files = BTreeMap<PathBuf, Vec<u8>>;

/// The folder, its older state, and another log's.
pub struct Finished {
    pub stage: Stage,
    pub key: LogVerifier,
    /// An exchange and its subject.
    pub exchange: String,
    pub person: String,
    /// The policy of witnesses that the configuration names.
    pub policy: String,
    pub now: Files,
    pub older: Files,
    pub foreign: Files,
}

/// How far behind the newest entry the older state's cosignatures are, at least.
pub const LAG: Duration = Duration::from_secs(4);

fn files_below(folder: &Path, data: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files_below(&path, data, found),
            false => found.push(path.strip_prefix(data).unwrap().to_owned()),
        }
    }
}

/// Bytes of a journal file, without the zeros at its end.
pub const SEGMENT: u64 = SEGMENT_BYTES;

/// Whether a file has the length of a journal file, whatever its content.
pub fn is_segment(path: &Path) -> bool {
    path.starts_with("journal") && path.file_name().is_some_and(|name| name != "lock")
}

/// A file's bytes.
pub fn read(data: &Path, path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = std::fs::read(data.join(path))?;
    if is_segment(path) {
        bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    }
    Ok(bytes)
}

/// Every file of a data folder.
pub fn all_files(data: &Path) -> Files {
    let mut all = Vec::new();
    files_below(data, data, &mut all);
    all.into_iter().filter_map(|path| Some((path.clone(), read(data, &path).ok()?))).collect()
}

/// Every file of the data folder of a gateway that runs in this process. Its databases are asked for a copy: who opens and closes
/// such a file takes the locks of everybody in the process away.
fn files_while_it_runs(data: &Path) -> Files {
    let (mut all, copies) = (Vec::new(), tempfile::tempdir().unwrap());
    files_below(data, data, &mut all);
    all.retain(|path| !path.to_str().unwrap().contains(".sqlite"));
    let mut files: Files = all.into_iter().filter_map(|path| Some((path.clone(), read(data, &path).ok()?))).collect();
    for name in ["index/log.sqlite", "registry.sqlite", "usage.sqlite"] {
        let copy = copies.path().join(name.replace('/', "-"));
        let connection = rusqlite::Connection::open(data.join(name)).unwrap();
        connection.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
        files.insert(name.into(), std::fs::read(copy).unwrap());
    }
    files
}

/// Another log's files: of 700 entries, with an index.
fn foreign() -> Files {
    let folder = tempfile::tempdir().unwrap();
    let signer = LogSigner::from_pkcs8("another.example/log", &LogSigner::generate().unwrap()).unwrap();
    let log = ExchangeLog::open(folder.path(), signer).unwrap();
    let entry = |number: u64| Entry { client: format!("c{number}"), ..Entry::begin(Kind::Exchange, "dc9") };
    (0..700).for_each(|number| log.append_detached(&entry(number)).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(log.append(&entry(700))).unwrap();
    drop(log);
    ndxp_gateway::audit::index::rebuild(folder.path(), &Vault::default(), |_, _| {}).unwrap();
    all_files(folder.path())
}

/// A source has drifted: the gateway keeps that.
fn drifted(data: &Path) {
    let (key, file) =
        (AdminEventKey::make(&registry_path(data), &Vault::default()).unwrap(), data.join("state/drift.json"));
    let path = |path: &str| json!({ "kind": "added", "path": path, "first_s": now(), "last_s": now(), "answers": 1 });
    let paths = [path("ThuaDat/khac"), path("ThuaDat/truongMoi")];
    let land = json!({ "source": "land", "contract": "v1", "protocol": "REST", "paths": paths, "beyond": 0 });
    let state = json!({ "operations": { "ndxp.land.v1.LandService/GetParcel": land } });
    std::fs::write(&file, state_file::encode(&file, &key, &state).unwrap()).unwrap();
}

/// A witness of a stage's log, and the line of a policy that names it.
fn witness(stage: &Stage, name: &str, short: &str, forked: bool) -> (RunningWitness, String) {
    let (signer, state) = (log_signer(stage), stage.folder.path.join(short));
    std::fs::create_dir_all(&state).unwrap();
    let of = config(name, &state, &stage.folder.path.join("pki"), vec![signer.verifier()], 0);
    WitnessService::make_keys(&of).unwrap();
    if forked {
        // The log's key signs another tree for it, as a copy of the gateway would.
        let other = AddCheckpoint { old: 0, proof: vec![], note: signer.sign(2, &tree(7, 2).0) };
        let told = WitnessService::open(&of).unwrap().add_checkpoint(other.to_text().as_bytes(), now().unsigned_abs());
        assert!(matches!(told, WitnessResponse::Cosigned(_)), "{told:?}");
    }
    let running = RunningWitness::start(of);
    let vkey = std::fs::read_to_string(state.join("vkey")).unwrap();
    let line = format!("witness {short} {} https://127.0.0.1:{}\n", vkey.lines().next().unwrap(), running.port);
    (running, line)
}

impl Finished {
    pub fn make() -> Self {
        let mut stage = Stage::start();
        let shop = stage.system("one-stop-shop");
        let samples = samples(&stage.sandbox.province);
        let request = samples.iter().find(|one| one.operation.ends_with("/VerifyCitizen")).unwrap().requests[0].clone();
        let person = request["citizenId"].as_str().unwrap().to_owned();
        let data = stage.data();
        let sealed = |least: u64| {
            until("acts are sealed", || {
                let reader = LogReader::open(&data).unwrap();
                reader.sealed() > least && reader.sealed() == reader.size()
            });
        };
        // A bundle and more that may be pruned, then what a hold keeps.
        (0..300).for_each(|number: u32| stage.store.note("test.act", format!("number:{number}")).unwrap());
        sealed(300);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let exchange = runtime.block_on(async {
            let mut exchange = String::new();
            for _ in 0..3 {
                exchange = shop.call(support::VERIFY, request.clone()).await.ok().exchange();
            }
            exchange
        });
        stage.store.revoke_client_tokens("one-stop-shop").unwrap();
        for number in ["9/TA", "10/TA"] {
            let (placed, _, why) = audit_cli(&stage, &["hold", "add", "--client", "one-stop-shop", "--case", number]);
            assert!(placed, "{why}");
        }
        assert!(audit_cli(&stage, &["hold", "release", "1"]).0);
        // A connection that is open keeps a gateway that ends waiting.
        drop((shop, runtime));
        stage.settle();
        stage.gateway.take().unwrap().stop();
        let witnesses = [witness(&stage, "w.example/dc2", "dc2", false), witness(&stage, "w.example/dc3", "dc3", true)];
        let policy = format!("{}{}quorum dc2\n", witnesses[0].1, witnesses[1].1);
        with_policy(&mut stage, &policy);
        until("the alarm stands", || alarm::read(&data).is_some());
        until("it is cosigned", || cosigned(&stage) > 300);
        let (older, taken) = (files_while_it_runs(&data), std::time::Instant::now());
        (300..560).for_each(|number: u32| stage.store.note("test.act", format!("number:{number}")).unwrap());
        sealed(560);
        let archive = stage.folder.path.join("archive");
        // Where the log does not state it in time, it is to be tried again.
        until("it is pruned", || {
            audit_cli(&stage, &["prune", "--keep", "0s", "--archive", archive.to_str().unwrap()]).0
        });
        let indexed = || {
            let (reader, index) = (LogReader::open(&data).unwrap(), SearchIndex::read(&data, &Vault::default()));
            index.is_some_and(|index| index.indexed(&reader) == reader.sealed() / 256 * 256)
        };
        until("the index follows", indexed);
        assert!(audit_cli(&stage, &["verify", "--index"]).0);
        until("the older state is old enough", || taken.elapsed() > LAG);
        // Tokens with pruned entries would have expired long before; a valid one replaces them.
        stage.store.remove_ended_tokens(i64::MAX, 100).unwrap();
        stage.token("one-stop-shop", Duration::from_secs(3_600), Duration::ZERO);
        stage.store.note("test.act", "number:last".to_owned()).unwrap();
        let all_cosigned = || {
            let reader = LogReader::open(&data).unwrap();
            stage.store.admin_events().unwrap().is_empty()
                && reader.size() == reader.sealed()
                && cosigned(&stage) == reader.size()
        };
        until("everything is cosigned", all_cosigned);
        stage.gateway.take().unwrap().stop();
        drifted(&data);
        // Its last connection closes the registry's file.
        stage.store = SqliteStore::open(&stage.folder.path.join("other.sqlite")).unwrap();
        let key = LogReader::open(&data).unwrap().verifier().clone();
        Finished { now: all_files(&data), stage, key, exchange, person, policy, older, foreign: foreign() }
    }
}
