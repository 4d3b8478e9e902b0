//! The start of a gateway's part in a log: the files, then the guards, what is still open, a new incarnation.

use super::ClusterLogSettings;
use super::background::Background;
use super::engine::{ClusterEngine, ClusterWriter};
use super::epoch_entry;
use super::own_disk::FileDisk;
use super::progress::{Progress, unavailable};
use super::site_files::SiteFiles;
use super::spool::Spool;
use crate::cluster::etcd::{EtcdChannel, Members};
use crate::cluster::own_disk::OwnDisk;
use crate::cluster::sealer::SealerSettings;
use crate::cluster::site::{self, SiteTiles};
use crate::cluster::timers::RuntimeTimers;
use crate::cluster::{BatchWriter, ClusterError, ClusterSealer, Incarnation, epoch, guard, version, writer};
use crate::exchange_log::checkpoint::LogSigner;
use crate::exchange_log::disk;
use crate::exchange_log::engine::OpenEngine;
use crate::exchange_log::journal::segments;
use crate::exchange_log::{LogError, LogPaths};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Threads of the runtime: one writes batches, the other seals and stores.
const THREADS: usize = 2;
/// In `cluster/` while `cluster begin` is not finished: the plan.
pub const BEGINNING: &str = "begin";
/// In `cluster/` once `cluster leave` has taken the log out of etcd: what it has left with.
pub const LEAVING: &str = "left";
/// Pause before another attempt.
const RETRY: Duration = Duration::from_millis(300);

/// What a start has found and made.
struct Started {
    members: Arc<Members>,
    batches: Arc<BatchWriter<EtcdChannel, RuntimeTimers, FileDisk>>,
    sealed: u64,
    /// The last batches of earlier starts that were offered again.
    offered: BTreeMap<Incarnation, u64>,
}

/// Starts the engine over the files of a data folder.
pub(super) fn start(paths: &LogPaths, signer: LogSigner, settings: ClusterLogSettings) -> Result<OpenEngine, LogError> {
    refuse_embedded(paths)?;
    let disk = FileDisk::open(paths.disk.clone(), &paths.replicated, settings.own_disk_bytes)?;
    let site = Arc::new(SiteFiles::open(paths, signer, settings.others.clone())?);
    let disk = Arc::new(disk);
    let runtime = runtime().map_err(|error| LogError::io(&paths.replicated, &error))?;
    let started = {
        let (disk, site, settings) = (disk.clone(), site.clone(), settings.clone());
        run(&runtime, async move { start_within(&disk, &site, &settings).await })
    };
    let Started { members, batches, sealed, offered } = match started {
        Ok(started) => started,
        Err(error) => {
            end(runtime);
            return Err(error);
        }
    };
    let progress = Arc::new(Progress::new(batches.incarnation().clone(), sealed, offered));
    let sealer = ClusterSealer {
        members: members.clone(),
        disk: disk.clone(),
        publication: site.clone(),
        candidate: batches.incarnation().clone(),
        settings: SealerSettings { seal_each: settings.seal_each, sites: settings.sites },
    };
    let background = Background {
        progress: progress.clone(),
        members: members.clone(),
        disk,
        site,
        sealer,
        gateway: settings.gateway,
        sites: settings.sites,
        quota: settings.quota,
    };
    runtime.spawn(background.run());
    let (tasks, refuse_after) = (runtime.handle().clone(), settings.refuse_after);
    let spool = Arc::new(Spool::new(progress.clone(), batches.clone()));
    let engine = ClusterEngine {
        progress: progress.clone(),
        spool: spool.clone(),
        tasks: tasks.clone(),
        runtime: Mutex::new(Some(runtime)),
    };
    let writer = ClusterWriter { progress, batches, spool, members, tasks, refuse_after };
    Ok((Arc::new(engine), Box::new(writer)))
}

/// A log that one gateway writes alone cannot become a site of another one.
fn refuse_embedded(paths: &LogPaths) -> Result<(), LogError> {
    for (mark, command) in [(BEGINNING, "begin"), (LEAVING, "leave")] {
        let path = paths.replicated.join(mark);
        if paths.disk.kind(&path).is_ok() {
            return Err(LogError::Io {
                path,
                reason: format!("`cluster {command}` has not come to its end: run it again"),
            });
        }
    }
    let is_new = disk::read_text(&*paths.disk, &paths.signed)?.is_none();
    if paths.is_replicated()? || is_new && segments(&*paths.disk, &paths.journal)?.is_empty() {
        return Ok(());
    }
    let reason = "is of a log that one gateway writes alone: it cannot become a site of another one".into();
    Err(LogError::Io { path: paths.tiles.clone(), reason })
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("log-cluster")
        .enable_time()
        .enable_io()
        .build()
}

/// Runs something to its end. The caller may be a task of another runtime, which cannot wait for this one's.
fn run<T: Send + 'static>(
    runtime: &Runtime,
    work: impl Future<Output = Result<T, LogError>> + Send + 'static,
) -> Result<T, LogError> {
    let (to, done) = std::sync::mpsc::channel();
    runtime.spawn(async move {
        // Nobody waits if the caller has panicked.
        let _ = to.send(work.await);
    });
    done.recv().unwrap_or(Err(LogError::Closed))
}

fn end(runtime: Runtime) {
    let _ = std::thread::spawn(move || drop(runtime)).join();
}

/// Repeats the start until it succeeds, or its time is over.
async fn start_within(
    disk: &Arc<FileDisk>,
    site: &Arc<SiteFiles>,
    settings: &ClusterLogSettings,
) -> Result<Started, LogError> {
    let (until, mut entered) = (Instant::now() + settings.start_within, false);
    loop {
        match start_once(disk, site, settings, &mut entered).await {
            Err(error) if error.may_pass() && Instant::now() < until => {
                tracing::info!(%error, "the exchange log waits for etcd");
                tokio::time::sleep(RETRY).await;
            }
            started => return started.map_err(|error| not_started(&error, settings)),
        }
    }
}

/// Why a start has failed: with what is wrong with the connections, if there are none.
fn not_started(error: &ClusterError, settings: &ClusterLogSettings) -> LogError {
    match (error, settings.etcd.faults()) {
        (ClusterError::NoQuorum | ClusterError::OutcomeUnknown(_), faults) if !faults.is_empty() => {
            LogError::Unavailable(format!("{error} ({})", faults.join("; ")))
        }
        _ => unavailable(error),
    }
}

async fn start_once(
    disk: &Arc<FileDisk>,
    site: &Arc<SiteFiles>,
    settings: &ClusterLogSettings,
    entered: &mut bool,
) -> Result<Started, ClusterError> {
    let seen = disk.highest().await?.map(|seen| (seen.cluster, seen.revision));
    let members = Arc::new(Members::new(settings.etcd.channels(), RuntimeTimers::default(), seen));
    version::check(&members).await?;
    if epoch::enter(&members, &**disk, &**site).await? {
        *entered = true;
        tracing::warn!("etcd was restored, and another epoch has begun: what only this disk has is offered to it");
    }
    let checkpoint = guard::checked(&members, &**disk).await?;
    let offered = writer::offer_unsealed(&members, &**disk, &checkpoint.state).await?;
    if !offered.is_empty() {
        tracing::info!(starts = offered.len(), "batches of an earlier start were offered to etcd again");
    }
    site::follow(&members, &**disk, &**site, &settings.gateway, &mut 0).await?;
    let gateway = settings.gateway.clone();
    let (state, random) = (&checkpoint.state, fastrand::u64(..));
    let batches = BatchWriter::begin(members.clone(), disk.clone(), gateway, state, random).await?;
    if *entered {
        epoch_entry::write(&members, &batches, state.epoch, &settings.gateway).await?;
    }
    let sealed = site.stored().await?.size();
    Ok(Started { members, batches: Arc::new(batches), sealed, offered })
}
