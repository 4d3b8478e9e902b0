//! A gRPC status as callers of the HTTPS port read it: Connect's error, and problem details (RFC 9457).

use data_encoding::BASE64_NOPAD;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use prost::Message;
use serde_json::{Map, Value, json};
use tonic::{Code, Status};
use tonic_types::pb;

/// A status with its details.
pub(super) struct ErrorBody {
    status: Status,
    details: pb::Status,
}

impl ErrorBody {
    /// The status of headers or trailers.
    pub fn of(headers: &HeaderMap) -> Self {
        let status = Status::from_header_map(headers).unwrap_or_else(|| Status::new(Code::Internal, "no status"));
        let details = pb::Status::decode(status.details()).unwrap_or_default();
        ErrorBody { status, details }
    }

    pub fn code(&self) -> Code {
        self.status.code()
    }

    /// A detail of this type.
    fn detail<M: Message + Default>(&self, name: &str) -> Option<M> {
        let detail = self.details.details.iter().find(|detail| detail.type_url.rsplit('/').next() == Some(name))?;
        M::decode(detail.value.as_slice()).ok()
    }

    /// Says in a header when to try again, where the status does, in whole seconds (RFC 9110, section 10.2.3).
    pub fn put_retry_after(&self, headers: &mut HeaderMap) {
        let delay = self.detail::<pb::RetryInfo>("google.rpc.RetryInfo").and_then(|info| info.retry_delay);
        if let Some(delay) = delay {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(delay.seconds + i64::from(delay.nanos > 0)));
        }
    }

    /// As Connect writes it; each detail with its content as JSON under `debug`, so that it needs no Protobuf to be read.
    pub fn to_connect(&self) -> Value {
        let details: Vec<Value> = self
            .details
            .details
            .iter()
            .map(|detail| {
                let name = detail.type_url.rsplit('/').next().unwrap_or_default();
                let mut one = json!({ "type": name, "value": BASE64_NOPAD.encode(&detail.value) });
                if let (Some(debug), Value::Object(one)) = (self.debug(name), &mut one) {
                    one.insert("debug".into(), debug);
                }
                one
            })
            .collect();
        let mut error = json!({ "code": code_name(self.code()), "message": self.status.message() });
        if let (false, Value::Object(error)) = (details.is_empty(), &mut error) {
            error.insert("details".into(), details.into());
        }
        error
    }

    fn debug(&self, name: &str) -> Option<Value> {
        match name {
            "google.rpc.ErrorInfo" => {
                let info: pb::ErrorInfo = self.detail(name)?;
                Some(json!({ "reason": info.reason, "domain": info.domain, "metadata": sorted(info.metadata) }))
            }
            "google.rpc.BadRequest" => Some(json!({ "fieldViolations": self.violations() })),
            "google.rpc.LocalizedMessage" => {
                let text: pb::LocalizedMessage = self.detail(name)?;
                Some(json!({ "locale": text.locale, "message": text.message }))
            }
            "google.rpc.RetryInfo" => {
                let delay = self.detail::<pb::RetryInfo>(name)?.retry_delay?;
                let seconds = delay.seconds as f64 + f64::from(delay.nanos) / 1e9;
                Some(json!({ "retryDelay": format!("{seconds}s") }))
            }
            _ => None,
        }
    }

    fn violations(&self) -> Vec<Value> {
        let request: pb::BadRequest = self.detail("google.rpc.BadRequest").unwrap_or_default();
        let one = |violation: &pb::bad_request::FieldViolation| json!({ "field": violation.field, "description": violation.description });
        request.field_violations.iter().map(one).collect()
    }

    /// As problem details. `type` names the reason of docs/statuses.md.
    pub fn to_problem(&self, status: StatusCode) -> Value {
        let info: pb::ErrorInfo = self.detail("google.rpc.ErrorInfo").unwrap_or_default();
        let localized: pb::LocalizedMessage = self.detail("google.rpc.LocalizedMessage").unwrap_or_default();
        let mut problem = Map::new();
        problem.insert("type".into(), format!("urn:ndxp:reason:{}", info.reason).into());
        problem.insert("title".into(), localized.message.into());
        problem.insert("status".into(), status.as_u16().into());
        problem.insert("detail".into(), self.status.message().into());
        problem.insert("reason".into(), info.reason.into());
        problem.insert("code".into(), code_name(self.code()).into());
        for (name, value) in sorted(info.metadata) {
            problem.insert(camel(&name), value);
        }
        let violations = self.violations();
        if !violations.is_empty() {
            problem.insert("violations".into(), violations.into());
        }
        problem.into()
    }
}

/// `exchange_id` as `exchangeId`.
fn camel(name: &str) -> String {
    let mut parts = name.split('_');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut letters = part.chars();
        out.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        out.push_str(letters.as_str());
    }
    out
}

fn sorted(metadata: std::collections::HashMap<String, String>) -> Map<String, Value> {
    let mut all: Vec<(String, String)> = metadata.into_iter().collect();
    all.sort();
    all.into_iter().map(|(name, value)| (name, value.into())).collect()
}

/// A code as Connect names it.
pub(super) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "canceled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}
