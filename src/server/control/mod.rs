//! The control plane: reload, background work, expiry, retention, health, and the gateway's own services. It swaps the
//! state that exchanges use; no exchange waits for it.

pub(in crate::server) mod admin_events;
pub(in crate::server) mod background;
pub(in crate::server) mod compare;
pub(in crate::server) mod disk;
pub(in crate::server) mod expiry;
pub(in crate::server) mod health;
pub(in crate::server) mod object_store;
pub(in crate::server) mod operator_http;
pub(in crate::server) mod overview;
mod own_messages;
pub(in crate::server) mod own_services;
pub(in crate::server) mod quota;
pub(in crate::server) mod reflection;
pub(in crate::server) mod reload;
pub(in crate::server) mod retention;
pub(in crate::server) mod state_files;
pub(in crate::server) mod unfinished_writes;
