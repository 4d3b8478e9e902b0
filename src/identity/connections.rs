//! Limits of connections, in all and from one peer. Counted across all workers.

use prometheus_client::metrics::gauge::Gauge;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The addresses of one peer: an IPv4 address, or the /64 network of an IPv6 address, of which a host may use as many
/// addresses as it likes (RFC 4291, section 2.5.1; RFC 8981). Limits by single addresses would be ineffective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerNetwork(IpAddr);

impl From<IpAddr> for PeerNetwork {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => PeerNetwork(address.into()),
            IpAddr::V6(address) => PeerNetwork(Ipv6Addr::from_bits(address.to_bits() & (!0 << 64)).into()),
        }
    }
}

/// Minimum number of connections of one balancer that may not have named their peer yet: a connection names it with its
/// first bytes, so they stay in this state only briefly.
const MIN_UNASSIGNED: usize = 64;

/// Counts open connections. A lock for each opening and closing, none for a call.
#[derive(Debug)]
pub struct Connections {
    most: usize,
    most_per_peer: usize,
    open: Mutex<OpenConnections>,
    /// Their number.
    count: Gauge,
}

#[derive(Debug, Default)]
struct OpenConnections {
    all: usize,
    by_peer: HashMap<PeerNetwork, usize>,
    /// Connections with an unknown peer, by balancer.
    unassigned: HashMap<PeerNetwork, usize>,
}

/// The peer for which a connection counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnectionOwner {
    Peer(PeerNetwork),
    /// A balancer that has not named its peer yet.
    Balancer(PeerNetwork),
}

/// A permit for one connection; released when dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    connections: Arc<Connections>,
    counted_for: ConnectionOwner,
}

impl Connections {
    /// Permits at most `max` in all, and `most_per_peer` from one address.
    pub fn new(most: usize, most_per_peer: usize) -> Arc<Self> {
        Self::counted(most, most_per_peer, Gauge::default())
    }

    /// The same with a gauge of their number.
    pub fn counted(most: usize, most_per_peer: usize, count: Gauge) -> Arc<Self> {
        Arc::new(Connections { most, most_per_peer, open: Mutex::default(), count })
    }

    /// Returns a permit, if one is available.
    pub fn take(self: &Arc<Self>, peer: IpAddr) -> Option<ConnectionPermit> {
        self.take_for(ConnectionOwner::Peer(peer.into()))
    }

    /// Returns a permit for a connection of a balancer, which will name its peer ([`ConnectionPermit::assign`]), if one
    /// is available. Until then it counts for the balancer.
    pub fn take_unassigned(self: &Arc<Self>, balancer: IpAddr) -> Option<ConnectionPermit> {
        self.take_for(ConnectionOwner::Balancer(balancer.into()))
    }

    fn take_for(self: &Arc<Self>, counted_for: ConnectionOwner) -> Option<ConnectionPermit> {
        let mut open = self.lock();
        if open.all >= self.most || !open.count(counted_for, self.most_per_peer) {
            return None;
        }
        open.all += 1;
        self.count.inc();
        Some(ConnectionPermit { connections: self.clone(), counted_for })
    }

    fn lock(&self) -> MutexGuard<'_, OpenConnections> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenConnections {
    fn counts(&mut self, counted_for: ConnectionOwner) -> (&mut HashMap<PeerNetwork, usize>, PeerNetwork) {
        match counted_for {
            ConnectionOwner::Peer(peer) => (&mut self.by_peer, peer),
            ConnectionOwner::Balancer(balancer) => (&mut self.unassigned, balancer),
        }
    }

    /// Counts one more, if the limit permits it.
    fn count(&mut self, counted_for: ConnectionOwner, most_per_peer: usize) -> bool {
        let most = match counted_for {
            ConnectionOwner::Peer(_) => most_per_peer,
            ConnectionOwner::Balancer(_) => most_per_peer.max(MIN_UNASSIGNED),
        };
        let (counts, address) = self.counts(counted_for);
        let here = counts.get(&address).copied().unwrap_or(0);
        if here >= most {
            return false;
        }
        counts.insert(address, here + 1);
        true
    }

    fn uncount(&mut self, counted_for: ConnectionOwner) {
        let (counts, address) = self.counts(counted_for);
        match counts.get_mut(&address) {
            Some(here) if *here > 1 => *here -= 1,
            _ => drop(counts.remove(&address)),
        }
    }
}

impl ConnectionPermit {
    /// Counts a permit for the peer that its balancer has named; returns false if that peer has reached its limit: the
    /// permit then counts for the balancer, until it is dropped. A permit that counts for a peer stays so.
    pub fn assign(&mut self, peer: IpAddr) -> bool {
        if let ConnectionOwner::Peer(_) = self.counted_for {
            return true;
        }
        let (mut open, peer) = (self.connections.lock(), peer.into());
        if !open.count(ConnectionOwner::Peer(peer), self.connections.most_per_peer) {
            return false;
        }
        open.uncount(self.counted_for);
        self.counted_for = ConnectionOwner::Peer(peer);
        true
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.connections.lock();
        open.all -= 1;
        self.connections.count.dec();
        open.uncount(self.counted_for);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_back() {
        let gauge = Gauge::default();
        let connections = Connections::counted(3, 2, gauge.clone());
        let (one, two): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let first = connections.take(one).unwrap();
        let _second = connections.take(one).unwrap();
        assert!(connections.take(one).is_none(), "two from one address");
        let _third = connections.take(two).unwrap();
        assert!(connections.take(two).is_none(), "three in all");
        assert_eq!(gauge.get(), 3);
        drop(first);
        assert_eq!(gauge.get(), 2);
        assert!(connections.take(two).is_some());
    }

    #[test]
    fn d5_addresses_of_one_ipv6_network_are_one_peer_and_ipv4_addresses_are_not() {
        let of = |text: &str| PeerNetwork::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        let connections = Connections::new(100, 2);
        let take = |host: u16| connections.take(format!("2001:db8:1:2::{host:x}").parse().unwrap());
        let _held: Vec<_> = (1..=2).map(|host| take(host).unwrap()).collect();
        assert!(take(3).is_none(), "another address of the same host");
        assert!(connections.take("2001:db8:1:3::1".parse().unwrap()).is_some(), "another network");
    }

    #[test]
    fn d5_a_place_behind_a_balancer_counts_for_the_real_peer() {
        let connections = Connections::new(3, 1);
        let (peer, balancer): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.9.9.9".parse().unwrap());
        let take = || connections.take_unassigned(balancer);
        let (mut first, mut second) = (take().unwrap(), take().unwrap());
        let _third = take().unwrap();
        assert!(take().is_none(), "three in all");
        assert!(first.assign(peer) && first.assign(peer) && !second.assign(peer));
        drop(first);
        assert!(second.assign(peer));
        drop((second, _third));
        let open = connections.lock();
        assert!(open.by_peer.is_empty() && open.unassigned.is_empty() && open.all == 0);
    }

    #[test]
    fn d5_connections_that_do_not_say_where_they_come_from_count_for_their_balancer() {
        let connections = Connections::new(1_000, 2);
        let (one, other): (IpAddr, IpAddr) = ("10.9.9.9".parse().unwrap(), "10.9.9.8".parse().unwrap());
        let mut held: Vec<_> = (0..MIN_UNASSIGNED).map(|_| connections.take_unassigned(one).unwrap()).collect();
        assert!(connections.take_unassigned(one).is_none());
        assert!(connections.take_unassigned(other).is_some() && connections.take(one).is_some());
        // A connection that has named its peer makes room for the next.
        assert!(held[0].assign("10.0.0.1".parse().unwrap()));
        held.push(connections.take_unassigned(one).unwrap());
        assert!(connections.take_unassigned(one).is_none());
        // Health probes of the balancer itself count for it as a peer.
        assert!(held[1].assign(one) && held[2].assign(one) && !held[3].assign(one));
    }
}
