//! A thread's outbox: entries on their way to the log's writer, handed over together.
//!
//! The writer takes what is there and goes to the disk. If a worker hands its entries over one by one, the first of them
//! sets the writer off, the others wait for the next turn of the disk, and each turn costs as much for one entry as for a
//! hundred (on this project's machine 60 µs of CPU, and two changes between threads). So a worker hands over when it has
//! gone through everything that was ready to run: one call alone goes at once, a hundred go together. (Where many come, the
//! writer waits as well, so that a turn carries those of a millisecond.)

use super::desk;
use super::writer::{ENOUGH, Queued, Shared};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long the first of them waits at most on a worker that is never done: about what a turn takes of its time anyway.
const MAX_WAIT: Duration = Duration::from_millis(1);

#[derive(Default)]
struct Outbox {
    entries: Vec<Queued>,
    /// Whose they are.
    log: Option<Arc<Shared>>,
    bell: Arc<Notify>,
}

impl Outbox {
    fn hand_over(&mut self) {
        if let Some(log) = self.log.take() {
            log.push_all(self.entries.drain(..));
        }
    }
}

/// Nothing is forgotten: what was put here last, as the thread's tasks were dropped, goes with the thread.
impl Drop for Outbox {
    fn drop(&mut self) {
        self.hand_over();
    }
}

thread_local! {
    static HERE: RefCell<Option<Outbox>> = const { RefCell::new(None) };
}

/// Opens an outbox and a desk for the calling thread, whose runtime runs all its tasks itself (`current_thread`). Without,
/// each entry is handed over on its own, and each waiting task is woken on its own.
pub fn open_desk() {
    desk::open();
    let outbox = Outbox::default();
    let bell = outbox.bell.clone();
    HERE.with_borrow_mut(|here| *here = Some(outbox));
    tokio::spawn(async move {
        loop {
            bell.notified().await;
            let (first, mut seen) = (Instant::now(), 0);
            loop {
                // Behind all that is ready, and all that the sockets have ready then.
                tokio::task::yield_now().await;
                let here = HERE.with_borrow(|here| here.as_ref().map_or(0, |outbox| outbox.entries.len()));
                if here == seen || here >= ENOUGH || first.elapsed() >= MAX_WAIT {
                    break;
                }
                seen = here;
            }
            HERE.with_borrow_mut(|here| here.as_mut().map(Outbox::hand_over));
        }
    });
}

/// Puts an entry into the calling thread's outbox, or hands it over where it has none.
pub(super) fn put(log: &Arc<Shared>, entry: Queued) {
    let mut entry = Some(entry);
    let put = |here: &RefCell<Option<Outbox>>| {
        let mut here = here.borrow_mut();
        let Some(outbox) = here.as_mut() else { return };
        // A thread serves one gateway; tests may have two logs on one.
        if outbox.log.as_ref().is_some_and(|other| !Arc::ptr_eq(other, log)) {
            outbox.hand_over();
        }
        if outbox.entries.is_empty() {
            outbox.log = Some(log.clone());
            outbox.bell.notify_one();
        }
        outbox.entries.extend(entry.take());
    };
    // A thread that ends has no outbox any more.
    let _ = HERE.try_with(put);
    if entry.is_some() {
        log.push_all(entry.into_iter());
    }
}
