//! Quotas over a restart, however the gateway ended: what was kept, and what the exchange log tells of the calls since.

use super::StartError;
use super::shared::Shared;
use crate::access::limits::day;
use crate::exchange_log::reader::LogReader;
use crate::exchange_log::{Entry, Kind};
use crate::registry::now;
use crate::registry::usage::{DayUsage, UsageStore};
use std::collections::HashMap;
use std::path::Path;

/// How far the clock may have been set back between two entries: so much of the log is read again.
const MARGIN_US: i64 = 10_000_000;

/// Brings the limits to where they were.
pub(super) fn restore(shared: &Shared, usage: &UsageStore, data: &Path) -> Result<(), StartError> {
    let kept = usage.load()?;
    shared.limits.restore(kept.usage);
    let mut since: HashMap<String, (i64, u64)> = HashMap::new();
    let (from_us, today) = (kept.until_us - MARGIN_US, day(now()));
    LogReader::open(data)?.newest_first(u64::MAX, |found| {
        let Entry { grant, grant_call, time_us, total_us, .. } = found.entry;
        if time_us < from_us || day(time_us / 1_000_000) < today {
            return false;
        }
        if found.entry.kind == Kind::Exchange as i32 && !grant.is_empty() {
            // The day is that of its arrival.
            let arrived = time_us.saturating_sub_unsigned(total_us) / 1_000_000;
            let last = since.entry(grant).or_default();
            *last = (*last).max((day(arrived), grant_call));
        }
        true
    })?;
    shared.limits.restore(since.into_iter().map(|(grant, (day, used))| DayUsage { grant, day, used }));
    Ok(())
}
