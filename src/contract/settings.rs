//! What a call brings beside its message, for the contract's fills.

use super::drift::DriftPolicy;
use super::notes::Observed;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The context of one call, as a contract's fills see it.
#[derive(Debug, Clone, Default)]
pub struct CallContext {
    /// The acting official's id (`ndxp-official`), where given.
    pub official: Option<String>,
    /// The client's agency code.
    pub agency: String,
    /// The purpose (`ndxp-purpose`), where given.
    pub purpose: Option<String>,
    /// The exchange id, as text.
    pub exchange_id: String,
    /// W3C trace context to hand on, where the caller sent one.
    pub traceparent: Option<String>,
    /// What is noticed while its responses are read.
    pub observed: Arc<Observed>,
    /// What becomes of a response that has drifted.
    pub drift: DriftPolicy,
    /// Whether its own request has left.
    pub sent: SentFlag,
}

/// Whether a call's own request may have reached its source completely: then only the response shows its outcome. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct SentFlag(Arc<AtomicBool>);

impl SentFlag {
    /// It is on its way.
    pub fn mark(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// The source has certainly not processed it.
    pub fn withdraw(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether it may have arrived.
    pub fn is_marked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The connection entry's `[settings]`.
pub type Settings = BTreeMap<String, String>;
