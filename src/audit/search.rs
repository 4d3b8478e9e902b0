//! Finding entries: through the index where it reaches, and by reading what is newer than it.

use super::AuditError;
use super::index::Index;
use super::query::Query;
use crate::exchange_log::reader::{Found, LogReader};
use std::time::Instant;

/// A page of a search, newest first.
#[derive(Debug, Default)]
pub struct Page {
    /// Entries that fit.
    pub found: Vec<Found>,
    /// Where the next page begins: entries before this index; `None` at the end. A log only grows, so pages hold still.
    pub before: Option<u64>,
}

/// Entries that fit, below `before` and newest first, at most `limit`. Ends early, with a page that is not full, where it
/// would take longer than until `patience`.
pub fn page(
    reader: &LogReader,
    index: Option<&Index>,
    query: &Query,
    before: Option<u64>,
    limit: usize,
    patience: Option<Instant>,
) -> Result<Page, AuditError> {
    let indexed = index.map_or(Ok(0), Index::indexed)?;
    let begin = before.unwrap_or(u64::MAX).min(reader.size());
    let mut page = Page::default();
    let mut at = begin;
    if begin > indexed || index.is_none() {
        reader.newest_first(begin, |one| {
            if one.index < indexed {
                return false;
            }
            at = one.index;
            if query.fits(&one.entry) {
                page.found.push(one);
            }
            page.found.len() < limit && patience.is_none_or(|until| !at.is_multiple_of(256) || Instant::now() < until)
        })?;
        if page.found.len() >= limit || at > indexed {
            page.before = (at > 0).then_some(at);
            return Ok(page);
        }
    }
    let Some(index) = index else { return Ok(page) };
    let (places, next) = index.find(query, at.min(indexed), limit - page.found.len(), patience)?;
    for place in places {
        // What was pruned meanwhile is not there to be shown.
        let Some(entry) = reader.entry(place)? else { continue };
        if query.fits(&entry) {
            page.found.push(Found { index: place, entry });
        }
    }
    page.before = next;
    Ok(page)
}

/// Every entry of an exchange, oldest first.
pub fn exchange(reader: &LogReader, index: Option<&Index>, id: &[u8; 16]) -> Result<Vec<Found>, AuditError> {
    let mut found = Vec::new();
    let indexed = index.map_or(Ok(0), Index::indexed)?;
    reader.newest_first(u64::MAX, |one| {
        let newer = one.index >= indexed;
        if newer && one.entry.exchange_id == id {
            found.push(one);
        }
        newer
    })?;
    if let Some(index) = index {
        for place in index.exchange(id)?.into_iter().rev() {
            found.extend(reader.entry(place)?.map(|entry| Found { index: place, entry }));
        }
    }
    found.reverse();
    Ok(found)
}
