//! When clients, grants and tokens were used last, by the log. What was found is remembered: a log only grows, so the next look is at what
//! is new.

use super::AuditError;
use super::index::SearchIndex;
use super::query::Query;
use super::search;
use crate::exchange_log::reader::LogReader;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Objects that are remembered, some MB; beyond that, all are looked for anew.
const MAX_KNOWN: usize = 50_000;

/// When an object was used last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastUse {
    /// At this time, Unix microseconds.
    At(i64),
    /// Not since the time that was asked for.
    Never,
    /// Not found out in time: the next look goes on.
    Unknown,
}

/// What is known of the objects, as `client:ID`, `grant:ID` or `token:ID`.
#[derive(Debug, Default)]
pub struct LastUses(Mutex<HashMap<String, Known>>);

/// The newest use among the entries below `upto`.
#[derive(Debug, Clone, Copy)]
struct Known {
    upto: u64,
    time_us: Option<i64>,
}

/// The query for what an object has done; `None` if its kind is none of these.
fn query(object: &str, from_us: i64) -> Option<Query> {
    let (kind, id) = object.split_once(':')?;
    let (id, query) = (Some(id.to_owned()), Query { from_us: Some(from_us), ..Query::default() });
    match kind {
        "client" => Some(Query { client: id, ..query }),
        "grant" => Some(Query { grant: id, ..query }),
        "token" => Some(Query { token: id, ..query }),
        _ => None,
    }
}

impl LastUses {
    /// Returns when each object was used last, not before `from_us`; looks until `patience`.
    ///
    /// # Errors
    /// As for [`search::page`].
    pub fn of(
        &self,
        (reader, index): (&LogReader, Option<&SearchIndex>),
        objects: &[String],
        from_us: i64,
        patience: Instant,
    ) -> Result<Vec<LastUse>, AuditError> {
        let use_of = |object: &String| {
            let known = self.known(object);
            let upto = known.map_or(0, |known| known.upto);
            if upto < reader.size() {
                let Some(query) = query(object, from_us).filter(|_| Instant::now() < patience) else {
                    return Ok(LastUse::Unknown);
                };
                let page = search::page_from(reader, index, &query, (upto, None), 1, Some(patience))?;
                let found = page.found.first().map(|one| one.entry.time_us);
                // It is out of time, and there may be one further down.
                if found.is_none() && page.before.is_some_and(|before| before > upto) {
                    return Ok(LastUse::Unknown);
                }
                let time_us = found.max(known.and_then(|known| known.time_us));
                self.keep(object, Known { upto: reader.size(), time_us });
            }
            let time_us = self.known(object).and_then(|known| known.time_us).filter(|time| *time >= from_us);
            Ok(time_us.map_or(LastUse::Never, LastUse::At))
        };
        objects.iter().map(use_of).collect()
    }

    fn known(&self, object: &str) -> Option<Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(object).copied()
    }

    fn keep(&self, object: &str, known: Known) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_KNOWN {
            all.clear();
        }
        all.insert(object.to_owned(), known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_looked_for_by_its_kind_and_what_is_known_is_bounded() {
        let grant = query("grant:g-1", 7).unwrap_or_default();
        assert_eq!((grant.grant.as_deref(), grant.from_us), (Some("g-1"), Some(7)));
        assert_eq!(query("token:a:b", 0).unwrap_or_default().token.as_deref(), Some("a:b"));
        assert!(query("staff:lan", 0).is_none() && query("lan", 0).is_none());
        let uses = LastUses::default();
        (0..=MAX_KNOWN).for_each(|number| uses.keep(&format!("token:{number}"), Known { upto: 1, time_us: None }));
        assert_eq!(uses.0.lock().map(|all| all.len()).unwrap_or_default(), 1);
    }
}
