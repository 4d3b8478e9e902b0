//! What the log over etcd uses of the exchange log's own source.

#[allow(dead_code)]
#[path = "../../../src/exchange_log/tree.rs"]
pub mod tree;
