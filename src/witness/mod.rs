//! Witnesses (https://c2sp.org/tlog-witness): another data centre sees every checkpoint and signs that the log only grew. Both sides:
//! [`client`] submits checkpoints to the witnesses of the log's policy, [`server`] is a small witness. One that is told where a
//! gateway of its site stores the log ([`stored`]) signs, too, that all entries are there (https://c2sp.org/tlog-mirror).

pub mod alarm;
mod checked;
mod checked_file;
pub mod client;
pub mod config;
pub mod request;
pub mod server;
pub mod stored;
