//! Drift in documents: each row is a document and its drift.
#![allow(clippy::unwrap_used)]

use super::{Drift, DriftKind};
use crate::contract::notes::{MAX_NOTES, Notes};
use crate::contract::{ContractSet, Operation, json, xml};
use std::sync::{Arc, LazyLock};

const CONTRACT: &str = r#"
syntax = "proto3";
package drift.v1;
import "ndxp/contract/v1/contract.proto";
import "ndxp/type/v1/type.proto";
service Drift {
  option (ndxp.contract.v1.source) = {
    id: "drift" ignored: ["Message", "Meta/*"] drift: PASS
    outcome: { code: "/Code" success: "0" no_record: { path: "/Nobody" } }
  };
  rpc Get(Ask) returns (Record) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (ndxp.contract.v1.operation) = {
      scope: "drift:read" data_class: OPEN rest: { get: "/a" } response_root: "Data" ignored: "Took" drift: REFUSE
    };
  }
  rpc List(Ask) returns (stream Row) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (ndxp.contract.v1.operation) = {
      scope: "drift:read" data_class: OPEN rest: { get: "/l" } response_root: "Data/Rows" paging: { total: "/Count" }
    };
  }
  rpc Any(Ask) returns (Columns) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (ndxp.contract.v1.operation) = { scope: "drift:read" data_class: OPEN rest: { get: "/c" } };
  }
  rpc Soap(Ask) returns (Record) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (ndxp.contract.v1.operation) = {
      scope: "drift:read" data_class: OPEN soap: { request: "Ask" namespace: "urn:x" response: "Record" } ignored: "@phienBan"
    };
  }
  rpc Grpc(Ask) returns (Message) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (ndxp.contract.v1.operation) = { scope: "drift:read" data_class: OPEN grpc: {} };
  }
}
message Ask {}
enum Kind { KIND_UNSPECIFIED = 0; FIRST = 1 [(ndxp.contract.v1.value) = { text: "1" }]; }
message Name {
  string given = 1 [(ndxp.contract.v1.field) = { name: ["Ten", "."] }];
}
message Inner {
  option (ndxp.contract.v1.structure) = { ignored: ["Stt", "@stt"] };
  string id = 1 [(ndxp.contract.v1.field) = { name: ["Id", "Ma"] expected: true }];
  int32 count = 2 [(ndxp.contract.v1.field) = { name: "So" }];
}
message Letter {
  string a = 1 [(ndxp.contract.v1.field) = { name: "A" }];
}
message Record {
  string text = 1 [(ndxp.contract.v1.field) = { name: "Chu" }];
  int64 sum = 2 [(ndxp.contract.v1.field) = { name: "Tien" }];
  Kind kind = 3 [(ndxp.contract.v1.field) = { name: "Loai" wire: TEXT }];
  Name name = 4 [(ndxp.contract.v1.field) = { name: "Ten" }];
  Inner inner = 5 [(ndxp.contract.v1.field) = { name: "Trong" }];
  repeated Inner list = 6 [(ndxp.contract.v1.field) = { name: "DanhSach" }];
  repeated string codes = 7 [(ndxp.contract.v1.field) = { name: "Ma" item: "MaCSDL" }];
  Letter letter = 8 [(ndxp.contract.v1.field) = { name: "Thu" embedded: { json: true } }];
  ndxp.type.v1.PartialDate born = 9 [(ndxp.contract.v1.field) = { date: { year_name: "Nam" month_name: "Thang" day_name: "Ngay" } }];
  string either = 10 [(ndxp.contract.v1.field) = { name: "Hoac" wire: EITHER }];
  bool flag = 11 [(ndxp.contract.v1.field) = { name: "Co" }];
}
message Row {
  string id = 1 [(ndxp.contract.v1.field) = { name: "Id" required: true }];
}
message Columns {
  map<string, string> values = 1 [(ndxp.contract.v1.field) = { remaining: true }];
}
message Message {
  reserved 9;
  string id = 1 [(ndxp.contract.v1.field) = { expected: true }];
  Part part = 2;
  repeated int32 numbers = 3;
  Kind kind = 4;
  int32 zero = 5 [(ndxp.contract.v1.field) = { expected: true }];
}
message Part { string text = 1; }
"#;

fn operation(name: &str) -> Arc<Operation> {
    static SET: LazyLock<ContractSet> = LazyLock::new(|| ContractSet::with_text(CONTRACT).unwrap());
    SET.operation(&format!("/drift.v1.Drift/{name}")).unwrap().clone()
}

fn shown(drift: &Drift) -> String {
    let types = format!("{} {}", drift.described, drift.found);
    format!("{} {} {}", drift.kind.as_str(), drift.path, types.trim()).trim().to_owned()
}

fn noticed(name: &str, text: &str) -> Vec<String> {
    let operation = operation(name);
    let mut notes = Notes::default();
    let document = match text.starts_with('<') {
        true => {
            let root = xml::parse(text.as_bytes()).unwrap();
            operation.response_shape.document.observe_attributes(&root, &String::new, &mut notes);
            root.into_value()
        }
        false => json::parse(text.as_bytes()).unwrap(),
    };
    operation.response_shape.document.observe(&document, &String::new, &mut notes);
    notes.drift.iter().map(shown).collect()
}

#[test]
fn an_answer_as_described_has_no_drift_whatever_is_absent_or_empty() {
    for (name, text) in [
        (
            "Get",
            r#"{"Code": 0, "Data": {"Chu": "x", "Tien": 5, "Loai": "1", "Ten": {"Ten": "An"}, "Nam": 1990, "Ngay": "1"}}"#,
        ),
        (
            "Get",
            r#"{"Code": "0", "Data": {"Trong": {"Id": "1"}, "DanhSach": [{"Ma": "1", "So": "7.0"}, {"Id": null}]}}"#,
        ),
        (
            "Get",
            r#"{"Data": {"Chu": null, "Tien": "", "Trong": [], "DanhSach": "", "Ten": "An", "Co": true, "Hoac": 5}}"#,
        ),
        ("Get", r#"{"Data": {"DanhSach": {"0": {"Id": "1"}, "1": {"Id": "2"}}, "Ma": [{"MaCSDL": "7"}]}}"#),
        ("Get", r#"{"Message": {"a": [1]}, "Meta": {"x": 1, "y": {}}, "Took": 5, "Nobody": {"a": 1}, "Data": {}}"#),
        ("Get", r#"{"Data": {"Trong": {"Id": "1", "Stt": 5}, "Tien": 12345678901234567890123}}"#),
        ("List", r#"{"Count": 2, "Code": 0, "Data": {"Rows": [{"Id": "1"}, {"Id": "2"}]}}"#),
        ("Any", r#"{"x": "1", "022199000123": "2"}"#),
        ("Soap", "<Record><Chu>5</Chu><Tien>5</Tien><DanhSach><Id>1</Id></DanhSach><Co>true</Co></Record>"),
        ("Soap", "<Record><DanhSach><Id>1</Id></DanhSach><DanhSach><Id>2</Id></DanhSach><Ten/><Trong/></Record>"),
    ] {
        assert!(noticed(name, text).is_empty(), "{text}: {:?}", noticed(name, text));
    }
}

#[test]
fn each_kind_is_noticed_by_path() {
    for (name, text, expected) in [
        ("Get", r#"{"Data": {"Chu": "x", "Moi": "y"}}"#, &["added Data/Moi text"][..]),
        ("Get", r#"{"Data": {"Chu": "x"}, "Moi": {"a": {"b": 1}}}"#, &["added Moi structure"]),
        ("Get", r#"{"data": {"Chu": "x"}}"#, &["added data structure"]),
        ("Get", r#"{"Data": {"Trong": {"So": 1}}}"#, &["missing Data/Trong/Id"]),
        (
            "Get",
            r#"{"Data": {"DanhSach": [{"Id": "1"}, {"So": 1, "X": 1}, {"X": 2}]}}"#,
            &["added Data/DanhSach/X number", "missing Data/DanhSach/Id"],
        ),
        ("Get", r#"{"Data": {"Chu": 5}}"#, &["retyped Data/Chu text number"]),
        ("Get", r#"{"Data": {"Chu": {"a": 1}}}"#, &["retyped Data/Chu text structure"]),
        ("Get", r#"{"Data": {"Chu": ["x", "y"]}}"#, &["retyped Data/Chu text list"]),
        ("Get", r#"{"Data": {"Tien": "năm"}}"#, &["retyped Data/Tien number text"]),
        ("Get", r#"{"Data": {"Loai": 1}}"#, &["retyped Data/Loai text number"]),
        ("Get", r#"{"Data": {"Trong": "x"}}"#, &["retyped Data/Trong structure text"]),
        ("Get", r#"{"Data": {"DanhSach": {"Id": "1"}}}"#, &["retyped Data/DanhSach list structure"]),
        ("Get", r#"{"Data": {"Co": "1"}}"#, &["retyped Data/Co boolean text"]),
        ("Get", r#"{"Data": {"Ma": ["7"]}}"#, &["retyped Data/Ma structure text"]),
        ("Get", r#"[{"Data": {"Chu": "x"}}, {"Data": {}}]"#, &["retyped . structure list"]),
        (
            "List",
            r#"{"Data": {"Rows": [{"Idd": "1"}]}, "Stt": 1}"#,
            &["added Data/Rows/Idd text", "missing Data/Rows/Id", "added Stt number"],
        ),
        ("Soap", "<Record><Chu><b>5</b></Chu><Moi>1</Moi></Record>", &["retyped Chu text structure", "added Moi text"]),
        ("Soap", "<Record><Chu>1</Chu><Chu>2</Chu></Record>", &["retyped Chu text list"]),
        (
            "Soap",
            "<Record v=\"2\"><Chu donVi=\"m\">1</Chu></Record>",
            &["added @v attribute", "added Chu/@donVi attribute"],
        ),
        (
            "Soap",
            "<Record><DanhSach><Id>1</Id></DanhSach><DanhSach ma=\"2\"><Id>2</Id></DanhSach></Record>",
            &["added DanhSach/@ma attribute"],
        ),
        ("Soap", "<Record><Chu a022199000123=\"x\">1</Chu></Record>", &["added Chu/@* attribute"]),
        // Known names, attributes of the format, and content of an added structure.
        (
            "Soap",
            "<Record phienBan=\"1\"><Trong stt=\"1\" muc=\"2\"><Id>1</Id></Trong></Record>",
            &["added Trong/@muc attribute"],
        ),
        (
            "Soap",
            "<Record xmlns:i=\"urn:i\" i:type=\"x\"><Chu xml:lang=\"vi\">1</Chu><Moi a=\"1\">1</Moi></Record>",
            &["added Moi text"],
        ),
    ] {
        assert_eq!(noticed(name, text), expected, "{text}");
    }
}

#[test]
fn a_name_that_may_be_a_value_stands_in_no_path() {
    for (text, expected) in [
        (
            r#"{"Data": {"022199000123": {"x": 1}, "Nguyễn Văn An": 1}}"#,
            &["added Data/* structure", "added Data/* number"][..],
        ),
        (r#"{"Data": {"DanhSach": [{"Id": "1", "so-022199000123": 1}]}}"#, &["added Data/DanhSach/* number"]),
    ] {
        assert_eq!(noticed("Get", text), expected, "{text}");
    }
    // A structure of many unknown names is a map.
    let many =
        (0..30).map(|at| format!("\"ten{}\": 1", char::from(b'a' + at % 26).to_string().repeat(1 + at as usize / 26)));
    let text = format!("{{\"Data\": {{{}}}}}", many.collect::<Vec<_>>().join(","));
    assert_eq!(noticed("Get", &text), ["added Data/* map"]);
}

#[test]
fn what_one_answer_says_is_bounded() {
    let rows =
        |at: usize| format!("{{\"Id\": \"1\", \"X{}\": 1}}", ["a", "b", "c", "d", "e", "f"][at % 6].repeat(1 + at / 6));
    let text = format!("{{\"Data\": {{\"Rows\": [{}]}}}}", (0..100).map(rows).collect::<Vec<_>>().join(","));
    assert_eq!(noticed("List", &text).len(), MAX_NOTES);
    let deep = "{\"a\":".repeat(60) + "1" + &"}".repeat(60);
    assert_eq!(noticed("Get", &deep), ["added a structure"]);
}

#[test]
fn a_document_in_a_text_has_its_drift_behind_its_fields_path() {
    let operation = operation("Get");
    let text = r#"{"Chu": "x", "Thu": "{\"A\": \"x\", \"B\": 1}"}"#;
    let document = json::parse(text.as_bytes()).unwrap();
    let mut notes = Notes::default();
    crate::contract::map::response::read_with_notes(&operation.response, &document, &document, &mut notes).unwrap();
    let paths: Vec<_> = notes.drift.iter().map(|drift| (drift.kind, drift.source_path(&operation))).collect();
    assert_eq!(paths, [(DriftKind::Added, "Data/Thu/B".to_owned())]);
    let of_field = |field: &str| Drift::of_field(DriftKind::Dropped, field).source_path(&operation);
    assert_eq!(
        (of_field("inner.count"), of_field("codes"), of_field("nothing")),
        ("Data/Trong/So".into(), "Data/Ma/MaCSDL".into(), "Data/nothing".into())
    );
    assert!(of_field(&"x".repeat(500)).len() <= super::MAX_PATH);
}

#[test]
fn messages_of_a_grpc_source_have_drift_by_number() {
    let operation = operation("Grpc");
    let noticed = |bytes: &[u8]| {
        let mut notes = Notes::default();
        operation.response_shape.message.observe(bytes, &mut notes);
        notes.drift.iter().map(shown).collect::<Vec<_>>()
    };
    let id = [0x0a, 1, b'x'];
    for (rest, expected) in [
        (&[][..], &[][..]),
        // part { text: "y" }, numbers packed and not, a kind, a reserved number.
        (&[0x12, 3, 0x0a, 1, b'y', 0x1a, 2, 5, 6, 0x18, 7, 0x20, 1, 0x48, 1], &[]),
        (&[0x40, 1], &["added #8 varint"]),
        (&[0x12, 2, 0x10, 1], &["added part/#2 varint"]),
        (&[0x15, 1, 0, 0, 0], &["retyped part structure 32-bit"]),
        (&[0x22, 1, b'x'], &["retyped kind number text or structure"]),
        (&[0x20, 7], &["unknown_code kind"]),
        (&[0xff], &[]),
    ] {
        assert_eq!(noticed(&[&id, rest].concat()), expected, "{rest:?}");
    }
    assert_eq!(noticed(&[0x18, 7]), ["missing id"], "a number that is 0 is there all the same");
}

#[test]
fn what_a_contract_says_of_drift_is_checked_at_load() {
    let fault = |from: &str, to: &str| {
        assert!(CONTRACT.contains(from), "{from}");
        ContractSet::with_text(&CONTRACT.replace(from, to))
            .map_or_else(|faults| faults[0].reason.clone(), |_| String::new())
    };
    for (from, to, expected) in [
        ("ignored: \"Took\"", "ignored: \"Data/Chu\"", "which the contract reads"),
        ("ignored: \"Took\"", "ignored: \"/\"", "names nothing"),
        ("ignored: [\"Stt\", \"@stt\"]", "ignored: [\"Id\"]", "which the contract reads"),
        ("[\"Id\", \"Ma\"] expected", "[\"Id\", \"Sau/Ma\"] expected", "one structure"),
        ("grpc: {}", "grpc: {} ignored: \"x\"", "reserve the numbers"),
    ] {
        assert!(fault(from, to).contains(expected), "{to}: {:?}", fault(from, to));
    }
    // Names that another operation reads, and parts of known structures, may be ignored.
    assert_eq!(fault("[\"Message\", \"Meta/*\"]", "[\"Message\", \"Data/Chu\", \"Meta/a/b\"]"), "");
    let set = ContractSet::with_text(CONTRACT).unwrap();
    let policy = |name: &str| set.operation(&format!("/drift.v1.Drift/{name}")).unwrap().drift;
    assert_eq!((policy("Get"), policy("List")), (Some(super::DriftPolicy::Refuse), Some(super::DriftPolicy::Pass)));
}

/// The drift of the responses of `tests/fixtures`, by fixture: every name in public documents is read or ignored.
#[test]
fn the_fixtures_answers_are_as_the_contracts_describe() {
    let contracts = ContractSet::embedded().unwrap();
    let (mut found, mut answers) = (Vec::new(), 0);
    for folder in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures")).unwrap() {
        let folder = folder.unwrap().path();
        let Ok(files) = std::fs::read_dir(&folder) else { continue };
        for file in files {
            let file = file.unwrap().path();
            let name = file.file_name().unwrap().to_str().unwrap().to_owned();
            let Some(stem) = name.strip_suffix(".expect.json") else { continue };
            let expect: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
            let (Some(source), Some(method)) = (expect["source"].as_str(), expect["operation"].as_str()) else {
                continue;
            };
            let (service, method) = method.split_once('/').unwrap();
            let Some(operation) = contracts.operation(&format!("/ndxp.{source}.v1.{service}/{method}")) else {
                continue;
            };
            if expect["kind"] != "answer" {
                continue;
            }
            answers += 1;
            let mut notes = Notes::default();
            let document = match std::fs::read(file.with_file_name(format!("{stem}.json"))) {
                Ok(body) => json::parse(&body).unwrap(),
                Err(_) => {
                    let envelope =
                        xml::parse(&std::fs::read(file.with_file_name(format!("{stem}.xml"))).unwrap()).unwrap();
                    let body = envelope.children.into_iter().find(|child| child.name == "Body").unwrap();
                    let content = body.children.into_iter().next().unwrap();
                    operation.response_shape.document.observe_attributes(&content, &String::new, &mut notes);
                    content.into_value()
                }
            };
            operation.response_shape.document.observe(&document, &String::new, &mut notes);
            let folder = folder.file_name().unwrap().to_str().unwrap();
            found.extend(notes.drift.iter().map(|drift| format!("{folder}/{stem} {method}: {}", shown(drift))));
        }
    }
    found.sort();
    assert!(answers > 40, "{answers}");
    // Several persons where one is requested: refused as well.
    assert_eq!(
        found,
        ["population/04-several-citizens GetCitizen: retyped CongDan structure list"],
        "{answers} answers"
    );
}
