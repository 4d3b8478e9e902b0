//! The exchange log as it grows: appends that each wait for the disk, their cost on the data path, verification, search,
//! inclusion proofs and start on logs of 10^5, 10^6 and 10^7 entries. `cargo bench --bench log [-- --max 1000000]`; with
//! `taskset -c 0` it measures one core. Figures in docs/performance.md.
#![allow(clippy::unwrap_used, missing_docs)]

use ndxp_gateway::audit::index::{SearchIndex, rebuild};
use ndxp_gateway::audit::query::Query;
use ndxp_gateway::audit::search;
use ndxp_gateway::exchange_log::checkpoint::LogSigner;
use ndxp_gateway::exchange_log::reader::LogReader;
use ndxp_gateway::exchange_log::receipt::Receipt;
use ndxp_gateway::exchange_log::verify::verify_data;
use ndxp_gateway::exchange_log::{Entry, ExchangeLog, LogError, LogPaths, Pipeline};
use ndxp_gateway::keyfile::Vault;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[path = "filled/entries.rs"]
mod entries;
use entries::{entry, everybody, hash};

const APPENDING: Duration = Duration::from_secs(5);

fn signer() -> LogSigner {
    LogSigner::from_pkcs8("bench.example/log", &LogSigner::generate().unwrap()).unwrap()
}

fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    Duration::from_millis((after[11].parse::<u64>().unwrap() + after[12].parse::<u64>().unwrap()) * 10)
}

fn rss_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// One `fdatasync` of this disk after a write of an entry's size.
fn fdatasync(folder: &Path) -> Duration {
    use std::io::Write;
    let mut file = std::fs::File::create(folder.join("probe")).unwrap();
    file.write_all(&vec![0; 1 << 20]).unwrap();
    file.sync_all().unwrap();
    let mut all: Vec<Duration> = (0..500)
        .map(|_| {
            let began = Instant::now();
            file.write_all(&[1; 600]).unwrap();
            file.sync_data().unwrap();
            began.elapsed()
        })
        .collect();
    all.sort();
    all[250]
}

fn appends() {
    let folder = tempfile::tempdir_in("target").unwrap();
    println!("one fdatasync of this disk: {:?} (median of 500)", fdatasync(folder.path()));
    let log = ExchangeLog::open(folder.path(), signer()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut alone: Vec<Duration> = runtime.block_on(async {
        let mut all = Vec::new();
        for number in 0..500 {
            let began = Instant::now();
            log.append(&entry(number)).await.unwrap();
            all.push(began.elapsed());
        }
        all
    });
    alone.sort();
    println!("an append alone: median {:?}, p99 {:?}", alone[250], alone[495]);
    let entries: Vec<Entry> = (0..4_096).map(entry).collect();
    for round in 1..=3 {
        let (count, full, before, began) = (AtomicU64::new(0), AtomicU64::new(0), cpu(), Instant::now());
        runtime.block_on(futures_util::future::join_all((0..256).map(|_| async {
            while began.elapsed() < APPENDING {
                let number = count.load(Ordering::Relaxed);
                // The log refuses appends if too many entries are not sealed.
                match log.append(&entries[number as usize % entries.len()]).await {
                    Ok(_) => count.fetch_add(1, Ordering::Relaxed),
                    Err(LogError::Full) => {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        full.fetch_add(1, Ordering::Relaxed)
                    }
                    Err(other) => panic!("{other}"),
                };
            }
        })));
        let (all, took) = (count.load(Ordering::Relaxed) as f64, began.elapsed().as_secs_f64());
        let each = (cpu() - before).as_secs_f64() * 1e6 / all;
        println!(
            "round {round}: 256 appenders: {:.0} a second, {each:.2} CPU us each with sealing, {} refused (full), {} MB",
            all / took,
            full.into_inner(),
            rss_mb()
        );
    }
    let bytes: Vec<u8> = entries[0].to_bytes();
    let began = Instant::now();
    for entry in entries.iter().cycle().take(200_000) {
        std::hint::black_box(entry.to_bytes());
    }
    println!("encoding an entry of {} bytes: {:?}", bytes.len(), began.elapsed() / 200_000);
}

/// A log with that many entries, written by the gateway's own threads.
fn grow(data: &Path, to: u64) -> LogSigner {
    let key = LogSigner::generate().unwrap();
    let make = || LogSigner::from_pkcs8("bench.example/log", &key).unwrap();
    let (pipeline, mut journal) = Pipeline::open(LogPaths::new(data), make()).unwrap();
    for from in (0..to).step_by(BATCH) {
        let batch = (from..(from + BATCH as u64).min(to)).map(|number| entry(number).to_bytes()).collect();
        pipeline.write(&mut journal, batch).unwrap();
        pipeline.seal().unwrap();
    }
    make()
}

/// Entries per write: some 50 MB, most of a journal segment.
const BATCH: usize = 100_000;

fn percentile(mut all: Vec<Duration>, percent: usize) -> Duration {
    all.sort();
    all[all.len() * percent / 100]
}

const SECOND_PAGE: &str = "a client, the second page";

fn searches(data: &Path, size: u64) {
    let index = SearchIndex::read(data, &Vault::default()).unwrap();
    let reader = LogReader::sealed_only(data).unwrap();
    let text = |text: String| Some(text);
    type Make = Box<dyn Fn(u64) -> Query>;
    let client = move |n| Query { client: text(format!("system-{:03}", n % 300)), ..Query::default() };
    let kinds: Vec<(&str, Make)> = vec![
        ("a client", Box::new(client)),
        (SECOND_PAGE, Box::new(client)),
        (
            "a person of one entry in a hundred",
            Box::new(|_| Query { subject: Some(vec![everybody()]), ..Query::default() }),
        ),
        (
            "a person, a client, a source and an outcome",
            Box::new(move |n| Query {
                subject: Some(vec![everybody()]),
                client: text(format!("system-{:03}", n % 300)),
                source: text(format!("source{}", n % 10)),
                outcome: text("PURPOSE_NOT_GRANTED".into()),
                ..Query::default()
            }),
        ),
        ("a person", Box::new(|n| Query { subject: Some(entry(n * 7_919).subjects), ..Query::default() })),
        ("a dossier", Box::new(move |n| Query { purpose: text(entry(n * 31).purpose), ..Query::default() })),
        (
            "a client's refusals",
            Box::new(move |n| Query {
                client: text(format!("system-{:03}", n % 300)),
                outcome: text("PURPOSE_NOT_GRANTED".into()),
                ..Query::default()
            }),
        ),
        (
            "an agency and a source in an hour",
            Box::new(move |n| {
                let from = entry(hash(n, 11) % size).time_us;
                Query {
                    agency: text(format!("H49.{}", n % 40)),
                    source: text(format!("source{}", n % 10)),
                    from_us: Some(from),
                    to_us: Some(from + 3_600_000_000),
                    ..Query::default()
                }
            }),
        ),
        ("what no entry has", Box::new(move |_| Query { client: text("nobody".into()), ..Query::default() })),
        (
            "a rare pair",
            Box::new(move |n| Query {
                client: text(format!("system-{:03}", n % 300)),
                purpose: text(entry(n * 31).purpose),
                ..Query::default()
            }),
        ),
    ];
    let mut all = Vec::new();
    for (name, make) in &kinds {
        let times: Vec<Duration> = (0..100)
            .map(|number| {
                let query = make(number);
                let page = |before| search::page(&reader, Some(&index), &query, before, 50, None).unwrap();
                let before = if *name == SECOND_PAGE { page(None).before } else { None };
                let began = Instant::now();
                std::hint::black_box(page(before));
                began.elapsed()
            })
            .collect();
        println!(
            "  search for {name}: median {:?}, p95 {:?}",
            percentile(times.clone(), 50),
            percentile(times.clone(), 95)
        );
        all.extend(times);
    }
    println!("  all searches: p95 {:?}", percentile(all, 95));
    let proofs: Vec<Duration> = (0..200)
        .map(|number| {
            let place = hash(number, 12) % size;
            let began = Instant::now();
            std::hint::black_box(Receipt::make(&reader, place).unwrap().unwrap());
            began.elapsed()
        })
        .collect();
    println!("  a receipt: median {:?}, p99 {:?}", percentile(proofs.clone(), 50), percentile(proofs, 99));
}

fn main() {
    // `cargo bench` passes --bench; `cargo test --benches` does not, and measures nothing.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|one| one == "--bench") {
        return;
    }
    let max =
        arguments.iter().position(|one| one == "--max").map_or(10_000_000, |at| arguments[at + 1].parse().unwrap());
    appends();
    let cores = std::thread::available_parallelism().unwrap().get() as f64;
    for size in [100_000u64, 1_000_000, 10_000_000].into_iter().filter(|size| *size <= max) {
        let folder = tempfile::tempdir_in("target").unwrap();
        let data = folder.path();
        println!("{size} entries");
        let signer = grow(data, size);
        let (before, began) = (cpu(), Instant::now());
        let report = verify_data(data, None, Some(&signer.verifier()), Default::default(), |_, _| {}).unwrap();
        assert_eq!(report.sealed, size);
        let each = (cpu() - before).as_secs_f64() * 1e6 / size as f64;
        println!("  verified in {:?} on {cores} cores, {each:.2} CPU us an entry", began.elapsed());
        let began = Instant::now();
        assert_eq!(rebuild(data, &Vault::default(), |_, _| {}).unwrap(), size / 256 * 256);
        let rate = size as f64 / began.elapsed().as_secs_f64();
        let bytes = std::fs::metadata(data.join("index/log.sqlite")).unwrap().len();
        println!("  indexed: {rate:.0} entries a second, {} bytes an entry, {} MB resident", bytes / size, rss_mb());
        let began = Instant::now();
        let log = ExchangeLog::open(data, signer).unwrap();
        println!("  opened for appending in {:?}", began.elapsed());
        drop(log);
        let began = Instant::now();
        assert_eq!(LogReader::open(data).unwrap().size(), size);
        println!("  opened for reading, its journal with it, in {:?}", began.elapsed());
        searches(data, size);
    }
}
