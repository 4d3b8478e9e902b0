//! The exchange log's simulator: the gateway's own journal, sealer, pruning, reader and recovery over a disk that crashes,
//! with the log's threads scheduled by seed. `docs/simulator.md`.
#![allow(clippy::expect_used)]

mod disk;
mod handover;
mod inode;
mod model;
mod schedule;
mod world;

// The gateway's own source; not all of it is used here.
#[allow(dead_code, unused_imports)]
#[path = "../../src/exchange_log/mod.rs"]
mod exchange_log;
#[allow(dead_code)]
#[path = "../../src/hex.rs"]
mod hex;
#[allow(dead_code)]
#[path = "../../src/keyfile.rs"]
mod keyfile;
#[allow(dead_code)]
#[path = "../../src/time_zone.rs"]
mod time_zone;
#[allow(dead_code)]
#[path = "../../src/varint.rs"]
mod varint;

use schedule::{BySeed, Current};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Seeds per batch of a core.
const STRIDE: u64 = 250;

/// A failing seed, its cause and its trace.
type Failure = (u64, String, Vec<String>);

/// Runs seeds on this thread; returns the first failing one.
fn run(seeds: Range<u64>, key: &Arc<Vec<u8>>, trace: bool) -> Option<Failure> {
    let (current, failure) = (Arc::new(Current::default()), Arc::new(Mutex::new(None)));
    let mut config = Config::new();
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::FailAfter(10_000_000);
    config.silence_warnings = true;
    let simulation = {
        let (current, failure, key) = (current.clone(), failure.clone(), key.clone());
        let only = std::env::var("NDXP_TROUBLE").ok();
        move || {
            let seed = current.seed.load(Ordering::Relaxed);
            if let Err((violation, trace)) = world::run(seed, &key, (only.as_deref(), trace)) {
                current.stop.store(true, Ordering::Relaxed);
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some((seed, violation, trace));
            }
        }
    };
    let runner = Runner::new(BySeed::new(seeds, current.clone()), config);
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| runner.run(simulation))) {
        let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        return Some((current.seed.load(Ordering::Relaxed), format!("panic: {text}"), Vec::new()));
    }
    failure.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn main() -> ExitCode {
    let number = |text: String| text.replace('_', "").parse::<u64>().ok();
    let key = Arc::new(exchange_log::checkpoint::LogSigner::generate().expect("a key"));
    if let Some(seed) = std::env::var("NDXP_SEED").ok().and_then(number) {
        return match run(seed..seed + 1, &key, true) {
            None => ExitCode::SUCCESS,
            Some(failure) => report(&failure),
        };
    }
    if std::env::args().nth(1).as_deref() == Some("handover") {
        let began = Instant::now();
        let (states, executions) = handover::every_interleaving();
        println!("every hand-over: {states} states, {executions} executions, {:.1} s", began.elapsed().as_secs_f64());
        return ExitCode::SUCCESS;
    }
    let count = std::env::args().nth(1).and_then(number).unwrap_or(100_000);
    let from = std::env::args().nth(2).and_then(number).unwrap_or(0);
    let (next, failed, began) = (Mutex::new(from), Mutex::new(None::<Failure>), Instant::now());
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let work = || {
        loop {
            let first = {
                let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
                if failed.lock().unwrap_or_else(PoisonError::into_inner).is_some() || *next >= from + count {
                    return;
                }
                let first = *next;
                *next += STRIDE;
                first
            };
            if let Some(failure) = run(first..(first + STRIDE).min(from + count), &key, false) {
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
                return;
            }
        }
    };
    std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
    let took = began.elapsed().as_secs_f64();
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        None => {
            println!("{count} seeds in {took:.1} s: every promise held");
            ExitCode::SUCCESS
        }
        Some((seed, ..)) => {
            println!("after {took:.1} s:");
            // Once more, with its trace.
            run(seed..seed + 1, &key, true).map_or(ExitCode::FAILURE, |failure| report(&failure))
        }
    }
}

fn report((seed, violation, trace): &Failure) -> ExitCode {
    trace.iter().for_each(|line| println!("{line}"));
    println!("seed {seed}: {violation}");
    println!("again: NDXP_SEED={seed} cargo run --release --manifest-path simulator/Cargo.toml");
    ExitCode::FAILURE
}
