//! Responses on the wire: gRPC over HTTP/2 (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).

use super::context::Salts;
use super::protocol::InvalidCall;
use crate::access::limits::Remaining;
use crate::contract::notes::Notes;
use crate::frame::frame;
use crate::headers::GRPC_STATUS;
use crate::hex::hex;
use crate::http2::Http2Error;
use crate::http2::server::Reply;
use crate::percent;
use crate::registry::MaintenanceNotice;
use crate::status::{Reason, Refusal};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::BodyStream;
use std::convert::Infallible;

/// Metadata that names the exchange.
pub const EXCHANGE_ID: &str = "ndxp-exchange-id";
/// Metadata with the entry's index in the log.
pub const LOG_INDEX: &str = "ndxp-log-index";
/// Metadata with the salt of the request's commitment, in hexadecimal.
pub const REQUEST_SALT: &str = "ndxp-request-salt";
/// Metadata with the salt of the response's commitment, in hexadecimal.
pub const RESPONSE_SALT: &str = "ndxp-response-salt";
/// The same under the name of earlier versions; this version still sends it.
const OLD_RESPONSE_SALT: &str = "ndxp-answer-salt";
/// Metadata with the fields that were omitted because the source's value could not be read, by path, separated by
/// commas.
pub const DROPPED_FIELDS: &str = "ndxp-dropped-fields";
/// Metadata with the codes that the contract does not know, as `path=code`, separated by commas; a code is percent-encoded.
pub const UNKNOWN_CODES: &str = "ndxp-unknown-codes";

/// Metadata with the announced or present maintenance of the source, as an interval of RFC 3339 times
/// (`2026-11-27T22:00:00+07:00/2026-11-28T02:00:00+07:00`).
pub const MAINTENANCE: &str = "ndxp-maintenance";

/// Metadata with the calls that may be made at once now.
pub const RATE_REMAINING: &str = "ndxp-rate-left";
/// Metadata with the calls that remain today, if the grant has a quota.
pub const QUOTA_REMAINING: &str = "ndxp-quota-left";

/// The body of a response.
pub enum ResponseBody {
    /// Empty: only a status, in the headers.
    Empty,
    /// One message with its frame, and the trailers.
    One(Bytes, HeaderMap),
    /// A stream that ends with its trailers.
    Stream(BoxStream<'static, Frame<Bytes>>),
    /// The response of a tonic service (health, reflection, administration, audit).
    Tonic(tonic::body::Body),
}

/// Sends a response. The caller may have disconnected, which is no fault.
pub(in crate::server) async fn send(answer: Response<ResponseBody>, reply: Reply) -> Result<(), Http2Error> {
    let (head, body) = answer.into_parts();
    let head = Response::from_parts(head, ());
    match body {
        ResponseBody::Empty => reply.head(head),
        ResponseBody::One(message, trailers) => reply.begin(head)?.send_message(message, trailers).await,
        ResponseBody::Stream(frames) => reply.begin(head)?.frames(frames.map(Ok::<_, Infallible>)).await,
        ResponseBody::Tonic(body) if body.is_end_stream() => reply.head(head),
        ResponseBody::Tonic(body) => reply.begin(head)?.frames(BodyStream::new(body)).await,
    }
}

/// Returns the head of a response, with its exchange id.
pub fn head(exchange_id: &str) -> Response<ResponseBody> {
    let mut answer = Response::new(ResponseBody::Empty);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    put(headers, EXCHANGE_ID, exchange_id);
    answer
}

/// Inserts a value that the gateway generates; an invalid header value would be omitted. Such values belong to this
/// response only: in HPACK's dynamic table they would only evict values that repeat (RFC 7541, section 6.2.3).
pub fn put(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(mut value) = HeaderValue::from_str(value) {
        value.set_sensitive(true);
        headers.insert(name, value);
    }
}

/// Inserts the index of an entry, if it is known before the entry is sealed.
pub(in crate::server) fn put_index(headers: &mut HeaderMap, index: Option<u64>) {
    if let Some(index) = index {
        put(headers, LOG_INDEX, &index.to_string());
    }
}

/// Inserts log index, salts, and the remaining rate and quota, as metadata.
pub(in crate::server) fn put_entry(
    headers: &mut HeaderMap,
    index: Option<u64>,
    salts: &Salts,
    left: Option<Remaining>,
) {
    put_index(headers, index);
    put(headers, REQUEST_SALT, &hex(&salts.request));
    let response_salt = hex(&salts.response);
    put(headers, RESPONSE_SALT, &response_salt);
    put(headers, OLD_RESPONSE_SALT, &response_salt);
    if let Some(left) = left {
        put(headers, RATE_REMAINING, &left.rate.to_string());
        if let Some(quota) = left.quota {
            put(headers, QUOTA_REMAINING, &quota.to_string());
        }
    }
}

/// Inserts the announced maintenance of the source, if there is one.
pub fn put_maintenance(headers: &mut HeaderMap, notice: Option<&MaintenanceNotice>) {
    if let Some(notice) = notice {
        put(headers, MAINTENANCE, &notice.interval());
    }
}

/// Inserts the notes about the response that concern fields that the caller may see.
pub fn put_notes(headers: &mut HeaderMap, notes: &Notes, shown: impl Fn(&str) -> bool) {
    let dropped: Vec<&str> = notes.dropped_fields.iter().map(String::as_str).filter(|path| shown(path)).collect();
    if !dropped.is_empty() {
        put(headers, DROPPED_FIELDS, &dropped.join(","));
    }
    let codes = notes.unknown_codes.iter().filter(|(path, _)| shown(path));
    let codes: Vec<String> =
        codes.filter_map(|(path, code)| Some(format!("{path}={}", percent::encode(code.as_ref()?)))).collect();
    if !codes.is_empty() {
        put(headers, UNKNOWN_CODES, &codes.join(","));
    }
}

/// `grpc-status: 0`.
pub fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert(&GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}

/// A refusal as trailers.
pub fn refusal_trailers(refusal: &Refusal, exchange_id: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if refusal.to_status(exchange_id).add_header(&mut trailers).is_err() {
        trailers.insert(&GRPC_STATUS, HeaderValue::from_static("13"));
    }
    trailers
}

/// Returns a unary response.
pub fn unary(mut answer: Response<ResponseBody>, message: &Bytes) -> Response<ResponseBody> {
    *answer.body_mut() = ResponseBody::One(frame(message), ok_trailers());
    answer
}

/// Returns a refusal: only a status. Its reason stays attached until it is sent.
pub fn refused(refusal: &Refusal, exchange_id: &str) -> Response<ResponseBody> {
    let mut answer = head(exchange_id);
    answer.extensions_mut().insert(refusal.reason);
    answer.headers_mut().extend(refusal_trailers(refusal, exchange_id));
    if refusal.reason == Reason::EncodingUnsupported {
        // The accepted encoding (gRPC's compression specification).
        answer.headers_mut().insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
    }
    answer
}

/// The response with HTTP's status, where the peer may not know gRPC's. A response for another reason stays.
pub(in crate::server) fn over_http(fault: InvalidCall, mut answer: Response<ResponseBody>) -> Response<ResponseBody> {
    if answer.extensions().get() != Some(&Refusal::from(fault).reason) {
        return answer;
    }
    *answer.status_mut() = fault.status();
    if fault.status() != StatusCode::OK {
        answer.headers_mut().remove(header::CONTENT_TYPE);
    }
    if fault == InvalidCall::Method {
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
    answer
}

/// The response of a tonic service.
pub fn from_tonic(answer: Result<Response<tonic::body::Body>, Infallible>) -> Response<ResponseBody> {
    match answer {
        Ok(answer) => answer.map(ResponseBody::Tonic),
        Err(never) => match never {},
    }
}
