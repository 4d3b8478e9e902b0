//! One walk over a document, against its shape.

use super::name::{FOLDED, MAX_UNKNOWN, shown};
use super::shape::{BOOL, DocumentShape, NUMBER, OBJECT, ShapeNode, TEXT};
use super::{Drift, DriftKind, bounded};
use crate::contract::map::values::is_numbered;
use crate::contract::notes::Notes;
use crate::contract::xml::Element;
use serde_json::{Map, Value};

/// Maximum number of members of one structure with tracked presence; contracts have fewer.
const MAX_SEEN: usize = 256;

/// The path to a location, as a list from its end.
#[derive(Clone, Copy)]
struct Step<'s> {
    above: Option<&'s Step<'s>>,
    name: &'s str,
}

impl Step<'_> {
    fn write(&self, path: &mut String) {
        if let Some(above) = self.above {
            above.write(path);
            path.push('/');
        }
        path.push_str(self.name);
    }
}

impl DocumentShape {
    /// Notes the differences of a document from this shape; `field`: the field whose text contains it, empty for a
    /// response as a whole.
    pub fn observe(&self, document: &Value, field: &dyn Fn() -> String, notes: &mut Notes) {
        DriftWalk { shape: self, field, notes }.value(0, document, None);
    }

    /// Notes attributes of an XML document that are neither part of its format nor ignored (`"CongDan/@version"`): no
    /// contract reads one.
    pub fn observe_attributes(&self, root: &Element, field: &dyn Fn() -> String, notes: &mut Notes) {
        if root.has_attributes() {
            DriftWalk { shape: self, field, notes }.attributes(0, root, None);
        }
    }
}

struct DriftWalk<'w> {
    shape: &'w DocumentShape,
    field: &'w dyn Fn() -> String,
    notes: &'w mut Notes,
}

impl DriftWalk<'_> {
    fn value(&mut self, at: usize, value: &Value, way: Option<&Step<'_>>) {
        let place = &self.shape.places[at];
        // Nothing more is known of a sign of absence.
        if place.ignored || (place.types == 0 && place.members.is_empty() && !place.open) {
            return;
        }
        match value {
            Value::Null => {}
            Value::Array(items) if items.is_empty() => {}
            Value::Array(items) => {
                self.list(place, items.len(), way);
                items.iter().for_each(|item| self.item(at, item, way));
            }
            Value::Object(members) if members.is_empty() => {}
            // A list in PHP's form.
            Value::Object(members) if is_numbered(members) && !place.by_name.contains_key("0") => {
                self.list(place, members.len(), way);
                members.values().for_each(|item| self.item(at, item, way));
            }
            one => {
                // XML has no list of one; an empty text is nothing.
                if place.list && !place.single && !self.shape.xml && !is_blank(one) {
                    self.drifted(DriftKind::Retyped, way, None, ("list", word(one)));
                }
                self.item(at, one, way);
            }
        }
    }

    /// Every reader treats a list of one structure as that structure.
    fn list(&mut self, place: &ShapeNode, count: usize, way: Option<&Step<'_>>) {
        let one = count == 1 && place.types & OBJECT != 0;
        if place.single && !place.list && !one {
            self.drifted(DriftKind::Retyped, way, None, (words(place.types), "list"));
        }
    }

    fn item(&mut self, at: usize, value: &Value, way: Option<&Step<'_>>) {
        let place = &self.shape.places[at];
        match value {
            Value::Null => {}
            Value::Object(members) if place.types & OBJECT != 0 || place.types == 0 => {
                self.members(place, members, way)
            }
            Value::Array(items) => items.iter().for_each(|item| self.item(at, item, way)),
            value if place.types == 0 || fits(place.types, value, self.shape.xml) => {}
            value => self.drifted(DriftKind::Retyped, way, None, (words(place.types), word(value))),
        }
    }

    fn members(&mut self, place: &ShapeNode, members: &Map<String, Value>, way: Option<&Step<'_>>) {
        let (mut next, mut unknown) = (0, 0);
        let mut seen = [0u64; MAX_SEEN / 64];
        for (name, value) in members {
            let at = match place.members.get(next) {
                Some((known, _)) if **known == **name => next,
                _ => match place.by_name.get(name.as_str()) {
                    Some(at) => *at,
                    None => {
                        unknown += usize::from(!place.open);
                        continue;
                    }
                },
            };
            next = at + 1;
            if let Some(word) = seen.get_mut(at / 64) {
                *word |= 1 << (at % 64);
            }
            let (known, child) = &place.members[at];
            self.value(*child, value, Some(&Step { above: way, name: known }));
        }
        if unknown > 0 {
            self.unknown(place, members, way, unknown);
        }
        let is_seen = |at: &usize| seen.get(at / 64).is_none_or(|word| word & (1 << (at % 64)) != 0);
        for group in &place.expected {
            if !group.iter().any(is_seen)
                && let Some(first) = group.first()
            {
                self.drifted(DriftKind::Missing, way, Some(&place.members[*first].0), ("", ""));
            }
        }
    }

    fn attributes(&mut self, at: usize, element: &Element, way: Option<&Step<'_>>) {
        let place = &self.shape.places[at];
        // An element that the contract does not know is noticed as a whole.
        if place.ignored || place.open || (place.types == 0 && place.members.is_empty()) {
            return;
        }
        for name in element.own_attributes() {
            if !place.by_name.contains_key(format!("@{name}").as_str()) {
                let name = format!("@{}", shown(name));
                self.drifted(DriftKind::Added, way, Some(&name), ("", "attribute"));
            }
        }
        for child in &element.children {
            if let Some(at) = place.by_name.get(child.name.as_str()) {
                let (known, inside) = &place.members[*at];
                self.attributes(*inside, child, Some(&Step { above: way, name: known }));
            }
        }
    }

    fn unknown(&mut self, place: &ShapeNode, members: &Map<String, Value>, way: Option<&Step<'_>>, count: usize) {
        if count > MAX_UNKNOWN {
            return self.drifted(DriftKind::Added, way, Some(FOLDED), ("", "map"));
        }
        for (name, value) in members.iter().filter(|(name, _)| !place.by_name.contains_key(name.as_str())) {
            self.drifted(DriftKind::Added, way, Some(shown(name)), ("", word(value)));
        }
    }

    fn drifted(
        &mut self,
        kind: DriftKind,
        way: Option<&Step<'_>>,
        name: Option<&str>,
        (described, found): (&'static str, &'static str),
    ) {
        if self.notes.is_full(kind) {
            return;
        }
        let mut path = String::new();
        if let Some(way) = way {
            way.write(&mut path);
        }
        if let Some(name) = name {
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(name);
        }
        if path.is_empty() {
            path.push('.');
        }
        self.notes.drifted(Drift { kind, field: (self.field)(), path: bounded(path), described, found });
    }
}

fn is_blank(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.trim().is_empty())
}

/// Returns whether a value has one of the types. XML values are all texts. A number that is not a 64-bit integer is its
/// own text.
fn fits(types: u8, value: &Value, xml: bool) -> bool {
    match value {
        Value::String(text) if xml => types & (TEXT | NUMBER | BOOL) != 0 || text.trim().is_empty(),
        Value::String(text) => types & TEXT != 0 || text.trim().is_empty() || (types & NUMBER != 0 && is_number(text)),
        Value::Number(_) => types & NUMBER != 0,
        Value::Bool(_) => types & BOOL != 0,
        Value::Object(_) => types & OBJECT != 0,
        Value::Null | Value::Array(_) => true,
    }
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E'))
        && text.parse::<f64>().is_ok()
}

fn word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "structure",
    }
}

/// Returns a name for the described types of a location.
fn words(types: u8) -> &'static str {
    match types {
        OBJECT => "structure",
        TEXT => "text",
        NUMBER => "number",
        BOOL => "boolean",
        types if types & OBJECT != 0 => "structure or text",
        types if types & BOOL == 0 => "text or number",
        _ => "single value",
    }
}
