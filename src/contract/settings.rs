//! What a call brings beside its message, for the contract's fills.

use super::notes::Observed;
use std::collections::BTreeMap;
use std::sync::Arc;

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
    /// What is noticed while its answers are read.
    pub observed: Arc<Observed>,
}

/// The connection entry's `[settings]`.
pub type Settings = BTreeMap<String, String>;
