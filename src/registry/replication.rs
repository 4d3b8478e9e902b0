//! What a registry's file and the engine that replicates it between gateways tell each other: plain values, and two narrow
//! traits. The file knows nothing of the engine, and the engine nothing of SQL.
//!
//! A change is first judged on the replica, in a transaction that is rolled back: what it would change is a
//! [`ChangeDraft`]. The engine makes it count, if the registry of all gateways is still the one that it was judged on, and
//! only then is it applied here, as every other gateway applies it.

use super::{AdminEvent, RegistryError, TokenRecord};

/// A value of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CellValue {
    /// NULL.
    Null,
    /// An integer.
    Integer(i64),
    /// A text.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

/// The name of a row: its table, and its primary key, which is one text in every replicated table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey {
    /// The table.
    pub table: String,
    /// The primary key.
    pub id: String,
}

/// A row as a change has left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowChange {
    /// Its name.
    pub key: RowKey,
    /// Its columns by name; `None`: it was deleted. That is a value as well: a deletion is never the mere absence of something.
    pub cells: Option<Vec<(String, CellValue)>>,
}

/// How far a replica has applied the changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaPosition {
    /// Number of the last change, from 1, without gaps.
    pub number: u64,
    /// Number of the last admin event.
    pub events: u64,
    /// What the engine has to know of this change.
    pub state: Vec<u8>,
}

/// What a change would do to the registry as it was at a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeDraft {
    /// What it was judged on.
    pub base: ReplicaPosition,
    /// Its own random id, by which it is recognized.
    pub id: [u8; 16],
    /// The rows, each once.
    pub rows: Vec<RowChange>,
    /// What gateways must read again: kind and id.
    pub touched: Vec<(String, String)>,
    /// Its admin events; one at least.
    pub events: Vec<AdminEvent>,
}

/// What has become of a draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitOutcome {
    /// It counts at every gateway, and the replica has applied it.
    Applied,
    /// It does not count: the registry has changed since it was judged, and the replica has applied that. The change must be
    /// judged again.
    Superseded,
}

/// Makes changes count at every gateway.
pub trait Replication: Send + Sync {
    /// Makes a draft count, unless the registry has changed since its base. Blocks: not on a thread that serves calls.
    ///
    /// # Errors
    /// [`RegistryError::Store`] if the engine does not respond. The text says if the change may count nevertheless.
    fn commit(&self, draft: ChangeDraft) -> Result<CommitOutcome, RegistryError>;

    /// Makes the records of issued tokens durable, beside the changes. Blocks likewise.
    ///
    /// # Errors
    /// [`RegistryError::Store`] if the engine does not respond: the tokens are not handed out.
    fn add_tokens(&self, tokens: &[TokenRecord]) -> Result<(), RegistryError>;
}

/// A replica of the registry on the gateway's own disk. Calls block: not on a thread that serves calls.
///
/// # The contract
/// - **Together**: the rows of a change, what gateways must read again, and the position are stored in one transaction. A
///   crash leaves all of a change or nothing.
/// - **In order**: a change is applied to the position before it alone; one that is there already is ignored.
pub trait Replica: Send + Sync {
    /// Returns the position; `None` for a file that has never been filled.
    ///
    /// # Errors
    /// [`RegistryError::Store`] if the file cannot be read.
    fn position(&self) -> Result<Option<ReplicaPosition>, RegistryError>;

    /// Applies one change that leads to a position.
    ///
    /// # Errors
    /// [`RegistryError::Store`] if the file cannot be written, or the change before it is missing.
    fn apply(
        &self,
        rows: &[RowChange],
        touched: &[(String, String)],
        position: &ReplicaPosition,
    ) -> Result<(), RegistryError>;

    /// Puts rows aside for [`install`](Replica::install); the first ones replace what an earlier attempt has put aside.
    ///
    /// # Errors
    /// [`RegistryError::Store`] if they cannot be stored.
    fn stage(&self, rows: &[RowChange], are_first: bool) -> Result<(), RegistryError>;

    /// Replaces all rows by those that were put aside, unless the replica is further by now.
    ///
    /// # Errors
    /// [`RegistryError::Store`] if the file cannot be written.
    fn install(&self, position: &ReplicaPosition) -> Result<(), RegistryError>;

    /// Stores the records of tokens that another gateway has issued; those that are there already stay.
    ///
    /// # Errors
    /// [`RegistryError::Store`] if the file cannot be written.
    fn add_tokens(&self, tokens: &[TokenRecord]) -> Result<(), RegistryError>;
}
