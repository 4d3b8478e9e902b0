//! What holds of the source tree and the documents as such: the order of the modules, the names that the documents give.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod docs;
mod graph;
mod modules;
mod mutants;
mod words;
