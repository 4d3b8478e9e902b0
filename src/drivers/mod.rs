//! Drivers: one for each southbound protocol. A driver with one source's contract and connection is that source's
//! adapter. Drivers do not know tokens, grants or the log.

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
pub mod reachability;
mod reading;
pub mod registry;
pub mod rest;
pub mod retry_after;
pub mod soap;
pub mod xroad;
mod xroad_errors;
pub mod xroad_hash;

use crate::contract::Operation;
use crate::contract::settings::CallContext;
use crate::deadline::Deadline;
use crate::http2::client::StreamWait;
use bytes::Bytes;
use connection::SourceConnection;
pub use credentials::CredentialLocation;
pub use error::{Blame, CallerFault, GatewayFault, GrpcStatus, HubFault, SourceError, SourceFault};
use error::{by_meaning, unfit};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use prost_reflect::DynamicMessage;
pub use reading::{EvaluatedResponse, evaluate, read_list, read_one};
use std::sync::Arc;

/// The request to a source.
pub enum SourceRequest {
    /// One checked message, decoded and as received.
    One {
        /// Decoded.
        message: DynamicMessage,
        /// As received.
        bytes: Bytes,
    },
    /// Checked messages of a client stream.
    Stream(BoxStream<'static, Result<Bytes, SourceError>>),
}

/// One call to a source.
pub struct Call {
    /// The operation.
    pub operation: Arc<Operation>,
    /// The request.
    pub request: SourceRequest,
    /// The context of the call.
    pub context: Arc<CallContext>,
    /// When the caller stops waiting for the response, and by whose deadline; a stream may have no end.
    pub until: Option<Deadline>,
    /// For a response stream: the limiter of its further requests.
    pub page_limiter: Option<Arc<dyn PageLimiter>>,
    /// Set while the call waits for a stream on the gateway's own connections.
    pub stream_wait: Option<Arc<StreamWait>>,
}

/// Limits the further requests of a response stream (a page, a poll of what is watched): each waits for a permit of the
/// source, as a separate call would.
pub trait PageLimiter: Send + Sync {
    /// Runs a request once it has a permit, within the operation's time, and retries it if it did not reach the source,
    /// as a call. Returns an error of [`SourceError::not_dispatched`] if it gets no permit.
    fn run<'a>(&'a self, request: &'a (dyn Fn() -> Requested<'a> + Sync)) -> Requested<'a>;
}

/// A request in flight, up to its judged response.
pub type Requested<'a> = BoxFuture<'a, Result<EvaluatedResponse, SourceError>>;

/// The response: messages of the contract, encoded.
pub enum SourceResponse {
    /// One message.
    One(Bytes),
    /// A stream of them.
    Stream(BoxStream<'static, Result<Bytes, SourceError>>),
}

/// A protocol that sources use.
#[derive(Clone, Copy)]
pub struct Protocol {
    /// Its name, as [`crate::contract::Binding::driver`] gives it; a hub's credentials for it are `[credentials.NAME]`.
    pub name: &'static str,
    /// The parts of an operation's requests that carry credentials; credentials of another kind are refused at load.
    pub credentials: fn(&Operation) -> &'static [CredentialLocation],
    /// Makes its driver for a connection.
    pub driver: fn(Arc<SourceConnection>) -> Box<dyn Driver>,
}

/// A driver for one source.
pub trait Driver: Send + Sync {
    /// Calls the source. Dropping the future cancels the call.
    fn call(&self, call: Call) -> BoxFuture<'static, Result<SourceResponse, SourceError>>;
}

/// The adapter of a source: selects the driver of each operation's protocol.
pub struct Adapter {
    /// The connection that it was built from.
    pub connection: Arc<SourceConnection>,
    drivers: Vec<(&'static str, Box<dyn Driver>)>,
}

impl Adapter {
    /// Makes the drivers for a connection.
    pub fn new(connection: Arc<SourceConnection>) -> Self {
        let driver = |protocol: Protocol| (protocol.name, (protocol.driver)(connection.clone()));
        let drivers = registry::protocols().into_iter().map(driver).collect();
        Adapter { connection, drivers }
    }

    /// Calls the source in its own protocol.
    pub fn call(&self, call: Call) -> BoxFuture<'static, Result<SourceResponse, SourceError>> {
        let name = call.operation.binding.driver();
        match self.drivers.iter().find(|(known, _)| *known == name) {
            Some((_, driver)) => driver.call(call),
            None => Box::pin(async { Err(SourceError::internal("the gateway does not speak its protocol")) }),
        }
    }
}
