//! What one caller can take from all.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod balancers;
mod denial;
mod floods;
mod handshake_floods;
mod own_services;
