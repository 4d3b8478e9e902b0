//! The way of one exchange, as provincial systems see it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

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
mod lies;
mod outcomes;
mod privacy;
mod source_fixtures;
mod statuses;
mod streams;
mod variations;
mod xroad_examples;
