//! Messages of contracts in Protobuf's JSON mapping (https://protobuf.dev/programming-guides/json/): names in lowerCamelCase, or as the
//! contract has them; 64-bit numbers as text; times by RFC 3339; what has its default left out.

use super::parse;
use bytes::Bytes;
use prost_reflect::{DeserializeOptions, DynamicMessage, Kind, MessageDescriptor, SerializeOptions};
use serde_json::Value;
use std::collections::HashSet;

/// Why a document is no message. Never contains its content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonMessageError {
    /// It is no JSON that is read: see [`super::JsonError`].
    #[error(transparent)]
    Document(#[from] super::JsonError),
    /// It has a field that the message does not have, or a value of another type.
    #[error(
        "at line {line}, column {column}: a field that the message does not have, or a value that is not of its field's type"
    )]
    TypeMismatch {
        /// From 1.
        line: usize,
        /// From 1, in bytes.
        column: usize,
    },
}

/// Reads a message.
///
/// # Errors
/// See [`JsonMessageError`]: a name that stands twice, deep nesting and unknown fields are refused.
pub fn read_message(descriptor: &MessageDescriptor, bytes: &[u8]) -> Result<DynamicMessage, JsonMessageError> {
    // Which of two values counts, and how deep readers go, is settled here: the mapping's own reader takes the last one.
    let document = parse(bytes)?;
    if has_field_twice(descriptor, &document) {
        return Err(super::JsonError::Duplicate.into());
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes));
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    DynamicMessage::deserialize_with_options(descriptor.clone(), &mut reader, &options)
        .map_err(|error| JsonMessageError::TypeMismatch { line: error.line(), column: error.column() })
}

/// Whether a field stands twice, once under each of its names.
fn has_field_twice(message: &MessageDescriptor, value: &Value) -> bool {
    let Value::Object(members) = value else { return false };
    let mut seen = HashSet::new();
    members.iter().any(|(name, value)| {
        let field = message.get_field_by_json_name(name).or_else(|| message.get_field_by_name(name));
        let Some(field) = field else { return false };
        let inner = |value: &Value| match field.kind() {
            Kind::Message(inner) => has_field_twice(&inner, value),
            _ => false,
        };
        let below = match value {
            Value::Array(items) => items.iter().any(inner),
            value => inner(value),
        };
        !seen.insert(field.number()) || below
    })
}

/// Writes a message. `None` for one that has no JSON: a time outside the years 1 to 9999.
pub fn write_message(message: &DynamicMessage) -> Option<Bytes> {
    let mut out = Vec::with_capacity(512);
    let options = SerializeOptions::new().skip_default_fields(true).stringify_64_bit_integers(true);
    message.serialize_with_options(&mut serde_json::Serializer::new(&mut out), &options).ok()?;
    Some(out.into())
}
