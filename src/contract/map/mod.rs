//! Mapping both ways between the contract's messages and the source's documents.
//!
//! Both JSON and XML documents are [`serde_json::Value`]s here: an XML element with children is an object, repeated
//! elements are an array, an element with only text is a string. So one mapping serves every protocol.

pub mod case;
pub mod date;
mod encode;
pub mod outcome;
pub mod request;
pub mod response;
pub mod response_start;
pub mod values;

use super::plan::WirePath;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// The reason that a mapping failed. Paths only: values may be personal data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// A request value cannot be written in the source's notation.
    #[error("{path}: {reason}")]
    Request {
        /// Path of the field in the request.
        path: String,
        /// The fault.
        reason: &'static str,
    },
    /// The source's response does not have the form of the contract.
    #[error("response at {path}: {reason}")]
    Response {
        /// Path at the source.
        path: String,
        /// The fault.
        reason: &'static str,
    },
    /// A setting that the contract names is missing from the connection entry.
    #[error("the connection entry has no setting {0:?}")]
    SettingMissing(String),
}

/// Returns the value at a path, if there is one that is not null. A list on the path is entered if it has one item.
pub fn lookup<'v>(place: &'v Value, root: &'v Value, path: &WirePath) -> Option<&'v Value> {
    descend(if path.absolute { root } else { place }, &path.parts)
}

/// Returns the value below `place` at `parts`.
pub fn descend<'v>(place: &'v Value, parts: &[String]) -> Option<&'v Value> {
    let mut here = place;
    for part in parts {
        here = values::only(here).get(part)?;
    }
    (!here.is_null()).then_some(here)
}

/// Inserts a value at a path, and creates the objects on the path.
pub fn insert_at(object: &mut Map<String, Value>, parts: &[String], value: Value) {
    let Some((last, way)) = parts.split_last() else { return };
    let mut here = object;
    for part in way {
        let slot = here.entry(part.clone()).or_insert_with(|| Value::Object(Map::new()));
        if !slot.is_object() {
            *slot = Value::Object(Map::new());
        }
        let Value::Object(next) = slot else { return };
        here = next;
    }
    // A name is hashed once: only structures are looked up before they are inserted.
    let value = match value {
        Value::Object(fields) => match here.get_mut(last) {
            // What a fill has put into a structure is merged with the structure's own fields.
            Some(Value::Object(there)) => return there.extend(fields),
            _ => Value::Object(fields),
        },
        scalar => scalar,
    };
    here.insert(last.clone(), value);
}

/// A scalar as text; `None` for lists and objects.
pub fn scalar_text(value: &Value) -> Option<String> {
    scalar(value).map(Cow::into_owned)
}

/// The same, borrowed if it is a text already.
pub fn scalar(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(flag) => Some(Cow::Borrowed(if *flag { "true" } else { "false" })),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod outcome_tests;
#[cfg(test)]
mod round_trip;
#[cfg(test)]
mod tests;
