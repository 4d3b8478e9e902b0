//! The status of a gRPC source that is not OK.

use crate::status::{FaultOwner, Reason, Refusal, SourceHealth, SourceStatus};
use std::time::Duration;
use tonic::Code;

/// A gRPC source's status that is not OK.
#[derive(Debug, Clone)]
pub struct GrpcStatus {
    /// Its code.
    pub code: Code,
    /// Its retry delay (`RetryInfo`).
    pub retry_after: Option<Duration>,
    /// The rest of its status.
    pub status: SourceStatus,
}

impl GrpcStatus {
    /// Returns the part of [`super::SourceError`] that a code belongs to.
    pub(super) fn owner(&self) -> FaultOwner {
        match self.code {
            Code::NotFound
            | Code::InvalidArgument
            | Code::Aborted
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::OutOfRange => FaultOwner::Caller,
            // To the source, the gateway is the caller.
            Code::Unauthenticated | Code::PermissionDenied => FaultOwner::Gateway,
            _ => FaultOwner::Source,
        }
    }

    /// Returns the reason for the caller, and what it shows about the source's health. A code is passed on if it means
    /// the same to the caller.
    pub(super) fn verdict(&self) -> (Reason, SourceHealth) {
        use SourceHealth::{Failed, Responded};
        match self.code {
            Code::NotFound => (Reason::RecordNotFound, Responded),
            Code::InvalidArgument => (Reason::SourceRejected, Responded),
            Code::Aborted => (Reason::SourceAborted, Responded),
            Code::AlreadyExists => (Reason::SourceAlreadyExists, Responded),
            Code::FailedPrecondition => (Reason::SourcePreconditionFailed, Responded),
            Code::OutOfRange => (Reason::SourceOutOfRange, Responded),
            // Callers determine the number and the size of requests.
            Code::ResourceExhausted => (Reason::SourceExhausted, Responded),
            Code::Unauthenticated | Code::PermissionDenied => (Reason::SourceCredentialsRefused, Responded),
            Code::Unavailable => (Reason::SourceUnavailable, Failed),
            Code::DeadlineExceeded => (Reason::SourceTimeout, Failed),
            // One operation does not exist: the contract and the source have different versions.
            Code::Unimplemented => (Reason::SourceProtocolError, Responded),
            _ => (Reason::SourceProtocolError, Failed),
        }
    }

    /// Returns the complete refusal for the caller.
    pub(super) fn refusal(self) -> Refusal {
        let (reason, _) = self.verdict();
        let GrpcStatus { code, retry_after, status } = self;
        let detail = match reason {
            Reason::SourceProtocolError => format!("gRPC status {code:?}"),
            _ => String::new(),
        };
        let (source_code, source_status) = (Some(format!("{code:?}").into()), Some(Box::new(status)));
        Refusal { retry_after, source_code, source_status, ..Refusal::with(reason, detail) }
    }
}
