//! The highest state of etcd that a gateway has seen: on its own disk, so that etcd cannot go back unnoticed.

use super::ClusterError;
use super::codec::{Decoder, Encoder};
use super::member::ResponseHeader;
use super::state::{LogId, SealedState};
use crate::exchange_log::tree::Hash;

/// The highest state of etcd that a gateway has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HighestSeen {
    /// etcd's own id of the cluster.
    pub cluster: u64,
    /// The log.
    pub log: LogId,
    /// The epoch.
    pub epoch: u64,
    /// The revision.
    pub revision: i64,
    /// Size of the checkpoint.
    pub size: u64,
    /// Its root.
    pub root: Hash,
}

impl HighestSeen {
    /// What a response and the state in it show.
    pub fn of(header: &ResponseHeader, state: &SealedState) -> Self {
        let (log, epoch, size, root) = (state.log, state.epoch, state.size(), state.root());
        HighestSeen { cluster: header.cluster, log, epoch, revision: header.revision, size, root }
    }

    /// Compares a later state with this one.
    ///
    /// # Errors
    /// [`ClusterError::RolledBack`] if it is of another cluster or log, or is not above this one.
    pub fn check(&self, later: &HighestSeen) -> Result<(), ClusterError> {
        let behind = |what: &str| Err(ClusterError::RolledBack(what.to_owned()));
        if (self.cluster, self.log) != (later.cluster, later.log) {
            return behind("this is another cluster, or another log");
        }
        if later.epoch < self.epoch {
            return behind("the epoch is an earlier one");
        }
        if later.epoch > self.epoch {
            return behind("another epoch has begun: start this gateway again");
        }
        if later.revision < self.revision {
            return behind(&format!("revision {} was seen, it is {}", self.revision, later.revision));
        }
        if later.size < self.size {
            return behind(&format!("{} entries were sealed, there are {}", self.size, later.size));
        }
        if later.size == self.size && later.root != self.root {
            return behind(&format!("the checkpoint of {} entries is another one", self.size));
        }
        Ok(())
    }

    /// Whether this is to be remembered after another one.
    pub fn is_newer(&self, other: &HighestSeen) -> bool {
        (self.epoch, self.revision, self.size) > (other.epoch, other.revision, other.size)
    }

    /// Returns the bytes for the own disk.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        out.u64(self.cluster).fixed(&self.log).u64(self.epoch).u64(self.revision.unsigned_abs());
        out.u64(self.size).fixed(&self.root);
        out.0
    }

    /// Reads them.
    ///
    /// # Errors
    /// [`ClusterError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ClusterError> {
        let read = || {
            let mut decoder = Decoder(bytes);
            let (cluster, log, epoch) = (decoder.u64()?, decoder.fixed()?, decoder.u64()?);
            let (revision, size) = (i64::try_from(decoder.u64()?).ok()?, decoder.u64()?);
            let root = decoder.fixed()?;
            decoder.end().map(|()| HighestSeen { cluster, log, epoch, revision, size, root })
        };
        read().ok_or_else(|| ClusterError::malformed("the highest state seen", "not in its form"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_newer_passes() {
        let seen = HighestSeen { cluster: 1, log: [2; 16], epoch: 3, revision: 40, size: 50, root: [6; 32] };
        assert_eq!(HighestSeen::decode(&seen.encode()).unwrap(), seen);
        let change = |change: &dyn Fn(&mut HighestSeen)| {
            let mut later = seen.clone();
            change(&mut later);
            seen.check(&later).is_ok()
        };
        assert!(change(&|_| ()));
        assert!(change(&|later| (later.revision, later.size, later.root) = (41, 51, [7; 32])));
        assert!(!change(&|later| later.cluster = 2));
        assert!(!change(&|later| later.log = [3; 16]));
        assert!(!change(&|later| later.epoch = 2));
        assert!(!change(&|later| (later.epoch, later.revision, later.size) = (4, 41, 51)));
        assert!(!change(&|later| later.revision = 39));
        assert!(!change(&|later| later.size = 49));
        assert!(!change(&|later| later.root = [7; 32]));
    }
}
