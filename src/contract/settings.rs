//! The values of a call beside its message, for the contract's fills.

use super::drift::DriftPolicy;
use super::notes::Observed;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The context of one call, as a contract's fills see it.
#[derive(Debug, Clone, Default)]
pub struct CallContext {
    /// The acting official's id (`ndxp-official`), if given.
    pub official: Option<String>,
    /// The client's agency code.
    pub agency: String,
    /// The purpose (`ndxp-purpose`), if given.
    pub purpose: Option<String>,
    /// The exchange id, as text.
    pub exchange_id: String,
    /// W3C trace context to pass on, if the caller sent one.
    pub traceparent: Option<String>,
    /// Notes made while its responses are read.
    pub observed: Arc<Observed>,
    /// The policy for a response with drift.
    pub drift: DriftPolicy,
    /// Whether its own request has been sent.
    pub sent: SentFlag,
}

/// Whether a call's own request may have reached its source completely: then only the response shows its outcome.
/// Clones share one flag.
#[derive(Debug, Clone, Default)]
pub struct SentFlag(Arc<AtomicBool>);

impl SentFlag {
    /// Records that the request is on its way.
    pub fn mark(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Records that the source has certainly not processed it.
    pub fn withdraw(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Returns whether it may have arrived.
    pub fn is_marked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The connection entry's `[settings]`.
pub type Settings = BTreeMap<String, String>;
