//! X-Road: SOAP message protocol 4.0 (X-Road PR-MESS) and REST `/r1/…` (X-Road PR-REST).

use super::connection::{RequestHash, SourceConnection, XRoadIds, XRoadMember};
use super::credentials::Proof;
use super::http::{HttpResponse, status_error};
use super::reading::{EvaluatedResponse, read_one};
use super::soap;
use super::xroad_hash::{REQUEST_HASH, REQUEST_ID, RestRequest};
use super::{
    Call, CredentialLocation, Driver, Protocol, SourceError, SourceRequest, SourceResponse, by_meaning, unfit,
    xroad_errors,
};
use crate::contract::map::outcome;
use crate::contract::notes::{Notes, XRoadTrace};
use crate::contract::operation::{Operation, RestBinding};
use crate::contract::options::Soap;
use crate::contract::settings::CallContext;
use crate::contract::xml::{self, Element};
use crate::contract::{Binding, CallShape};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use prost_reflect::DynamicMessage;
use serde_json::Value;
use std::sync::Arc;

/// Namespace of the header blocks (PR-MESS, section 2.2).
pub const XROAD: &str = "http://x-road.eu/xsd/xroad.xsd";
/// Namespace of the identifiers (PR-MESS, section 2.1).
pub const IDENTIFIERS: &str = "http://x-road.eu/xsd/identifiers";
/// The hash that `requestHash` uses.
pub const SHA_512: &str = "http://www.w3.org/2001/04/xmlenc#sha512";

/// Bytes of the hash.
const SHA_512_BYTES: usize = 64;
/// Longest id or hash of X-Road that an entry keeps, in bytes.
const MAX_TRACE: usize = 128;

/// X-Road, with the service's own credentials in HTTP's headers or in the envelope's.
pub const PROTOCOL: Protocol = Protocol {
    name: "xroad",
    credentials: credential_locations,
    driver: |connection| Box::new(XRoadDriver::new(connection)),
};

fn credential_locations(operation: &Operation) -> &'static [CredentialLocation] {
    match operation.binding {
        Binding::XRoadSoap { .. } => &[CredentialLocation::Header, CredentialLocation::SoapHeader],
        _ => &[CredentialLocation::Header],
    }
}

/// X-Road towards one source.
pub struct XRoadDriver {
    connection: Arc<SourceConnection>,
}

impl XRoadDriver {
    /// A driver for a connection.
    pub fn new(connection: Arc<SourceConnection>) -> Self {
        XRoadDriver { connection }
    }
}

impl Driver for XRoadDriver {
    fn call(&self, call: Call) -> BoxFuture<'static, Result<SourceResponse, SourceError>> {
        let connection = self.connection.clone();
        Box::pin(async move {
            let (SourceRequest::One { message, .. }, CallShape::Unary) = (call.request, call.operation.shape) else {
                return Err(SourceError::protocol("X-Road takes one message and gives one"));
            };
            let ids = connection.xroad.as_ref().ok_or(SourceError::internal("its connection entry has no [xroad]"))?;
            let exchange = XRoadRequest {
                connection: &connection,
                ids,
                operation: &call.operation,
                message: &message,
                context: &call.context,
            };
            match &call.operation.binding {
                Binding::XRoadSoap { service_code, service_version, soap } => {
                    exchange.soap(service_code, service_version, soap).await
                }
                Binding::XRoadRest { service_code, rest } => exchange.rest(service_code, rest).await,
                _ => Err(SourceError::protocol("no X-Road binding")),
            }
        })
    }
}

struct XRoadRequest<'a> {
    connection: &'a SourceConnection,
    ids: &'a XRoadIds,
    operation: &'a Operation,
    message: &'a DynamicMessage,
    context: &'a CallContext,
}

impl XRoadRequest<'_> {
    fn user(&self) -> Option<&str> {
        self.context.official.as_deref().or(self.ids.user.as_deref())
    }

    async fn soap(&self, service: &str, version: &str, soap: &Soap) -> Result<SourceResponse, SourceError> {
        let body = soap::body(self.operation, soap, self.message, self.context, self.connection)?;
        let header = self.soap_header(service, version);
        let namespaces = format!(" xmlns:xrd=\"{XROAD}\" xmlns:id=\"{IDENTIFIERS}\"");
        let prepare = || Ok((String::new(), soap::headers(soap)?));
        let send = |path: String, mut headers: HeaderMap, proof: Proof| {
            // A UsernameToken is the service's own, beside X-Road's blocks.
            let blocks = format!("{header}{}", proof.soap_header.as_deref().unwrap_or(""));
            let envelope = soap::envelope(soap, &blocks, &namespaces, &body);
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, envelope.as_bytes());
            let request_hash = STANDARD.encode(digest.as_ref());
            async move {
                headers.extend(proof.headers);
                super::rest::add_trace(&mut headers, self.context);
                self.trace("", &request_hash);
                let (endpoint, envelope, sent) = (&self.connection.endpoint, Bytes::from(envelope), &self.context.sent);
                let answer = endpoint.send_marking(Method::POST, &path, headers, envelope, sent).await?;
                self.soap_answer(soap, answer, (service, version), &request_hash)
            }
        };
        self.connection.authorized(&self.context.sent, prepare, send).await
    }

    fn soap_answer(
        &self,
        soap: &Soap,
        answer: HttpResponse,
        (service, version): (&str, &str),
        request_hash: &str,
    ) -> Result<SourceResponse, SourceError> {
        if let Some(id) = answer.headers.get("x-road-request-id").and_then(|value| value.to_str().ok()) {
            self.trace(id, request_hash);
        }
        let (message, header) = soap::read_response(self.operation, soap, answer, self.context)?;
        let header = header.ok_or_else(|| SourceError::protocol("the response has no X-Road header"))?;
        self.check_echo(&header, service, version, request_hash)?;
        Ok(SourceResponse::One(message))
    }

    /// Records the exchange's ids in X-Road's logs for the entry, whatever the outcome.
    fn trace(&self, request_id: &str, request_hash: &str) {
        let plain = |text: &str| match text {
            text if text.len() <= MAX_TRACE && text.bytes().all(|byte| byte.is_ascii_graphic()) => text.to_owned(),
            _ => String::new(),
        };
        let (request_id, request_hash) = (plain(request_id), plain(request_hash));
        let xroad = XRoadTrace { id: self.context.exchange_id.clone(), request_id, request_hash };
        self.context.observed.add(Notes { xroad, ..Notes::default() });
    }

    /// The header blocks of PR-MESS, section 2.2.
    fn soap_header(&self, service: &str, version: &str) -> String {
        let mut out = String::new();
        let member = |out: &mut String, member: &XRoadMember| {
            for (name, value) in [
                ("xRoadInstance", &member.instance),
                ("memberClass", &member.class),
                ("memberCode", &member.member),
                ("subsystemCode", &member.subsystem),
            ] {
                xml::write_element(out, "id:", name, &Value::from(value.as_str()));
            }
        };
        out.push_str("<xrd:client id:objectType=\"SUBSYSTEM\">");
        member(&mut out, &self.ids.client);
        out.push_str("</xrd:client><xrd:service id:objectType=\"SERVICE\">");
        member(&mut out, &self.ids.service);
        xml::write_element(&mut out, "id:", "serviceCode", &Value::from(service));
        if !version.is_empty() {
            xml::write_element(&mut out, "id:", "serviceVersion", &Value::from(version));
        }
        out.push_str("</xrd:service>");
        let plain = [
            ("id", Some(self.context.exchange_id.as_str())),
            ("userId", self.user()),
            ("issue", self.context.purpose.as_deref()),
            ("protocolVersion", Some("4.0")),
        ];
        for (name, value) in plain {
            if let Some(value) = value {
                xml::write_element(&mut out, "xrd:", name, &Value::from(value));
            }
        }
        out
    }

    /// A response must repeat the request's headers (PR-MESS, section 2.2), and state the hash of its request.
    fn check_echo(
        &self,
        header: &Element,
        service: &str,
        version: &str,
        request_hash: &str,
    ) -> Result<(), SourceError> {
        let wrong = |what: &str| SourceError::protocol(format!("the X-Road header's {what} is not the request's"));
        let block = |name: &str| header.children.iter().find(|child| child.is(XROAD, name));
        let same = |block: &Element, member: &XRoadMember| {
            block.child_text("xRoadInstance") == Some(&member.instance)
                && block.child_text("memberClass") == Some(&member.class)
                && block.child_text("memberCode") == Some(&member.member)
                && block.child_text("subsystemCode") == Some(&member.subsystem)
        };
        if !block("client").is_some_and(|client| same(client, &self.ids.client)) {
            return Err(wrong("client"));
        }
        let service_is_same = |block: &Element| {
            same(block, &self.ids.service)
                && block.child_text("serviceCode") == Some(service)
                && block.child_text("serviceVersion").unwrap_or("") == version
        };
        if !block("service").is_some_and(service_is_same) {
            return Err(wrong("service"));
        }
        let text = |name: &str| block(name).map(|block| block.text.trim());
        if text("id") != Some(&self.context.exchange_id) {
            return Err(wrong("id"));
        }
        if text("userId") != self.user() {
            return Err(wrong("userId"));
        }
        if text("protocolVersion") != Some("4.0") {
            return Err(wrong("protocolVersion"));
        }
        let hash = block("requestHash").ok_or_else(|| wrong("requestHash"))?;
        let algorithm = hash.attributes.iter().find(|(name, _)| name == "algorithmId").map(|(_, value)| value.as_str());
        if algorithm != Some(SHA_512) || hash.text.trim() != request_hash {
            return Err(wrong("requestHash"));
        }
        Ok(())
    }

    async fn rest(&self, service: &str, binding: &RestBinding) -> Result<SourceResponse, SourceError> {
        let prepare = || {
            let wire =
                super::rest::outgoing(self.operation, self.message, self.context, binding, self.connection, &[])?;
            let path = format!("/r1/{}/{service}{}", self.ids.service.path(), wire.path);
            Ok((path, (wire.headers, wire.body)))
        };
        let send = |path: String, (mut headers, body): (HeaderMap, Option<Value>), proof: Proof| async move {
            headers.extend(proof.headers);
            self.rest_headers(&mut headers)?;
            super::rest::add_trace(&mut headers, self.context);
            let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
            let (endpoint, method, sent) = (&self.connection.endpoint, binding.method.clone(), &self.context.sent);
            let target = format!("{}{path}", endpoint.base_path());
            let request = RestRequest::new(method.clone(), target, headers.clone(), &body);
            let answer = endpoint.send_marking(method, &path, headers, body, sent).await?;
            let judged = self.rest_document(answer, service, &request)?;
            Ok(SourceResponse::One(read_one(self.operation, &judged, self.context)?))
        };
        self.connection.authorized(&self.context.sent, prepare, send).await
    }

    /// PR-REST, section 4.3.
    fn rest_headers(&self, headers: &mut HeaderMap) -> Result<(), SourceError> {
        let client = self.ids.client.path();
        let plain = [
            ("x-road-client", Some(client.as_str())),
            ("x-road-id", Some(self.context.exchange_id.as_str())),
            ("x-road-userid", self.user()),
            ("x-road-issue", self.context.purpose.as_deref()),
        ];
        for (name, value) in plain {
            if let Some(value) = value {
                let value =
                    HeaderValue::from_str(value).map_err(|_| unfit(name, "it is not valid in an X-Road header"))?;
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        Ok(())
    }

    fn rest_document(
        &self,
        answer: HttpResponse,
        service: &str,
        request: &RestRequest,
    ) -> Result<EvaluatedResponse, SourceError> {
        let text = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
        let (request_id, hash) = (text(REQUEST_ID).unwrap_or(""), text(REQUEST_HASH).map(str::trim));
        self.trace(request_id, hash.unwrap_or(""));
        // This header distinguishes X-Road's own errors from the service's (PR-REST, section 4.6).
        if let Some(code) = text("x-road-error") {
            let meaning = outcome::meaning_of(&self.operation.outcome, code);
            return Err(match meaning {
                Some(meaning) => by_meaning(meaning, code.to_owned()),
                None => xroad_errors::meaning(code)
                    .unwrap_or_else(|| SourceError::broken("X-Road could not reach the service").coded(code)),
            });
        }
        let expected = [
            ("x-road-client", self.ids.client.path()),
            ("x-road-service", format!("{}/{service}", self.ids.service.path())),
            ("x-road-id", self.context.exchange_id.clone()),
        ];
        for (name, value) in &expected {
            if text(name) != Some(value) {
                // A failure of an intermediary has none of X-Road's headers: its HTTP status decides.
                let failed = status_error(answer.status, &answer.headers);
                let other = || SourceError::protocol(format!("the response's {name} is not the request's"));
                return Err(failed.unwrap_or_else(other));
            }
        }
        // It identifies the request (PR-REST, section 4.3). An intermediate gateway may have removed it: the id
        // identifies the request, too.
        let own = |hash: &str| match self.ids.request_hash {
            RequestHash::Check => request.has_hash(request_id, hash),
            RequestHash::Keep => STANDARD.decode(hash).is_ok_and(|hash| hash.len() == SHA_512_BYTES),
        };
        if hash.is_some_and(|hash| !own(hash)) {
            return Err(SourceError::protocol(format!("the response's {REQUEST_HASH} is not the request's")));
        }
        super::rest::judged(self.operation, answer)
    }
}
