//! How many connections there may be, in all and from one address. Counted across all workers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts open connections. A lock for each opening and closing, none for a call.
#[derive(Debug)]
pub struct Connections {
    most: usize,
    most_per_peer: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_peer: HashMap<IpAddr, usize>,
}

/// A place for one connection; given back when dropped.
#[derive(Debug)]
pub struct ConnectionPlace {
    connections: Arc<Connections>,
    /// `None` where it is not known yet where it comes from.
    peer: Option<IpAddr>,
}

impl Connections {
    /// At most `most` in all, and `most_per_peer` from one address.
    pub fn new(most: usize, most_per_peer: usize) -> Arc<Self> {
        Arc::new(Connections { most, most_per_peer, open: Mutex::default() })
    }

    /// A place, where there is one.
    pub fn take(self: &Arc<Self>, peer: IpAddr) -> Option<ConnectionPlace> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let here = open.by_peer.get(&peer).copied().unwrap_or(0);
        if open.all >= self.most || here >= self.most_per_peer {
            return None;
        }
        open.all += 1;
        open.by_peer.insert(peer, here + 1);
        Some(ConnectionPlace { connections: self.clone(), peer: Some(peer) })
    }

    /// A place for a connection that will say where it comes from ([`ConnectionPlace::assign`]), where there is one.
    pub fn take_unassigned(self: &Arc<Self>) -> Option<ConnectionPlace> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.all >= self.most {
            return None;
        }
        open.all += 1;
        Some(ConnectionPlace { connections: self.clone(), peer: None })
    }
}

impl ConnectionPlace {
    /// Counts an unassigned place for an address; false where that has as many as it may.
    pub fn assign(&mut self, peer: IpAddr) -> bool {
        if self.peer.is_some() {
            return true;
        }
        let mut open = self.connections.open.lock().unwrap_or_else(PoisonError::into_inner);
        let here = open.by_peer.entry(peer).or_insert(0);
        if *here >= self.connections.most_per_peer {
            return false;
        }
        *here += 1;
        self.peer = Some(peer);
        true
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all -= 1;
        let Some(peer) = self.peer else { return };
        match open.by_peer.get_mut(&peer) {
            Some(here) if *here > 1 => *here -= 1,
            _ => drop(open.by_peer.remove(&peer)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_back() {
        let connections = Connections::new(3, 2);
        let (one, two): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let first = connections.take(one).unwrap();
        let _second = connections.take(one).unwrap();
        assert!(connections.take(one).is_none(), "two from one address");
        let _third = connections.take(two).unwrap();
        assert!(connections.take(two).is_none(), "three in all");
        drop(first);
        assert!(connections.take(two).is_some());
    }

    #[test]
    fn d5_a_place_behind_a_balancer_counts_for_the_real_peer() {
        let connections = Connections::new(3, 1);
        let peer: IpAddr = "10.0.0.1".parse().unwrap();
        let (mut first, mut second) = (connections.take_unassigned().unwrap(), connections.take_unassigned().unwrap());
        let _third = connections.take_unassigned().unwrap();
        assert!(connections.take_unassigned().is_none(), "three in all");
        assert!(first.assign(peer) && first.assign(peer) && !second.assign(peer));
        drop(first);
        assert!(second.assign(peer));
        drop(second);
        assert!(connections.open.lock().unwrap().by_peer.is_empty());
    }
}
