//! Pages for those who run the gateway: sources and their figures, the cluster, contracts and drift, changes of grants, staff, signing keys.

pub mod cluster;
pub mod contracts;
pub mod grant_change;
pub mod keys;
pub mod live;
pub mod notice_change;
mod notices;
pub mod sources;
pub mod staff;
