//! Limits of handshakes: of one peer a second, and of all unknown peers a second. A handshake costs the gateway about
//! 0.4 ms of CPU and its peer next to nothing, so without a limit anybody who reaches the port takes the CPU from
//! calls.
//!
//! - **A peer** may open all its connections at once (`max_connections_per_peer`), and sustain a number a second
//!   (`handshakes_per_peer_s`).
//! - **Unknown peers**, without an accepted certificate so far, share `handshakes_s`. Peers that have shown an accepted
//!   certificate before, as many as are remembered, do not: unknown peers from many networks at once cannot exclude
//!   them.

use super::connections::PeerNetwork;
use crate::shares::{ShareError, ShareLimits, ShareMetrics, ShareRate, Shares};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// Number of peers that are remembered by an accepted certificate; beyond that, the oldest are dropped.
const MAX_KNOWN: usize = 4_096;

/// Counts handshakes, across workers and ports.
pub struct HandshakeLimits {
    by_peer: Arc<Shares<PeerNetwork>>,
    strangers: Arc<Shares<()>>,
    known: quick_cache::sync::Cache<PeerNetwork, ()>,
}

impl HandshakeLimits {
    /// Permits `per_peer_s` of one peer and `strangers_s` of all unknown peers together each second; `burst` of one
    /// peer above that at once.
    pub fn new(per_peer_s: u32, strangers_s: u32, burst: u32) -> Arc<Self> {
        // Only the rate of beginnings: connections bound the number in flight.
        let limits = |per_second, burst| ShareLimits {
            total: usize::MAX,
            per_owner: usize::MAX,
            has_headroom: 0,
            rate: Some(ShareRate { per_second, burst }),
        };
        Arc::new(HandshakeLimits {
            by_peer: Shares::new(limits(per_peer_s, burst), ShareMetrics::default()),
            strangers: Shares::new(limits(strangers_s, strangers_s), ShareMetrics::default()),
            known: quick_cache::sync::Cache::new(MAX_KNOWN),
        })
    }

    /// Counts a handshake with a peer that is about to begin.
    ///
    /// # Errors
    /// The peer, or all unknown peers together, begin too many: the time after which another may begin.
    pub fn begin(&self, peer: IpAddr) -> Result<(), ShareError> {
        self.begin_at(peer, Instant::now())
    }

    fn begin_at(&self, peer: IpAddr, now: Instant) -> Result<(), ShareError> {
        let peer = PeerNetwork::from(peer);
        self.by_peer.take_at(&peer, 1, now)?;
        if self.known.get(&peer).is_none() {
            self.strangers.take_at(&(), 1, now)?;
        }
        Ok(())
    }

    /// Records that a peer has completed a handshake with an accepted certificate.
    pub fn came_through(&self, peer: IpAddr) {
        self.known.insert(peer.into(), ());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn d6_a_peer_has_its_rate_whatever_address_of_its_network_it_comes_from() {
        let limits = HandshakeLimits::new(10, 1_000, 20);
        let now = Instant::now();
        let count =
            |from: &dyn Fn(usize) -> IpAddr, now| (0..100).filter(|at| limits.begin_at(from(*at), now).is_ok()).count();
        assert_eq!(count(&|at| address(&format!("2001:db8:1:2::{at:x}")), now), 30);
        // Another network, another peer; and a second later ten more.
        assert_eq!(count(&|_| address("10.0.0.1"), now), 30);
        assert_eq!(count(&|_| address("10.0.0.1"), now + Duration::from_secs(1)), 10);
    }

    #[test]
    fn d6_strangers_from_many_networks_keep_out_strangers_only() {
        let limits = HandshakeLimits::new(100, 50, 100);
        let (now, known) = (Instant::now(), address("192.0.2.1"));
        limits.begin_at(known, now).unwrap();
        limits.came_through(known);
        let strangers = (0..1_000u32).filter(|at| limits.begin_at(IpAddr::from((at << 8).to_be_bytes()), now).is_ok());
        assert_eq!(strangers.count(), 99);
        assert!(limits.begin_at(address("198.51.100.1"), now).is_err());
        assert_eq!((0..150).filter(|_| limits.begin_at(known, now).is_ok()).count(), 150);
        assert!(limits.begin_at(address("198.51.100.1"), now + Duration::from_secs(1)).is_ok());
    }
}
