//! The status of a gRPC source: its code, and the details that are passed on.

use super::SourceError;
use super::error::GrpcStatus;
use super::retry_after::of_retry_info;
use crate::status::SourceStatus;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use http::HeaderMap;
use prost::Message;
use tonic::Code;
use tonic_types::pb;

/// Maximum number of detail types that the entry names, and maximum length of each name.
const MAX_DROPPED: (usize, usize) = (8, 100);

/// Returns the error for trailers with this code.
pub(super) fn read(code: Code, trailers: &HeaderMap) -> SourceError {
    let mut retry_after = None;
    let mut status = SourceStatus::default();
    if trailers.get("grpc-message").is_some_and(|message| !message.is_empty()) {
        status.dropped.push("message".to_owned());
    }
    for detail in details(trailers) {
        let kind = detail.type_url.rsplit('/').next().unwrap_or_default();
        let understood = match kind {
            "google.rpc.RetryInfo" => {
                retry_after = pb::RetryInfo::decode(detail.value.as_slice()).ok().and_then(|info| of_retry_info(&info));
                retry_after.is_some()
            }
            "google.rpc.ErrorInfo" => {
                let info = pb::ErrorInfo::decode(detail.value.as_slice()).ok();
                let reason = info.as_ref().and_then(code_of);
                // Its metadata is free text, as the message is.
                let whole = reason.is_some() && info.is_some_and(|info| info.metadata.is_empty());
                status.reason = reason.unwrap_or_default();
                whole
            }
            _ => false,
        };
        if !understood && status.dropped.len() < MAX_DROPPED.0 {
            let plain = |c: &char| c.is_ascii_alphanumeric() || "._".contains(*c);
            status.dropped.push(kind.chars().filter(plain).take(MAX_DROPPED.1).collect());
        }
    }
    GrpcStatus { code, retry_after, status }.into()
}

/// `grpc-status-details-bin`: a `google.rpc.Status`, in base64 with or without padding (gRPC over HTTP/2, "Custom-Metadata").
fn details(trailers: &HeaderMap) -> Vec<prost_types::Any> {
    let bytes = trailers.get("grpc-status-details-bin").map(|value| value.as_bytes()).unwrap_or_default();
    let decoded = STANDARD.decode(bytes).or_else(|_| STANDARD_NO_PAD.decode(bytes));
    let status = decoded.ok().and_then(|bytes| pb::Status::decode(bytes.as_slice()).ok());
    status.map(|status| status.details).unwrap_or_default()
}

/// `domain/REASON`, if both have the form that error_details.proto defines: a service name, and an identifier of at
/// most 63 characters. No personal data has that form by accident.
fn code_of(info: &pb::ErrorInfo) -> Option<String> {
    let reason = (1..=63).contains(&info.reason.len())
        && info.reason.starts_with(|c: char| c.is_ascii_uppercase())
        && info.reason.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    let domain = info.domain.len() <= 100
        && info.domain.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c))
        && !info.domain.chars().all(|c| c.is_ascii_digit() || ".-".contains(c));
    (reason && domain).then(|| format!("{}/{}", info.domain, info.reason))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn info(domain: &str, reason: &str) -> pb::ErrorInfo {
        pb::ErrorInfo { domain: domain.into(), reason: reason.into(), ..pb::ErrorInfo::default() }
    }

    #[test]
    fn b5_only_what_has_the_form_of_a_code_is_handed_on() {
        assert_eq!(code_of(&info("officials.example", "ON_LEAVE")).unwrap(), "officials.example/ON_LEAVE");
        for (domain, reason) in [
            ("officials.example", "Nguyễn Văn A"),
            ("officials.example", "on leave"),
            ("officials.example", ""),
            ("officials.example", "001085012345"),
            ("001085012345", "ON_LEAVE"),
            ("", "ON_LEAVE"),
            ("officials example", "ON_LEAVE"),
        ] {
            assert_eq!(code_of(&info(domain, reason)), None, "{domain} {reason}");
        }
    }

    #[test]
    fn b5_details_that_cannot_be_read_are_none() {
        let headers =
            |value: &str| HeaderMap::from_iter([("grpc-status-details-bin".parse().unwrap(), value.parse().unwrap())]);
        for garbled in ["", "!!", "AAAA", "CAUSBWdhcmJs"] {
            assert!(details(&headers(garbled)).is_empty(), "{garbled}");
        }
    }
}
