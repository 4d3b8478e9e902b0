//! Witnesses (https://c2sp.org/tlog-witness): another data centre sees every checkpoint and signs that the log only grew. Both sides:
//! [`client`] submits checkpoints to the witnesses of the log's policy, [`server`] is a small witness.

pub mod alarm;
pub mod client;
pub mod config;
pub mod request;
pub mod server;
