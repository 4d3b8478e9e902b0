//! The kind of a value in a source's document: nothing, a list, or a single value, in JSON's form, XML's or PHP's.

use super::scalar_text;
use serde_json::{Map, Value};

/// Returns the item of a list with one item; any other value unchanged.
pub fn only(value: &Value) -> &Value {
    match value {
        Value::Array(items) if items.len() == 1 => &items[0],
        Value::Object(object) if object.len() == 1 && is_numbered(object) => &object["0"],
        other => other,
    }
}

/// Empty elements, texts and objects mean absent.
pub fn is_absent(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Object(object) => object.values().all(is_absent) || is_nil(object),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// `xsi:nil` as converters from XML to JSON write it: `{"@nil": "true"}`, `{"@xsi:nil": "true", "@xmlns:xsi": "…"}`.
fn is_nil(object: &Map<String, Value>) -> bool {
    let nil = |(name, value): (&String, &Value)| {
        matches!(name.as_str(), "@nil" | "@xsi:nil") && matches!(scalar_text(value).as_deref(), Some("true" | "1"))
    };
    object.keys().all(|name| name.starts_with('@')) && object.iter().any(nil)
}

/// The items of a list: an array, the numbered properties of an object as PHP writes it, or a single one.
pub fn items(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(object) if is_numbered_with_gaps(object) => object.values().collect(),
        one => vec![one],
    }
}

/// Returns whether a value is a list, in JSON's form or in PHP's.
pub fn is_list(value: &Value) -> bool {
    match value {
        Value::Array(_) => true,
        Value::Object(object) => is_numbered(object),
        _ => false,
    }
}

/// Returns whether a structure is a list in PHP's form: its names are 0, 1, 2, …
pub fn is_numbered(object: &Map<String, Value>) -> bool {
    // The first name identifies nearly every structure.
    object.keys().next().is_some_and(|first| first == "0")
        && object.keys().enumerate().all(|(at, name)| *name == at.to_string())
}

/// The same with gaps, as PHP writes a list with omitted items (`array_filter`); only if the contract has a list, since
/// a structure may have numbers as names.
fn is_numbered_with_gaps(object: &Map<String, Value>) -> bool {
    let number = |name: &String| name.parse::<u32>().is_ok_and(|number| number.to_string() == *name);
    !object.is_empty() && object.keys().all(number)
}
