//! Writing a request in the source's words.

use super::date::{Notation, Parts};
use super::{MapError, place_at};
use crate::contract::operation::{FillPlan, Operation};
use crate::contract::options::{self, Generated, Place, Wire, fill};
use crate::contract::plan::{FieldKind, FieldPlan, MessagePlan};
use crate::contract::settings::{CallContext, Settings};
use crate::contract::xml;
use base64::Engine;
use prost_reflect::{DynamicMessage, ReflectMessage, Value as Message};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// A request as the source wants it.
#[derive(Debug, Default)]
pub struct WireRequest {
    /// The body's document.
    pub body: Map<String, Value>,
    /// Query parameters, in order.
    pub query: Vec<(String, String)>,
    /// Headers from fields and fills.
    pub headers: Vec<(String, String)>,
    /// Values for the path template.
    pub path: Vec<(String, String)>,
}

/// Where the parts of a request go by default.
#[derive(Debug, Clone, Copy, Default)]
pub struct Layout<'a> {
    /// Names that the path template takes.
    pub path_names: &'a [&'a str],
    /// Whether the rest goes to the query.
    pub query: bool,
    /// Wrapper of the body's fields.
    pub body_root: &'a [String],
}

/// Maps a checked request.
pub fn write(
    operation: &Operation,
    message: &DynamicMessage,
    layout: Layout<'_>,
    context: &CallContext,
    settings: &Settings,
) -> Result<WireRequest, MapError> {
    let mut out = WireRequest::default();
    for fill in &operation.fills {
        if let Some(value) = fill_value(fill, context, settings)? {
            settle(&mut out, layout, &fill.name, fill.place, value);
        }
    }
    let mut fields = Vec::new();
    write_fields(&operation.request, message, "", &mut fields)?;
    for (name, place, value) in fields {
        settle(&mut out, layout, &name, place, value);
    }
    Ok(out)
}

fn settle(out: &mut WireRequest, layout: Layout<'_>, name: &super::WirePath, place: Place, value: Value) {
    if let [only] = name.parts.as_slice() {
        let text = |value: &Value| super::scalar_text(value).unwrap_or_default();
        if layout.path_names.contains(&only.as_str()) {
            out.path.push((only.clone(), text(&value)));
            return;
        }
        match place {
            Place::Header => return out.headers.push((only.clone(), text(&value))),
            Place::Query => return out.query.push((only.clone(), text(&value))),
            Place::Default if layout.query => return out.query.push((only.clone(), text(&value))),
            Place::Default | Place::Body => {}
        }
    }
    if name.absolute || layout.body_root.is_empty() {
        place_at(&mut out.body, &name.parts, value);
    } else {
        let parts: Vec<String> = layout.body_root.iter().chain(&name.parts).cloned().collect();
        place_at(&mut out.body, &parts, value);
    }
}

fn fill_value(fill: &FillPlan, context: &CallContext, settings: &Settings) -> Result<Option<Value>, MapError> {
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
        fill::Value::Setting(name) => {
            let text = settings.get(name).ok_or_else(|| MapError::SettingMissing(name.clone()))?;
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
    Some(Notation::parse(pattern).ok()?.write(&Parts::from_unix(now.as_second())?))
}

type Written<'p> = Vec<(Cow<'p, super::WirePath>, Place, Value)>;

fn write_fields<'p>(
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
        write_field(field, &value, &here, out)?;
    }
    Ok(())
}

fn write_field<'p>(
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
            let written: Result<Vec<Value>, MapError> = items.iter().map(|item| write_one(field, item, here)).collect();
            let value = match &field.separator {
                Some(separator) => {
                    let texts: Vec<String> = written?.iter().filter_map(super::scalar_text).collect();
                    Value::from(texts.join(separator))
                }
                None => Value::Array(written?),
            };
            out.push((Cow::Borrowed(name), field.place, value));
        }
        (FieldKind::Remaining, Message::Map(entries)) => {
            for (key, item) in entries {
                if let (Some(key), Some(text)) = (key.as_str(), item.as_str()) {
                    let name = super::WirePath { absolute: false, parts: vec![key.to_owned()] };
                    out.push((Cow::Owned(name), field.place, Value::from(text)));
                }
            }
        }
        _ => out.push((Cow::Borrowed(name), field.place, write_one(field, value, here)?)),
    }
    Ok(())
}

fn write_one(field: &FieldPlan, value: &Message, here: &dyn Fn() -> String) -> Result<Value, MapError> {
    let number_or_text =
        |text: String, number: Value| if field.wire == Wire::Text { Value::from(text) } else { number };
    Ok(match (&field.kind, value) {
        (FieldKind::Message(plan), Message::Message(inner)) => {
            let mut fields = Vec::new();
            write_fields(plan, inner, &here(), &mut fields)?;
            let mut object = Map::new();
            for (name, _, value) in fields {
                place_at(&mut object, &name.parts, value);
            }
            match &field.embedded {
                Some(embedded) => {
                    let mut text = String::from(xml::DECLARATION);
                    let space = Some(embedded.xml_namespace.as_str()).filter(|space| !space.is_empty());
                    xml::write_root(&mut text, &embedded.xml_root, space, &Value::Object(object));
                    Value::from(text)
                }
                None => Value::Object(object),
            }
        }
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
            let text = if field.upper { text.to_uppercase() } else { text.clone() };
            if field.wire == Wire::Number {
                text_as_number(&text).ok_or_else(|| MapError::Request { path: here(), reason: "must be a number" })?
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
        out.push((Cow::Borrowed(marker), field.place, Value::from(value.clone())));
    }
    let name = notation.name.as_ref().or(field.names.first()).ok_or_else(|| refuse("has no name at the source"))?;
    out.push((Cow::Borrowed(name), field.place, Value::from(notation.write(&parts))));
    Ok(())
}

/// Reads a `PartialDate` or a `Timestamp`; `None` where it is no date of the calendar.
pub fn date_parts(kind: &FieldKind, date: &DynamicMessage) -> Option<Parts> {
    let number = |index: u32| date.descriptor().get_field(index).map(|field| date.get_field(&field).into_owned());
    if matches!(kind, FieldKind::Time(_)) {
        return Parts::from_unix(number(1)?.as_i64()?);
    }
    let part = |index| number(index)?.as_i32();
    let parts = Parts {
        year: part(1)?.try_into().ok()?,
        month: part(2)?.try_into().ok()?,
        day: part(3)?.try_into().ok()?,
        time: None,
    };
    // A day without its month tells nothing.
    let whole = parts.month != 0 || parts.day == 0;
    (whole && parts.is_valid(parts.precision())).then_some(parts)
}
