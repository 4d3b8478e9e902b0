//! What can go wrong at or on the way to a source, and which reason the caller is told.

use crate::contract::map::MapError;
use crate::contract::map::outcome::{OutcomeVerdict, shorten};
use crate::contract::options::Meaning;
use crate::contract::validate::Violation;
use crate::frame::FrameError;
use crate::status::{FaultOwner, Reason, Refusal, SourceHealth, SourceStatus};
use std::time::Duration;
use tonic::Code;

/// The code of a call whose connection ended because too much was asked of the source on it.
pub(super) const CALM: &str = "ENHANCE_YOUR_CALM";
/// HTTP statuses of what is not there: nobody did anything.
const NOT_THERE: [&str; 4] = ["404", "405", "410", "501"];
/// When it is worth to come again where no stream to a source came free.
const STREAM_AGAIN: Duration = Duration::from_secs(1);

/// What went wrong at or on the way to a source. Never holds an answer's values.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SourceError {
    /// There is no connection to it.
    #[error("the source cannot be reached: {0}")]
    Unreachable(&'static str),
    /// The connection broke, or what lies on the way failed: this call, perhaps no other.
    #[error("the way to the source failed: {0}")]
    Broken(&'static str),
    /// It answered that it failed.
    #[error("the source failed: {0}")]
    Unavailable(&'static str),
    /// Its connection entry, its contract or the gateway is at fault: it was not asked.
    #[error("the source cannot be asked: {0}")]
    Internal(&'static str),
    /// It says that it is busy.
    #[error("the source is busy")]
    Busy {
        /// Its own code.
        code: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// It says that the gateway asks too much of it.
    #[error("the source limits how much it is asked")]
    Limited {
        /// Its own code.
        code: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// It let the operation's own time pass.
    #[error("the source took too long")]
    Timeout,
    /// All connections to it had as many calls as it takes on them until the time was over: it was not asked.
    #[error("no stream to the source came free in time")]
    NoStream,
    /// It was asked late, because no stream came free before, and did not answer in what was left of the time.
    #[error("the source was asked late")]
    Late,
    /// The caller's own deadline passed before.
    #[error("the caller's own deadline passed")]
    CallerDeadline,
    /// Its answer as a whole is not what the contract says.
    #[error("the source's answer is not what its contract says: {0}")]
    Protocol(String),
    /// Its answer to this request is not what the contract says: one record, or a size; or the operation is not there. It answers
    /// others.
    #[error("the source's answer is not what its contract says: {0}")]
    Unreadable(String),
    /// Its answer has drifted from its contract, and the operation's policy is to refuse that.
    #[error("the source's answer has drifted from its contract: {kind} {path}")]
    Drifted {
        /// How.
        kind: &'static str,
        /// Where, as it may be shown.
        path: String,
    },
    /// It refused our credentials: others may be taken.
    #[error("the source refused the gateway's credentials")]
    CredentialsRefused(String),
    /// It knows who we are, and does not let us do this: other credentials of ours change nothing.
    #[error("the source does not let the gateway do this")]
    Forbidden(String),
    /// It has no such record.
    #[error("the source has no such record")]
    NotFound(String),
    /// It did not take the request.
    #[error("the source did not take the request")]
    Rejected(String),
    /// It has the record already.
    #[error("the source has it already")]
    Exists(String),
    /// It says that it failed, or says a code that the contract does not know.
    #[error("the source says that it failed")]
    Failed(String),
    /// What was asked for is not finished there yet.
    #[error("the source has not finished it yet")]
    NotReady(String),
    /// An error whose own words are not the source's, with the source's code.
    #[error("{error}")]
    Coded {
        /// Its own code.
        code: String,
        /// What it means.
        error: Box<SourceError>,
    },
    /// A gRPC source's status, but for those that have an error of their own.
    #[error("the source's gRPC status is {:?}", .0.code)]
    Status(Box<GrpcStatus>),
    /// The same, where a token endpoint or a login gave it.
    #[error("where credentials are fetched: {0}")]
    AtHub(Box<SourceError>),
    /// The request cannot be said in its words.
    #[error(transparent)]
    Request(MapError),
    /// The caller's stream broke.
    #[error("the caller's stream broke: {0}")]
    Caller(FrameError),
    /// Part of the caller's stream could not be logged, so it was not sent.
    #[error("the exchange log cannot be written")]
    LogUnavailable,
    /// A message of the caller's stream breaks its contract.
    #[error("a message breaks its contract")]
    CallerMessage(Vec<Violation>),
    /// A stream's further request was not let through to the source, and why.
    #[error("the source was not asked again")]
    NotDispatched(Refusal),
}

/// A gRPC source's status that is not OK.
#[derive(Debug, Clone)]
pub struct GrpcStatus {
    /// Its code.
    pub code: Code,
    /// When it wants to be asked again (`RetryInfo`).
    pub retry_after: Option<Duration>,
    /// What else it says.
    pub status: SourceStatus,
}

impl GrpcStatus {
    /// A code is kept where it means the same to the caller.
    fn blame(&self) -> (Reason, FaultOwner, SourceHealth) {
        use SourceHealth::{Failed, Responded};
        match self.code {
            Code::NotFound => (Reason::RecordNotFound, FaultOwner::Caller, Responded),
            Code::InvalidArgument => (Reason::SourceRejected, FaultOwner::Caller, Responded),
            Code::Aborted => (Reason::SourceAborted, FaultOwner::Caller, Responded),
            Code::AlreadyExists => (Reason::SourceAlreadyExists, FaultOwner::Caller, Responded),
            Code::FailedPrecondition => (Reason::SourcePreconditionFailed, FaultOwner::Caller, Responded),
            Code::OutOfRange => (Reason::SourceOutOfRange, FaultOwner::Caller, Responded),
            // How much is asked, and how large it is, is up to callers.
            Code::ResourceExhausted => (Reason::SourceExhausted, FaultOwner::Source, Responded),
            // To the source it is the gateway that calls.
            Code::Unauthenticated | Code::PermissionDenied => {
                (Reason::SourceCredentialsRefused, FaultOwner::Gateway, Responded)
            }
            Code::Unavailable => (Reason::SourceUnavailable, FaultOwner::Source, Failed),
            Code::DeadlineExceeded => (Reason::SourceTimeout, FaultOwner::Source, Failed),
            // One operation is not there: the contract and the source are not of the same version.
            Code::Unimplemented => (Reason::SourceProtocolError, FaultOwner::Source, Responded),
            _ => (Reason::SourceProtocolError, FaultOwner::Source, Failed),
        }
    }
}

impl From<MapError> for SourceError {
    fn from(error: MapError) -> Self {
        match error {
            MapError::Request { .. } => SourceError::Request(error),
            // A missing setting is ours to mend, but the caller can only know that the source is not to be had.
            MapError::SettingMissing(_) => SourceError::Internal("its connection entry lacks a setting"),
            MapError::Response { .. } => SourceError::Unreadable(error.to_string()),
        }
    }
}

/// What an error means: the reason that the caller is told, whose fault it is, and what it tells of the source's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blame {
    /// What the caller is told.
    pub reason: Reason,
    /// Whose fault it is.
    pub fault: FaultOwner,
    /// What breaker, bound, endpoints and hubs count.
    pub health: SourceHealth,
}

impl SourceError {
    /// The one place in which it is decided whose fault an error is, and whether it counts against the source. Ill health is: no
    /// connection, a connection that breaks, the operation's own time used up, an answer that says that the source failed or is
    /// busy, and one that is nothing of its contract as a whole.
    pub fn blame(&self) -> Blame {
        use SourceHealth::{Failed, Responded, Unknown, Unreachable};
        let (reason, fault, health) = match self {
            SourceError::Unreachable(_) => (Reason::SourceUnavailable, FaultOwner::Hub, Unreachable),
            SourceError::Broken(_) => (Reason::SourceUnavailable, FaultOwner::Hub, Failed),
            SourceError::Unavailable(_) | SourceError::Busy { .. } => {
                (Reason::SourceUnavailable, FaultOwner::Source, Failed)
            }
            // How much is asked is up to callers.
            SourceError::Limited { .. } => (Reason::SourceUnavailable, FaultOwner::Source, Responded),
            SourceError::Internal(_) => (Reason::SourceUnavailable, FaultOwner::Gateway, Unknown),
            SourceError::Timeout => (Reason::SourceTimeout, FaultOwner::Source, Failed),
            SourceError::NoStream => (Reason::GatewayOverloaded, FaultOwner::Gateway, Unknown),
            SourceError::Late => (Reason::SourceTimeout, FaultOwner::Gateway, Unknown),
            SourceError::CallerDeadline => (Reason::CallerDeadline, FaultOwner::Caller, Unknown),
            SourceError::Protocol(_) => (Reason::SourceProtocolError, FaultOwner::Source, Failed),
            SourceError::Unreadable(_) => (Reason::SourceProtocolError, FaultOwner::Source, Responded),
            SourceError::Drifted { .. } => (Reason::SourceDrifted, FaultOwner::Source, Responded),
            SourceError::CredentialsRefused(_) | SourceError::Forbidden(_) => {
                (Reason::SourceCredentialsRefused, FaultOwner::Gateway, Responded)
            }
            SourceError::NotFound(_) => (Reason::RecordNotFound, FaultOwner::Caller, Responded),
            SourceError::Rejected(_) => (Reason::SourceRejected, FaultOwner::Caller, Responded),
            SourceError::Exists(_) => (Reason::RecordExists, FaultOwner::Caller, Responded),
            SourceError::Failed(_) => (Reason::SourceFailed, FaultOwner::Source, Responded),
            SourceError::NotReady(_) => (Reason::SourceNotReady, FaultOwner::Source, Responded),
            SourceError::Coded { error, .. } => return error.blame(),
            SourceError::Status(status) => status.blame(),
            SourceError::AtHub(error) => {
                let Blame { reason, fault, health } = error.blame();
                // Without credentials, nothing can be asked for, whatever it is.
                let health = if health.is_unhealthy() { Unreachable } else { health };
                (reason, if fault == FaultOwner::Source { FaultOwner::Hub } else { fault }, health)
            }
            SourceError::Request(MapError::Request { .. }) | SourceError::CallerMessage(_) => {
                (Reason::FieldInvalid, FaultOwner::Caller, Unknown)
            }
            SourceError::Request(_) => (Reason::SourceUnavailable, FaultOwner::Gateway, Unknown),
            SourceError::Caller(error) => (Refusal::from(*error).reason, FaultOwner::Caller, Unknown),
            SourceError::LogUnavailable => (Reason::ExchangeLogUnavailable, FaultOwner::Gateway, Unknown),
            SourceError::NotDispatched(refusal) => (refusal.reason, refusal.fault, Unknown),
        };
        Blame { reason, fault, health }
    }

    /// What a result tells of the source's health.
    pub fn health<T>(result: &Result<T, SourceError>) -> SourceHealth {
        result.as_ref().err().map_or(SourceHealth::Responded, |error| error.blame().health)
    }

    /// Whether a read may be tried again, and when the source wants to be asked: it could not be reached, the connection
    /// broke, or it said that it is busy.
    pub fn retry(&self) -> Option<Option<Duration>> {
        match self {
            SourceError::Unreachable(_) | SourceError::Broken(_) | SourceError::Unavailable(_) => Some(None),
            SourceError::Busy { retry_after, .. } | SourceError::Limited { retry_after, .. } => Some(*retry_after),
            SourceError::Status(status) => match status.code {
                Code::Unavailable => Some(status.retry_after),
                // Only where it says when.
                Code::ResourceExhausted => status.retry_after.map(Some),
                _ => None,
            },
            SourceError::AtHub(error) | SourceError::Coded { error, .. } => error.retry(),
            _ => None,
        }
    }

    /// The same error, with the source's own code.
    pub(super) fn coded(self, code: &str) -> Self {
        SourceError::Coded { code: shorten(code.to_owned()), error: Box::new(self) }
    }

    /// Whether a request that was sent may have been done all the same. What the source itself says it did not take was not; what
    /// says that it failed, or is no answer of the contract, or comes from something in between, tells nothing of it.
    pub fn leaves_open(&self) -> bool {
        match self {
            SourceError::Broken(_)
            | SourceError::Unavailable(_)
            | SourceError::Failed(_)
            | SourceError::Timeout
            | SourceError::Late
            | SourceError::CallerDeadline
            | SourceError::Protocol(_)
            | SourceError::Drifted { .. }
            | SourceError::Unreadable(_) => true,
            // 503 is said by balancers, too, after they have passed a request on.
            SourceError::Busy { code, .. } => code == "503",
            // The connection ended because of what others did on it.
            SourceError::Limited { code, .. } => code == CALM,
            SourceError::Coded { code, error } => !NOT_THERE.contains(&code.as_str()) && error.leaves_open(),
            SourceError::Status(status) => matches!(
                status.code,
                Code::Unavailable
                    | Code::DeadlineExceeded
                    | Code::Cancelled
                    | Code::Unknown
                    | Code::Internal
                    | Code::DataLoss
            ),
            SourceError::Unreachable(_)
            | SourceError::Internal(_)
            | SourceError::NoStream
            | SourceError::Forbidden(_)
            | SourceError::CredentialsRefused(_)
            | SourceError::NotFound(_)
            | SourceError::Rejected(_)
            | SourceError::Exists(_)
            | SourceError::NotReady(_)
            | SourceError::AtHub(_)
            | SourceError::Request(_)
            | SourceError::Caller(_)
            | SourceError::CallerMessage(_)
            | SourceError::LogUnavailable
            | SourceError::NotDispatched(_) => false,
        }
    }

    /// Whether it may be over by the next time that the source is asked.
    pub fn passes(&self) -> bool {
        if let SourceError::Coded { error, .. } = self {
            return error.passes();
        }
        self.retry().is_some()
            || matches!(
                self,
                SourceError::Timeout | SourceError::NoStream | SourceError::Late | SourceError::NotDispatched(_)
            )
    }

    /// The same error where a token endpoint or a login gave it, of a hub most likely, and not the operation's own exchange
    /// with the source: what it says is about credentials, never about a record or a request. No client's request brings it about,
    /// and without credentials none can be sent: ill health there is that the source is not to be reached.
    pub(super) fn of_the_hub(self) -> Self {
        match self {
            SourceError::Unavailable(what) | SourceError::Broken(what) => SourceError::Unreachable(what),
            SourceError::Timeout => SourceError::Unreachable("no credentials came in time"),
            SourceError::NotFound(code)
            | SourceError::Rejected(code)
            | SourceError::Exists(code)
            | SourceError::Forbidden(code)
            | SourceError::NotReady(code) => SourceError::CredentialsRefused(code),
            SourceError::Coded { code, error } => SourceError::Coded { code, error: Box::new(error.of_the_hub()) },
            SourceError::Failed(_)
            | SourceError::Busy { .. }
            | SourceError::Limited { .. }
            | SourceError::Protocol(_)
            | SourceError::Unreadable(_) => SourceError::AtHub(Box::new(self)),
            other => other,
        }
    }
}

impl From<SourceError> for Refusal {
    fn from(error: SourceError) -> Self {
        let Blame { reason, fault, .. } = error.blame();
        let plain = Refusal { fault, ..reason.into() };
        match error {
            SourceError::Unreachable(what)
            | SourceError::Broken(what)
            | SourceError::Unavailable(what)
            | SourceError::Internal(what) => Refusal { detail: what.to_owned(), ..plain },
            SourceError::Busy { code, retry_after } | SourceError::Limited { code, retry_after } => {
                Refusal { retry_after, source_code: Some(code), ..plain }
            }
            SourceError::Protocol(what) | SourceError::Unreadable(what) => Refusal { detail: what, ..plain },
            SourceError::Drifted { kind, path } => Refusal { detail: format!("{kind} {path}"), ..plain },
            SourceError::CredentialsRefused(code)
            | SourceError::Forbidden(code)
            | SourceError::NotFound(code)
            | SourceError::Rejected(code)
            | SourceError::Exists(code)
            | SourceError::Failed(code)
            | SourceError::NotReady(code) => Refusal { source_code: Some(code), ..plain },
            SourceError::Coded { code, error } => Refusal { source_code: Some(code), ..(*error).into() },
            SourceError::Status(status) => {
                let GrpcStatus { code, retry_after, status } = *status;
                let detail = match reason {
                    Reason::SourceProtocolError => format!("gRPC status {code:?}"),
                    _ => String::new(),
                };
                let (source_code, source_status) = (Some(format!("{code:?}")), Some(Box::new(status)));
                Refusal { detail, retry_after, source_code, source_status, ..plain }
            }
            SourceError::Request(MapError::Request { path, reason }) => {
                Refusal::fields(vec![Violation { field: path, description: reason.to_owned() }])
            }
            SourceError::Request(other) => Refusal { detail: other.to_string(), ..plain },
            SourceError::Caller(error) => error.into(),
            SourceError::CallerMessage(violations) => Refusal::fields(violations),
            SourceError::NotDispatched(refusal) => refusal,
            SourceError::AtHub(error) => Refusal { fault, ..(*error).into() },
            SourceError::NoStream => Refusal { retry_after: Some(STREAM_AGAIN), detail: error.to_string(), ..plain },
            SourceError::Timeout | SourceError::Late | SourceError::CallerDeadline | SourceError::LogUnavailable => {
                plain
            }
        }
    }
}

/// A value of the request that cannot be sent.
pub(super) fn unfit(path: &str, reason: &'static str) -> SourceError {
    SourceError::Request(MapError::Request { path: path.to_owned(), reason })
}

/// Turns a judged code into a result: whether a code said that it succeeded.
pub(super) fn require_success(verdict: OutcomeVerdict) -> Result<bool, SourceError> {
    match verdict {
        OutcomeVerdict::Success { coded } => Ok(coded),
        OutcomeVerdict::NoCode => Err(SourceError::Protocol("the answer has no code of success or failure".into())),
        OutcomeVerdict::Failure(meaning, code) => Err(by_meaning(meaning, code)),
    }
}

/// The error that a meaning stands for.
pub(super) fn by_meaning(meaning: Meaning, code: String) -> SourceError {
    let code = shorten(code);
    match meaning {
        Meaning::NotFound => SourceError::NotFound(code),
        Meaning::Credentials => SourceError::CredentialsRefused(code),
        Meaning::Busy => SourceError::Busy { code, retry_after: None },
        Meaning::Rejected => SourceError::Rejected(code),
        Meaning::Exists => SourceError::Exists(code),
        Meaning::NotReady => SourceError::NotReady(code),
        Meaning::Failed | Meaning::Unspecified => SourceError::Failed(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FrameError;

    #[test]
    fn b1_what_credentials_are_fetched_from_says_nothing_of_records_requests_or_the_source_s_time() {
        for error in [
            SourceError::NotFound("404".into()),
            SourceError::Rejected("400".into()),
            SourceError::Unavailable("410"),
            SourceError::Timeout,
        ] {
            let blame = error.of_the_hub().blame();
            assert!(!matches!(blame.reason, Reason::RecordNotFound | Reason::SourceRejected), "{:?}", blame.reason);
            assert_ne!(blame.reason, Reason::SourceTimeout);
            assert_ne!(blame.fault, FaultOwner::Caller, "{:?}", blame.reason);
        }
        // Busy, limited, or nonsense there: the hub's, and when it wants to be asked again is kept.
        let again = Some(Duration::from_secs(7));
        let busy = SourceError::Busy { code: "503".into(), retry_after: again }.of_the_hub();
        let limited = SourceError::Limited { code: "429".into(), retry_after: again }.of_the_hub();
        assert_eq!((busy.blame().health, limited.blame().health), (SourceHealth::Unreachable, SourceHealth::Responded));
        for (error, code) in [(busy, "503"), (limited, "429")] {
            assert_eq!((error.blame().fault, error.retry()), (FaultOwner::Hub, Some(again)));
            let refusal = Refusal::from(error);
            assert_eq!(
                (refusal.fault, refusal.retry_after, refusal.source_code.as_deref()),
                (FaultOwner::Hub, again, Some(code))
            );
        }
        assert_eq!(SourceError::Protocol("no token".into()).of_the_hub().blame().fault, FaultOwner::Hub);
        let own = SourceError::Busy { code: "503".into(), retry_after: again };
        assert_eq!(own.blame().fault, FaultOwner::Source, "the source's own exchange");
        let refused = SourceError::NotFound("404".into()).of_the_hub();
        assert!(matches!(refused, SourceError::CredentialsRefused(code) if code == "404"));
    }

    #[test]
    fn b1_nothing_of_a_caller_s_is_ill_health_and_nothing_of_one_record_either() {
        let code = || "X".to_owned();
        let map = |path: &str| MapError::Response { path: path.to_owned(), reason: "is no date" };
        let answers = [
            SourceError::from(map("list/3/date")),
            SourceError::Limited { code: code(), retry_after: None },
            SourceError::NotFound(code()),
            SourceError::Rejected(code()),
            SourceError::CredentialsRefused(code()),
        ];
        for error in answers {
            assert_eq!(error.blame().health, SourceHealth::Responded, "{error}");
        }
        let callers = [
            SourceError::CallerDeadline,
            SourceError::Caller(FrameError::Broken),
            SourceError::Caller(FrameError::Connection),
            SourceError::CallerMessage(Vec::new()),
            unfit("full_name", "it cannot stand in a header"),
            SourceError::NotDispatched(Reason::RateLimited.into()),
        ];
        for error in callers {
            let Blame { fault, health, .. } = error.blame();
            assert_eq!((fault, health), (FaultOwner::Caller, SourceHealth::Unknown), "{error}");
        }
    }

    #[test]
    fn a_refusal_has_the_reason_and_the_fault_that_its_error_is_blamed_for() {
        let code = || "X".to_owned();
        let all = [
            SourceError::Unreachable("no connection"),
            SourceError::Broken("closed"),
            SourceError::Unavailable("500"),
            SourceError::Internal("no setting"),
            SourceError::Busy { code: code(), retry_after: None },
            SourceError::Limited { code: code(), retry_after: None },
            SourceError::Timeout,
            SourceError::CallerDeadline,
            SourceError::Protocol(code()),
            SourceError::Unreadable(code()),
            SourceError::Drifted { kind: "added", path: code() },
            SourceError::CredentialsRefused(code()),
            SourceError::NotFound(code()),
            SourceError::Rejected(code()),
            unfit("a", "b"),
            SourceError::Request(MapError::SettingMissing(code())),
            SourceError::Caller(FrameError::TooLarge(1)),
            SourceError::CallerMessage(Vec::new()),
            SourceError::LogUnavailable,
            SourceError::NotDispatched(Reason::SourceCircuitOpen.into()),
        ];
        for error in all {
            let Blame { reason, fault, .. } = error.blame();
            let refusal = Refusal::from(error);
            assert_eq!((refusal.reason, refusal.fault), (reason, fault));
        }
    }
}
