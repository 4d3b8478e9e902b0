//! Notes made while a response is read: codes that the contract does not know, omitted fields. Paths only; for unknown
//! codes also their text, which only the caller gets.

use super::drift::{Drift, DriftKind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Maximum number of notes of each kind in one exchange: more are no help, and metadata is bounded.
pub const MAX_NOTES: usize = 20;
/// Longest unknown code that is passed on, in bytes.
const MAX_CODE: usize = 64;

/// The notes of the responses of one exchange.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Notes {
    /// Enum fields with a code that the contract does not know, by path, and the code if no field beside it takes it.
    pub unknown_codes: Vec<(String, Option<String>)>,
    /// Fields that were omitted because their value could not be read, by path.
    pub dropped_fields: Vec<String>,
    /// Differences from the contract, including those two.
    pub drift: Vec<Drift>,
    /// The exchange's ids in X-Road's logs.
    pub xroad: XRoadTrace,
}

/// The ids of an exchange in X-Road's logs; empty if they are not known.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct XRoadTrace {
    /// The message id.
    pub id: String,
    /// The id that the security servers gave the request.
    pub request_id: String,
    /// The hash of the request, as base64.
    pub request_hash: String,
}

impl Notes {
    /// Notes an unknown code at a path.
    pub fn unknown_code(&mut self, path: String, code: Option<&str>) {
        self.drifted(Drift::of_field(DriftKind::UnknownCode, &path));
        let note = (path, code.filter(|code| code.len() <= MAX_CODE).map(str::to_owned));
        if self.unknown_codes.len() < MAX_NOTES && !self.unknown_codes.contains(&note) {
            self.unknown_codes.push(note);
        }
    }

    /// Notes an omitted field.
    pub fn dropped(&mut self, path: String) {
        self.drifted(Drift::of_field(DriftKind::Dropped, &path));
        if self.dropped_fields.len() < MAX_NOTES && !self.dropped_fields.contains(&path) {
            self.dropped_fields.push(path);
        }
    }

    /// Notes a difference from the contract.
    pub fn drifted(&mut self, drift: Drift) {
        if !self.is_full(drift.kind) && !self.drift.contains(&drift) {
            self.drift.push(drift);
        }
    }

    /// Returns whether there is no room for more drift of a kind.
    pub fn is_full(&self, kind: DriftKind) -> bool {
        self.drift.len() >= MAX_NOTES && self.drift.iter().filter(|drift| drift.kind == kind).count() >= MAX_NOTES
    }

    /// Returns whether there are no notes.
    pub fn is_empty(&self) -> bool {
        *self == Notes::default()
    }

    fn add(&mut self, more: Notes) {
        for (path, code) in more.unknown_codes {
            self.unknown_code(path, code.as_deref());
        }
        more.dropped_fields.into_iter().for_each(|path| self.dropped(path));
        more.drift.into_iter().for_each(|drift| self.drifted(drift));
        if more.xroad != XRoadTrace::default() {
            self.xroad = more.xroad;
        }
    }
}

/// The notes of one exchange; the reader of responses writes them, the log takes them.
#[derive(Debug, Default)]
pub struct Observed {
    notes: Mutex<Notes>,
    /// Number of its drift notes that have been counted.
    counted: AtomicUsize,
}

impl Observed {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the notes of one message.
    pub fn add(&self, notes: Notes) {
        if !notes.is_empty() {
            self.notes().add(notes);
        }
    }

    /// Returns the drift that was noted since the last call of this function, so that each counts once for an exchange.
    pub fn new_drift(&self) -> Vec<Drift> {
        let notes = self.notes();
        let before = self.counted.swap(notes.drift.len(), Ordering::Relaxed);
        notes.drift.get(before..).unwrap_or_default().to_vec()
    }

    /// Returns the notes so far.
    pub fn snapshot(&self) -> Notes {
        self.notes().clone()
    }
}

/// The path of a field, known while its message is read.
#[derive(Clone, Copy)]
pub struct PathStack<'t> {
    above: Option<&'t PathStack<'t>>,
    name: &'t str,
}

impl<'t> PathStack<'t> {
    /// Makes the path of a field below another.
    pub fn below(above: Option<&'t PathStack<'t>>, name: &'t str) -> Self {
        PathStack { above, name }
    }

    /// Returns the path in the form that grants use: `household_head.name`.
    pub fn path(&self) -> String {
        match self.above {
            Some(above) => format!("{}.{}", above.path(), self.name),
            None => self.name.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_bounded_and_each_stands_once() {
        let observed = Observed::default();
        for number in 0..100 {
            let mut notes = Notes::default();
            notes.unknown_code(format!("a.b{number}"), Some("7"));
            notes.unknown_code("a.b0".into(), Some("7"));
            notes.dropped(format!("c{}", number % 3));
            observed.add(notes);
        }
        let notes = observed.snapshot();
        assert_eq!((notes.unknown_codes.len(), notes.dropped_fields.len()), (MAX_NOTES, 3));
        let mut long = Notes::default();
        long.unknown_code("a".into(), Some(&"x".repeat(MAX_CODE + 1)));
        assert_eq!(long.unknown_codes, [("a".to_owned(), None)], "a long text is no code");
    }
}
