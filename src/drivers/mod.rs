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
    /// An error of [`SourceError::not_dispatched`] where it has none.
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

/// A protocol that sources are called by.
#[derive(Clone, Copy)]
pub struct Protocol {
    /// Its name, as [`crate::contract::Binding::driver`] gives it; a hub's credentials for it are `[credentials.NAME]`.
    pub name: &'static str,
    /// Where an operation's requests carry credentials; credentials of another kind are refused at load.
    pub credentials: fn(&Operation) -> &'static [CredentialLocation],
    /// Sets its driver up with a connection.
    pub driver: fn(Arc<SourceConnection>) -> Box<dyn Driver>,
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
    drivers: Vec<(&'static str, Box<dyn Driver>)>,
}

impl Adapter {
    /// Sets the drivers up with a connection.
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
