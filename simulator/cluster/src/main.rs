//! The log over etcd by seed: the gateway's own source (`src/cluster`) over a simulated etcd. `docs/cluster-simulator.md`.
#![allow(clippy::expect_used)]

// The gateway's own source; not all of it is used here.
#[allow(dead_code, unused_imports)]
#[path = "../../../src/cluster/mod.rs"]
mod cluster;
mod conformance;
mod exchange_log;
mod faults;
mod gateway;
#[allow(dead_code)]
#[path = "../../../src/hex.rs"]
mod hex;
#[allow(dead_code)]
#[path = "../../../src/keyfile.rs"]
mod keyfile;
mod model;
mod mvcc;
#[cfg(not(simulator))]
mod process;
mod quotas;
#[cfg(not(simulator))]
mod real;
// With all of its rules; the etcd alone is simulated.
#[allow(dead_code, unused_imports)]
#[path = "../../../src/registry/mod.rs"]
mod registry;
mod replicas;
mod runtime;
mod simulated;
#[allow(dead_code)]
#[path = "../../../src/time_zone.rs"]
mod time_zone;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Instant;

/// A failing seed, its cause and its trace.
type Failure = (u64, String, Vec<String>);

fn number(text: String) -> Option<u64> {
    text.replace('_', "").parse().ok()
}

/// What a seed is run of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// The exchange log.
    Log,
    /// The registry.
    Registry,
    /// Daily quotas.
    Quota,
}

impl Subject {
    /// The first argument that chooses it.
    fn word(self) -> Option<&'static str> {
        match self {
            Subject::Log => None,
            Subject::Registry => Some("registry"),
            Subject::Quota => Some("quota"),
        }
    }
}

/// Runs one seed.
fn run(subject: Subject, seed: u64, trace: bool) -> Option<Failure> {
    let only = std::env::var("NDXP_TROUBLE").ok();
    let run = || match subject {
        Subject::Log => world::run(seed, only.as_deref(), trace),
        Subject::Quota => quotas::run(seed, trace),
        Subject::Registry => {
            // In memory if there is such a file system: the files are synchronized thousands of times.
            let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
            replicas::run(seed, only.as_deref(), folder.path(), trace)
        }
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => None,
        Ok(Err((violation, trace))) => Some((seed, violation, trace)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            Some((seed, format!("panic: {text}"), Vec::new()))
        }
    }
}

/// Runs seeds on all cores; returns the first that has failed. Others are not waited for: where a rule is broken on purpose,
/// some may not come to an end.
fn run_all(subject: Subject, from: u64, count: u64) -> Option<Failure> {
    let next = Arc::new(AtomicU64::new(from));
    let (failed, failures) = mpsc::channel();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    for _ in 0..cores {
        let (next, failed) = (next.clone(), failed.clone());
        std::thread::spawn(move || {
            let seeds = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
            for seed in seeds.take_while(|seed| *seed < from + count) {
                if let Some(failure) = run(subject, seed, false) {
                    let _ = failed.send(failure);
                    return;
                }
            }
        });
    }
    // Without a failure, nothing comes once all threads have ended.
    drop(failed);
    failures.recv().ok()
}

/// Runs the conformance suite over the simulated members.
fn conformance() -> ExitCode {
    let runtime = runtime::Runtime::new(0, false);
    let etcd = simulated::SimulatedEtcd::new(&runtime);
    let member = |member| simulated::SimulatedMember { etcd: etcd.clone(), from: 0, member };
    let members: Vec<_> = (0..simulated::MEMBERS).map(member).collect();
    let timers = runtime.timers();
    let verdict = runtime.run(async move { conformance::run(&members, &timers).await });
    runtime.kill(simulated::NETWORK);
    match verdict {
        Ok(passed) => println!("simulated etcd: {} cases of the contract", passed.len()),
        Err(reason) => {
            println!("simulated etcd: {reason}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// `real ETCD` runs everything over that program, `load ETCD CLIENTS` measures a large registry over it; `gateway` or `replica`, with FOLDER NUMBER ENDPOINT…, is a process of that run.
#[cfg(not(simulator))]
fn over_real_etcd(arguments: &[String]) -> Option<ExitCode> {
    use std::path::Path;
    let ended = match arguments {
        [mode, program] if mode == "real" => real::run(Path::new(program)),
        [mode, folder, machine, endpoints @ ..] if mode == "gateway" => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let machine = machine.parse().expect("a number");
            Err(runtime.block_on(process::run(Path::new(folder), machine, endpoints)).to_string())
        }
        [mode, program, clients] if mode == "load" => {
            replicas::load::run(Path::new(program), clients.parse().expect("a number"))
        }
        [mode, folder, machine, endpoints @ ..] if mode == "replica" => {
            replicas::process::run(Path::new(folder), machine.parse().expect("a number"), endpoints)
        }
        _ => return None,
    };
    Some(match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            println!("stopped: {reason}");
            ExitCode::FAILURE
        }
    })
}

#[cfg(simulator)]
fn over_real_etcd(_: &[String]) -> Option<ExitCode> {
    None
}

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(code) = over_real_etcd(&arguments) {
        return code;
    }
    if arguments.first().is_some_and(|mode| mode == "conformance") {
        return conformance();
    }
    let is_named =
        |subject: &Subject| subject.word().is_some_and(|word| arguments.first().is_some_and(|one| one == word));
    let subject = [Subject::Registry, Subject::Quota].into_iter().find(is_named).unwrap_or(Subject::Log);
    if subject != Subject::Log {
        arguments.remove(0);
    }
    if let Some(seed) = std::env::var("NDXP_SEED").ok().and_then(number) {
        return run(subject, seed, true).map_or(ExitCode::SUCCESS, |failure| report(subject, &failure));
    }
    let argument = |at: usize| arguments.get(at).cloned().and_then(number);
    let (count, from) = (argument(0).unwrap_or(10_000), argument(1).unwrap_or(0));
    let began = Instant::now();
    let failed = run_all(subject, from, count);
    let took = began.elapsed().as_secs_f64();
    match failed {
        None => {
            println!("{count} seeds in {took:.1} s, {:.0} a second: every promise held", count as f64 / took);
            ExitCode::SUCCESS
        }
        Some((seed, ..)) => {
            println!("after {took:.1} s:");
            // Once more, with its trace.
            run(subject, seed, true).map_or(ExitCode::FAILURE, |failure| report(subject, &failure))
        }
    }
}

fn report(subject: Subject, (seed, violation, trace): &Failure) -> ExitCode {
    trace.iter().for_each(|line| println!("{line}"));
    println!("seed {seed}: {violation}");
    let mode = subject.word().map(|word| format!(" -- {word}")).unwrap_or_default();
    println!("again: NDXP_SEED={seed} cargo run --release --manifest-path simulator/cluster/Cargo.toml{mode}");
    ExitCode::FAILURE
}
