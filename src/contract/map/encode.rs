//! Writes values of a response in the wire format (https://protobuf.dev/programming-guides/encoding/), without building
//! a message first: a source's value is read once, and written once.

use crate::varint;
use prost_reflect::{FieldDescriptor, Kind, Value};

/// Wire types.
const VARINT: u32 = 0;
const FIXED_64: u32 = 1;
const LENGTH: u32 = 2;
const FIXED_32: u32 = 5;

/// Appends a field. A nested message is its own bytes ([`Value::Bytes`]), a map a list of such.
pub(super) fn put(out: &mut Vec<u8>, field: &FieldDescriptor, value: &Value) {
    let kind = field.kind();
    match value {
        Value::List(items) if field.is_packed() => {
            let mut packed = Vec::with_capacity(items.len() * 2);
            items.iter().for_each(|item| content(&mut packed, &kind, item));
            key(out, field.number(), LENGTH);
            bytes(out, &packed);
        }
        Value::List(items) => items.iter().for_each(|item| one(out, field, &kind, item)),
        // Defaults are not written if they cannot be distinguished from absence.
        single if !field.supports_presence() && is_default(single) => {}
        single => one(out, field, &kind, single),
    }
}

fn one(out: &mut Vec<u8>, field: &FieldDescriptor, kind: &Kind, value: &Value) {
    let wire = match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => FIXED_64,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => FIXED_32,
        Kind::String | Kind::Bytes | Kind::Message(_) => LENGTH,
        _ => VARINT,
    };
    key(out, field.number(), wire);
    content(out, kind, value);
}

fn content(out: &mut Vec<u8>, kind: &Kind, value: &Value) {
    match value {
        Value::Bool(value) => out.push(u8::from(*value)),
        // Negative numbers are written with 64 bits.
        Value::EnumNumber(value) => varint::write(out, i64::from(*value) as u64),
        Value::I32(value) => match kind {
            Kind::Sint32 => varint::write(out, u64::from(((value << 1) ^ (value >> 31)) as u32)),
            Kind::Sfixed32 => out.extend_from_slice(&value.to_le_bytes()),
            _ => varint::write(out, i64::from(*value) as u64),
        },
        Value::I64(value) => match kind {
            Kind::Sint64 => varint::write(out, ((value << 1) ^ (value >> 63)) as u64),
            Kind::Sfixed64 => out.extend_from_slice(&value.to_le_bytes()),
            _ => varint::write(out, *value as u64),
        },
        Value::U32(value) if matches!(kind, Kind::Fixed32) => out.extend_from_slice(&value.to_le_bytes()),
        Value::U32(value) => varint::write(out, u64::from(*value)),
        Value::U64(value) if matches!(kind, Kind::Fixed64) => out.extend_from_slice(&value.to_le_bytes()),
        Value::U64(value) => varint::write(out, *value),
        Value::F32(value) => out.extend_from_slice(&value.to_le_bytes()),
        Value::F64(value) => out.extend_from_slice(&value.to_le_bytes()),
        Value::String(text) => bytes(out, text.as_bytes()),
        Value::Bytes(inner) => bytes(out, inner),
        // Never occurs while a response is read.
        Value::Message(_) | Value::List(_) | Value::Map(_) => bytes(out, &[]),
    }
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Bool(value) => !value,
        Value::I32(value) | Value::EnumNumber(value) => *value == 0,
        Value::I64(value) => *value == 0,
        Value::U32(value) => *value == 0,
        Value::U64(value) => *value == 0,
        // -0 is another value.
        Value::F32(value) => value.to_bits() == 0,
        Value::F64(value) => value.to_bits() == 0,
        Value::String(text) => text.is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::Message(_) | Value::List(_) | Value::Map(_) => false,
    }
}

/// A varint field of a well-known message; zero is not written.
pub(super) fn number(out: &mut Vec<u8>, field: u32, value: i64) {
    if value != 0 {
        key(out, field, VARINT);
        varint::write(out, value as u64);
    }
}

/// A text field of a map's entry.
pub(super) fn text(out: &mut Vec<u8>, field: u32, text: &str) {
    key(out, field, LENGTH);
    bytes(out, text.as_bytes());
}

fn key(out: &mut Vec<u8>, field: u32, wire: u32) {
    varint::write(out, u64::from(field << 3 | wire));
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint::write(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message as _;
    use prost_reflect::{DescriptorPool, DynamicMessage};

    /// A message with a field of each kind: single, with presence, and repeated.
    fn pool() -> &'static DescriptorPool {
        static POOL: std::sync::LazyLock<DescriptorPool> = std::sync::LazyLock::new(|| {
            let kinds = "int32 int64 uint32 uint64 sint32 sint64 fixed32 fixed64 sfixed32 sfixed64 float double bool string bytes";
            let mut text = "syntax = \"proto3\"; message M {".to_owned();
            for (place, kind) in kinds.split(' ').enumerate() {
                let at = place * 3 + 1;
                text += &format!(
                    "{kind} a{at} = {at}; optional {kind} b{0} = {0}; repeated {kind} c{1} = {1};",
                    at + 1,
                    at + 2
                );
            }
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("m.proto"), text + "}").unwrap();
            let files = protox::compile(["m.proto"], [folder.path()]).unwrap();
            DescriptorPool::from_file_descriptor_set(files).unwrap()
        });
        &POOL
    }

    fn value(kind: &Kind, bits: u64) -> Value {
        match kind {
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(bits as i32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(bits as i64),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(bits as u32),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(bits),
            Kind::Float => Value::F32(bits as f32),
            Kind::Double => Value::F64(bits as f64),
            Kind::Bool => Value::Bool(bits & 1 == 1),
            Kind::String => Value::String(bits.to_string().repeat((bits % 50) as usize)),
            _ => Value::Bytes(bits.to_be_bytes().repeat((bits % 50) as usize).into()),
        }
    }

    proptest! {
        /// The same bytes as prost-reflect, which builds the message first.
        #[test]
        fn every_kind_is_written_as_a_message_would_be(bits in prop::collection::vec(prop_oneof![Just(0), any::<u64>(), 0u64..300], 4)) {
            let descriptor = pool().get_message_by_name("M").unwrap();
            let (mut message, mut out) = (DynamicMessage::new(descriptor.clone()), Vec::new());
            for field in descriptor.fields() {
                let kind = field.kind();
                let value = match field.is_list() {
                    true => Value::List(bits.iter().map(|bits| value(&kind, *bits)).collect()),
                    false => value(&kind, bits[field.number() as usize % bits.len()]),
                };
                put(&mut out, &field, &value);
                message.set_field(&field, value);
            }
            prop_assert_eq!(out, message.encode_to_vec());
        }
    }
}
