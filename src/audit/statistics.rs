//! Exchanges counted by time.

use super::AuditError;
use super::index::{Hour, Index};
use super::query::{Query, outcome};
use super::search;
use crate::exchange_log::Kind;
use crate::exchange_log::reader::LogReader;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// An hour in microseconds.
pub const HOUR_US: i64 = 3_600_000_000;
/// Entries that are found at once.
const PAGE: usize = 1_000;

/// Whether the index's counts can tell: it counts by client, agency, source, operation and outcome, in whole hours.
pub fn counts(query: &Query) -> bool {
    let whole = |time: Option<i64>| time.is_none_or(|time| time % HOUR_US == 0);
    !query.names_somebody()
        && query.purpose.is_none()
        && query.scope.is_none()
        && whole(query.from_us)
        && whole(query.to_us)
}

/// What was counted.
pub struct Counted {
    /// The counts, in the order of time; `None` where there are more than wanted.
    pub counts: Option<Vec<Hour>>,
    /// Entries that were pruned before they were counted.
    pub uncounted: u64,
}

/// Exchanges by the hour, or by the day of Ho Chi Minh City (told by its first hour), in the order of time: from the index's
/// counts where they can tell, and from the entries for what is newer. At most `most` counts.
///
/// # Errors
/// As for [`search::page`].
pub fn statistics(
    reader: &LogReader,
    index: Option<&Index>,
    query: &Query,
    days: bool,
    most: usize,
) -> Result<Counted, AuditError> {
    let mut sums = Sums { days, all: BTreeMap::new() };
    let (newer_than, uncounted) = match index.filter(|_| counts(query)) {
        Some(index) => {
            let from = query.from_us.map_or(i64::MIN, |from| from.div_euclid(HOUR_US));
            let to = query.to_us.map_or(i64::MAX, |to| to.div_euclid(HOUR_US));
            index.hours(reader, query, (from, to), |one| {
                sums.add(one);
                sums.all.len() <= most
            })?
        }
        None => (0, 0),
    };
    let mut before = Some(u64::MAX);
    while before.is_some_and(|before| before > newer_than) && sums.all.len() <= most {
        let page = search::page(reader, index, query, before, PAGE, None)?;
        for one in page.found.iter().filter(|one| one.index >= newer_than && one.entry.kind() == Kind::Exchange) {
            sums.add(Hour {
                hour: one.entry.time_us.div_euclid(HOUR_US),
                client: one.entry.client.clone(),
                agency: one.entry.agency.clone(),
                source: one.entry.source.clone(),
                operation: one.entry.operation.clone(),
                outcome: outcome(&one.entry).to_owned(),
                exchanges: 1,
                total_us: one.entry.total_us,
                answer_bytes: one.entry.answer_bytes,
            });
        }
        before = page.before;
    }
    Ok(Counted { counts: (sums.all.len() <= most).then(|| sums.all.into_values().collect()), uncounted })
}

type Key = (i64, String, String, String, String, String);

struct Sums {
    days: bool,
    all: BTreeMap<Key, Hour>,
}

impl Sums {
    fn add(&mut self, one: Hour) {
        let hour = if self.days { (one.hour + 7).div_euclid(24) * 24 - 7 } else { one.hour };
        let [client, agency, source, operation, outcome] =
            [&one.client, &one.agency, &one.source, &one.operation, &one.outcome].map(Clone::clone);
        match self.all.entry((hour, client, agency, source, operation, outcome)) {
            Entry::Vacant(free) => drop(free.insert(Hour { hour, ..one })),
            Entry::Occupied(mut sum) => {
                let sum = sum.get_mut();
                sum.exchanges += one.exchanges;
                sum.total_us += one.total_us;
                sum.answer_bytes += one.answer_bytes;
            }
        }
    }
}
