//! Developers of provincial systems: the catalogue of sources and operations, snippets to begin with, and whether a call would pass.

pub mod catalogue;
pub mod may_i;
mod operation;
mod snippets;
