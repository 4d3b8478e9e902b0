//! The JSON reader and the functions that use its documents: never a panic, a written document is read back the same, and if serde_json
//! reads the document as well, both read the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ndxp_gateway::contract::map::{outcome, response, response_start as start};
use ndxp_gateway::contract::{ContractSet, json};
use serde_json::Value;
use std::sync::LazyLock;

static CONTRACTS: LazyLock<ContractSet> = LazyLock::new(|| ContractSet::embedded().expect("embedded contracts"));

fuzz_target!(|bytes: &[u8]| {
    let Ok(document) = json::parse(bytes) else { return };
    assert_eq!(json::parse(document.to_string().as_bytes()).as_ref(), Ok(&document));
    if let Ok(other) = serde_json::from_slice(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)) {
        assert!(same(&document, &other));
    }
    for operation in CONTRACTS.operations() {
        let _ = outcome::evaluate(&operation.outcome, &document, &document);
        if let start::Start::At(place) = start::start(&document, &operation.response_root) {
            let _ = response::read(&operation.response, place, &document);
        }
    }
});

/// The same except for numbers, which keep their own text here.
fn same(ours: &Value, other: &Value) -> bool {
    match (ours, other) {
        (Value::Number(_) | Value::String(_), Value::Number(_)) => true,
        (Value::Array(ours), Value::Array(other)) => {
            ours.len() == other.len() && ours.iter().zip(other).all(|(ours, other)| same(ours, other))
        }
        (Value::Object(ours), Value::Object(other)) => {
            ours.len() == other.len()
                && ours.iter().zip(other).all(|((name, ours), (known, other))| name == known && same(ours, other))
        }
        (ours, other) => ours == other,
    }
}
