//! Reading the source's answer into the contract's message.

use super::date::{Notation, Parts};
use super::{MapError, WirePath, encode, lookup, scalar_text};
use crate::contract::plan::{FieldKind, FieldPlan, MessagePlan};
use crate::contract::xml;
use base64::Engine;
use prost_reflect::Value as Message;
use serde_json::Value;

/// Maps the document at `place` (below `root`) into a message, encoded.
pub fn read(plan: &MessagePlan, place: &Value, root: &Value) -> Result<Vec<u8>, MapError> {
    // A message whose list is named "." is the list itself.
    let whole = plan.fields.iter().any(|field| field.list && field.names.iter().any(|name| name.parts.is_empty()));
    let place = if whole { place } else { single(place, "")? };
    let mut message = Vec::with_capacity(128);
    for field in &plan.fields {
        if let Some(value) = read_field(plan, field, place, root)? {
            encode::put(&mut message, &field.field, &value);
        }
    }
    Ok(message)
}

/// One-or-many, where one is wanted.
fn single<'v>(value: &'v Value, path: &str) -> Result<&'v Value, MapError> {
    match value {
        Value::Array(items) => match items.as_slice() {
            [one] => Ok(one),
            _ => Err(wrong(path, "one record was expected, and there are several or none")),
        },
        other => Ok(other),
    }
}

fn wrong(path: &str, reason: &'static str) -> MapError {
    MapError::Answer { path: path.to_owned(), reason }
}

fn path_text(path: &WirePath) -> String {
    if path.parts.is_empty() { ".".to_owned() } else { path.parts.join("/") }
}

fn read_field(plan: &MessagePlan, field: &FieldPlan, place: &Value, root: &Value) -> Result<Option<Message>, MapError> {
    if let FieldKind::Date(notations) | FieldKind::Time(notations) = &field.kind {
        return read_date(field, notations, place, root);
    }
    if matches!(field.kind, FieldKind::Remaining) {
        return read_remaining(plan, place).map(Some);
    }
    let found = field.names.iter().find_map(|name| Some((name, lookup(place, root, name)?)));
    let Some((name, value)) = found else { return Ok(None) };
    if is_absent(value) {
        return Ok(None);
    }
    if !field.list {
        return read_one(field, single(value, &path_text(name))?, root, name);
    }
    let mut items = Vec::new();
    match (&field.separator, value) {
        (Some(separator), Value::String(text)) => {
            for part in text.split(separator.trim_end()).map(str::trim).filter(|part| !part.is_empty()) {
                items.extend(read_one(field, &Value::from(part), root, name)?);
            }
        }
        (_, Value::Array(values)) => {
            for value in values {
                items.extend(read_one(field, value, root, name)?);
            }
        }
        // An object when one, a list when several.
        (_, one) => items.extend(read_one(field, one, root, name)?),
    }
    Ok((!items.is_empty()).then_some(Message::List(items)))
}

/// Empty elements, texts and objects mean absent.
fn is_absent(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Object(object) => object.values().all(is_absent),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn read_one(field: &FieldPlan, value: &Value, root: &Value, name: &WirePath) -> Result<Option<Message>, MapError> {
    let fail = |reason| wrong(&path_text(name), reason);
    if is_absent(value) {
        return Ok(None);
    }
    if let FieldKind::Message(plan) = &field.kind {
        let embedded;
        let value = match &field.embedded {
            Some(expected) => {
                let text = value.as_str().ok_or_else(|| fail("a document in a text was expected"))?;
                let element =
                    xml::parse(text.as_bytes()).map_err(|_| fail("the embedded document is not well-formed"))?;
                if element.name != expected.xml_root {
                    return Err(fail("the embedded document has another root element"));
                }
                embedded = element.into_value();
                &embedded
            }
            None => value,
        };
        if !value.is_object() && !value.is_array() {
            return Err(fail("a structure was expected"));
        }
        return Ok(Some(Message::Bytes(read(plan, value, root)?.into())));
    }
    let text = scalar_text(value).ok_or_else(|| fail("a single value was expected"))?;
    let text = text.trim();
    let number = |reason| fail(reason);
    Ok(Some(match &field.kind {
        FieldKind::Text => Message::String(text.to_owned()),
        FieldKind::Bytes => {
            let bytes =
                base64::engine::general_purpose::STANDARD.decode(text).map_err(|_| fail("base64 was expected"))?;
            Message::Bytes(bytes.into())
        }
        FieldKind::Int32 => Message::I32(text.parse().map_err(|_| number("a whole number was expected"))?),
        FieldKind::Int64 => Message::I64(text.parse().map_err(|_| number("a whole number was expected"))?),
        FieldKind::Uint32 => Message::U32(text.parse().map_err(|_| number("a whole number was expected"))?),
        FieldKind::Uint64 => Message::U64(text.parse().map_err(|_| number("a whole number was expected"))?),
        FieldKind::Double => Message::F64(finite(text).ok_or_else(|| number("a number was expected"))?),
        FieldKind::Float => Message::F32(finite(text).ok_or_else(|| number("a number was expected"))? as f32),
        FieldKind::Bool { yes, no } => {
            Message::Bool(read_bool(text, yes, no).ok_or_else(|| fail("yes or no was expected"))?)
        }
        FieldKind::Enum(values) => {
            let known = values.iter().find(|value| value.texts.iter().any(|known| known == text));
            Message::EnumNumber(known.ok_or_else(|| fail("a value that the contract does not know"))?.number)
        }
        FieldKind::Message(_) | FieldKind::Date(_) | FieldKind::Time(_) | FieldKind::Remaining => {
            return Err(fail("a single value was expected"));
        }
    }))
}

fn finite(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|number| number.is_finite())
}

fn read_bool(text: &str, yes: &Option<String>, no: &Option<String>) -> Option<bool> {
    if yes.as_deref() == Some(text) {
        return Some(true);
    }
    if no.as_deref() == Some(text) {
        return Some(false);
    }
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

fn read_date(
    field: &FieldPlan,
    notations: &[Notation],
    place: &Value,
    root: &Value,
) -> Result<Option<Message>, MapError> {
    let mut seen: Option<&WirePath> = None;
    for notation in notations {
        for name in notation.name.iter().chain(if notation.name.is_some() { [].iter() } else { field.names.iter() }) {
            let Some(value) = lookup(place, root, name).filter(|value| !is_absent(value)) else { continue };
            seen = Some(name);
            if let Some((marker, wanted)) = &notation.marker
                && lookup(place, root, marker).and_then(scalar_text).as_ref() != Some(wanted)
            {
                continue;
            }
            let text = scalar_text(value).ok_or_else(|| wrong(&path_text(name), "a date was expected"))?;
            if let Some(parts) = notation.read(text.trim()) {
                return Ok(date_message(field, &parts).map(|bytes| Message::Bytes(bytes.into())));
            }
        }
    }
    match seen {
        Some(name) => Err(wrong(&path_text(name), "a date in one of the contract's notations was expected")),
        None => Ok(None),
    }
}

/// `google.protobuf.Timestamp` or `ndxp.type.v1.PartialDate`, encoded.
fn date_message(field: &FieldPlan, parts: &Parts) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    if matches!(field.kind, FieldKind::Time(_)) {
        encode::number(&mut message, 1, parts.to_unix()?);
        return Some(message);
    }
    for (number, part) in [(1, i64::from(parts.year)), (2, i64::from(parts.month)), (3, i64::from(parts.day))] {
        encode::number(&mut message, number, part);
    }
    Some(message)
}

fn read_remaining(plan: &MessagePlan, place: &Value) -> Result<Message, MapError> {
    let Value::Object(object) = place else { return Err(wrong(".", "a structure was expected")) };
    let named = |key: &str| {
        plan.fields
            .iter()
            .filter(|field| !matches!(field.kind, FieldKind::Remaining))
            .flat_map(|field| &field.names)
            .any(|name| name.parts.first().is_some_and(|first| first == key))
    };
    let mut rest = Vec::new();
    for (key, value) in object {
        if !named(key) && !is_absent(value) {
            let text = scalar_text(value).ok_or_else(|| wrong(key, "a single value was expected"))?;
            let mut entry = Vec::new();
            encode::text(&mut entry, 1, key);
            encode::text(&mut entry, 2, &text);
            rest.push(Message::Bytes(entry.into()));
        }
    }
    Ok(Message::List(rest))
}

/// Where an answer's message begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Start<'v> {
    /// Here.
    At(&'v Value),
    /// The way to it ends in something empty: the source has no such record.
    Empty,
    /// The way to it is not in the document: the source answered something else.
    Missing,
}

/// Goes through the wrappers to the place at which the answer's message begins.
pub fn start<'v>(document: &'v Value, answer_root: &[String]) -> Start<'v> {
    let mut here = document;
    for part in answer_root {
        if is_absent(here) {
            return Start::Empty;
        }
        if let Value::Array(items) = here
            && let [one] = items.as_slice()
        {
            here = one;
        }
        match here.get(part) {
            Some(next) => here = next,
            None => return Start::Missing,
        }
    }
    if is_absent(here) { Start::Empty } else { Start::At(here) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_empty_answer_is_told_from_another_one() {
        let root = ["Data".to_owned(), "Main".to_owned()];
        assert_eq!(start(&json!({ "Data": { "Main": { "a": 1 } } }), &root), Start::At(&json!({ "a": 1 })));
        assert_eq!(start(&json!({ "Data": [{ "Main": [1] }] }), &root), Start::At(&json!([1])));
        for empty in [json!({ "Data": null }), json!({ "Data": "" }), json!({ "Data": { "Main": {} } }), json!({})] {
            assert_eq!(start(&empty, &root), Start::Empty, "{empty}");
        }
        for other in [json!({ "x": 1 }), json!([1, 2]), json!("text"), json!({ "Data": { "x": 1 } })] {
            assert_eq!(start(&other, &root), Start::Missing, "{other}");
        }
    }
}
