//! Results of responses, by kind: each row is a document and its required result.
#![allow(clippy::unwrap_used)]

use super::response::{self, FoundContent};
use crate::contract::notes::Notes;
use crate::contract::{ContractSet, Operation, json};
use prost_reflect::DynamicMessage;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

const CONTRACT: &str = r#"
syntax = "proto3";
package odd.v1;
import "google/protobuf/timestamp.proto";
import "ndxp/contract/v1/contract.proto";
import "ndxp/type/v1/type.proto";
service Odd {
  option (ndxp.contract.v1.source) = { id: "odd" };
  rpc Get(Ask) returns (Record) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (ndxp.contract.v1.operation) = { scope: "odd:read" data_class: OPEN rest: { get: "/a" } };
  }
}
message Ask {}
enum Kind {
  KIND_UNSPECIFIED = 0 [(ndxp.contract.v1.value) = { text: "0" }];
  FIRST = 1 [(ndxp.contract.v1.value) = { text: ["01", "một"] }];
  SECOND = 2 [(ndxp.contract.v1.value) = { text: "02" }];
}
message Name {
  string family = 1 [(ndxp.contract.v1.field) = { name: "Ho" }];
  string given = 2 [(ndxp.contract.v1.field) = { name: ["Ten", "."] }];
}
message Contact {
  string phone = 1 [(ndxp.contract.v1.field) = { name: "PHONE" }];
}
message Row {
  string id = 1 [(ndxp.contract.v1.field) = { name: "id" required: true }];
}
message Record {
  Kind kind = 1 [(ndxp.contract.v1.field) = { name: "kind" }];
  Kind kept = 2 [(ndxp.contract.v1.field) = { name: "kept" unparsed_into: "kept_text" }];
  string kept_text = 3;
  Kind decides = 4 [(ndxp.contract.v1.field) = { name: "decides" strict: true }];
  int64 sum = 5 [(ndxp.contract.v1.field) = { name: "sum" unparsed_into: "sum_text" }];
  string sum_text = 6;
  int32 count = 7 [(ndxp.contract.v1.field) = { name: "count" }];
  string text = 8 [(ndxp.contract.v1.field) = { name: "text" absent: ["000000001", "none*"] }];
  string ward = 9 [(ndxp.contract.v1.field) = { name: "ward" digits: 5 }];
  Name name = 10 [(ndxp.contract.v1.field) = { name: "name" }];
  Contact contact = 11 [(ndxp.contract.v1.field) = { name: "." }];
  repeated Row rows = 12 [(ndxp.contract.v1.field) = { name: "rows" }];
  google.protobuf.Timestamp at = 13 [(ndxp.contract.v1.field) = { name: "at" date: { pattern: "yyyy-MM-dd'T'HH:mm:ss" } absent: "9999-12-31*" }];
  google.protobuf.Timestamp plain = 14 [(ndxp.contract.v1.field) = { name: "plain" date: { pattern: "yyyy-MM-dd'T'HH:mm:ss" } }];
  ndxp.type.v1.PartialDate born = 15 [(ndxp.contract.v1.field) = { date: { year_name: "born/nam" month_name: "born/thang" day_name: "born/ngay" } }];
  bytes file = 16 [(ndxp.contract.v1.field) = { name: "file" }];
  ndxp.type.v1.PartialDate may_fail = 17 [(ndxp.contract.v1.field) = { name: "may_fail" on_bad: OMIT date: { pattern: "yyyy" } }];
  repeated Kind kinds = 18 [(ndxp.contract.v1.field) = { name: "kinds" }];
  bool flag = 19 [(ndxp.contract.v1.field) = { name: "flag" yes: "Có" no: "Không" }];
}
"#;

fn operation() -> Arc<Operation> {
    static SET: LazyLock<ContractSet> = LazyLock::new(|| ContractSet::with_text(CONTRACT).unwrap());
    SET.operation("/odd.v1.Odd/Get").unwrap().clone()
}

/// Returns the message as JSON, or the error; and the notes.
fn read(text: &str) -> (Result<Value, String>, Notes) {
    let operation = operation();
    let document = json::parse(text.as_bytes()).unwrap();
    let mut notes = Notes::default();
    let read = response::read_with_notes(&operation.response, &document, &document, &mut notes);
    let message = read.map_err(|error| error.to_string()).map(|read| {
        let message = DynamicMessage::decode(operation.response.message.clone(), read.message.as_slice()).unwrap();
        serde_json::to_value(&message).unwrap()
    });
    (message, notes)
}

fn is(text: &str, expected: Value) {
    assert_eq!(read(text).0, Ok(expected), "{text}");
}

fn is_refused(text: &str, path: &str) {
    let error = read(text).0.unwrap_err();
    assert!(error.starts_with(&format!("response at {path}: ")), "{text}: {error}");
}

#[test]
fn u11_unknown_codes_cost_nothing_but_their_field_unless_it_decides() {
    is(r#"{"kind": "01"}"#, json!({ "kind": "FIRST" }));
    is(r#"{"kind": " 01 "}"#, json!({ "kind": "FIRST" }));
    for number in ["1", "1.0", "\"1\"", "\"001\""] {
        is(&format!("{{\"kind\": {number}}}"), json!({ "kind": "FIRST" }));
    }
    is("{\"kind\": \"mo\u{302}\u{323}t\"}", json!({ "kind": "FIRST" }));
    // A separate value means that nothing is known.
    assert_eq!(read(r#"{"kind": 0, "count": 1}"#), (Ok(json!({ "count": 1 })), Notes::default()));
    let (message, notes) = read(r#"{"kind": "77", "count": 1}"#);
    assert_eq!(message, Ok(json!({ "count": 1 })));
    assert_eq!(notes.unknown_codes, [("kind".to_owned(), Some("77".to_owned()))]);
    let (message, notes) = read(r#"{"kept": "77"}"#);
    assert_eq!(message, Ok(json!({ "keptText": "77" })));
    assert_eq!(notes.unknown_codes, [("kept".to_owned(), None)], "the field beside has it");
    is(r#"{"kept": "02", "kept_text": "no place of its own"}"#, json!({ "kept": "SECOND" }));
    is(r#"{"kinds": ["01", "x", "02"]}"#, json!({ "kinds": ["FIRST", "KIND_UNSPECIFIED", "SECOND"] }));
    is_refused(r#"{"decides": "77"}"#, "decides");
    is(r#"{"decides": "02"}"#, json!({ "decides": "SECOND" }));
}

#[test]
fn u3_numbers_are_what_the_source_wrote() {
    is(r#"{"text": 0.10}"#, json!({ "text": "0.10" }));
    is(r#"{"text": 12345678901234567890123}"#, json!({ "text": "12345678901234567890123" }));
    is(r#"{"text": 1.5E9}"#, json!({ "text": "1.5E9" }));
    is(r#"{"count": 5.0}"#, json!({ "count": 5 }));
    is(r#"{"count": "1.5E9"}"#, json!({ "count": 1_500_000_000 }));
    is(r#"{"sum": "1000.000"}"#, json!({ "sum": "1000" }));
    is(r#"{"sum": 9007199254740993}"#, json!({ "sum": "9007199254740993" }));
    is(r#"{"sum": "1500000000.500"}"#, json!({ "sumText": "1500000000.500" }));
    is(r#"{"sum": 12345678901234567890123}"#, json!({ "sumText": "12345678901234567890123" }));
    for wrong in ["5.5", "\"5,0\"", "99999999999", "\"12a\"", "true", "{\"a\": 1}", "[1, 2]"] {
        is_refused(&format!("{{\"count\": {wrong}}}"), "count");
    }
}

#[test]
fn codes_texts_and_names_are_read_as_sources_write_them() {
    is(r#"{"ward": 6673}"#, json!({ "ward": "06673" }));
    is(r#"{"ward": 6673.0}"#, json!({ "ward": "06673" }));
    is(r#"{"ward": "DC-12"}"#, json!({ "ward": "DC-12" }));
    is(r#"{"text": "000000001", "count": 1}"#, json!({ "count": 1 }));
    is(r#"{"text": " nonesuch ", "count": 1}"#, json!({ "count": 1 }));
    is(r#"{"text": "0000000012"}"#, json!({ "text": "0000000012" }));
    is(r#"{"name": "VŨ QUANG TIẾN"}"#, json!({ "name": { "given": "VŨ QUANG TIẾN" } }));
    is(r#"{"name": {"Ho": "VŨ", "Ten": "TIẾN"}}"#, json!({ "name": { "family": "VŨ", "given": "TIẾN" } }));
    is(r#"{"name": {"Ho": "VŨ"}}"#, json!({ "name": { "family": "VŨ" } }));
    is(r#"{"PHONE": "0900000001"}"#, json!({ "contact": { "phone": "0900000001" } }));
    is("{\"flag\": \"Co\u{301}\"}", json!({ "flag": true }));
    is_refused(r#"{"flag": "maybe"}"#, "flag");
}

#[test]
fn u11_lists_are_read_as_php_and_jaxb_write_them_and_base64_in_lines() {
    for rows in [r#"[{"id": "1"}, {"id": "2"}]"#, r#"{"0": {"id": "1"}, "1": {"id": "2"}}"#] {
        is(&format!("{{\"rows\": {rows}}}"), json!({ "rows": [{ "id": "1" }, { "id": "2" }] }));
    }
    is(r#"{"rows": {"id": "1"}}"#, json!({ "rows": [{ "id": "1" }] }));
    is(r#"{"rows": {"0": {"id": "1"}, "2": {"id": "2"}}}"#, json!({ "rows": [{ "id": "1" }, { "id": "2" }] }));
    is_refused(r#"{"rows": {"0": {"id": "1"}, "x": {"id": "2"}}}"#, "id");
    is_refused(r#"{"rows": [{"id": "1"}, {"x": "2"}]}"#, "id");
    for file in ["AQID", "AQ\\r\\nID\\n", " AQ ID "] {
        is(&format!("{{\"file\": \"{file}\"}}"), json!({ "file": "AQID" }));
    }
    is(r#"{"file": "AQI"}"#, json!({ "file": "AQI=" }));
    is_refused(r#"{"file": "A*ID"}"#, "file");
}

#[test]
fn u7_times_that_stand_for_none_are_named_by_the_contract_or_refused() {
    is(r#"{"at": "2026-11-03T08:15:00"}"#, json!({ "at": "2026-11-03T01:15:00Z" }));
    is(r#"{"at": "9999-12-31T23:59:59", "count": 1}"#, json!({ "count": 1 }));
    for sentinel in ["9999-12-31T23:59:59", "9999-12-31T00:00:00", "0001-01-01T00:00:00"] {
        is_refused(&format!("{{\"plain\": \"{sentinel}\"}}"), "plain");
    }
    is(r#"{"plain": "9999-12-30T23:59:59"}"#, json!({ "plain": "9999-12-30T16:59:59Z" }));
    is_refused(r#"{"plain": "2026-02-30T00:00:00"}"#, "plain");
}

#[test]
fn dates_in_parts_are_known_as_far_as_they_are() {
    let born = |parts: &str| read(&format!("{{\"born\": {parts}, \"count\": 1}}")).0;
    let known = |year: i32, month: i32, day: i32| {
        let mut date = serde_json::Map::new();
        for (name, part) in [("year", year), ("month", month), ("day", day)] {
            if part != 0 {
                date.insert(name.into(), json!(part));
            }
        }
        Ok(json!({ "born": date, "count": 1 }))
    };
    assert_eq!(born(r#"{"nam": "1998", "thang": 12, "ngay": "05"}"#), known(1998, 12, 5));
    assert_eq!(born(r#"{"nam": 1998, "thang": "", "ngay": null}"#), known(1998, 0, 0));
    assert_eq!(born(r#"{"nam": 1998, "thang": 12}"#), known(1998, 12, 0));
    assert_eq!(born(r#"{"nam": 0, "thang": 0, "ngay": 0}"#), Ok(json!({ "count": 1 })));
    assert!(born(r#"{"nam": 1998, "thang": 0, "ngay": 5}"#).is_err());
    assert!(born(r#"{"nam": 1998, "thang": 13, "ngay": 5}"#).is_err());
    assert!(born(r#"{"nam": "x"}"#).is_err());
}

#[test]
fn a_bad_value_costs_its_field_where_the_contract_says_so() {
    let (message, notes) = read(r#"{"may_fail": "soon", "count": 1}"#);
    assert_eq!(message, Ok(json!({ "count": 1 })));
    assert_eq!(notes.dropped_fields, ["may_fail"]);
    assert_eq!(read(r#"{"may_fail": "1998"}"#), (Ok(json!({ "mayFail": { "year": 1998 } })), Notes::default()));
    assert_eq!(read(r#"{"count": 1}"#).1, Notes::default(), "what is absent was not dropped");
}

#[test]
fn u1_what_is_found_of_a_contract_is_told_from_nothing() {
    let operation = operation();
    let found = |text: &str| {
        let document = json::parse(text.as_bytes()).unwrap();
        response::read_with_notes(&operation.response, &document, &document, &mut Notes::default()).unwrap().found
    };
    assert_eq!(found(r#"{"message": "ok"}"#), FoundContent::EmptyDocument);
    assert_eq!(found("{}"), FoundContent::EmptyDocument);
    assert_eq!(found(r#"{"text": null}"#), FoundContent::Names);
    assert_eq!(found(r#"{"at": ""}"#), FoundContent::Names);
    assert_eq!(found(r#"{"born": {"nam": null}}"#), FoundContent::Names);
    assert_eq!(found(r#"{"rows": []}"#), FoundContent::EmptyList);
    assert_eq!(found(r#"{"rows": null}"#), FoundContent::EmptyList);
    assert_eq!(found(r#"{"count": 0}"#), FoundContent::Value, "a default value is one");
    // A structure without any known name does not match the contract.
    is_refused(r#"{"name": {"first": "A"}, "count": 1}"#, "name");
    is(r#"{"name": {"first": ""}, "count": 1}"#, json!({ "count": 1 }));
}
