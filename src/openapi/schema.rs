//! The schemas of messages (JSON Schema 2020-12), in Protobuf's JSON mapping.

use super::data_class;
use crate::contract::plan::{FieldKind, FieldPlan, MessagePlan};
use crate::contract::{comments, formats, patterns};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The direction of a message: a request's required fields are known, a response has what the grant allows and the source sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Request,
    Response,
}

/// The referenced schemas, by name.
#[derive(Debug, Default)]
pub(super) struct Schemas(BTreeMap<String, Value>);

const PARTIAL_DATE: &str = "ndxp.type.v1.PartialDate";

impl Schemas {
    /// Returns the document's `components`.
    pub fn into_components(self) -> Map<String, Value> {
        self.0.into_iter().collect()
    }

    /// Returns a reference to a message's schema, and generates the schema at first use.
    pub fn reference(&mut self, plan: &MessagePlan, side: Side) -> Value {
        let name = plan.message.full_name();
        // A message that goes both ways has two schemas: the contract is strict with requests only.
        let name = match side {
            Side::Request if !name.ends_with("Request") => format!("{name}.Input"),
            _ => name.to_owned(),
        };
        if !self.0.contains_key(&name) {
            self.0.insert(name.clone(), Value::Null);
            let schema = self.message(plan, side);
            self.0.insert(name.clone(), schema);
        }
        json!({ "$ref": format!("#/components/schemas/{name}") })
    }

    fn message(&mut self, plan: &MessagePlan, side: Side) -> Value {
        let mut properties = Map::new();
        for field in &plan.fields {
            properties.insert(field.field.json_name().to_owned(), self.field(field, side));
        }
        let mut schema = json!({ "type": "object", "properties": properties });
        let required = plan.fields.iter().filter(|field| field.required).map(|field| field.field.json_name());
        let required: Vec<&str> = required.collect();
        if side == Side::Response {
            return schema;
        }
        schema["additionalProperties"] = false.into();
        if !required.is_empty() {
            schema["required"] = required.into();
        }
        let groups: Vec<Value> = (0..plan.groups.len()).map(|group| exactly_one(plan, group)).collect();
        match <[Value; 1]>::try_from(groups) {
            Ok([only]) => schema["oneOf"] = only,
            Err(several) if several.is_empty() => {}
            Err(several) => schema["allOf"] = several.into_iter().map(|one| json!({ "oneOf": one })).collect(),
        }
        schema
    }

    fn field(&mut self, field: &FieldPlan, side: Side) -> Value {
        let mut one = self.value(field, side);
        if field.list {
            one = json!({ "type": "array", "items": one });
            if side == Side::Request {
                one["maxItems"] = field.max_length.into();
                if field.required {
                    one["minItems"] = 1.into();
                }
            }
        }
        let mut words = comments::of_field(&field.field);
        if let Some(format) = field.format {
            words = format!("{words} ({})", formats::expectation(format)).trim().to_owned();
        }
        one["description"] = words.into();
        if let Some(class) = data_class(field.data_class) {
            one["x-ndxp-data-class"] = class.into();
        }
        one
    }

    fn value(&mut self, field: &FieldPlan, side: Side) -> Value {
        let whole = |format: &str, least: i64, most: i64| json!({ "type": "integer", "format": format, "minimum": least, "maximum": most });
        match &field.kind {
            FieldKind::Text => text(field, side),
            FieldKind::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
            FieldKind::Int32 => whole("int32", i32::MIN.into(), i32::MAX.into()),
            FieldKind::Uint32 => whole("uint32", 0, u32::MAX.into()),
            // Beyond 2^53, so as text; eighteen digits always fit.
            FieldKind::Int64 => json!({ "type": "string", "format": "int64", "pattern": "^-?[0-9]{1,18}$" }),
            FieldKind::Uint64 => json!({ "type": "string", "format": "uint64", "pattern": "^[0-9]{1,19}$" }),
            FieldKind::Double => json!({ "type": "number", "format": "double" }),
            FieldKind::Float => json!({ "type": "number", "format": "float" }),
            FieldKind::Bool { .. } => json!({ "type": "boolean" }),
            FieldKind::Enum(values) => {
                let names: Vec<&str> = values.iter().map(|value| value.name.as_str()).collect();
                json!({ "type": "string", "enum": names })
            }
            FieldKind::Message(plan) => self.reference(plan, side),
            FieldKind::Date(_) => {
                self.0.entry(PARTIAL_DATE.to_owned()).or_insert_with(partial_date);
                json!({ "$ref": format!("#/components/schemas/{PARTIAL_DATE}") })
            }
            FieldKind::Time(_) => json!({ "type": "string", "format": "date-time" }),
            FieldKind::Remaining => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        }
    }
}

fn text(field: &FieldPlan, side: Side) -> Value {
    let mut schema = json!({ "type": "string" });
    if side == Side::Request {
        schema["maxLength"] = field.max_length.into();
        if let Some(pattern) = field.format.and_then(patterns::pattern) {
            schema["pattern"] = pattern.into();
        } else if field.required {
            schema["minLength"] = 1.into();
        }
    }
    schema
}

/// Exactly one field of a group is present.
fn exactly_one(plan: &MessagePlan, group: usize) -> Value {
    let members = plan.fields.iter().filter(|field| field.group == Some(group));
    members.map(|field| json!({ "required": [field.field.json_name()] })).collect()
}

fn partial_date() -> Value {
    let part =
        |most: u32, words: &str| json!({ "type": "integer", "minimum": 0, "maximum": most, "description": words });
    json!({
        "type": "object",
        "description": "A date of which the day, or the day and the month, may be unknown (ngày tháng năm).",
        "properties": {
            "year": { "type": "integer", "minimum": 1, "maximum": 9999, "description": "Năm." },
            "month": part(12, "Tháng; 0 or absent: unknown."),
            "day": part(31, "Ngày; 0 or absent: unknown."),
        },
        "required": ["year"],
        "additionalProperties": false,
    })
}
