//! The exchange log through crashes, failing disks, pruning and its witnesses.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod alterations;
mod clock;
mod finished;
mod foreign_readers;
mod index_crashes;
mod keys;
mod kill_nine;
mod log_faults;
mod retention;
mod stored;
mod totals;
mod verifier;
mod witnesses;
