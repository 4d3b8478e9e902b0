//! SOAP 1.1 and 1.2, document/literal wrapped.

use super::connection::SourceConnection;
use super::credentials::Proof;
use super::http::{HttpResponse, status_error};
use super::reading::{evaluate, read_one};
use super::{
    Call, CredentialLocation, Driver, Protocol, SourceError, SourceFault, SourceRequest, SourceResponse, by_meaning,
    multipart, xroad_errors,
};
use crate::contract::map::{outcome, request};
use crate::contract::notes::Notes;
use crate::contract::operation::Operation;
use crate::contract::options::{Meaning, Soap, SoapVersion};
use crate::contract::settings::CallContext;
use crate::contract::xml::{self, Element};
use crate::contract::{Binding, CallShape};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use prost_reflect::DynamicMessage;
use serde_json::{Map, Value};
use std::sync::Arc;

/// SOAP 1.1 envelope namespace.
pub(super) const SOAP_11: &str = "http://schemas.xmlsoap.org/soap/envelope/";
/// SOAP 1.2 envelope namespace.
pub(super) const SOAP_12: &str = "http://www.w3.org/2003/05/soap-envelope";

/// SOAP, with credentials in HTTP's headers or in the envelope's.
pub const PROTOCOL: Protocol = Protocol {
    name: "soap",
    credentials: |_| &[CredentialLocation::Header, CredentialLocation::SoapHeader],
    driver: |connection| Box::new(SoapDriver::new(connection)),
};

/// SOAP towards one source.
pub struct SoapDriver {
    connection: Arc<SourceConnection>,
}

impl SoapDriver {
    /// A driver for a connection.
    pub fn new(connection: Arc<SourceConnection>) -> Self {
        SoapDriver { connection }
    }
}

impl Driver for SoapDriver {
    fn call(&self, call: Call) -> BoxFuture<'static, Result<SourceResponse, SourceError>> {
        let connection = self.connection.clone();
        Box::pin(async move {
            let (SourceRequest::One { message, .. }, Binding::Soap(soap), CallShape::Unary) =
                (call.request, &call.operation.binding, call.operation.shape)
            else {
                return Err(SourceError::protocol("SOAP takes one message and gives one"));
            };
            exchange(&connection, &call.operation, soap, &message, &call.context).await
        })
    }
}

async fn exchange(
    connection: &SourceConnection,
    operation: &Operation,
    soap: &Soap,
    message: &DynamicMessage,
    context: &CallContext,
) -> Result<SourceResponse, SourceError> {
    let body = body(operation, soap, message, context, connection)?;
    let prepare = || Ok((String::new(), headers(soap)?));
    let send = |path: String, mut headers: HeaderMap, proof: Proof| {
        let envelope = envelope(soap, proof.soap_header.as_deref().unwrap_or(""), "", &body);
        async move {
            headers.extend(proof.headers);
            super::rest::add_trace(&mut headers, context);
            let (endpoint, envelope) = (&connection.endpoint, Bytes::from(envelope));
            let answer = endpoint.send_marking(Method::POST, &path, headers, envelope, &context.sent).await?;
            read_response(operation, soap, answer, context)
        }
    };
    let (message, _) = connection.authorized(&context.sent, prepare, send).await?;
    Ok(SourceResponse::One(message))
}

/// HTTP headers of a SOAP request: SOAP 1.1 has `SOAPAction` (quoted, section 6.1.1), SOAP 1.2 an action parameter.
pub(super) fn headers(soap: &Soap) -> Result<HeaderMap, SourceError> {
    let unfit = |_| SourceError::internal("the SOAP action is not valid in a header");
    let mut headers = HeaderMap::new();
    if is_12(soap) {
        let value = format!("application/soap+xml; charset=utf-8; action=\"{}\"", soap.action);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(&value).map_err(unfit)?);
    } else {
        let kind = if soap.content_type.is_empty() { "text/xml" } else { soap.content_type.as_str() };
        let value = HeaderValue::from_str(&format!("{kind}; charset=utf-8")).map_err(unfit)?;
        headers.insert(header::CONTENT_TYPE, value);
        let action = HeaderValue::from_str(&format!("\"{}\"", soap.action)).map_err(unfit)?;
        headers.insert(HeaderName::from_static("soapaction"), action);
    }
    Ok(headers)
}

fn is_12(soap: &Soap) -> bool {
    soap.version() == SoapVersion::Soap12
}

/// The body element of a request.
pub(super) fn body(
    operation: &Operation,
    soap: &Soap,
    message: &DynamicMessage,
    context: &CallContext,
    connection: &SourceConnection,
) -> Result<String, SourceError> {
    let wire = request::write(operation, message, request::Layout::default(), context, &connection.settings)?;
    let value = Value::Object(ordered(wire.body, &soap.order));
    let mut out = String::new();
    if soap.unqualified {
        out.push_str(&format!("<ns:{} xmlns:ns=\"", soap.request));
        xml::escape_into(&mut out, &soap.namespace);
        out.push_str("\">");
        xml::write_content(&mut out, "", &value);
        out.push_str(&format!("</ns:{}>", soap.request));
    } else {
        xml::write_root(&mut out, &soap.request, Some(&soap.namespace), &value);
    }
    Ok(out)
}

/// Sorts elements into the order that the source's schema requires (`xs:sequence`).
fn ordered(mut body: Map<String, Value>, order: &[String]) -> Map<String, Value> {
    let mut out = Map::new();
    for name in order {
        if let Some(value) = body.shift_remove(name) {
            out.insert(name.clone(), value);
        }
    }
    out.extend(body);
    out
}

/// Builds a complete envelope. `soap` is the prefix that header blocks may use for `mustUnderstand`.
pub(super) fn envelope(soap: &Soap, header: &str, namespaces: &str, body: &str) -> String {
    let space = if is_12(soap) { SOAP_12 } else { SOAP_11 };
    let header = if header.is_empty() { String::new() } else { format!("<soap:Header>{header}</soap:Header>") };
    format!(
        "{}<soap:Envelope xmlns:soap=\"{space}\"{namespaces}>{header}<soap:Body>{body}</soap:Body></soap:Envelope>",
        xml::DECLARATION
    )
}

/// Reads and judges a response: returns the message, encoded, and the header element for further checks.
///
/// # Errors
/// The meaning of the HTTP status, the fault, or the contract's outcome; a protocol error for anything else.
pub fn read_response(
    operation: &Operation,
    soap: &Soap,
    answer: HttpResponse,
    context: &CallContext,
) -> Result<(Bytes, Option<Element>), SourceError> {
    let wrong = |reason: &str| SourceError::protocol(reason);
    let status = status_error(answer.status, &answer.headers);
    // A failure without an envelope is an HTTP failure.
    let failed = |error: SourceError| status.clone().unwrap_or(error);
    let multipart::OpenedMultipart { root, charset, mut parts } = multipart::open(&answer).map_err(failed)?;
    let root =
        xml::parse_in(root, charset.as_deref()).map_err(|error| failed(SourceError::protocol(error.to_string())))?;
    let space = if is_12(soap) { SOAP_12 } else { SOAP_11 };
    if !root.is(space, "Envelope") {
        return Err(status.unwrap_or_else(|| wrong("the response is not a SOAP envelope of the contract's version")));
    }
    let mut header = None;
    let mut body = None;
    for child in root.children {
        if child.is(space, "Header") {
            header = Some(child);
        } else if child.is(space, "Body") {
            body = Some(child);
        } else {
            return Err(wrong("the envelope has other elements than a header and a body"));
        }
    }
    let content = multipart::resolve(body.map(|body| body.children).unwrap_or_default()).map_err(failed)?;
    let mut content = content.ok_or_else(|| wrong("the envelope's body is empty"))?;
    if !parts.is_empty() {
        multipart::include(&mut content, &mut parts)?;
    }
    if content.is(space, "Fault") {
        // HTTP's meaning comes first if a fault cannot express it (RFC 9110, section 15): a retry delay, or which
        // server refuses.
        let http_first = matches!(answer.status.as_u16(), 401 | 403 | 408 | 429 | 502..=504);
        let fault = || fault(operation, &content);
        return Err(status.filter(|_| http_first).unwrap_or_else(fault));
    }
    if let Some(error) = status {
        return Err(error);
    }
    let named = soap.response.contains(&content.name);
    if !named || (!soap.response_namespace.is_empty() && *content.namespace != *soap.response_namespace) {
        return Err(wrong("the body's element is not the contract's"));
    }
    let element = content.name.clone();
    let mut noticed = Notes::default();
    operation.response_shape.document.observe_attributes(&content, &String::new, &mut noticed);
    let document = match content.into_value() {
        Value::Object(object) => Value::Object(object),
        // Text in place of a structure: a response element may hold nothing else.
        Value::String(text) if !text.trim().is_empty() => Value::String(text),
        _ => Value::Object(Map::new()),
    };
    let judged = evaluate(operation, document, Some(&element))?.with(noticed);
    let message = read_one(operation, &judged, context)?;
    Ok((message, header))
}

/// Returns the meaning of a fault: by the most specific code that the contract knows, else by whose fault the code
/// declares it (SOAP 1.1, section 4.4.1; SOAP 1.2 part 1, section 5.4.6).
fn fault(operation: &Operation, fault: &Element) -> SourceError {
    let local = |text: &str| text.rsplit(':').next().unwrap_or("").trim().to_owned();
    let mut codes = Vec::new();
    if let Some(detail) = fault.child("detail").or_else(|| fault.child("Detail")) {
        // In the detail itself, or in the one structure that wraps a typed fault (JAX-WS, WCF).
        for place in std::iter::once(detail).chain(&detail.children) {
            let named = ["code", "Code", "faultCode", "errorCode"].iter().filter_map(|name| place.child_text(name));
            codes.extend(named.map(local));
        }
    }
    // Some servers write the other version's fault into an envelope of this version (node-soap).
    let mut subcodes: Vec<&str> = Vec::new();
    let mut code = fault.child("Code");
    while let Some(here) = code {
        subcodes.extend(here.child_text("Value"));
        code = here.child("Subcode");
    }
    codes.extend(subcodes.into_iter().rev().chain(fault.child_text("faultcode")).map(local));
    let xroad = matches!(operation.binding, Binding::XRoadSoap { .. });
    for code in &codes {
        if let Some(meaning) = outcome::meaning_of(&operation.outcome, code) {
            return by_meaning(meaning, code.clone());
        }
        if let Some(error) = xroad_errors::meaning(code).filter(|_| xroad) {
            return error;
        }
    }
    let code = codes.last().cloned().unwrap_or_default();
    match code.split('.').next() {
        Some("Client" | "Sender" | "client") => by_meaning(Meaning::Rejected, code),
        Some("Server" | "Receiver" | "server") => {
            SourceError::from(SourceFault::Unavailable("it returned a server fault")).coded(&code)
        }
        Some("VersionMismatch" | "MustUnderstand" | "DataEncodingUnknown") => {
            SourceError::unreadable("the source does not take the envelope").coded(&code)
        }
        // A code that the contract does not know is the source's fault.
        _ => by_meaning(Meaning::Failed, code),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::contract::ContractSet;
    use http::StatusCode;

    #[test]
    fn only_the_contracts_body_elements_in_their_namespace_are_answers() {
        let contracts = ContractSet::embedded().unwrap();
        let operation = contracts.operation("/ndxp.population.v1.PopulationService/GetCitizen").unwrap();
        let Binding::Soap(soap) = &operation.binding else { panic!("SOAP") };
        let space = "http://www.mic.gov.vn/dancu/1.0";
        let answered = |element: &str, space: &str, envelope: &str| {
            let body = format!(
                "<s:Envelope xmlns:s=\"{envelope}\"><s:Body><{element} xmlns=\"{space}\"><CongDan><SoDinhDanh>022199000123</SoDinhDanh></CongDan></{element}></s:Body></s:Envelope>"
            );
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/xml"));
            let answer = HttpResponse { status: StatusCode::OK, headers, body: body.into() };
            read_response(operation, soap, answer, &CallContext::default()).map(|(message, _)| message.len())
        };
        assert!(answered("CongdanCollection", space, SOAP_11).is_ok_and(|length| length > 12));
        for (element, space, envelope) in [
            ("Collection", space, SOAP_11),
            ("CongDan", space, SOAP_11),
            ("CongdanCollection", space, SOAP_12),
            ("CongdanCollection", "urn:another", SOAP_11),
        ] {
            let wrong = answered(element, space, envelope);
            assert!(
                matches!(wrong, Err(SourceError::Source(SourceFault::Protocol(_)))),
                "{element} {space} {envelope}: {wrong:?}"
            );
        }
    }
}
