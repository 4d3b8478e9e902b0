//! The NDXP gateway: brokers authenticated data exchange between a province's systems and ten national databases,
//! information systems and platforms, with every exchange in a tamper-evident log before its response leaves.
//!
//! The way of one exchange, top to bottom: [`identity`] → [`access`] → [`contract`] → [`guard`] → [`drivers`] →
//! source, and back: map, keep only the granted fields → [`exchange_log`] → answer. It is composed in
//! `server::exchange`.
//!
//! The modules below stand in an order: a module uses those below it and none above it, and no two files need each other.
//! `tests/structure` fails where it is otherwise.

#![forbid(unsafe_code)]

// Parses a command line and calls whatever it names, so it may use everything.
pub mod cli;

// A caller's side of the gateway, for the command line and the tests.
pub mod caller;

// Composes the gateway from what follows.
pub mod server;

// Pages over what administrators and auditors do.
pub(crate) mod console;

// What administrators do, over the registry.
pub mod admin;

// The HTTPS port: tokens and the log, over access, issuer and registry.
pub(crate) mod web;

// What auditors do: reads the log, changes nothing of it.
pub mod audit;

// Both sides of witnessing, over the log.
pub mod witness;

// The ten sources: takes contracts and keys from below, and nothing of the gateway takes from it.
pub mod sandbox;

// A development CA, for the command line and the sandbox.
pub mod pki;

// Makes the settings of all modules below, which know no configuration.
pub mod config;

// Decides about a call: knows identities and grants, no drivers.
pub mod access;

// Signs tokens for clients of the registry.
pub mod issuer;

// Counts what the drivers notice.
pub(crate) mod drift;

// Counts for the log, the guard and the shares.
pub(crate) mod telemetry;

// Protects sources: knows no driver.
pub(crate) mod guard;

// Who is at the other end, as the registry knows them.
pub mod identity;

// Speak with sources: know no tokens, no clients and no log.
pub mod drivers;

// The state that administrators change; its acts are entries of the log.
pub mod registry;

// Stands alone, but for the last modules here: the simulator compiles it, too.
pub mod exchange_log;

// Messages of gRPC, bounded by shares.
pub mod frame;

// Blocking work, bounded by shares.
pub(crate) mod work;

// Every refusal; names the violations of a contract.
pub mod status;

// What an operation is: plain functions over values.
pub mod contract;

// HTTP/2 for both sides.
pub mod http2;

// Whose time runs out. What follows are plain values and small functions, which use nothing.
pub(crate) mod deadline;

// Accepting connections.
pub(crate) mod accept;

// Names of headers.
pub(crate) mod headers;

// Certificates as text.
pub(crate) mod pem;

// What must not be printed.
pub(crate) mod secret;

// Bounded shares.
pub(crate) mod shares;

// Files that hold secrets.
pub mod keyfile;

// Digits.
pub(crate) mod hex;

// Percent-encoding.
pub(crate) mod percent;

// The time zone of what people read.
pub(crate) mod time_zone;

// Integers of Protocol Buffers.
pub(crate) mod varint;
