//! Reads TOML, and reports all faults together, with file, line and what to do.

use super::recorder::{KeyRecorder, RecordedKeys};
use crate::drivers::credentials::Secret;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use strsim::levenshtein;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Keys that earlier versions had by another name, and their names now: the refusal of an old one names the new one.
const RENAMED: [(&str, &str); 3] =
    [("ops", "operator_http"), ("max_answer_bytes", "max_response_bytes"), ("least", "min_concurrency")];

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}{}: {reason}", if *line > 0 { format!(":{line}") } else { String::new() })]
pub struct ConfigFault {
    /// Which file.
    pub file: String,
    /// Line, from 1; 0 where the file as a whole is meant.
    pub line: usize,
    /// What is wrong and what to do.
    pub reason: String,
}

/// A file being read, and what was found wrong with it so far.
pub struct Document {
    file: PathBuf,
    text: String,
    faults: RefCell<Vec<ConfigFault>>,
    named: RefCell<Vec<PathBuf>>,
    /// Secrets that every account may read: the gateway works with them, and `config check` refuses them.
    exposed: RefCell<Vec<ConfigFault>>,
    /// Takes the keys that are asked for, in place of reading them.
    recorder: Option<KeyRecorder>,
}

impl Document {
    /// Reads a file's text.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn open(file: &Path) -> Result<Self, ConfigFault> {
        let text = std::fs::read_to_string(file).map_err(|error| ConfigFault {
            file: file.display().to_string(),
            line: 0,
            reason: match error.kind() {
                ErrorKind::InvalidData => "is not UTF-8: save it as UTF-8".to_owned(),
                _ => format!("cannot be read: {error}: name another file, or run in its folder"),
            },
        })?;
        Ok(Document::of(file, text, None))
    }

    fn of(file: &Path, text: String, recorder: Option<KeyRecorder>) -> Self {
        let (faults, named, exposed) = Default::default();
        Document { file: file.to_owned(), text, faults, named, exposed, recorder }
    }

    /// Returns the keys that `read` asks a file for. Each that must be given has the value of its example.
    pub(super) fn recorded<T>(file: &Path, read: impl FnOnce(&Path, &Table<'_>) -> Option<T>) -> RecordedKeys {
        let document = Document::of(file, String::new(), Some(KeyRecorder::default()));
        let root = DeTable::new();
        // What its examples lack does not matter: no file is there.
        let _ = read(file, &Table::new(&document, &root, String::new(), 0));
        document.recorder.unwrap_or_default().finish()
    }

    /// Reads the file's table with `read`.
    ///
    /// # Errors
    /// All faults together, with their lines.
    pub fn read<T>(&self, read: impl FnOnce(&Table<'_>) -> Option<T>) -> Result<T, Vec<ConfigFault>> {
        let (root, errors) = DeTable::parse_recoverable(&self.text);
        for error in &errors {
            self.report(error.span().map_or(0, |span| span.start), error.message());
        }
        if !errors.is_empty() {
            return Err(self.faults.take());
        }
        let table = Table::new(self, root.get_ref(), String::new(), 0);
        let value = read(&table);
        table.refuse_unknown();
        match (value, self.faults.take()) {
            (Some(value), faults) if faults.is_empty() => Ok(value),
            (_, faults) => Err(faults),
        }
    }

    fn report(&self, offset: usize, reason: impl Into<String>) {
        self.faults.borrow_mut().push(self.fault_at(offset, reason));
    }

    fn fault_at(&self, offset: usize, reason: impl Into<String>) -> ConfigFault {
        let line = self.text.get(..offset).unwrap_or(&self.text).matches('\n').count() + 1;
        ConfigFault { file: self.file.display().to_string(), line, reason: reason.into() }
    }

    /// The secrets that every account may read, as far as it was read.
    pub fn exposed(&self) -> Vec<ConfigFault> {
        self.exposed.borrow().clone()
    }

    /// The files that it named, as far as it was read.
    pub fn named(&self) -> Vec<PathBuf> {
        self.named.borrow().clone()
    }

    fn resolve(&self, path: &str) -> PathBuf {
        let path = self.file.parent().unwrap_or(Path::new(".")).join(path);
        self.named.borrow_mut().push(path.clone());
        path
    }
}

/// Returns a fault at a key of a file (`listen.https`) that was found after the file had been read.
pub fn fault_at(file: &Path, key: &str, reason: impl std::fmt::Display) -> ConfigFault {
    let nowhere = || ConfigFault { file: file.display().to_string(), line: 0, reason: format!("{key}: {reason}") };
    let Ok(document) = Document::open(file) else { return nowhere() };
    let (root, _) = DeTable::parse_recoverable(&document.text);
    let mut table = Table::new(&document, root.get_ref(), String::new(), 0);
    let mut parts = key.split('.').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            table.fault(part, &reason);
        } else if let Some(below) = table.table(part) {
            table = below;
        }
    }
    document.faults.take().pop().unwrap_or_else(nowhere)
}

/// A table of a file. Each getter marks its key as known; other keys are refused.
pub struct Table<'d> {
    document: &'d Document,
    table: &'d DeTable<'d>,
    name: String,
    at: usize,
    known: RefCell<BTreeSet<String>>,
}

impl<'d> Table<'d> {
    fn new(document: &'d Document, table: &'d DeTable<'d>, name: String, at: usize) -> Self {
        Table { document, table, name, at, known: RefCell::default() }
    }

    fn get(&self, key: &str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.known.borrow_mut().insert(key.to_owned());
        self.table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    /// Takes a key's schema, if keys are recorded; returns whether they are.
    fn records(&self, key: &str, schema: impl FnOnce() -> Value) -> bool {
        let Some(recorder) = &self.document.recorder else { return false };
        recorder.take(self.full(key), schema());
        true
    }

    fn full(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// Tells a fault at a key, or at the table where the key is missing.
    pub fn fault(&self, key: &str, reason: impl std::fmt::Display) {
        let at = self.get(key).map_or(self.at, |value| value.span().start);
        self.document.report(at, format!("{}: {reason}", self.full(key)));
    }

    fn typed<T>(&self, key: &str, what: &str, read: impl FnOnce(&'d Spanned<DeValue<'d>>) -> Option<T>) -> Option<T> {
        let value = self.get(key)?;
        let read = read(value);
        if read.is_none() {
            self.fault(key, format!("must be {what}"));
        }
        read
    }

    /// Whether a key is given. Where keys are recorded, each is: what depends on it is recorded, too.
    pub fn has(&self, key: &str) -> bool {
        self.document.recorder.is_some() || self.get(key).is_some()
    }

    /// A text, where given.
    pub fn text(&self, key: &str) -> Option<String> {
        if self.records(key, || json!({ "type": "string" })) {
            return None;
        }
        self.typed(key, "a text in quotes", |value| value.get_ref().as_str().map(str::to_owned))
    }

    /// A text that must be given, as in `example`.
    pub fn needed(&self, key: &str, example: &str) -> Option<String> {
        if self.records(key, || json!({ "type": "string", "examples": [example] })) {
            self.document.recorder.iter().for_each(|recorder| recorder.require(&self.full(key)));
            return Some(example.to_owned());
        }
        if self.get(key).is_none() {
            self.fault(key, format!("is missing: add {key} = {example:?}"));
        }
        let text = self.text(key)?;
        if text.trim().is_empty() {
            self.fault(key, format!("is empty: write {key} = {example:?}"));
            return None;
        }
        Some(text)
    }

    /// A text that must be given and parse.
    pub fn parsed<T>(&self, key: &str, example: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.needed(key, example)?;
        parse(&text).map_err(|reason| self.fault(key, reason)).ok()
    }

    /// A whole number within bounds, or its default.
    pub fn number(&self, key: &str, default: u64, bounds: RangeInclusive<u64>) -> u64 {
        let (min, max) = (bounds.start(), bounds.end());
        if self.records(key, || json!({ "type": "integer", "minimum": min, "maximum": max, "default": default })) {
            return default;
        }
        let what = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        let read = |value: &Spanned<DeValue<'_>>| {
            let digits: String = value.get_ref().as_integer()?.as_str().chars().filter(|c| *c != '_').collect();
            digits.parse().ok().filter(|number| bounds.contains(number))
        };
        self.typed(key, &what, read).unwrap_or(default)
    }

    /// Yes or no, or its default.
    pub fn flag(&self, key: &str, default: bool) -> bool {
        if self.records(key, || json!({ "type": "boolean", "default": default })) {
            return default;
        }
        self.typed(key, "true or false", |value| value.get_ref().as_bool()).unwrap_or(default)
    }

    /// A list of texts; empty where not given.
    pub fn texts(&self, key: &str) -> Vec<String> {
        if self.records(key, || json!({ "type": "array", "items": { "type": "string" } })) {
            return Vec::new();
        }
        let read = |value: &Spanned<DeValue<'_>>| {
            value.get_ref().as_array()?.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect()
        };
        self.typed(key, "a list of texts", read).unwrap_or_default()
    }

    /// One text, or a list of them, that must be given.
    pub fn text_or_texts(&self, key: &str, example: &str) -> Option<Vec<String>> {
        let list = || json!({ "type": "array", "items": { "type": "string" } });
        if self.records(key, || json!({ "oneOf": [{ "type": "string" }, list()], "examples": [example] })) {
            return Some(vec![example.to_owned()]);
        }
        match self.get(key) {
            Some(value) if value.get_ref().as_array().is_some() => Some(self.texts(key)),
            _ => self.needed(key, example).map(|text| vec![text]),
        }
    }

    /// A path, from the file's own folder.
    pub fn path(&self, key: &str) -> Option<PathBuf> {
        self.text(key).map(|text| self.document.resolve(&text))
    }

    /// A path that must be given.
    pub fn needed_path(&self, key: &str, example: &str) -> Option<PathBuf> {
        self.needed(key, example).map(|text| self.document.resolve(&text))
    }

    /// One path, or a list of them, from the file's own folder; empty where not given.
    pub fn path_or_paths(&self, key: &str, example: &str) -> Vec<PathBuf> {
        let texts = if self.has(key) { self.text_or_texts(key, example) } else { None };
        texts.unwrap_or_default().iter().map(|text| self.document.resolve(text)).collect()
    }

    /// Notes a file with a secret if every account may read it. A group may: volumes of Kubernetes have one (`fsGroup`).
    pub fn keep_private(&self, key: &str, file: &Path) {
        let is_open = std::fs::metadata(file).is_ok_and(|found| found.permissions().mode() & 0o007 != 0);
        if is_open {
            let at = self.get(key).map_or(self.at, |value| value.span().start);
            let reason = format!("{}: {}: every account may read it: chmod 600", self.full(key), file.display());
            self.document.exposed.borrow_mut().push(self.document.fault_at(at, reason));
        }
    }

    /// A table below this one, where given.
    pub fn table(&self, key: &str) -> Option<Table<'d>> {
        if self.records(key, || json!({ "type": "object", "additionalProperties": false })) {
            return Some(Table::new(self.document, self.table, self.full(key), 0));
        }
        let value = self.get(key)?;
        let Some(table) = value.get_ref().as_table() else {
            self.fault(key, "must be a table");
            return None;
        };
        Some(Table::new(self.document, table, self.full(key), value.span().start))
    }

    /// Reads a table below this one, and refuses what it does not know; an empty one stands in where none is given.
    pub fn section<T>(&self, key: &str, read: impl FnOnce(&Table<'_>) -> T) -> T {
        let empty = DeTable::new();
        match self.table(key) {
            Some(table) => {
                let value = read(&table);
                table.refuse_unknown();
                value
            }
            None => read(&Table::new(self.document, &empty, self.full(key), self.at)),
        }
    }

    /// The names in this table, all of them known from now on.
    pub fn keys(&self) -> Vec<String> {
        let keys: Vec<String> = self.table.iter().map(|(name, _)| name.get_ref().to_string()).collect();
        self.known.borrow_mut().extend(keys.iter().cloned());
        keys
    }

    /// A secret, from a file or the environment. In the file itself it is refused: configuration is copied about.
    pub fn secret(&self, key: &str) -> Option<Secret> {
        let source = |name: &str| json!({ "type": "object", "properties": { name: { "type": "string" } }, "required": [name], "additionalProperties": false });
        if self.records(key, || json!({ "oneOf": [source("file"), source("env")] })) {
            return Some(Secret::new("0".repeat(64)));
        }
        let Some(value) = self.get(key) else {
            self.fault(key, format!("is missing: add {key} = {{ file = \"…\" }} or {{ env = \"…\" }}"));
            return None;
        };
        if value.get_ref().as_table().is_none() {
            self.fault(key, "a secret is never in the file: write { file = \"…\" } or { env = \"…\" }");
            return None;
        }
        self.section(key, |table| {
            let read = match (table.path("file"), table.text("env")) {
                (Some(file), None) => {
                    self.keep_private(key, &file);
                    std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))
                }
                (None, Some(name)) => std::env::var(&name).map_err(|_| format!("the environment has no {name}")),
                _ => Err("must have either file or env".to_owned()),
            };
            match read {
                Ok(text) if text.trim().contains(char::is_control) => {
                    self.fault(key, "must be one line, without control characters");
                    None
                }
                Ok(text) if !text.trim().is_empty() => Some(Secret::new(text.trim())),
                Ok(_) => {
                    self.fault(key, "is empty");
                    None
                }
                Err(reason) => {
                    self.fault(key, reason);
                    None
                }
            }
        })
    }

    /// A text, which may be a secret from a file or the environment.
    pub fn text_or_secret(&self, key: &str) -> Option<String> {
        if self.get(key).is_some_and(|value| value.get_ref().as_table().is_some()) {
            return self.secret(key).map(|secret| secret.reveal().to_owned());
        }
        self.text(key)
    }

    /// Reports every key of the table that no getter has read.
    pub fn refuse_unknown(&self) {
        let known = self.known.borrow();
        for (name, _) in self.table.iter().filter(|(name, _)| !known.contains(name.get_ref().as_ref())) {
            let near = known.iter().min_by_key(|known| levenshtein(known, name.get_ref()));
            let renamed = RENAMED.iter().find(|(old, new)| old == name.get_ref() && known.contains(*new));
            let hint = match (renamed, near.filter(|near| levenshtein(near, name.get_ref()) <= 2)) {
                (Some((_, new)), _) => format!("it is called {new} now"),
                (None, Some(near)) => format!("did you mean {near}?"),
                (None, None) => format!("known here: {}", known.iter().cloned().collect::<Vec<_>>().join(", ")),
            };
            self.document.report(name.span().start, format!("{}: is not known; {hint}", self.full(name.get_ref())));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn everything_wrong_is_told_at_once_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.toml");
        std::fs::write(&file, "nmae = \"x\"\nport = 70_000\n\n[tls]\nkey = 3\nsecret = \"inline\"\n").unwrap();
        let document = Document::open(&file).unwrap();
        let faults = document
            .read(|table| {
                table.needed("name", "qn-dc1");
                table.number("port", 1, 1..=65_535);
                table.section("tls", |tls| {
                    tls.text("key");
                    tls.secret("secret");
                });
                Some(())
            })
            .unwrap_err();
        let lines: Vec<usize> = faults.iter().map(|fault| fault.line).collect();
        assert_eq!(lines, [1, 2, 5, 6, 1], "{faults:#?}");
        assert!(faults.iter().any(|fault| fault.reason.contains("did you mean name?")), "{faults:#?}");
    }

    #[test]
    fn a_key_of_an_earlier_version_is_refused_with_its_name_now() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.toml");
        std::fs::write(&file, "ops = \"127.0.0.1:1\"\n[guard]\nleast = 4\nops = 1\n").unwrap();
        let read = |table: &Table<'_>| {
            table.text("operator_http");
            table.section("guard", |guard| guard.number("min_concurrency", 4, 1..=9));
            Some(())
        };
        let faults = Document::open(&file).unwrap().read(read).unwrap_err();
        let reasons: Vec<&str> = faults.iter().map(|fault| fault.reason.as_str()).collect();
        let now = |key: &str| reasons.iter().find(|reason| reason.starts_with(key)).unwrap().contains("it is called");
        assert!(now("ops: ") && now("guard.least: "), "{reasons:?}");
        // Not where the new key is not known either.
        assert!(!now("guard.ops: "), "{reasons:?}");
    }
}
