//! The resources that one caller can take from all others.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod balancers;
mod denial;
mod floods;
mod handshake_floods;
mod own_services;
