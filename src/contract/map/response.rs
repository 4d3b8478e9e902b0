//! Reading the source's response into the contract's message.

use super::date::{DateParts, Notation};
use super::values::{is_absent, is_list, items, only};
use super::{MapError, WirePath, encode, lookup, scalar_text};
use crate::contract::formats;
use crate::contract::json;
use crate::contract::notes::{Notes, PathStack};
use crate::contract::plan::{EnumPlan, FieldKind, FieldPlan, MessagePlan};
use crate::contract::text;
use crate::contract::xml;
use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost_reflect::Value as Message;
use serde_json::Value;

/// The result of reading a message.
#[derive(Debug)]
pub struct Read {
    /// The message, encoded.
    pub message: Vec<u8>,
    /// How much of the contract was found.
    pub found: FoundContent,
}

/// How much of a contract's message was found in a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FoundContent {
    /// No name of the contract.
    EmptyDocument,
    /// Names of the contract, all without a value.
    Names,
    /// The name of a list, which is empty.
    EmptyList,
    /// A value.
    Value,
}

/// Maps the document at `place` (below `root`) to an encoded message.
///
/// # Errors
/// [`MapError::Response`] with the path at the source of the first value that does not match the contract.
pub fn read(plan: &MessagePlan, place: &Value, root: &Value) -> Result<Vec<u8>, MapError> {
    Ok(read_with_notes(plan, place, root, &mut Notes::default())?.message)
}

/// Maps as [`read`] does, and also returns what was found and noted.
///
/// # Errors
/// As for [`read`].
pub fn read_with_notes(plan: &MessagePlan, place: &Value, root: &Value, notes: &mut Notes) -> Result<Read, MapError> {
    ResponseReader { root, notes }.message(plan, place, None)
}

/// Returns what a structure has in addition to the contract's names, with a value; `ours`: names that the contract reads elsewhere.
pub fn leftovers<'v>(
    plan: &MessagePlan,
    place: &'v Value,
    ours: impl Fn(&str) -> bool,
) -> impl Iterator<Item = &'v Value> {
    let object = if let Value::Object(object) = only(place) { Some(object) } else { None };
    let others = object.into_iter().flatten().filter(move |(name, _)| !plan.known.contains(*name) && !ours(name));
    others.map(|(_, value)| value).filter(|value| !is_absent(value))
}

/// Returns the single value of a one-or-many.
fn single(value: &Value) -> Option<&Value> {
    let one = only(value);
    (!is_list(one)).then_some(one)
}

const SEVERAL: &str = "one record was expected, and there are several or none";

fn wrong(path: &str, reason: &'static str) -> MapError {
    MapError::Response { path: path.to_owned(), reason }
}

fn path_text(path: &WirePath) -> String {
    if path.parts.is_empty() { ".".to_owned() } else { path.parts.join("/") }
}

/// Base64 (RFC 4648, section 4), with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

struct ResponseReader<'v, 'n> {
    root: &'v Value,
    notes: &'n mut Notes,
}

impl<'v> ResponseReader<'v, '_> {
    fn message(
        &mut self,
        plan: &MessagePlan,
        place: &'v Value,
        above: Option<&PathStack<'_>>,
    ) -> Result<Read, MapError> {
        // A message whose list is named "." is the list itself.
        let whole = plan.fields.iter().any(|field| field.list && field.names.iter().any(|name| name.parts.is_empty()));
        let place = if whole { place } else { single(place).ok_or_else(|| wrong("", SEVERAL))? };
        let mut message = Vec::with_capacity(128);
        let mut found = FoundContent::EmptyDocument;
        for field in plan.fields.iter().filter(|field| field.raw_text_of.is_none()) {
            let trail = PathStack::below(above, &field.name);
            match self.field(plan, field, place, &trail) {
                Ok((Some(value), _)) => {
                    found = FoundContent::Value;
                    encode::put(&mut message, &field.field, &value);
                }
                Ok((None, here)) => {
                    found = found.max(here);
                    if field.required {
                        return Err(wrong(&field_path(field), "it is required, and absent"));
                    }
                }
                Err(MapError::Response { .. }) if field.unparsed_into.is_some() || field.omit => {
                    found = FoundContent::Value;
                    self.unread(field, place, &trail, &mut message);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Read { message, found })
    }

    /// Handles a value that cannot be read: only its field is omitted; its text goes to the field beside it, if there
    /// is one.
    fn unread(&mut self, field: &FieldPlan, place: &Value, trail: &PathStack<'_>, message: &mut Vec<u8>) {
        let text = self.present(field, place).and_then(|(_, value)| scalar_text(value));
        match (&field.unparsed_into, text) {
            (Some(beside), Some(text)) => {
                encode::put(message, beside, &Message::String(text.trim().to_owned()));
                if matches!(field.kind, FieldKind::Enum(_)) {
                    self.notes.unknown_code(trail.path(), None);
                }
            }
            _ => self.notes.dropped(trail.path()),
        }
    }

    /// Returns the first of a field's locations with content.
    fn present<'f>(&self, field: &'f FieldPlan, place: &'v Value) -> Option<(&'f WirePath, &'v Value)> {
        let here = |name: &&'f WirePath| {
            // A text named "." is the location itself if that is a text, and not a structure.
            !name.parts.is_empty() || field.list || matches!(field.kind, FieldKind::Message(_)) || !place.is_object()
        };
        field.names.iter().filter(here).find_map(|name| Some((name, lookup(place, self.root, name)?)))
    }

    /// Returns a field's value, or whether its name is present without one.
    fn field(
        &mut self,
        plan: &MessagePlan,
        field: &FieldPlan,
        place: &'v Value,
        trail: &PathStack<'_>,
    ) -> Result<(Option<Message>, FoundContent), MapError> {
        if let FieldKind::Date(notations) | FieldKind::Time(notations) = &field.kind {
            return self.date(field, notations, place);
        }
        if matches!(field.kind, FieldKind::Remaining) {
            let value = read_remaining(plan, place)?;
            return Ok((value, FoundContent::EmptyDocument));
        }
        let Some((name, value)) = self.present(field, place) else {
            // Null is not looked up: its name is present all the same.
            let named = field.names.iter().any(|name| is_named(place, name));
            let empty = if field.list { FoundContent::EmptyList } else { FoundContent::Names };
            return Ok((None, if named { empty } else { FoundContent::EmptyDocument }));
        };
        // The location itself is not a name of the contract.
        let named = if name.parts.is_empty() { FoundContent::EmptyDocument } else { FoundContent::Names };
        if is_absent(value) {
            return Ok((None, if field.list { FoundContent::EmptyList } else { named }));
        }
        if !field.list {
            let one = single(value).ok_or_else(|| wrong(&path_text(name), SEVERAL))?;
            return Ok((self.one(field, one, name, trail)?, named));
        }
        let mut all = Vec::new();
        match (&field.separator, value) {
            (Some(separator), Value::String(text)) => {
                for part in text.split(separator.trim_end()).map(str::trim).filter(|part| !part.is_empty()) {
                    all.extend(scalar(field, part, name, trail, self.notes)?);
                }
            }
            // An object if there is one, a list if there are several.
            (_, value) => {
                for value in items(value) {
                    all.extend(self.one(field, value, name, trail)?);
                }
            }
        }
        Ok(((!all.is_empty()).then_some(Message::List(all)), FoundContent::EmptyList))
    }

    fn one(
        &mut self,
        field: &FieldPlan,
        value: &'v Value,
        name: &WirePath,
        trail: &PathStack<'_>,
    ) -> Result<Option<Message>, MapError> {
        let fail = |reason| wrong(&path_text(name), reason);
        let value = match &field.item {
            // The structure around each item.
            Some(item) if !is_absent(value) => {
                value.get(item).ok_or_else(|| fail("an item has no value of its own"))?
            }
            _ => value,
        };
        if is_absent(value) {
            return Ok(None);
        }
        let FieldKind::Message(plan) = &field.kind else {
            let text = scalar_text(value).ok_or_else(|| fail("a single value was expected"))?;
            return scalar(field, &text, name, trail, self.notes);
        };
        let read = match &field.embedded {
            Some(expected) => {
                let text = value.as_str().ok_or_else(|| fail("a document in a text was expected"))?;
                let malformed = "the embedded document is not well-formed";
                let field_path = || trail.path();
                let document = if expected.json {
                    json::parse(text.as_bytes()).map_err(|_| fail(malformed))?
                } else {
                    let element = xml::parse(text.as_bytes()).map_err(|_| fail(malformed))?;
                    if element.name != expected.xml_root {
                        return Err(fail("the embedded document has another root element"));
                    }
                    if let Some(shape) = &field.document {
                        shape.observe_attributes(&element, &field_path, self.notes);
                    }
                    element.into_value()
                };
                if let Some(shape) = &field.document {
                    shape.observe(&document, &field_path, self.notes);
                }
                // Absolute paths still refer to the outer document.
                ResponseReader { root: self.root, notes: &mut *self.notes }.message(plan, &document, Some(trail))?
            }
            None => {
                let takes_text =
                    || plan.fields.iter().any(|field| field.names.iter().any(|name| name.parts.is_empty()));
                if !value.is_object() && !value.is_array() && !takes_text() {
                    return Err(fail("a structure was expected"));
                }
                self.message(plan, value, Some(trail))?
            }
        };
        match read.found {
            // Flat properties that a separate message groups: none of them is present.
            FoundContent::EmptyDocument | FoundContent::Names if name.parts.is_empty() && !field.list => Ok(None),
            FoundContent::EmptyDocument if !plan.fields.is_empty() => Err(fail(NO_FIELD_FOUND)),
            FoundContent::Names => match leftovers(plan, value, |_| false).next() {
                None => Ok(Some(Message::Bytes(read.message.into()))),
                // The structure names nobody, whatever the source has added.
                Some(added) if !field.list && scalar_text(added).is_some() => Ok(None),
                Some(_) => Err(fail(NO_FIELD_FOUND)),
            },
            _ => Ok(Some(Message::Bytes(read.message.into()))),
        }
    }

    fn date(
        &mut self,
        field: &FieldPlan,
        notations: &[Notation],
        place: &Value,
    ) -> Result<(Option<Message>, FoundContent), MapError> {
        let mut seen: Option<&WirePath> = None;
        for notation in notations {
            if let Some(places) = &notation.in_parts {
                let part = |at: usize| places[at].as_ref().and_then(|way| lookup(place, self.root, way));
                match DateParts::of_texts([part(0), part(1), part(2)].map(|part| part.and_then(scalar_text))) {
                    Some(Ok(parts)) => return Ok((date_message(field, &parts), FoundContent::Names)),
                    Some(Err(())) => seen = seen.or(places[0].as_ref()),
                    None => {}
                }
                continue;
            }
            let own = if notation.name.is_some() { [].iter() } else { field.names.iter() };
            for name in notation.name.iter().chain(own) {
                let Some(value) = lookup(place, self.root, name).filter(|value| !is_absent(value)) else { continue };
                let text = scalar_text(value).ok_or_else(|| wrong(&path_text(name), "a date was expected"))?;
                let text = text::code(&text);
                if field.absent.iter().any(|absent| absent.is(&text)) {
                    return Ok((None, FoundContent::Names));
                }
                seen = Some(name);
                if let Some((marker, wanted)) = &notation.marker
                    && lookup(place, self.root, marker).and_then(scalar_text).as_deref().map(str::trim) != Some(wanted)
                {
                    continue;
                }
                if let Some(parts) = notation.read(&text) {
                    if parts.is_sentinel() {
                        return Err(wrong(
                            &path_text(name),
                            "it is a sentinel date, and the contract does not declare it",
                        ));
                    }
                    let message = date_message(field, &parts);
                    let message =
                        message.ok_or_else(|| wrong(&path_text(name), "the time is beyond the years 1 to 9999"))?;
                    return Ok((Some(message), FoundContent::Names));
                }
            }
        }
        match seen {
            Some(name) => Err(wrong(&path_text(name), "a date in one of the contract's notations was expected")),
            None => {
                let own = field.names.iter().chain(notations.iter().flat_map(Notation::paths));
                let named = own.into_iter().any(|name| is_named(place, name));
                Ok((None, if named { FoundContent::Names } else { FoundContent::EmptyDocument }))
            }
        }
    }
}

/// The reason that a document is not trusted.
pub const NO_FIELD_FOUND: &str = "nothing of the contract is found there";

fn field_path(field: &FieldPlan) -> String {
    field.names.first().map_or_else(|| field.name.clone(), path_text)
}

/// Returns whether the first name of a path is in the structure at a location.
fn is_named(place: &Value, name: &WirePath) -> bool {
    !name.absolute && name.parts.first().is_some_and(|first| only(place).get(first).is_some())
}

/// A single value from its text.
fn scalar(
    field: &FieldPlan,
    raw: &str,
    name: &WirePath,
    trail: &PathStack<'_>,
    notes: &mut Notes,
) -> Result<Option<Message>, MapError> {
    let fail = |reason| wrong(&path_text(name), reason);
    let text = raw.trim();
    if !field.absent.is_empty() {
        let code = text::nfc(text);
        if field.absent.iter().any(|absent| absent.is(&code)) {
            return Ok(None);
        }
    }
    Ok(Some(match &field.kind {
        FieldKind::Text if field.digits > 0 => Message::String(text::digits(text, field.digits).into_owned()),
        FieldKind::Text => match field.format.and_then(|format| formats::normal(format, text)) {
            Some(normal) => {
                Message::String(normal.ok_or_else(|| fail("a text of the contract's format was expected"))?)
            }
            None => Message::String(text.to_owned()),
        },
        FieldKind::Bytes => {
            // In lines, as in MIME (RFC 2045, section 6.8).
            let plain: Vec<u8> = without_data_scheme(text).bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
            Message::Bytes(BASE64.decode(plain).map_err(|_| fail("base64 was expected"))?.into())
        }
        FieldKind::Int32 => Message::I32(integer(text).ok_or_else(|| fail(WHOLE))?),
        FieldKind::Int64 => Message::I64(integer(text).ok_or_else(|| fail(WHOLE))?),
        FieldKind::Uint32 => Message::U32(integer(text).ok_or_else(|| fail(WHOLE))?),
        FieldKind::Uint64 => Message::U64(integer(text).ok_or_else(|| fail(WHOLE))?),
        FieldKind::Double => Message::F64(finite(text).ok_or_else(|| fail("a number was expected"))?),
        FieldKind::Float => Message::F32(finite(text).ok_or_else(|| fail("a number was expected"))? as f32),
        FieldKind::Bool { yes, no } => {
            Message::Bool(read_bool(text, yes, no).ok_or_else(|| fail("yes or no was expected"))?)
        }
        FieldKind::Enum(values) => {
            let code = text::nfc(text);
            match EnumPlan::find(values, &code) {
                Some(number) => Message::EnumNumber(number),
                None if field.strict || field.unparsed_into.is_some() => {
                    return Err(fail("a value that the contract does not know"));
                }
                None => {
                    notes.unknown_code(trail.path(), Some(&code));
                    Message::EnumNumber(0)
                }
            }
        }
        FieldKind::Message(_) | FieldKind::Date(_) | FieldKind::Time(_) | FieldKind::Remaining => {
            return Err(fail("a single value was expected"));
        }
    }))
}

/// Base64 without the head of a `data:` URL (RFC 2397), in which portals keep files.
fn without_data_scheme(text: &str) -> &str {
    let is_base64 = |head: &str| head.rsplit_once(';').is_some_and(|(_, last)| last.eq_ignore_ascii_case("base64"));
    match text.strip_prefix("data:").and_then(|rest| rest.split_once(',')) {
        Some((head, rest)) if is_base64(head) => rest,
        _ => text,
    }
}

const WHOLE: &str = "a whole number was expected";

/// Parses an integer in the range of the field's type.
fn integer<T: std::str::FromStr + TryFrom<i128>>(text: &str) -> Option<T> {
    let number = || text::integer(text).filter(|_| !is_grouped(text));
    text.parse().ok().or_else(|| T::try_from(number()?).ok())
}

/// `1.000`: a thousand in Vietnamese notation, and one as a decimal. The text alone does not decide which.
fn is_grouped(text: &str) -> bool {
    let digits = text.trim_start_matches(['-', '+']).strip_suffix(".000");
    digits.is_some_and(|digits| (1..=3).contains(&digits.len()) && !digits.starts_with('0'))
}

fn finite(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|number| number.is_finite())
}

fn read_bool(text: &str, yes: &Option<String>, no: &Option<String>) -> Option<bool> {
    let is = |known: &Option<String>| known.as_deref().is_some_and(|known| text::nfc(known) == text::nfc(text));
    if is(yes) {
        return Some(true);
    }
    if is(no) {
        return Some(false);
    }
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// `google.protobuf.Timestamp` or `ndxp.type.v1.PartialDate`, encoded; `None` for a time that the first cannot hold.
fn date_message(field: &FieldPlan, parts: &DateParts) -> Option<Message> {
    let mut message = Vec::new();
    if matches!(field.kind, FieldKind::Time(_)) {
        encode::number(&mut message, 1, parts.to_unix()?);
        encode::number(&mut message, 2, i64::from(parts.nanos));
    } else {
        for (number, part) in [(1, i64::from(parts.year)), (2, i64::from(parts.month)), (3, i64::from(parts.day))] {
            encode::number(&mut message, number, part);
        }
    }
    Some(Message::Bytes(message.into()))
}

fn read_remaining(plan: &MessagePlan, place: &Value) -> Result<Option<Message>, MapError> {
    let Value::Object(object) = place else { return Err(wrong(".", "a structure was expected")) };
    let mut rest = Vec::new();
    for (key, value) in object {
        if !plan.known.contains(key) && !is_absent(value) {
            let text = scalar_text(value).ok_or_else(|| wrong(key, "a single value was expected"))?;
            let mut entry = Vec::new();
            encode::text(&mut entry, 1, key);
            encode::text(&mut entry, 2, text.trim());
            rest.push(Message::Bytes(entry.into()));
        }
    }
    Ok((!rest.is_empty()).then_some(Message::List(rest)))
}
