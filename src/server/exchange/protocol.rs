//! Checks whether a request on the gRPC port is a gRPC call at all
//! (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).

use crate::deadline::grpc_timeout;
use crate::headers::GRPC_ENCODING;
use crate::status::{Reason, Refusal};
use http::{HeaderMap, Method, StatusCode, header};
use mime::Mime;
use std::time::Duration;

/// The reason that a request is not a gRPC call that this gateway accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum InvalidCall {
    /// Every call is a POST.
    Method,
    /// Not `application/grpc`: the peer may not know `grpc-status`, so HTTP's own status is sent.
    MediaType,
    /// gRPC, but with messages that are not Protobuf.
    Messages,
    /// `grpc-timeout` is not one to eight digits and a unit.
    Timeout,
    /// Of the HTTPS port: a media type of no protocol that is served there.
    WebMediaType,
    /// Of the HTTPS port: `content-encoding`, or Connect's, names a compression.
    WebEncoding,
    /// `connect-protocol-version` is not 1.
    ConnectVersion,
    /// `connect-timeout-ms` is not one to ten digits.
    ConnectTimeout,
    /// The query of Connect's GET lacks `message` or `encoding`, or has one that cannot be read.
    ConnectQuery,
    /// A stream of messages has no form in plain JSON.
    RestStream,
}

impl InvalidCall {
    /// The HTTP status.
    pub(super) fn status(self) -> StatusCode {
        match self {
            InvalidCall::Method => StatusCode::METHOD_NOT_ALLOWED,
            InvalidCall::MediaType | InvalidCall::WebMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            InvalidCall::Messages
            | InvalidCall::Timeout
            | InvalidCall::WebEncoding
            | InvalidCall::ConnectVersion
            | InvalidCall::ConnectTimeout
            | InvalidCall::ConnectQuery
            | InvalidCall::RestStream => StatusCode::OK,
        }
    }
}

impl From<InvalidCall> for Refusal {
    fn from(unfit: InvalidCall) -> Self {
        let protocol = |detail: &str| Refusal::with(Reason::ProtocolUnsupported, detail);
        match unfit {
            InvalidCall::Method => {
                protocol("a call is a POST; GET is for reads of data that is about no person, over Connect")
            }
            InvalidCall::MediaType => protocol("send content-type application/grpc"),
            InvalidCall::Messages => {
                protocol("messages must be Protobuf: send content-type application/grpc or application/grpc+proto")
            }
            InvalidCall::Timeout => Refusal::with(
                Reason::RequestMalformed,
                "grpc-timeout must be one to eight digits and a unit: H, M, S, m, u or n",
            ),
            InvalidCall::WebMediaType => protocol(
                "on this port, send content-type application/json, application/proto, application/connect+json, \
                 application/connect+proto or application/grpc-web+proto",
            ),
            InvalidCall::WebEncoding => {
                Refusal::with(Reason::EncodingUnsupported, "send content-encoding identity, or none")
            }
            InvalidCall::ConnectVersion => {
                Refusal::with(Reason::RequestMalformed, "connect-protocol-version must be 1, where it is sent")
            }
            InvalidCall::ConnectQuery => Refusal::with(
                Reason::RequestMalformed,
                "a query needs message and encoding (json or proto), each once, and base64=1 where the message is base64url",
            ),
            InvalidCall::RestStream => {
                protocol("this operation has a stream of messages: call it by Connect, with application/connect+json")
            }
            InvalidCall::ConnectTimeout => {
                Refusal::with(Reason::RequestMalformed, "connect-timeout-ms must be one to ten digits")
            }
        }
    }
}

/// Returns the caller's deadline of a gRPC call, if it has one; the error is the fault that makes the call invalid.
pub(in crate::server) fn check(method: &Method, headers: &HeaderMap) -> Result<Option<Duration>, InvalidCall> {
    if method != Method::POST {
        return Err(InvalidCall::Method);
    }
    check_media_type(headers)?;
    grpc_timeout(headers).map_err(|_| InvalidCall::Timeout)
}

/// Distinguishes refusals of a compressed message: a message that is marked as compressed although `grpc-encoding`
/// names no compression is malformed (gRPC's compression specification, "Test cases"). Every other refusal stays the
/// same.
pub(in crate::server) fn by_encoding(refusal: Refusal, headers: &HeaderMap) -> Refusal {
    let named = headers.get(&GRPC_ENCODING).is_some_and(|encoding| encoding != "identity");
    if refusal.reason == Reason::EncodingUnsupported && !named {
        Reason::CompressionFlagInvalid.into()
    } else {
        refusal
    }
}

fn check_media_type(headers: &HeaderMap) -> Result<(), InvalidCall> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(InvalidCall::MediaType) };
    // Nearly all calls use this form.
    if value == "application/grpc" {
        return Ok(());
    }
    let kind: Option<Mime> = value.to_str().ok().and_then(|text| text.parse().ok());
    let Some(kind) = kind.filter(|kind| kind.type_() == "application" && kind.subtype() == "grpc") else {
        return Err(InvalidCall::MediaType);
    };
    match kind.suffix() {
        None => Ok(()),
        Some(suffix) if suffix == "proto" => Ok(()),
        Some(_) => Err(InvalidCall::Messages),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn checked(method: &str, headers: &[(&str, &str)]) -> Result<Option<Duration>, InvalidCall> {
        let request = headers
            .iter()
            .fold(http::Request::builder().method(method), |request, (name, value)| request.header(*name, *value));
        let request = request.body(()).unwrap();
        check(request.method(), request.headers())
    }

    #[test]
    fn content_types_are_compared_as_media_types() {
        for kind in [
            "application/grpc",
            "Application/GRPC",
            "application/grpc+proto",
            "application/grpc+Proto",
            "application/grpc;charset=utf-8",
            "application/grpc+proto; messageType=\"a.B\"",
        ] {
            assert_eq!(checked("POST", &[("content-type", kind)]), Ok(None), "{kind}");
        }
        for kind in ["application/grpc+json", "application/grpc+protobuf", "application/grpc+thrift; a=b"] {
            assert_eq!(checked("POST", &[("content-type", kind)]), Err(InvalidCall::Messages), "{kind}");
        }
        for kind in [
            "",
            "application/json",
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpcx",
            "text/grpc",
            "application/grpc, application/grpc",
            "grpc",
        ] {
            assert_eq!(checked("POST", &[("content-type", kind)]), Err(InvalidCall::MediaType), "{kind:?}");
        }
        assert_eq!(checked("POST", &[]), Err(InvalidCall::MediaType));
        let twice = [("content-type", "application/grpc"), ("content-type", "application/json")];
        assert_eq!(checked("POST", &twice), Err(InvalidCall::MediaType));
        assert_eq!(checked("GET", &[("content-type", "application/grpc")]), Err(InvalidCall::Method));
    }

    #[test]
    fn a_timeout_is_one_or_the_call_is_none() {
        let with = |value| checked("POST", &[("content-type", "application/grpc"), ("grpc-timeout", value)]);
        assert_eq!(with("1500m"), Ok(Some(Duration::from_millis(1_500))));
        assert_eq!(with("99999999H"), Ok(Some(Duration::from_secs(99_999_999 * 3_600))));
        assert_eq!(with("0n"), Ok(Some(Duration::ZERO)));
        for malformed in ["", "5", "m", "5s", "-5S", "+5S", "1.5S", "123456789m", "5 S", "5S ", "5SS", "0x5S", "٣S"] {
            assert_eq!(with(malformed), Err(InvalidCall::Timeout), "{malformed:?}");
        }
        let twice = [("content-type", "application/grpc"), ("grpc-timeout", "5S"), ("grpc-timeout", "6S")];
        assert_eq!(checked("POST", &twice), Err(InvalidCall::Timeout));
    }
}
