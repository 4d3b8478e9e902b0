//! Checking a request before anything goes out: every violation is reported, by field path, none by value.

use super::formats;
use super::map::request::date_parts;
use super::plan::{FieldKind, FieldPlan, MessagePlan};
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
    check_message(plan, message, "", &mut found);
    found
}

fn report(found: &mut Vec<Violation>, field: String, description: impl Into<String>) {
    if found.len() < MAX_VIOLATIONS {
        found.push(Violation { field, description: description.into() });
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn check_message(plan: &MessagePlan, message: &DynamicMessage, path: &str, found: &mut Vec<Violation>) {
    for unknown in message.unknown_fields() {
        report(found, join(path, &format!("#{}", unknown.number())), "the contract has no field of this number");
    }
    for field in &plan.fields {
        let given = message.has_field(&field.field);
        if !given {
            if field.required {
                report(found, join(path, &field.name), "is required");
            }
            continue;
        }
        let value = message.get_field(&field.field);
        check_field(field, &value, &join(path, &field.name), found);
    }
    for (index, group) in plan.groups.iter().enumerate() {
        let members: Vec<&FieldPlan> = plan.fields.iter().filter(|field| field.group == Some(index)).collect();
        let given = members.iter().filter(|field| message.has_field(&field.field)).count();
        if given != 1 {
            let names: Vec<&str> = members.iter().map(|field| field.name.as_str()).collect();
            let rule = format!("exactly one of {} must be given ({group})", names.join(", "));
            report(found, join(path, names.first().unwrap_or(&"")), rule);
        }
    }
}

fn check_field(field: &FieldPlan, value: &Value, path: &str, found: &mut Vec<Violation>) {
    match value {
        Value::List(items) => {
            if items.len() > field.max_length {
                report(found, path.to_owned(), format!("has more than {} items", field.max_length));
                return;
            }
            for (index, item) in items.iter().enumerate() {
                if found.len() >= MAX_VIOLATIONS {
                    return;
                }
                check_one(field, item, &format!("{path}[{index}]"), found);
            }
        }
        Value::Map(entries) => {
            if entries.len() > field.max_length {
                report(found, path.to_owned(), format!("has more than {} entries", field.max_length));
            }
        }
        one => check_one(field, one, path, found),
    }
}

fn check_one(field: &FieldPlan, value: &Value, path: &str, found: &mut Vec<Violation>) {
    match (&field.kind, value) {
        (FieldKind::Date(_) | FieldKind::Time(_), Value::Message(date)) => {
            let Some(parts) = date_parts(&field.kind, date) else {
                return report(found, path.to_owned(), "is no date of the calendar");
            };
            let notations = match &field.kind {
                FieldKind::Date(notations) | FieldKind::Time(notations) => notations,
                _ => return,
            };
            if !notations.is_empty() && !notations.iter().any(|notation| notation.precision == parts.precision()) {
                report(found, path.to_owned(), "is less precise than the source takes");
            }
        }
        (FieldKind::Message(plan), Value::Message(inner)) => check_message(plan, inner, path, found),
        (FieldKind::Enum(values), Value::EnumNumber(number))
            if *number == 0 || !values.iter().any(|value| value.number == *number) =>
        {
            report(found, path.to_owned(), "is no value of the contract");
        }
        (_, Value::String(text)) => {
            if text.chars().nth(field.max_length).is_some() {
                report(found, path.to_owned(), format!("is longer than {} characters", field.max_length));
            } else if text.chars().any(|c| !xml::is_allowed(c) || (c.is_control() && !matches!(c, '\n' | '\r' | '\t')))
            {
                report(found, path.to_owned(), "has control characters");
            } else if let Some(format) = field.format
                && let Err(expected) = formats::check(format, text)
            {
                report(found, path.to_owned(), format!("must be {expected}"));
            }
        }
        (_, Value::F64(number)) if !number.is_finite() => report(found, path.to_owned(), "is no number"),
        (_, Value::F32(number)) if !number.is_finite() => report(found, path.to_owned(), "is no number"),
        _ => {}
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
