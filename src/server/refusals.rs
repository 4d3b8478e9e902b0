//! Connections that are refused before any call: logged too, but bounded, since they cost an attacker nothing.

use super::shared::Shared;
use crate::exchange_log::{Entry, Kind};
use crate::status::Reason;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Entries a second for each gateway; the rest are counted in the next entry.
const PER_SECOND: u32 = 20;

/// Logs refused connections.
pub struct Refusals {
    shared: Arc<Shared>,
    window: Mutex<Window>,
}

struct Window {
    began: Instant,
    logged: u32,
    suppressed: u64,
}

impl Refusals {
    /// For a gateway.
    pub fn new(shared: Arc<Shared>) -> Self {
        Refusals { shared, window: Mutex::new(Window { began: Instant::now(), logged: 0, suppressed: 0 }) }
    }

    /// A connection was refused.
    pub fn connection(&self, address: SocketAddr, reason: Reason) {
        let Some(suppressed) = self.take(Instant::now()) else { return };
        tracing::info!(%address, reason = reason.as_str(), "a connection was refused");
        let entry = Entry {
            peer: address.to_string(),
            status: reason.code() as u32,
            reason: reason.as_str().to_owned(),
            suppressed,
            ..Entry::begin(Kind::Connection, &self.shared.node)
        };
        if let Err(error) = self.shared.log.append_unawaited(&entry) {
            tracing::error!(%error, "a refused connection could not be logged");
        }
    }

    /// Whether to log one more, and how many were left out before.
    fn take(&self, now: Instant) -> Option<u64> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(window.began).as_secs() >= 1 {
            window.began = now;
            window.logged = 0;
        }
        if window.logged >= PER_SECOND {
            window.suppressed += 1;
            return None;
        }
        window.logged += 1;
        Some(std::mem::take(&mut window.suppressed))
    }
}
