//! The security server's side of X-Road: access of members, and the headers that a response repeats.

use crate::contract::xml::{self, Element};
use crate::drivers::xroad::{IDENTIFIERS, SHA_512, XROAD};
use crate::drivers::xroad_hash::{HeaderCase, REQUEST_HASH, REQUEST_ID, RestRequest};
use crate::sandbox::http::{HttpReply, HttpRequest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

const SOAP_11: &str = "http://schemas.xmlsoap.org/soap/envelope/";

/// A member or service identifier as `A/B/C/D` or `A/B/C/D/service`.
fn identifier(block: &Element) -> String {
    let names = ["xRoadInstance", "memberClass", "memberCode", "subsystemCode", "serviceCode"];
    names.iter().filter_map(|name| block.child_text(name)).collect::<Vec<_>>().join("/")
}

/// SOAP, message protocol 4.0: checks the header, calls the service, and repeats the header with the request's hash.
pub fn soap(
    ask: &HttpRequest,
    clients: &[String],
    answer: impl FnOnce(&Element) -> Result<String, (&'static str, &'static str)>,
) -> HttpReply {
    let fault = |code: &str, text: &str| {
        let body = format!("<S:Fault><faultcode>{code}</faultcode><faultstring>{text}</faultstring></S:Fault>");
        envelope(500, "", &body)
    };
    let Ok(root) = xml::parse(&ask.body) else { return fault("Client.InvalidXml", "no XML") };
    let (Some(header), Some(body)) = (root.child("Header"), root.child("Body")) else {
        return fault("Client.MissingHeader", "no header");
    };
    let client = header.child("client").map(identifier).unwrap_or_default();
    if !clients.contains(&client) {
        return fault("Server.ServerProxy.AccessDenied", "Request is not allowed");
    }
    if header.child_text("protocolVersion") != Some("4.0") || header.child_text("id").is_none() {
        return fault("Client.MissingHeader", "id and protocolVersion 4.0 are required");
    }
    let Some(content) = body.children.first() else { return fault("Client.MissingBody", "no body") };
    match answer(content) {
        Ok(body) => envelope(200, &echo(ask, header), &body),
        Err((code, text)) => fault(code, text),
    }
}

/// The request's header, byte for byte, and its hash (PR-MESS, section 2.2).
fn echo(ask: &HttpRequest, header: &Element) -> String {
    let mut out = String::new();
    for block in &header.children {
        let attribute = block.attributes.first().map(|(name, value)| format!(" id:{name}=\"{value}\""));
        out.push_str(&format!("<xrd:{}{}>", block.name, attribute.unwrap_or_default()));
        for child in &block.children {
            out.push_str(&format!("<id:{}>", child.name));
            xml::escape_into(&mut out, child.text.trim());
            out.push_str(&format!("</id:{}>", child.name));
        }
        xml::escape_into(&mut out, block.text.trim());
        out.push_str(&format!("</xrd:{}>", block.name));
    }
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, &ask.body);
    let hash = STANDARD.encode(hash.as_ref());
    out.push_str(&format!("<xrd:requestHash algorithmId=\"{SHA_512}\">{hash}</xrd:requestHash>"));
    out
}

fn envelope(status: u16, header: &str, body: &str) -> HttpReply {
    let text = format!(
        "{}<S:Envelope xmlns:S=\"{SOAP_11}\" xmlns:xrd=\"{XROAD}\" xmlns:id=\"{IDENTIFIERS}\">\
         <S:Header>{header}</S:Header><S:Body>{body}</S:Body></S:Envelope>",
        xml::DECLARATION
    );
    HttpReply::typed(status, "text/xml; charset=utf-8", text)
}

/// REST: checks the client, calls the service, and repeats the headers (PR-REST, section 4.3).
pub fn rest(
    ask: &HttpRequest,
    clients: &[String],
    member: &str,
    answer: impl FnOnce(&str, &[&str]) -> Option<HttpReply>,
) -> HttpReply {
    let failed = |code: &str, text: &str| {
        let body = json!({ "type": code, "message": text, "detail": uuid::Uuid::new_v4().to_string() });
        HttpReply { status: 500, ..HttpReply::json(&body) }.with("x-road-error", code)
    };
    let client = ask.header("x-road-client").unwrap_or("");
    if !clients.iter().any(|known| known == client) {
        return failed("Server.ServerProxy.AccessDenied", "Request is not allowed");
    }
    let rest = ask.path.strip_prefix(&format!("/r1/{member}/")).unwrap_or("");
    let mut parts = rest.split('/');
    let service = parts.next().unwrap_or("");
    let path: Vec<&str> = parts.collect();
    let Some(reply) = answer(service, &path) else {
        return failed("Server.ServerProxy.UnknownService", "Unknown service");
    };
    let id = ask.header("x-road-id").map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned);
    let request_id = uuid::Uuid::new_v4().to_string();
    let request = RestRequest::new(ask.method.clone(), ask.target.clone(), ask.headers.clone(), &ask.body);
    let hash = request.hash(&request_id, HeaderCase::Jetty);
    reply
        .with("x-road-client", client)
        .with("x-road-service", format!("{member}/{service}"))
        .with("x-road-id", id)
        .with(REQUEST_ID, request_id)
        .with(REQUEST_HASH, hash)
}
