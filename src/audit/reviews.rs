//! Reviews of anomalies: an entry `audit.review` is the mark that somebody has looked into one, and nothing else keeps it. So a mark is
//! as durable as the log, cannot be removed unnoticed, and is the same at every gateway; the search index finds them by their event.

use super::AuditError;
use super::anomalies::Finding;
use super::index::SearchIndex;
use super::query::Query;
use super::search;
use crate::exchange_log::Entry;
use crate::exchange_log::reader::{Found, LogReader};
use std::collections::HashMap;

/// The event of a review; its object is `finding:ID`.
pub const REVIEW_EVENT: &str = "audit.review";
/// Reviews of a period that are looked at, newest first: hundreds a day for a month.
const MAX_REVIEWS: usize = 10_000;

/// A review.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    /// Who, as in entries.
    pub by: String,
    /// When, in microseconds.
    pub time_us: i64,
    /// What they found out.
    pub reason: String,
    /// The index of its entry.
    pub entry: u64,
    /// The newest entry of the finding, as it was then.
    newest: u64,
}

/// Returns the object of the event that reviews a finding.
pub fn object_of(id: &str) -> String {
    format!("finding:{id}")
}

/// The reviews of a period, by what the findings are about.
#[derive(Debug, Default)]
pub struct Reviews(HashMap<String, Review>);

impl Reviews {
    /// Reads the reviews that were made from a time on (Unix microseconds), at most 10,000.
    ///
    /// # Errors
    /// As for [`search::page`].
    pub fn read(reader: &LogReader, index: Option<&SearchIndex>, from_us: i64) -> Result<Self, AuditError> {
        let query = Query { event: Some(REVIEW_EVENT.into()), from_us: Some(from_us), ..Query::default() };
        let page = search::page(reader, index, &query, None, MAX_REVIEWS, None)?;
        let mut reviews = Reviews::default();
        page.found.into_iter().for_each(|found| reviews.take(found));
        Ok(reviews)
    }

    /// Takes an entry; the newest come first. A refused review marks nothing.
    fn take(&mut self, Found { index, entry }: Found) {
        let Entry { actor, object, time_us, justification, status: 0, .. } = entry else { return };
        let Some((group, newest)) = object.strip_prefix("finding:").and_then(|id| id.rsplit_once('-')) else { return };
        let Ok(newest) = newest.parse() else { return };
        let review = Review { by: actor, time_us, reason: justification, entry: index, newest };
        let known = self.0.entry(group.to_owned()).or_insert_with(|| review.clone());
        if known.newest < review.newest {
            *known = review;
        }
    }

    /// Returns the review of a finding; `None` if there is none, or if the finding has a newer entry than it had then.
    pub fn of(&self, finding: &Finding) -> Option<&Review> {
        self.of_group(&finding.group(), finding.newest())
    }

    /// The same, by what a finding is about and its newest entry.
    pub fn of_group(&self, group: &str, newest: u64) -> Option<&Review> {
        self.0.get(group).filter(|review| review.newest >= newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reviewed(index: u64, object: &str, status: u32) -> Found {
        let entry = Entry { object: object.into(), status, actor: format!("staff:{index}"), ..Entry::default() };
        Found { index, entry }
    }

    #[test]
    fn a_finding_with_a_newer_entry_is_to_be_reviewed_again_and_a_refused_review_marks_nothing() {
        let mut reviews = Reviews::default();
        reviews.take(reviewed(30, "finding:UNUSUAL_RATE-aa-7", 0));
        reviews.take(reviewed(29, "finding:UNUSUAL_RATE-aa-9", 0));
        reviews.take(reviewed(28, "finding:UNUSUAL_RATE-bb-9", 7));
        reviews.take(reviewed(27, "alarm:UNUSUAL_RATE-cc-9", 0));
        let by = |group, newest| reviews.of_group(group, newest).map(|review| review.by.as_str());
        assert_eq!((by("UNUSUAL_RATE-aa", 9), by("UNUSUAL_RATE-aa", 3)), (Some("staff:29"), Some("staff:29")));
        assert_eq!((by("UNUSUAL_RATE-aa", 10), by("UNUSUAL_RATE-bb", 9), by("UNUSUAL_RATE-cc", 9)), (None, None, None));
    }
}
