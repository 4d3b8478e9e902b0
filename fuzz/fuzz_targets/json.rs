//! The JSON reader, with what reads a document after it: never a panic, what was read is read the same after it was written, and where
//! serde_json reads the document too, both read the same.
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

/// The same but for numbers, which keep their own text here.
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
