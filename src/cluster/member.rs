//! What the log needs of one member of etcd, and the contract on which every response relies.

use super::ClusterError;
use std::future::Future;
use std::time::Duration;

/// A connection to one member of an etcd cluster.
///
/// # The contract
/// - **Durable**: when [`transact`](EtcdMember::transact) returns `Ok`, the transaction is on the disks of a majority of
///   the members, and no crash of a minority takes it back. Only then may responses be sent that rely on it.
/// - **Atomic, in one order**: conditions and operations of a transaction are carried out together. Each transaction that
///   puts or deletes something gets a revision of its own, one above the last; a key's `modified` is the revision of its
///   last put. Responses are linearizable: a request that begins after a response sees its effect.
/// - **Unknown**: [`ClusterError::OutcomeUnknown`] means that the request was carried out, or not, or *will be*, at any
///   later time, also after the caller has crashed. Only a repetition of the same transaction may settle it.
///   [`ClusterError::NoQuorum`] means that this request will not be carried out.
/// - **Readable**: a range at a revision returns what was there at that revision, from every member, until it is compacted
///   ([`ClusterError::Compacted`]).
/// - **Leases** end after their time without a keep-alive, and take their keys along. A lease is no lock: its holder may
///   be paused for any time and not know.
/// - **Watches** only wake: [`wait_for_change`](EtcdMember::wait_for_change) may return late, early, or with an error, and
///   whoever waits also reads from time to time.
/// - **Not promised**: that a member was not restored from an old snapshot. [`guard`](super::guard) compares members.
///
/// Implementations: [`EtcdChannel`](super::etcd::EtcdChannel), and the simulated member of `simulator/cluster`. The same
/// conformance suite runs against both (`simulator/cluster/src/conformance.rs`).
pub trait EtcdMember: Send + Sync {
    /// Carries out a transaction.
    ///
    /// # Errors
    /// See the contract; [`ClusterError::NoSpace`] if it puts something and the quota is reached.
    fn transact(&self, txn: &Txn) -> impl Future<Output = Result<TxnOutcome, ClusterError>> + Send;

    /// Reads a range of keys.
    ///
    /// # Errors
    /// [`ClusterError::Compacted`] and [`ClusterError::FutureRevision`] for a revision that the member does not have any
    /// more, or not yet; [`ClusterError::OutcomeUnknown`] or [`ClusterError::NoQuorum`] without a response.
    fn range(&self, read: &RangeRead) -> impl Future<Output = Result<RangePage, ClusterError>> + Send;

    /// Makes a lease, and returns its id. Its time is rounded up to whole seconds, two at least.
    ///
    /// # Errors
    /// As for [`transact`](EtcdMember::transact): a lease that was made unnoticed ends by itself.
    fn grant_lease(&self, time: Duration) -> impl Future<Output = Result<i64, ClusterError>> + Send;

    /// Begins the lease's time again.
    ///
    /// # Errors
    /// [`ClusterError::LeaseExpired`]; [`ClusterError::OutcomeUnknown`] or [`ClusterError::NoQuorum`] without a response.
    fn renew_lease(&self, lease: i64) -> impl Future<Output = Result<(), ClusterError>> + Send;

    /// Ends a lease, and deletes its keys.
    ///
    /// # Errors
    /// As for [`renew_lease`](EtcdMember::renew_lease).
    fn revoke_lease(&self, lease: i64) -> impl Future<Output = Result<(), ClusterError>> + Send;

    /// Waits until a key with this prefix has changed after a revision.
    ///
    /// # Errors
    /// The watch has ended, for whatever reason: the caller reads again.
    fn wait_for_change(&self, prefix: &[u8], after: i64) -> impl Future<Output = Result<(), ClusterError>> + Send;

    /// Reads the member's own state.
    ///
    /// # Errors
    /// [`ClusterError::OutcomeUnknown`] without a response.
    fn status(&self) -> impl Future<Output = Result<MemberStatus, ClusterError>> + Send;

    /// Forgets what was replaced or deleted before a revision.
    ///
    /// # Errors
    /// [`ClusterError::Compacted`] if it has happened already; [`ClusterError::OutcomeUnknown`] or
    /// [`ClusterError::NoQuorum`] without a response.
    fn compact(&self, revision: i64) -> impl Future<Output = Result<(), ClusterError>> + Send;
}

/// A transaction: if all conditions hold, the first operations, else the second.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    /// All of them must hold.
    pub conditions: Vec<TxnCondition>,
    /// What is done then; 128 at most.
    pub then: Vec<TxnOperation>,
    /// What is done otherwise.
    pub otherwise: Vec<TxnOperation>,
}

/// A condition on one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TxnCondition {
    /// The key was created at this revision; 0: it does not exist.
    CreatedAt(Vec<u8>, i64),
    /// The key was put last at this revision; 0: it does not exist.
    ModifiedAt(Vec<u8>, i64),
    /// The key exists, and its value's bytes sort before these.
    ValueBelow(Vec<u8>, Vec<u8>),
}

/// An operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TxnOperation {
    /// Puts a key, under a lease if it is not 0.
    Put(Vec<u8>, Vec<u8>, i64),
    /// Reads one key.
    Get(Vec<u8>),
    /// Deletes keys from the first to before the second.
    DeleteRange(Vec<u8>, Vec<u8>),
}

/// The result of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnOutcome {
    /// Who has responded.
    pub header: ResponseHeader,
    /// Whether all conditions held.
    pub succeeded: bool,
    /// For each `Get` that was carried out, in order: what was there.
    pub found: Vec<Option<KeyValue>>,
}

/// The head of a response.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResponseHeader {
    /// etcd's own id of the cluster.
    pub cluster: u64,
    /// The member.
    pub member: u64,
    /// The revision of the member's data after the request.
    pub revision: i64,
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Vec<u8>,
    /// Its value; empty if only keys were read.
    pub value: Vec<u8>,
    /// The revision at which it was created.
    pub created: i64,
    /// The revision at which it was put last.
    pub modified: i64,
    /// Its lease, or 0.
    pub lease: i64,
}

/// A range of keys to be read, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeRead {
    /// The first key.
    pub from: Vec<u8>,
    /// The key before which the range ends; empty: only the first key.
    pub end: Vec<u8>,
    /// Maximum number of keys; 0: all.
    pub limit: i64,
    /// The revision; 0: the present one.
    pub revision: i64,
    /// Whether values are left out.
    pub keys_only: bool,
}

/// Some keys of a range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangePage {
    /// Who has responded.
    pub header: ResponseHeader,
    /// The keys.
    pub entries: Vec<KeyValue>,
    /// Whether there are further ones.
    pub has_more: bool,
}

/// What a member says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its ids and revision.
    pub header: ResponseHeader,
    /// Its version.
    pub version: String,
    /// The index of the last entry of raft's log that it has applied.
    pub applied_index: u64,
    /// The member that it takes for the leader; 0: none.
    pub leader: u64,
    /// Bytes of its database.
    pub bytes: u64,
    /// Bytes of it in use.
    pub bytes_in_use: u64,
    /// Its alarms, by name.
    pub alarms: Vec<String>,
}

impl RangeRead {
    /// One key.
    pub fn key(key: &[u8]) -> Self {
        RangeRead { from: key.to_vec(), ..RangeRead::default() }
    }

    /// All keys with a prefix.
    pub fn prefix(prefix: &[u8]) -> Self {
        RangeRead { from: prefix.to_vec(), end: super::keys::prefix_end(prefix), ..RangeRead::default() }
    }

    /// The same at a revision.
    pub fn at(self, revision: i64) -> Self {
        RangeRead { revision, ..self }
    }
}
