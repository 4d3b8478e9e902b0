//! What auditors do with the exchange log: find entries, count them, see what is odd, take proofs and exports along.
//! Everything here reads the log's files; nothing here is on the way of an exchange.

pub mod index;
pub mod odd;
pub mod paper;
pub mod query;
pub mod retention;
pub mod search;
pub mod service;

use crate::exchange_log::LogError;

/// Why something could not be found or counted.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The index, which can be made anew from the log.
    #[error("the search index: {0} (audit index --rebuild makes it anew)")]
    Index(#[from] rusqlite::Error),
}

/// Exchanges by the hour, or by the day of Ho Chi Minh City, in the order of time; a bucket is told by its first hour.
pub fn statistics(index: &index::Index, query: &query::Query, days: bool) -> Result<index::Hours, AuditError> {
    const HOUR_US: i64 = 3_600_000_000;
    let from = query.from_us.map_or(0, |from| from.div_euclid(HOUR_US));
    let to = query.to_us.map_or(i64::MAX, |to| to.saturating_add(HOUR_US - 1).div_euclid(HOUR_US));
    let hours = index.hours(query, from, to)?;
    if !days {
        return Ok(hours);
    }
    let mut counts = std::collections::BTreeMap::new();
    for one in hours {
        let day = (one.hour + 7).div_euclid(24) * 24 - 7;
        let key = (day, one.client.clone(), one.agency.clone(), one.operation.clone(), one.outcome.clone());
        match counts.entry(key) {
            std::collections::btree_map::Entry::Vacant(free) => drop(free.insert(index::Hour { hour: day, ..one })),
            std::collections::btree_map::Entry::Occupied(mut sum) => {
                let sum: &mut index::Hour = sum.get_mut();
                sum.exchanges += one.exchanges;
                sum.total_us += one.total_us;
                sum.answer_bytes += one.answer_bytes;
            }
        }
    }
    Ok(counts.into_values().collect())
}
