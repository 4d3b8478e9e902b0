//! What administrators and auditors do, from the command line and from afar.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod administration;
mod command_line;
mod console;
