//! Connections that are refused before any call, and calls that are refused before they are looked at: logged too, but
//! bounded, since they cost an attacker nothing, and the gateway nearly nothing.

use super::shared::Shared;
use crate::exchange_log::{Entry, Kind};
use crate::identity::Peer;
use crate::status::{Reason, Refusal};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Entries a second for each gateway; the rest are counted in the next entry.
const PER_SECOND: u32 = 20;

/// Logs refused connections and calls.
pub struct Refusals {
    shared: Arc<Shared>,
    connections: Mutex<Window>,
    calls: Mutex<Window>,
}

struct Window {
    began: Instant,
    logged: u32,
    suppressed: u64,
}

impl Refusals {
    /// For a gateway.
    pub fn new(shared: Arc<Shared>) -> Self {
        let window = || Mutex::new(Window { began: Instant::now(), logged: 0, suppressed: 0 });
        Refusals { shared, connections: window(), calls: window() }
    }

    /// A connection was refused.
    pub fn connection(&self, address: SocketAddr, reason: Reason) {
        let Some(suppressed) = take(&self.connections, Instant::now()) else { return };
        tracing::info!(%address, reason = reason.as_str(), "a connection was refused");
        self.log(Entry {
            peer: address.to_string(),
            status: reason.code() as u32,
            reason: reason.as_str().to_owned(),
            suppressed,
            ..Entry::begin(Kind::Connection, &self.shared.node)
        });
    }

    /// A call was refused unseen: neither its token nor its message were read, so only the certificate tells whose it was.
    pub fn call(&self, peer: &Peer, refusal: &Refusal) {
        self.shared.metrics.shed();
        let Some(suppressed) = take(&self.calls, Instant::now()) else { return };
        self.log(Entry {
            peer: peer.address.to_string(),
            certificate: peer.certificate.thumbprint.0.to_vec(),
            status: refusal.reason.code() as u32,
            reason: refusal.reason.as_str().to_owned(),
            suppressed,
            ..Entry::begin(Kind::Exchange, &self.shared.node)
        });
    }

    fn log(&self, entry: Entry) {
        if let Err(error) = self.shared.log.append_unawaited(&entry) {
            tracing::error!(%error, "a refusal could not be logged");
        }
    }
}

/// Whether to log one more, and how many were left out before.
fn take(window: &Mutex<Window>, now: Instant) -> Option<u64> {
    let mut window = window.lock().unwrap_or_else(PoisonError::into_inner);
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
