//! Conversions between the log's data and the messages of `ndxp.audit.v1`.

use super::{api, invalid};
use crate::audit::AuditError;
use crate::audit::index::Hour;
use crate::exchange_log::reader::{Found, LogReader};
use crate::exchange_log::tree::empty_root;
use tonic::Status;

pub(super) fn entry_message(found: Found) -> api::LogEntry {
    api::LogEntry { index: found.index, entry: Some(found.entry) }
}

pub(super) fn count_message(one: Hour) -> api::Count {
    api::Count {
        from: one.hour * 3_600,
        client: one.client,
        agency: one.agency,
        source: one.source,
        operation: one.operation,
        outcome: one.outcome,
        exchanges: one.exchanges,
        total_us: one.total_us,
        response_bytes: one.response_bytes,
    }
}

pub(super) fn too_many_counts() -> Status {
    let vietnamese = "có quá nhiều số liệu: chọn khoảng thời gian ngắn hơn, hoặc một hệ thống, nguồn hay dịch vụ";
    invalid("query", "has too many counts: ask for less time, or for one client, source or operation", vietnamese)
}

/// Returns the checkpoint up to which a result is complete.
pub(super) fn complete(reader: &LogReader, from_log: bool) -> Result<api::Complete, AuditError> {
    let newest = match reader.sealed().checked_sub(1) {
        Some(last) => reader.entry(last)?.map_or(0, |entry| entry.time_us),
        None => 0,
    };
    Ok(api::Complete {
        size: reader.sealed(),
        root: reader.checkpoint.as_ref().map_or_else(empty_root, |checkpoint| checkpoint.root).to_vec(),
        newest_us: newest,
        unsealed: reader.size() - reader.sealed(),
        pruned: reader.pruned_entries(),
        from_log,
    })
}
