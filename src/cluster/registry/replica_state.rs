//! The position of a replica, as the engine reads it: the head, and the revision at which etcd has put it.

use super::change::RegistryHead;
use crate::cluster::ClusterError;
use crate::registry::RegistryError;
use crate::registry::replication::ReplicaPosition;

/// A head with its modification revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlacedHead {
    pub(super) head: RegistryHead,
    pub(super) modified: i64,
}

impl PlacedHead {
    pub(super) fn position(&self) -> ReplicaPosition {
        let state = [&self.modified.to_be_bytes(), self.head.encode().as_slice()].concat();
        ReplicaPosition { number: self.head.number, events: self.head.events, state }
    }

    pub(super) fn of(position: &ReplicaPosition) -> Result<Self, ClusterError> {
        let wrong = || ClusterError::malformed("the replica's position", "not in the form of one");
        let (modified, head) = position.state.split_first_chunk().ok_or_else(wrong)?;
        Ok(PlacedHead { head: RegistryHead::decode(head)?, modified: i64::from_be_bytes(*modified) })
    }
}

/// The replica cannot be read or written.
pub(super) fn own_disk(error: RegistryError) -> ClusterError {
    ClusterError::OwnDisk(error.to_string())
}
