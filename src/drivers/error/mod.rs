//! Errors at or on the way to a source, in four parts by whose fault they are. The part is the owner: guard, statuses
//! and log read it from there ([`SourceError::owner`]), and no other code decides it again.

mod caller;
mod gateway;
mod grpc;
mod hub;
mod source;

use crate::contract::map::MapError;
use crate::contract::map::outcome::{OutcomeVerdict, shorten};
use crate::contract::options::Meaning;
use crate::frame::FrameError;
use crate::status::{FaultOwner, Reason, Refusal, SourceHealth};
pub use caller::CallerFault;
pub use gateway::GatewayFault;
pub use grpc::GrpcStatus;
pub use hub::HubFault;
pub(super) use source::CALM;
pub use source::SourceFault;
use std::time::Duration;

/// An error at or on the way to a source, by whose fault it is. Never holds a response's values.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SourceError {
    /// The caller's.
    #[error(transparent)]
    Caller(#[from] CallerFault),
    /// The gateway's own.
    #[error(transparent)]
    Gateway(#[from] GatewayFault),
    /// The hub's, or the network's.
    #[error(transparent)]
    Hub(#[from] HubFault),
    /// The source's.
    #[error(transparent)]
    Source(#[from] SourceFault),
}

/// The meaning of an error: the reason for the caller, whose fault it is, and what it shows about the source's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blame {
    /// The reason for the caller.
    pub reason: Reason,
    /// Whose fault it is.
    pub fault: FaultOwner,
    /// What breaker, limit, endpoints and hubs count.
    pub health: SourceHealth,
}

impl SourceError {
    /// Returns whose fault it is: the part that the error belongs to.
    pub fn owner(&self) -> FaultOwner {
        match self {
            SourceError::Caller(_) => FaultOwner::Caller,
            SourceError::Gateway(_) => FaultOwner::Gateway,
            SourceError::Hub(_) => FaultOwner::Hub,
            SourceError::Source(_) => FaultOwner::Source,
        }
    }

    /// Returns its meaning for the caller and for the source's health.
    pub fn blame(&self) -> Blame {
        let (reason, health) = match self {
            SourceError::Caller(fault) => fault.verdict(),
            SourceError::Gateway(fault) => fault.verdict(),
            SourceError::Hub(fault) => fault.verdict(),
            SourceError::Source(fault) => fault.verdict(),
        };
        Blame { reason, fault: self.owner(), health }
    }

    /// Returns what a result shows about the source's health.
    pub fn health<T>(result: &Result<T, SourceError>) -> SourceHealth {
        result.as_ref().err().map_or(SourceHealth::Responded, |error| error.blame().health)
    }

    /// Returns whether a read may be retried, and after which delay the source permits it: the source could not be
    /// reached, the connection broke, or the source responded that it is busy.
    pub fn retry(&self) -> Option<Option<Duration>> {
        match self {
            SourceError::Caller(_) | SourceError::Gateway(_) => None,
            SourceError::Hub(fault) => fault.retry(),
            SourceError::Source(fault) => fault.retry(),
        }
    }

    /// Returns whether a request that was sent may have been processed all the same.
    pub fn leaves_open(&self) -> bool {
        match self {
            SourceError::Caller(fault) => matches!(fault, CallerFault::Deadline),
            SourceError::Gateway(fault) => matches!(fault, GatewayFault::Late),
            SourceError::Hub(fault) => fault.leaves_open(),
            SourceError::Source(fault) => fault.leaves_open(),
        }
    }

    /// Returns whether the error may have passed by the next request to the source.
    pub fn passes(&self) -> bool {
        match self {
            SourceError::Caller(fault) => matches!(fault, CallerFault::NotDispatched(_)),
            SourceError::Gateway(fault) => {
                matches!(fault, GatewayFault::NoStream | GatewayFault::Late | GatewayFault::NotDispatched(_))
            }
            SourceError::Hub(fault) => fault.retry().is_some(),
            SourceError::Source(fault) => fault.passes(),
        }
    }

    /// A response that does not match its contract at all.
    pub fn protocol(what: impl Into<String>) -> Self {
        SourceFault::Protocol(what.into()).into()
    }

    /// A response that differs from the contract, while the source serves other requests.
    pub fn unreadable(what: impl Into<String>) -> Self {
        SourceFault::Unreadable(what.into()).into()
    }

    /// The connection entry, the contract or the gateway is at fault.
    pub fn internal(what: &'static str) -> Self {
        GatewayFault::Internal(what).into()
    }

    /// The connection broke.
    pub fn broken(what: &'static str) -> Self {
        HubFault::Broken(what).into()
    }

    /// A refusal of the guard of a stream's further request, by whose fault that is.
    pub fn not_dispatched(refusal: Refusal) -> Self {
        let refusal = Box::new(refusal);
        match refusal.fault {
            FaultOwner::Caller => CallerFault::NotDispatched(refusal).into(),
            FaultOwner::Gateway => GatewayFault::NotDispatched(refusal).into(),
            FaultOwner::Hub | FaultOwner::Source => SourceFault::NotDispatched(refusal).into(),
        }
    }

    /// Adds the source's own code to the error.
    pub(super) fn coded(self, code: &str) -> Self {
        let code = shorten(code.to_owned());
        match self {
            // A caller's fault has its code already.
            SourceError::Caller(fault) => fault.into(),
            SourceError::Gateway(fault) => GatewayFault::Coded { code, fault: Box::new(fault) }.into(),
            SourceError::Hub(fault) => HubFault::Coded { code, fault: Box::new(fault) }.into(),
            SourceError::Source(fault) => SourceFault::Coded { code, fault: Box::new(fault) }.into(),
        }
    }

    /// Converts the error of a token endpoint or a login, most likely of a hub. It is not an error of the operation's
    /// own exchange with the source: it concerns credentials, never a record or a request. No client's request can
    /// cause it, and without credentials no request can be sent, so ill health there means that the source cannot be
    /// reached.
    pub(super) fn of_login(self) -> Self {
        match self {
            SourceError::Caller(
                CallerFault::NotFound(code) | CallerFault::Rejected(code) | CallerFault::Exists(code),
            )
            | SourceError::Gateway(GatewayFault::Forbidden(code))
            | SourceError::Source(SourceFault::NotReady(code)) => GatewayFault::CredentialsRefused(code).into(),
            SourceError::Hub(HubFault::Broken(what)) | SourceError::Source(SourceFault::Unavailable(what)) => {
                HubFault::Unreachable(what).into()
            }
            SourceError::Source(SourceFault::Timeout) => HubFault::Unreachable("no credentials came in time").into(),
            SourceError::Source(SourceFault::Coded { code, fault }) => {
                SourceError::Source(*fault).of_login().coded(&code)
            }
            SourceError::Source(fault) => HubFault::Login(Box::new(fault)).into(),
            other @ (SourceError::Caller(_) | SourceError::Gateway(_) | SourceError::Hub(_)) => other,
        }
    }
}

impl From<MapError> for SourceError {
    fn from(error: MapError) -> Self {
        match error {
            MapError::Request { path, reason } => CallerFault::InvalidValue { path, reason }.into(),
            // The operator must add a missing setting; to the caller, the source is only unavailable.
            MapError::SettingMissing(_) => SourceError::internal("its connection entry lacks a setting"),
            MapError::Response { .. } => SourceError::unreadable(error.to_string()),
        }
    }
}

impl From<FrameError> for SourceError {
    /// The reason that a message of the caller's stream cannot be read.
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::MemoryExceeded => GatewayFault::Memory(error).into(),
            error => CallerFault::Stream(error).into(),
        }
    }
}

impl From<GrpcStatus> for SourceError {
    fn from(status: GrpcStatus) -> Self {
        let (owner, status) = (status.owner(), Box::new(status));
        match owner {
            FaultOwner::Caller => CallerFault::Status(status).into(),
            FaultOwner::Gateway => GatewayFault::Status(status).into(),
            FaultOwner::Hub | FaultOwner::Source => SourceFault::Status(status).into(),
        }
    }
}

impl From<SourceError> for Refusal {
    fn from(error: SourceError) -> Self {
        let fault = error.owner();
        let refusal = match error {
            SourceError::Caller(fault) => fault.refusal(),
            SourceError::Gateway(fault) => fault.refusal(),
            SourceError::Hub(fault) => fault.refusal(),
            SourceError::Source(fault) => fault.refusal(),
        };
        Refusal { fault, ..refusal }
    }
}

/// A value of the request that cannot be sent.
pub(super) fn unfit(path: &str, reason: &'static str) -> SourceError {
    CallerFault::InvalidValue { path: path.to_owned(), reason }.into()
}

/// Converts a judged code to a result: whether a code signals success.
///
/// # Errors
/// The meaning of the code if it signals a failure; a protocol error if there is no code.
pub(super) fn require_success(verdict: OutcomeVerdict) -> Result<bool, SourceError> {
    match verdict {
        OutcomeVerdict::Success { coded } => Ok(coded),
        OutcomeVerdict::NoCode => Err(SourceError::protocol("the response has no code of success or failure")),
        OutcomeVerdict::Failure(meaning, code) => Err(by_meaning(meaning, code)),
    }
}

/// Returns the error for a meaning.
pub(super) fn by_meaning(meaning: Meaning, code: String) -> SourceError {
    let code = shorten(code);
    match meaning {
        Meaning::NotFound => CallerFault::NotFound(code).into(),
        Meaning::Credentials => GatewayFault::CredentialsRefused(code).into(),
        Meaning::Busy => SourceFault::Busy { code, retry_after: None }.into(),
        Meaning::Rejected => CallerFault::Rejected(code).into(),
        Meaning::Exists => CallerFault::Exists(code).into(),
        Meaning::NotReady => SourceFault::NotReady(code).into(),
        Meaning::Failed | Meaning::Unspecified => SourceFault::Failed(code).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::SourceStatus;
    use tonic::Code;

    fn code() -> String {
        "X".to_owned()
    }

    fn grpc(code: Code) -> SourceError {
        GrpcStatus { code, retry_after: None, status: SourceStatus::default() }.into()
    }

    /// Every error, with whose fault it is, the reason for the caller, what it shows about the source's health, and
    /// whether it is retried, leaves a write's outcome open, and may have passed by the next request.
    fn table() -> Vec<(SourceError, FaultOwner, Reason, SourceHealth, [bool; 3])> {
        use FaultOwner::{Caller, Gateway, Hub, Source};
        use SourceHealth::{Failed, Responded, Unknown, Unreachable};
        let (retried, open, passes) = ([true, false, true], [false, true, false], [false, false, true]);
        let (open_retried, open_passes, never) = ([true; 3], [false, true, true], [false; 3]);
        let wait = Some(Duration::from_secs(7));
        let busy = |code: &str| SourceError::from(SourceFault::Busy { code: code.into(), retry_after: wait });
        let limited = |code: &str| SourceError::from(SourceFault::Limited { code: code.into(), retry_after: wait });
        vec![
            (CallerFault::Deadline.into(), Caller, Reason::CallerDeadline, Unknown, open),
            (unfit("name", "too long"), Caller, Reason::FieldInvalid, Unknown, never),
            (FrameError::Broken.into(), Caller, Reason::RequestMalformed, Unknown, never),
            (FrameError::Connection.into(), Caller, Reason::Cancelled, Unknown, never),
            (FrameError::TooLarge(1).into(), Caller, Reason::MessageTooLarge, Unknown, never),
            (FrameError::TooMany(1).into(), Caller, Reason::RateLimited, Unknown, never),
            (FrameError::MemoryExceeded.into(), Gateway, Reason::GatewayOverloaded, Unknown, never),
            (CallerFault::Message(Vec::new()).into(), Caller, Reason::FieldInvalid, Unknown, never),
            (CallerFault::NotFound(code()).into(), Caller, Reason::RecordNotFound, Responded, never),
            (CallerFault::Rejected(code()).into(), Caller, Reason::SourceRejected, Responded, never),
            (CallerFault::Exists(code()).into(), Caller, Reason::RecordExists, Responded, never),
            (grpc(Code::NotFound), Caller, Reason::RecordNotFound, Responded, never),
            (grpc(Code::Aborted), Caller, Reason::SourceAborted, Responded, never),
            (SourceError::not_dispatched(Reason::RateLimited.into()), Caller, Reason::RateLimited, Unknown, passes),
            (SourceError::internal("no setting"), Gateway, Reason::SourceUnavailable, Unknown, never),
            (
                GatewayFault::CredentialsRefused(code()).into(),
                Gateway,
                Reason::SourceCredentialsRefused,
                Responded,
                never,
            ),
            (GatewayFault::Forbidden(code()).into(), Gateway, Reason::SourceCredentialsRefused, Responded, never),
            (grpc(Code::Unauthenticated), Gateway, Reason::SourceCredentialsRefused, Responded, never),
            (grpc(Code::PermissionDenied), Gateway, Reason::SourceCredentialsRefused, Responded, never),
            (GatewayFault::NoStream.into(), Gateway, Reason::GatewayOverloaded, Unknown, passes),
            (GatewayFault::Late.into(), Gateway, Reason::SourceTimeout, Unknown, open_passes),
            (GatewayFault::LogUnavailable.into(), Gateway, Reason::ExchangeLogUnavailable, Unknown, never),
            (
                SourceError::not_dispatched(Reason::GatewayOverloaded.into()),
                Gateway,
                Reason::GatewayOverloaded,
                Unknown,
                passes,
            ),
            (HubFault::Unreachable("no connection").into(), Hub, Reason::SourceUnavailable, Unreachable, retried),
            (SourceError::broken("closed"), Hub, Reason::SourceUnavailable, Failed, open_retried),
            (busy("503").of_login(), Hub, Reason::SourceUnavailable, Unreachable, retried),
            (limited("429").of_login(), Hub, Reason::SourceUnavailable, Responded, retried),
            (SourceError::protocol("no token").of_login(), Hub, Reason::SourceProtocolError, Unreachable, never),
            (SourceFault::Unavailable("failed").into(), Source, Reason::SourceUnavailable, Failed, open_retried),
            (busy("503"), Source, Reason::SourceUnavailable, Failed, open_retried),
            (busy("REFUSED_STREAM"), Source, Reason::SourceUnavailable, Failed, retried),
            (limited("429"), Source, Reason::SourceUnavailable, Responded, retried),
            (limited(CALM), Source, Reason::SourceUnavailable, Responded, open_retried),
            (SourceFault::Timeout.into(), Source, Reason::SourceTimeout, Failed, open_passes),
            (SourceError::protocol("no JSON"), Source, Reason::SourceProtocolError, Failed, open),
            (SourceError::unreadable("no date"), Source, Reason::SourceProtocolError, Responded, open),
            (SourceError::unreadable("404").coded("404"), Source, Reason::SourceProtocolError, Responded, never),
            (SourceError::from(SourceFault::Timeout).coded("504"), Source, Reason::SourceTimeout, Failed, open_passes),
            (
                SourceFault::Drifted { kind: "added", path: code() }.into(),
                Source,
                Reason::SourceDrifted,
                Responded,
                open,
            ),
            (SourceFault::Failed(code()).into(), Source, Reason::SourceFailed, Responded, open),
            (SourceFault::NotReady(code()).into(), Source, Reason::SourceNotReady, Responded, never),
            (grpc(Code::Unavailable), Source, Reason::SourceUnavailable, Failed, open_retried),
            (grpc(Code::ResourceExhausted), Source, Reason::SourceExhausted, Responded, never),
            (grpc(Code::DeadlineExceeded), Source, Reason::SourceTimeout, Failed, open),
            (grpc(Code::Unimplemented), Source, Reason::SourceProtocolError, Responded, never),
            (grpc(Code::DataLoss), Source, Reason::SourceProtocolError, Failed, open),
            (
                SourceError::not_dispatched(Reason::SourceCircuitOpen.into()),
                Source,
                Reason::SourceCircuitOpen,
                Unknown,
                passes,
            ),
        ]
    }

    #[test]
    fn every_error_has_one_owner_and_its_refusal_has_the_same() {
        for (error, owner, reason, health, [retried, open, passes]) in table() {
            let seen = (error.owner(), error.blame());
            assert_eq!(seen, (owner, Blame { reason, fault: owner, health }), "{error:?}");
            let does = (error.retry().is_some(), error.leaves_open(), error.passes());
            assert_eq!(does, (retried, open, passes), "{error:?}");
            let refusal = Refusal::from(error.clone());
            assert_eq!((refusal.reason, refusal.fault), (reason, owner), "{error:?}");
        }
    }

    #[test]
    fn only_what_hub_or_source_is_at_fault_for_is_ill_health_and_only_that_is_retried() {
        for (error, owner, ..) in table() {
            let theirs = matches!(owner, FaultOwner::Hub | FaultOwner::Source);
            assert!(theirs || !error.blame().health.is_unhealthy(), "{error:?}");
            assert!(theirs || error.retry().is_none(), "{error:?}");
        }
    }

    #[test]
    fn the_source_s_own_code_and_the_time_that_it_asks_for_reach_the_caller() {
        let wait = Some(Duration::from_secs(7));
        let busy = SourceError::from(SourceFault::Busy { code: "503".into(), retry_after: wait });
        for (error, code) in [
            (busy.clone(), "503"),
            (busy.of_login(), "503"),
            (SourceError::broken("closed").coded("Server.X"), "Server.X"),
            (SourceError::internal("names").coded("Client.Y"), "Client.Y"),
            (SourceError::unreadable("404").coded("404").of_login(), "404"),
            (SourceFault::Failed("13".into()).into(), "13"),
        ] {
            let wait = error.retry().flatten();
            let refusal = Refusal::from(error);
            assert_eq!((refusal.source_code.as_deref(), refusal.retry_after), (Some(code), wait), "{code}");
        }
    }

    #[test]
    fn b1_what_credentials_are_fetched_from_says_nothing_of_records_requests_or_the_source_s_time() {
        for (error, ..) in table() {
            let refused = matches!(
                &error,
                SourceError::Caller(CallerFault::NotFound(_) | CallerFault::Rejected(_) | CallerFault::Exists(_))
                    | SourceError::Source(_)
            );
            if !refused {
                continue;
            }
            let blame = error.clone().of_login().blame();
            assert!(matches!(blame.fault, FaultOwner::Gateway | FaultOwner::Hub), "{error:?}");
            assert!(!matches!(blame.reason, Reason::RecordNotFound | Reason::SourceRejected), "{error:?}");
            assert_ne!(blame.health, SourceHealth::Failed, "{error:?}");
        }
        let late = SourceError::from(SourceFault::Timeout).of_login().blame();
        assert_eq!((late.reason, late.health), (Reason::SourceUnavailable, SourceHealth::Unreachable));
        let refused = SourceError::from(CallerFault::NotFound("404".into())).of_login();
        assert!(matches!(refused, SourceError::Gateway(GatewayFault::CredentialsRefused(code)) if code == "404"));
    }
}
