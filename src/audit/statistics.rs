//! Exchanges counted by time.

use super::AuditError;
pub use super::index::HOUR_US;
use super::index::{Hour, SearchIndex};
use super::query::{Query, outcome};
use super::search;
use crate::exchange_log::reader::LogReader;
use crate::exchange_log::tiles::bundle_path;
use crate::exchange_log::tree::TILE;
use crate::exchange_log::{Entry, Kind, LogError};
use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, HashMap};

/// Purposes that are counted apart, and those of a result: dossier numbers are as many as there are dossiers.
const MAX_PURPOSES: (usize, usize) = (100_000, 1_000);
/// Entries that are read at once.
const PAGE: usize = 1_000;

/// Returns whether the index's counts are sufficient: it counts by client, agency, source, operation and outcome, in whole hours.
pub fn counts(query: &Query) -> bool {
    let whole = |time: Option<i64>| time.is_none_or(|time| time % HOUR_US == 0);
    !query.has_subject_filter()
        && query.purpose.is_none()
        && query.scope.is_none()
        && [&query.event, &query.grant, &query.token].iter().all(|text| text.is_none())
        && whole(query.from_us)
        && whole(query.to_us)
}

/// The result of a count.
pub struct PeriodStatistics {
    /// The counts, in the order of time; `None` if there are more than requested.
    pub counts: Option<Vec<Hour>>,
    /// Entries that were pruned before they were counted.
    pub not_counted: u64,
    /// Exchanges by purpose, the most frequent first, at most 1,000; of entries alone, since the index does not count them.
    pub purposes: Vec<(String, u64)>,
    /// Exchanges with another purpose.
    pub other_purposes: u64,
}

/// Returns exchanges by the hour, or by the day of Ho Chi Minh City (identified by its first hour), in the order of
/// time: from the index's counts as far as they reach, and from the entries for newer ones. At most `max` counts.
///
/// # Errors
/// As for [`search::page`].
pub fn statistics(
    reader: &LogReader,
    index: Option<&SearchIndex>,
    query: &Query,
    days: bool,
    most: usize,
) -> Result<PeriodStatistics, AuditError> {
    let mut sums = StatisticsTotals::new(days);
    let (newer_than, not_counted) = match index.filter(|_| counts(query)) {
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
        page.found.into_iter().filter(|one| one.index >= newer_than).for_each(|one| sums.entry(one.entry));
        before = page.before;
    }
    Ok(sums.counted(most, not_counted))
}

/// The same from the entries alone, each hashed up to the checkpoint, or from the journal behind it. `progress` is
/// called with the number of read entries and the total; if it returns false, the result is `None`. Pruned entries are
/// not counted; `not_counted` is how many of them may be of the period.
///
/// # Errors
/// The log cannot be read, or is not what was signed.
pub fn from_log(
    reader: &LogReader,
    query: &Query,
    days: bool,
    most: usize,
    mut progress: impl FnMut(u64, u64) -> bool,
) -> Result<Option<PeriodStatistics>, AuditError> {
    let mut sums = StatisticsTotals::new(days);
    let (low, high) = search::bounds(reader, query)?;
    let (high, sealed) = (high.min(reader.size()), reader.sealed());
    let wrong = |index: u64| LogError::corrupt(&reader.paths().tiles, 0, format!("entry {index} is no entry"));
    let take = |sums: &mut StatisticsTotals, index: u64, bytes: &[u8]| -> Result<(), LogError> {
        let entry = Entry::from_bytes(bytes).ok_or_else(|| wrong(index))?;
        if query.fits(&entry) {
            sums.entry(entry);
        }
        Ok(())
    };
    for bundle in low / TILE as u64..high.min(sealed).div_ceil(TILE as u64) {
        let first = bundle * TILE as u64;
        for (index, bytes) in (first..).zip(reader.bundle(bundle)?.unwrap_or_default()) {
            take(&mut sums, index, &bytes)?;
        }
        if sums.all.len() > most {
            return Ok(Some(sums.counted(most, 0)));
        }
        if !progress((first + TILE as u64).min(high).saturating_sub(low), high.saturating_sub(low)) {
            return Ok(None);
        }
    }
    for (index, bytes) in (sealed..high).zip(reader.tail()) {
        take(&mut sums, index, bytes)?;
    }
    let not_counted = pruned_within(reader, query, high)?;
    Ok(Some(sums.counted(most, not_counted)))
}

/// Returns the number of pruned entries that may be of a query's period: a run of them ends before the time of the next
/// entry.
fn pruned_within(reader: &LogReader, query: &Query, high: u64) -> Result<u64, AuditError> {
    let mut entries = 0;
    for run in reader.pruned().runs().iter().filter(|run| run.start().saturating_mul(TILE as u64) < high) {
        let behind = run.end().saturating_add(1).saturating_mul(TILE as u64);
        let next = if behind < reader.size() { reader.entry(behind)? } else { None };
        if next.zip(query.earliest_us()).is_none_or(|(next, from)| next.time_us >= from) {
            // An existing bundle was read, whatever the list says; only full ones are pruned.
            let full = (*run.start()..=*run.end()).take_while(|bundle| *bundle < reader.sealed() / TILE as u64);
            let gone = full.filter(|bundle| !bundle_path(&reader.paths().tiles, *bundle, TILE).exists());
            entries += gone.count() as u64 * TILE as u64;
        }
    }
    Ok(entries)
}

type StatisticsKey = (i64, String, String, String, String, String);

struct StatisticsTotals {
    days: bool,
    all: BTreeMap<StatisticsKey, Hour>,
    purposes: HashMap<String, u64>,
    other_purposes: u64,
}

impl StatisticsTotals {
    fn new(days: bool) -> Self {
        StatisticsTotals { days, all: BTreeMap::new(), purposes: HashMap::new(), other_purposes: 0 }
    }

    fn purpose(&mut self, purpose: &str) {
        if let Some(count) = self.purposes.get_mut(purpose) {
            *count += 1;
        } else if self.purposes.len() < MAX_PURPOSES.0 {
            self.purposes.insert(purpose.to_owned(), 1);
        } else {
            self.other_purposes += 1;
        }
    }

    /// Counts an entry, if it is an exchange.
    fn entry(&mut self, entry: Entry) {
        if entry.kind() != Kind::Exchange {
            return;
        }
        self.purpose(&entry.purpose);
        self.add(Hour {
            hour: entry.time_us.div_euclid(HOUR_US),
            outcome: outcome(&entry).to_owned(),
            client: entry.client,
            agency: entry.agency,
            source: entry.source,
            operation: entry.operation,
            exchanges: 1,
            total_us: entry.total_us,
            response_bytes: entry.response_bytes,
        });
    }

    fn counted(self, most: usize, not_counted: u64) -> PeriodStatistics {
        let mut purposes: Vec<(String, u64)> = self.purposes.into_iter().collect();
        purposes.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let rest: u64 = purposes.iter().skip(MAX_PURPOSES.1).map(|(_, count)| count).sum();
        purposes.truncate(MAX_PURPOSES.1);
        PeriodStatistics {
            counts: (self.all.len() <= most).then(|| self.all.into_values().collect()),
            not_counted,
            purposes,
            other_purposes: self.other_purposes + rest,
        }
    }

    fn add(&mut self, one: Hour) {
        let hour = if self.days { (one.hour + 7).div_euclid(24) * 24 - 7 } else { one.hour };
        let [client, agency, source, operation, outcome] =
            [&one.client, &one.agency, &one.source, &one.operation, &one.outcome].map(Clone::clone);
        match self.all.entry((hour, client, agency, source, operation, outcome)) {
            Slot::Vacant(free) => drop(free.insert(Hour { hour, ..one })),
            Slot::Occupied(mut sum) => {
                let sum = sum.get_mut();
                sum.exchanges += one.exchanges;
                sum.total_us += one.total_us;
                sum.response_bytes += one.response_bytes;
            }
        }
    }
}
