//! Maps a request to the source's format.

use super::case::{case_named, in_case};
use super::date::{DateParts, Notation};
use super::{MapError, insert_at};
use crate::contract::formats;
use crate::contract::operation::{FillPlan, Operation};
use crate::contract::options::{self, Case, Generated, Location, Wire, fill};
use crate::contract::plan::{FieldKind, FieldPlan, MessagePlan};
use crate::contract::settings::{CallContext, Settings};
use crate::contract::text::is_longer;
use crate::contract::xml;
use base64::Engine;
use prost_reflect::{DynamicMessage, Value as Message};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// A request in the source's format.
#[derive(Debug, Default)]
pub struct WireRequest {
    /// The body's document.
    pub body: Map<String, Value>,
    /// The body, if one request field (named ".") is all of it.
    pub document: Option<Value>,
    /// Query parameters, in order.
    pub query: Vec<(String, String)>,
    /// Headers from fields and fills.
    pub headers: Vec<(String, String)>,
    /// Values for the path template.
    pub path: Vec<(String, String)>,
}

/// The default locations of a request's parts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Layout<'a> {
    /// Names in the path template.
    pub path_names: &'a [&'a str],
    /// Whether the rest goes to the query.
    pub query: bool,
    /// Wrapper of the body's fields.
    pub body_root: &'a [String],
}

/// Maps a checked request to the source's document, parameters and headers.
///
/// # Errors
/// [`MapError::Request`] for a value that has no form at the source, [`MapError::SettingMissing`] if the connection entry lacks a
/// setting.
pub fn write(
    operation: &Operation,
    message: &DynamicMessage,
    layout: Layout<'_>,
    context: &CallContext,
    settings: &Settings,
) -> Result<WireRequest, MapError> {
    let expected = operation.fills.len() + operation.request.fields.len();
    let mut out =
        WireRequest { body: Map::with_capacity(if layout.query { 0 } else { expected }), ..WireRequest::default() };
    let mut writer = Writer { settings, inside: Vec::new() };
    for fill in &operation.fills {
        let value = fitted(fill, fill_value(&writer, operation, message, fill, context)?)?;
        let Some(value) = value else { continue };
        if leads_inside(&operation.request, &fill.name) {
            writer.inside.push((&fill.name.parts, value));
        } else {
            settle(&mut out, layout, &fill.name, fill.location, value);
        }
    }
    let mut fields = Vec::with_capacity(operation.request.fields.len());
    writer.fields(&operation.request, message, "", &mut fields)?;
    for (name, place, value) in fields {
        settle(&mut out, layout, &name, place, value);
    }
    Ok(out)
}

/// Returns whether a fill's path leads into a document inside a text.
fn leads_inside(plan: &MessagePlan, name: &super::WirePath) -> bool {
    plan.fields.iter().any(|field| {
        field.embedded.is_some()
            && field
                .names
                .first()
                .is_some_and(|outer| name.parts.len() > outer.parts.len() && name.parts.starts_with(&outer.parts))
    })
}

/// Returns a fill's value if its format and length permit it, or else its replacement.
fn fitted(fill: &FillPlan, value: Option<Value>) -> Result<Option<Value>, MapError> {
    let otherwise = || fill.otherwise.clone().map(Value::from);
    let Some(value) = value else { return Ok(otherwise()) };
    if fill.format.is_none() && fill.max_length.is_none() {
        return Ok(Some(value));
    }
    let text = super::scalar(&value).unwrap_or_default();
    let long = fill.max_length.is_some_and(|most| is_longer(&text, most));
    let wrong = fill.format.filter(|format| formats::check(*format, &text).is_err());
    let reason = match (wrong, long) {
        (Some(format), _) => formats::expectation(format),
        (None, true) => "is longer than the source takes",
        (None, false) => return Ok(Some(value)),
    };
    match otherwise() {
        Some(text) => Ok(Some(text)),
        None => Err(MapError::Request { path: origin(&fill.value).to_owned(), reason }),
    }
}

/// Returns the origin of a fill's value, as the caller knows it.
fn origin(value: &fill::Value) -> &str {
    match value {
        fill::Value::Context(kind) => match options::Context::try_from(*kind) {
            Ok(options::Context::Official) => "ndxp-official",
            Ok(options::Context::Purpose) => "ndxp-purpose",
            Ok(options::Context::Agency) => "the client's agency code",
            Ok(options::Context::ExchangeId | options::Context::Unspecified) | Err(_) => "the call's context",
        },
        fill::Value::Field(path) => path,
        fill::Value::Setting(name) => name,
        fill::Value::Text(_) | fill::Value::Number(_) | fill::Value::Generated(_) => "the contract",
    }
}

fn settle(out: &mut WireRequest, layout: Layout<'_>, name: &super::WirePath, location: Location, value: Value) {
    if name.parts.is_empty() {
        out.document = Some(value);
        return;
    }
    if let [only] = name.parts.as_slice() {
        let text = |value: &Value| super::scalar_text(value).unwrap_or_default();
        if layout.path_names.contains(&only.as_str()) {
            out.path.push((only.clone(), text(&value)));
            return;
        }
        match location {
            Location::Header => return out.headers.push((only.clone(), text(&value))),
            Location::Query => return out.query.push((only.clone(), text(&value))),
            Location::Default if layout.query => return out.query.push((only.clone(), text(&value))),
            Location::Default | Location::Body => {}
        }
    }
    if name.absolute || layout.body_root.is_empty() {
        insert_at(&mut out.body, &name.parts, value);
    } else {
        let parts: Vec<String> = layout.body_root.iter().chain(&name.parts).cloned().collect();
        insert_at(&mut out.body, &parts, value);
    }
}

fn fill_value(
    writer: &Writer<'_>,
    operation: &Operation,
    message: &DynamicMessage,
    fill: &FillPlan,
    context: &CallContext,
) -> Result<Option<Value>, MapError> {
    Ok(match &fill.value {
        fill::Value::Text(text) => Some(Value::from(text.clone())),
        fill::Value::Number(number) => Some(Value::from(*number)),
        fill::Value::Generated(kind) => Generated::try_from(*kind).ok().and_then(generate).map(Value::from),
        fill::Value::Context(kind) => match options::Context::try_from(*kind) {
            Ok(options::Context::Official) => context.official.clone().map(Value::from),
            Ok(options::Context::Agency) => Some(Value::from(context.agency.clone())),
            Ok(options::Context::Purpose) => context.purpose.clone().map(Value::from),
            Ok(options::Context::ExchangeId) => Some(Value::from(context.exchange_id.clone())),
            Ok(options::Context::Unspecified) | Err(_) => None,
        },
        fill::Value::Field(path) => writer.at(&operation.request, message, path)?,
        fill::Value::Setting(name) => {
            let text = match writer.settings.get(name) {
                Some(text) => text,
                None if fill.optional => return Ok(None),
                None => return Err(MapError::SettingMissing(name.clone())),
            };
            // `number:57` in a connection entry stands for a JSON number: many codes must be numbers at the source.
            match text.strip_prefix("number:").and_then(|digits| digits.parse::<i64>().ok()) {
                Some(number) => Some(Value::from(number)),
                None => Some(Value::from(text.clone())),
            }
        }
    })
}

fn generate(kind: Generated) -> Option<String> {
    let now = jiff::Timestamp::now();
    let pattern = match kind {
        Generated::Unspecified => return None,
        Generated::Uuid => return Some(uuid::Uuid::now_v7().to_string()),
        Generated::UnixMs => return Some(now.as_millisecond().to_string()),
        Generated::LocalTime => "yyyyMMddHHmmss",
        Generated::Today => "dd/MM/yyyy",
    };
    Some(Notation::parse(pattern).ok()?.write(&DateParts::from_unix(now.as_second())?))
}

type Written<'p> = Vec<(Cow<'p, super::WirePath>, Location, Value)>;

/// Writes messages, with the settings of the connection entry and the fills that affect their fields.
struct Writer<'a> {
    settings: &'a Settings,
    /// Fills inside a document in a text, by their complete path.
    inside: Vec<(&'a [String], Value)>,
}

impl Writer<'_> {
    /// Returns the value of a request field, by path, in the source's form; `None` if it is not given.
    fn at(&self, plan: &MessagePlan, message: &DynamicMessage, path: &str) -> Result<Option<Value>, MapError> {
        let (head, rest) = path.split_once('.').map_or((path, None), |(head, rest)| (head, Some(rest)));
        let Some(field) = plan.field(head).filter(|field| message.has_field(&field.field)) else { return Ok(None) };
        let value = message.get_field(&field.field);
        match (rest, &field.kind, value.as_ref()) {
            (Some(rest), FieldKind::Message(inner), Message::Message(message)) => self.at(inner, message, rest),
            (None, _, value) => self.one(field, value, &|| path.to_owned()).map(Some),
            (Some(_), _, _) => Ok(None),
        }
    }

    fn fields<'p>(
        &self,
        plan: &'p MessagePlan,
        message: &DynamicMessage,
        path: &str,
        out: &mut Written<'p>,
    ) -> Result<(), MapError> {
        for field in &plan.fields {
            if !field.list && !matches!(field.kind, FieldKind::Bool { .. }) && !message.has_field(&field.field) {
                continue;
            }
            let value = message.get_field(&field.field);
            let here = || if path.is_empty() { field.name.clone() } else { format!("{path}.{}", field.name) };
            self.field(field, &value, &here, out)?;
        }
        Ok(())
    }

    fn field<'p>(
        &self,
        field: &'p FieldPlan,
        value: &Message,
        here: &dyn Fn() -> String,
        out: &mut Written<'p>,
    ) -> Result<(), MapError> {
        let Some(name) = field.names.first() else { return Ok(()) };
        match (&field.kind, value) {
            (FieldKind::Date(notations) | FieldKind::Time(notations), Message::Message(date)) => {
                return write_date(field, notations, date, here, out);
            }
            (_, Message::List(items)) => {
                if items.is_empty() && field.separator.is_some() {
                    return Ok(());
                }
                let written: Result<Vec<Value>, MapError> =
                    items.iter().map(|item| Ok(in_item(field, self.one(field, item, here)?))).collect();
                let value = match &field.separator {
                    Some(separator) => {
                        let texts: Vec<String> = written?.iter().filter_map(super::scalar_text).collect();
                        Value::from(texts.join(separator))
                    }
                    None => Value::Array(written?),
                };
                out.push((Cow::Borrowed(name), field.location, value));
            }
            // The structure's fields are beside those of the message around it.
            (FieldKind::Message(plan), Message::Message(inner)) if name.parts.is_empty() => {
                return self.fields(plan, inner, &here(), out);
            }
            (FieldKind::Remaining, Message::Map(entries)) => {
                for (key, item) in entries {
                    if let (Some(key), Some(text)) = (key.as_str(), item.as_str()) {
                        let name = super::WirePath { absolute: false, parts: vec![key.to_owned()] };
                        // A property without a value is null at the source, as in the source's responses.
                        let value = if text.is_empty() { Value::Null } else { Value::from(text) };
                        out.push((Cow::Owned(name), field.location, value));
                    }
                }
            }
            _ => out.push((Cow::Borrowed(name), field.location, self.one(field, value, here)?)),
        }
        Ok(())
    }

    /// Writes a message, or the text with the document that stands for it.
    fn message(
        &self,
        field: &FieldPlan,
        plan: &MessagePlan,
        inner: &DynamicMessage,
        here: &dyn Fn() -> String,
    ) -> Result<Value, MapError> {
        let mut object = Map::new();
        if field.embedded.is_some()
            && let Some(outer) = field.names.first()
        {
            for (path, value) in &self.inside {
                if let Some(rest) = path.strip_prefix(outer.parts.as_slice()) {
                    insert_at(&mut object, rest, value.clone());
                }
            }
        }
        let mut fields = Vec::new();
        self.fields(plan, inner, &here(), &mut fields)?;
        for (name, _, value) in fields {
            insert_at(&mut object, &name.parts, value);
        }
        let value = Value::Object(object);
        Ok(match &field.embedded {
            Some(embedded) if embedded.json => Value::from(value.to_string()),
            Some(embedded) => {
                // No declaration: the text's encoding is that of the document around it.
                let mut text = String::new();
                let space = Some(embedded.xml_namespace.as_str()).filter(|space| !space.is_empty());
                xml::write_root(&mut text, &embedded.xml_root, space, &value);
                Value::from(text)
            }
            None => value,
        })
    }

    fn one(&self, field: &FieldPlan, value: &Message, here: &dyn Fn() -> String) -> Result<Value, MapError> {
        let number_or_text =
            |text: String, number: Value| if field.wire == Wire::Text { Value::from(text) } else { number };
        Ok(match (&field.kind, value) {
            (FieldKind::Message(plan), Message::Message(inner)) => self.message(field, plan, inner, here)?,
            (FieldKind::Bool { yes, no }, Message::Bool(flag)) => match if *flag { yes } else { no } {
                Some(text) if field.wire == Wire::Number => {
                    text_as_number(text).unwrap_or_else(|| Value::from(text.clone()))
                }
                Some(text) => Value::from(text.clone()),
                None => Value::from(*flag),
            },
            (FieldKind::Enum(values), Message::EnumNumber(number)) => {
                let known = values.iter().find(|value| value.number == *number).and_then(|value| value.texts.first());
                let text =
                    known.ok_or_else(|| MapError::Request { path: here(), reason: "the source has no such value" })?;
                if field.wire == Wire::Number {
                    text_as_number(text).unwrap_or_else(|| Value::from(text.clone()))
                } else {
                    Value::from(text.clone())
                }
            }
            (_, Message::String(text)) => {
                let text = match field.format.and_then(|format| formats::normal(format, text)) {
                    Some(normal) => normal
                        .ok_or_else(|| MapError::Request { path: here(), reason: "is not of the contract's format" })?,
                    None => in_case(self.case(field), text),
                };
                if field.wire == Wire::Number {
                    text_as_number(&text)
                        .ok_or_else(|| MapError::Request { path: here(), reason: "must be a number" })?
                } else {
                    Value::from(text)
                }
            }
            (_, Message::I32(number)) => number_or_text(number.to_string(), Value::from(*number)),
            (_, Message::I64(number)) => number_or_text(number.to_string(), Value::from(*number)),
            (_, Message::U32(number)) => number_or_text(number.to_string(), Value::from(*number)),
            (_, Message::U64(number)) => number_or_text(number.to_string(), Value::from(*number)),
            (_, Message::F32(number)) => number_or_text(number.to_string(), Value::from(*number)),
            (_, Message::F64(number)) => number_or_text(number.to_string(), Value::from(*number)),
            (_, Message::Bytes(bytes)) => Value::from(base64::engine::general_purpose::STANDARD.encode(bytes)),
            _ => return Err(MapError::Request { path: here(), reason: "is of another type than the contract's" }),
        })
    }

    /// Returns the case of the connection entry's setting, or else the contract's.
    fn case(&self, field: &FieldPlan) -> Case {
        let chosen = field.case_setting.as_ref().and_then(|name| self.settings.get(name));
        chosen.and_then(|name| case_named(name)).unwrap_or(field.case)
    }
}

/// Wraps a list's item in the structure that the source requires.
fn in_item(field: &FieldPlan, value: Value) -> Value {
    match &field.item {
        Some(name) => Value::Object(Map::from_iter([(name.clone(), value)])),
        None => value,
    }
}

fn text_as_number(text: &str) -> Option<Value> {
    text.parse::<i64>().ok().map(Value::from)
}

fn write_date<'p>(
    field: &'p FieldPlan,
    notations: &'p [Notation],
    date: &DynamicMessage,
    here: &dyn Fn() -> String,
    out: &mut Written<'p>,
) -> Result<(), MapError> {
    let refuse = |reason| MapError::Request { path: here(), reason };
    let parts = date_parts(&field.kind, date).ok_or_else(|| refuse("is no date of the calendar"))?;
    let known = parts.precision();
    let notation = notations
        .iter()
        .find(|notation| notation.precision == known)
        .ok_or_else(|| refuse("the source takes no date of this precision"))?;
    if let Some((marker, value)) = &notation.marker {
        out.push((Cow::Borrowed(marker), field.location, Value::from(value.clone())));
    }
    let name = notation.name.as_ref().or(field.names.first()).ok_or_else(|| refuse("has no name at the source"))?;
    out.push((Cow::Borrowed(name), field.location, Value::from(notation.write(&parts))));
    Ok(())
}

/// Reads a `PartialDate` or a `Timestamp`; `None` if it is not a date of the calendar.
pub fn date_parts(kind: &FieldKind, date: &DynamicMessage) -> Option<DateParts> {
    let number = |index: u32| date.get_field_by_number(index);
    if matches!(kind, FieldKind::Time(_)) {
        let nanos = number(2)?.as_i32().filter(|nanos| (0..1_000_000_000).contains(nanos))?;
        return Some(DateParts { nanos, ..DateParts::from_unix(number(1)?.as_i64()?)? });
    }
    let part = |index| number(index)?.as_i32();
    let parts = DateParts {
        year: part(1)?.try_into().ok()?,
        month: part(2)?.try_into().ok()?,
        day: part(3)?.try_into().ok()?,
        ..DateParts::default()
    };
    // A day without its month has no meaning.
    let whole = parts.month != 0 || parts.day == 0;
    (whole && parts.is_valid(parts.precision())).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fill_that_does_not_fit_is_replaced_or_refused_with_its_origin() {
        let official = fill::Value::Context(options::Context::Official.into());
        let plan = |otherwise: Option<&str>, format, max_length| FillPlan {
            name: crate::contract::plan::WirePath::parse("MaDVC"),
            location: Location::Default,
            value: official.clone(),
            format,
            max_length,
            otherwise: otherwise.map(str::to_owned),
            optional: false,
        };
        let procedure = plan(Some("VPCP"), Some(options::Format::ProcedureCode), Some(20));
        let fit = |plan: &FillPlan, text: &str| fitted(plan, Some(Value::from(text)));
        assert_eq!(fit(&procedure, "1.004222"), Ok(Some(Value::from("1.004222"))));
        assert_eq!(fit(&procedure, "H49.12-261103-9051"), Ok(Some(Value::from("VPCP"))));
        assert_eq!(fit(&procedure, "1.004222.000.00.00.H49"), Ok(Some(Value::from("VPCP"))), "longer than 20");
        assert_eq!(fitted(&procedure, None), Ok(Some(Value::from("VPCP"))));
        let citizen = plan(None, Some(options::Format::CitizenId), None);
        let refused = fit(&citizen, "QN000001");
        assert!(matches!(refused, Err(MapError::Request { ref path, .. }) if path == "ndxp-official"), "{refused:?}");
        assert_eq!(fitted(&citizen, None), Ok(None), "what is absent is another rule's");
        assert!(fit(&plan(None, None, Some(3)), "long").is_err());
    }
}
