//! The status of a gRPC source that is not OK.

use crate::status::{FaultOwner, Reason, Refusal, SourceHealth, SourceStatus};
use std::time::Duration;
use tonic::Code;

/// A gRPC source's status that is not OK.
#[derive(Debug, Clone)]
pub struct GrpcStatus {
    /// Its code.
    pub code: Code,
    /// After which time it asks for another try (`RetryInfo`).
    pub retry_after: Option<Duration>,
    /// What else it says.
    pub status: SourceStatus,
}

impl GrpcStatus {
    /// Which part of [`super::SourceError`] a code belongs to.
    pub(super) fn owner(&self) -> FaultOwner {
        match self.code {
            Code::NotFound
            | Code::InvalidArgument
            | Code::Aborted
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::OutOfRange => FaultOwner::Caller,
            // To the source it is the gateway that calls.
            Code::Unauthenticated | Code::PermissionDenied => FaultOwner::Gateway,
            _ => FaultOwner::Source,
        }
    }

    /// What the caller is told, and what it says about the source's health. A code is kept where it means the same to the caller.
    pub(super) fn verdict(&self) -> (Reason, SourceHealth) {
        use SourceHealth::{Failed, Responded};
        match self.code {
            Code::NotFound => (Reason::RecordNotFound, Responded),
            Code::InvalidArgument => (Reason::SourceRejected, Responded),
            Code::Aborted => (Reason::SourceAborted, Responded),
            Code::AlreadyExists => (Reason::SourceAlreadyExists, Responded),
            Code::FailedPrecondition => (Reason::SourcePreconditionFailed, Responded),
            Code::OutOfRange => (Reason::SourceOutOfRange, Responded),
            // How much is asked for, and how large it is, is up to callers.
            Code::ResourceExhausted => (Reason::SourceExhausted, Responded),
            Code::Unauthenticated | Code::PermissionDenied => (Reason::SourceCredentialsRefused, Responded),
            Code::Unavailable => (Reason::SourceUnavailable, Failed),
            Code::DeadlineExceeded => (Reason::SourceTimeout, Failed),
            // One operation is not there: the contract and the source are not of the same version.
            Code::Unimplemented => (Reason::SourceProtocolError, Responded),
            _ => (Reason::SourceProtocolError, Failed),
        }
    }

    /// What the caller is told in full.
    pub(super) fn refusal(self) -> Refusal {
        let (reason, _) = self.verdict();
        let GrpcStatus { code, retry_after, status } = self;
        let detail = match reason {
            Reason::SourceProtocolError => format!("gRPC status {code:?}"),
            _ => String::new(),
        };
        let (source_code, source_status) = (Some(format!("{code:?}")), Some(Box::new(status)));
        Refusal { retry_after, source_code, source_status, ..Refusal::with(reason, detail) }
    }
}
