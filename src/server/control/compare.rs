//! Recomputes the registry from the exchange log and compares it with its file: at every start, and again whenever
//! anybody has written to the file, on a separate thread, at a bounded rate. A difference is an alarm until it is
//! resolved.

use super::state_files;
use crate::audit::replay::{CompareError, RegistryDifference, Replay};
use crate::registry::AdminEventKey;
use crate::registry::sqlite::FileMark;
use crate::server::StartError;
use crate::server::readiness::Component;
use crate::server::registry_path;
use crate::server::shared::Shared;
use crate::server::thread;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Wait after each bundle of 256 entries: at most 250,000 entries a second, so that ten million take about 40 s and a
/// tenth of a core.
const BETWEEN: Duration = Duration::from_millis(1);
/// How long a change may take from the file into the log.
const PAUSE: Duration = Duration::from_secs(1);
/// How often the thread checks whether anybody has written to the file, and the minimum pause after a comparison.
const EVERY: Duration = Duration::from_secs(5);
/// The pause after a comparison, as a multiple of its duration: at most a fifth of a core, however large the registry
/// is.
const REST: u32 = 4;

/// Starts the thread.
pub(in crate::server) fn spawn(
    data: &Path,
    key: &AdminEventKey,
    shared: &Arc<Shared>,
    stop: CancellationToken,
) -> Result<JoinHandle<()>, StartError> {
    let (data, key, shared) = (data.to_owned(), key.clone(), shared.clone());
    thread::spawn("registry-compare", move || async move {
        let registry = registry_path(&data);
        let fresh = || Replay::with_key(key.clone());
        let mut replay = fresh();
        // The mark of the file when nothing differed.
        let mut alike: Option<FileMark> = None;
        loop {
            // Taken before the comparison: what is written meanwhile is compared once more.
            let began = Instant::now();
            let mark = FileMark::of(&registry, alike.take());
            match mark {
                Ok((mark, true)) => alike = Some(mark),
                Ok((mark, false)) => match compare(&mut replay, &data, &shared, &stop) {
                    Ok(found) => {
                        shared.readiness.set(Component::Comparison, Vec::new());
                        report(&shared, &found);
                        alike = found.is_empty().then_some(mark);
                    }
                    Err(error) => {
                        fail(&shared, &error);
                        // The log may have moved on while it was read.
                        replay = fresh();
                    }
                },
                Err(error) => fail(&shared, &error.into()),
            }
            let rest = EVERY.max(began.elapsed() * REST);
            if stop.run_until_cancelled(tokio::time::sleep(rest)).await.is_none() {
                return;
            }
        }
    })
}

fn fail(shared: &Shared, error: &CompareError) {
    let fault = format!("the registry cannot be compared with the exchange log: {error}");
    shared.readiness.set(Component::Comparison, vec![fault]);
}

fn compare(
    replay: &mut Replay,
    data: &Path,
    shared: &Shared,
    stop: &CancellationToken,
) -> Result<Vec<RegistryDifference>, CompareError> {
    // The unsealed part is small, and the comparison reads it: the journal is read once.
    replay.advance_sealed(data, |_, _| {
        std::thread::sleep(BETWEEN);
        !stop.is_cancelled()
    })?;
    if stop.is_cancelled() {
        return Ok(Vec::new());
    }
    // The complete log was read, so what it records of other files counts, too.
    replay.advance(data, |_, _| true)?;
    state_files::begin(shared, replay.files());
    replay.confirmed_differences(data, &registry_path(data), || std::thread::sleep(PAUSE))
}

/// Reports differences: objects and fields, never their values.
fn report(shared: &Shared, found: &[RegistryDifference]) {
    let known = shared.registry_differences.load();
    shared.metrics.registry_differences(found.len());
    if known.as_slice() == found {
        return;
    }
    if found.is_empty() {
        tracing::info!("the registry is what the exchange log says again");
    }
    for RegistryDifference { object, field, .. } in found {
        tracing::error!(
            object,
            field,
            "the registry is not what the exchange log says: audit verify --registry tells more"
        );
    }
    shared.registry_differences.store(Arc::new(found.to_vec()));
}
