//! Contracts: one file states everything about an operation.
//!
//! A contract is a `.proto` file with the options of `ndxp/contract/v1/contract.proto`. [`compile`] turns it into
//! [`Operation`]s with ready-made plans, so that a call needs no look-ups: [`validate`] checks a request, [`map`]
//! converts it to the source's format and reads the response, [`fields`] keeps the granted fields.

pub mod comments;
pub mod compile;
pub mod differences;
pub mod drift;
pub mod fields;
pub mod formats;
pub mod json;
pub mod labels;
pub mod map;
pub mod notes;
pub mod operation;
pub mod path;
pub mod patterns;
pub mod plan;
pub mod settings;
pub mod text;
pub mod validate;
pub mod warnings;
pub mod xml;
pub mod xsd;

pub use compile::{ContractFault, ContractSet};
pub use operation::{Binding, CallShape, Operation, SourceInfo};

/// The options of `contract.proto`, as generated.
pub mod options {
    #![allow(missing_docs, clippy::all)]
    include!(concat!(env!("OUT_DIR"), "/ndxp.contract.v1.rs"));
}

/// Every embedded contract with its options and comments, as an encoded `FileDescriptorSet`.
pub const EMBEDDED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/contracts.bin"));
