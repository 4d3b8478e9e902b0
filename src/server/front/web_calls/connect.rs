//! The Connect protocol (https://connectrpc.com/docs/protocol/), version 1.

use super::error::{ErrorBody, code_name};
use super::{frames, metadata, with_head};
use crate::frame::{HEADER, frame_with_flag};
use crate::server::exchange::form::{CallForm, CallProtocol, Codec};
use crate::server::exchange::protocol::InvalidCall;
use crate::server::exchange::response::ResponseBody;
use crate::status::http_status;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use http_body::Frame;
use serde_json::{Map, Value, json};
use std::convert::Infallible;
use std::time::Duration;

/// The flag of the envelope that ends a stream.
const END_STREAM: u8 = 2;

/// The form of a request by its media type; Connect's, where that says nothing.
pub(super) fn form(method: &Method, headers: &HeaderMap) -> CallForm {
    let known = protocol(headers);
    let (protocol, codec) = known.unwrap_or((CallProtocol::Connect, Codec::Json));
    let checked = match (method, known) {
        (&Method::POST, None) => Err(InvalidCall::WebMediaType),
        (&Method::POST, Some((CallProtocol::GrpcWeb, _))) if !is_identity(headers, "grpc-encoding") => {
            Err(InvalidCall::WebEncoding)
        }
        (&Method::POST, Some((CallProtocol::GrpcWeb, _))) => {
            crate::deadline::grpc_timeout(headers).map_err(|_| InvalidCall::Timeout)
        }
        (&Method::POST, Some((protocol, _))) => check(protocol, headers),
        _ => Err(InvalidCall::Method),
    };
    CallForm { timeout: checked.ok().flatten(), protocol, codec, fault: checked.err() }
}

/// The deadline of a call by Connect, or what it lacks to be one.
pub(super) fn check(protocol: CallProtocol, headers: &HeaderMap) -> Result<Option<Duration>, InvalidCall> {
    if headers.get("connect-protocol-version").is_some_and(|version| version != "1") {
        return Err(InvalidCall::ConnectVersion);
    }
    let encoding = if protocol == CallProtocol::Connect { "content-encoding" } else { "connect-content-encoding" };
    if !is_identity(headers, encoding) {
        return Err(InvalidCall::WebEncoding);
    }
    timeout(headers)
}

/// Whether a header names no coding but identity.
pub(super) fn is_identity(headers: &HeaderMap, name: &str) -> bool {
    headers.get_all(name).iter().all(|coding| coding == "identity")
}

/// The one media type of a request, whose text is UTF-8.
pub(super) fn media_type(headers: &HeaderMap) -> Option<mime::Mime> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let kind: mime::Mime = value.to_str().ok()?.parse().ok()?;
    kind.get_param(mime::CHARSET).is_none_or(|charset| charset == mime::UTF_8).then_some(kind)
}

/// What a media type says, if it is one of those served here.
fn protocol(headers: &HeaderMap) -> Option<(CallProtocol, Codec)> {
    match media_type(headers)?.essence_str() {
        "application/json" => Some((CallProtocol::Connect, Codec::Json)),
        "application/proto" => Some((CallProtocol::Connect, Codec::Proto)),
        "application/connect+json" => Some((CallProtocol::ConnectStream, Codec::Json)),
        "application/connect+proto" => Some((CallProtocol::ConnectStream, Codec::Proto)),
        "application/grpc-web" | "application/grpc-web+proto" => Some((CallProtocol::GrpcWeb, Codec::Proto)),
        _ => None,
    }
}

/// `connect-timeout-ms`: one to ten digits.
fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, InvalidCall> {
    let mut values = headers.get_all("connect-timeout-ms").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| values.next().is_none()).ok_or(InvalidCall::ConnectTimeout)?;
    let is_number = (1..=10).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let ms = text.parse().ok().filter(|_| is_number).ok_or(InvalidCall::ConnectTimeout)?;
    Ok(Some(Duration::from_millis(ms)))
}

/// The response to a call with one response: the message alone, or the error as JSON.
pub(super) fn unary(response: http::Response<ResponseBody>, codec: Codec) -> Response {
    let (head, body) = response.into_parts();
    let mut sent = metadata(&head.headers);
    match body {
        ResponseBody::One(frame, trailers) => {
            for (name, value) in &metadata(&trailers) {
                if let Ok(name) = HeaderName::try_from(format!("trailer-{name}")) {
                    sent.append(name, value.clone());
                }
            }
            let media_type = match codec {
                Codec::Json => "application/json",
                Codec::Proto => "application/proto",
            };
            with_head(StatusCode::OK, media_type, sent, Body::from(frame.slice(HEADER.min(frame.len())..)))
        }
        _ => {
            let error = ErrorBody::of(&head.headers);
            let status = if head.status == StatusCode::OK { http_status(error.code()) } else { head.status };
            error.put_retry_after(&mut sent);
            let mut body = error.to_connect();
            if head.status != StatusCode::OK {
                // No code has these statuses (Connect, "Error Codes"); this is the one that clients infer from them.
                body["code"] = code_name(tonic::Code::Unknown).into();
            }
            with_head(status, "application/json", sent, Body::from(body.to_string()))
        }
    }
}

/// The response to a stream: an envelope for each message, and one that says how it ended.
pub(super) fn stream(response: http::Response<ResponseBody>, codec: Codec) -> Response {
    let (head, body) = response.into_parts();
    let sent = metadata(&head.headers);
    let media_type = match codec {
        Codec::Json => "application/connect+json",
        Codec::Proto => "application/connect+proto",
    };
    let body = match body {
        ResponseBody::Empty => Body::from(end_of_stream(&head.headers, &HeaderMap::new())),
        body => {
            let envelopes = frames(body).map(|frame| match frame.into_data() {
                Ok(message) => message,
                Err(frame) => trailers(&frame),
            });
            Body::from_stream(envelopes.map(Ok::<_, Infallible>))
        }
    };
    with_head(StatusCode::OK, media_type, sent, body)
}

fn trailers(frame: &Frame<Bytes>) -> Bytes {
    let none = HeaderMap::new();
    let trailers = frame.trailers_ref().unwrap_or(&none);
    end_of_stream(trailers, &metadata(trailers))
}

/// The envelope that ends a stream: the error of the trailers, if they have one, and their metadata.
fn end_of_stream(status: &HeaderMap, metadata: &HeaderMap) -> Bytes {
    let mut end = Map::new();
    let error = ErrorBody::of(status);
    if error.code() != tonic::Code::Ok {
        end.insert("error".into(), error.to_connect());
    }
    let mut values: Map<String, Value> = Map::new();
    for (name, value) in metadata {
        if let (Ok(text), Value::Array(all)) =
            (value.to_str(), values.entry(name.as_str()).or_insert_with(|| json!([])))
        {
            all.push(text.into());
        }
    }
    if !values.is_empty() {
        end.insert("metadata".into(), values.into());
    }
    frame_with_flag(END_STREAM, Value::from(end).to_string().as_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn formed(method: &str, headers: &[(&str, &str)]) -> Result<(CallProtocol, Codec, Option<u128>), InvalidCall> {
        let request = headers
            .iter()
            .fold(http::Request::builder().method(method), |request, (name, value)| request.header(*name, *value));
        let request = request.body(()).unwrap();
        let form = form(request.method(), request.headers());
        Ok((form.protocol, form.codec, form.call()?.map(|timeout| timeout.as_millis())))
    }

    #[test]
    fn the_media_type_says_which_protocol_it_is() {
        for (kind, protocol, codec) in [
            ("application/json", CallProtocol::Connect, Codec::Json),
            ("Application/JSON; charset=UTF-8", CallProtocol::Connect, Codec::Json),
            ("application/proto", CallProtocol::Connect, Codec::Proto),
            ("application/connect+json", CallProtocol::ConnectStream, Codec::Json),
            ("application/connect+proto", CallProtocol::ConnectStream, Codec::Proto),
            ("application/grpc-web+proto", CallProtocol::GrpcWeb, Codec::Proto),
        ] {
            assert_eq!(formed("POST", &[("content-type", kind)]), Ok((protocol, codec, None)), "{kind}");
        }
        for kind in [
            "",
            "text/json",
            "application/json; charset=utf-16",
            "application/grpc",
            "application/grpc-web-text",
            "a, b",
        ] {
            assert_eq!(formed("POST", &[("content-type", kind)]), Err(InvalidCall::WebMediaType), "{kind:?}");
        }
        assert_eq!(formed("POST", &[]), Err(InvalidCall::WebMediaType));
        let twice = [("content-type", "application/json"), ("content-type", "application/proto")];
        assert_eq!(formed("POST", &twice), Err(InvalidCall::WebMediaType));
        for method in ["GET", "PUT", "OPTIONS"] {
            assert_eq!(formed(method, &[("content-type", "application/json")]), Err(InvalidCall::Method), "{method}");
        }
    }

    #[test]
    fn versions_codings_and_timeouts_are_understood_or_refused() {
        let with = |name, value| formed("POST", &[("content-type", "application/json"), (name, value)]);
        assert_eq!(with("connect-timeout-ms", "1500").unwrap().2, Some(1_500));
        assert_eq!(with("connect-timeout-ms", "9999999999").unwrap().2, Some(9_999_999_999));
        for wrong in ["", "-1", "+1", "1.5", "1s", "12345678901", " 1"] {
            assert_eq!(with("connect-timeout-ms", wrong), Err(InvalidCall::ConnectTimeout), "{wrong:?}");
        }
        assert!(with("connect-protocol-version", "1").is_ok());
        assert_eq!(with("connect-protocol-version", "2"), Err(InvalidCall::ConnectVersion));
        assert!(with("content-encoding", "identity").is_ok());
        assert_eq!(with("content-encoding", "gzip"), Err(InvalidCall::WebEncoding));
        let stream = |name, value| formed("POST", &[("content-type", "application/connect+json"), (name, value)]);
        assert_eq!(stream("connect-content-encoding", "gzip"), Err(InvalidCall::WebEncoding));
    }

    #[test]
    fn a_stream_ends_with_its_error_and_its_metadata() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        trailers.insert("ndxp-log-index", HeaderValue::from_static("7"));
        let end = end_of_stream(&trailers, &metadata(&trailers));
        assert_eq!((end[0], &end[HEADER..]), (2, br#"{"metadata":{"ndxp-log-index":["7"]}}"#.as_slice()));
        trailers.insert("grpc-status", HeaderValue::from_static("5"));
        trailers.insert("grpc-message", HeaderValue::from_static("none%20such"));
        let end = end_of_stream(&trailers, &HeaderMap::new());
        assert_eq!(&end[HEADER..], br#"{"error":{"code":"not_found","message":"none such"}}"#);
    }
}
