//! At every start, the registry is recomputed from the exchange log and compared with its file, beside everything else: a
//! thread of its own, at a bounded rate. A difference is an alarm that stays until there is none any more.

use super::readiness::Part;
use super::shared::Shared;
use super::{StartError, registry_path, thread};
use crate::audit::replay::{CompareError, Difference, Replay};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Wait after each bundle of 256 entries: 250,000 entries a second at most, so that ten million take some 40 s and a tenth
/// of a core.
const BETWEEN: Duration = Duration::from_millis(1);
/// How long a change may be on its way from the file into the log.
const PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked again while there is a difference, or while the comparison fails.
const AGAIN: Duration = Duration::from_secs(30);

/// Starts the thread.
pub(super) fn spawn(data: &Path, shared: &Arc<Shared>, stop: CancellationToken) -> Result<JoinHandle<()>, StartError> {
    let (data, shared) = (data.to_owned(), shared.clone());
    thread::spawn("registry-compare", move || async move {
        let mut replay = Replay::default();
        loop {
            match compare(&mut replay, &data, &stop) {
                Ok(found) => {
                    shared.readiness.set(Part::Comparison, Vec::new());
                    report(&shared, &found);
                    if found.is_empty() {
                        return;
                    }
                }
                Err(error) => {
                    let fault = format!("the registry cannot be compared with the exchange log: {error}");
                    shared.readiness.set(Part::Comparison, vec![fault]);
                    // What was taken in may be of a log that moved on meanwhile.
                    replay = Replay::default();
                }
            }
            if stop.run_until_cancelled(tokio::time::sleep(AGAIN)).await.is_none() {
                return;
            }
        }
    })
}

fn compare(replay: &mut Replay, data: &Path, stop: &CancellationToken) -> Result<Vec<Difference>, CompareError> {
    replay.advance(data, |_, _| {
        std::thread::sleep(BETWEEN);
        !stop.is_cancelled()
    })?;
    if stop.is_cancelled() {
        return Ok(Vec::new());
    }
    replay.confirmed_differences(data, &registry_path(data), || std::thread::sleep(PAUSE))
}

/// Reports differences: which objects and fields, never what stands in them.
fn report(shared: &Shared, found: &[Difference]) {
    let known = shared.registry_differences.load();
    shared.metrics.registry_differences(found.len());
    if known.as_slice() == found {
        return;
    }
    if found.is_empty() {
        tracing::info!("the registry is what the exchange log says again");
    }
    for Difference { object, field, .. } in found {
        tracing::error!(
            object,
            field,
            "the registry is not what the exchange log says: audit verify --registry tells more"
        );
    }
    shared.registry_differences.store(Arc::new(found.to_vec()));
}
