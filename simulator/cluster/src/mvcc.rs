//! The data of a simulated member: keys with their history, by revision, as etcd's MVCC store has them.

use crate::cluster::ClusterError;
use crate::cluster::keys;
use crate::cluster::member::{KeyValue, RangeRead, Txn, TxnCondition, TxnOperation};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One put or deletion of a key.
#[derive(Debug, Clone)]
struct Version {
    modified: i64,
    created: i64,
    /// `None`: deleted.
    value: Option<Arc<Vec<u8>>>,
    lease: i64,
}

/// The data.
#[derive(Debug, Clone)]
pub struct Mvcc {
    revision: i64,
    compacted: i64,
    keys: BTreeMap<Vec<u8>, Vec<Version>>,
    /// Keys of batches that were put at or below their mark: there must be none.
    pub resurrected: Vec<String>,
}

impl Default for Mvcc {
    fn default() -> Self {
        // As etcd begins.
        Mvcc { revision: 1, compacted: 0, keys: BTreeMap::new(), resurrected: Vec::new() }
    }
}

impl Mvcc {
    pub fn revision(&self) -> i64 {
        self.revision
    }

    fn live(&self, key: &[u8]) -> Option<(&Version, &Arc<Vec<u8>>)> {
        let last = self.keys.get(key)?.last()?;
        last.value.as_ref().map(|value| (last, value))
    }

    fn key_value(key: &[u8], version: &Version, value: &[u8]) -> KeyValue {
        let (created, modified, lease) = (version.created, version.modified, version.lease);
        KeyValue { key: key.to_vec(), value: value.to_vec(), created, modified, lease }
    }

    fn holds(&self, condition: &TxnCondition) -> bool {
        match condition {
            TxnCondition::CreatedAt(key, at) => self.live(key).map_or(0, |(version, _)| version.created) == *at,
            TxnCondition::ModifiedAt(key, at) => self.live(key).map_or(0, |(version, _)| version.modified) == *at,
            // In etcd, too, no comparison of a value holds for a key that does not exist.
            TxnCondition::ValueBelow(key, bound) => self.live(key).is_some_and(|(_, value)| **value < *bound),
        }
    }

    /// As `--bump-revision` and `--mark-compacted` of a restore have it.
    pub fn bump(&mut self) {
        self.revision += 1_000_000;
        self.compacted = self.revision;
    }

    /// Whether all conditions of a transaction hold.
    pub fn holds_all(&self, txn: &Txn) -> bool {
        txn.conditions.iter().all(|condition| self.holds(condition))
    }

    /// The leases of all keys.
    pub fn leases(&self) -> Vec<i64> {
        let lease = |versions: &Vec<Version>| versions.last().map(|last| last.lease).filter(|lease| *lease != 0);
        self.keys.values().filter_map(lease).collect()
    }

    /// Carries out a transaction; returns whether its conditions held, and what its `Get`s have found.
    pub fn transact(&mut self, txn: &Txn) -> (bool, Vec<Option<KeyValue>>) {
        let holds = self.holds_all(txn);
        let (next, mut found) = (self.revision + 1, Vec::new());
        for operation in if holds { &txn.then } else { &txn.otherwise } {
            match operation {
                TxnOperation::Put(key, value, lease) => self.put(key, value, *lease, next),
                TxnOperation::Get(key) => {
                    found.push(self.live(key).map(|(version, value)| Self::key_value(key, version, value)));
                }
                TxnOperation::DeleteRange(from, end) => {
                    self.delete(next, |key| (from.as_slice()..end.as_slice()).contains(&key));
                }
            }
        }
        (holds, found)
    }

    fn put(&mut self, key: &[u8], value: &[u8], lease: i64, revision: i64) {
        if let Ok((writer, seq)) = keys::parse_batch_key(key) {
            let mark = self.live(&writer.mark_key()).and_then(|(_, value)| keys::parse_number(value)).unwrap_or(0);
            if seq <= mark {
                self.resurrected.push(String::from_utf8_lossy(key).into_owned());
            }
        }
        let created = self.live(key).map_or(revision, |(version, _)| version.created);
        let version = Version { modified: revision, created, value: Some(Arc::new(value.to_vec())), lease };
        self.keys.entry(key.to_vec()).or_default().push(version);
        self.revision = revision;
    }

    fn delete(&mut self, revision: i64, which: impl Fn(&[u8]) -> bool) {
        for (key, versions) in &mut self.keys {
            if versions.last().is_some_and(|last| last.value.is_some()) && which(key) {
                versions.push(Version { modified: revision, created: 0, value: None, lease: 0 });
                self.revision = revision;
            }
        }
    }

    /// Ends a lease.
    pub fn end_lease(&mut self, lease: i64) {
        let keys: Vec<Vec<u8>> = self
            .keys
            .iter()
            .filter(|(_, versions)| versions.last().is_some_and(|last| last.value.is_some() && last.lease == lease))
            .map(|(key, _)| key.clone())
            .collect();
        self.delete(self.revision + 1, |key| keys.iter().any(|ended| ended == key));
    }

    /// Reads a range; returns the keys and whether there are more.
    pub fn range(&self, read: &RangeRead) -> Result<(Vec<KeyValue>, bool), ClusterError> {
        let at = if read.revision == 0 { self.revision } else { read.revision };
        self.check_revision(at)?;
        let end = match read.end.is_empty() {
            true => [read.from.as_slice(), &[0]].concat(),
            false => read.end.clone(),
        };
        let mut found = Vec::new();
        for (key, versions) in self.keys.range(read.from.clone()..end) {
            let Some(version) = versions.iter().rev().find(|version| version.modified <= at) else { continue };
            let Some(value) = &version.value else { continue };
            if read.limit > 0 && found.len() as i64 == read.limit {
                return Ok((found, true));
            }
            found.push(Self::key_value(key, version, if read.keys_only { &[] } else { value }));
        }
        Ok((found, false))
    }

    fn check_revision(&self, at: i64) -> Result<(), ClusterError> {
        if at > self.revision {
            return Err(ClusterError::FutureRevision);
        }
        if at < self.compacted {
            return Err(ClusterError::Compacted);
        }
        Ok(())
    }

    /// Whether a key with this prefix has changed after a revision.
    pub fn has_changed(&self, prefix: &[u8], after: i64) -> Result<bool, ClusterError> {
        if after + 1 < self.compacted {
            return Err(ClusterError::Compacted);
        }
        let mut range = self.keys.range(prefix.to_vec()..keys::prefix_end(prefix));
        Ok(range.any(|(_, versions)| versions.last().is_some_and(|last| last.modified > after)))
    }

    pub fn compact(&mut self, revision: i64) -> Result<(), ClusterError> {
        if revision <= self.compacted {
            return Err(ClusterError::Compacted);
        }
        self.check_revision(revision)?;
        self.compacted = revision;
        self.keys.retain(|_, versions| {
            let kept = versions.iter().rposition(|version| version.modified <= revision).unwrap_or(0);
            let is_gone = versions[kept].value.is_none() && versions[kept].modified <= revision;
            versions.drain(..kept + usize::from(is_gone));
            !versions.is_empty()
        });
        Ok(())
    }

    /// Bytes of all keys and values that are kept.
    pub fn bytes(&self) -> u64 {
        let value = |version: &Version| version.value.as_ref().map_or(0, |value| value.len());
        let key = |(key, versions): (&Vec<u8>, &Vec<Version>)| {
            versions.iter().map(|version| key.len() + value(version)).sum::<usize>() as u64
        };
        self.keys.iter().map(key).sum()
    }
}
