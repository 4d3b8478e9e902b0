//! The way of one exchange, as provincial systems see it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

// The fuzz targets name libFuzzer's crate; here its macro is `fuzz_targets`'s.
extern crate self as libfuzzer_sys;
pub(crate) use fuzz_targets::fuzz_target;

#[path = "../support/mod.rs"]
mod support;

mod agent_node;
mod answers;
mod bad_input;
mod conventions;
mod criminal_records;
mod drift;
mod eleventh_source;
mod exchanges;
mod fuzz_targets;
mod lies;
mod maintenance;
mod openapi;
mod outcomes;
mod privacy;
mod source_fixtures;
mod statuses;
mod streams;
mod telemetry;
mod toy_protocol;
mod traces;
mod variations;
mod web_calls;
mod web_own_services;
mod xroad_examples;
