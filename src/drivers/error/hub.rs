//! Faults of the hub, or of the network between the gateway and the source.

use super::source::SourceFault;
use crate::status::{Reason, Refusal, SourceHealth};
use std::time::Duration;

/// A failure on the way to the source.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HubFault {
    /// There is no connection.
    #[error("the source cannot be reached: {0}")]
    Unreachable(&'static str),
    /// The connection broke, or something on the way failed: this affects this call, and perhaps no other.
    #[error("the connection to the source failed: {0}")]
    Broken(&'static str),
    /// A token endpoint or a login failed, with a fault of the same kinds as a source.
    #[error("credentials cannot be fetched: {0}")]
    Login(Box<SourceFault>),
    /// One of these, with the code that came with it.
    #[error("{fault}")]
    Coded {
        /// The code.
        code: String,
        /// What it means.
        fault: Box<HubFault>,
    },
}

impl HubFault {
    /// Returns the reason for the caller, and what it shows about the source's health.
    pub(super) fn verdict(&self) -> (Reason, SourceHealth) {
        match self {
            HubFault::Unreachable(_) => (Reason::SourceUnavailable, SourceHealth::Unreachable),
            HubFault::Broken(_) => (Reason::SourceUnavailable, SourceHealth::Failed),
            HubFault::Login(fault) => {
                let (reason, health) = fault.verdict();
                // Without credentials no request of any kind can be sent.
                (reason, if health.is_unhealthy() { SourceHealth::Unreachable } else { health })
            }
            HubFault::Coded { fault, .. } => fault.verdict(),
        }
    }

    /// Returns the complete refusal for the caller.
    pub(super) fn refusal(self) -> Refusal {
        let (reason, _) = self.verdict();
        match self {
            HubFault::Unreachable(what) | HubFault::Broken(what) => Refusal::with(reason, what),
            HubFault::Login(fault) => fault.refusal(),
            HubFault::Coded { code, fault } => Refusal { source_code: Some(code.into()), ..fault.refusal() },
        }
    }

    /// Returns whether a read may be retried, and after which delay the hub permits it.
    pub(super) fn retry(&self) -> Option<Option<Duration>> {
        match self {
            HubFault::Unreachable(_) | HubFault::Broken(_) => Some(None),
            HubFault::Login(fault) => fault.retry(),
            HubFault::Coded { fault, .. } => fault.retry(),
        }
    }

    /// Returns whether a request that was sent may have been processed all the same: true if the connection broke after
    /// it.
    pub(super) fn leaves_open(&self) -> bool {
        match self {
            HubFault::Broken(_) => true,
            HubFault::Unreachable(_) | HubFault::Login(_) => false,
            HubFault::Coded { fault, .. } => fault.leaves_open(),
        }
    }
}
