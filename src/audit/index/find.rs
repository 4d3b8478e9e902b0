//! Searching and counting within the parts of the index.

use super::part::{HOURS, Hours, IndexPart, PartHeader, positions_of, postings};
use super::{AuditError, SearchIndex, terms};
use crate::audit::query::Query;
use crate::contract::formats::is_within;
use crate::exchange_log::reader::LogReader;
use crate::exchange_log::tree::TILE;
use prost::Message;
use std::ops::Range;

/// Exchanges of one kind in one hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hour {
    /// Hours since 1970.
    pub hour: i64,
    /// The client; empty where nobody was identified.
    pub client: String,
    /// Its agency code.
    pub agency: String,
    /// The source.
    pub source: String,
    /// The operation.
    pub operation: String,
    /// `OK`, or the reason.
    pub outcome: String,
    /// Number of exchanges.
    pub exchanges: u64,
    /// Sum of their durations, in microseconds.
    pub total_us: u64,
    /// Bytes of their responses.
    pub response_bytes: u64,
}

/// Positions of entries that may match, from the index.
pub(in crate::audit) struct Candidates {
    /// The range of entries that it covers.
    pub range: Range<u64>,
    /// Entries that may match, newest first.
    pub positions: Vec<u64>,
}

/// Positions within a part, a bit each.
struct EntryPositions(Vec<u64>);

impl EntryPositions {
    fn none() -> Self {
        EntryPositions(vec![0; 1 << 10])
    }

    fn all(most: u64) -> Self {
        let bits = |word: u64| match most.saturating_sub(64 * word) {
            64.. => u64::MAX,
            some => (1 << some) - 1,
        };
        EntryPositions((0..1 << 10).map(bits).collect())
    }

    fn add(&mut self, place: u16) {
        if let Some(word) = self.0.get_mut(usize::from(place / 64)) {
            *word |= 1 << (place % 64);
        }
    }

    /// Intersects it with another; returns false if nothing is left.
    fn keep(&mut self, others: &Self) -> bool {
        self.0.iter_mut().zip(&others.0).for_each(|(word, other)| *word &= other);
        self.0.iter().any(|word| *word != 0)
    }

    fn newest_first(&self) -> impl Iterator<Item = u16> {
        let of_word = |(at, word): (u16, &u64)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = left.checked_ilog2()?;
                left &= !(1 << bit);
                Some(64 * at + bit as u16)
            })
        };
        (0u16..1 << 10).zip(&self.0).rev().flat_map(of_word)
    }
}

impl SearchIndex {
    /// Returns the candidates of the part that ends the log before `before`, which is not 0 and at most
    /// [`SearchIndex::indexed`]. No other entry between the part's beginning and `before` matches.
    pub(in crate::audit) fn candidates(
        &self,
        reader: &LogReader,
        query: &Query,
        before: u64,
    ) -> Result<Candidates, AuditError> {
        let bundle = before.saturating_sub(1) / TILE as u64;
        let part = IndexPart::over(bundle, self.claimed()?);
        let first = part.entries().start;
        if part.entries().end > reader.sealed() {
            // Merged since the reader was opened: one bundle, as the log has it.
            let range = bundle * TILE as u64..before;
            return Ok(Candidates { positions: range.clone().rev().collect(), range });
        }
        let range = first..before;
        let timed = query.from_us.is_some() || query.to_us.is_some();
        let head = if timed || query.operation.is_some() { Some(self.head(reader, part)?) } else { None };
        let (from, to) = (query.from_us.unwrap_or(i64::MIN), query.to_us.unwrap_or(i64::MAX));
        let in_time = |place: u16| {
            let bundle = usize::from(place) / TILE;
            head.as_ref().is_none_or(|head| !timed || head.may_hold(bundle, from, to))
        };
        if timed && head.as_ref().is_some_and(|head| head.entries == 0 || head.max_us < from || head.min_us >= to) {
            return Ok(Candidates { range, positions: Vec::new() });
        }
        let mut found = EntryPositions::all(part.entries().end - first);
        for terms in alternatives(query, head.as_ref()) {
            let mut of_terms = EntryPositions::none();
            for term in terms {
                let cell = self.cell(reader, part, part.cell_of(term))?;
                let positions = postings(&cell).find(|one| one.0 == term);
                positions
                    .into_iter()
                    .flat_map(|(_, positions)| positions_of(positions))
                    .for_each(|place| of_terms.add(place));
            }
            if !found.keep(&of_terms) {
                break;
            }
        }
        let positions = found.newest_first().filter(|one| in_time(*one)).map(|place| first + u64::from(place));
        let positions = positions.filter(|index| *index < before).collect();
        Ok(Candidates { range, positions })
    }

    /// Counts exchanges by the hour, from one hour (since 1970) until before another, of the entries in the index,
    /// until `take` returns false. Counts of pruned entries stay. Returns the entry before which the counts end, and
    /// how many entries before it were pruned before they were counted.
    ///
    /// # Errors
    /// The index cannot be read, or its key does not authenticate a part of it.
    pub fn hours(
        &self,
        reader: &LogReader,
        query: &Query,
        (from, to): (i64, i64),
        mut take: impl FnMut(Hour) -> bool,
    ) -> Result<(u64, u64), AuditError> {
        let (mut end, mut not_counted) = (0, 0);
        for part in IndexPart::all(self.claimed()?).take_while(|part| part.entries().end <= reader.sealed()) {
            end = part.entries().end;
            let entries = end - part.entries().start;
            let hours = Hours::decode(self.cell(reader, part, HOURS)?.as_slice()).unwrap_or_default();
            not_counted += entries.saturating_sub(hours.entries.into());
            for count in hours.counts.iter().filter(|count| (from..to).contains(&count.hour)) {
                let text = |at: usize| {
                    let number = count.names.get(at).copied().unwrap_or(u32::MAX);
                    hours.texts.get(number as usize).cloned().unwrap_or_default()
                };
                let one = Hour {
                    hour: count.hour,
                    client: text(0),
                    agency: text(1),
                    source: text(2),
                    operation: text(3),
                    outcome: text(4),
                    exchanges: count.exchanges,
                    total_us: count.total_us,
                    response_bytes: count.response_bytes,
                };
                if is_meant(query, &one) && !take(one) {
                    return Ok((end, not_counted));
                }
            }
        }
        Ok((end, not_counted))
    }
}

/// Returns the terms of each condition of a query; a matching entry has at least one of each.
fn alternatives(query: &Query, head: Option<&PartHeader>) -> Vec<Vec<u64>> {
    let mut all = Vec::new();
    // Rare terms first: if no entry has them, nothing else is looked up.
    if let Some(id) = &query.exchange {
        all.push(vec![terms::exchange(id)]);
    }
    if let Some(ids) = &query.subject {
        all.push(ids.iter().map(|one| terms::subject(&one.value)).collect());
    }
    if let Some(ids) = &query.official {
        all.push(ids.iter().map(|one| terms::official(&one.value)).collect());
    }
    type Term = fn(&str) -> u64;
    let texts: [(&Option<String>, Term); 9] = [
        (&query.event, terms::event),
        (&query.grant, terms::grant),
        (&query.token, terms::token),
        (&query.purpose, terms::purpose),
        (&query.client, terms::client),
        (&query.agency, terms::agency),
        (&query.scope, terms::scope),
        (&query.source, terms::source),
        (&query.outcome, terms::ended),
    ];
    all.extend(texts.into_iter().filter_map(|(text, term)| Some(vec![term(text.as_deref()?)])));
    if let (Some(wanted), Some(head)) = (&query.operation, head) {
        let named = head.operations.iter().filter(|one| one.contains(wanted.as_str()));
        all.push(named.map(|one| terms::operation(one)).collect());
    }
    all
}

/// Returns whether a count matches a query. Times are compared by the hour; people and purposes are not counted.
fn is_meant(query: &Query, one: &Hour) -> bool {
    let same = |wanted: &Option<String>, text: &str| wanted.as_ref().is_none_or(|wanted| wanted == text);
    same(&query.client, &one.client)
        && same(&query.source, &one.source)
        && same(&query.outcome, &one.outcome)
        && query.agency.as_ref().is_none_or(|agency| is_within(agency, &one.agency))
        && query.operation.as_ref().is_none_or(|part| one.operation.contains(part.as_str()))
}
