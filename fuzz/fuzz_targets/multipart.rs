//! SOAP responses, most of them multipart: the first line is the media type, the rest the body, read as the response of every SOAP
//! operation. Never a panic, and the result never exceeds the received size by more than references allow.
#![no_main]

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use libfuzzer_sys::fuzz_target;
use ndxp_gateway::contract::settings::CallContext;
use ndxp_gateway::contract::{Binding, ContractSet};
use ndxp_gateway::drivers::http::HttpResponse;
use ndxp_gateway::drivers::soap;
use std::sync::LazyLock;

static CONTRACTS: LazyLock<ContractSet> = LazyLock::new(|| ContractSet::embedded().expect("embedded contracts"));

fuzz_target!(|bytes: &[u8]| {
    let line = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let Ok(kind) = HeaderValue::from_bytes(&bytes[..line]) else { return };
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind)]);
    let body = Bytes::copy_from_slice(&bytes[line..]);
    for operation in CONTRACTS.operations() {
        let (Binding::Soap(binding) | Binding::XRoadSoap { soap: binding, .. }) = &operation.binding else { continue };
        let response = HttpResponse { status: StatusCode::OK, headers: headers.clone(), body: body.clone() };
        let _ = soap::read_response(operation, binding, response, &CallContext::default());
    }
});
