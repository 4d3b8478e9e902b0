//! A thread's completion queue: the log's writer puts the results of a batch there and notifies the thread once.
//!
//! Waking a task of another thread costs a system call. With dozens of calls of a worker in one batch, this saves all
//! but one of them: the writer wakes the queue's own task, and that task wakes the others, on its own thread.

use super::LogError;
use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, oneshot};

/// An entry's index, `None` if it is known only when the entry is sealed; or the error that kept it out of the log.
type AppendResult = Result<Option<u64>, LogError>;

/// Receives an entry's result.
pub(super) type ResultSender = oneshot::Sender<AppendResult>;

#[derive(Default)]
pub(super) struct CompletionQueue {
    completed: Mutex<Vec<(ResultSender, AppendResult)>>,
    ready: Notify,
}

thread_local! {
    static HERE: RefCell<Option<Arc<CompletionQueue>>> = const { RefCell::new(None) };
}

/// Opens a completion queue for the calling thread, if its runtime runs all its tasks itself. Without a queue, each
/// waiting task is woken separately.
pub(super) fn open() {
    let completion_queue = Arc::new(CompletionQueue::default());
    HERE.with_borrow_mut(|here| *here = Some(completion_queue.clone()));
    tokio::spawn(async move {
        loop {
            completion_queue.ready.notified().await;
            let completed =
                std::mem::take(&mut *completion_queue.completed.lock().unwrap_or_else(PoisonError::into_inner));
            for (sender, result) in completed {
                // The receiver may have been dropped; its entry is in the log all the same.
                let _ = sender.send(result);
            }
        }
    });
}

/// Returns the completion queue of the calling thread.
pub(super) fn here() -> Option<Arc<CompletionQueue>> {
    HERE.with_borrow(Clone::clone)
}

/// A task that waits for its entry to become durable: its thread's completion queue, and the sender of the result.
pub(super) struct PendingAppend {
    pub(super) completion_queue: Option<Arc<CompletionQueue>>,
    pub(super) sender: ResultSender,
}

/// Completes the appends of a batch; `first` is the index of its first entry.
pub(super) fn complete(pending: Vec<Option<PendingAppend>>, first: &AppendResult) {
    let mut notified: Vec<Arc<CompletionQueue>> = Vec::new();
    for (position, append) in pending.into_iter().enumerate() {
        let Some(PendingAppend { completion_queue, sender }) = append else { continue };
        let result = first.clone().map(|first| first.map(|first| first + position as u64));
        match completion_queue {
            Some(completion_queue) => {
                completion_queue.completed.lock().unwrap_or_else(PoisonError::into_inner).push((sender, result));
                if !notified.iter().any(|other| Arc::ptr_eq(other, &completion_queue)) {
                    notified.push(completion_queue);
                }
            }
            None => drop(sender.send(result)),
        }
    }
    notified.iter().for_each(|completion_queue| completion_queue.ready.notify_one());
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_append_completes_with_a_queue_or_without() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            open();
            let mut receivers = Vec::new();
            let pending = (0..20).map(|number| {
                let (sender, receiver) = oneshot::channel();
                receivers.push(receiver);
                (number % 5 > 0)
                    .then(|| PendingAppend { completion_queue: (number % 2 == 0).then(here).flatten(), sender })
            });
            let pending = pending.collect();
            let writer = std::thread::spawn(move || complete(pending, &Ok(Some(7))));
            for (position, receiver) in receivers.into_iter().enumerate() {
                let index = receiver.await.ok().and_then(|index| index.unwrap());
                assert_eq!(index, (position % 5 > 0).then_some(7 + position as u64));
            }
            writer.join().unwrap();
        });
    }
}
