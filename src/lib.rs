//! The NDXP gateway: brokers authenticated data exchange between a province's systems and ten national databases,
//! information systems and platforms, with every exchange in a tamper-evident log before its answer leaves.
//!
//! The way of one exchange, top to bottom: [`identity`] → [`access`] → [`contract`] → [`guard`] → [`drivers`] →
//! source, and back: map, keep only the granted fields → [`exchange_log`] → answer. It is composed in
//! `server::exchange`. Arrows go down the list of modules or sideways into `contract`, `status` and value types.

#![forbid(unsafe_code)]

pub mod access;
pub mod admin;
pub mod audit;
pub mod caller;
pub mod cli;
pub mod config;
pub mod contract;
pub mod deadline;
pub mod drift;
pub mod drivers;
pub mod exchange_log;
pub mod frame;
pub mod guard;
pub mod headers;
pub mod hex;
pub mod http2;
pub mod identity;
pub mod issuer;
pub mod keyfile;
pub mod pki;
pub mod registry;
pub mod sandbox;
pub mod server;
pub mod shares;
pub mod status;
pub mod telemetry;
pub mod web;
pub mod witness;
pub mod work;
