//! Checking a request before anything goes out: every violation is reported, by field path, none by value.

use super::formats;
use super::map::request::date_parts;
use super::plan::{FieldKind, FieldPlan, MessagePlan};
use super::text::is_longer;
use super::xml;
use prost_reflect::{DynamicMessage, Value};

/// Most violations that one answer reports: more help nobody, and the answer's size is bounded.
pub const MAX_VIOLATIONS: usize = 50;

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field (`dossiers[2].dossier_number`).
    pub field: String,
    /// What is expected there.
    pub description: String,
}

/// Checks a whole message.
pub fn check(plan: &MessagePlan, message: &DynamicMessage) -> Vec<Violation> {
    let mut found = Vec::new();
    check_message(plan, message, &String::new, &mut found);
    found
}

/// A field's path, put together only where it is reported.
type Path<'a> = &'a dyn Fn() -> String;

fn report(found: &mut Vec<Violation>, field: Path<'_>, description: impl Into<String>) {
    if found.len() < MAX_VIOLATIONS {
        found.push(Violation { field: field(), description: description.into() });
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

/// Whether a character may stand in no text: what XML forbids, and control characters beside tab and line ends.
fn is_control(character: char) -> bool {
    match character {
        '\n' | '\r' | '\t' => false,
        '\u{20}'..='\u{7e}' => false,
        other => other.is_control() || !xml::is_allowed(other),
    }
}

/// Everybody whom a request names: for each list on the way all its items, from the first of the paths that is given.
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
