//! Takes the keys that a configuration's reader asks for, in place of reading a file.

use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Keys by their full names.
pub(super) type RecordedKeys = BTreeMap<String, RecordedKey>;

/// Takes keys.
#[derive(Debug, Default)]
pub(super) struct KeyRecorder(RefCell<RecordedKeys>);

/// The schema of one key.
#[derive(Debug)]
pub(super) struct RecordedKey {
    /// Its JSON Schema.
    pub schema: Value,
    /// Whether it must be given.
    pub needed: bool,
}

impl KeyRecorder {
    /// Takes a key; what was taken of it first stays.
    pub fn take(&self, key: String, schema: Value) {
        self.0.borrow_mut().entry(key).or_insert(RecordedKey { schema, needed: false });
    }

    /// Marks a key that must be given.
    pub fn require(&self, key: &str) {
        if let Some(recorded) = self.0.borrow_mut().get_mut(key) {
            recorded.needed = true;
        }
    }

    /// Returns the keys.
    pub fn finish(self) -> RecordedKeys {
        self.0.into_inner()
    }
}
