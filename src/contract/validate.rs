//! Checks a request before anything is dispatched: every violation is reported by field path, none by value.

use super::formats;
use super::map::request::date_parts;
use super::plan::{FieldKind, FieldPlan, MessagePlan};
use super::text::is_longer;
use super::xml;
use prost_reflect::{DynamicMessage, Value};

/// Maximum number of violations in one response: more are no help, and the response's size is bounded.
pub const MAX_VIOLATIONS: usize = 50;

/// One violation of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field (`dossiers[2].dossier_number`).
    pub field: String,
    /// The expected form.
    pub description: String,
    /// The same in Vietnamese, where a person fills in the field; else empty.
    pub vietnamese: String,
}

impl Violation {
    /// Makes a violation with a description in English.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Violation { field: field.into(), description: description.into(), vietnamese: String::new() }
    }

    /// The same with a description in Vietnamese.
    #[must_use]
    pub fn in_vietnamese(self, text: impl Into<String>) -> Self {
        Violation { vietnamese: text.into(), ..self }
    }
}

/// Checks a complete message.
pub fn check(plan: &MessagePlan, message: &DynamicMessage) -> Vec<Violation> {
    let mut found = Vec::new();
    check_message(plan, message, &String::new, &mut found);
    found
}

/// A field's path, built only if it is reported.
type Path<'a> = &'a dyn Fn() -> String;

fn report(found: &mut Vec<Violation>, field: Path<'_>, description: impl Into<String>) {
    if found.len() < MAX_VIOLATIONS {
        found.push(Violation::new(field(), description));
    }
}

fn join(path: Path<'_>, name: &str) -> String {
    let path = path();
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn check_message(plan: &MessagePlan, message: &DynamicMessage, path: Path<'_>, found: &mut Vec<Violation>) {
    for unknown in message.unknown_fields() {
        let number = || join(path, &format!("#{}", unknown.number()));
        report(found, &number, "the contract has no field of this number");
    }
    for field in &plan.fields {
        let here = || join(path, &field.name);
        if message.has_field(&field.field) {
            check_field(field, &message.get_field(&field.field), &here, found);
        } else if field.required {
            report(found, &here, "is required");
        }
    }
    for (index, group) in plan.groups.iter().enumerate() {
        let members = || plan.fields.iter().filter(|field| field.group == Some(index));
        if members().filter(|field| message.has_field(&field.field)).count() != 1 {
            let names: Vec<&str> = members().map(|field| field.name.as_str()).collect();
            let rule = format!("exactly one of {} must be given ({group})", names.join(", "));
            report(found, &|| join(path, names.first().unwrap_or(&"")), rule);
        }
    }
}

fn check_field(field: &FieldPlan, value: &Value, path: Path<'_>, found: &mut Vec<Violation>) {
    match value {
        Value::List(items) => {
            if items.len() > field.max_length {
                report(found, path, format!("has more than {} items", field.max_length));
                return;
            }
            for (index, item) in items.iter().enumerate() {
                if found.len() >= MAX_VIOLATIONS {
                    return;
                }
                check_one(field, item, &|| format!("{}[{index}]", path()), found);
            }
        }
        Value::Map(entries) => {
            if entries.len() > field.max_length {
                report(found, path, format!("has more than {} entries", field.max_length));
            }
        }
        one => check_one(field, one, path, found),
    }
}

fn check_one(field: &FieldPlan, value: &Value, path: Path<'_>, found: &mut Vec<Violation>) {
    match (&field.kind, value) {
        (FieldKind::Date(notations) | FieldKind::Time(notations), Value::Message(date)) => {
            let Some(parts) = date_parts(&field.kind, date) else {
                return report(found, path, "is no date of the calendar");
            };
            if !notations.is_empty() && !notations.iter().any(|notation| notation.precision == parts.precision()) {
                report(found, path, "is less precise than the source takes");
            }
        }
        (FieldKind::Message(plan), Value::Message(inner)) => check_message(plan, inner, path, found),
        (FieldKind::Enum(values), Value::EnumNumber(number))
            if *number == 0 || !values.iter().any(|value| value.number == *number) =>
        {
            report(found, path, "is no value of the contract");
        }
        (_, Value::String(text)) => {
            if is_longer(text, field.max_length) {
                report(found, path, format!("is longer than {} characters", field.max_length));
            } else if text.chars().any(is_control) {
                report(found, path, "has control characters");
            } else if let Some(format) = field.format
                && let Err(expected) = formats::check(format, text)
            {
                report(found, path, format!("must be {expected}"));
            }
        }
        (_, Value::F64(number)) if !number.is_finite() => report(found, path, "is no number"),
        (_, Value::F32(number)) if !number.is_finite() => report(found, path, "is no number"),
        _ => {}
    }
}

/// Returns whether a character is not permitted in any text: what XML forbids, and control characters other than tab
/// and line ends.
fn is_control(character: char) -> bool {
    match character {
        '\n' | '\r' | '\t' => false,
        '\u{20}'..='\u{7e}' => false,
        other => other.is_control() || !xml::is_allowed(other),
    }
}

/// Returns every subject that a request names: all items of each list on the path, from the first of the paths that is
/// given.
pub fn subjects(paths: &[Vec<String>], message: &DynamicMessage) -> Vec<String> {
    let mut found = Vec::new();
    for path in paths {
        texts_at(message, path, &mut found);
        if !found.is_empty() {
            break;
        }
    }
    found
}

fn texts_at(message: &DynamicMessage, path: &[String], found: &mut Vec<String>) {
    let Some((name, rest)) = path.split_first() else { return };
    let Some(field) = message.descriptor_field(name).filter(|field| message.has_field(field)) else { return };
    let value = message.get_field(&field);
    let one = |value: &Value, found: &mut Vec<String>| match value {
        Value::String(text) if rest.is_empty() && !found.contains(text) => found.push(text.clone()),
        Value::Message(inner) => texts_at(inner, rest, found),
        _ => {}
    };
    match value.as_ref() {
        Value::List(items) => items.iter().for_each(|item| one(item, found)),
        value => one(value, found),
    }
}

trait Descriptor {
    fn descriptor_field(&self, name: &str) -> Option<prost_reflect::FieldDescriptor>;
}

impl Descriptor for DynamicMessage {
    fn descriptor_field(&self, name: &str) -> Option<prost_reflect::FieldDescriptor> {
        use prost_reflect::ReflectMessage;
        self.descriptor().get_field_by_name(name)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::contract::{ContractSet, Operation};
    use serde_json::{Value as Json, json};
    use std::sync::{Arc, LazyLock};

    const CONTRACT: &str = r#"
syntax = "proto3";
package check.v1;
import "ndxp/contract/v1/contract.proto";
import "ndxp/type/v1/type.proto";
service Check {
  option (ndxp.contract.v1.source) = { id: "check" };
  rpc Get(Ask) returns (Told) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (ndxp.contract.v1.operation) = {
      scope: "check:read" data_class: OPEN rest: { post: "/a" } subject: ["parts.citizen", "citizen"]
    };
  }
}
enum Sort { SORT_UNSPECIFIED = 0; ONE = 1; }
message Part { string citizen = 1 [(ndxp.contract.v1.field) = { format: CITIZEN_ID required: true }]; }
message Ask {
  string citizen = 1 [(ndxp.contract.v1.field) = { format: CITIZEN_ID }];
  string name = 2 [(ndxp.contract.v1.field) = { max_length: 5 }];
  repeated Part parts = 3 [(ndxp.contract.v1.field) = { max_length: 2 }];
  Sort sort = 4;
  double size = 5;
  ndxp.type.v1.PartialDate born = 6;
  optional string must = 7 [(ndxp.contract.v1.field) = { required: true }];
}
message Told { string text = 1; }
"#;

    static OPERATION: LazyLock<Arc<Operation>> =
        LazyLock::new(|| ContractSet::with_text(CONTRACT).unwrap().operation("/check.v1.Check/Get").unwrap().clone());

    fn ask(json: &Json) -> DynamicMessage {
        DynamicMessage::deserialize(OPERATION.request.message.clone(), json).unwrap()
    }

    #[test]
    fn each_rule_is_told_by_the_field_s_path_and_never_by_its_value() {
        let citizen = "022199000123";
        let parts = |ids: &[&str]| ids.iter().map(|id| json!({ "citizen": id })).collect::<Vec<_>>();
        for (request, field, description) in [
            (json!({ "must": "x" }), "", ""),
            (json!({ "must": "x", "citizen": citizen, "name": "Ngân", "parts": parts(&[citizen, citizen]) }), "", ""),
            (json!({ "must": "x", "name": "một\nhai" }), "name", "longer than 5"),
            (
                json!({ "must": "x", "sort": "ONE", "size": 0.5, "born": { "year": 2024, "month": 2, "day": 29 } }),
                "",
                "",
            ),
            (json!({}), "must", "required"),
            (json!({ "must": "x", "citizen": "12345" }), "citizen", "must be"),
            (json!({ "must": "x", "name": "secret" }), "name", "longer than 5"),
            (json!({ "must": "x", "name": "a\u{0}" }), "name", "control"),
            (json!({ "must": "x", "parts": parts(&[citizen, "1"]) }), "parts[1].citizen", "must be"),
            (json!({ "must": "x", "parts": [{}] }), "parts[0].citizen", "required"),
            (json!({ "must": "x", "parts": parts(&[citizen; 3]) }), "parts", "more than 2 items"),
            (json!({ "must": "x", "sort": 7 }), "sort", "no value"),
            (json!({ "must": "x", "size": "NaN" }), "size", "no number"),
            (json!({ "must": "x", "born": { "year": 2023, "month": 2, "day": 29 } }), "born", "no date"),
        ] {
            let found = check(&OPERATION.request, &ask(&request));
            let violations: Vec<_> =
                found.iter().map(|one| (one.field.as_str(), one.description.contains(description))).collect();
            let wanted = if field.is_empty() { vec![] } else { vec![(field, true)] };
            assert_eq!(violations, wanted, "{request}: {found:?}");
            assert!(found.iter().all(|one| !one.description.contains("secret")), "{found:?}");
        }
        let unknown = DynamicMessage::decode(OPERATION.request.message.clone(), &b"\x3a\x01x\x78\x01"[..]).unwrap();
        assert_eq!(check(&OPERATION.request, &unknown)[0].field, "#15");
    }

    #[test]
    fn violations_are_bounded() {
        let bytes = [b"\x3a\x01x".to_vec(), b"\x78\x01".repeat(500)].concat();
        let many = DynamicMessage::decode(OPERATION.request.message.clone(), bytes.as_slice()).unwrap();
        assert!(check(&OPERATION.request, &many).len() <= MAX_VIOLATIONS);
    }

    #[test]
    fn subjects_are_those_of_the_first_path_that_is_given_each_once() {
        for (request, wanted) in [
            (
                json!({ "citizen": "1", "parts": [{ "citizen": "2" }, { "citizen": "3" }, { "citizen": "2" }] }),
                vec!["2", "3"],
            ),
            (json!({ "citizen": "1", "parts": [{}] }), vec!["1"]),
            (json!({ "citizen": "1" }), vec!["1"]),
            (json!({ "name": "1" }), vec![]),
        ] {
            assert_eq!(subjects(&OPERATION.subject, &ask(&request)), wanted, "{request}");
        }
    }
}
