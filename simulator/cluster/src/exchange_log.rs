//! What the log and the registry over etcd use of the exchange log's own source.

#[allow(dead_code)]
#[path = "../../../src/exchange_log/clock.rs"]
pub mod clock;
#[allow(dead_code)]
#[path = "../../../src/exchange_log/tree.rs"]
pub mod tree;
