//! What was used of today's quotas before a start: what was saved, and the calls since then in the exchange log.

use crate::exchange_log::reader::LogReader;
use crate::exchange_log::{Entry, Kind, LogError};
use crate::registry::usage::{DayUsage, UsageStore};
use crate::registry::{RegistryError, now};
use crate::time_zone::day;
use std::collections::HashMap;
use std::path::Path;

/// How far the clock may have been set back between two entries: this much of the log is read again.
const MARGIN_US: i64 = 10_000_000;

/// Returns what was used of each grant: first what was saved, then what the log has since. A grant may be there twice: of the same day,
/// the greater number counts. Future days, of a clock that was ahead, count as today.
///
/// # Errors
/// The file or the log cannot be read.
pub fn used<E: From<RegistryError> + From<LogError>>(usage: &UsageStore, data: &Path) -> Result<Vec<DayUsage>, E> {
    let kept = usage.load()?;
    let at_most_today = |one: DayUsage| DayUsage { day: one.day.min(day(now())), ..one };
    let mut since: HashMap<String, (i64, u64)> = HashMap::new();
    let (from_us, today) = (kept.until_us - MARGIN_US, day(now()));
    LogReader::open(data)?.newest_first(u64::MAX, |found| {
        let Entry { grant, grant_call, time_us, total_us, .. } = found.entry;
        if time_us < from_us || day(time_us / 1_000_000) < today {
            return false;
        }
        if found.entry.kind == Kind::Exchange as i32 && !grant.is_empty() {
            // The day of its arrival counts.
            let arrived = time_us.saturating_sub_unsigned(total_us) / 1_000_000;
            let last = since.entry(grant).or_default();
            *last = (*last).max((day(arrived).min(today), grant_call));
        }
        true
    })?;
    let since = since.into_iter().map(|(grant, (day, used))| DayUsage { grant, day, used });
    Ok(kept.usage.into_iter().map(at_most_today).chain(since).collect())
}
