//! Who runs the gateway: sources and their figures, contracts and drift, another extent of a grant, staff, signing keys.

pub mod contracts;
pub mod grant_change;
pub mod keys;
pub mod live;
pub mod sources;
pub mod staff;
