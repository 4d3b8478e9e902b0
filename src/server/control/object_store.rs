//! The thread that copies the log's tiles to the object store. It reads what is published and waits for nobody: neither
//! calls nor the log depend on the store.

use crate::config::Config;
use crate::identity::tls;
use crate::server::readiness::Component;
use crate::server::shared::Shared;
use crate::server::{StartError, thread};
use crate::tile_store::{TileStoreError, Uploader, connect};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often what is new is copied.
const EVERY: Duration = Duration::from_secs(10);
/// Longest pause after failures, each of which doubles it.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Starts the thread, if the configuration names a store.
pub(in crate::server) fn spawn(
    config: &Config,
    shared: &Arc<Shared>,
    stop: CancellationToken,
) -> Result<Option<JoinHandle<()>>, StartError> {
    let Some(settings) = &config.log.object_store else { return Ok(None) };
    let tls = tls::client_config(settings.ca.as_ref().unwrap_or(&config.tls.client_ca), None, &[])?;
    let store = connect(settings, tls).map_err(|error| StartError::Thread(error.to_string()))?;
    let uploader = Uploader::new(config.data.clone(), store, config.cluster.is_none());
    let shared = shared.clone();
    let run = move || async move {
        stop.run_until_cancelled(copy(uploader, shared)).await;
    };
    thread::spawn("object-store", run).map(Some)
}

async fn copy(mut uploader: Uploader, shared: Arc<Shared>) {
    let mut pause = EVERY;
    loop {
        let done = uploader.step().await;
        shared.metrics.object_store_pending(uploader.pending());
        report(&shared, &done, uploader.pending());
        // What differs is compared again at once, so that a repaired store is used again.
        let failed = done.is_err_and(|error| !error.is_alarm());
        pause = if failed { (pause * 2).min(MAX_PAUSE) } else { EVERY };
        tokio::time::sleep(pause).await;
    }
}

fn report(shared: &Shared, done: &Result<(), TileStoreError>, pending: u64) {
    let (alarm, access) = (Component::ObjectStore, Component::ObjectStoreAccess);
    match done {
        Ok(()) => {
            shared.readiness.set(alarm, Vec::new());
            shared.readiness.set(access, Vec::new());
        }
        Err(error) if error.is_alarm() => {
            shared.readiness.set(alarm, vec![format!("the object store: {error}")]);
            shared.readiness.set(access, Vec::new());
        }
        Err(error) => {
            if let (TileStoreError::Unavailable { detail, .. }, false) = (error, shared.readiness.is_at_fault(access)) {
                tracing::info!(detail, pending, "the object store does not take the log's tiles");
            }
            let what = format!("the exchange log is not copied to the object store: {error}; it is later");
            shared.readiness.set(access, vec![what]);
        }
    }
}
