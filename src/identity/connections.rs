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
    peer: IpAddr,
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
        Some(ConnectionPlace { connections: self.clone(), peer })
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all -= 1;
        match open.by_peer.get_mut(&self.peer) {
            Some(here) if *here > 1 => *here -= 1,
            _ => drop(open.by_peer.remove(&self.peer)),
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
}
