//! Life signs of the workers, for systemd's watchdog: a worker that turns beats once a second, on its own runtime; one that a call or a
//! lock holds up does not. Only while all of them beat is systemd told that the gateway lives.

use sd_notify::NotifyState;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often a worker beats.
const BEAT: Duration = Duration::from_secs(1);

/// The signs of all workers. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Heartbeats(Arc<Mutex<HashMap<String, Arc<AtomicU64>>>>);

impl Heartbeats {
    /// Lets the runtime of this thread beat for as long as it is there; within it.
    pub(super) fn beat(&self, name: &str) {
        let beats = Arc::new(AtomicU64::new(0));
        self.signs().insert(name.to_owned(), beats.clone());
        tokio::spawn(async move {
            loop {
                beats.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(BEAT).await;
            }
        });
    }

    fn signs(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<AtomicU64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The workers that have not beaten since the last look, whose numbers are in `seen`. One that has ended is none.
    fn silent(&self, seen: &mut HashMap<String, u64>) -> Vec<String> {
        let mut signs = self.signs();
        signs.retain(|_, beats| Arc::strong_count(beats) > 1);
        let mut silent = Vec::new();
        for (name, beats) in signs.iter() {
            let now = beats.load(Ordering::Relaxed);
            if seen.insert(name.clone(), now) == Some(now) {
                silent.push(name.clone());
            }
        }
        silent
    }
}

/// Tells systemd that the gateway lives, four times in each of its watchdog's periods, while all workers do; does nothing where systemd has
/// no watchdog on us. A worker that is silent for a whole period has the gateway restarted.
///
/// # Errors
/// The thread cannot be started.
pub fn watch(signs: Heartbeats) -> std::io::Result<()> {
    let Some(period) = sd_notify::watchdog_enabled() else { return Ok(()) };
    let wait = (period / 4).max(BEAT * 2);
    let run = move || {
        let mut seen = HashMap::new();
        loop {
            let silent = signs.silent(&mut seen);
            if silent.is_empty() {
                // Nobody to be told where the socket is gone.
                let _ = sd_notify::notify(&[NotifyState::Watchdog]);
            } else {
                tracing::error!(
                    workers = silent.join(" "),
                    "workers stand still: the watchdog is not told that all is well"
                );
            }
            std::thread::sleep(wait);
        }
    };
    std::thread::Builder::new().name("watchdog".into()).spawn(run).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_stands_still_is_noticed_and_one_that_has_ended_is_not() {
        let (signs, mut seen) = (Heartbeats::default(), HashMap::new());
        signs.beat("worker-0");
        tokio::time::sleep(BEAT / 2).await;
        assert!(signs.silent(&mut seen).is_empty(), "it has just begun");
        tokio::time::sleep(BEAT * 2).await;
        assert!(signs.silent(&mut seen).is_empty(), "it beats");
        // Held up: nothing of its runtime turns between two looks.
        assert_eq!(signs.silent(&mut seen), ["worker-0"]);
        tokio::time::sleep(BEAT * 2).await;
        assert!(signs.silent(&mut seen).is_empty(), "it goes on");
        let ended = signs.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| runtime.block_on(async { ended.beat("worker-1") })).is_ok()
        })
        .join()
        .ok();
        assert_eq!(signs.silent(&mut seen), ["worker-0"], "the other has ended, as it may");
    }
}
