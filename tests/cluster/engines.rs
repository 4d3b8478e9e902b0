//! The contract of the log's engines ([`ndxp_gateway::exchange_log::engine::LogEngine`]): the same suite over both.

use crate::etcd::{EtcdCluster, LIMIT};
use crate::log::{entry, named, patient};
use futures_util::future::join_all;
use ndxp_gateway::cluster_log;
use ndxp_gateway::exchange_log::checkpoint::LogSigner;
use ndxp_gateway::exchange_log::reader::LogReader;
use ndxp_gateway::exchange_log::verify::verify_data;
use ndxp_gateway::exchange_log::{Entry, ExchangeLog, Kind, LogError};
use std::path::Path;
use std::time::Instant;
use tokio::runtime::Runtime;

/// Opens the log of a folder.
type Open<'o> = &'o dyn Fn(&Path) -> Result<ExchangeLog, LogError>;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

/// What holds of every engine. Its log is empty before.
fn conforms(open: Open<'_>, data: &Path) {
    let runtime = runtime();
    let log = open(data).unwrap();
    assert!(log.is_writable() && log.durable() == 0);
    assert!(matches!(open(data), Err(LogError::Locked(_))), "one process writes");

    // Durable, once, in order: many appenders, each of which waits for its own entry before the next one.
    let appender = |number: usize| {
        let log = log.clone();
        async move {
            let mut indexes = Vec::new();
            for turn in 0..20 {
                indexes.push(log.append(&entry(&format!("a{number}-{turn}"))).await.unwrap());
            }
            indexes
        }
    };
    let indexes: Vec<Vec<Option<u64>>> = runtime.block_on(join_all((0..30).map(appender)));
    assert!(log.durable() >= 600 && log.is_writable());
    log.append_detached(&entry("detached")).unwrap();

    // Sealed without any call, and a number that was shown never falls.
    let mut sealed = log.watch_sealed();
    let mut last = 0;
    runtime.block_on(async {
        let began = Instant::now();
        while last < 601 {
            let left = LIMIT.saturating_sub(began.elapsed());
            tokio::time::timeout(left, sealed.changed()).await.expect("nothing is sealed").unwrap();
            let now = *sealed.borrow_and_update();
            assert!(now >= last && now <= 601, "{now} after {last}");
            last = now;
        }
    });
    let reader = LogReader::sealed_only(data).unwrap();
    assert_eq!((reader.sealed(), log.durable()), (601, 601));
    let there = named(data);
    for (number, indexes) in indexes.iter().enumerate() {
        let places: Vec<u64> = (0..20).map(|turn| there[&format!("a{number}-{turn}")][0]).collect();
        assert!(places.is_sorted(), "an appender's entries keep their order");
        assert!(indexes.iter().zip(&places).all(|(told, found)| told.is_none_or(|told| told == *found)));
    }
    assert!(there.len() == 601 && there.values().all(|places| places.len() == 1));

    // Failed: an entry that no log takes harms nothing else.
    let large = Entry { purpose: "p".repeat(70_000), ..Entry::begin(Kind::Exchange, "dc1") };
    assert!(matches!(runtime.block_on(log.append(&large)), Err(LogError::Full)));
    runtime.block_on(log.append(&entry("after"))).unwrap();

    // Larger than a batch of either engine, at once.
    let many: Vec<Entry> = (0..60).map(|number| large_entry(number, 30_000)).collect();
    let all = runtime.block_on(join_all(many.iter().map(|entry| log.append(entry))));
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(log.seal_now().unwrap(), 662);
    let health = log.health();
    assert!(!health.is_behind() && !health.is_full && health.unsealed_entries == 0, "{health:?}");
    assert_eq!(LogReader::sealed_only(data).unwrap().sealed(), 662);

    // Closed: the next start finds everything, and goes on.
    runtime.block_on(log.append(&entry("last words"))).unwrap();
    drop(log);
    let log = open(data).unwrap();
    runtime.block_on(log.append(&entry("first words"))).unwrap();
    assert_eq!(log.seal_now().unwrap(), 664);
    drop(log);
    let there = named(data);
    assert!(there["last words"][0] < there["first words"][0]);
    assert_eq!(verify_data(data, None, None, Default::default(), |_, _| {}).unwrap().sealed, 664);
}

fn large_entry(number: usize, bytes: usize) -> Entry {
    let purpose = format!("large {number} {}", "x".repeat(bytes));
    Entry { purpose, ..Entry::begin(Kind::Exchange, "dc1") }
}

#[test]
fn the_embedded_engine_keeps_the_contract() {
    let (folder, key) = (tempfile::tempdir().unwrap(), LogSigner::generate().unwrap());
    let signer = || LogSigner::from_pkcs8("log.test/engine", &key).unwrap();
    conforms(&|data| ExchangeLog::open(data, signer()), folder.path());
    // A folder belongs to one of the two.
    let Some(etcd) = EtcdCluster::start() else { return };
    let error = cluster_log::open(folder.path(), signer(), patient(&etcd)).err().unwrap();
    assert!(error.to_string().contains("one gateway writes alone"), "{error}");
    ExchangeLog::open(folder.path(), signer()).unwrap();
}

#[test]
fn the_engine_over_etcd_keeps_the_contract() {
    let Some(etcd) = EtcdCluster::start() else { return };
    let (folder, key) = (tempfile::tempdir().unwrap(), LogSigner::generate().unwrap());
    let signer = || LogSigner::from_pkcs8("log.test/engine", &key).unwrap();
    conforms(&|data| cluster_log::open(data, signer(), patient(&etcd)), folder.path());
    assert!(matches!(ExchangeLog::open(folder.path(), signer()), Err(LogError::Replicated(_))));
}
