//! What can go wrong at or on the way to a source, and which reason the caller is told.

use crate::contract::map::MapError;
use crate::contract::map::outcome::{Verdict, shorten};
use crate::contract::options::Meaning;
use crate::contract::validate::Violation;
use crate::frame::FrameError;
use crate::status::{Reason, Refusal};
use std::time::Duration;

/// What went wrong at or on the way to a source. Never holds an answer's values.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SourceError {
    /// It cannot be reached, or the connection broke.
    #[error("the source cannot be reached: {0}")]
    Unavailable(&'static str),
    /// It says that it is busy.
    #[error("the source is busy")]
    Busy {
        /// Its own code.
        code: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// It took too long.
    #[error("the source took too long")]
    Timeout,
    /// Its answer is not what the contract says.
    #[error("the source's answer is not what its contract says: {0}")]
    Protocol(String),
    /// It refused our credentials.
    #[error("the source refused the gateway's credentials")]
    CredentialsRefused(String),
    /// It has no such record.
    #[error("the source has no such record")]
    NotFound(String),
    /// It did not take the request.
    #[error("the source did not take the request")]
    Rejected(String),
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
    NotAsked(Refusal),
}

impl From<MapError> for SourceError {
    fn from(error: MapError) -> Self {
        match error {
            MapError::Request { .. } => SourceError::Request(error),
            // A missing setting is ours to mend, but the caller can only know that the source is not to be had.
            MapError::SettingMissing(_) => SourceError::Unavailable("its connection entry lacks a setting"),
            MapError::Answer { .. } => SourceError::Protocol(error.to_string()),
        }
    }
}

impl SourceError {
    /// Whether a read may be tried again, and when the source wants to be asked: it could not be reached, the connection
    /// broke, or it said that it is busy.
    pub fn retry(&self) -> Option<Option<Duration>> {
        match self {
            SourceError::Unavailable(_) => Some(None),
            SourceError::Busy { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    /// Whether it may be over by the next time that the source is asked.
    pub fn passes(&self) -> bool {
        self.retry().is_some() || matches!(self, SourceError::Timeout | SourceError::NotAsked(_))
    }

    /// Whether the source itself failed, rather than answering with a refusal: what a breaker counts.
    pub fn is_failure(&self) -> bool {
        matches!(
            self,
            SourceError::Unavailable(_) | SourceError::Busy { .. } | SourceError::Timeout | SourceError::Protocol(_)
        )
    }
}

impl From<SourceError> for Refusal {
    fn from(error: SourceError) -> Self {
        let coded = |reason: Reason, code: String| Refusal { source_code: Some(code), ..reason.into() };
        match error {
            SourceError::Unavailable(what) => Refusal::with(Reason::SourceUnavailable, what),
            SourceError::Busy { code, retry_after } => {
                Refusal { retry_after, ..coded(Reason::SourceUnavailable, code) }
            }
            SourceError::Timeout => Reason::SourceTimeout.into(),
            SourceError::Protocol(what) => Refusal::with(Reason::SourceProtocolError, what),
            SourceError::CredentialsRefused(code) => coded(Reason::SourceCredentialsRefused, code),
            SourceError::NotFound(code) => coded(Reason::RecordNotFound, code),
            SourceError::Rejected(code) => coded(Reason::SourceRejected, code),
            SourceError::Request(MapError::Request { path, reason }) => {
                Refusal::fields(vec![Violation { field: path, description: reason.to_owned() }])
            }
            SourceError::Request(other) => Refusal::with(Reason::SourceUnavailable, other.to_string()),
            SourceError::Caller(error) => error.into(),
            SourceError::CallerMessage(violations) => Refusal::fields(violations),
            SourceError::LogUnavailable => Reason::ExchangeLogUnavailable.into(),
            SourceError::NotAsked(refusal) => refusal,
        }
    }
}

/// Turns a judged code into a result.
pub(super) fn heed(verdict: Verdict) -> Result<(), SourceError> {
    match verdict {
        Verdict::Success => Ok(()),
        Verdict::NoCode => Err(SourceError::Protocol("the answer has no code of success or failure".into())),
        Verdict::Failure(meaning, code) => Err(by_meaning(meaning, code)),
    }
}

/// The error that a meaning stands for.
pub(super) fn by_meaning(meaning: Meaning, code: String) -> SourceError {
    let code = shorten(code);
    match meaning {
        Meaning::NotFound => SourceError::NotFound(code),
        Meaning::Credentials => SourceError::CredentialsRefused(code),
        Meaning::Busy => SourceError::Busy { code, retry_after: None },
        Meaning::Rejected | Meaning::Unspecified => SourceError::Rejected(code),
    }
}
