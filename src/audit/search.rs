//! Search: through the index as far as it reaches, and by reading the log beyond. Every result was read from the log's
//! bundles, hashed up to the checkpoint (or from the journal behind it), and compared with the query.

use super::AuditError;
use super::index::SearchIndex;
use super::query::Query;
use crate::exchange_log::reader::{Found, LogReader};
use crate::exchange_log::tree::TILE;
use crate::exchange_log::{Entry, LogError};
use std::time::Instant;

/// Tolerance for a clock that has gone back, for a search by time without the index, in microseconds: a week. With the
/// index no such bound is needed.
const CLOCK_STEP_US: i64 = 7 * 86_400_000_000;

/// A page of a search, newest first.
#[derive(Debug, Default)]
pub struct SearchPage {
    /// Matching entries.
    pub found: Vec<Found>,
    /// Where the next page begins: entries before this index; `None` at the end. A log only grows, so pages do not
    /// shift.
    pub before: Option<u64>,
}

/// Returns matching entries below `before`, newest first, at most `limit`. Ends early, with a page that is not full, if
/// it would take longer than until `patience`.
///
/// # Errors
/// The log cannot be read, or is not what was signed. A fault of the index is no error: the index is rebuilt, or not used.
pub fn page(
    reader: &LogReader,
    index: Option<&SearchIndex>,
    query: &Query,
    before: Option<u64>,
    limit: usize,
    patience: Option<Instant>,
) -> Result<SearchPage, AuditError> {
    page_from(reader, index, query, (0, before), limit, patience)
}

/// The same, of entries from an index on; the last part that is looked at may have some before it.
///
/// # Errors
/// As for [`page`].
pub fn page_from(
    reader: &LogReader,
    index: Option<&SearchIndex>,
    query: &Query,
    (from, before): (u64, Option<u64>),
    limit: usize,
    patience: Option<Instant>,
) -> Result<SearchPage, AuditError> {
    let (low, high) = if index.is_none() { bounds(reader, query)? } else { (0, u64::MAX) };
    let low = low.max(from);
    let indexed = index.map_or(0, |index| index.indexed(reader));
    let mut search = Search { reader, query, limit, patience, page: SearchPage::default() };
    let mut at = before.unwrap_or(u64::MAX).min(reader.size()).min(high);
    while at > low.max(indexed) && !search.is_over() {
        at = search.newer(at, low.max(indexed))?;
    }
    if let Some(index) = index {
        while at > low && at <= indexed && !search.is_over() {
            let candidates = match index.candidates(reader, query, at) {
                Err(AuditError::Index(error)) => {
                    tracing::warn!(%error, "the search index cannot be read: the log is read in its place");
                    return page_from(reader, None, query, (from, before), limit, patience);
                }
                other => other?,
            };
            at = search.of(candidates.positions)?.unwrap_or(candidates.range.start);
        }
    }
    search.page.before = (at > low).then_some(at);
    Ok(search.page)
}

struct Search<'s> {
    reader: &'s LogReader,
    query: &'s Query,
    limit: usize,
    patience: Option<Instant>,
    page: SearchPage,
}

impl Search<'_> {
    fn is_over(&self) -> bool {
        self.page.found.len() >= self.limit || self.patience.is_some_and(|until| Instant::now() >= until)
    }

    /// Searches the contiguous entries below `before`: those behind the checkpoint, or of one bundle; not below `low`.
    /// Returns where to continue.
    fn newer(&mut self, before: u64, low: u64) -> Result<u64, AuditError> {
        let sealed = self.reader.sealed();
        let first = if before > sealed { sealed } else { (before - 1) / TILE as u64 * TILE as u64 }.max(low);
        let entries = if before > sealed { None } else { self.reader.bundle(first / TILE as u64)? };
        let of_bundle = entries.as_deref().unwrap_or_default();
        let behind = if before > sealed { self.reader.tail() } else { of_bundle };
        let skip = if before > sealed { sealed } else { first / TILE as u64 * TILE as u64 };
        for index in (first..before).rev() {
            // Pruned entries cannot be shown.
            let Some(bytes) = usize::try_from(index - skip).ok().and_then(|at| behind.get(at)) else { continue };
            let entry = Entry::from_bytes(bytes).ok_or_else(|| {
                LogError::corrupt(&self.reader.paths().tiles, 0, format!("entry {index} is no entry"))
            })?;
            if self.query.fits(&entry) {
                self.page.found.push(Found { index, entry });
                if self.page.found.len() >= self.limit {
                    return Ok(index);
                }
            }
        }
        Ok(first)
    }

    /// Compares these entries, and returns where to continue if not all were compared.
    fn of(&mut self, places: Vec<u64>) -> Result<Option<u64>, AuditError> {
        let mut bundle = None;
        for index in places {
            if bundle.replace(index / TILE as u64) != Some(index / TILE as u64) && self.is_over() {
                return Ok(Some(index + 1));
            }
            // Pruned entries cannot be shown.
            let Some(entry) = self.reader.entry(index)? else { continue };
            if self.query.fits(&entry) {
                self.page.found.push(Found { index, entry });
                if self.page.found.len() >= self.limit {
                    return Ok(Some(index));
                }
            }
        }
        Ok(None)
    }
}

/// Returns the range of entries that can have a query's times, if the clock never went back by more than
/// [`CLOCK_STEP_US`]: by bisection over the first entries of bundles.
pub(super) fn bounds(reader: &LogReader, query: &Query) -> Result<(u64, u64), AuditError> {
    let bundles = reader.sealed() / TILE as u64;
    // The first bundle that begins at a time or later; pruned ones count as early.
    let first_from = |time: i64| -> Result<u64, AuditError> {
        let (mut low, mut high) = (0, bundles);
        while low < high {
            let middle = low + (high - low) / 2;
            match reader.entry(middle * TILE as u64)? {
                Some(entry) if entry.time_us >= time => high = middle,
                _ => low = middle + 1,
            }
        }
        Ok(low)
    };
    let low = match query.earliest_us() {
        Some(from) => first_from(from.saturating_sub(CLOCK_STEP_US))?.saturating_sub(1) * TILE as u64,
        None => 0,
    };
    let high = match query.to_us {
        Some(to) => match first_from(to.saturating_add(CLOCK_STEP_US))? {
            bundle if bundle < bundles => bundle * TILE as u64,
            _ => u64::MAX,
        },
        None => u64::MAX,
    };
    Ok((low, high))
}

/// Returns every matching entry, newest first.
///
/// # Errors
/// As for [`page`].
pub fn each(
    reader: &LogReader,
    index: Option<&SearchIndex>,
    query: &Query,
    mut visit: impl FnMut(Found) -> Result<(), AuditError>,
) -> Result<(), AuditError> {
    let mut before = Some(u64::MAX);
    while before.is_some() {
        let page = page(reader, index, query, before, 1_000, None)?;
        page.found.into_iter().try_for_each(&mut visit)?;
        before = page.before;
    }
    Ok(())
}

/// Returns every entry of an exchange, oldest first. If the index has none, this is confirmed from the log itself,
/// until `patience`: then `None`, since it is unknown whether there is one.
///
/// # Errors
/// As for [`page`].
pub fn exchange(
    reader: &LogReader,
    index: Option<&SearchIndex>,
    id: &[u8; 16],
    patience: Instant,
) -> Result<Option<Vec<Found>>, AuditError> {
    let query = Query { exchange: Some(*id), ..Query::default() };
    for index in [index, None] {
        let (mut found, mut before) = (Vec::new(), Some(u64::MAX));
        while before.is_some() {
            let page = page(reader, index, &query, before, usize::MAX, Some(patience))?;
            found.extend(page.found);
            before = page.before;
            if before.is_some() && Instant::now() >= patience {
                return Ok(None);
            }
        }
        if !found.is_empty() {
            found.reverse();
            return Ok(Some(found));
        }
        if index.is_none() {
            break;
        }
    }
    Ok(Some(Vec::new()))
}
