//! Response streams: a page is read when the auditor has read the previous one, on a thread that is free again before
//! anything of it is sent. An auditor who reads nothing holds a page in memory, and no thread.

use super::{MAX_COUNTS, api, complete, count_message, entry_message, reading, too_many_counts};
use crate::access::reads::ReadPermit;
use crate::audit::AuditError;
use crate::audit::index::{self, Checked, IndexDifference, LastVerification, SearchIndex};
use crate::audit::query::Query;
use crate::audit::{search, statistics};
use crate::exchange_log::proof::inclusion;
use crate::exchange_log::reader::{Found, LogReader, Published};
use crate::exchange_log::tree::TILE;
use crate::exchange_log::{Entry, LogOpener};
use crate::keyfile::Vault;
use futures_util::{Stream, TryStreamExt, stream};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tonic::Status;

/// Parts of a response.
pub type PartStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Entries of an export that are found at once: 16 MB if each has the maximum size, usually a tenth of a MB.
const PAGE: usize = 256;
/// Longest time to find a part.
const PATIENCE: Duration = Duration::from_millis(500);

/// A page of parts, one after the other.
fn each<T>(page: Vec<T>) -> impl Stream<Item = Result<T, Status>> {
    stream::iter(page.into_iter().map(Ok))
}

/// Returns entries from an index on (0: from the next one on), as they come under the checkpoint.
pub(super) fn tail(
    data: PathBuf,
    sealed: watch::Receiver<u64>,
    query: Query,
    from: u64,
    permit: ReadPermit,
) -> PartStream<api::LogEntry> {
    let next = if from > 0 { from } else { *sealed.borrow() };
    let state = (data, sealed, query, permit, next);
    let pages = stream::try_unfold(state, |(data, mut sealed, query, permit, next)| async move {
        // A closed log has no more.
        if sealed.wait_for(|sealed| *sealed > next).await.is_err() {
            return Ok::<_, Status>(None);
        }
        let (page_data, page_query) = (data.clone(), query.clone());
        let (page, next) = reading(&permit, move || tail_page(&page_data, &page_query, next)).await?;
        Ok(Some((each(page), (data, sealed, query, permit, next))))
    });
    Box::pin(pages.try_flatten())
}

/// Returns the matching entries from an index on, of the first bundle that has any; and where to continue.
fn tail_page(data: &Path, query: &Query, next: u64) -> Result<(Vec<api::LogEntry>, u64), AuditError> {
    let (reader, until) = (LogReader::sealed_only(data)?, Instant::now() + PATIENCE);
    let (mut at, mut page) = (next, Vec::new());
    while at < reader.sealed() && page.is_empty() && Instant::now() < until {
        let bundle = at / TILE as u64;
        let first = bundle * TILE as u64;
        for (place, bytes) in reader.bundle(bundle)?.unwrap_or_default().iter().enumerate() {
            let index = first + place as u64;
            let entry = (index >= at).then(|| Entry::from_bytes(bytes)).flatten().filter(|entry| query.fits(entry));
            page.extend(entry.map(|entry| entry_message(Found { index, entry })));
        }
        at = (first + TILE as u64).min(reader.sealed());
    }
    Ok((page, at))
}

/// Returns every matching entry, with its proof under one checkpoint.
pub(super) fn export(folder: (PathBuf, Vault), query: Query, permit: ReadPermit) -> PartStream<api::ExportPart> {
    let pages = stream::try_unfold((Export::Begin(Box::new((folder, query))), permit), |(export, permit)| async move {
        let Some((page, export)) = reading(&permit, move || export.page()).await? else { return Ok::<_, Status>(None) };
        Ok(Some((each(page), (export, permit))))
    });
    Box::pin(pages.try_flatten())
}

/// The state of an export.
enum Export {
    Begin(Box<((PathBuf, Vault), Query)>),
    /// In progress: the reader from its beginning, the checkpoint's size, and the next position.
    Goes(Box<(LogReader, Option<SearchIndex>, Query)>, u64, Option<u64>),
}

impl Export {
    /// Returns the next page, which may be empty; `None` at the end.
    fn page(self) -> Result<Option<(Vec<api::ExportPart>, Self)>, AuditError> {
        let (log, size, before) = match self {
            Export::Begin(begin) => {
                let ((data, vault), query) = *begin;
                let (reader, index) = (LogReader::sealed_only(&data)?, SearchIndex::read(&data, &vault));
                let Some(Published { size, note }) = reader.published()? else { return Ok(None) };
                let head = api::ExportPart { checkpoint: note, ..api::ExportPart::default() };
                return Ok(Some((vec![head], Export::Goes(Box::new((reader, index, query)), size, Some(size)))));
            }
            Export::Goes(log, size, before) => (log, size, before),
        };
        let Some(before) = before else { return Ok(None) };
        let (reader, index, query) = log.as_ref();
        let until = Some(Instant::now() + PATIENCE);
        let found = search::page(reader, index.as_ref(), query, Some(before), PAGE, until)?;
        let part = |found: Found| {
            let path = inclusion(&|level, at| reader.node(level, at), found.index, size)?;
            let path = path.into_iter().map(|hash| hash.to_vec()).collect();
            let (index, entry) = (found.index, found.entry.to_bytes());
            Ok(api::ExportPart { checkpoint: String::new(), index, entry, path })
        };
        let page = found.found.into_iter().map(part).collect::<Result<Vec<_>, AuditError>>()?;
        let before = found.before;
        Ok(Some((page, Export::Goes(log, size, before))))
    }
}

/// Interval of a count's progress reports.
const SAID_EVERY: Duration = Duration::from_millis(100);
/// Parts of a verification that wait for their reader.
const PARTS_AHEAD: usize = 16;

/// Recomputes the index from the log, with its progress; ends early if its reader is gone.
pub(super) fn verify_index((data, vault): (PathBuf, Vault), permit: ReadPermit) -> PartStream<api::VerifyIndexPart> {
    let (to, parts) = tokio::sync::mpsc::channel(PARTS_AHEAD);
    tokio::spawn(async move {
        let progress = to.clone();
        let checked = reading(&permit, move || {
            let checked = index::check(&data, &vault, |done, of| {
                let part = api::VerifyIndexPart { done, of, ..api::VerifyIndexPart::default() };
                progress.blocking_send(Ok(part)).is_ok()
            })?;
            if let Some(Checked { entries, found, .. }) = &checked {
                let verified =
                    LastVerification { time: crate::registry::now(), entries: *entries, differences: *found };
                verified.keep(&data, &vault)?;
            }
            Ok(checked.unwrap_or_default())
        });
        let last = checked.await.map(|Checked { entries, sealed, differences, found }| api::VerifyIndexPart {
            done: entries,
            of: sealed,
            differences: differences.into_iter().map(difference).collect(),
            found,
            complete: true,
        });
        // The reader may be gone.
        let _ = to.send(last).await;
    });
    Box::pin(stream::unfold(parts, |mut parts| async move { Some((parts.recv().await?, parts)) }))
}

/// Counts exchanges from the log itself, with its progress; ends early if its reader is gone.
pub(super) fn count(
    opener: Arc<LogOpener>,
    query: Query,
    days: bool,
    permit: ReadPermit,
) -> PartStream<api::CountExchangesPart> {
    let (to, parts) = tokio::sync::mpsc::channel(PARTS_AHEAD);
    tokio::spawn(async move {
        let progress = to.clone();
        let counted = reading(&permit, move || {
            let (reader, mut said) = (opener.open()?, Instant::now());
            let counted = statistics::from_log(&reader, &query, days, MAX_COUNTS, |done, of| {
                if said.elapsed() < SAID_EVERY {
                    return true;
                }
                said = Instant::now();
                let part = api::CountExchangesPart { done, of, ..api::CountExchangesPart::default() };
                progress.blocking_send(Ok(part)).is_ok()
            })?;
            Ok((counted, complete(&reader, true)?))
        });
        let last = match counted.await {
            Err(status) => Err(status),
            // The reader is gone.
            Ok((None, _)) => return,
            Ok((Some(counted), complete)) => {
                let statistics::PeriodStatistics { counts, not_counted, purposes, other_purposes } = counted;
                let counts = counts.ok_or_else(too_many_counts);
                counts.map(|counts| api::CountExchangesPart {
                    done: complete.size + complete.unsealed,
                    of: complete.size + complete.unsealed,
                    counts: counts.into_iter().map(count_message).collect(),
                    complete: Some(complete),
                    not_counted,
                    purposes: purposes
                        .into_iter()
                        .map(|(purpose, exchanges)| api::PurposeCount { purpose, exchanges })
                        .collect(),
                    other_purposes,
                })
            }
        };
        let _ = to.send(last).await;
    });
    Box::pin(stream::unfold(parts, |mut parts| async move { Some((parts.recv().await?, parts)) }))
}

fn difference(IndexDifference { first, last, what }: IndexDifference) -> api::IndexDifference {
    api::IndexDifference { first, last, what }
}
