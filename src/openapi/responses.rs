//! The responses of an operation: success, or problem details by HTTP status with the reasons behind each.

use crate::contract::Operation;
use crate::status::{Reason, plain_http_status};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Reasons that no operation's call can have: those of administration, of the token endpoints, and of connections.
const NOT_OF_CALLS: [Reason; 14] = [
    Reason::TooManyWatches,
    Reason::StaffUnknown,
    Reason::RoleMissing,
    Reason::GrantTypeUnsupported,
    Reason::ObjectUnknown,
    Reason::ObjectExists,
    Reason::PseudonymKeyMissing,
    Reason::ChangeOutdated,
    Reason::ChangesFull,
    Reason::RegistryUnavailable,
    Reason::AdministrationBusy,
    Reason::HandshakeFailed,
    Reason::CertificateRevoked,
    Reason::ProtocolUnsupported,
];

/// The reasons of calls by HTTP status.
pub(super) type ByStatus = BTreeMap<u16, Vec<Reason>>;

/// Returns the reasons of calls by HTTP status. 405 and 415 are HTTP's own: another method, another media type.
pub(super) fn by_status() -> ByStatus {
    let mut all = ByStatus::new();
    for reason in Reason::ALL.iter().filter(|reason| !NOT_OF_CALLS.contains(reason)) {
        all.entry(plain_http_status(*reason).as_u16()).or_default().push(*reason);
    }
    all.insert(405, vec![Reason::ProtocolUnsupported]);
    all.insert(415, vec![Reason::ProtocolUnsupported]);
    all
}

/// The responses of an operation.
pub(super) fn of(operation: &Operation, body: Value, by_status: &ByStatus) -> Value {
    let header = |name: &str| json!({ "$ref": format!("#/components/headers/{name}") });
    let mut all = Map::new();
    all.insert(
        "200".into(),
        json!({
            "description": format!("{} Fields that the grant does not allow are left out.", operation.response.message.name()),
            "headers": {
                "ndxp-exchange-id": header("ndxp-exchange-id"),
                "ndxp-log-index": header("ndxp-log-index"),
                "ndxp-request-salt": header("ndxp-request-salt"),
                "ndxp-response-salt": header("ndxp-response-salt"),
            },
            "content": { "application/json": body },
        }),
    );
    for status in by_status.keys() {
        all.insert(status.to_string(), json!({ "$ref": format!("#/components/responses/{status}") }));
    }
    all.into()
}

/// Returns one response per status; all operations share them.
pub(super) fn components(by_status: &ByStatus) -> Map<String, Value> {
    let one = |(status, reasons): (&u16, &Vec<Reason>)| {
        let lines: Vec<String> =
            reasons.iter().map(|reason| format!("- `{}`: {}", reason.as_str(), reason.english())).collect();
        let problem = json!({ "schema": { "$ref": "#/components/schemas/Problem" } });
        let mut response =
            json!({ "description": lines.join("\n"), "content": { "application/problem+json": problem } });
        if matches!(status, 429 | 503) {
            response["headers"] = json!({ "retry-after": { "$ref": "#/components/headers/retry-after" } });
        }
        (status.to_string(), response)
    };
    by_status.iter().map(one).collect()
}

/// The headers of responses.
pub(super) fn headers() -> Value {
    let text = |words: &str| json!({ "description": words, "schema": { "type": "string" } });
    json!({
        "ndxp-exchange-id": text("The exchange's id: quote it when you report a problem with the call."),
        "ndxp-log-index": text("The index of the exchange's entry in the log: a receipt is got by it."),
        "ndxp-request-salt": text("Opens the commitment to the request's bytes in the entry."),
        "ndxp-response-salt": text("Opens the commitment to the response's bytes in the entry."),
        "retry-after": { "description": "Seconds to wait (RFC 9110, section 10.2.3).", "schema": { "type": "integer", "minimum": 0 } },
    })
}

/// Problem details (RFC 9457).
pub(super) fn problem(by_status: &ByStatus) -> Value {
    let reasons: BTreeSet<&str> = by_status.values().flatten().map(|reason| reason.as_str()).collect();
    let text = |words: &str| json!({ "type": "string", "description": words });
    json!({
        "type": "object",
        "required": ["type", "title", "status", "detail", "reason", "code"],
        "properties": {
            "type": text("`urn:ndxp:reason:` and the reason."),
            "title": text("What happened, in Vietnamese."),
            "status": { "type": "integer", "description": "The HTTP status." },
            "detail": text("What happened and what to do, in English."),
            "reason": { "type": "string", "enum": reasons, "description": "The reason, as in the exchange log." },
            "code": text("The gRPC status code, in Connect's form."),
            "fault": text("Whose fault it is: the caller's, the gateway's, the hub's or the source's."),
            "exchangeId": text("The exchange's id."),
            "violations": {
                "type": "array",
                "description": "Each fault of the request, by path of the field.",
                "items": { "type": "object", "properties": { "field": text("The field."), "description": text("What it must be.") } },
            },
        },
    })
}
