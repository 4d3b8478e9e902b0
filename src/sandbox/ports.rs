//! Ports for concurrent demos and tests.

use std::io::{Error, ErrorKind};
use std::net::TcpListener;
use std::sync::Arc;

/// Ports are below the kernel's ephemeral ports (32768 and up), so that no outgoing connection takes one before the server
/// listens on it.
const FIRST: u16 = 12_000;

/// Ports per block: one that marks the block as taken, and those for use.
const BLOCK: u16 = 16;

/// Number of blocks.
const BLOCKS: u16 = 1_250;

/// Loopback ports that no other caller of this module gets while this value or a clone of it lives. It listens on the
/// block's first port: the kernel allows that only once, and releases it however the process ends. Without it, another
/// process could take a free port before its server listens.
#[derive(Debug, Clone)]
pub struct Ports {
    first: u16,
    count: u16,
    _mark: Arc<TcpListener>,
}

impl Ports {
    /// Reserves that many ports, at most 15, on which nothing listens now.
    ///
    /// # Errors
    /// `AddrInUse` if none of a thousand tried blocks was free, `InvalidInput` for more ports than a block has.
    pub fn take(count: u16) -> std::io::Result<Self> {
        if count >= BLOCK {
            return Err(Error::from(ErrorKind::InvalidInput));
        }
        for _ in 0..1_000 {
            let block = (uuid::Uuid::new_v4().as_u128() % u128::from(BLOCKS)) as u16;
            let mark = FIRST + block * BLOCK;
            let Ok(listener) = TcpListener::bind(("127.0.0.1", mark)) else { continue };
            let taken = Ports { first: mark + 1, count, _mark: Arc::new(listener) };
            if taken.iter().all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
                return Ok(taken);
            }
        }
        Err(Error::from(ErrorKind::AddrInUse))
    }

    /// Returns the ports.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        self.first..self.first + self.count
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn reserved_ports_are_given_to_nobody_else_and_can_be_bound() {
        let taken: Vec<_> = (0..40).map(|_| Ports::take(12).unwrap()).collect();
        let all: HashSet<_> = taken.iter().flat_map(Ports::iter).collect();
        assert_eq!(all.len(), 40 * 12);
        let listening: Vec<_> = taken[0].iter().map(|port| TcpListener::bind(("127.0.0.1", port)).unwrap()).collect();
        assert_eq!(listening.len(), 12);
        assert_eq!(Ports::take(BLOCK).unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn a_block_is_released_with_its_last_clone() {
        let taken = Ports::take(1).unwrap();
        let (mark, listener) = (taken.first - 1, Arc::downgrade(&taken._mark));
        let clone = taken.clone();
        drop(taken);
        assert!(TcpListener::bind(("127.0.0.1", mark)).is_err());
        drop(clone);
        assert!(listener.upgrade().is_none());
    }
}
