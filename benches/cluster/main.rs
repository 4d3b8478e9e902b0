//! The log over etcd, with TLS and the rights of `deploy/cluster/`, beside the embedded one in the same run: durable entries a
//! second through one, two and three gateways; latency and CPU at fixed rates; what an answer costs with a delay between data
//! centres; and both as the log grows. Three members and all gateways are on this machine: `NDXP_ETCD=$(simulator/cluster/etcd.sh)
//! cargo bench --bench cluster [-- --only saturation|rates|delays|growth] [--seconds 5] [--max 1000000]`. Figures in
//! docs/performance.md.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod delays;
#[path = "../filled/entries.rs"]
mod entries;
#[path = "../../tests/support/etcd.rs"]
mod etcd;
mod usage;

use entries::entry;
use etcd::{EtcdCluster, MEMBERS};
use ndxp_gateway::cluster::etcd::Members;
use ndxp_gateway::cluster::member::{EtcdMember, MemberStatus};
use ndxp_gateway::cluster::timers::RuntimeTimers;
use ndxp_gateway::cluster::{ClusterError, EtcdMembers, GatewayName};
use ndxp_gateway::cluster_log::site_files::OtherSite;
use ndxp_gateway::cluster_log::{self, ClusterLogSettings};
use ndxp_gateway::exchange_log::checkpoint::LogSigner;
use ndxp_gateway::exchange_log::verify::LogFolder;
use ndxp_gateway::exchange_log::{Entry, ExchangeLog, LogError, LogPaths};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use usage::{Usage, percentile};

/// Appenders of a gateway at saturation: some full batches.
const APPENDERS: usize = 1_024;
/// Entries that are appended in turn.
const ENTRIES: u64 = 4_096;
/// Pause of an appender that is refused.
const REFUSED: Duration = Duration::from_millis(1);
/// The calls a second of a small province, its busiest hour, and of ten.
const RATES: [u64; 3] = [3, 60, 600];

/// Logs of gateways, and what is below them.
struct Gateways {
    logs: Vec<ExchangeLog>,
    etcd: Option<EtcdCluster>,
    _folder: tempfile::TempDir,
}

impl Gateways {
    /// One that writes alone.
    fn embedded() -> Self {
        let folder = tempfile::tempdir_in("target").unwrap();
        let logs = vec![ExchangeLog::open(folder.path(), signer(&LogSigner::generate().unwrap())).unwrap()];
        Gateways { logs, etcd: None, _folder: folder }
    }

    /// So many over etcd, each in the data centre of a member.
    fn over(etcd: EtcdCluster, count: usize) -> Self {
        let (folder, key) = (tempfile::tempdir_in("target").unwrap(), LogSigner::generate().unwrap());
        let data: Vec<PathBuf> = (0..count).map(|at| folder.path().join(format!("gateway{at}"))).collect();
        let logs = (0..count).map(|at| open(&etcd, &data, &key, at)).collect();
        Gateways { logs, etcd: Some(etcd), _folder: folder }
    }

    fn usage(&self) -> Usage {
        Usage::of(&self.etcd.as_ref().map(EtcdCluster::processes).unwrap_or_default())
    }
}

fn signer(key: &[u8]) -> LogSigner {
    LogSigner::from_pkcs8("bench.example/log", key).unwrap()
}

fn open(etcd: &EtcdCluster, data: &[PathBuf], key: &[u8], at: usize) -> ExchangeLog {
    let others = data.iter().enumerate().filter(|(other, _)| *other != at);
    let site = |path: &Path| Arc::new(LogFolder::on(&LogPaths::new(path), None)) as OtherSite;
    let settings = ClusterLogSettings {
        sites: data.len(),
        others: others.map(|(_, path)| site(path)).collect(),
        ..ClusterLogSettings::new(GatewayName::parse(&format!("dc{at}")).unwrap(), etcd.access(at))
    };
    cluster_log::open(&data[at], signer(key), settings).unwrap()
}

/// One appender: goes on until `count` reaches `last` or the time is over; returns how often it was refused.
async fn append_until(log: &ExchangeLog, entries: &[Entry], count: &AtomicU64, last: u64, until: Instant) -> u64 {
    let mut refused = 0;
    loop {
        let number = count.fetch_add(1, Ordering::Relaxed);
        if number >= last || Instant::now() >= until {
            count.fetch_sub(1, Ordering::Relaxed);
            return refused;
        }
        loop {
            match log.append(&entries[(number % ENTRIES) as usize]).await {
                Ok(_) => break,
                Err(LogError::Full | LogError::Unavailable(_)) => {
                    refused += 1;
                    tokio::time::sleep(REFUSED).await;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
}

/// Appends through all gateways at once, as fast as they take entries; returns the number, the time, and the refusals.
fn saturate(gateways: &Gateways, last: u64, time: Duration) -> (u64, Duration, u64) {
    let entries: Vec<Entry> = (0..ENTRIES).map(entry).collect();
    let (count, refused, began) = (AtomicU64::new(0), AtomicU64::new(0), Instant::now());
    std::thread::scope(|scope| {
        for log in &gateways.logs {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let appenders = (0..APPENDERS).map(|_| append_until(log, &entries, &count, last, began + time));
                let all = runtime.block_on(futures_util::future::join_all(appenders));
                refused.fetch_add(all.iter().sum(), Ordering::Relaxed);
            });
        }
    });
    (count.into_inner(), began.elapsed(), refused.into_inner())
}

/// Appends at a rate through all gateways together, each entry when it is due; returns the latencies at each gateway.
fn at_rate(gateways: &Gateways, rate: u64, time: Duration) -> Vec<Vec<Duration>> {
    let each = Duration::from_secs(gateways.logs.len() as u64) / u32::try_from(rate).unwrap();
    let due = (time.as_secs_f64() / each.as_secs_f64()).ceil() as u32;
    std::thread::scope(|scope| {
        let threads: Vec<_> = gateways
            .logs
            .iter()
            .enumerate()
            .map(|(at, log)| {
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    // Gateways begin one after the other.
                    let began = Instant::now() + each.mul_f64(at as f64 / gateways.logs.len() as f64);
                    let appends = (0..due).map(|number| async move {
                        let due = began + each * number;
                        tokio::time::sleep_until(due.into()).await;
                        log.append(&entry(u64::from(number))).await.map(|_| due.elapsed())
                    });
                    let all = runtime.block_on(futures_util::future::join_all(appends));
                    all.into_iter().map(Result::unwrap).collect()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn saturation(etcd: &dyn Fn() -> EtcdCluster, time: Duration) {
    println!("{:<22} {:>10} {:>14} {:>14} {:>9}", "saturated", "entries/s", "CPU us, own", "CPU us, etcd", "refused");
    let line = |name: &str, gateways: &Gateways| {
        saturate(gateways, u64::MAX, Duration::from_secs(1));
        let before = gateways.usage();
        let (count, took, refused) = saturate(gateways, u64::MAX, time);
        let used = gateways.usage().since(&before);
        let each = |seconds: f64| seconds * 1e6 / count as f64;
        println!(
            "{name:<22} {:>10.0} {:>14.2} {:>14.2} {refused:>9}",
            count as f64 / took.as_secs_f64(),
            each(used.own),
            each(used.others)
        );
    };
    line("embedded", &Gateways::embedded());
    for count in 1..=MEMBERS {
        line(&format!("over etcd, gateways: {count}"), &Gateways::over(etcd(), count));
    }
}

fn rates(etcd: &dyn Fn() -> EtcdCluster, time: Duration) {
    println!(
        "{:<22} {:>10} {:>9} {:>9} {:>12} {:>12}",
        "at a rate", "entries/s", "p50 ms", "p99 ms", "cores, own", "cores, etcd"
    );
    let over = Gateways::over(etcd(), MEMBERS);
    let embedded = Gateways::embedded();
    for rate in RATES {
        for (name, gateways) in [("embedded", &embedded), ("over etcd, gateways: 3", &over)] {
            let before = gateways.usage();
            let all: Vec<Duration> = at_rate(gateways, rate, time).concat();
            let used = gateways.usage().since(&before);
            println!(
                "{name:<22} {rate:>10} {:>9.2} {:>9.2} {:>12.3} {:>12.3}",
                percentile(&all, 50),
                percentile(&all, 99),
                used.own / used.seconds,
                used.others / used.seconds
            );
        }
    }
}

/// With delays between the data centres: what an append costs in the leader's, and elsewhere.
fn delayed(time: Duration) {
    println!("{:<22} {:>16} {:>16} {:>16}", "one way, ms", "leader's p50 ms", "others' p50 ms", "others' p99 ms");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for one_way in [0, 1, 5, 20] {
        let far = |port| delays::start(&runtime, port, Duration::from_millis(one_way));
        let etcd = EtcdCluster::start_far(far).unwrap();
        let leader = runtime.block_on(leader(&etcd));
        let gateways = Gateways::over(etcd, MEMBERS);
        at_rate(&gateways, 60, Duration::from_secs(1));
        let mut all = at_rate(&gateways, 60, time);
        let there = all.remove(leader);
        let elsewhere = all.concat();
        let line = [percentile(&there, 50), percentile(&elsewhere, 50), percentile(&elsewhere, 99)];
        println!("{one_way:<22} {:>16.2} {:>16.2} {:>16.2}", line[0], line[1], line[2]);
    }
}

/// The place of the leader among the members.
async fn leader(etcd: &EtcdCluster) -> usize {
    let members: Members = EtcdMembers::new(etcd.access(0).channels(), RuntimeTimers::default(), None);
    let all = members.each(EtcdMember::status).await;
    let leads = |status: &Result<MemberStatus, ClusterError>| {
        status.as_ref().is_ok_and(|status| status.leader == status.header.member)
    };
    all.iter().position(leads).expect("a leader")
}

fn growth(etcd: &dyn Fn() -> EtcdCluster, max: u64, time: Duration) {
    println!(
        "{:<22} {:>10} {:>9} {:>9} {:>12} {:>12} {:>12}",
        "entries in the log", "entries/s", "p50 ms", "p99 ms", "etcd MB", "etcd RSS MB", "own RSS MB"
    );
    let gateways = Gateways::over(etcd(), MEMBERS);
    let (mut there, mut next) = (0, 100_000);
    while next <= max {
        let (count, took, _) = saturate(&gateways, next - there, Duration::from_secs(3_600));
        there += count;
        let all: Vec<Duration> = at_rate(&gateways, 60, time).concat();
        let (usage, etcd) = (gateways.usage(), gateways.etcd.as_ref().unwrap());
        println!(
            "{there:<22} {:>10.0} {:>9.2} {:>9.2} {:>12} {:>12} {:>12}",
            count as f64 / took.as_secs_f64(),
            percentile(&all, 50),
            percentile(&all, 99),
            etcd.database_bytes() >> 20,
            usage.others_rss >> 20,
            usage.own_rss >> 20
        );
        next *= 10;
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| arguments.iter().position(|one| one == name).map(|at| arguments[at + 1].clone());
    let number = |name: &str, default: u64| value(name).map_or(default, |text| text.parse().unwrap());
    let (only, time) = (value("--only"), Duration::from_secs(number("--seconds", 5)));
    let runs = |part: &str| only.as_deref().is_none_or(|only| only == part);
    if etcd::program().is_none() {
        return;
    }
    let etcd = || EtcdCluster::start_secured().unwrap();
    if runs("saturation") {
        saturation(&etcd, time);
    }
    if runs("rates") {
        rates(&etcd, time);
    }
    if runs("delays") {
        delayed(time);
    }
    if runs("growth") {
        growth(&etcd, number("--max", 1_000_000), time);
    }
}
