//! A gateway's process for the run over a real etcd: its replica follows, and two threads change the registry as the admin
//! service does. What it promises goes to its standard output: `ask TAG`, `made TAG [TOKEN]`, `refused TAG`, `unknown TAG`,
//! `issued TOKEN`, and `sees TOKEN` once a revocation is in force here.

use super::gateway::entry;
use super::operations::{self, PEOPLE, person};
use crate::cluster::etcd::EtcdChannel;
use crate::cluster::registry::{BlockingCommits, ClusterRegistry, IssuedTokens, RegistrySettings};
use crate::cluster::timers::RuntimeTimers;
use crate::cluster::{ClusterError, EtcdMembers, Incarnation, Timers};
use crate::gateway::name;
use crate::process::{WRITES, channels};
use crate::registry::sqlite::{SqliteReplica, SqliteStore};
use crate::registry::{Item, RegistryError, Store};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

type Issued = IssuedTokens<EtcdChannel, RuntimeTimers>;
type Registry = ClusterRegistry<EtcdChannel, RuntimeTimers, SqliteReplica>;

/// The registry's file of a gateway.
pub fn file(root: &Path, machine: usize) -> PathBuf {
    root.join(format!("replica{machine}")).join("registry.sqlite")
}

/// One line at a time, also of several threads.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// A store whose file is a replica, with what follows etcd for it.
pub fn open(
    root: &Path,
    machine: usize,
    endpoints: &[String],
    runtime: &Runtime,
) -> Result<(SqliteStore, Arc<Registry>, Arc<Issued>), String> {
    let failed = |error: RegistryError| error.to_string();
    let store = SqliteStore::open(&file(root, machine)).map_err(failed)?;
    let replica = SqliteReplica::open(&store).map_err(failed)?;
    // The channels belong to the runtime.
    let _entered = runtime.enter();
    let members = EtcdMembers::new(channels(endpoints, machine), RuntimeTimers::default(), None);
    // Few changes are kept, so that a gateway that was away reads all rows.
    let settings = RegistrySettings { journal: 50, ..RegistrySettings::default() };
    let members = Arc::new(members);
    let holder = Incarnation { gateway: name(machine), number: fastrand::u64(..) };
    let issued = Arc::new(IssuedTokens::new(members.clone(), holder));
    let registry = Arc::new(ClusterRegistry::new(members, replica, Arc::new(entry), settings));
    let commits = BlockingCommits::new(registry.clone(), issued.clone(), runtime.handle().clone());
    Ok((store.replicated(Arc::new(commits)).map_err(failed)?, registry, issued))
}

/// Runs a gateway until it is killed, or has stopped for good.
pub fn run(root: &Path, machine: usize, endpoints: &[String]) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let (store, registry, issued) = open(root, machine, endpoints, &runtime)?;
    let (following, reading) = (registry.clone(), registry.clone());
    runtime.spawn(async move {
        loop {
            if let Err(error) = issued.refresh(reading.replica()).await {
                say(&format!("retry {error}"));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    runtime.spawn(async move {
        let note = |refreshed: Result<(), &ClusterError>| {
            if let Err(error) = refreshed {
                say(&format!("retry {error}"));
            }
        };
        let error = following.run(note).await;
        say(&format!("stop {error}"));
        std::process::exit(1);
    });
    while registry.freshness().is_stale() {
        runtime.block_on(RuntimeTimers::default().sleep(Duration::from_millis(5)));
    }
    let start = fastrand::u32(..);
    for thread in 0..2 {
        let (store, writes) = (store.clone(), root.join(WRITES));
        std::thread::spawn(move || {
            for count in 0_u32.. {
                if writes.exists() {
                    act(&store, &format!("{machine}.{start:x}.{thread}.{count}"));
                }
                std::thread::sleep(Duration::from_millis(fastrand::u64(..40)));
            }
        });
    }
    watch(&store)
}

/// Somebody asks for a change, and is told what has become of it.
fn act(store: &SqliteStore, tag: &str) {
    if fastrand::u8(..4) == 0 {
        let token = operations::token(tag.to_owned());
        if store.add_tokens(&[token]).is_ok() {
            say(&format!("issued {tag}"));
        }
        return;
    }
    let who = PEOPLE[fastrand::usize(..PEOPLE.len())];
    let Ok(operation) = operations::choose(&|end| fastrand::u64(..end.max(1)), store, tag) else { return };
    let Ok(named) = store.named(person(who), tag) else { return };
    say(&format!("ask {tag}"));
    match operation.perform(&*named) {
        Ok(()) => say(&format!("made {tag} {}", operation.revokes().unwrap_or_default())),
        Err(RegistryError::Store(reason)) if reason.contains("the outcome is unknown") => {
            say(&format!("unknown {tag}"));
        }
        Err(_) => say(&format!("refused {tag}")),
    }
}

/// Says which tokens are refused here, as the gateway's snapshot learns it.
fn watch(store: &SqliteStore) -> Result<(), String> {
    let mut revision = None;
    loop {
        let now = store.revision().map_err(|error| error.to_string())?;
        if revision != Some(now) {
            let read = store.read(revision, &mut |item| {
                if let Item::Revoked(token, _) = item {
                    say(&format!("sees {token}"));
                }
            });
            revision = Some(read.map_err(|error| error.to_string())?);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
