//! What the source is at fault for.

use super::grpc::GrpcStatus;
use crate::status::{Reason, Refusal, SourceHealth};
use std::time::Duration;
use tonic::Code;

/// The code of a call whose connection ended because too many requests were made on it.
pub(in crate::drivers) const CALM: &str = "ENHANCE_YOUR_CALM";
/// HTTP statuses that say that the operation is not there: nothing was done.
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
        /// After which time it asks for another try.
        retry_after: Option<Duration>,
    },
    /// It limits how much is asked of it.
    #[error("the source limits how much is asked of it")]
    Limited {
        /// Its own code.
        code: String,
        /// After which time it asks for another try.
        retry_after: Option<Duration>,
    },
    /// It let the operation's own time pass.
    #[error("the source took too long")]
    Timeout,
    /// Its response is nothing of its contract.
    #[error("the source's response is not what its contract says: {0}")]
    Protocol(String),
    /// Its response to this one request is not what the contract says (a record, a size), or the operation is not there. It serves
    /// other requests.
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
    /// It says that it failed, or gives a code that the contract does not know.
    #[error("the source says that it failed")]
    Failed(String),
    /// What is asked for is not finished there yet. Holds the source's code.
    #[error("the source has not finished it yet")]
    NotReady(String),
    /// A gRPC source's status, other than about the request or our credentials.
    #[error("the source's gRPC status is {:?}", .0.code)]
    Status(Box<GrpcStatus>),
    /// The guard refuses a stream's further request: the source's breaker is open.
    #[error("a further request was not dispatched: {}", .0.reason.as_str())]
    NotDispatched(Box<Refusal>),
    /// One of these, with the code that the source gave.
    #[error("{fault}")]
    Coded {
        /// The source's own code.
        code: String,
        /// What it means.
        fault: Box<SourceFault>,
    },
}

impl SourceFault {
    /// What the caller is told, and what it says about the source's health. Ill health is: the operation's own time used up, a
    /// response that says that the source failed or is busy, and one that is nothing of its contract.
    pub(super) fn verdict(&self) -> (Reason, SourceHealth) {
        use SourceHealth::{Failed, Responded, Unknown};
        match self {
            SourceFault::Unavailable(_) | SourceFault::Busy { .. } => (Reason::SourceUnavailable, Failed),
            // How much is asked of it is up to callers.
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

    /// What the caller is told in full.
    pub(super) fn refusal(self) -> Refusal {
        let (reason, _) = self.verdict();
        match self {
            SourceFault::Unavailable(what) => Refusal::with(reason, what),
            SourceFault::Busy { code, retry_after } | SourceFault::Limited { code, retry_after } => {
                Refusal { retry_after, source_code: Some(code), ..reason.into() }
            }
            SourceFault::Timeout => reason.into(),
            SourceFault::Protocol(what) | SourceFault::Unreadable(what) => Refusal::with(reason, what),
            SourceFault::Drifted { kind, path } => Refusal::with(reason, format!("{kind} {path}")),
            SourceFault::Failed(code) | SourceFault::NotReady(code) => {
                Refusal { source_code: Some(code), ..reason.into() }
            }
            SourceFault::Status(status) => status.refusal(),
            SourceFault::NotDispatched(refusal) => *refusal,
            SourceFault::Coded { code, fault } => Refusal { source_code: Some(code), ..fault.refusal() },
        }
    }

    /// Whether a read may be tried again, and after which time the source asks for it.
    pub(super) fn retry(&self) -> Option<Option<Duration>> {
        match self {
            SourceFault::Unavailable(_) => Some(None),
            SourceFault::Busy { retry_after, .. } | SourceFault::Limited { retry_after, .. } => Some(*retry_after),
            SourceFault::Status(status) => match status.code {
                Code::Unavailable => Some(status.retry_after),
                // Only where it says when.
                Code::ResourceExhausted => status.retry_after.map(Some),
                _ => None,
            },
            SourceFault::Coded { fault, .. } => fault.retry(),
            _ => None,
        }
    }

    /// Whether it may be over by the next request to the source.
    pub(super) fn passes(&self) -> bool {
        match self {
            SourceFault::Coded { fault, .. } => fault.passes(),
            SourceFault::Timeout | SourceFault::NotDispatched(_) => true,
            fault => fault.retry().is_some(),
        }
    }

    /// Whether a request that was sent may have been done all the same. What the source says that it did not accept was not; what says
    /// that it failed, or is no response of the contract, or comes from something in between, says nothing about it.
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
            // The connection ended because of what others did on it.
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
