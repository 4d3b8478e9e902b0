//! The front: sockets and their hand-over, TLS, connections and the calls on them. It knows no operation.

pub(in crate::server) mod backlog;
pub(in crate::server) mod files;
pub(in crate::server) mod listener;
pub(in crate::server) mod refusals;
pub(in crate::server) mod sockets;
pub(in crate::server) mod takeover;
pub(in crate::server) mod web_calls;
