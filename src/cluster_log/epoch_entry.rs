//! The entry of a gateway that enters another epoch: who has requested it and who has approved it, as etcd has it beside
//! their signatures (`migration/epoch.rs`).

use super::own_disk::FileDisk;
use crate::cluster::etcd::{EtcdChannel, Members};
use crate::cluster::member::RangeRead;
use crate::cluster::timers::RuntimeTimers;
use crate::cluster::{BatchWriter, ClusterError, GatewayName, keys};
use crate::exchange_log::{Entry, Kind};
use serde::Deserialize;

/// The event.
const EVENT: &str = "cluster.epoch.enter";

/// The people of an epoch. Without a record, nobody is named: the log's tests begin epochs without people.
#[derive(Default, Deserialize)]
struct EpochPeople {
    requested_by: String,
    approved_by: String,
    reason: String,
}

/// Logs that this gateway has entered an epoch, as the first batch of its start.
pub(super) async fn write(
    members: &Members,
    batches: &BatchWriter<EtcdChannel, RuntimeTimers, FileDisk>,
    epoch: u64,
    gateway: &GatewayName,
) -> Result<(), ClusterError> {
    let record = members.range(&RangeRead::key(&keys::epoch_record(epoch))).await?.entries.into_iter().next();
    let people =
        record.and_then(|record| serde_json::from_slice::<EpochPeople>(&record.value).ok()).unwrap_or_default();
    let entry = Entry {
        actor: if people.requested_by.is_empty() { "system".into() } else { people.requested_by },
        approved_by: people.approved_by,
        justification: people.reason,
        event: EVENT.into(),
        object: format!("epoch:{epoch}"),
        ..Entry::begin(Kind::Admin, &gateway.to_string())
    };
    let batch = batches.next_batch(vec![entry.to_bytes()])?;
    batches.write(&batch, |_| (), || ()).await
}
