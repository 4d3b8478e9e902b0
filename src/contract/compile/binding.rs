//! The binding of an operation: how it is called at its source.

use crate::contract::operation::{Binding, RestBinding, TemplatePart};
use crate::contract::options;
use crate::contract::plan::WirePath;

/// Protocols with separate binding options.
const OWN_BINDINGS: [&str; 4] = ["rest", "soap", "xroad", "grpc"];

/// Compiles the binding of the operation at a gRPC path.
///
/// # Errors
/// The fault of the binding.
pub(super) fn compile_binding(said: &options::Operation, path: &str) -> Result<Binding, String> {
    use options::operation::Binding as Said;
    use options::x_road::Style;
    match said
        .binding
        .as_ref()
        .ok_or("must say how it is called at the source (rest, soap, xroad, grpc or protocol)")?
    {
        Said::Rest(rest) => Ok(Binding::Rest(compile_rest(rest)?)),
        Said::Soap(soap) => Ok(Binding::Soap(check_soap(soap)?)),
        Said::Xroad(xroad) => {
            if xroad.service_code.is_empty() {
                return Err("xroad must name its service_code".into());
            }
            match xroad.style.as_ref().ok_or("xroad must say rest or soap")? {
                Style::Rest(rest) => {
                    Ok(Binding::XRoadRest { service_code: xroad.service_code.clone(), rest: compile_rest(rest)? })
                }
                Style::Soap(soap) => Ok(Binding::XRoadSoap {
                    service_code: xroad.service_code.clone(),
                    service_version: xroad.service_version.clone(),
                    soap: check_soap(soap)?,
                }),
            }
        }
        Said::Grpc(grpc) => {
            let path = if grpc.path.is_empty() { path } else { &grpc.path };
            Ok(Binding::Grpc(path.parse().map_err(|_| format!("{path:?} is no gRPC path"))?))
        }
        Said::Protocol(protocol) => {
            let name = protocol.name.as_str();
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if name.is_empty() || !name.chars().all(plain) {
                return Err(format!("protocol {name:?} must be lower-case letters, digits and hyphens"));
            }
            if OWN_BINDINGS.contains(&name) {
                return Err(format!("protocol {name:?} has an option of its own: write {name}: {{ … }}"));
            }
            Ok(Binding::Other(protocol.clone()))
        }
    }
}

fn check_soap(soap: &options::Soap) -> Result<options::Soap, String> {
    if soap.request.is_empty() || soap.response.iter().all(String::is_empty) || soap.namespace.is_empty() {
        return Err("soap must name its request, response and namespace".into());
    }
    Ok(soap.clone())
}

fn compile_rest(rest: &options::Rest) -> Result<RestBinding, String> {
    use options::rest::Verb;
    let (method, template) = match rest.verb.as_ref().ok_or("rest must say get, post, put or delete")? {
        Verb::Get(path) => (http::Method::GET, path),
        Verb::Post(path) => (http::Method::POST, path),
        Verb::Put(path) => (http::Method::PUT, path),
        Verb::Delete(path) => (http::Method::DELETE, path),
    };
    if !template.starts_with('/') {
        return Err(format!("path {template:?} must start with a /"));
    }
    Ok(RestBinding {
        template: parse_template(template)?,
        body_root: WirePath::parse(&rest.body_root).parts,
        etag: rest.etag,
        accepted: rest.accepted,
        query_by_default: matches!(method, http::Method::GET | http::Method::DELETE),
        method,
    })
}

fn parse_template(template: &str) -> Result<Vec<TemplatePart>, String> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some((literal, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or_else(|| format!("a brace in {template:?} is not closed"))?;
        parts.push(TemplatePart::Literal(literal.to_owned()));
        parts.push(TemplatePart::Name(name.to_owned()));
        rest = after;
    }
    parts.push(TemplatePart::Literal(rest.to_owned()));
    Ok(parts)
}
