//! Drivers: the code for one southbound protocol each. A driver set up with one source's contract and connection is
//! that source's adapter. Drivers know nothing of tokens, grants or the log.

pub mod connection;
pub mod credentials;
mod drift;
mod error;
pub mod grpc;
mod grpc_messages;
mod grpc_status;
pub mod http;
mod multipart;
mod open_data;
pub mod reach;
mod reading;
pub mod rest;
pub mod soap;
pub mod xroad;
mod xroad_errors;
pub mod xroad_hash;

use crate::contract::settings::CallContext;
use crate::contract::{Binding, Operation};
use crate::deadline::Deadline;
use crate::http2::client::StreamWait;
use bytes::Bytes;
use connection::SourceConnection;
pub use error::Blame;
pub use error::SourceError;
use error::{by_meaning, unfit};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use prost_reflect::DynamicMessage;
pub use reading::EvaluatedResponse;
use std::sync::Arc;

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
    pub context: Arc<CallContext>,
    /// When nobody waits for the answer any more, by whose deadline; a stream may have no end.
    pub until: Option<Deadline>,
    /// Of a stream of answers: how it comes to its further requests.
    pub page_limiter: Option<Arc<dyn PageLimiter>>,
    /// Where the driver says whether the call waits for a stream on the gateway's own connections.
    pub stream_wait: Option<Arc<StreamWait>>,
}

/// The further requests of a stream of answers (a page, a look at what is watched): each waits for its turn at the source,
/// as a call of its own would.
pub trait PageLimiter: Send + Sync {
    /// Runs a request in its turn, within the operation's time; again where it did not reach the source, as a call would be.
    /// [`SourceError::NotDispatched`] where it has none.
    fn run<'a>(&'a self, request: &'a (dyn Fn() -> Requested<'a> + Sync)) -> Requested<'a>;
}

/// A request under way, up to its judged answer.
pub type Requested<'a> = BoxFuture<'a, Result<EvaluatedResponse, SourceError>>;

/// The answer: messages of the contract, encoded.
pub enum SourceResponse {
    /// One message.
    One(Bytes),
    /// A stream of them.
    Stream(BoxStream<'static, Result<Bytes, SourceError>>),
}

/// A driver set up for one source.
pub trait Driver: Send + Sync {
    /// Calls the source. Dropping the future cancels the call.
    fn call(&self, call: Call) -> BoxFuture<'static, Result<SourceResponse, SourceError>>;
}

/// The adapter of a source: picks the driver of each operation's protocol.
pub struct Adapter {
    /// The connection that it was made from.
    pub connection: Arc<SourceConnection>,
    rest: rest::RestDriver,
    soap: soap::SoapDriver,
    xroad: xroad::XRoadDriver,
    grpc: grpc::GrpcDriver,
}

impl Adapter {
    /// Sets the drivers up with a connection.
    pub fn new(connection: Arc<SourceConnection>) -> Self {
        Adapter {
            rest: rest::RestDriver::new(connection.clone()),
            soap: soap::SoapDriver::new(connection.clone()),
            xroad: xroad::XRoadDriver::new(connection.clone()),
            grpc: grpc::GrpcDriver::new(&connection),
            connection,
        }
    }

    /// Calls the source in its own protocol.
    pub fn call(&self, call: Call) -> BoxFuture<'static, Result<SourceResponse, SourceError>> {
        match &call.operation.binding {
            Binding::Rest(_) => self.rest.call(call),
            Binding::Soap(_) => self.soap.call(call),
            Binding::XRoadRest { .. } | Binding::XRoadSoap { .. } => self.xroad.call(call),
            Binding::Grpc(_) => self.grpc.call(call),
        }
    }
}
