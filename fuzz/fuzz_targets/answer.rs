//! JSON of a source, read as the response of every operation: never a panic, and the result passes the field walk.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ndxp_gateway::contract::ContractSet;
use ndxp_gateway::contract::fields::{Disclosed, keep};
use ndxp_gateway::contract::map::{outcome, response, response_start as start};
use std::sync::LazyLock;

static CONTRACTS: LazyLock<ContractSet> = LazyLock::new(|| ContractSet::embedded().expect("embedded contracts"));

fuzz_target!(|bytes: &[u8]| {
    for operation in CONTRACTS.operations() {
        // As the bytes of a gRPC source.
        let mask = operation.response_fields.mask(&["*"]);
        let _ = keep(&operation.response_fields, &mask, &Bytes::copy_from_slice(bytes), &mut Disclosed::up_to(8));
        let Ok(document) = serde_json::from_slice(bytes) else { continue };
        let _ = outcome::evaluate(&operation.outcome, &document, &document);
        if let start::Start::At(place) = start::start(&document, &operation.response_root) {
            let _ = response::read(&operation.response, place, &document);
        }
    }
});
