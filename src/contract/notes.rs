//! What is noticed while a response is read: codes that the contract does not know, fields that were left out. Paths, and of unknown
//! codes their text, which is the caller's alone.

use super::drift::{Drift, DriftKind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most notes of each kind that one exchange has: more help nobody, and metadata is bounded.
pub const MAX_NOTES: usize = 20;
/// Longest unknown code that is handed on, in bytes.
const MAX_CODE: usize = 64;

/// What was noticed in the responses of one exchange.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Notes {
    /// Enum fields with a code that the contract does not know, by path, and the code where no field beside takes it.
    pub unknown_codes: Vec<(String, Option<String>)>,
    /// Fields that were left out because their value could not be read, by path.
    pub dropped_fields: Vec<String>,
    /// What is not as the contract says, those two included.
    pub drift: Vec<Drift>,
    /// What X-Road's logs know the exchange by.
    pub xroad: XRoadTrace,
}

/// What X-Road's logs know an exchange by; empty where it is not known.
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
    /// An unknown code at a path.
    pub fn unknown_code(&mut self, path: String, code: Option<&str>) {
        self.drifted(Drift::of_field(DriftKind::UnknownCode, &path));
        let note = (path, code.filter(|code| code.len() <= MAX_CODE).map(str::to_owned));
        if self.unknown_codes.len() < MAX_NOTES && !self.unknown_codes.contains(&note) {
            self.unknown_codes.push(note);
        }
    }

    /// A field that was left out.
    pub fn dropped(&mut self, path: String) {
        self.drifted(Drift::of_field(DriftKind::Dropped, &path));
        if self.dropped_fields.len() < MAX_NOTES && !self.dropped_fields.contains(&path) {
            self.dropped_fields.push(path);
        }
    }

    /// Something that is not as the contract says.
    pub fn drifted(&mut self, drift: Drift) {
        if !self.is_full(drift.kind) && !self.drift.contains(&drift) {
            self.drift.push(drift);
        }
    }

    /// Whether there is no room for more drift of a kind.
    pub fn is_full(&self, kind: DriftKind) -> bool {
        self.drift.len() >= MAX_NOTES && self.drift.iter().filter(|drift| drift.kind == kind).count() >= MAX_NOTES
    }

    /// Whether nothing was noticed.
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

/// The notes of one exchange, written where answers are read and taken by who logs it.
#[derive(Debug, Default)]
pub struct Observed {
    notes: Mutex<Notes>,
    /// How much of its drift has been counted.
    counted: AtomicUsize,
}

impl Observed {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what was noticed in one message.
    pub fn add(&self, notes: Notes) {
        if !notes.is_empty() {
            self.notes().add(notes);
        }
    }

    /// What drift was noticed since this was called last, so that each counts once for an exchange.
    pub fn new_drift(&self) -> Vec<Drift> {
        let notes = self.notes();
        let before = self.counted.swap(notes.drift.len(), Ordering::Relaxed);
        notes.drift.get(before..).unwrap_or_default().to_vec()
    }

    /// What was noticed so far.
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
    /// A field below another.
    pub fn below(above: Option<&'t PathStack<'t>>, name: &'t str) -> Self {
        PathStack { above, name }
    }

    /// As grants name it: `household_head.name`.
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
