//! What registered clients call of the gateway's own services (`GetReceipt`, `GetOwnUse`, `CanI`) over the HTTPS port: the services speak
//! gRPC's frames of Protobuf, and these callers Connect or gRPC-Web, in JSON too.

use crate::contract::ContractSet;
use crate::contract::json::{read_message, write_message};
use crate::frame::{HEADER, frame};
use crate::server::exchange::form::{CallForm, CallProtocol, Codec};
use crate::server::exchange::response::{self, ResponseBody};
use crate::server::own_calls::OwnService;
use crate::status::{Reason, Refusal};
use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;
use prost::Message;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use std::collections::HashMap;
use tonic::body::Body;

/// The methods that clients call over the HTTPS port, by path.
pub(super) struct OwnMessages(HashMap<String, MethodDescriptor>);

impl OwnMessages {
    /// Finds the methods among these contracts: the gateway's own are in every set.
    pub fn of(contracts: &ContractSet) -> Self {
        let services = contracts.files().iter().flat_map(|file| file.services());
        let methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
        let path = |method: &MethodDescriptor| format!("/{}/{}", method.parent_service().full_name(), method.name());
        let named = methods.map(|method| (path(&method), method));
        OwnMessages(named.filter(|(path, _)| OwnService::of(path).is_some_and(OwnService::is_for_clients)).collect())
    }

    /// Returns a request's body as the service reads it: one frame of Protobuf.
    ///
    /// # Errors
    /// [`Reason::RequestMalformed`] with the place in the JSON; [`Reason::OperationUnknown`] for another path.
    pub fn request(&self, path: &str, form: CallForm, body: Bytes) -> Result<Bytes, Refusal> {
        match (form.protocol, form.codec) {
            (CallProtocol::Grpc | CallProtocol::GrpcWeb, _) => Ok(body),
            (_, Codec::Proto) => Ok(frame(&body)),
            (_, Codec::Json) => {
                let method = self.0.get(path).ok_or(Reason::OperationUnknown)?;
                let malformed =
                    |error: &dyn std::fmt::Display| Refusal::with(Reason::RequestMalformed, error.to_string());
                let message = read_message(&method.input(), &body).map_err(|error| malformed(&error))?;
                Ok(frame(&message.encode_to_vec()))
            }
        }
    }

    /// Returns a service's response as the HTTPS port sends it: complete, its message in the caller's codec. The services that clients
    /// call have one message of at most some 100 kB.
    pub async fn response(&self, path: &str, codec: Codec, response: Response<Body>) -> Response<ResponseBody> {
        let (mut head, body) = response.into_parts();
        let Ok(collected) = body.collect().await else {
            return response::refused(&Refusal::from(Reason::Cancelled), "");
        };
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let framed = collected.to_bytes();
        let body = match framed.get(HEADER..) {
            // A status alone: gRPC has it in the trailers, or in the headers where there is no message.
            None => {
                head.headers.extend(trailers);
                ResponseBody::Empty
            }
            Some(message) => match self.encode(path, codec, message) {
                Some(message) => ResponseBody::One(frame(&message), trailers),
                None => {
                    let detail = "a value that JSON cannot hold";
                    return response::refused(&Refusal::with(Reason::SourceProtocolError, detail), "");
                }
            },
        };
        Response::from_parts(head, body)
    }

    fn encode(&self, path: &str, codec: Codec, message: &[u8]) -> Option<Bytes> {
        match codec {
            Codec::Proto => Some(Bytes::copy_from_slice(message)),
            Codec::Json => write_message(&DynamicMessage::decode(self.0.get(path)?.output(), message).ok()?),
        }
    }
}
