//! The registry recomputed from the exchange log alone, and compared with its file. The log is the truth: anything in
//! the file that did not come from events in the log was written without an entry.
//!
//! For each object the replay holds the position of its last change and a hash of the record, about 100 bytes, so a
//! registry of a million grants takes about 100 MB during a comparison.

mod compare;
mod issued;

use super::logged_files::LoggedFiles;
use super::{AuditError, scan};
use crate::exchange_log::Entry;
use crate::exchange_log::file_events::FileEvent;
use crate::exchange_log::reader::LogReader;
use crate::exchange_log::tree::TILE;
use crate::identity::Thumbprint;
use crate::keyfile::Vault;
use crate::registry::sqlite::{ADOPT_EVENT, RegistryFile};
use crate::registry::{AdminEventKey, LoggedEvent, MAX_SKEW_S, ObjectChange, RefusedEvent, RegistryError, now};
use compare::{Compare, NameHolders};
use foldhash::HashMap;
use issued::{DAMAGE, IssuedTokens};
use serde_json::Value;
use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::path::Path;

/// Number of event ids that are held, to find which of the file's rows are in the log already.
const MAX_RECENT: usize = 20_000;
/// Maximum number of differences: the first ones show what happened.
pub const MAX_DIFFERENCES: usize = 100;
/// The log's placeholder for a record that fits into no entry, before it had a digest: it cannot be compared.
const TOO_LARGE: &str = "\"(larger than an entry)\"";

/// A difference between the log and the file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
pub struct RegistryDifference {
    /// The object: `kind:id`.
    pub object: String,
    /// The field; empty: the complete record.
    pub field: String,
    /// The value in the log; `null`: none.
    pub in_log: String,
    /// The value in the file; `null`: none.
    pub in_file: String,
}

impl std::fmt::Display for RegistryDifference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let RegistryDifference { object, field, in_log, in_file } = self;
        let field = if field.is_empty() { String::new() } else { format!(" {field}") };
        write!(f, "{object}{field}: in the log {in_log}, in the file {in_file}")
    }
}

/// An object's last change.
#[derive(Debug, Clone, Copy)]
struct LastChange {
    /// Its entry, and the number of the change in it.
    entry: u64,
    nth: u32,
    hash: RecordHash,
    /// For a revoked token: when it would expire. For a pending change: when it expires.
    ends: i64,
}

/// The registry according to the log.
#[derive(Default)]
pub struct Replay {
    /// The key that authenticates events on their way into the log; without it, the one that is unsealed beside the registry.
    key: Option<AdminEventKey>,
    /// The next entry to read.
    next: u64,
    objects: HashMap<Box<str>, LastChange>,
    /// Removed people, by the change that removed them: it has the certificate names that stay reserved.
    former: HashMap<Box<str>, LastChange>,
    recent: VecDeque<[u8; 16]>,
    /// The last number in the sequence of events.
    sequence: u64,
    /// The object of the events that recorded an older version's registry.
    adopted: Option<String>,
    /// Whether any other event concerns the registry.
    began: bool,
    /// The log's records of files beside it.
    files: LoggedFiles,
    /// The gateway of these files, if others write the log, too.
    own: Option<String>,
    /// Valid tokens, if they are compared, too.
    issued: Option<IssuedTokens>,
}

/// How often a comparison waits for changes to come from etcd into the log: sealing takes a second, an election of a sealer
/// five.
const MAX_BEHIND: usize = 30;

/// Half a SHA-256.
type RecordHash = [u8; 16];

/// Records are compared by this first; if it differs, by their text. An attacker who edits the file must not find another
/// record with the same hash.
fn hash(text: &str) -> RecordHash {
    let mut half = RecordHash::default();
    half.copy_from_slice(&Thumbprint::of(text.as_bytes()).0[..16]);
    half
}

/// Returns when an object's record expires.
fn ends(record: &str) -> i64 {
    let value: Value = serde_json::from_str(record).unwrap_or_default();
    ["expires", "ends"].iter().find_map(|name| value.get(name)?.as_i64()).unwrap_or_default()
}

impl Replay {
    /// Reads the entries of a data folder that are new since the last time. Calls `progress` with the number of read
    /// entries and the total; if it returns false, the rest is left for the next time.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn advance(&mut self, data: &Path, progress: impl FnMut(u64, u64) -> bool) -> Result<(), AuditError> {
        self.advance_in(&LogReader::open(data)?, progress)
    }

    /// The same for the entries under the checkpoint only, without reading the journal.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn advance_sealed(&mut self, data: &Path, progress: impl FnMut(u64, u64) -> bool) -> Result<(), AuditError> {
        self.advance_in(&LogReader::sealed_only(data)?, progress)
    }

    fn advance_in(&mut self, reader: &LogReader, progress: impl FnMut(u64, u64) -> bool) -> Result<(), AuditError> {
        let mut next = self.next;
        self.own = reader.paths().own_gateway()?;
        let read = scan::administrative(reader, &mut next, progress, |index, entry| self.take(index, &entry));
        self.next = next;
        read
    }

    fn take(&mut self, index: u64, entry: &Entry) {
        // The gateway logs none twice; a duplicate changes nothing.
        if entry.event_sequence != 0 && entry.event_sequence <= self.sequence {
            return;
        }
        self.sequence = self.sequence.max(entry.event_sequence);
        if let Ok(id) = entry.exchange_id.as_slice().try_into() {
            self.recent.push_back(id);
            if self.recent.len() > MAX_RECENT {
                self.recent.pop_front();
            }
        }
        if entry.status == 0 && FileEvent::is_of(&entry.node, self.own.as_deref()) {
            self.files.take(index, &entry.event, &entry.object);
        }
        if let Some(issued) = &mut self.issued {
            issued.take(index, entry);
        }
        match entry.event.as_str() {
            _ if entry.changes.is_empty() => return,
            ADOPT_EVENT if self.adopted.is_none() => self.adopted = Some(entry.object.clone()),
            ADOPT_EVENT => {}
            _ => self.began = true,
        }
        for (nth, change) in (0u32..).zip(&entry.changes) {
            if !is_kept(&change.object, &change.after) {
                self.objects.remove(change.object.as_str());
                if change.object.starts_with("staff:") {
                    let last = LastChange { entry: index, nth, hash: RecordHash::default(), ends: 0 };
                    self.former.insert(change.object.as_str().into(), last);
                }
                continue;
            }
            self.former.remove(change.object.as_str());
            let (entry, hash) = (index, hash(&change.after));
            let timed = change.object.starts_with("token:") || change.object.starts_with("change:");
            let ends = if timed { ends(&change.after) } else { 0 };
            self.objects.insert(change.object.as_str().into(), LastChange { entry, nth, hash, ends });
        }
    }

    /// Returns a replay that authenticates events on their way into the log by this key.
    pub fn with_key(key: AdminEventKey) -> Self {
        Replay { key: Some(key), ..Replay::default() }
    }

    /// Also compares tokens that are valid now with the file that lists them (about 250 bytes of memory for each), and
    /// has SQLite check both files: more than a running gateway does.
    pub fn with_issued_tokens(self) -> Self {
        Replay { issued: Some(IssuedTokens::new()), ..self }
    }

    /// Returns whether the log permits recording an older version's registry by events of this object: it has no
    /// registry except from the same events. The file's own statement of its age proves nothing.
    pub fn may_adopt(&self, object: &str) -> bool {
        !self.began && self.adopted.as_ref().is_none_or(|adopted| adopted == object)
    }

    /// Returns whether a row among the events is on its way into the log: its changes count as if they were there.
    fn is_on_its_way(&self, noted: &LoggedEvent) -> bool {
        match noted {
            LoggedEvent::Authentic(event) if event.event == ADOPT_EVENT => {
                event.sequence > self.sequence && self.may_adopt(&event.object)
            }
            LoggedEvent::Authentic(event) => event.sequence > self.sequence,
            LoggedEvent::Upgraded(event) => self.sequence == 0 && !self.recent.contains(&event.id),
            LoggedEvent::Refused(_) => false,
        }
    }

    /// Returns whether a row is the log's last event: it is about to be deleted.
    fn is_last(&self, noted: &LoggedEvent) -> bool {
        match noted {
            LoggedEvent::Authentic(event) => event.sequence == self.sequence && self.recent.contains(&event.id),
            LoggedEvent::Upgraded(event) => self.recent.contains(&event.id),
            LoggedEvent::Refused(_) => false,
        }
    }

    /// Returns the number of the last admin event that was read.
    pub fn last_event(&self) -> u64 {
        self.sequence
    }

    /// Returns the log's records of files that the gateway keeps for itself.
    pub fn files(&self) -> &LoggedFiles {
        &self.files
    }

    /// Returns the number of objects in the log.
    pub fn objects(&self) -> usize {
        self.objects.len()
    }

    /// Returns an object's record in the log; `null` if it has none.
    fn text(reader: &LogReader, last: &LastChange) -> Result<String, AuditError> {
        Ok(Replay::change(reader, last)?.map_or_else(|| "null".to_owned(), |change| change.after))
    }

    fn change(reader: &LogReader, last: &LastChange) -> Result<Option<ObjectChange>, AuditError> {
        let entry = reader.entry(last.entry)?;
        let change = entry.and_then(|entry| entry.changes.into_iter().nth(last.nth as usize));
        Ok(change.map(|change| ObjectChange { object: change.object, before: change.before, after: change.after }))
    }

    /// Returns the objects with their last change in these bundles: they must be restated before the bundles are
    /// pruned. A revocation of a token that expired long ago is irrelevant.
    pub fn within(&self, bundles: &[RangeInclusive<u64>]) -> Vec<String> {
        let now = now();
        let inside = |last: &LastChange| bundles.iter().any(|run| run.contains(&(last.entry / TILE as u64)));
        let over = |last: &LastChange| last.ends != 0 && last.ends < now - MAX_SKEW_S;
        let found = self.objects.iter().chain(&self.former).filter(|(_, last)| inside(last) && !over(last));
        found.map(|(object, _)| object.to_string()).collect()
    }

    /// Returns the log's records of the registry's objects with their last change in these bundles; of removed people,
    /// the record that they had.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn records_within(
        &self,
        data: &Path,
        bundles: &[RangeInclusive<u64>],
    ) -> Result<Vec<ObjectChange>, AuditError> {
        let reader = LogReader::open(data)?;
        let null = || "null".to_owned();
        let restated = |object: String| {
            if let Some(last) = self.objects.get(object.as_str()) {
                return Ok(ObjectChange { object, before: null(), after: Replay::text(&reader, last)? });
            }
            let last = self.former.get(object.as_str());
            let before = last.map_or(Ok(None), |last| Replay::change(&reader, last))?.map(|change| change.before);
            Ok(ObjectChange { object, before: before.unwrap_or_else(null), after: null() })
        };
        self.within(bundles).into_iter().map(restated).collect()
    }

    /// Compares the registry's file with the log, after reading what is new in it. While a gateway runs, a change may
    /// be in one and not yet in the other: see [`Replay::confirmed_differences`].
    ///
    /// # Errors
    /// The log or the file cannot be read.
    pub fn differences(&mut self, data: &Path, registry: &Path) -> Result<Vec<RegistryDifference>, CompareError> {
        // The file first: anything that is in it at this moment and not among its events is in the log.
        let file = RegistryFile::open(registry)?;
        // Without the key, no waiting event is accepted.
        let beside = || AdminEventKey::read(registry, &Vault::default()).unwrap_or_default();
        let key = self.key.clone().or_else(beside);
        let notes = file.admin_events(key.as_ref())?;
        let damage = if self.issued.is_some() { file.check_fault()? } else { None };
        let rows = self.issued.as_ref().map(|issued| issued.rows(registry)).transpose()?;
        let reader = LogReader::open(data).map_err(AuditError::from)?;
        self.advance_in(&reader, |_, _| true)?;
        if let Some(registry) = file.replica_events()?
            && registry != self.sequence
        {
            return Err(CompareError::Behind { registry, log: self.sequence });
        }
        let mut noted: HashMap<&str, &ObjectChange> = HashMap::default();
        let mut refused = Vec::new();
        for note in &notes {
            match note {
                LoggedEvent::Authentic(event) | LoggedEvent::Upgraded(event) if self.is_on_its_way(note) => {
                    noted.extend(event.changes.iter().map(|change| (change.object.as_str(), change)));
                }
                _ if self.is_last(note) => {}
                LoggedEvent::Authentic(event) | LoggedEvent::Upgraded(event) => refused.push(RefusedEvent::from(event)),
                LoggedEvent::Refused(row) => refused.push(row.clone()),
            }
        }
        let mut compare =
            Compare { replay: self, noted, reader, found: Vec::new(), failed: None, names: NameHolders::default() };
        let mut seen: HashMap<String, ()> = HashMap::default();
        file.records(&mut |record| {
            if let Some(object) = compare.record(&record) {
                seen.insert(object, ());
            }
        })?;
        let Compare { failed, .. } = &mut compare;
        if let Some(error) = failed.take() {
            return Err(error.into());
        }
        compare.missing(&seen)?;
        compare.names()?;
        if let Some(damage) = damage {
            compare.push("registry.sqlite", DAMAGE, "ok".into(), damage);
        }
        let replay = compare.replay;
        if let (Some(issued), Some(rows)) = (&replay.issued, rows) {
            issued.compare(rows, &mut compare)?;
        }
        for RefusedEvent { sequence, claim } in refused {
            compare.push(&format!("act:{sequence}"), "", "null".into(), format!("{claim} (not noted by this gateway)"));
        }
        let mut found = compare.found;
        found.sort_by(|one, other| (&one.object, &one.field).cmp(&(&other.object, &other.field)));
        Ok(found)
    }

    /// The same while changes are made: a difference that disappears within a moment was a change on its way.
    ///
    /// # Errors
    /// As for [`Replay::differences`].
    pub fn confirmed_differences(
        &mut self,
        data: &Path,
        registry: &Path,
        mut pause: impl FnMut(),
    ) -> Result<Vec<RegistryDifference>, CompareError> {
        let mut found = self.settled_differences(data, registry, &mut pause)?;
        for _ in 0..2 {
            if found.is_empty() {
                break;
            }
            pause();
            let again = self.settled_differences(data, registry, &mut pause)?;
            found.retain(|one| again.contains(one));
        }
        Ok(found)
    }

    /// The same as [`Replay::differences`], once a replica and the log have the same changes.
    fn settled_differences(
        &mut self,
        data: &Path,
        registry: &Path,
        pause: &mut impl FnMut(),
    ) -> Result<Vec<RegistryDifference>, CompareError> {
        let mut attempts = 0;
        loop {
            match self.differences(data, registry) {
                Err(CompareError::Behind { .. }) if attempts < MAX_BEHIND => {
                    attempts += 1;
                    pause();
                }
                done => return done,
            }
        }
    }
}

/// The reason that the registry and the log could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// The log.
    #[error(transparent)]
    Log(#[from] AuditError),
    /// The registry's file.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Of several gateways: changes are in one of them and not in the other yet.
    #[error(
        "the registry has the admin events up to {registry}, and the exchange log here those up to {log}: they are not the same within \
         seconds as they should be"
    )]
    Behind {
        /// The last event of the registry.
        registry: u64,
        /// The last event in the log.
        log: u64,
    },
}

/// Returns whether the file has a record, too: tokens only if they are revoked.
fn is_kept(object: &str, after: &str) -> bool {
    let revoked = || {
        let value: Value = serde_json::from_str(after).unwrap_or_default();
        value.get("revoked").and_then(Value::as_bool).unwrap_or_default()
    };
    after != "null" && (!object.starts_with("token:") || revoked())
}
