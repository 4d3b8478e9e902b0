//! Writes that were in flight when an earlier process ended: their intents have no end in the log, so their outcome
//! would stay open. Each gets an entry that its outcome is not known.

use crate::audit::scan;
use crate::exchange_log::reader::LogReader;
use crate::exchange_log::tree::TILE;
use crate::exchange_log::{Entry, Kind, LogError};
use crate::registry::AdminEventKey;
use crate::server::StartError;
use crate::server::shared::Shared;
use crate::server::thread;
use crate::status::{FaultOwner, Reason};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Retry delay if the log cannot be read or written.
const AGAIN: Duration = Duration::from_secs(5);

/// How often is looked whether the entries of earlier processes are all sealed, where several gateways write.
const LOOK: Duration = Duration::from_millis(200);

/// Starts the thread that ends them.
pub(in crate::server) fn spawn(
    (data, key): (&Path, &AdminEventKey),
    shared: &Arc<Shared>,
    stop: CancellationToken,
) -> Result<JoinHandle<()>, StartError> {
    let (data, key, shared) = (data.to_owned(), key.clone(), shared.clone());
    // What is sealed by now is of earlier processes, and so is what has an earlier time.
    let (sealed, began_us) = (shared.log.durable(), crate::exchange_log::clock::now_us());
    thread::spawn("unended", move || async move {
        let until = loop {
            if let Some(until) = shared.log.earlier() {
                break until;
            }
            if stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none() {
                return;
            }
        };
        let earlier = Earlier { until, searched: sealed.min(until), before_us: began_us };
        while let Err(error) = end_all((&data, &key), &shared, &earlier, &stop).await {
            tracing::error!(%error, "writes of an earlier process have no end in the exchange log yet");
            if stop.run_until_cancelled(tokio::time::sleep(AGAIN)).await.is_none() {
                return;
            }
        }
    })
}

/// Which entries are of earlier processes of this gateway.
struct Earlier {
    /// They are below this index.
    until: u64,
    /// Below this index, none is of this process.
    searched: u64,
    /// They are from before this time.
    before_us: i64,
}

async fn end_all(
    (data, key): (&Path, &AdminEventKey),
    shared: &Shared,
    earlier: &Earlier,
    stop: &CancellationToken,
) -> Result<(), LogError> {
    let from = scan::intents_ended(data, key).filter(|from| *from <= earlier.searched).unwrap_or(0);
    let Some(mut intents) = unended(data, from, earlier.until, || !stop.is_cancelled())? else { return Ok(()) };
    if shared.cluster.is_some() {
        // Another gateway's write may still be under way there, and is ended by that gateway.
        intents.retain(|intent| intent.node == shared.node && intent.time_us < earlier.before_us);
    }
    for intent in &intents {
        shared.log.append(&outcome_unknown(intent)).await?;
    }
    if !intents.is_empty() {
        tracing::warn!(
            writes = intents.len(),
            "writes were under way when the gateway ended: their outcome is not known, and the exchange log says so"
        );
    }
    scan::keep_intents_ended(data, key, earlier.searched)
}

/// The end of a write that its gateway did not outlive.
fn outcome_unknown(intent: &Entry) -> Entry {
    let reason = Reason::WriteOutcomeUnknown;
    Entry {
        kind: Kind::Exchange as i32,
        time_us: crate::exchange_log::clock::now_us(),
        status: reason.code() as u32,
        reason: reason.as_str().to_owned(),
        cause: Reason::GatewayEnding.as_str().to_owned(),
        fault: FaultOwner::Gateway.as_str().to_owned(),
        ..intent.clone()
    }
}

/// Returns the intents among the entries `from..until` that have no end there, oldest first; `None` if `go_on` returned
/// false.
fn unended(data: &Path, from: u64, until: u64, go_on: impl Fn() -> bool) -> Result<Option<Vec<Entry>>, LogError> {
    // At most as many at once as there were calls in flight.
    let mut open: HashMap<Vec<u8>, (u64, Entry)> = HashMap::new();
    let mut take = |index: u64, bytes: &[u8]| {
        let Some(entry) = Entry::from_bytes(bytes).filter(|_| (from..until).contains(&index)) else { return };
        if entry.kind == Kind::Intent as i32 {
            open.insert(entry.exchange_id.clone(), (index, entry));
        } else if entry.kind == Kind::Exchange as i32 {
            open.remove(&entry.exchange_id);
        }
    };
    let reader = LogReader::open(data)?;
    for bundle in from / TILE as u64..reader.sealed().min(until).div_ceil(TILE as u64) {
        if !go_on() {
            return Ok(None);
        }
        // A pruned write ended long ago.
        let entries = reader.bundle(bundle)?.unwrap_or_default();
        (bundle * TILE as u64..).zip(&entries).for_each(|(index, bytes)| take(index, bytes));
    }
    (reader.sealed()..).zip(reader.tail()).for_each(|(index, bytes)| take(index, bytes));
    let mut open: Vec<(u64, Entry)> = open.into_values().collect();
    open.sort_by_key(|(index, _)| *index);
    Ok(Some(open.into_iter().map(|(_, intent)| intent).collect()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::exchange_log::ExchangeLog;
    use crate::exchange_log::checkpoint::LogSigner;

    #[test]
    fn l10_only_intents_without_an_end_are_found_and_no_longer_once_they_have_one() {
        let folder = tempfile::tempdir().unwrap();
        let signer = LogSigner::from_pkcs8("log.test/u", &LogSigner::generate().unwrap()).unwrap();
        let log = ExchangeLog::open(folder.path(), signer).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let append = |kind: Kind, id: u8| {
            let entry = Entry { exchange_id: vec![id; 16], ..Entry::begin(kind, "dc1") };
            runtime.block_on(log.append(&entry)).unwrap().unwrap()
        };
        // More than a bundle, sealed, and some in the journal.
        for _ in 0..300 {
            append(Kind::Exchange, 9);
        }
        append(Kind::Intent, 1);
        append(Kind::Exchange, 1);
        append(Kind::Intent, 2);
        append(Kind::StreamPart, 2);
        log.seal_now().unwrap();
        append(Kind::Intent, 3);
        append(Kind::Exchange, 3);
        let until = append(Kind::Intent, 4) + 1;
        // An intent of the present process.
        append(Kind::Intent, 5);
        let found = |from| {
            let found = unended(folder.path(), from, until, || true).unwrap().unwrap();
            found.iter().map(|intent| intent.exchange_id[0]).collect::<Vec<_>>()
        };
        assert_eq!((found(0), found(303), found(until)), (vec![2, 4], vec![4], vec![]));
        assert_eq!(unended(folder.path(), 0, until, || false).unwrap(), None);
        let ended = outcome_unknown(&Entry { exchange_id: vec![2; 16], ..Entry::begin(Kind::Intent, "dc1") });
        assert_eq!((ended.reason.as_str(), ended.kind), ("WRITE_OUTCOME_UNKNOWN", Kind::Exchange as i32));
        runtime.block_on(log.append(&ended)).unwrap();
        let next = runtime.block_on(log.append(&Entry::begin(Kind::Admin, "dc1"))).unwrap().unwrap();
        let left = unended(folder.path(), 0, next, || true).unwrap().unwrap();
        assert_eq!(left.iter().map(|intent| intent.exchange_id[0]).collect::<Vec<_>>(), [4, 5]);
    }
}
