//! Heartbeats of the workers, for systemd's watchdog. A worker that makes progress beats once a second, on its own
//! runtime; a worker that a call or a lock blocks does not. The gateway notifies systemd only while all workers beat.

use sd_notify::NotifyState;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often a worker beats.
const BEAT: Duration = Duration::from_secs(1);

/// The heartbeats of all workers. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Heartbeats(Arc<Mutex<HashMap<String, Arc<AtomicU64>>>>);

impl Heartbeats {
    /// Starts the heartbeat of this thread's runtime, for as long as the runtime exists; call it within the runtime.
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

    /// Returns the workers that have not beaten since the last check, with their counts in `seen`. A worker that has
    /// ended is not reported.
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

/// Notifies systemd's watchdog four times in each of its periods, while all workers beat; does nothing if systemd has
/// no watchdog for this process. If a worker is silent for a whole period, systemd restarts the gateway.
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
                // If the socket is gone, there is nobody to notify.
                let _ = sd_notify::notify(&[NotifyState::Watchdog]);
            } else {
                tracing::error!(workers = silent.join(" "), "workers do not respond: the watchdog is not notified");
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
        // Blocked: its runtime makes no progress between two checks.
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
