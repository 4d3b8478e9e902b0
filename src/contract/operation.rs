//! An operation, ready to be served.

use super::drift::{self, DriftPolicy};
use super::fields::FieldTree;
use super::formats::Format;
use super::map::outcome::OutcomeRules;
use super::options;
use super::plan::{MessagePlan, WirePath};
use bytes::Bytes;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use std::sync::Arc;
use std::time::Duration;

/// One national database, information system or platform, as its contract describes it.
#[derive(Debug)]
pub struct SourceInfo {
    /// Short id ("population").
    pub id: String,
    /// English name.
    pub name: String,
    /// Vietnamese name.
    pub name_vi: String,
    /// Its operator.
    pub owner: String,
    /// Its `.proto` file.
    pub file: String,
    /// The contract's version, the last part of its package ("v1"). The connection entry selects one of several.
    pub version: String,
}

/// How messages flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallShape {
    /// One request, one response.
    Unary,
    /// One request, a stream of responses.
    ServerStream,
    /// A stream of requests, one response.
    ClientStream,
}

/// How an operation is called at its source.
#[derive(Debug)]
pub enum Binding {
    /// REST/JSON.
    Rest(RestBinding),
    /// SOAP 1.1 or 1.2.
    Soap(options::Soap),
    /// X-Road REST.
    XRoadRest {
        /// Service code in the X-Road identifier.
        service_code: String,
        /// The REST binding inside.
        rest: RestBinding,
    },
    /// X-Road SOAP, message protocol 4.0.
    XRoadSoap {
        /// Service code in the X-Road identifier.
        service_code: String,
        /// Service version, or empty.
        service_version: String,
        /// The SOAP binding inside.
        soap: options::Soap,
    },
    /// gRPC: the path at the source.
    Grpc(http::uri::PathAndQuery),
    /// Another protocol, by its driver's name.
    Other(options::Protocol),
}

impl Binding {
    /// Returns the protocol's name, for people.
    pub fn protocol(&self) -> &str {
        match self {
            Binding::Rest(_) => "REST",
            Binding::Soap(soap) if soap.version == options::SoapVersion::Soap12 as i32 => "SOAP 1.2",
            Binding::Soap(_) => "SOAP 1.1",
            Binding::XRoadRest { .. } => "X-Road REST",
            Binding::XRoadSoap { .. } => "X-Road SOAP",
            Binding::Grpc(_) => "gRPC",
            Binding::Other(other) => &other.name,
        }
    }

    /// Returns the name of its driver.
    pub fn driver(&self) -> &str {
        match self {
            Binding::Rest(_) => "rest",
            Binding::Soap(_) => "soap",
            Binding::XRoadRest { .. } | Binding::XRoadSoap { .. } => "xroad",
            Binding::Grpc(_) => "grpc",
            Binding::Other(other) => &other.name,
        }
    }
}

/// A REST binding with its parsed path template.
#[derive(Debug)]
pub struct RestBinding {
    /// HTTP method.
    pub method: http::Method,
    /// Path template.
    pub template: Vec<TemplatePart>,
    /// Wrapper of the body's fields, as path parts.
    pub body_root: Vec<String>,
    /// Whether responses are cached and revalidated by ETag.
    pub etag: bool,
    /// Whether 202 is a success.
    pub accepted: bool,
    /// Whether fields go to the query by default.
    pub query_by_default: bool,
}

/// Part of a path template.
#[derive(Debug, PartialEq, Eq)]
pub enum TemplatePart {
    /// Literal text.
    Literal(String),
    /// Replaced by the value of this source name, percent-encoded.
    Name(String),
}

/// Paging of a server stream.
#[derive(Debug, Clone)]
pub struct Paging {
    /// Source name of the offset; empty: one response is the complete list.
    pub offset: String,
    /// Source name of the page size.
    pub limit: String,
    /// Records in a page.
    pub size: u32,
    /// Maximum number of pages in a stream.
    pub max_pages: u32,
    /// Path of the total number of records.
    pub total: Option<WirePath>,
    /// Path of a flag for further records.
    pub more: Option<WirePath>,
}

/// Polling of a server stream.
#[derive(Debug, Clone)]
pub struct Polling {
    /// Path of the field whose changes are streamed.
    pub watch: String,
    /// Values at which the stream ends.
    pub until: Vec<String>,
    /// Time between requests.
    pub interval: Duration,
    /// Longest duration of a stream.
    pub max: Duration,
}

/// One gRPC method of a source's service, with everything the gateway must know about it.
#[derive(Debug)]
pub struct Operation {
    /// gRPC path, `/package.Service/Method`.
    pub path: String,
    /// Full name, `package.Service/Method`.
    pub full_name: String,
    /// Method name alone.
    pub name: String,
    /// Its source.
    pub source: Arc<SourceInfo>,
    /// The compiled method.
    pub method: MethodDescriptor,
    /// `source:group`.
    pub scope: String,
    /// Data class of the response as a whole.
    pub data_class: options::DataClass,
    /// Whether `ndxp-purpose` is required.
    pub purpose_required: bool,
    /// Whether `ndxp-official` is required.
    pub official_required: bool,
    /// Whether it changes something at the source: its intent is logged before the dispatch.
    pub writes: bool,
    /// Whether it may be sent again after a failure.
    pub repeatable: bool,
    /// Request fields that name the subject, each as a path of field names.
    pub subject: Vec<Vec<String>>,
    /// The source's timeout.
    pub timeout: Duration,
    /// How messages flow.
    pub shape: CallShape,
    /// How it is called at the source.
    pub binding: Binding,
    /// Values that the caller does not send.
    pub fills: Vec<FillPlan>,
    /// Wrappers around the response: the first path that exists in the document counts. Never empty; a path may be.
    pub response_root: Vec<Vec<String>>,
    /// Success and failure.
    pub outcome: OutcomeRules,
    /// Paging, for server streams.
    pub paging: Option<Paging>,
    /// Polling, for server streams.
    pub polling: Option<Polling>,
    /// Plan of the request message.
    pub request: Arc<MessagePlan>,
    /// Plan of the response message.
    pub response: Arc<MessagePlan>,
    /// Every field of the response, for grants.
    pub response_fields: FieldTree,
    /// Maximum number of persons and enterprises of a response that the entry names.
    pub max_response_subjects: usize,
    /// The shape of its responses.
    pub response_shape: ResponseShape,
    /// The contract's policy for a response with drift.
    pub drift: Option<DriftPolicy>,
}

/// The shape of responses, as documents or as messages.
#[derive(Debug, Default)]
pub struct ResponseShape {
    /// Of documents.
    pub document: drift::DocumentShape,
    /// Of a gRPC source's messages.
    pub message: drift::MessageShape,
}

impl ResponseShape {
    /// Returns the shape of an operation's responses; `common`: paths that its source's contract ignores, `own`: those
    /// that its own options ignore.
    ///
    /// # Errors
    /// The fault in `ignored` and `expected`.
    pub fn of(operation: &Operation, common: &[String], own: &[String]) -> Result<Self, drift::ShapeFault> {
        let message = match &operation.binding {
            Binding::Grpc(_) => drift::MessageShape::of(&operation.response)?,
            _ => drift::MessageShape::default(),
        };
        Ok(ResponseShape { document: drift::DocumentShape::of(operation, common, own)?, message })
    }
}

/// A request that is not its operation's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message is not one of the contract's")]
pub struct Malformed;

impl Operation {
    /// Decodes a request.
    ///
    /// # Errors
    /// The bytes are not a message of the operation's request.
    pub fn decode(&self, request: &Bytes) -> Result<DynamicMessage, Malformed> {
        DynamicMessage::decode(self.request.message.clone(), request.clone()).map_err(|_| Malformed)
    }

    /// Returns whether neither its request nor its response concerns a person or an enterprise: no subject, and no field above shared data.
    pub fn has_no_personal_data(&self) -> bool {
        let is_personal = |class| matches!(class, options::DataClass::Personal | options::DataClass::Sensitive);
        let has_none = |plan: &MessagePlan| !plan.any(&|field| field.subject || is_personal(field.data_class));
        !is_personal(self.data_class) && self.subject.is_empty() && has_none(&self.request) && has_none(&self.response)
    }

    /// Returns whether the duration of its calls indicates the source's load: false if the caller determines it by a
    /// request stream, or if responses may have been cached.
    pub fn indicates_load(&self) -> bool {
        let kept = matches!(&self.binding, Binding::Rest(binding) if binding.etag);
        self.shape != CallShape::ClientStream && !kept
    }
}

/// A value that the caller does not send.
#[derive(Debug)]
pub struct FillPlan {
    /// Its path at the source.
    pub name: super::plan::WirePath,
    /// Its location in the request.
    pub location: options::Location,
    /// Its value.
    pub value: options::fill::Value,
    /// The format that it must have.
    pub format: Option<Format>,
    /// Longest text in characters.
    pub max_length: Option<usize>,
    /// The replacement for a value that is absent or does not fit.
    pub otherwise: Option<String>,
    /// Whether its setting may be missing.
    pub optional: bool,
}
