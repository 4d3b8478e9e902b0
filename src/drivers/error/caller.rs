//! The caller's faults: its request, its record, its stream, its deadline.

use super::grpc::GrpcStatus;
use crate::contract::validate::Violation;
use crate::frame::FrameError;
use crate::status::{Reason, Refusal, SourceHealth};

/// A failure that the caller caused. It never counts against the source.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallerFault {
    /// The caller's own deadline passed before the operation's time was over.
    #[error("the caller's own deadline passed")]
    Deadline,
    /// A value of the request cannot be sent in the source's form.
    #[error("the request cannot be sent: {path}: {reason}")]
    InvalidValue {
        /// The field.
        path: String,
        /// The rule that its value breaks.
        reason: &'static str,
    },
    /// The caller's stream of messages broke.
    #[error("the caller's stream broke: {0}")]
    Stream(FrameError),
    /// A message of the caller's stream breaks its contract.
    #[error("a message breaks its contract")]
    Message(Vec<Violation>),
    /// The source has no such record. Holds the source's code.
    #[error("the source has no such record")]
    NotFound(String),
    /// The source rejects the request. Holds the source's code.
    #[error("the source rejects the request")]
    Rejected(String),
    /// The source has the record already. Holds the source's code.
    #[error("the source has the record already")]
    Exists(String),
    /// A gRPC source's status about the request.
    #[error("the source's gRPC status is {:?}", .0.code)]
    Status(Box<GrpcStatus>),
    /// The guard refuses a stream's further request because of what this client does.
    #[error("a further request was not dispatched: {}", .0.reason.as_str())]
    NotDispatched(Box<Refusal>),
}

impl CallerFault {
    /// Returns the reason for the caller, and what it shows about the source's health: that it responds, or nothing.
    pub(super) fn verdict(&self) -> (Reason, SourceHealth) {
        use SourceHealth::{Responded, Unknown};
        match self {
            CallerFault::Deadline => (Reason::CallerDeadline, Unknown),
            CallerFault::InvalidValue { .. } | CallerFault::Message(_) => (Reason::FieldInvalid, Unknown),
            CallerFault::Stream(error) => (Refusal::from(*error).reason, Unknown),
            CallerFault::NotFound(_) => (Reason::RecordNotFound, Responded),
            CallerFault::Rejected(_) => (Reason::SourceRejected, Responded),
            CallerFault::Exists(_) => (Reason::RecordExists, Responded),
            CallerFault::Status(status) => status.verdict(),
            CallerFault::NotDispatched(refusal) => (refusal.reason, Unknown),
        }
    }

    /// Returns the complete refusal for the caller.
    pub(super) fn refusal(self) -> Refusal {
        let (reason, _) = self.verdict();
        match self {
            CallerFault::Deadline => reason.into(),
            CallerFault::InvalidValue { path, reason } => Refusal::fields(vec![Violation::new(path, reason)]),
            CallerFault::Stream(error) => error.into(),
            CallerFault::Message(violations) => Refusal::fields(violations),
            CallerFault::NotFound(code) | CallerFault::Rejected(code) | CallerFault::Exists(code) => {
                Refusal { source_code: Some(code.into()), ..reason.into() }
            }
            CallerFault::Status(status) => status.refusal(),
            CallerFault::NotDispatched(refusal) => *refusal,
        }
    }
}
