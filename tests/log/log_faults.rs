//! What disks and crashes do to the log: either everything comes back, or the fault is reported with its file; never a silent gap,
//! never a wrong proof.

use crate::support::{Actor, Outside, Running, UNIT};
use ndxp_gateway::exchange_log::checkpoint::{LogSigner, LogVerifier};
use ndxp_gateway::exchange_log::reader::LogReader;
use ndxp_gateway::exchange_log::receipt::Receipt;
use ndxp_gateway::exchange_log::verify::verify_data;
use ndxp_gateway::exchange_log::{Entry, ExchangeLog, Kind};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tonic::Code;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn call(actor: &Actor) -> Result<(Code, String, String), String> {
    let message = actor.encode(UNIT, &json!({ "unitCode": "1057000" }));
    let answered = tokio::time::timeout(Duration::from_secs(5), actor.raw(UNIT, &[], vec![message])).await;
    let told = answered.map_err(|_| "the call timed out".to_owned())?.map_err(|error| error.to_string())?;
    Ok((told.code(), told.reason(), told.exchange()))
}

/// Asserts that every exchange with a response is in the log, and that the log verifies.
fn all_there(outside: &Outside, answered: &[String]) {
    verify_data(&outside.config.data, None, None, Default::default(), |_, _| {}).unwrap();
    let logged: Vec<String> =
        crate::support::entries(&outside.config.data).iter().map(|one| one.entry.id_text()).collect();
    for id in answered {
        assert!(logged.contains(id), "the answered exchange {id} is not in the log");
    }
}

#[test]
fn a_crash_at_any_point_loses_no_answered_exchange() {
    let (outside, runtime) = (Outside::new(), runtime());
    let mut answered = Vec::new();
    let places = [
        "journal.made",
        "journal.torn:20",
        "journal.written:20",
        "journal.synced:20",
        "seal.file:9",
        "seal.files:2",
        "seal.signed:2",
        "seal.published:2",
        "seal.removed:2",
        "seal.file:2",
        "seal.published:1",
    ];
    for place in places {
        let mut gateway = Running::spawn(&outside.folder, &[("NDXP_CRASH_AT", place)]);
        if gateway.first_line().starts_with("gRPC on") {
            let actors: Vec<Actor> = (0..4).map(|_| outside.actor()).collect();
            let ends = Instant::now() + Duration::from_secs(10);
            let told = runtime.block_on(futures_util::future::join_all(actors.iter().map(|actor| async move {
                let mut ids = Vec::new();
                while Instant::now() < ends
                    && let Ok((code, _, id)) = call(actor).await
                    && code == Code::Ok
                {
                    ids.push(id);
                }
                ids
            })));
            answered.extend(told.into_iter().flatten());
        }
        let ended = gateway.0.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(6), "{place}: {ended:?}");
        // As the crash left it, and after the next start.
        if outside.config.data.join("log/checkpoint").exists() {
            verify_data(&outside.config.data, None, None, Default::default(), |_, _| {})
                .unwrap_or_else(|error| panic!("{place}: {error}"));
        }
        Running::start(&outside.folder, &[]).kill();
        all_there(&outside, &answered);
    }
    assert!(answered.len() > 50, "only {} answers", answered.len());
}

fn file_limit(pid: u32, bytes: Option<u64>) {
    let pid = Pid::from_raw(pid.try_into().unwrap());
    prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

/// Calls until they are refused as required, and then until they succeed again.
async fn refused_then_answered(actor: &Actor, break_it: impl FnOnce(), mend_it: impl FnOnce()) -> Vec<String> {
    let mut answered = Vec::new();
    for _ in 0..5 {
        let (code, _, id) = call(actor).await.unwrap();
        assert_eq!(code, Code::Ok);
        answered.push(id);
    }
    break_it();
    let mut refused = 0;
    for _ in 0..400 {
        match call(actor).await.unwrap() {
            // Entries that still fit in the preallocated space.
            (Code::Ok, _, id) => answered.push(id),
            (code, reason, _) => {
                assert_eq!((code, reason.as_str()), (Code::Unavailable, "EXCHANGE_LOG_UNAVAILABLE"));
                refused += 1;
            }
        }
        if refused == 20 {
            break;
        }
    }
    assert_eq!(refused, 20, "nothing was refused");
    mend_it();
    let ends = Instant::now() + Duration::from_secs(10);
    loop {
        match call(actor).await.unwrap() {
            (Code::Ok, _, id) => {
                answered.push(id);
                return answered;
            }
            _ => assert!(Instant::now() < ends, "service does not resume"),
        }
    }
}

#[test]
fn while_writes_fail_calls_are_refused_and_service_resumes_automatically() {
    let (outside, runtime) = (Outside::new(), runtime());
    let gateway = Running::start(&outside.folder, &[]);
    let (actor, pid) = (outside.actor(), gateway.0.id());
    let answered =
        runtime.block_on(refused_then_answered(&actor, || file_limit(pid, Some(0)), || file_limit(pid, None)));
    let sealed = || LogReader::open(&outside.config.data).unwrap();
    crate::support::until("it is sealed again", || sealed().tail().is_empty());
    all_there(&outside, &answered);
    gateway.kill();
    Running::start(&outside.folder, &[]).kill();
    all_there(&outside, &answered);
}

/// A write of which the source will know.
fn dossier() -> serde_json::Value {
    json!({ "updating": false, "dossiers": [{
        "dossierNumber": "H49.12-261125-7002", "procedureCode": "1.004222", "applicantName": "Nguyễn Văn An",
        "applicantKind": "CITIZEN", "status": "RECEIVED",
    }] })
}

const SYNC: &str = "/ndxp.publicservice.v1.PublicServiceService/SyncDossiers";

/// The logged ends of writes, as reason and cause, by exchange.
fn ends(outside: &Outside) -> Vec<(String, String)> {
    let all = crate::support::entries(&outside.config.data);
    let writes = all.iter().map(|one| &one.entry).filter(|entry| entry.operation.ends_with("SyncDossiers"));
    writes
        .filter(|entry| entry.kind() == Kind::Exchange)
        .map(|entry| (entry.reason.clone(), entry.cause.clone()))
        .collect()
}

/// The gateway stops, or its log fails, while a write is at its source.
#[test]
fn l10_a_write_without_a_logged_end_has_an_unknown_outcome() {
    let (outside, runtime) = (Outside::new(), runtime());
    let source = "publicservice";
    let write = |actor: &Actor| {
        let (actor, message) = (actor.clone(), actor.encode(SYNC, &dossier()));
        runtime.spawn(async move { actor.raw(SYNC, &[("ndxp-purpose", crate::support::PURPOSE)], vec![message]).await })
    };
    let intents = || {
        let all = crate::support::entries(&outside.config.data);
        all.iter().filter(|one| one.entry.kind() == Kind::Intent).count()
    };
    outside.sandbox.faults.set(source, ndxp_gateway::sandbox::Fault { latency_ms: 1_500, ..Default::default() });
    let gateway = Running::start(&outside.folder, &[]);
    let (actor, pid) = (outside.actor(), gateway.0.id());
    let told = write(&actor);
    crate::support::until("its intent is there", || intents() == 1);
    file_limit(pid, Some(0));
    let told = runtime.block_on(told).unwrap().unwrap();
    assert_eq!((told.code(), told.reason().as_str()), (Code::Unknown, "WRITE_OUTCOME_UNKNOWN"), "{:?}", told.answered);
    // One that cannot be started is not done: it can be retried.
    let told = runtime.block_on(write(&actor)).unwrap().unwrap();
    assert_eq!((told.code(), told.reason().as_str()), (Code::Unavailable, "EXCHANGE_LOG_UNAVAILABLE"));
    file_limit(pid, None);
    runtime.block_on(call(&actor)).unwrap();
    drop(write(&actor));
    crate::support::until("its intent is there", || intents() == 2);
    gateway.kill();
    assert!(ends(&outside).iter().all(|(reason, _)| reason != "WRITE_OUTCOME_UNKNOWN"), "{:?}", ends(&outside));
    let ending = ("WRITE_OUTCOME_UNKNOWN".to_owned(), "GATEWAY_ENDING".to_owned());
    for _ in 0..2 {
        // The second start adds nothing.
        let gateway = Running::start(&outside.folder, &[]);
        let ended = || ends(&outside).iter().filter(|end| **end == ending).count();
        crate::support::until("both have an end", || ended() == 2);
        runtime.block_on(call(&outside.actor())).unwrap();
        gateway.kill();
        assert_eq!(ended(), 2);
    }
    verify_data(&outside.config.data, None, None, Default::default(), |_, _| {}).unwrap();
}

/// A separate file system of some megabytes; `None` if mounting is not allowed.
struct Mounted(PathBuf);

impl Mounted {
    fn new(at: &Path, megabytes: u32) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let size = format!("size={megabytes}m");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output().ok()?;
        done.status.success().then(|| Mounted(at.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(&self.0).output();
    }
}

#[test]
fn a_full_disk_refuses_calls_until_there_is_space_again() {
    let (outside, runtime) = (Outside::new(), runtime());
    let (data, copy) = (outside.config.data.clone(), outside.config.data.with_extension("copy"));
    std::fs::rename(&data, &copy).unwrap();
    let Some(mounted) = Mounted::new(&data, 200) else {
        // Only a superuser may mount: the same promise is checked above without.
        return;
    };
    assert!(Command::new("cp").arg("-a").arg(format!("{}/.", copy.display())).arg(&data).status().unwrap().success());
    let gateway = Running::start(&outside.folder, &[]);
    let (actor, ballast) = (outside.actor(), data.join("ballast"));
    let fill = || {
        // All the space, and with it the preallocated segment: the next batch needs a new one.
        let mut file = std::fs::File::create(&ballast).unwrap();
        while std::io::Write::write_all(&mut file, &[1; 65_536]).is_ok() {}
        let journal = std::fs::read_dir(data.join("journal")).unwrap().map(|file| file.unwrap().path());
        let segment = journal.filter(|path| path.extension().is_some_and(|end| end == "seg")).max().unwrap();
        let used = std::fs::read(&segment).unwrap().iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
        std::fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(used).unwrap();
        while std::io::Write::write_all(&mut file, &[1; 4_096]).is_ok() {}
    };
    let free = || std::fs::remove_file(&ballast).unwrap();
    let answered = runtime.block_on(refused_then_answered(&actor, fill, free));
    crate::support::until("it is sealed again", || LogReader::open(&data).is_ok_and(|reader| reader.tail().is_empty()));
    all_there(&outside, &answered);
    gateway.kill();
    Running::start(&outside.folder, &[]).kill();
    all_there(&outside, &answered);
    drop(mounted);
}

const KEY: &str = "log.example/faults";

/// A log of 600 sealed entries and 7 more in its journal.
fn make(data: &Path, key: &[u8]) -> LogVerifier {
    let signer = LogSigner::from_pkcs8(KEY, key).unwrap();
    let verifier = signer.verifier();
    let log = ExchangeLog::open(data, signer).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let entry =
        |number: u64| Entry { total_us: number + 1, client: "shop".into(), ..Entry::begin(Kind::Exchange, "dc1") };
    let append = |range: std::ops::Range<u64>| {
        let all: Vec<Entry> = range.map(entry).collect();
        runtime.block_on(futures_util::future::join_all(all.iter().map(|entry| log.append(entry))));
    };
    append(0..600);
    log.seal_now().unwrap();
    append(600..607);
    // The state after a crash: a copy taken while the last entries are only in the journal.
    verifier
}

pub(crate) fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

fn files(folder: &Path, below: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for path in std::fs::read_dir(below).unwrap().map(|file| file.unwrap().path()) {
        if path.is_dir() {
            files(folder, &path, found);
        } else {
            found.insert(path.strip_prefix(folder).unwrap().to_owned(), std::fs::read(&path).unwrap());
        }
    }
}

/// The rule for a damaged log: the fault is reported with its file, or everything is there and every proof is right.
fn told_or_whole(data: &Path, key: &[u8], verifier: &LogVerifier, what: &str) {
    let whole = |data: &Path| -> Result<(), String> {
        let report = verify_data(data, None, Some(verifier), Default::default(), |_, _| {})
            .map_err(|error| error.to_string())?;
        let reader = LogReader::open(data).map_err(|error| error.to_string())?;
        for index in (0..reader.sealed()).step_by(37) {
            let receipt = Receipt::make(&reader, index).map_err(|error| error.to_string())?.unwrap();
            receipt.verify(verifier).unwrap_or_else(|error| panic!("{what}: a wrong proof: {error}"));
        }
        if report.sealed + report.tail == 607 { Ok(()) } else { panic!("{what}: a silent gap: {report:?}") }
    };
    let before = whole(data);
    let opened = ExchangeLog::open(data, LogSigner::from_pkcs8(KEY, key).unwrap());
    match (before, opened) {
        (_, Err(error)) => {
            let told = error.to_string();
            assert!(told.contains(data.to_str().unwrap()), "{what}: no file is named: {told}");
        }
        (before, Ok(log)) => {
            drop(log);
            // It was opened: any fault must be found by verification, or have been repaired.
            if let Err(told) = whole(data) {
                assert!(told.contains(data.to_str().unwrap()), "{what}: {told}");
                assert!(before.is_err(), "{what}: opening has broken it: {told}");
            }
        }
    }
}

#[test]
fn damage_to_any_file_of_the_log_is_reported_or_repaired() {
    let (folder, key) = (tempfile::tempdir().unwrap(), LogSigner::generate().unwrap());
    let (good, data) = (folder.path().join("good"), folder.path().join("data"));
    let verifier = {
        let live = folder.path().join("live");
        let verifier = make(&live, &key);
        // `make` has closed the log, which seals all: 607 entries.
        copy(&live, &good);
        verifier
    };
    let mut all = BTreeMap::new();
    files(&good, &good, &mut all);
    assert!(all.len() > 8, "{:?}", all.keys());
    let mut cases = 0;
    for (name, bytes) in &all {
        if name.ends_with("lock") {
            continue;
        }
        let middle = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) / 2;
        let flip = |at: usize| {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            Some(changed)
        };
        let damages = [
            ("a flipped bit in the middle", flip(middle)),
            ("a flipped bit at the end", flip(bytes.len() - 1)),
            ("a flipped bit at the beginning", flip(0)),
            ("cut in the middle", Some(bytes[..middle].to_vec())),
            ("emptied", Some(Vec::new())),
            ("something behind it", Some([bytes.as_slice(), b"x"].concat())),
            ("removed", None),
        ];
        for (damage, changed) in damages {
            copy(&good, &data);
            match changed {
                Some(changed) => std::fs::write(data.join(name), changed).unwrap(),
                None => std::fs::remove_file(data.join(name)).unwrap(),
            }
            told_or_whole(&data, &key, &verifier, &format!("{}: {damage}", name.display()));
            cases += 1;
        }
    }
    // Two files of the same size in each other's place.
    let pairs = [("log/tile/0/000", "log/tile/0/001"), ("log/tile/entries/000", "log/tile/entries/001")];
    for (one, other) in pairs {
        copy(&good, &data);
        std::fs::write(data.join(one), &all[Path::new(other)]).unwrap();
        std::fs::write(data.join(other), &all[Path::new(one)]).unwrap();
        assert!(verify_data(&data, None, Some(&verifier), Default::default(), |_, _| {}).is_err());
        told_or_whole(&data, &key, &verifier, &format!("{one} and {other} swapped"));
    }
    assert!(cases > 50, "{cases}");
}

#[test]
fn a_rolled_back_log_is_detected_at_start() {
    let (folder, key) = (tempfile::tempdir().unwrap(), LogSigner::generate().unwrap());
    let (data, old) = (folder.path().join("data"), folder.path().join("old"));
    make(&data, &key);
    copy(&data, &old);
    let open = || ExchangeLog::open(&data, LogSigner::from_pkcs8(KEY, &key).unwrap());
    let log = open().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(log.append(&Entry::begin(Kind::Exchange, "dc1"))).unwrap();
    drop(log);
    for part in ["log", "journal"] {
        copy(&old.join(part), &data.join(part));
    }
    let error = open().err().unwrap().to_string();
    assert!(error.contains("rolled back") && error.contains("608"), "{error}");
}
