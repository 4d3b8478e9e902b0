//! Retention by policy: once a day by default, entries older than `log.keep_days` are archived, named in the log, and
//! pruned.

use crate::audit::AuditError;
use crate::audit::retention::{archive, is_logged, is_restated, plan, prune, restate};
use crate::config::{Config, Retention};
use crate::exchange_log::pruned::PRUNE_EVENT;
use crate::exchange_log::{Entry, Kind};
use crate::keyfile::Vault;
use crate::registry::sqlite::SqliteStore;
use crate::server::StartError;
use crate::server::shared::Shared;
use crate::server::thread;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// The first run some time after the start, so that a gateway that restarts repeatedly does not run it each time.
const FIRST: Duration = Duration::from_secs(600);
/// Longest wait until restated records are in the log, which takes 2,000 records a second.
const RESTATED_WITHIN: Duration = Duration::from_secs(600);
const DAY_US: i64 = 86_400_000_000;

/// Starts the thread, if the configuration enables it.
pub(in crate::server) fn spawn(
    config: &Config,
    shared: &Arc<Shared>,
    store: &SqliteStore,
    stop: CancellationToken,
) -> Result<Option<JoinHandle<()>>, StartError> {
    let Some(Retention { archive: folder, days, every }) = config.log.retention.clone() else { return Ok(None) };
    let (data, vault, shared, store) = (config.data.clone(), config.vault.clone(), shared.clone(), store.clone());
    let run = move || async move {
        let mut wait = FIRST.min(every);
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => wait = every,
                () = stop.cancelled() => return,
            }
            match keep((&data, &vault), &folder, days, &shared, &store).await {
                Ok(0) => {}
                Ok(entries) => tracing::info!(entries, "old entries were archived and pruned"),
                Err(error) => tracing::error!(%error, "old entries are not pruned; they stay where they are"),
            }
        }
    };
    thread::spawn("retention", run).map(Some)
}

/// Archives and prunes entries that are old enough, and returns their number.
async fn keep(
    (data, vault): (&Path, &Vault),
    folder: &Path,
    days: u32,
    shared: &Shared,
    store: &SqliteStore,
) -> Result<u64, AuditError> {
    let before = crate::exchange_log::clock::now_us() - i64::from(days) * DAY_US;
    let plan = plan(data, before, |_, _| {})?;
    if plan.runs.is_empty() {
        return Ok(0);
    }
    archive(data, &plan, folder, |_| {})?;
    let restated = restate(data, &plan, store)?;
    let began = Instant::now();
    while restated > 0 && !is_restated(data, &plan)? {
        if began.elapsed() > RESTATED_WITHIN {
            tracing::error!("the pruning plan names records that are not in the registry: nothing is pruned");
            return Ok(0);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    for object in plan.objects() {
        let entry = Entry {
            actor: "gateway".into(),
            event: PRUNE_EVENT.into(),
            object,
            ..Entry::begin(Kind::Admin, &shared.node)
        };
        shared.log.append(&entry).await?;
    }
    shared.log.seal_now()?;
    if is_logged(data, &plan)? {
        prune(data, &plan, vault)?;
        return Ok(plan.entries());
    }
    Ok(0)
}
