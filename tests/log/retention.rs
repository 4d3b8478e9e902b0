//! Old entries are archived and pruned; earlier proofs about them remain valid, and nothing disappears unnoticed.

use crate::support::Stage;
use ndxp_gateway::audit::index::{SearchIndex, rebuild};
use ndxp_gateway::audit::query::Query;
use ndxp_gateway::audit::retention::{Holds, MAX_HOLDS, archive, is_logged, plan, prune};
use ndxp_gateway::audit::search;
use ndxp_gateway::audit::statistics::from_log;
use ndxp_gateway::exchange_log::checkpoint::LogSigner;
use ndxp_gateway::exchange_log::entry::Pseudonym;
use ndxp_gateway::exchange_log::pruned::PRUNE_EVENT;
use ndxp_gateway::exchange_log::reader::LogReader;
use ndxp_gateway::exchange_log::receipt::Receipt;
use ndxp_gateway::exchange_log::verify::verify_data;
use ndxp_gateway::exchange_log::{Entry, ExchangeLog, Kind};
use ndxp_gateway::keyfile::Vault;
use std::path::Path;
use std::process::Command;

const DAY_US: i64 = 86_400_000_000;

fn open(data: &Path, key: &[u8]) -> ExchangeLog {
    ExchangeLog::open(data, LogSigner::from_pkcs8("log.example/retention", key).unwrap()).unwrap()
}

fn append(log: &ExchangeLog, entries: impl IntoIterator<Item = Entry>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let all: Vec<Entry> = entries.into_iter().collect();
    runtime.block_on(futures_util::future::join_all(all.iter().map(|entry| log.append(entry))));
    log.seal_now().unwrap();
}

/// One bundle a day.
fn day(number: i64) -> impl Iterator<Item = Entry> {
    (0..256).map(move |at| Entry {
        client: format!("system-{number}"),
        time_us: 1_700_000_000_000_000 + number * DAY_US + at,
        ..Entry::begin(Kind::Exchange, "dc1")
    })
}

#[test]
fn pruned_entries_are_archived_recorded_and_still_provable() {
    let (folder, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (data, key) = (folder.path(), LogSigner::generate().unwrap());
    let log = open(data, &key);
    (0..6).for_each(|number| append(&log, day(number)));
    rebuild(data, &Vault::default(), |_, _| {}).unwrap();
    let receipt = Receipt::make(&LogReader::open(data).unwrap(), 300).unwrap().unwrap();
    let verifier = LogReader::open(data).unwrap().verifier().clone();

    // Five days are old enough; the second is held.
    let held = Query { client: Some("system-1".into()), ..Query::default() };
    let place = |query: &Query, case: &str| {
        Holds::change(data, |holds| holds.add(query, case, "cli:lan").map(|hold| hold.id)).unwrap()
    };
    let release = |id| Holds::change(data, |holds| holds.release(id)).unwrap();
    assert_eq!(place(&held, "12/TA"), Some(1));
    // A hold that cannot be read completely stops every pruning: it must not hold less.
    let person = Pseudonym { key: "2026-11".into(), value: vec![0xab; 16] };
    let id = place(&Query { subject: Some(vec![person]), ..Query::default() }, "13/TA").unwrap();
    let (file, good) = (data.join("state/holds.json"), std::fs::read_to_string(data.join("state/holds.json")).unwrap());
    assert!(good.contains("2026-11:abab") && Holds::read(data).is_ok());
    std::fs::write(&file, good.replace("2026-11:abab", "2026-11:xbab")).unwrap();
    assert!(plan(data, i64::MAX, |_, _| {}).is_err());
    std::fs::write(&file, good).unwrap();
    assert!(release(id));
    let old = 1_700_000_000_000_000 + 5 * DAY_US;
    let first = plan(data, old, |_, _| {}).unwrap();
    assert_eq!((first.runs.as_slice(), first.held), ([0..=0, 2..=4].as_slice(), 1));
    archive(data, &first, kept.path(), |_| {}).unwrap();
    assert!(!is_logged(data, &first).unwrap());

    // Pruned without an entry that records it: detected as a removal.
    prune(data, &first, &Vault::default()).unwrap();
    let error = verify_data(data, None, Some(&verifier), Default::default(), |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("it lists entries 0 to 255 as pruned"), "{error}");
    let event = |object| Entry { event: PRUNE_EVENT.into(), object, ..Entry::begin(Kind::Admin, "dc1") };
    append(&log, first.objects().map(event));
    assert!(is_logged(data, &first).unwrap());
    let report = verify_data(data, None, Some(&verifier), Default::default(), |_, _| {}).unwrap();
    assert_eq!((report.sealed, report.pruned), (6 * 256 + 2, 4 * 256));
    let report = verify_data(data, Some(kept.path()), Some(&verifier), Default::default(), |_, _| {}).unwrap();
    assert_eq!(report.pruned, 4 * 256);

    // Old proofs are valid, new ones of remaining entries are made, searches skip pruned entries.
    assert!(receipt.verify(&verifier).is_ok());
    let (reader, index) = (LogReader::open(data).unwrap(), SearchIndex::read(data, &Vault::default()));
    assert!(Receipt::make(&reader, 300).unwrap().unwrap().verify(&verifier).is_ok());
    assert!(Receipt::make(&reader, 3).unwrap().is_none());
    let client = |name: &str| Query { client: Some(name.into()), ..Query::default() };
    for index in [index.as_ref(), None] {
        let count = |name| search::page(&reader, index, &client(name), None, 1_000, None).unwrap().found.len();
        assert_eq!((count("system-0"), count("system-1"), count("system-5")), (0, 256, 256));
    }
    // Counts cover the remaining entries, and report how many of their period are pruned.
    let counted = |from_us: Option<i64>| {
        let query = Query { from_us, ..Query::default() };
        let counted = from_log(&reader, &query, true, 100, |_, _| true).unwrap().unwrap();
        (counted.counts.unwrap().iter().map(|one| one.exchanges).sum::<u64>(), counted.not_counted)
    };
    assert_eq!(counted(None), (2 * 256, 4 * 256));
    assert_eq!(counted(Some(1_700_000_000_000_000 + 3 * DAY_US / 2)), (256, 3 * 256));
    assert_eq!(counted(Some(1_700_000_000_000_000 + 6 * DAY_US)), (0, 0));
    rebuild(data, &Vault::default(), |_, _| {}).unwrap();

    // A changed archive, a released hold, a log that continues after a restart.
    let bundle = kept.path().join("tile/entries/002");
    let mut bytes = std::fs::read(&bundle).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&bundle, bytes).unwrap();
    assert!(verify_data(data, Some(kept.path()), Some(&verifier), Default::default(), |_, _| {}).is_err());
    assert!(release(1));
    assert_eq!(plan(data, old, |_, _| {}).unwrap().runs, [1..=1]);
    drop(log);
    let log = open(data, &key);
    append(&log, day(6));
    assert_eq!(verify_data(data, None, Some(&verifier), Default::default(), |_, _| {}).unwrap().sealed, 7 * 256 + 2);
    // The bundle that records the pruning stays, however old.
    assert_eq!(plan(data, i64::MAX, |_, _| {}).unwrap().evidence_bundles, 1);
}

#[test]
fn an_administrator_prunes_while_the_gateway_runs() {
    let stage = Stage::start();
    let folder = &stage.folder.path;
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_ndxp-gateway")).args(args).current_dir(folder).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    // Enough admin events for a bundle.
    for number in 0..300 {
        stage.store.note("test.act", format!("number:{number}")).unwrap();
    }
    crate::support::until("the acts are sealed", || LogReader::open(&stage.data()).unwrap().sealed() > 300);
    std::thread::sleep(std::time::Duration::from_secs(1));
    let (code, told) = run(&["audit", "prune", "--keep", "0s", "--archive", "archive", "--dry-run"]);
    assert_eq!((code, told.contains("256 entries could be pruned")), (Some(0), true), "{told}");
    assert!(run(&["audit", "prune", "--archive", "archive"]).1.contains("0 entries could be pruned"));
    let (code, told) = run(&["audit", "prune", "--keep", "0s", "--archive", "archive"]);
    assert_eq!((code, told.contains("256 entries are pruned")), (Some(0), true), "{told}");
    let (code, told) = run(&["audit", "verify", "--archive", "archive"]);
    assert_eq!((code, told.contains("256 of them pruned")), (Some(0), true), "{told}");
    let admin_events = run(&["--output", "json", "audit", "search", "--limit", "20"]).1;
    assert!(
        admin_events.contains("log.prune") && admin_events.contains("bundles:0-0") && admin_events.contains("local:"),
        "{admin_events}"
    );
    assert!(
        run(&["audit", "hold", "add", "--client", "one-stop-shop", "--case", "9/TA"]).1.contains("hold 1 is placed")
    );
    assert!(run(&["audit", "hold", "list"]).1.contains("9/TA"));
    assert_eq!(run(&["audit", "hold", "release", "2"]).0, Some(1));
    assert_eq!(run(&["audit", "hold", "release", "1"]).0, Some(0));
    stage.verify();
}

#[test]
fn a_gateway_prunes_by_its_policy() {
    let mut stage = Stage::start();
    drop(stage.gateway.take());
    let key = std::fs::read(stage.data().join("keys/log.key")).unwrap();
    let signer = LogSigner::from_pkcs8("ndxp.quangninh.gov.vn/log", &key).unwrap();
    let log = ExchangeLog::open(&stage.data(), signer).unwrap();
    append(&log, day(0).chain(day(1)));
    drop(log);
    crate::support::edit(&stage.folder.gateway_config(), |text| {
        text.replacen("[log]\n", "[log]\narchive = \"archive\"\nkeep_days = 365\nprune_every_s = 1\n", 1)
    });
    let config =
        ndxp_gateway::config::Config::load(&stage.folder.gateway_config()).map_err(crate::support::show).unwrap();
    stage.gateway = Some(ndxp_gateway::server::Gateway::start(config).unwrap());
    let pruned = || verify_data(&stage.data(), None, None, Default::default(), |_, _| {}).unwrap().pruned;
    crate::support::until("what is old is pruned", || pruned() >= 256);
    let archive = stage.folder.path.join("archive");
    let report = verify_data(&stage.data(), Some(&archive), None, Default::default(), |_, _| {}).unwrap();
    assert!(report.pruned >= 256 && report.sealed > report.pruned);
    let entries = crate::support::entries(&stage.data());
    assert!(entries.iter().any(|one| one.entry.event == PRUNE_EVENT && one.entry.actor == "gateway"));
}

#[test]
fn d_holds_are_bounded_in_number() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("state")).unwrap();
    let placed = |count| {
        Holds::change(folder.path(), |holds| {
            (0..count).filter(|_| holds.add(&Query::default(), "1/TA", "lan").is_some()).count()
        })
        .unwrap()
    };
    assert_eq!((placed(MAX_HOLDS + 10), placed(1)), (MAX_HOLDS, 0));
    assert!(Holds::change(folder.path(), |holds| holds.release(7)).unwrap());
    assert_eq!(placed(10), 1);
}
