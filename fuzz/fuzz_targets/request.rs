//! A caller's bytes as the request of every operation: decoded, checked, and what passes is written in the source's words.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ndxp_gateway::contract::map::request::{self, Layout};
use ndxp_gateway::contract::settings::{CallContext, Settings};
use ndxp_gateway::contract::{ContractSet, validate};
use std::sync::LazyLock;

static CONTRACTS: LazyLock<ContractSet> = LazyLock::new(|| ContractSet::embedded().expect("embedded contracts"));

fuzz_target!(|bytes: &[u8]| {
    for operation in CONTRACTS.operations() {
        let Ok(message) = prost_reflect_decode(operation, bytes) else { continue };
        let _ = validate::subjects(&operation.subject, &message);
        if validate::check(&operation.request, &message).is_empty() {
            let _ = request::write(operation, &message, Layout::default(), &CallContext::default(), &Settings::new());
        }
    }
});

fn prost_reflect_decode(
    operation: &ndxp_gateway::contract::Operation,
    bytes: &[u8],
) -> Result<prost_reflect::DynamicMessage, prost::DecodeError> {
    prost_reflect::DynamicMessage::decode(operation.request.message.clone(), bytes)
}
