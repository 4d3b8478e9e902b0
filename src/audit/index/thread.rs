//! The thread that follows the log.

use super::{AuditError, SearchIndex, index_path, is_damaged};
use crate::exchange_log::reader::LogReader;
use crate::keyfile::Vault;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Four times a second: with a sealing every 400 ms, an entry is found within a second.
const EVERY: Duration = Duration::from_millis(250);

/// The thread, until this is dropped.
pub struct IndexThread {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl IndexThread {
    /// Starts the thread that follows the log of a data folder.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn start(data: &Path, vault: &Vault) -> std::io::Result<Self> {
        let (stop, stopped) = channel();
        let (data, vault) = (data.to_owned(), vault.clone());
        let run = move || {
            let (mut index, mut reported) = (None, false);
            loop {
                match step(&data, &vault, &mut index) {
                    Ok(true) if matches!(stopped.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty)) => continue,
                    Ok(_) => reported = false,
                    // After a crash, SQLite may find a fault only when it reads that part. All of it is in the log.
                    Err(error) if is_damaged(&error) => {
                        tracing::warn!(%error, "the search index is damaged and is rebuilt");
                        index = None;
                        if let Err(error) = SearchIndex::remove(&data) {
                            tracing::error!(%error, "the damaged search index cannot be removed");
                        }
                    }
                    // Once, not four times a second. The log continues without its index.
                    Err(error) if !reported => {
                        tracing::error!(%error, "the search index does not follow the log");
                        (reported, index) = (true, None);
                    }
                    Err(_) => index = None,
                }
                if stopped.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("log-index".into()).spawn(run)?;
        Ok(IndexThread { stop: Some(stop), thread: Some(thread) })
    }
}

/// Indexes one batch; returns true if more are waiting.
fn step(data: &Path, vault: &Vault, index: &mut Option<(u64, SearchIndex)>) -> Result<bool, AuditError> {
    let reader = LogReader::sealed_only(data)?;
    // An index that is rebuilt meanwhile is another file.
    let file = || std::fs::metadata(index_path(data)).map_or(0, |found| found.ino());
    let (number, mut open) = match index.take().filter(|(number, _)| *number == file()) {
        Some(open) if !open.1.is_too_long(&reader)? => open,
        _ => {
            let open = open_for(data, vault, &reader)?;
            (file(), open)
        }
    };
    let more = open.take_in(&reader);
    *index = Some((number, open));
    more
}

/// Opens the index of this very log: one of another log is removed.
fn open_for(data: &Path, vault: &Vault, reader: &LogReader) -> Result<SearchIndex, AuditError> {
    let index = SearchIndex::follow(data, vault)?;
    if index.is_of(reader)? {
        return Ok(index);
    }
    tracing::warn!("the search index is of another log or key, or was changed, and is rebuilt");
    drop(index);
    SearchIndex::remove(data)?;
    SearchIndex::follow(data, vault)
}

/// Rebuilds the index from the log, reports progress as entries done of all, and returns how many are in it: all
/// entries of full bundles.
///
/// # Errors
/// The log cannot be read, or the index not be written.
pub fn rebuild(data: &Path, vault: &Vault, mut progress: impl FnMut(u64, u64)) -> Result<u64, AuditError> {
    let reader = LogReader::sealed_only(data)?;
    SearchIndex::remove(data)?;
    let mut index = SearchIndex::follow(data, vault)?;
    while index.take_in(&reader)? {
        progress(index.indexed(&reader), reader.sealed());
    }
    Ok(index.indexed(&reader))
}

impl Drop for IndexThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
