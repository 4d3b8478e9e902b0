//! The source's faults.

use super::grpc::GrpcStatus;
use crate::status::{Reason, Refusal, SourceHealth};
use std::time::Duration;
use tonic::Code;

/// The code of a call whose connection ended because too many requests were made on it.
pub(in crate::drivers) const CALM: &str = "ENHANCE_YOUR_CALM";
/// HTTP statuses that mean that the operation does not exist: nothing was processed.
const NOT_THERE: [&str; 4] = ["404", "405", "410", "501"];

/// A failure of the source. Never holds a response's values.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SourceFault {
    /// It responds that it failed.
    #[error("the source failed: {0}")]
    Unavailable(&'static str),
    /// It is busy.
    #[error("the source is busy")]
    Busy {
        /// Its own code.
        code: String,
        /// Its retry delay.
        retry_after: Option<Duration>,
    },
    /// It limits the rate of requests.
    #[error("the source limits its calls")]
    Limited {
        /// Its own code.
        code: String,
        /// Its retry delay.
        retry_after: Option<Duration>,
    },
    /// It did not respond in the operation's own time.
    #[error("the source took too long")]
    Timeout,
    /// Its response does not match its contract at all.
    #[error("the source's response is not what its contract says: {0}")]
    Protocol(String),
    /// Its response to this one request differs from the contract (a record, a size), or the operation does not exist.
    /// It serves other requests.
    #[error("the source's response is not what its contract says: {0}")]
    Unreadable(String),
    /// Its response has drifted from its contract, and the operation's policy refuses that.
    #[error("the source's response has drifted from its contract: {kind} {path}")]
    Drifted {
        /// How.
        kind: &'static str,
        /// Where, as it may be shown.
        path: String,
    },
    /// It reports a failure, or returns a code that the contract does not know.
    #[error("the source says that it failed")]
    Failed(String),
    /// The requested result is not ready yet. Holds the source's code.
    #[error("the source has not finished it yet")]
    NotReady(String),
    /// A gRPC source's status, other than about the request or our credentials.
    #[error("the source's gRPC status is {:?}", .0.code)]
    Status(Box<GrpcStatus>),
    /// The guard refuses a stream's further request: the source's breaker is open.
    #[error("a further request was not dispatched: {}", .0.reason.as_str())]
    NotDispatched(Box<Refusal>),
    /// One of these, with the source's code.
    #[error("{fault}")]
    Coded {
        /// The source's own code.
        code: String,
        /// What it means.
        fault: Box<SourceFault>,
    },
}

impl SourceFault {
    /// Returns the reason for the caller, and what it shows about the source's health. Ill health is: no response in
    /// the operation's own time, a response that the source failed or is busy, and a response that does not match its
    /// contract at all.
    pub(super) fn verdict(&self) -> (Reason, SourceHealth) {
        use SourceHealth::{Failed, Responded, Unknown};
        match self {
            SourceFault::Unavailable(_) | SourceFault::Busy { .. } => (Reason::SourceUnavailable, Failed),
            // Callers determine the number of requests.
            SourceFault::Limited { .. } => (Reason::SourceUnavailable, Responded),
            SourceFault::Timeout => (Reason::SourceTimeout, Failed),
            SourceFault::Protocol(_) => (Reason::SourceProtocolError, Failed),
            SourceFault::Unreadable(_) => (Reason::SourceProtocolError, Responded),
            SourceFault::Drifted { .. } => (Reason::SourceDrifted, Responded),
            SourceFault::Failed(_) => (Reason::SourceFailed, Responded),
            SourceFault::NotReady(_) => (Reason::SourceNotReady, Responded),
            SourceFault::Status(status) => status.verdict(),
            SourceFault::NotDispatched(refusal) => (refusal.reason, Unknown),
            SourceFault::Coded { fault, .. } => fault.verdict(),
        }
    }

    /// Returns the complete refusal for the caller.
    pub(super) fn refusal(self) -> Refusal {
        let (reason, _) = self.verdict();
        match self {
            SourceFault::Unavailable(what) => Refusal::with(reason, what),
            SourceFault::Busy { code, retry_after } | SourceFault::Limited { code, retry_after } => {
                Refusal { retry_after, source_code: Some(code.into()), ..reason.into() }
            }
            SourceFault::Timeout => reason.into(),
            SourceFault::Protocol(what) | SourceFault::Unreadable(what) => Refusal::with(reason, what),
            SourceFault::Drifted { kind, path } => Refusal::with(reason, format!("{kind} {path}")),
            SourceFault::Failed(code) | SourceFault::NotReady(code) => {
                Refusal { source_code: Some(code.into()), ..reason.into() }
            }
            SourceFault::Status(status) => status.refusal(),
            SourceFault::NotDispatched(refusal) => *refusal,
            SourceFault::Coded { code, fault } => Refusal { source_code: Some(code.into()), ..fault.refusal() },
        }
    }

    /// Returns whether a read may be retried, and after which delay the source permits it.
    pub(super) fn retry(&self) -> Option<Option<Duration>> {
        match self {
            SourceFault::Unavailable(_) => Some(None),
            SourceFault::Busy { retry_after, .. } | SourceFault::Limited { retry_after, .. } => Some(*retry_after),
            SourceFault::Status(status) => match status.code {
                Code::Unavailable => Some(status.retry_after),
                // Only if it states the delay.
                Code::ResourceExhausted => status.retry_after.map(Some),
                _ => None,
            },
            SourceFault::Coded { fault, .. } => fault.retry(),
            _ => None,
        }
    }

    /// Returns whether the error may have passed by the next request to the source.
    pub(super) fn passes(&self) -> bool {
        match self {
            SourceFault::Coded { fault, .. } => fault.passes(),
            SourceFault::Timeout | SourceFault::NotDispatched(_) => true,
            fault => fault.retry().is_some(),
        }
    }

    /// Returns whether a request that was sent may have been processed all the same. A request that the source refuses
    /// was not. A response that the source failed, or that does not match the contract, or that comes from an
    /// intermediary, leaves it open.
    pub(super) fn leaves_open(&self) -> bool {
        match self {
            SourceFault::Unavailable(_)
            | SourceFault::Failed(_)
            | SourceFault::Timeout
            | SourceFault::Protocol(_)
            | SourceFault::Drifted { .. }
            | SourceFault::Unreadable(_) => true,
            // Balancers respond with 503, too, after they have passed a request on.
            SourceFault::Busy { code, .. } => code == "503",
            // The connection ended because of other calls on it.
            SourceFault::Limited { code, .. } => code == CALM,
            SourceFault::Coded { code, fault } => !NOT_THERE.contains(&code.as_str()) && fault.leaves_open(),
            SourceFault::Status(status) => matches!(
                status.code,
                Code::Unavailable
                    | Code::DeadlineExceeded
                    | Code::Cancelled
                    | Code::Unknown
                    | Code::Internal
                    | Code::DataLoss
            ),
            SourceFault::NotReady(_) | SourceFault::NotDispatched(_) => false,
        }
    }
}
