//! From a judged document to the contract's messages, for every driver: decides what is found, what is absent, and what
//! is rejected.

use super::{CallerFault, SourceError, drift, error::require_success};
use crate::contract::Operation;
use crate::contract::map::MapError;
use crate::contract::map::outcome::{self, OutcomeVerdict};
use crate::contract::map::response::{self, FoundContent, Read};
use crate::contract::map::response_start::{Start, start};
use crate::contract::map::values;
use crate::contract::notes::Notes;
use crate::contract::plan::WirePath;
use crate::contract::settings::CallContext;
use bytes::Bytes;
use serde_json::{Map, Value};

/// A response that signals success.
#[derive(Debug)]
pub struct EvaluatedResponse {
    /// The document of the response.
    pub document: Value,
    /// Whether a sign of the contract confirms it: its code, or its body element.
    by_sign: bool,
    /// Drift noticed before the document was built: attributes of XML.
    noticed: Notes,
}

impl EvaluatedResponse {
    /// Adds drift that was noticed in the source's own form of the document.
    pub(super) fn with(self, noticed: Notes) -> Self {
        EvaluatedResponse { noticed, ..self }
    }

    fn notes(&self, operation: &Operation) -> Notes {
        let mut notes = self.noticed.clone();
        operation.response_shape.document.observe(&self.document, &String::new, &mut notes);
        notes
    }
}

/// Judges a document; `element`: the contract's body element that contains it.
///
/// # Errors
/// The meaning that the contract's outcome gives to it.
pub fn evaluate(
    operation: &Operation,
    document: Value,
    element: Option<&str>,
) -> Result<EvaluatedResponse, SourceError> {
    let place = match start(&document, &operation.response_root) {
        Start::At(place) => place,
        Start::Empty | Start::Missing => &document,
    };
    let verdict = outcome::evaluate(&operation.outcome, &document, place);
    let failed = matches!(verdict, OutcomeVerdict::Failure(..));
    if !failed && operation.outcome.signals_no_record(&document, element) {
        return Err(CallerFault::NotFound("no record".into()).into());
    }
    let coded = require_success(verdict)?;
    Ok(EvaluatedResponse { by_sign: coded || element.is_some(), document, noticed: Notes::default() })
}

/// Reads the one message of a response.
///
/// # Errors
/// The response does not match the contract, or it has drifted and the policy refuses that.
pub fn read_one(
    operation: &Operation,
    judged: &EvaluatedResponse,
    context: &CallContext,
) -> Result<Bytes, SourceError> {
    let mut notes = judged.notes(operation);
    let message = one(operation, judged, &mut notes);
    drift::apply_policy(operation, context, notes, message)
}

fn one(operation: &Operation, judged: &EvaluatedResponse, notes: &mut Notes) -> Result<Bytes, SourceError> {
    let document = &judged.document;
    let nothing = Value::Object(Map::new());
    let start = start(document, &operation.response_root);
    let place = match start {
        Start::At(place) => place,
        Start::Empty if operation.outcome.empty_is_not_found => {
            return Err(CallerFault::NotFound("empty".into()).into());
        }
        Start::Empty | Start::Missing => &nothing,
    };
    let read = match (start, response::read_with_notes(&operation.response, place, document, notes)) {
        (Start::At(_), read) => read?,
        // The content outside of the empty location may be the complete response.
        (_, Ok(read)) if read.found == FoundContent::Value => read,
        (Start::Empty, _) if is_list(operation) => empty(),
        (_, _) if says_enough(operation, judged, document) => empty(),
        (Start::Empty, _) => return Err(unbelieved()),
        (_, _) => return Err(missing(operation)),
    };
    believe(operation, judged, place, read)
}

fn empty() -> Read {
    Read { message: Vec::new(), found: FoundContent::EmptyList }
}

/// Returns whether the found content is the contract's.
fn believe(operation: &Operation, judged: &EvaluatedResponse, place: &Value, read: Read) -> Result<Bytes, SourceError> {
    let at_root = std::ptr::eq(place, &raw const judged.document);
    let ours = |name: &str| at_root && is_of_outcome(operation, name);
    let mut left = response::leftovers(&operation.response, place, ours);
    match read.found {
        FoundContent::Value => Ok(read.message.into()),
        FoundContent::EmptyList if !left.any(is_structure) => Ok(read.message.into()),
        FoundContent::EmptyDocument | FoundContent::Names if says_enough(operation, judged, place) => {
            Ok(read.message.into())
        }
        FoundContent::Names if operation.outcome.empty_is_not_found && left.next().is_none() => {
            Err(CallerFault::NotFound("empty".into()).into())
        }
        _ => Err(unbelieved()),
    }
}

/// Returns whether success alone is a complete response: of an operation with a response type without fields, or of a
/// write with a success code, if nothing is left over that could be the requested content.
fn says_enough(operation: &Operation, judged: &EvaluatedResponse, place: &Value) -> bool {
    if operation.response.fields.is_empty() {
        return place.is_object();
    }
    let mut left = response::leftovers(&operation.response, place, |_| false);
    operation.writes && judged.by_sign && !left.any(is_structure)
}

fn is_of_outcome(operation: &Operation, name: &str) -> bool {
    operation.outcome.code.iter().any(|path| path.parts.first().is_some_and(|first| first == name))
}

fn is_structure(value: &Value) -> bool {
    value.is_object() || value.is_array()
}

/// Returns whether the response's message is the list at its location.
fn is_list(operation: &Operation) -> bool {
    let own = |name: &WirePath| name.parts.is_empty();
    operation.response.fields.iter().any(|field| field.list && field.names.iter().any(own))
}

/// Reads the list of a server stream. Each of its items must match the contract.
///
/// # Errors
/// As [`read_one`].
pub fn read_list(
    operation: &Operation,
    judged: &EvaluatedResponse,
    context: &CallContext,
) -> Result<Vec<Bytes>, SourceError> {
    let mut notes = judged.notes(operation);
    let messages = list(operation, judged, &mut notes);
    drift::apply_policy(operation, context, notes, messages)
}

fn list(operation: &Operation, judged: &EvaluatedResponse, notes: &mut Notes) -> Result<Vec<Bytes>, SourceError> {
    let document = &judged.document;
    let place = match start(document, &operation.response_root) {
        Start::At(place) => place,
        Start::Empty if operation.outcome.empty_is_not_found => {
            return Err(CallerFault::NotFound("empty".into()).into());
        }
        Start::Empty => return Ok(Vec::new()),
        Start::Missing => return Err(missing(operation)),
    };
    // The list distinguishes a row with any columns from an error document.
    if operation.response.takes_any() && !values::is_list(place) {
        return Err(unbelieved());
    }
    let mut messages = Vec::new();
    for item in values::items(place) {
        let read = response::read_with_notes(&operation.response, item, document, notes)?;
        if read.found != FoundContent::Value {
            return Err(unbelieved());
        }
        messages.push(read.message.into());
    }
    Ok(messages)
}

fn unbelieved() -> SourceError {
    MapError::Response { path: ".".into(), reason: response::NO_FIELD_FOUND }.into()
}

fn missing(operation: &Operation) -> SourceError {
    let ways: Vec<String> = operation.response_root.iter().map(|way| way.join("/")).collect();
    SourceError::unreadable(format!("the response has no {}", ways.join(" or ")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::SourceFault;
    use super::*;
    use crate::contract::ContractSet;
    use serde_json::json;
    use std::sync::{Arc, LazyLock};

    const CONTRACT: &str = r#"
syntax = "proto3";
package read.v1;
import "ndxp/contract/v1/contract.proto";
service Read {
  option (ndxp.contract.v1.source) = { id: "read" outcome: { code: "/code" success: "0" } };
  rpc Get(Ask) returns (Record) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (ndxp.contract.v1.operation) = {
      scope: "read:read" data_class: OPEN rest: { get: "/a" } response_root: ["data/record", "rows"]
      outcome: { code: "/code" success: "0" absent_is_success: true empty_is_not_found: true }
    };
  }
  rpc Plain(Ask) returns (Record) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (ndxp.contract.v1.operation) = {
      scope: "read:read" data_class: OPEN rest: { get: "/b" } response_root: "data" outcome: { absent_is_success: true }
    };
  }
  rpc List(Ask) returns (stream Record) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (ndxp.contract.v1.operation) = {
      scope: "read:read" data_class: OPEN rest: { get: "/l" } response_root: "rows" outcome: { empty_is_not_found: true }
    };
  }
  rpc PlainList(Ask) returns (stream Record) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (ndxp.contract.v1.operation) = { scope: "read:read" data_class: OPEN rest: { get: "/m" } response_root: "rows" outcome: {} };
  }
  rpc Write(Ask) returns (Record) {
    option (ndxp.contract.v1.operation) = { scope: "read:write" data_class: OPEN rest: { post: "/w" } response_root: "data" };
  }
  rpc Look(Ask) returns (Record) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (ndxp.contract.v1.operation) = { scope: "read:read" data_class: OPEN rest: { get: "/k" } };
  }
  rpc Columns(Ask) returns (stream Columns) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (ndxp.contract.v1.operation) = { scope: "read:read" data_class: OPEN rest: { get: "/c" } outcome: {} };
  }
  rpc Whole(Ask) returns (Rows) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (ndxp.contract.v1.operation) = { scope: "read:read" data_class: OPEN rest: { get: "/r" } outcome: {} };
  }
}
message Ask {}
message Columns { map<string, string> values = 1 [(ndxp.contract.v1.field) = { remaining: true }]; }
message Record { string name = 1 [(ndxp.contract.v1.field) = { name: "ten" }]; }
message Rows { repeated Record rows = 1 [(ndxp.contract.v1.field) = { name: "rows" }]; }
"#;

    fn operation(name: &str) -> Arc<Operation> {
        static SET: LazyLock<ContractSet> = LazyLock::new(|| {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("read.proto"), CONTRACT).unwrap();
            ContractSet::with_folder(folder.path()).unwrap()
        });
        SET.operation(&format!("/read.v1.Read/{name}")).unwrap().clone()
    }

    /// The result for a document: bytes or messages, or "absent", or "unbelieved".
    fn come(name: &str, document: &Value) -> String {
        let (operation, context) = (operation(name), CallContext::default());
        let judged = evaluate(&operation, document.clone(), None);
        let came = match operation.shape {
            crate::contract::CallShape::ServerStream => judged
                .and_then(|judged| read_list(&operation, &judged, &context))
                .map(|messages| format!("{} rows", messages.len())),
            _ => judged
                .and_then(|judged| read_one(&operation, &judged, &context))
                .map(|message| format!("{} bytes", message.len())),
        };
        came.unwrap_or_else(|error| match error {
            SourceError::Caller(CallerFault::NotFound(_)) => "absent".to_owned(),
            SourceError::Source(SourceFault::Unreadable(_) | SourceFault::Protocol(_)) => "unbelieved".to_owned(),
            other => format!("{other:?}"),
        })
    }

    #[test]
    fn an_empty_root_is_absence_only_where_the_contract_says_so() {
        for (name, document, expected) in [
            ("Get", json!({ "data": { "record": { "ten": "A" } } }), "3 bytes"),
            ("Get", json!({ "rows": [{ "ten": "A" }] }), "3 bytes"),
            ("Get", json!({ "data": null, "x": 1 }), "absent"),
            ("Get", json!({ "data": { "record": {} }, "x": 1 }), "absent"),
            ("Get", json!({ "rows": [], "x": 1 }), "absent"),
            ("Get", json!({ "data": { "record": { "ten": "" } }, "x": 1 }), "absent"),
            ("Get", json!({ "x": 1 }), "unbelieved"),
            ("Get", json!({}), "unbelieved"),
            ("Get", json!({ "data": { "record": { "khac": "A" } } }), "unbelieved"),
            ("Plain", json!({ "data": { "ten": "A" } }), "3 bytes"),
            ("Plain", json!({ "data": null, "x": 1 }), "unbelieved"),
            ("Plain", json!({ "data": { "ten": "" } }), "unbelieved"),
            ("List", json!({ "rows": [{ "ten": "A" }, { "ten": "B" }] }), "2 rows"),
            ("List", json!({ "rows": [], "x": 1 }), "absent"),
            ("List", json!({ "rows": null, "x": 1 }), "absent"),
            ("List", json!({ "x": 1 }), "unbelieved"),
            ("PlainList", json!({ "rows": [], "x": 1 }), "0 rows"),
            ("PlainList", json!({ "rows": [{ "khac": 1 }] }), "unbelieved"),
            ("PlainList", json!({ "rows": [{ "ten": "A" }, {}] }), "unbelieved"),
            ("PlainList", json!({ "x": [] }), "unbelieved"),
            // The list distinguishes a row with any columns from an error document.
            ("Columns", json!([{ "a": "1" }, { "b": "2" }]), "2 rows"),
            ("Columns", json!({ "loi": "x" }), "unbelieved"),
            ("Columns", json!([{ "a": { "b": 1 } }]), "unbelieved"),
            ("Whole", json!({ "rows": [] }), "0 bytes"),
            ("Whole", json!({ "rows": [], "loi": "x" }), "0 bytes"),
            ("Whole", json!({ "rows": [], "data": { "a": 1 } }), "unbelieved"),
        ] {
            assert_eq!(come(name, &document), expected, "{name} {document}");
        }
    }

    #[test]
    fn a_code_of_success_is_enough_for_a_write_beside_which_nothing_is_left_over() {
        for (name, document, expected) in [
            ("Write", json!({ "code": 0 }), "0 bytes"),
            ("Write", json!({ "code": 0, "message": "ok" }), "0 bytes"),
            ("Write", json!({ "code": 0, "data": { "ten": "A" } }), "3 bytes"),
            ("Write", json!({ "code": 0, "ketQua": { "ten": "A" } }), "unbelieved"),
            ("Write", json!({ "code": 0, "ketQua": [1] }), "unbelieved"),
            ("Write", json!({ "message": "ok" }), "unbelieved"),
            // A read requests content.
            ("Look", json!({ "code": 0 }), "unbelieved"),
            ("Look", json!({ "code": 0, "ten": "A" }), "3 bytes"),
        ] {
            assert_eq!(come(name, &document), expected, "{name} {document}");
        }
    }
}
