//! Restores quotas after a restart, however the gateway ended: from what was saved, and from the calls since then in
//! the exchange log.

use crate::exchange_log::reader::LogReader;
use crate::exchange_log::{Entry, ExchangeLog, Kind, clock};
use crate::registry::usage::{DayUsage, UsageStore};
use crate::registry::{Actor, now};
use crate::server::StartError;
use crate::server::shared::Shared;
use crate::time_zone::day;
use std::collections::HashMap;
use std::path::Path;

/// How far the clock may have been set back between two entries: this much of the log is read again.
const MARGIN_US: i64 = 10_000_000;

/// The event by which an operator states that the clock was ahead when earlier entries were written, and is right now.
const CLOCK_EVENT: &str = "clock.correct";
/// Number of the newest entries that are searched for the latest time: entries of concurrent calls are not in the order
/// of their times.
const NEWEST: usize = 256;

/// Continues the time from the log's newest entry, so that a clock that was set back while the gateway was down
/// restores no expired right. If an operator states that the clock was ahead before, that becomes an entry, and the
/// clock is used as it is.
pub(in crate::server) fn go_on_in_time(
    log: &ExchangeLog,
    data: &Path,
    node: &str,
    clock_ahead: bool,
) -> Result<(), StartError> {
    let (mut latest, mut seen) = (i64::MIN, 0);
    LogReader::open(data)?.newest_first(u64::MAX, |found| {
        if found.entry.event == CLOCK_EVENT {
            return false;
        }
        (latest, seen) = (latest.max(found.entry.time_us), seen + 1);
        seen < NEWEST
    })?;
    let now = clock::now_us();
    if latest <= now {
        return Ok(());
    }
    let ahead_s = latest.saturating_sub(now) / 1_000_000;
    if clock_ahead {
        let (actor, object) = (Actor::local().to_string(), format!("clock:{ahead_s}s"));
        let entry = Entry { actor, event: CLOCK_EVENT.into(), object, ..Entry::begin(Kind::Admin, node) };
        return Ok(log.append_detached(&entry)?);
    }
    clock::not_before(latest);
    tracing::warn!(ahead_s, "the log's newest entry is later than the system clock: time continues from there");
    Ok(())
}

/// Restores the limits. Future days, of a clock that was ahead, count as today.
pub(in crate::server) fn restore(shared: &Shared, usage: &UsageStore, data: &Path) -> Result<(), StartError> {
    let kept = usage.load()?;
    let at_most_today = |one: DayUsage| DayUsage { day: one.day.min(day(now())), ..one };
    shared.limits.restore(kept.usage.into_iter().map(at_most_today));
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
    shared.limits.restore(since.into_iter().map(|(grant, (day, used))| DayUsage { grant, day, used }));
    Ok(())
}
