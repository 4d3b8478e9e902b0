//! The gateway's own faults: its configuration, its credentials, its limits, its log.

use super::grpc::GrpcStatus;
use crate::frame::FrameError;
use crate::status::{Reason, Refusal, SourceHealth};
use std::time::Duration;

/// Retry delay if no stream to a source became free.
const STREAM_RETRY: Duration = Duration::from_secs(1);

/// A failure of the gateway's own. It never counts against the source.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GatewayFault {
    /// The connection entry, the contract or the gateway is at fault: nothing was sent.
    #[error("the source cannot be called: {0}")]
    Internal(&'static str),
    /// The source refuses our credentials: newer ones may be accepted. Holds the source's code.
    #[error("the source refuses the gateway's credentials")]
    CredentialsRefused(String),
    /// The source has authenticated the gateway and does not permit this: newer credentials change nothing. Holds the
    /// source's code.
    #[error("the source does not permit this to the gateway")]
    Forbidden(String),
    /// A gRPC source's status about our credentials: to the source, the gateway is the caller.
    #[error("the source's gRPC status is {:?}", .0.code)]
    Status(Box<GrpcStatus>),
    /// All connections to the source carried as many streams as it allows until the deadline: nothing was sent.
    #[error("no stream to the source came free in time")]
    NoStream,
    /// The request was sent late, because no stream became free before, and got no response in the remaining time.
    #[error("the request to the source was sent late")]
    Late,
    /// The memory for request messages is full.
    #[error("the caller's stream cannot be read: {0}")]
    Memory(FrameError),
    /// Part of the caller's stream could not be logged, so it was not sent.
    #[error("the exchange log cannot be written")]
    LogUnavailable,
    /// The guard refuses a stream's further request: too much is in flight.
    #[error("a further request was not dispatched: {}", .0.reason.as_str())]
    NotDispatched(Box<Refusal>),
    /// One of these, with the source's code.
    #[error("{fault}")]
    Coded {
        /// The source's own code.
        code: String,
        /// What it means.
        fault: Box<GatewayFault>,
    },
}

impl GatewayFault {
    /// Returns the reason for the caller, and what it shows about the source's health: that it responds, or nothing.
    pub(super) fn verdict(&self) -> (Reason, SourceHealth) {
        use SourceHealth::{Responded, Unknown};
        match self {
            GatewayFault::Internal(_) => (Reason::SourceUnavailable, Unknown),
            GatewayFault::CredentialsRefused(_) | GatewayFault::Forbidden(_) => {
                (Reason::SourceCredentialsRefused, Responded)
            }
            GatewayFault::Status(status) => status.verdict(),
            GatewayFault::NoStream => (Reason::GatewayOverloaded, Unknown),
            GatewayFault::Late => (Reason::SourceTimeout, Unknown),
            GatewayFault::Memory(error) => (Refusal::from(*error).reason, Unknown),
            GatewayFault::LogUnavailable => (Reason::ExchangeLogUnavailable, Unknown),
            GatewayFault::NotDispatched(refusal) => (refusal.reason, Unknown),
            GatewayFault::Coded { fault, .. } => fault.verdict(),
        }
    }

    /// Returns the complete refusal for the caller.
    pub(super) fn refusal(self) -> Refusal {
        let (reason, _) = self.verdict();
        match self {
            GatewayFault::Internal(what) => Refusal::with(reason, what),
            GatewayFault::CredentialsRefused(code) | GatewayFault::Forbidden(code) => {
                Refusal { source_code: Some(code.into()), ..reason.into() }
            }
            GatewayFault::Status(status) => status.refusal(),
            GatewayFault::NoStream => {
                Refusal { retry_after: Some(STREAM_RETRY), ..Refusal::with(reason, self.to_string()) }
            }
            GatewayFault::Late | GatewayFault::LogUnavailable => reason.into(),
            GatewayFault::Memory(error) => error.into(),
            GatewayFault::NotDispatched(refusal) => *refusal,
            GatewayFault::Coded { code, fault } => Refusal { source_code: Some(code.into()), ..fault.refusal() },
        }
    }
}
