//! Answers that are streams: read ahead by a few entries, no faster than the auditor takes them.

use super::{api, entry_message, failed};
use crate::audit::AuditError;
use crate::audit::index::Index;
use crate::audit::query::Query;
use crate::audit::search;
use crate::exchange_log::proof::inclusion;
use crate::exchange_log::reader::{Found, LogReader, Published};
use crate::exchange_log::tree::TILE;
use futures_util::Stream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tonic::Status;

/// Parts of an answer.
pub type Parts<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Entries that are read ahead.
const AHEAD: usize = 64;
/// How often the log is looked at for more.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Entries of an export that are found at once.
const PAGE: usize = 1_000;

fn parts<T: Send + 'static>(receiver: Receiver<Result<T, Status>>) -> Parts<T> {
    Box::pin(futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|part| (part, receiver))
    }))
}

/// The caller is gone, or the log cannot be read.
enum End {
    Gone,
    Failed(AuditError),
}

impl<E: Into<AuditError>> From<E> for End {
    fn from(error: E) -> Self {
        End::Failed(error.into())
    }
}

/// Entries from an index on (0: from the next one to come), as they come under the checkpoint.
pub(super) fn tail(data: PathBuf, query: Query, from: u64) -> Parts<api::LogEntry> {
    let (to, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let mut next = (from > 0).then_some(from);
        while !to.is_closed() {
            let (step_data, step_query, step_to) = (data.clone(), query.clone(), to.clone());
            let step = tokio::task::spawn_blocking(move || tail_step(&step_data, &step_query, next, &step_to)).await;
            match step {
                Ok(Ok(at)) => next = Some(at),
                Ok(Err(End::Failed(error))) => return drop(to.send(Err(failed(error))).await),
                Ok(Err(End::Gone)) | Err(_) => return,
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    parts(receiver)
}

fn tail_step(
    data: &Path,
    query: &Query,
    next: Option<u64>,
    to: &Sender<Result<api::LogEntry, Status>>,
) -> Result<u64, End> {
    let reader = LogReader::sealed_only(data)?;
    let mut at = next.unwrap_or(reader.sealed());
    while at < reader.sealed() {
        let bundle = at / TILE as u64;
        let first = bundle * TILE as u64;
        for (place, bytes) in reader.bundle(bundle)?.unwrap_or_default().iter().enumerate() {
            let index = first + place as u64;
            let fits =
                index >= at && crate::exchange_log::Entry::from_bytes(bytes).is_some_and(|entry| query.fits(&entry));
            if let Some(entry) = fits.then(|| reader.entry(index)).transpose()?.flatten() {
                to.blocking_send(Ok(entry_message(Found { index, entry }))).map_err(|_| End::Gone)?;
            }
        }
        at = (first + TILE as u64).min(reader.sealed());
    }
    Ok(at)
}

/// Every entry that fits, with its proof under one checkpoint.
pub(super) fn export(data: PathBuf, query: Query) -> Parts<api::ExportPart> {
    let (to, receiver) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        if let Err(End::Failed(error)) = export_all(&data, &query, &to) {
            let _ = to.blocking_send(Err(failed(error)));
        }
    });
    parts(receiver)
}

fn export_all(data: &Path, query: &Query, to: &Sender<Result<api::ExportPart, Status>>) -> Result<(), End> {
    let (reader, index) = (LogReader::sealed_only(data)?, Index::read(data)?);
    let send = |part| to.blocking_send(Ok(part)).map_err(|_| End::Gone);
    let Some(Published { size, note }) = reader.published()? else { return Ok(()) };
    send(api::ExportPart { checkpoint: note, ..api::ExportPart::default() })?;
    let mut before = Some(size);
    while let Some(at) = before {
        let page = search::page(&reader, index.as_ref(), query, Some(at), PAGE, None)?;
        for found in page.found {
            let path = inclusion(&|level, at| reader.node(level, at), found.index, size)?;
            let path = path.into_iter().map(|hash| hash.to_vec()).collect();
            let (index, entry) = (found.index, found.entry.to_bytes());
            send(api::ExportPart { checkpoint: String::new(), index, entry, path })?;
        }
        before = page.before;
    }
    Ok(())
}
