//! Exports that a gateway writes to a file of its own, for auditors without a command line: each in the background, with its progress. The
//! files have no name on the disk, so nothing of them is left when the gateway ends.

use super::streams::PartStream;
use super::{Audit, AuditError, api, invalid, reading, refused, rules};
use crate::access::reads::ReadPermit;
use crate::audit::index::SearchIndex;
use crate::audit::query::Query;
use crate::audit::rows::{ExportFormat, RowError, RowSink};
use crate::audit::search;
use crate::exchange_log::reader::LogReader;
use crate::exchange_log::{Entry, LogError};
use crate::status::{Reason, Refusal};
use futures_util::stream;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tonic::{Request, Response, Status};

/// Exports that are kept of one person, and in all: 2 GB of the disk at most.
const MAX_KEPT: (usize, usize) = (2, 8);
/// Largest file.
const MAX_BYTES: u64 = 256 << 20;
/// How long a complete export is kept.
const KEPT_FOR: Duration = Duration::from_secs(3_600);
/// Entries that are found at once, and the longest time to find them.
const PAGE: (usize, Duration) = (1_000, Duration::from_millis(500));
/// Bytes of a part of a download.
const PART: usize = 64 << 10;

/// The exports of a gateway.
#[derive(Debug, Default)]
pub(super) struct ExportFiles(Mutex<Vec<Arc<Export>>>);

/// One of them.
#[derive(Debug)]
struct Export {
    id: String,
    /// Whose it is, as in events.
    by: String,
    form: ExportFormat,
    started: i64,
    progress: Mutex<Progress>,
    removed: AtomicBool,
}

#[derive(Debug, Default)]
struct Progress {
    done: u64,
    of: u64,
    entries: u64,
    bytes: u64,
    /// The complete file.
    file: Option<Arc<File>>,
    fault: String,
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unknown() -> Status {
    refused(Refusal::with(Reason::ObjectUnknown, "you have no such export, or it is not complete"))
}

impl ExportFiles {
    /// Adds one of a person's; refuses it if too many are kept.
    fn begin(&self, by: &str, form: ExportFormat) -> Result<Arc<Export>, Status> {
        let mut all = locked(&self.0);
        let own = all.iter().filter(|one| one.by == by).count();
        if own >= MAX_KEPT.0 || all.len() >= MAX_KEPT.1 {
            let detail = format!("{} exports of yours and {} in all are kept: remove one", own, all.len());
            return Err(refused(Refusal::with(Reason::RateLimited, detail)));
        }
        let export = Arc::new(Export {
            id: uuid::Uuid::now_v7().simple().to_string(),
            by: by.to_owned(),
            form,
            started: crate::registry::now(),
            progress: Mutex::default(),
            removed: AtomicBool::new(false),
        });
        all.push(export.clone());
        Ok(export)
    }

    /// Returns a person's exports, the newest first.
    pub(super) fn of(&self, by: &str) -> Vec<api::ExportFile> {
        locked(&self.0).iter().rev().filter(|one| one.by == by).map(|one| one.message()).collect()
    }

    fn file(&self, by: &str, id: &str) -> Option<Arc<File>> {
        let all = locked(&self.0);
        let one = all.iter().find(|one| one.by == by && one.id == id)?;
        locked(&one.progress).file.clone()
    }

    /// Ends and removes one of a person's.
    pub(super) fn remove(&self, by: &str, id: &str) -> Result<(), Status> {
        let mut all = locked(&self.0);
        let at = all.iter().position(|one| one.by == by && one.id == id).ok_or_else(unknown)?;
        all.remove(at).removed.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Export {
    fn message(&self) -> api::ExportFile {
        let progress = locked(&self.progress);
        api::ExportFile {
            id: self.id.clone(),
            format: self.form.ending().to_owned(),
            started: self.started,
            done: progress.done,
            of: progress.of,
            entries: progress.entries,
            bytes: progress.bytes,
            complete: progress.file.is_some(),
            fault: progress.fault.clone(),
        }
    }

    fn fail(&self, fault: &str) {
        locked(&self.progress).fault = fault.to_owned();
    }
}

/// An export in progress.
struct Writing {
    export: Arc<Export>,
    log: (LogReader, Option<SearchIndex>),
    query: Query,
    rows: RowSink,
    file: File,
    before: Option<u64>,
}

/// The next page to write, or the end: `None` where there is nothing more to do.
type Next = Result<Option<Box<Writing>>, RowError>;

impl Writing {
    fn begin(audit: &Audit, export: Arc<Export>, query: Query) -> Result<Next, AuditError> {
        let log = (LogReader::sealed_only(&audit.data)?, SearchIndex::read(&audit.data, &audit.vault));
        let size = log.0.published()?.map_or(0, |published| published.size);
        locked(&export.progress).of = size;
        let file = tempfile::tempfile_in(&audit.data).map_err(|error| LogError::io(&audit.data, &error))?;
        let begin = || {
            let rows = RowSink::begin(export.form, file.try_clone()?)?;
            Ok(Some(Box::new(Writing { export, log, query, rows, file, before: Some(size).filter(|size| *size > 0) })))
        };
        Ok(begin())
    }

    /// Writes a page, newest first.
    fn page(mut self: Box<Self>) -> Result<Next, AuditError> {
        let Some(before) = self.before else { return Ok(self.end()) };
        let until = Some(Instant::now() + PAGE.1);
        let page = search::page(&self.log.0, self.log.1.as_ref(), &self.query, Some(before), PAGE.0, until)?;
        self.before = page.before;
        Ok(self.add(&page.found))
    }

    fn add(mut self: Box<Self>, found: &[crate::exchange_log::reader::Found]) -> Next {
        found.iter().try_for_each(|one| self.rows.add(one))?;
        let bytes = self.file.metadata()?.len();
        if bytes > MAX_BYTES {
            self.export.fail("TOO_LARGE");
            return Ok(None);
        }
        let mut progress = locked(&self.export.progress);
        progress.entries += found.len() as u64;
        progress.bytes = bytes;
        progress.done = progress.of.saturating_sub(self.before.unwrap_or(0));
        drop(progress);
        Ok(Some(self).filter(|one| !one.export.removed.load(Ordering::Relaxed)))
    }

    fn end(self: Box<Self>) -> Next {
        let Writing { export, rows, file, .. } = *self;
        rows.finish()?;
        let bytes = file.metadata()?.len();
        let mut progress = locked(&export.progress);
        (progress.bytes, progress.done, progress.file) = (bytes, progress.of, Some(Arc::new(file)));
        Ok(None)
    }
}

/// Writes an export, a page at a time: the thread is free for others in between.
async fn write(audit: &Audit, export: &Arc<Export>, query: Query, permit: &ReadPermit) -> Result<(), String> {
    let own = audit.clone();
    let begun = export.clone();
    let mut next = reading(permit, move || Writing::begin(&own, begun, query)).await;
    loop {
        let writing = next.map_err(|status| status.message().to_owned())?.map_err(|error| error.to_string())?;
        let Some(writing) = writing else { return Ok(()) };
        next = reading(permit, move || writing.page()).await;
    }
}

impl Audit {
    pub(super) async fn begin_export(
        &self,
        request: &Request<api::StartExportRequest>,
    ) -> Result<Response<api::ExportFile>, Status> {
        let rule = &rules::START_EXPORT;
        let api::StartExportRequest { query, reason, format } = request.get_ref().clone();
        let reader = self.host.admit(request, rule).await?;
        let form = ExportFormat::of(&format)
            .ok_or_else(|| invalid("format", "must be csv, jsonl or parquet", "phải là csv, jsonl hoặc parquet"))?;
        let (query, permit) = self.asked(request, rule, (query, true), &reason, &self.streams).await?;
        let by = self.host.name(&reader);
        let export = self.exports.begin(&by, form)?;
        let about = Entry { object: format!("export:{} format:{format}", export.id), ..Entry::default() };
        if let Err(status) = self.host.note(&reader, rule.event, about).await {
            let _ = self.exports.remove(&by, &export.id);
            return Err(status);
        }
        let (audit, own) = (self.clone(), export.clone());
        tokio::spawn(async move {
            if let Err(fault) = write(&audit, &own, query, &permit).await {
                tracing::warn!(export = own.id, fault, "an export was not written");
                own.fail("NOT_WRITTEN");
            }
            // The permit is for those who read.
            drop(permit);
            tokio::time::sleep(KEPT_FOR).await;
            let _ = audit.exports.remove(&own.by, &own.id);
        });
        Ok(Response::new(export.message()))
    }

    pub(super) async fn download(
        &self,
        request: &Request<api::DownloadExportRequest>,
    ) -> Result<Response<PartStream<api::DownloadExportPart>>, Status> {
        let reader = self.host.admit(request, &rules::DOWNLOAD_EXPORT).await?;
        let permit = self.host.begin(&reader, &self.streams)?;
        let file = self.exports.file(&self.host.name(&reader), &request.get_ref().id).ok_or_else(unknown)?;
        let parts = stream::try_unfold((file, permit, 0), |(file, permit, at)| async move {
            let own = file.clone();
            let read = move || {
                let mut content = vec![0; PART];
                let count = own.read_at(&mut content, at);
                content.truncate(count.map_err(|error| LogError::io(std::path::Path::new("export"), &error))?);
                Ok(content)
            };
            let content = reading(&permit, read).await?;
            let next = at + content.len() as u64;
            Ok(Some(api::DownloadExportPart { content })
                .filter(|part| !part.content.is_empty())
                .map(|part| (part, (file, permit, next))))
        });
        Ok(Response::new(Box::pin(parts)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn exports_are_each_person_s_own_and_few() {
        let files = ExportFiles::default();
        let first = files.begin("staff:a", ExportFormat::Csv).unwrap();
        files.begin("staff:a", ExportFormat::Lines).unwrap();
        assert!(files.begin("staff:a", ExportFormat::Csv).is_err(), "the third of one person");
        assert_eq!(files.of("staff:a").iter().map(|one| one.format.as_str()).collect::<Vec<_>>(), ["jsonl", "csv"]);
        assert!(files.of("staff:b").is_empty() && files.remove("staff:b", &first.id).is_err());
        assert!(files.file("staff:a", &first.id).is_none(), "it is not complete");
        files.remove("staff:a", &first.id).unwrap();
        assert!(first.removed.load(Ordering::Relaxed) && files.begin("staff:a", ExportFormat::Csv).is_ok());
        for person in ["b", "c", "d"] {
            (0..2).for_each(|_| drop(files.begin(person, ExportFormat::Csv).unwrap()));
        }
        assert!(files.begin("e", ExportFormat::Csv).is_err(), "the ninth of all");
    }
}
