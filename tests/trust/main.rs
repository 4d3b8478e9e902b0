//! Certificates, revocation, tokens and the ends of rights.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod certificates;
mod ends;
mod handshakes;
mod revocation;
mod token_attacks;
mod tokens;
mod wycheproof;
