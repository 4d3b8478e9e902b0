//! When clients, grants and tokens were used last, by the log. What was found is remembered: a log only grows, so the
//! next look is at what is new, once for all of them.

use super::AuditError;
use super::index::SearchIndex;
use super::query::Query;
use super::search;
use crate::exchange_log::Entry;
use crate::exchange_log::reader::LogReader;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Objects that are remembered, some MB; beyond that, all are looked for anew.
const MAX_KNOWN: usize = 50_000;
/// New entries that are read one by one, for all objects at once; after more than that, each object is searched for.
const MAX_FOLLOWED: u64 = 10_000;

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
pub struct LastUses(Mutex<KnownUses>);

#[derive(Debug, Default)]
struct KnownUses {
    /// Of objects that were looked for.
    found: HashMap<String, Known>,
    /// The entries that were read for all objects at once.
    followed: Range<u64>,
    /// The uses in those.
    new: HashMap<String, i64>,
}

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

/// The objects that an entry is a use of.
fn objects(entry: &Entry) -> impl Iterator<Item = String> {
    let named = [("client", &entry.client), ("grant", &entry.grant), ("token", &entry.token)];
    named.into_iter().filter(|(_, id)| !id.is_empty()).map(|(kind, id)| format!("{kind}:{id}"))
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
        self.known().follow(reader, patience)?;
        let since = |time_us: Option<i64>| time_us.filter(|time| *time >= from_us).map_or(LastUse::Never, LastUse::At);
        let use_of = |object: &String| {
            let known = self.known().of(object);
            let upto = known.map_or(0, |known| known.upto);
            let time_us = known.and_then(|known| known.time_us);
            if upto >= reader.size() {
                return Ok(since(time_us));
            }
            let Some(query) = query(object, from_us).filter(|_| Instant::now() < patience) else {
                return Ok(LastUse::Unknown);
            };
            let page = search::page_from(reader, index, &query, (upto, None), 1, Some(patience))?;
            let found = page.found.first().map(|one| one.entry.time_us);
            // It is out of time, and there may be one further down.
            if found.is_none() && page.before.is_some_and(|before| before > upto) {
                return Ok(LastUse::Unknown);
            }
            let time_us = found.max(time_us);
            self.known().keep(object, Known { upto: reader.size(), time_us });
            Ok(since(time_us))
        };
        objects.iter().map(use_of).collect()
    }

    fn known(&self) -> MutexGuard<'_, KnownUses> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KnownUses {
    /// Reads the entries that are new since the last time, until `patience`. If they are too many, begins at the log's end.
    fn follow(&mut self, reader: &LogReader, patience: Instant) -> Result<(), AuditError> {
        let size = reader.size();
        let is_behind = size.saturating_sub(self.followed.end) > MAX_FOLLOWED;
        if self.followed.end == 0 || is_behind || self.new.len() >= MAX_KNOWN {
            (self.followed, self.new) = (size..size, HashMap::new());
        }
        for index in self.followed.end..size {
            if Instant::now() >= patience {
                break;
            }
            // Pruned entries cannot be read.
            if let Some(entry) = reader.entry(index)? {
                for object in objects(&entry) {
                    let newest = self.new.entry(object).or_insert(entry.time_us);
                    *newest = entry.time_us.max(*newest);
                }
            }
            self.followed.end = index + 1;
        }
        Ok(())
    }

    /// What was found of an object, with what is new since.
    fn of(&self, object: &str) -> Option<Known> {
        let known = *self.found.get(object)?;
        if known.upto < self.followed.start {
            return Some(known);
        }
        let time_us = known.time_us.max(self.new.get(object).copied());
        Some(Known { upto: known.upto.max(self.followed.end), time_us })
    }

    fn keep(&mut self, object: &str, known: Known) {
        if self.found.len() >= MAX_KNOWN {
            self.found.clear();
        }
        self.found.insert(object.to_owned(), known);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::exchange_log::{Kind, LogOpener, LogPaths, Pipeline, key};
    use crate::keyfile::Vault;
    use std::time::Duration;

    #[test]
    fn an_object_is_looked_for_by_its_kind_and_what_is_known_is_bounded() {
        let grant = query("grant:g-1", 7).unwrap_or_default();
        assert_eq!((grant.grant.as_deref(), grant.from_us), (Some("g-1"), Some(7)));
        assert_eq!(query("token:a:b", 0).unwrap_or_default().token.as_deref(), Some("a:b"));
        assert!(query("staff:lan", 0).is_none() && query("lan", 0).is_none());
        let uses = LastUses::default();
        let known = Known { upto: 1, time_us: None };
        (0..=MAX_KNOWN).for_each(|number| uses.known().keep(&format!("token:{number}"), known));
        assert_eq!(uses.known().found.len(), 1);
    }

    #[test]
    fn what_is_remembered_is_what_the_log_has_however_it_grew() {
        let (folder, vault) = (tempfile::tempdir().unwrap(), Vault::default());
        key::make(folder.path(), &vault).unwrap();
        let signer = key::read(folder.path(), &vault, "log.example/uses").unwrap();
        let (pipeline, mut journal) = Pipeline::open(LogPaths::new(folder.path()), signer).unwrap();
        let opener = LogOpener::new(folder.path(), &vault);
        let objects: Vec<String> =
            (0..7).flat_map(|id| ["client", "grant", "token"].map(|kind| format!("{kind}:{id}"))).collect();
        let (remembered, later, mut time_us) = (LastUses::default(), Instant::now() + Duration::from_secs(60), 0);
        // The third step is more than is followed, and the last object is never used.
        for (step, entries) in [3, 40, MAX_FOLLOWED as usize + 1, 1, 300].into_iter().enumerate() {
            let entry = |at: usize| {
                time_us += 1;
                let id = |by: usize| ((at * by + step) % 6).to_string();
                let of =
                    Entry { client: id(1), grant: id(5), token: id(7), time_us, ..Entry::begin(Kind::Exchange, "dc1") };
                of.to_bytes()
            };
            pipeline.write(&mut journal, (0..entries).map(entry).collect()).unwrap();
            if step % 2 == 0 {
                pipeline.seal().unwrap();
            }
            let reader = opener.open().unwrap();
            let look = |uses: &LastUses, from| uses.of((&reader, None), &objects, from, later).unwrap();
            for from_us in [0, time_us - 2] {
                assert_eq!(look(&remembered, from_us), look(&LastUses::default(), from_us), "step {step}");
            }
            assert_eq!(look(&remembered, 0)[18..], [LastUse::Never; 3]);
        }
        let reader = opener.open().unwrap();
        // In no time, what is known is known, and nothing else.
        let at_once = |uses: &LastUses| uses.of((&reader, None), &objects, 0, Instant::now()).unwrap();
        assert!(at_once(&LastUses::default()).iter().all(|found| *found == LastUse::Unknown));
        assert!(at_once(&remembered).iter().all(|found| *found != LastUse::Unknown));
    }
}
