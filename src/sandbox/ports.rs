//! Ports for demos and tests that run side by side.

use std::io::{Error, ErrorKind};
use std::net::TcpListener;
use std::sync::Arc;

/// Ports are taken below those that the kernel gives to clients (32768 and up), so that no connection of a neighbour
/// takes one between here and the server that will listen there.
const FIRST: u16 = 12_000;

/// How many ports lie together: one that marks the block as taken, and those for use.
const BLOCK: u16 = 16;

/// How many blocks there are.
const BLOCKS: u16 = 1_250;

/// Ports of this machine's loopback that nobody else who asks here is given for as long as this value, or a clone of
/// it, lives: the first port of a block is listened on by it, which the kernel lets one do only, and gives back
/// however the process ends. Looking for free ports alone would leave them to anybody until their server listens.
#[derive(Debug, Clone)]
pub struct Ports {
    first: u16,
    count: u16,
    _mark: Arc<TcpListener>,
}

impl Ports {
    /// Takes so many ports, at most 15, on which nothing listens now.
    ///
    /// # Errors
    /// `AddrInUse` where none of a thousand blocks tried was free, `InvalidInput` for more ports than a block has.
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

    /// The ports.
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
    fn ports_are_nobody_elses_while_they_are_kept_and_are_free_to_listen_on() {
        let taken: Vec<_> = (0..40).map(|_| Ports::take(12).unwrap()).collect();
        let all: HashSet<_> = taken.iter().flat_map(Ports::iter).collect();
        assert_eq!(all.len(), 40 * 12);
        let listening: Vec<_> = taken[0].iter().map(|port| TcpListener::bind(("127.0.0.1", port)).unwrap()).collect();
        assert_eq!(listening.len(), 12);
        assert_eq!(Ports::take(BLOCK).unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn a_block_is_given_back_with_its_last_clone() {
        let taken = Ports::take(1).unwrap();
        let (mark, listener) = (taken.first - 1, Arc::downgrade(&taken._mark));
        let clone = taken.clone();
        drop(taken);
        assert!(TcpListener::bind(("127.0.0.1", mark)).is_err());
        drop(clone);
        assert!(listener.upgrade().is_none());
    }
}
