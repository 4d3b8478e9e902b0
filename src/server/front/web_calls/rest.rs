//! Plain JSON as peers of X-Road and NDXP know it: `POST /v1/SOURCE/OPERATION`, and errors as problem details (RFC 9457).

use super::connect::{is_identity, media_type};
use super::error::ErrorBody;
use super::{WebCalls, metadata, with_head};
use crate::contract::CallShape;
use crate::frame::HEADER;
use crate::server::exchange::form::{CallForm, CallProtocol, Codec};
use crate::server::exchange::protocol::InvalidCall;
use crate::server::exchange::response::{self, ResponseBody};
use crate::status::{http_status, plain_http_status};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use std::sync::Arc;

/// One call.
pub(super) async fn operation(State(calls): State<Arc<WebCalls>>, request: Request) -> Response {
    let found = calls.served.borrow().operations.find_plain(request.uri().path()).cloned();
    let path = found.as_ref().and_then(|found| found.path.parse::<Uri>().ok()).unwrap_or_else(|| request.uri().clone());
    let is_stream = found.is_some_and(|found| found.shape != CallShape::Unary);
    let fault = fault(request.method(), request.headers(), is_stream);
    let form = CallForm { timeout: None, protocol: CallProtocol::Rest, codec: Codec::Json, fault };
    let response = calls.serve(request, path, form).await;
    respond(response.unwrap_or_else(|refusal| response::refused(&refusal, "")))
}

/// What a request lacks to be a call.
fn fault(method: &Method, headers: &HeaderMap, is_stream: bool) -> Option<InvalidCall> {
    if method != Method::POST {
        return Some(InvalidCall::Method);
    }
    if media_type(headers).is_none_or(|kind| kind.essence_str() != "application/json") {
        return Some(InvalidCall::WebMediaType);
    }
    if !is_identity(headers, "content-encoding") {
        return Some(InvalidCall::WebEncoding);
    }
    is_stream.then_some(InvalidCall::RestStream)
}

fn respond(response: http::Response<ResponseBody>) -> Response {
    let (head, body) = response.into_parts();
    let mut sent = metadata(&head.headers);
    match body {
        ResponseBody::One(frame, _) => {
            with_head(StatusCode::OK, "application/json", sent, Body::from(frame.slice(HEADER.min(frame.len())..)))
        }
        _ => {
            let error = ErrorBody::of(&head.headers);
            let status = match head.extensions.get() {
                Some(reason) if head.status == StatusCode::OK => plain_http_status(*reason),
                _ if head.status == StatusCode::OK => http_status(error.code()),
                _ => head.status,
            };
            error.put_retry_after(&mut sent);
            if status == StatusCode::UNAUTHORIZED {
                sent.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            let problem = error.to_problem(status).to_string();
            with_head(status, "application/problem+json", sent, Body::from(problem))
        }
    }
}
