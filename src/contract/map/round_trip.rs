//! A message of every kind of field, written as a request and read back as a response: in JSON and in XML, the same message returns.
#![allow(clippy::unwrap_used)]

use super::request::{self, Layout};
use super::response;
use crate::contract::settings::{CallContext, Settings};
use crate::contract::{ContractSet, Operation, json, xml};
use proptest::prelude::*;
use prost_reflect::{DynamicMessage, Kind, Value as Field};
use serde_json::Value;
use std::sync::{Arc, LazyLock};
use unicode_normalization::UnicodeNormalization;

const CONTRACT: &str = r#"
syntax = "proto3";
package echo.v1;
import "google/protobuf/timestamp.proto";
import "ndxp/contract/v1/contract.proto";
import "ndxp/type/v1/type.proto";
service Echo {
  option (ndxp.contract.v1.source) = { id: "echo" };
  rpc Say(Record) returns (Record) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (ndxp.contract.v1.operation) = { scope: "echo:read" data_class: OPEN rest: { post: "/a" } };
  }
}
enum State {
  STATE_UNSPECIFIED = 0 [(ndxp.contract.v1.value) = { text: "0" }];
  OPEN = 1 [(ndxp.contract.v1.value) = { text: ["01", "mở"] }];
  CLOSED = 2 [(ndxp.contract.v1.value) = { text: "02" }];
}
message Name {
  string family = 1 [(ndxp.contract.v1.field) = { name: "Ho" }];
  string given = 2 [(ndxp.contract.v1.field) = { name: "Ten" }];
}
message Record {
  string text = 1 [(ndxp.contract.v1.field) = { name: "text" }];
  bytes file = 2 [(ndxp.contract.v1.field) = { name: "file" }];
  int32 small = 3 [(ndxp.contract.v1.field) = { name: "so/small" }];
  int64 large = 4 [(ndxp.contract.v1.field) = { name: "so/large" }];
  uint32 count = 5 [(ndxp.contract.v1.field) = { name: "count" }];
  uint64 bytes = 6 [(ndxp.contract.v1.field) = { name: "bytes" }];
  double area = 7 [(ndxp.contract.v1.field) = { name: "area" }];
  float share = 8 [(ndxp.contract.v1.field) = { name: "share" }];
  bool plain = 9 [(ndxp.contract.v1.field) = { name: "plain" }];
  bool worded = 10 [(ndxp.contract.v1.field) = { name: "worded" yes: "Có" no: "Không" }];
  State state = 11 [(ndxp.contract.v1.field) = { name: "state" }];
  Name name = 12 [(ndxp.contract.v1.field) = { name: "name" }];
  repeated Name names = 13 [(ndxp.contract.v1.field) = { name: "names" }];
  repeated string texts = 14 [(ndxp.contract.v1.field) = { name: "texts" }];
  ndxp.type.v1.PartialDate born = 15 [(ndxp.contract.v1.field) = { name: "born" date: { pattern: "dd/MM/yyyy" } date: { pattern: "MM/yyyy" } date: { pattern: "yyyy" } }];
  google.protobuf.Timestamp at = 16 [(ndxp.contract.v1.field) = { name: "at" date: { pattern: "yyyy-MM-dd'T'HH:mm:ss.fz" } }];
  sint64 signed = 17 [(ndxp.contract.v1.field) = { name: "signed" }];
  fixed64 fixed = 18 [(ndxp.contract.v1.field) = { name: "fixed" }];
}
"#;

fn operation() -> Arc<Operation> {
    static SET: LazyLock<ContractSet> = LazyLock::new(|| ContractSet::with_text(CONTRACT).unwrap());
    SET.operation("/echo.v1.Echo/Say").unwrap().clone()
}

/// Texts in the form of the mapping's output: NFC, without blanks around them, of characters that XML allows.
fn text() -> impl Strategy<Value = String> {
    let any = "[a-zA-Z0-9 ,.;:<>&\"'\\-/ÀÁĂÂĐÊÔƠƯàáăâđêôơưạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ\u{300}\u{323}\u{20000}]{0,20}";
    any.prop_map(|text| text.trim().nfc().collect::<String>().trim().to_owned())
        .prop_filter("begins with a mark", |text| !text.starts_with(['\u{300}', '\u{323}']))
}

fn name() -> impl Strategy<Value = Option<(String, String)>> {
    prop::option::of((text(), text()).prop_filter("nothing", |(one, two)| !one.is_empty() || !two.is_empty()))
}

#[derive(Debug)]
struct Parts {
    texts: Vec<String>,
    file: Vec<u8>,
    bits: u64,
    state: i32,
    names: Vec<Option<(String, String)>>,
    born: Option<(i32, u32, u32)>,
    at: Option<(i64, i32)>,
    number: f64,
}

prop_compose! {
    fn parts()(
        texts in prop::collection::vec(text().prop_filter("nothing", |text| !text.is_empty()), 0..4),
        file in prop::collection::vec(any::<u8>(), 0..80),
        bits in prop_oneof![any::<u64>(), 0u64..300],
        state in 0i32..3,
        names in prop::collection::vec(name(), 1..4),
        born in prop::option::of((1_901i32..9_998, 0u32..13, 0u32..29)),
        at in prop::option::of((-60_000_000_000i64..250_000_000_000, 0i32..1_000_000_000)),
        number in prop_oneof![any::<i32>().prop_map(|units| f64::from(units) / 100.0), prop::num::f64::NORMAL],
    ) -> Parts {
        Parts { texts, file, bits, state, names, born, at, number }
    }
}

impl Parts {
    fn message(&self, operation: &Operation) -> DynamicMessage {
        let descriptor = operation.request.message.clone();
        let mut message = DynamicMessage::new(descriptor.clone());
        for field in descriptor.fields() {
            if let Some(value) = self.value(&field.kind(), field.name(), field.is_list()) {
                message.set_field(&field, value);
            }
        }
        message
    }

    fn value(&self, kind: &Kind, name: &str, is_list: bool) -> Option<Field> {
        let named = |kind: &Kind, (family, given): &(String, String)| {
            let mut one = DynamicMessage::new(kind.as_message().unwrap().clone());
            one.set_field_by_name("family", Field::String(family.clone()));
            one.set_field_by_name("given", Field::String(given.clone()));
            Field::Message(one)
        };
        if is_list {
            return Some(Field::List(match kind {
                Kind::String => self.texts.iter().cloned().map(Field::String).collect(),
                kind => self.names.iter().flatten().map(|one| named(kind, one)).collect(),
            }));
        }
        Some(match kind {
            Kind::String => Field::String(self.texts.first()?.clone()),
            Kind::Bytes => Field::Bytes(self.file.clone().into()),
            Kind::Int32 => Field::I32(self.bits as i32),
            Kind::Int64 | Kind::Sint64 => Field::I64(self.bits as i64),
            Kind::Uint32 => Field::U32(self.bits as u32),
            Kind::Uint64 | Kind::Fixed64 => Field::U64(self.bits),
            Kind::Double => Field::F64(self.number),
            Kind::Float => Field::F32((self.number as f32).clamp(f32::MIN, f32::MAX)),
            Kind::Bool => Field::Bool(self.bits % 2 == 1),
            Kind::Enum(_) => Field::EnumNumber(self.state),
            Kind::Message(_) if name == "name" => named(kind, self.names[0].as_ref()?),
            Kind::Message(of) => {
                let mut one = DynamicMessage::new(of.clone());
                if name == "born" {
                    let (year, month, day) = self.born?;
                    one.set_field_by_name("year", Field::I32(year));
                    one.set_field_by_name("month", Field::I32(month as i32));
                    one.set_field_by_name("day", Field::I32(if month == 0 { 0 } else { day as i32 }));
                } else {
                    let (seconds, nanos) = self.at?;
                    one.set_field_by_name("seconds", Field::I64(seconds));
                    one.set_field_by_name("nanos", Field::I32(nanos));
                }
                Field::Message(one)
            }
            other => panic!("no value of {other:?}"),
        })
    }
}

/// As protobuf's JSON, in which an unset field and its default are the same.
fn read(operation: &Operation, document: &Value) -> Value {
    let bytes = response::read(&operation.response, document, document).unwrap();
    let message = DynamicMessage::decode(operation.response.message.clone(), bytes.as_slice()).unwrap();
    serde_json::to_value(&message).unwrap()
}

proptest! {
    #[test]
    fn every_message_returns_from_json_and_from_xml(parts in parts()) {
        let operation = operation();
        let message = parts.message(&operation);
        let written = request::write(&operation, &message, Layout::default(), &CallContext::default(), &Settings::new());
        let body = Value::Object(written.unwrap().body);
        let document = json::parse(body.to_string().as_bytes()).unwrap();
        let expected = serde_json::to_value(&message).unwrap();
        prop_assert_eq!(&read(&operation, &document), &expected, "{}", body);
        let mut text = String::from(xml::DECLARATION);
        xml::write_root(&mut text, "root", Some("urn:a"), &body);
        let document = xml::parse(text.as_bytes()).unwrap().into_value();
        prop_assert_eq!(&read(&operation, &document), &expected, "{}", text);
    }
}
