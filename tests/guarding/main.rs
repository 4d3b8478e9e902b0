//! Failing sources, hubs and endpoints: whose fault it is, and who is protected.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod blame;
mod contract_changes;
mod endpoints;
mod grpc_sources;
mod guard;
mod hubs;
