//! A registry's beginning in etcd: its rows come from the file of one gateway, by command. They count once the head is put
//! that says so, which no other gateway reads before the log is begun, or begun again.

use super::change::{self, CHANGES, RegistryHead, VERSION, WRITER};
use super::replica_state::PlacedHead;
use crate::cluster::ClusterError;
use crate::cluster::keys::{self, GatewayName, Incarnation};
use crate::cluster::member::{EtcdMember, RangeRead, Txn, TxnCondition, TxnOperation};
use crate::cluster::members::EtcdMembers;
use crate::cluster::timers::Timers;
use crate::registry::replication::{ReplicaPosition, RowChange};

/// Put by each import that begins.
const IMPORT: &[u8] = b"registry/import";
/// Rows of a transaction that imports.
const IMPORTED_AT_ONCE: usize = 100;

/// An import, into an etcd without a registry, or in place of one that does not count any more: its log has left, or was
/// restored as a whole.
pub struct RegistryImport<'m, M, T> {
    members: &'m EtcdMembers<M, T>,
    /// The modification revision of the head that is replaced; 0: there is none.
    base: i64,
    writer: Incarnation,
    /// The head that this import leads to.
    number: u64,
    /// That head as it is there already, by an earlier attempt.
    begun: Option<PlacedHead>,
}

impl<'m, M: EtcdMember, T: Timers> RegistryImport<'m, M, T> {
    /// Prepares an import; `number` is drawn at random, and the same one at each repetition. It counts as a change with the
    /// number after that of the head, and at least this one: no replica has it.
    ///
    /// # Errors
    /// As for [`EtcdMembers::range`].
    pub async fn prepare(members: &'m EtcdMembers<M, T>, number: u64, change: u64) -> Result<Self, ClusterError> {
        let gateway = GatewayName::parse(WRITER).ok_or_else(|| ClusterError::malformed(WRITER, "not a name"))?;
        let writer = Incarnation { gateway, number };
        let there = members.range(&RangeRead::key(VERSION)).await?.entries.into_iter().next();
        let there =
            there.map(|entry| Ok(PlacedHead { head: RegistryHead::decode(&entry.value)?, modified: entry.modified }));
        let Some(there) = there.transpose()? else {
            return Ok(RegistryImport { members, base: 0, writer, number: change, begun: None });
        };
        let (base, number) = (there.modified, change.max(there.head.number + 1));
        let begun = Some(there).filter(|there| there.head.writer == writer);
        Ok(RegistryImport { members, base, writer, number, begun })
    }

    /// Whether an earlier attempt has come to its end.
    pub fn is_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// Puts rows. The first ones replace what is there.
    ///
    /// # Errors
    /// [`ClusterError::Refused`] if a registry was begun meanwhile; as for [`EtcdMembers::settle`].
    pub async fn put(&self, rows: &[RowChange], are_first: bool) -> Result<(), ClusterError> {
        let put = |row: &RowChange| {
            let cells = row.cells.as_deref()?;
            Some(TxnOperation::Put(change::row_key(&row.key), change::encode_row(cells), 0))
        };
        // With a put, so that no revision consists of deletions alone.
        let delete = |prefix: &[u8]| TxnOperation::DeleteRange(prefix.to_vec(), keys::prefix_end(prefix));
        let empty = vec![delete(change::ROWS), delete(CHANGES), TxnOperation::Put(IMPORT.to_vec(), Vec::new(), 0)];
        let puts = rows.chunks(IMPORTED_AT_ONCE).map(|rows| rows.iter().filter_map(put).collect());
        for then in are_first.then_some(empty).into_iter().chain(puts) {
            let conditions = vec![TxnCondition::ModifiedAt(VERSION.to_vec(), self.base)];
            if !self.members.settle(&Txn { conditions, then, otherwise: Vec::new() }).await?.succeeded {
                return Err(ClusterError::Refused("a registry was begun in this etcd".into()));
            }
        }
        Ok(())
    }

    /// Makes the rows count; `events` is the number of the last admin event of the registry that they are of. Its replicas
    /// are at the position that is returned.
    ///
    /// # Errors
    /// [`ClusterError::Refused`] if a registry was begun meanwhile; as for [`EtcdMembers::settle`].
    pub async fn begin(&self, events: u64) -> Result<ReplicaPosition, ClusterError> {
        if let Some(begun) = &self.begun {
            return Ok(begun.position());
        }
        let head = RegistryHead { number: self.number, events, ..RegistryHead::begin(self.writer.clone()) };
        let (value, mark) = (head.encode(), self.writer.mark_key());
        let txn = Txn {
            conditions: vec![
                TxnCondition::ModifiedAt(VERSION.to_vec(), self.base),
                TxnCondition::CreatedAt(mark.clone(), 0),
            ],
            then: vec![
                TxnOperation::Put(VERSION.to_vec(), value.clone(), 0),
                TxnOperation::Put(mark, keys::number(0), 0),
                TxnOperation::Get(VERSION.to_vec()),
            ],
            otherwise: vec![TxnOperation::Get(VERSION.to_vec())],
        };
        let there = self.members.settle(&txn).await?.found.into_iter().flatten().next();
        let there = there.filter(|there| there.value == value);
        let there = there.ok_or_else(|| ClusterError::Refused("a registry was begun in this etcd".into()))?;
        Ok(PlacedHead { head, modified: there.modified }.position())
    }
}

/// Puts rows of a single gateway's registry into an etcd in which none was begun yet, by command: they count once
/// [`begin_registry`] has begun it. The first ones replace what an earlier attempt has left.
///
/// # Errors
/// [`ClusterError::Refused`] if a registry was begun; as for [`EtcdMembers::settle`].
pub async fn import_rows<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    rows: &[RowChange],
    are_first: bool,
) -> Result<(), ClusterError> {
    let import = RegistryImport::prepare(members, 0, 0).await?;
    match import.base {
        0 => import.put(rows, are_first).await,
        _ => Err(ClusterError::Refused("a registry was begun in this etcd".into())),
    }
}

/// Begins a registry in an etcd that holds none, by command, once; `number` is drawn at random, and `events` is the number of
/// the last admin event of the registry whose rows were [imported](import_rows). Returns whether it was begun now.
///
/// # Errors
/// As for [`EtcdMembers::settle`].
pub async fn begin_registry<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    number: u64,
    events: u64,
) -> Result<bool, ClusterError> {
    let import = RegistryImport::prepare(members, number, 0).await?;
    if import.base > 0 && !import.is_begun() {
        return Ok(false);
    }
    import.begin(events).await.map(|_| true)
}
