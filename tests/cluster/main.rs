//! The log that several gateways write, over a real etcd.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[allow(dead_code)]
#[path = "../administration/browser.rs"]
mod browser;
#[path = "../support/etcd.rs"]
mod etcd;
#[path = "../support/mod.rs"]
mod support;

mod commands;
mod connections;
mod engines;
mod epoch;
mod gateways;
mod log;
mod migrate;
#[path = "../support/province.rs"]
mod province;
mod registries;
mod rights;
mod seen;
