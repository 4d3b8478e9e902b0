//! A thread's desk: where the log's writer leaves word, once for a whole batch, that entries are durable.
//!
//! Waking a task of another thread costs a system call. With dozens of calls of a worker in one batch, all but one of them
//! are saved: the writer wakes the desk's own task, and that one wakes the others, on its own thread.

use super::LogError;
use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, oneshot};

/// Takes an entry's index, or why it is not in the log.
pub(super) type Told = oneshot::Sender<Result<u64, LogError>>;

#[derive(Default)]
pub(super) struct Desk {
    left: Mutex<Vec<(Told, Result<u64, LogError>)>>,
    bell: Notify,
}

thread_local! {
    static HERE: RefCell<Option<Arc<Desk>>> = const { RefCell::new(None) };
}

/// Opens a desk for the calling thread, whose runtime runs all its tasks itself. Without one, each waiting task is woken on
/// its own.
pub(super) fn open() {
    let desk = Arc::new(Desk::default());
    HERE.with_borrow_mut(|here| *here = Some(desk.clone()));
    tokio::spawn(async move {
        loop {
            desk.bell.notified().await;
            let left = std::mem::take(&mut *desk.left.lock().unwrap_or_else(PoisonError::into_inner));
            for (told, result) in left {
                // A receiver that is gone has given up waiting; its entry stands all the same.
                let _ = told.send(result);
            }
        }
    });
}

/// The desk of the calling thread.
pub(super) fn here() -> Option<Arc<Desk>> {
    HERE.with_borrow(Clone::clone)
}

/// Who waits for an entry: where the word is left, and for whom.
pub(super) struct Waiting {
    pub(super) desk: Option<Arc<Desk>>,
    pub(super) told: Told,
}

/// Tells those who wait how a batch went; `first` is the index of its first entry.
pub(super) fn tell(waiting: Vec<Option<Waiting>>, first: &Result<u64, LogError>) {
    let mut rung: Vec<Arc<Desk>> = Vec::new();
    for (place, waiting) in waiting.into_iter().enumerate() {
        let Some(Waiting { desk, told }) = waiting else { continue };
        let result = first.clone().map(|first| first + place as u64);
        match desk {
            Some(desk) => {
                desk.left.lock().unwrap_or_else(PoisonError::into_inner).push((told, result));
                if !rung.iter().any(|other| Arc::ptr_eq(other, &desk)) {
                    rung.push(desk);
                }
            }
            None => drop(told.send(result)),
        }
    }
    rung.iter().for_each(|desk| desk.bell.notify_one());
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn everybody_hears_it_at_a_desk_or_without() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            open();
            let mut heard = Vec::new();
            let waiting = (0..20).map(|number| {
                let (told, hear) = oneshot::channel();
                heard.push(hear);
                (number % 5 > 0).then(|| Waiting { desk: (number % 2 == 0).then(here).flatten(), told })
            });
            let waiting = waiting.collect();
            let writer = std::thread::spawn(move || tell(waiting, &Ok(7)));
            for (place, hear) in heard.into_iter().enumerate() {
                let word = hear.await.ok().map(|word| word.unwrap());
                assert_eq!(word, (place % 5 > 0).then_some(7 + place as u64));
            }
            writer.join().unwrap();
        });
    }
}
