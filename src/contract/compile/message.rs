//! The plan of one message, from its fields' options.

use super::{ContractFault, DeclarationPath, option};
use crate::contract::drift::DocumentShape;
use crate::contract::map::date::{Notation, Precision};
use crate::contract::options::{self, Case, DataClass, Format, OnBad, Wire};
use crate::contract::plan::{
    Absent, DEFAULT_LIST_LENGTH, DEFAULT_TEXT_LENGTH, EnumPlan, FieldKind, FieldPlan, MAX_NESTING, MessagePlan,
    WirePath,
};
use crate::contract::text::code;
use prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use std::sync::Arc;

/// Compiles a message's plan, and those of the messages in it.
pub(super) fn plan(
    pool: &DescriptorPool,
    message: &MessageDescriptor,
    depth: usize,
) -> Result<Arc<MessagePlan>, Vec<ContractFault>> {
    let place = DeclarationPath { file: message.parent_file(), path: message.path().to_vec() };
    if depth > MAX_NESTING {
        return Err(vec![place.fault(format!(
            "{}: messages are nested deeper than {MAX_NESTING}, or in themselves",
            message.full_name()
        ))]);
    }
    let (mut groups, mut fields, mut faults) = (Vec::new(), Vec::new(), Vec::new());
    for field in message.fields() {
        match plan_field(pool, &field, depth, &mut groups) {
            Ok(field) => fields.push(field),
            Err(found) => faults.extend(found),
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    link_unread(message, &mut fields).map_err(|reason| vec![place.fault(reason)])?;
    let known = known(&fields);
    let structure: options::Structure = option(pool, message.options(), "structure").unwrap_or_default();
    Ok(Arc::new(MessagePlan { message: message.clone(), fields, groups, known, ignored: structure.ignored }))
}

/// Links each field to the one that takes its text if it cannot be read.
fn link_unread(message: &MessageDescriptor, fields: &mut [FieldPlan]) -> Result<(), String> {
    let both = |field: &FieldPlan| Some((field.unparsed_into.clone()?, field.field.number(), field.data_class));
    let pairs: Vec<_> = fields.iter().filter_map(both).collect();
    for (beside, number, data_class) in pairs {
        let taker =
            fields.iter_mut().find(|field| field.field.number() == beside.number() && number != beside.number());
        match taker.filter(|taker| matches!(taker.kind, FieldKind::Text) && !taker.list && taker.raw_text_of.is_none())
        {
            Some(taker) => {
                taker.raw_text_of = Some(number);
                taker.data_class = taker.data_class.max(data_class);
            }
            None => {
                let name = beside.name();
                return Err(format!(
                    "{}.{name}: unparsed_into needs a single text field of its own",
                    message.full_name()
                ));
            }
        }
    }
    Ok(())
}

/// Returns the first names of all paths to the fields.
fn known(fields: &[FieldPlan]) -> std::collections::HashSet<String> {
    let own = fields.iter().filter(|field| field.raw_text_of.is_none()).flat_map(|field| field.names.iter());
    let mut known: std::collections::HashSet<String> = own.filter_map(|name| name.parts.first().cloned()).collect();
    for field in fields {
        if let FieldKind::Date(notations) | FieldKind::Time(notations) = &field.kind {
            known.extend(notations.iter().flat_map(Notation::paths).filter_map(|name| name.parts.first().cloned()));
        }
    }
    // Flat properties that a separate message groups.
    for field in fields {
        if let FieldKind::Message(inner) = &field.kind
            && field.names.iter().any(|name| name.parts.is_empty())
        {
            known.extend(inner.known.iter().cloned());
        }
    }
    known
}

fn plan_field(
    pool: &DescriptorPool,
    field: &FieldDescriptor,
    depth: usize,
    groups: &mut Vec<String>,
) -> Result<FieldPlan, Vec<ContractFault>> {
    let place = DeclarationPath { file: field.parent_message().parent_file(), path: field.path().to_vec() };
    let fail = |reason: String| place.fault(format!("{}: {reason}", field.full_name()));
    let said: options::Field = option(pool, field.options(), "field").unwrap_or_default();
    let kind = field_kind(pool, field, &said, depth, &fail);
    let other = kind.as_ref().is_ok_and(|kind| !matches!(kind, FieldKind::Text));
    let rules = [
        (said.format() != Format::Unspecified && other, "only a string has a format"),
        (!said.separator.is_empty() && !field.is_list(), "only a list has a separator"),
        (!said.unparsed_into.is_empty() && (field.is_list() || field.is_map()), "unparsed_into is for a single value"),
        (said.digits > 0 && other, "only a string has digits"),
        (said.digits > 38, "digits are 38 at most"),
        (said.strict && !matches!(field.kind(), Kind::Enum(_)), "only an enum is strict"),
        (said.strict && !said.unparsed_into.is_empty(), "a strict field is read or refused: it has no unparsed_into"),
        (said.required && !said.unparsed_into.is_empty(), "a required field has no unparsed_into"),
        (said.required && said.on_bad() == OnBad::Omit, "a required field is not left out"),
        (
            !said.item.is_empty() && (!field.is_list() || !said.separator.is_empty()),
            "only a list of structures has an item",
        ),
        (
            said.embedded.as_ref().is_some_and(|embedded| embedded.xml_root.is_empty() != embedded.json),
            "embedded must name its xml_root, or say json",
        ),
    ];
    let mut faults: Vec<_> =
        rules.into_iter().filter(|(broken, _)| *broken).map(|(_, reason)| fail(reason.into())).collect();
    let document = match (&kind, &said.embedded) {
        (Ok(FieldKind::Message(inner)), Some(embedded)) => match DocumentShape::of_document(inner, !embedded.json) {
            Ok(shape) => Some(shape),
            Err(fault) => {
                faults.push(fail(fault.to_string()));
                None
            }
        },
        _ => None,
    };
    let kind = match kind {
        Ok(kind) if faults.is_empty() => kind,
        Ok(_) => return Err(faults),
        Err(found) => {
            faults.extend(found);
            return Err(faults);
        }
    };
    let group = (!said.one_of.is_empty()).then(|| {
        groups.iter().position(|group| *group == said.one_of).unwrap_or_else(|| {
            groups.push(said.one_of.clone());
            groups.len() - 1
        })
    });
    let names = if said.name.is_empty() { vec![field.name().to_owned()] } else { said.name.clone() };
    let default_length = if field.is_list() || field.is_map() { DEFAULT_LIST_LENGTH } else { DEFAULT_TEXT_LENGTH };
    Ok(FieldPlan {
        field: field.clone(),
        name: field.name().to_owned(),
        names: names.iter().map(|name| WirePath::parse(name)).collect(),
        kind,
        list: field.is_list(),
        separator: Some(said.separator.clone()).filter(|separator| !separator.is_empty()),
        format: Some(said.format()).filter(|format| *format != Format::Unspecified),
        required: said.required,
        expected: said.expected,
        max_length: if said.max_length == 0 { default_length } else { said.max_length as usize },
        wire: said.wire(),
        case: if said.upper { Case::Upper } else { said.case() },
        case_setting: Some(said.case_setting.clone()).filter(|setting| !setting.is_empty()),
        item: Some(said.item.clone()).filter(|item| !item.is_empty()),
        location: said.location(),
        group,
        embedded: said.embedded.clone(),
        document,
        data_class: DataClass::try_from(said.data_class).unwrap_or(DataClass::Unspecified),
        subject: said.subject,
        unparsed_into: match said.unparsed_into.as_str() {
            "" => None,
            name => match field.parent_message().get_field_by_name(name) {
                Some(beside) => Some(beside),
                None => return Err(vec![fail(format!("unparsed_into names no field {name:?} of the message"))]),
            },
        },
        raw_text_of: None,
        digits: said.digits as usize,
        strict: said.strict,
        absent: said.absent.iter().map(|text| Absent::parse(text)).collect(),
        omit: said.on_bad() == OnBad::Omit,
    })
}

type Fail<'a> = &'a dyn Fn(String) -> ContractFault;

fn field_kind(
    pool: &DescriptorPool,
    field: &FieldDescriptor,
    said: &options::Field,
    depth: usize,
    fail: Fail<'_>,
) -> Result<FieldKind, Vec<ContractFault>> {
    if said.subject && (field.kind() != Kind::String || field.is_map()) {
        return Err(vec![fail("only a text can be a `subject`".into())]);
    }
    if field.is_map() {
        let texts = field.kind().as_message().is_some_and(|entry| {
            matches!(
                (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind()),
                (Kind::String, Kind::String)
            )
        });
        return match (said.remaining, texts) {
            (true, true) => Ok(FieldKind::Remaining),
            _ => Err(vec![fail("a map must be map<string, string> with `remaining: true`".into())]),
        };
    }
    let one = |fault| vec![fault];
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Ok(match field.kind() {
        Kind::String => FieldKind::Text,
        Kind::Bytes => FieldKind::Bytes,
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => FieldKind::Int32,
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => FieldKind::Int64,
        Kind::Uint32 | Kind::Fixed32 => FieldKind::Uint32,
        Kind::Uint64 | Kind::Fixed64 => FieldKind::Uint64,
        Kind::Double => FieldKind::Double,
        Kind::Float => FieldKind::Float,
        Kind::Bool => FieldKind::Bool { yes: given(&said.yes), no: given(&said.no) },
        Kind::Enum(descriptor) => FieldKind::Enum(enum_plan(pool, &descriptor, said, fail).map_err(one)?),
        Kind::Message(message) => match message.full_name() {
            "ndxp.type.v1.PartialDate" => FieldKind::Date(notations(said, false, fail).map_err(one)?),
            "google.protobuf.Timestamp" => FieldKind::Time(notations(said, true, fail).map_err(one)?),
            _ => FieldKind::Message(super::message::plan(pool, &message, depth + 1)?),
        },
    })
}

fn notations(said: &options::Field, time: bool, fail: Fail<'_>) -> Result<Vec<Notation>, ContractFault> {
    let mut all = Vec::new();
    for date in &said.date {
        if !date.year_name.is_empty() {
            if time || !date.pattern.is_empty() {
                return Err(fail("a date in parts is a PartialDate, without a pattern".into()));
            }
            all.push(Notation::in_parts(&date.year_name, &date.month_name, &date.day_name));
            continue;
        }
        let mut notation = Notation::parse(&date.pattern).map_err(fail)?;
        if (notation.precision == Precision::Time) != time {
            return Err(fail(format!("{:?}: a Timestamp needs a time of day, a PartialDate has none", date.pattern)));
        }
        notation.read_precision = match date.precision() {
            options::Precision::OfPattern => None,
            options::Precision::Year => Some(Precision::Year),
            options::Precision::Month => Some(Precision::Month),
        };
        notation.name = Some(date.name.as_str()).filter(|name| !name.is_empty()).map(WirePath::parse);
        notation.marker =
            (!date.marker_name.is_empty()).then(|| (WirePath::parse(&date.marker_name), date.marker.clone()));
        all.push(notation);
    }
    Ok(all)
}

fn enum_plan(
    pool: &DescriptorPool,
    descriptor: &EnumDescriptor,
    said: &options::Field,
    fail: Fail<'_>,
) -> Result<Vec<EnumPlan>, ContractFault> {
    for text in &said.values {
        if descriptor.get_value_by_name(&text.value).is_none() {
            return Err(fail(format!("{} has no value {:?}", descriptor.full_name(), text.value)));
        }
    }
    let mut values = Vec::new();
    for value in descriptor.values() {
        let own: Option<options::EnumValue> = option(pool, value.options(), "value");
        let here = said.values.iter().find(|text| text.value == value.name());
        let texts = match (here, own) {
            (Some(here), _) => here.text.clone(),
            (None, Some(own)) if said.values.is_empty() => own.text,
            _ => Vec::new(),
        };
        let texts =
            if texts.is_empty() && said.wire() == Wire::Default && said.values.is_empty() && said.name.is_empty() {
                vec![value.name().to_owned()]
            } else {
                texts
            };
        let texts = texts.iter().map(|text| code(text).into_owned()).collect();
        values.push(EnumPlan { number: value.number(), name: value.name().to_owned(), texts });
    }
    Ok(values)
}
