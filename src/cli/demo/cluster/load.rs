//! Calls through all gateways while they and the members of etcd end, and what was answered.

use super::super::CATALOGUES;
use super::super::participants::DemoClient;
use super::processes::SITES;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tonic::Code;

/// Pause of a caller after a call that was not answered.
const AFTER_FAILURE: Duration = Duration::from_millis(20);
/// The longest that a call may take before its caller goes on.
const CALL_WITHIN: Duration = Duration::from_secs(5);

/// What callers have seen so far.
#[derive(Default)]
pub struct Calls {
    /// Exchange ids of answered calls.
    exchanges: Mutex<BTreeSet<String>>,
    /// Answers through each gateway.
    by_gateway: [AtomicU64; SITES],
    /// Calls that were refused, or not answered.
    refused: AtomicU64,
    stop: AtomicBool,
}

impl Calls {
    /// Calls one gateway until the tour ends; `to` is its number.
    pub async fn make(self: Arc<Self>, client: DemoClient, to: usize) {
        while !self.stop.load(Ordering::Relaxed) {
            let call = client.call(CATALOGUES, "", "", vec![Bytes::new()]);
            match tokio::time::timeout(CALL_WITHIN, call).await {
                Ok(Ok(answer)) if answer.status.code() == Code::Ok => {
                    let exchange = answer.text(crate::server::EXCHANGE_ID).to_owned();
                    self.exchanges.lock().unwrap_or_else(PoisonError::into_inner).insert(exchange);
                    self.by_gateway[to].fetch_add(1, Ordering::Relaxed);
                }
                _ => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    /// Returns the number of answers, of all gateways and of each, and that of refusals.
    pub fn counts(&self) -> (u64, [u64; SITES], u64) {
        let each = std::array::from_fn(|at| self.by_gateway[at].load(Ordering::Relaxed));
        (each.iter().sum(), each, self.refused.load(Ordering::Relaxed))
    }

    /// Ends the callers after their present calls.
    pub fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Returns the exchange ids of answered calls.
    pub fn exchanges(&self) -> BTreeSet<String> {
        self.exchanges.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
