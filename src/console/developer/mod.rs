//! Pages for developers of provincial systems: the catalogue of sources and operations, code snippets, and whether a call is allowed.

pub mod catalogue;
pub mod may_i;
mod operation;
pub mod own;
mod snippets;
