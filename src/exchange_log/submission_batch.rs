//! A thread's submission batch: entries on their way to the log's writer, submitted together.
//!
//! The writer takes all queued entries and writes them. If a worker submits its entries one by one, the first of them
//! starts the writer, the others wait for the next write, and each write costs as much for one entry as for a hundred
//! (on this project's machine 60 µs of CPU, and two thread switches). So a worker submits when it has run everything
//! that was ready: a single call is submitted at once, a hundred are submitted together. (Under load the writer waits
//! as well, so that a write carries the entries of a millisecond.)

use super::completion_queue;
use super::writer::{ENOUGH, Queued, WriterState};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Longest wait of the first of them on a worker that is always busy: about the time of one turn anyway.
const MAX_WAIT: Duration = Duration::from_millis(1);

#[derive(Default)]
struct SubmissionBatch {
    entries: Vec<Queued>,
    /// The log of these entries.
    log: Option<Arc<WriterState>>,
    ready: Arc<Notify>,
}

impl SubmissionBatch {
    fn hand_over(&mut self) {
        if let Some(log) = self.log.take() {
            log.push_all(self.entries.drain(..));
        }
    }
}

/// Entries that were added last, while the thread's tasks were dropped, are submitted when the thread ends.
impl Drop for SubmissionBatch {
    fn drop(&mut self) {
        self.hand_over();
    }
}

thread_local! {
    static HERE: RefCell<Option<SubmissionBatch>> = const { RefCell::new(None) };
}

/// Opens a submission batch and a completion queue for the calling thread, if its runtime runs all its tasks itself
/// (`current_thread`). Without them, each entry is submitted separately, and each waiting task is woken separately.
pub fn open_thread_queues() {
    completion_queue::open();
    let submission_batch = SubmissionBatch::default();
    let ready = submission_batch.ready.clone();
    HERE.with_borrow_mut(|here| *here = Some(submission_batch));
    tokio::spawn(async move {
        loop {
            ready.notified().await;
            let (first, mut seen) = (Instant::now(), 0);
            loop {
                // After all ready tasks, and all that the sockets make ready then.
                tokio::task::yield_now().await;
                let here =
                    HERE.with_borrow(|here| here.as_ref().map_or(0, |submission_batch| submission_batch.entries.len()));
                if here == seen || here >= ENOUGH || first.elapsed() >= MAX_WAIT {
                    break;
                }
                seen = here;
            }
            HERE.with_borrow_mut(|here| here.as_mut().map(SubmissionBatch::hand_over));
        }
    });
}

/// Adds an entry to the calling thread's submission batch, or submits it separately if the thread has none.
pub(super) fn put(log: &Arc<WriterState>, entry: Queued) {
    let mut entry = Some(entry);
    let put = |here: &RefCell<Option<SubmissionBatch>>| {
        let mut here = here.borrow_mut();
        let Some(submission_batch) = here.as_mut() else { return };
        // A thread serves one gateway; tests may have two logs on one.
        if submission_batch.log.as_ref().is_some_and(|other| !Arc::ptr_eq(other, log)) {
            submission_batch.hand_over();
        }
        if submission_batch.entries.is_empty() {
            submission_batch.log = Some(log.clone());
            submission_batch.ready.notify_one();
        }
        submission_batch.entries.extend(entry.take());
    };
    // A thread that ends no longer has a batch.
    let _ = HERE.try_with(put);
    if entry.is_some() {
        log.push_all(entry.into_iter());
    }
}
