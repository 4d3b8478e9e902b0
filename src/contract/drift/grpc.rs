//! Drift in messages of gRPC sources, which pass through encoded: unknown numbers, other wire types, unknown codes.

use super::message_shape::{Known, MessageShape, Node};
use super::shape::ShapeFault;
use super::{Drift, DriftKind, bounded};
use crate::contract::fields::Field;
use crate::contract::notes::Notes;
use crate::contract::plan::{EnumPlan, FieldKind, FieldPlan, MessagePlan};
use crate::varint;
use prost_reflect::Kind;

/// Maximum depth of inspected messages: the maximum nesting of contracts.
const MAX_DEPTH: usize = crate::contract::plan::MAX_NESTING + 1;

impl MessageShape {
    /// Returns the shape of a response.
    ///
    /// # Errors
    /// A message ignores paths: for a gRPC source, use `reserved` numbers.
    pub fn of(plan: &MessagePlan) -> Result<Self, ShapeFault> {
        let mut shape = MessageShape::default();
        shape.add(plan)?;
        Ok(shape)
    }

    fn add(&mut self, plan: &MessagePlan) -> Result<usize, ShapeFault> {
        if !plan.ignored.is_empty() {
            return Err(ShapeFault::Grpc);
        }
        let at = self.messages.len();
        self.messages.push(Node::default());
        let mut fields = Vec::new();
        for field in &plan.fields {
            let message = match &field.kind {
                FieldKind::Message(inner) => Some(self.add(inner)?),
                _ => None,
            };
            fields.push(known(field, message));
        }
        fields.sort_by_key(|field| field.number);
        self.messages[at] = Node { fields, reserved: plan.message.reserved_ranges().collect() };
        Ok(at)
    }

    /// Notes the differences of an encoded message from this shape. The reader reports bytes that are not a message.
    pub fn observe(&self, message: &[u8], notes: &mut Notes) {
        MessageWalk { shape: self, notes }.message(0, message, &mut Vec::new());
    }
}

fn known(field: &FieldPlan, message: Option<usize>) -> Known {
    let (own, described) = match field.field.kind() {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => (1, "number"),
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => (5, "number"),
        Kind::String => (2, "text"),
        Kind::Bytes => (2, "bytes"),
        Kind::Message(_) => (2, "structure"),
        Kind::Bool => (0, "boolean"),
        _ => (0, "number"),
    };
    // Repeated numbers may be packed or not.
    let wire = if field.list { 1 << own | 1 << 2 } else { 1 << own };
    let codes = match &field.kind {
        FieldKind::Enum(values) => Some(values.iter().map(|value: &EnumPlan| value.number).collect()),
        _ => None,
    };
    // A number that is 0 is not on the wire, and counts as present all the same.
    let has_presence = field.field.supports_presence() || matches!(field.kind, FieldKind::Text | FieldKind::Bytes);
    let expected = (field.expected || field.required) && has_presence && !field.list;
    let (number, name) = (field.field.number(), field.name.as_str().into());
    Known { number, name, wire, described, message, codes, expected }
}

struct MessageWalk<'w> {
    shape: &'w MessageShape,
    notes: &'w mut Notes,
}

impl<'w> MessageWalk<'w> {
    fn message(&mut self, at: usize, bytes: &[u8], way: &mut Vec<&'w str>) {
        let node = &self.shape.messages[at];
        let (mut rest, mut next, mut seen) = (bytes, 0, 0u128);
        while !rest.is_empty() {
            let Ok(field) = Field::read(rest) else { return };
            rest = rest.get(field.length..).unwrap_or_default();
            // Fields mostly come in the order of their numbers.
            let hint = node.fields.get(next).is_some_and(|known| known.number == field.number).then_some(next);
            let found = hint.or_else(|| node.fields.binary_search_by_key(&field.number, |known| known.number).ok());
            let Some(place) = found else {
                if !node.reserved.iter().any(|range| range.contains(&field.number)) {
                    self.drifted(DriftKind::Added, way, &format!("#{}", field.number), ("", word(field.wire)));
                }
                continue;
            };
            next = place + 1;
            seen |= 1u128.checked_shl(place as u32).unwrap_or(0);
            let known = &node.fields[place];
            if known.wire & (1 << field.wire) == 0 {
                self.drifted(DriftKind::Retyped, way, &known.name, (known.described, word(field.wire)));
            } else if let (Some(inner), Some(content)) = (known.message, field.content) {
                if way.len() < MAX_DEPTH {
                    way.push(&known.name);
                    self.message(inner, content, way);
                    way.pop();
                }
            } else if let Some(codes) = &known.codes {
                self.codes(codes, &field, way, &known.name);
            }
        }
        for (place, known) in node.fields.iter().enumerate() {
            if known.expected && place < 128 && seen & (1 << place) == 0 {
                self.drifted(DriftKind::Missing, way, &known.name, ("", ""));
            }
        }
    }

    fn codes(&mut self, codes: &[i32], field: &Field<'_>, way: &[&str], name: &str) {
        let mut rest = field.content.unwrap_or(field.value);
        while let Some((code, length)) = varint::read(rest) {
            // An enum is 32 bits, sign-extended (https://protobuf.dev/programming-guides/encoding/#signed-ints).
            if !codes.contains(&(code as i32)) {
                self.drifted(DriftKind::UnknownCode, way, name, ("", ""));
            }
            rest = rest.get(length..).unwrap_or_default();
        }
    }

    fn drifted(&mut self, kind: DriftKind, way: &[&str], name: &str, (described, found): (&'static str, &'static str)) {
        if !self.notes.is_full(kind) {
            let path = way.iter().copied().chain([name]).collect::<Vec<_>>().join("/");
            self.notes.drifted(Drift { kind, field: String::new(), path: bounded(path), described, found });
        }
    }
}

fn word(wire: u8) -> &'static str {
    match wire {
        0 => "varint",
        1 => "64-bit",
        2 => "text or structure",
        _ => "32-bit",
    }
}
