//! Reads a document event by event: every valid JSON, and the error of any other.

use super::{JsonError, MAX_DEPTH};
use json_event_parser::{JsonEvent, SliceJsonParser};
use serde_json::{Map, Value};

/// An open container: an array, or an object with the name of its next value.
enum OpenContainer {
    Array(Vec<Value>),
    Object(Map<String, Value>, Option<String>),
}

/// Reads a document without a byte order mark.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    let mut parser = SliceJsonParser::new(bytes);
    let mut open: Vec<OpenContainer> = Vec::new();
    let mut root = None;
    loop {
        let value = match parser.parse_next().map_err(|_| JsonError::Malformed)? {
            JsonEvent::String(text) => Value::String(text.into_owned()),
            JsonEvent::Number(text) => number(&text),
            JsonEvent::Boolean(flag) => Value::Bool(flag),
            JsonEvent::Null => Value::Null,
            JsonEvent::StartArray | JsonEvent::StartObject if open.len() >= MAX_DEPTH => return Err(JsonError::Limit),
            JsonEvent::StartArray => {
                open.push(OpenContainer::Array(Vec::new()));
                continue;
            }
            JsonEvent::StartObject => {
                open.push(OpenContainer::Object(Map::new(), None));
                continue;
            }
            JsonEvent::ObjectKey(key) => match open.last_mut() {
                Some(OpenContainer::Object(object, name)) if !object.contains_key(key.as_ref()) => {
                    *name = Some(key.into_owned());
                    continue;
                }
                Some(OpenContainer::Object(..)) => return Err(JsonError::Duplicate),
                _ => return Err(JsonError::Malformed),
            },
            JsonEvent::EndArray => match open.pop() {
                Some(OpenContainer::Array(items)) => Value::Array(items),
                _ => return Err(JsonError::Malformed),
            },
            JsonEvent::EndObject => match open.pop() {
                Some(OpenContainer::Object(object, None)) => Value::Object(object),
                _ => return Err(JsonError::Malformed),
            },
            JsonEvent::Eof => return root.filter(|_| open.is_empty()).ok_or(JsonError::Malformed),
        };
        match open.last_mut() {
            Some(OpenContainer::Array(items)) => items.push(value),
            Some(OpenContainer::Object(object, name)) => {
                object.insert(name.take().ok_or(JsonError::Malformed)?, value);
            }
            None if root.is_none() => root = Some(value),
            None => return Err(JsonError::Malformed),
        }
    }
}

/// A number that a 64-bit integer represents exactly is a number; every other is its own text, so that no float changes
/// it.
fn number(text: &str) -> Value {
    if text.len() <= 20
        && let Ok(number) = text.parse::<i64>()
        && text != "-0"
    {
        return Value::from(number);
    }
    Value::String(text.to_owned())
}
