//! Drivers: the code for one southbound protocol each. A driver set up with one source's contract and connection is
//! that source's adapter. Drivers know nothing of tokens, grants or the log.

pub mod connection;
pub mod credentials;
pub mod grpc;
pub mod http;
pub mod rest;
pub mod soap;
pub mod xroad;

use crate::contract::map::MapError;
use crate::contract::map::outcome::{Verdict, shorten};
use crate::contract::options::Meaning;
use crate::contract::settings::CallContext;
use crate::contract::{Binding, Operation};
use bytes::Bytes;
use connection::Connection;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use prost_reflect::DynamicMessage;
use std::sync::Arc;
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
    Caller(crate::frame::FrameError),
    /// A message of the caller's stream breaks its contract.
    #[error("a message breaks its contract")]
    CallerMessage(Vec<crate::contract::validate::Violation>),
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

/// The request on its way out.
pub enum SourceRequest {
    /// One checked message, decoded and as it came.
    One {
        /// Decoded.
        message: DynamicMessage,
        /// As it came.
        bytes: Bytes,
    },
    /// Checked messages of a client stream.
    Stream(BoxStream<'static, Result<Bytes, SourceError>>),
}

/// One call to a source.
pub struct Call {
    /// What is called.
    pub operation: Arc<Operation>,
    /// With what.
    pub request: SourceRequest,
    /// On whose behalf.
    pub context: CallContext,
}

/// The answer: messages of the contract, encoded.
pub enum SourceAnswer {
    /// One message.
    One(Bytes),
    /// A stream of them.
    Stream(BoxStream<'static, Result<Bytes, SourceError>>),
}

/// A driver set up for one source.
pub trait Driver: Send + Sync {
    /// Calls the source. Dropping the future cancels the call.
    fn call(&self, call: Call) -> BoxFuture<'static, Result<SourceAnswer, SourceError>>;
}

/// The adapter of a source: picks the driver of each operation's protocol.
pub struct Adapter {
    /// The connection that it was made from.
    pub connection: Arc<Connection>,
    rest: rest::RestDriver,
    soap: soap::SoapDriver,
    xroad: xroad::XRoadDriver,
    grpc: grpc::GrpcDriver,
}

impl Adapter {
    /// Sets the drivers up with a connection.
    pub fn new(connection: Arc<Connection>) -> Self {
        Adapter {
            rest: rest::RestDriver::new(connection.clone()),
            soap: soap::SoapDriver::new(connection.clone()),
            xroad: xroad::XRoadDriver::new(connection.clone()),
            grpc: grpc::GrpcDriver::new(connection.clone()),
            connection,
        }
    }

    /// Calls the source in its own protocol.
    pub fn call(&self, call: Call) -> BoxFuture<'static, Result<SourceAnswer, SourceError>> {
        match &call.operation.binding {
            Binding::Rest(_) => self.rest.call(call),
            Binding::Soap(_) => self.soap.call(call),
            Binding::XRoadRest { .. } | Binding::XRoadSoap { .. } => self.xroad.call(call),
            Binding::Grpc(_) => self.grpc.call(call),
        }
    }
}

/// Turns a judged code into a result.
pub(crate) fn heed(verdict: Verdict) -> Result<(), SourceError> {
    match verdict {
        Verdict::Success => Ok(()),
        Verdict::NoCode => Err(SourceError::Protocol("the answer has no code of success or failure".into())),
        Verdict::Failure(meaning, code) => Err(by_meaning(meaning, code)),
    }
}

/// The error that a meaning stands for.
pub(crate) fn by_meaning(meaning: Meaning, code: String) -> SourceError {
    let code = shorten(code);
    match meaning {
        Meaning::NotFound => SourceError::NotFound(code),
        Meaning::Credentials => SourceError::CredentialsRefused(code),
        Meaning::Busy => SourceError::Busy { code, retry_after: None },
        Meaning::Rejected | Meaning::Unspecified => SourceError::Rejected(code),
    }
}
