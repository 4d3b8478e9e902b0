//! The registry's threads: one follows its changes, one moves admin events into the exchange log, one removes tokens
//! that expired long ago, one samples the traffic for the console. None waits for another, nor for calls, nor for the reload of files:
//! a revocation or suspension is in force within a second whatever else the control plane does.

use super::admin_events::AdminEventLog;
use super::reload::{LOOK_EVERY, ReloadBackoff, Reloader};
use crate::config::Tokens;
use crate::issuer::Issuer;
use crate::registry::{AdminEventKey, RegistryError, Store, now};
use crate::server::StartError;
use crate::server::readiness::Component;
use crate::server::thread;
use crate::telemetry::SAMPLE_EVERY;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Tokens that are removed in one transaction: a token that is recorded meanwhile waits for some milliseconds at most.
const BATCH: usize = 500;
/// Wait between two such transactions: at most 10,000 tokens a second are removed, more than can be issued.
const BETWEEN: Duration = Duration::from_millis(50);
/// How often the thread looks for expired tokens.
const EVERY: Duration = Duration::from_secs(60);

/// How long before its first use the key of a month's pseudonyms is agreed on with other gateways.
const AHEAD_US: i64 = 86_400_000_000;

/// Starts the threads.
pub(in crate::server) fn spawn(
    reloader: &Arc<Reloader>,
    key: &AdminEventKey,
    stop: &CancellationToken,
) -> Result<Vec<JoinHandle<()>>, StartError> {
    let (of, end) = (reloader.clone(), stop.clone());
    let follower = thread::spawn("registry", move || async move {
        let (mut tick, mut pause) = (tokio::time::interval(LOOK_EVERY), ReloadBackoff::default());
        while end.run_until_cancelled(tick.tick()).await.is_some() {
            of.follow_registry(&mut pause);
        }
    })?;
    let mut threads = vec![follower];
    // Over etcd, an event is in the log by the transaction of its change.
    if reloader.shared.cluster.is_none() {
        threads.push(spawn_admin_events(reloader, key, stop)?);
    }
    let (of, end) = (reloader.clone(), stop.clone());
    let ended = thread::spawn("ended-tokens", move || async move {
        let mut removal = TokenRemoval::default();
        let (mut wait, mut fetched) = (BETWEEN, None::<Instant>);
        while end.run_until_cancelled(tokio::time::sleep(wait)).await.is_some() {
            if fetched.is_none_or(|fetched| fetched.elapsed() >= EVERY) {
                fetch_shared_keys(&of);
                fetched = Some(Instant::now());
            }
            wait = match removal.step(&of.config.tokens, of.store.as_ref()) {
                Ok(0) => EVERY,
                Ok(removed) => {
                    of.shared.metrics.tokens_removed(removed as u64);
                    BETWEEN
                }
                Err(error) => {
                    tracing::error!(%error, "tokens that ended are not removed; they stay where they are");
                    EVERY
                }
            };
        }
    })?;
    let (of, end) = (reloader.clone(), stop.clone());
    let traffic = thread::spawn("traffic", move || async move {
        let mut tick = tokio::time::interval(SAMPLE_EVERY);
        while end.run_until_cancelled(tick.tick()).await.is_some() {
            of.shared.traffic.sample(Instant::now(), now());
        }
    })?;
    threads.extend([ended, traffic]);
    Ok(threads)
}

fn spawn_admin_events(
    reloader: &Arc<Reloader>,
    key: &AdminEventKey,
    stop: &CancellationToken,
) -> Result<JoinHandle<()>, StartError> {
    let (of, end) = (reloader.clone(), stop.clone());
    let mut admin_events = AdminEventLog::new(of.config.data.clone(), key.clone(), of.store.clone(), of.shared.clone());
    thread::spawn("admin-events", move || async move {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        let mut take_in = async || {
            let fault = admin_events.take_in().await.err();
            of.shared.readiness.set(Component::AdminEvents, fault.into_iter().collect());
        };
        while end.run_until_cancelled(tick.tick()).await.is_some() {
            take_in().await;
        }
        take_in().await;
        admin_events.keep();
    })
}

/// Fetches the keys that other gateways of a cluster have made: those that sign tokens, and those of pseudonyms, a day ahead.
fn fetch_shared_keys(of: &Reloader) {
    if let Err(error) = of.shared.pseudonyms.keep_up(crate::exchange_log::clock::now_us() + AHEAD_US) {
        tracing::warn!(%error, "keys of pseudonyms that other gateways have made are not here yet");
    }
    if let Err(error) = Issuer::new(of.store.as_ref(), of.config.issuer_settings()).fetch_shared() {
        tracing::warn!(%error, "keys that sign tokens and that other gateways have made are not here yet");
    }
}

/// The removal of expired tokens.
#[derive(Default)]
struct TokenRemoval {
    /// Number of tokens beyond the maximum, at the last count.
    beyond: u64,
}

impl TokenRemoval {
    /// Removes a batch: first tokens past their retention, then the oldest of those beyond the maximum. Returns their
    /// number; none: there is nothing to remove for now.
    fn step(&mut self, tokens: &Tokens, store: &dyn Store) -> Result<usize, RegistryError> {
        let now = now();
        let removed = store.remove_ended_tokens(now - i64::from(tokens.keep_ended_days) * 86_400, BATCH)?;
        if removed > 0 {
            return Ok(removed);
        }
        if self.beyond == 0 {
            self.beyond = store.ended_tokens(now)?.saturating_sub(tokens.max_ended);
        }
        if self.beyond == 0 {
            return Ok(0);
        }
        let removed = store.remove_ended_tokens(now, BATCH.min(usize::try_from(self.beyond).unwrap_or(BATCH)))?;
        self.beyond = self.beyond.saturating_sub(removed.max(1) as u64);
        Ok(removed)
    }
}
