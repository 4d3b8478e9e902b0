//! The NDXP gateway: brokers authenticated data exchange between a province's systems and ten national databases,
//! information systems and platforms, with every exchange in a tamper-evident log before its response leaves.
//!
//! The steps of one exchange, top to bottom: [`identity`] → [`access`] → [`contract`] → [`guard`] → [`drivers`] →
//! source, and back: map, keep only the granted fields → [`exchange_log`] → response. `server::exchange` composes them.
//!
//! Over etcd ([`cluster`]), several gateways write one log.
//!
//! The modules below are in order: a module uses only those below it, and no two files depend on each other.
//! `tests/structure` fails otherwise.

#![forbid(unsafe_code)]

// Parses a command line and calls what it names, so it may use everything.
pub mod cli;

// The client side, for the command line and the tests.
pub mod caller;

// Composes the gateway from the following modules.
pub mod server;

// Pages over the services of administrators and auditors.
pub(crate) mod console;

// The service of administrators, over the registry.
pub mod admin;

// The HTTPS port: tokens and the log, over access, issuer and registry.
pub(crate) mod web;

// The way of log and registry into etcd and back, over both and the search for the last admin event.
pub mod migration;

// The service of auditors: reads the log, changes nothing of it.
pub mod audit;

// Both sides of witnessing, over the log.
pub mod witness;

// Describes the operations by OpenAPI, with examples of the sandbox.
pub mod openapi;

// The ten sources: uses contracts and keys from below, and no part of the gateway uses it.
pub mod sandbox;

// A development CA, for the command line and the sandbox.
pub mod pki;

// Makes the settings of all modules below, which know no configuration.
pub mod config;

// Decides about a call: knows identities and grants, no drivers.
pub mod access;

// Signs tokens for clients of the registry.
pub mod issuer;

// Has people sign in at an OpenID provider.
pub(crate) mod openid;

// Counts the drift that the drivers notice.
pub(crate) mod drift;

// Counts for the log, the guard and the shares.
pub(crate) mod telemetry;

/// Tiles of the exchange log in an object store.
pub(crate) mod tile_store;

// Protects sources: knows no driver.
pub(crate) mod guard;

// The peer of a connection, as the registry knows it.
pub mod identity;

// Call sources: know no tokens, no clients and no log.
pub mod drivers;

// The log over etcd as an engine of the exchange log: joins the next one with the log's files.
pub mod cluster_log;

// Log and registry over etcd: what is done there, and when; knows no files of either. Its own simulator compiles it, too.
pub mod cluster;

// The state that administrators change; its events are entries of the log.
pub mod registry;

// Independent of all but the last modules here: the simulator compiles it, too.
pub mod exchange_log;

// Messages of gRPC, bounded by shares.
pub mod frame;

// Blocking work, bounded by shares.
pub(crate) mod work;

// Every refusal; names the violations of a contract.
pub mod status;

// The definition of an operation: plain functions over values.
pub mod contract;

// HTTP/2 for both sides.
pub mod http2;

// Deadlines and their owners. The following modules are plain values and small functions without dependencies.
pub(crate) mod deadline;

// Accepting connections.
pub(crate) mod accept;

// Names of headers.
pub(crate) mod headers;

// Certificates as text.
pub(crate) mod pem;

// Values that must not be printed.
pub(crate) mod secret;

// Bounded shares.
pub(crate) mod shares;

// Files that hold secrets.
pub mod keyfile;

// Digits.
pub(crate) mod hex;

// Percent-encoding.
pub(crate) mod percent;

// The time zone for people.
pub(crate) mod time_zone;

// Integers of Protocol Buffers.
pub(crate) mod varint;
