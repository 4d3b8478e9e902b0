//! PROXY headers: never a panic, and an accepted header names a peer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ndxp_gateway::identity::proxy::{ProxyHeader, parse};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(ProxyHeader::From(peer)) = parse(bytes) {
        assert!(!peer.ip().is_unspecified() && peer.port() > 0 && peer.ip() == peer.ip().to_canonical());
    }
});
