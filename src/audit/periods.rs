//! Periods with a missing pseudonym key: their entries about a person can no longer be found, and a search that covers
//! them must report this rather than find nothing.

use super::AuditError;
use super::index::SearchIndex;
use super::query::Query;
use super::search;
use crate::exchange_log::pseudonym::{Pseudonyms, period_of};
use crate::exchange_log::reader::LogReader;
use crate::exchange_log::tree::TILE;
use crate::exchange_log::{Entry, clock};
use crate::time_zone::HO_CHI_MINH;
use jiff::ToSpan;
use std::collections::HashSet;
use std::time::Instant;

/// Maximum number of months that are searched: a century.
const MAX_PERIODS: usize = 1_200;
/// Entries that are read at once.
const PAGE: usize = 256;

/// Returns the periods from `from_us` until before `to_us` (Unix microseconds; `None`: the log's beginning, its end) in
/// which the log names people by a missing key. A period that could not be searched completely until `patience` counts
/// as such.
///
/// # Errors
/// The log, its index or the keys' folder cannot be read.
pub fn without_key(
    reader: &LogReader,
    index: Option<&SearchIndex>,
    keys: &Pseudonyms,
    (from_us, to_us): (Option<i64>, Option<i64>),
    patience: Instant,
) -> Result<Vec<String>, AuditError> {
    unknown(reader, index, &keys.periods()?.into_iter().collect(), (from_us, to_us), patience)
}

/// The same, for periods that are not among the known ones.
///
/// # Errors
/// The log or its index cannot be read.
pub fn unknown(
    reader: &LogReader,
    index: Option<&SearchIndex>,
    known: &HashSet<String>,
    (from_us, to_us): (Option<i64>, Option<i64>),
    patience: Instant,
) -> Result<Vec<String>, AuditError> {
    let Some(first) = first_time_us(reader)? else { return Ok(Vec::new()) };
    let end = match to_us {
        Some(end) => end,
        None => end_us(reader)?,
    };
    let (mut at, mut missing) = (from_us.unwrap_or(first).max(first), Vec::new());
    for _ in 0..MAX_PERIODS {
        if at >= end {
            break;
        }
        let period = period_of(at);
        let Some(next) = next_period_us(&period) else { break };
        let query = Query { from_us: Some(at), to_us: Some(next.min(end)), ..Query::default() };
        if !known.contains(&period) && names_people(reader, index, &query, &period, patience)? {
            missing.push(period);
        }
        at = next;
    }
    Ok(missing)
}

/// Returns until when there may be entries: now, or after the newest of the newest entries, if the reader's clock is
/// behind the gateway's.
fn end_us(reader: &LogReader) -> Result<i64, AuditError> {
    let (mut end, mut left) = (clock::now_us(), PAGE);
    reader.newest_first(u64::MAX, |one| {
        end = end.max(one.entry.time_us.saturating_add(1));
        left -= 1;
        left > 0
    })?;
    Ok(end)
}

/// Returns the time of the oldest entry that is not pruned; `None` if there is none.
fn first_time_us(reader: &LogReader) -> Result<Option<i64>, AuditError> {
    let mut index = 0;
    while index < reader.size() {
        if let Some(entry) = reader.entry(index)? {
            return Ok(Some(entry.time_us));
        }
        index += TILE as u64;
    }
    Ok(None)
}

/// Returns when the period after `yyyy-MM` begins.
fn next_period_us(period: &str) -> Option<i64> {
    let first: jiff::civil::Date = format!("{period}-01").parse().ok()?;
    let next = first.checked_add(1.month()).ok()?.at(0, 0, 0, 0);
    Some(HO_CHI_MINH.to_timestamp(next).ok()?.as_microsecond())
}

fn names_people(
    reader: &LogReader,
    index: Option<&SearchIndex>,
    query: &Query,
    period: &str,
    patience: Instant,
) -> Result<bool, AuditError> {
    let of_period = |entry: &Entry| {
        let named = entry.subjects.iter().chain(&entry.response_subjects).chain(&entry.official);
        named.into_iter().any(|one| one.key == period)
    };
    let mut before = None;
    loop {
        let page = search::page(reader, index, query, before, PAGE, Some(patience))?;
        if page.found.iter().any(|one| of_period(&one.entry)) {
            return Ok(true);
        }
        match page.before {
            None => return Ok(false),
            Some(_) if Instant::now() >= patience => return Ok(true),
            next => before = next,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn periods_follow_each_other_in_local_time() {
        let december = next_period_us("2026-11").unwrap();
        assert_eq!((period_of(december), period_of(december - 1)), ("2026-12".into(), "2026-11".into()));
        assert_eq!(period_of(next_period_us("2026-12").unwrap()), "2027-01");
        assert_eq!(next_period_us("x"), None);
    }
}
