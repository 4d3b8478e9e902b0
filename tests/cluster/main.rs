//! The log that several gateways write, over a real etcd.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../support/etcd.rs"]
mod etcd;

mod connections;
mod engines;
mod log;
