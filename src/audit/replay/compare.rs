//! One comparison of the registry's file with the log, record by record.

use super::{MAX_DIFFERENCES, RegistryDifference, Replay, TOO_LARGE, ends, hash, is_kept};
use crate::audit::AuditError;
use crate::exchange_log::reader::LogReader;
use crate::registry::admin_event::too_large;
use crate::registry::sqlite::FileRecord;
use crate::registry::{MAX_SKEW_S, ObjectChange, now};
use foldhash::HashMap;
use serde_json::Value;

/// Returns the certificate names of a record.
fn names_in(record: &str) -> impl Iterator<Item = String> {
    let value: Value = serde_json::from_str(record).unwrap_or_default();
    let names = value.get("names").and_then(Value::as_array).cloned().unwrap_or_default();
    names.into_iter().filter_map(|name| Some(name.as_str()?.to_owned()))
}

/// The owners of certificate names, by the records and by the file's own table.
#[derive(Default)]
pub(super) struct NameHolders {
    by_record: HashMap<String, String>,
    by_table: HashMap<String, String>,
}

/// A comparison in progress.
pub(super) struct Compare<'c> {
    pub(super) replay: &'c Replay,
    /// Changes that are recorded in the file and not in the log yet.
    pub(super) noted: HashMap<&'c str, &'c ObjectChange>,
    pub(super) reader: LogReader,
    pub(super) found: Vec<RegistryDifference>,
    pub(super) failed: Option<AuditError>,
    pub(super) names: NameHolders,
}

impl Compare<'_> {
    pub(super) fn push(&mut self, object: &str, field: &str, in_log: String, in_file: String) {
        if self.found.len() < MAX_DIFFERENCES {
            self.found.push(RegistryDifference { object: object.into(), field: field.into(), in_log, in_file });
        }
    }

    /// Returns the log's record, including changes on their way into it.
    fn in_log(&mut self, object: &str) -> Option<String> {
        if let Some(change) = self.noted.get(object) {
            return is_kept(object, &change.after).then(|| change.after.clone());
        }
        let last = *self.replay.objects.get(object)?;
        match Replay::text(&self.reader, &last) {
            Ok(text) => Some(text),
            Err(error) => {
                self.failed.get_or_insert(error);
                None
            }
        }
    }

    /// Compares one record; returns the object if it is one of the log's kinds.
    pub(super) fn record(&mut self, record: &FileRecord) -> Option<String> {
        match record {
            FileRecord::Complete(object, in_file) => {
                self.note_names(object, in_file);
                let same = !self.noted.contains_key(object.as_str())
                    && self.replay.objects.get(object.as_str()).is_some_and(|last| last.hash == hash(in_file));
                if !same {
                    match self.in_log(object) {
                        None => self.push(object, "", "null".into(), in_file.clone()),
                        Some(in_log) => self.fields(object, &in_log, in_file),
                    }
                }
                Some(object.clone())
            }
            FileRecord::Revoked(object, expires) => {
                let in_log = self.in_log(object);
                match in_log.as_deref().map(ends) {
                    None => self.push(object, "", "null".into(), format!("revoked, ends {expires}")),
                    Some(ends) if ends != *expires => {
                        self.push(object, "expires", ends.to_string(), expires.to_string());
                    }
                    Some(_) => {}
                }
                Some(object.clone())
            }
            FileRecord::Name(name, holder) => {
                self.names.by_table.insert(name.clone(), holder.clone());
                None
            }
            FileRecord::Shape(part, is_there) => {
                let (wanted, found) = if *is_there { ("null", part.as_str()) } else { (part.as_str(), "null") };
                self.push("registry.sqlite", "the file's own form", wanted.to_owned(), found.to_owned());
                None
            }
        }
    }

    fn note_names(&mut self, object: &str, record: &str) {
        if !object.starts_with("client:") && !object.starts_with("staff:") {
            return;
        }
        for name in names_in(record) {
            self.names.by_record.insert(name, object.to_owned());
        }
    }

    /// Finds the fields that differ. A field that an older version did not write has its default.
    pub(super) fn fields(&mut self, object: &str, in_log: &str, in_file: &str) {
        if in_log == TOO_LARGE || in_log == in_file || in_log == too_large(in_file) {
            return;
        }
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
        let (log, file) = (read(in_log), read(in_file));
        let (Some(log_fields), Some(file_fields)) = (log.as_object(), file.as_object()) else {
            return self.push(object, "", in_log.to_owned(), in_file.to_owned());
        };
        let is_default = |value: &Value| match value {
            Value::Null => true,
            Value::Bool(flag) => !flag,
            Value::Number(number) => number.as_i64() == Some(0),
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
        };
        let mut names: Vec<&String> = log_fields.keys().chain(file_fields.keys()).collect();
        names.sort();
        names.dedup();
        for name in names {
            let (one, other) = (log_fields.get(name), file_fields.get(name));
            let same = match (one, other) {
                (Some(one), Some(other)) => one == other,
                (Some(only), None) | (None, Some(only)) => is_default(only),
                (None, None) => true,
            };
            if !same {
                let text = |value: Option<&Value>| value.map_or_else(|| "null".to_owned(), Value::to_string);
                self.push(object, name, text(one), text(other));
            }
        }
    }

    /// Finds what the log has and the file does not.
    pub(super) fn missing(&mut self, seen: &HashMap<String, ()>) -> Result<(), AuditError> {
        let now = now();
        let replay = self.replay;
        for (object, last) in &replay.objects {
            // Revocations of expired tokens are removed with them; pending changes are removed at their end.
            let over = last.ends != 0 && last.ends < now - MAX_SKEW_S;
            if over || seen.contains_key(object.as_ref()) || self.noted.contains_key(object.as_ref()) {
                continue;
            }
            if self.found.len() >= MAX_DIFFERENCES {
                break;
            }
            let in_log = Replay::text(&self.reader, last)?;
            self.push(object, "", in_log, "null".into());
        }
        let noted: Vec<(&str, &ObjectChange)> = self.noted.iter().map(|(object, change)| (*object, *change)).collect();
        for (object, change) in noted {
            let ends = if object.starts_with("token:") { ends(&change.after) } else { 0 };
            let over = ends != 0 && ends < now - MAX_SKEW_S;
            if is_kept(object, &change.after) && !over && !seen.contains_key(object) {
                self.push(object, "", change.after.clone(), "null".into());
            }
        }
        Ok(())
    }

    /// Checks that the table of certificate names has those of the records, and of removed people.
    pub(super) fn names(&mut self) -> Result<(), AuditError> {
        let NameHolders { by_record, by_table } = std::mem::take(&mut self.names);
        for (name, holder) in &by_record {
            if by_table.get(name) != Some(holder) {
                let in_file = by_table.get(name).cloned().unwrap_or_else(|| "null".into());
                self.push(holder, &format!("the certificate name {name}"), holder.clone(), in_file);
            }
        }
        for (name, holder) in self.names_of_former()? {
            if by_table.get(&name) != Some(&holder) {
                let in_file = by_table.get(&name).cloned().unwrap_or_else(|| "null".into());
                self.push(&holder, &format!("the certificate name {name}"), holder.clone(), in_file);
            }
        }
        for (name, holder) in by_table {
            if !by_record.contains_key(&name) && !self.was_held(&holder, &name)? {
                self.push(&holder, &format!("the certificate name {name}"), "null".into(), holder.clone());
            }
        }
        Ok(())
    }

    /// Returns the names of removed people, with their owners: nobody else may have one of them.
    fn names_of_former(&self) -> Result<Vec<(String, String)>, AuditError> {
        let noted = self.noted.iter().filter(|(object, change)| !is_kept(object, &change.after));
        let noted = noted.map(|(object, change)| ((*object).to_owned(), change.before.clone()));
        let mut before: Vec<(String, String)> = noted.filter(|(object, _)| object.starts_with("staff:")).collect();
        for (object, last) in self.replay.former.iter().filter(|(object, _)| !self.noted.contains_key(object.as_ref()))
        {
            let change = Replay::change(&self.reader, last)?;
            before.extend(change.map(|change| (object.to_string(), change.before)));
        }
        let names = |(object, record): (String, String)| names_in(&record).map(|name| (name, object.clone())).collect();
        Ok(before.into_iter().flat_map::<Vec<_>, _>(names).collect())
    }

    /// Returns whether a name belonged to a removed person: it stays reserved. A client keeps its record.
    fn was_held(&self, holder: &str, name: &str) -> Result<bool, AuditError> {
        let before = match (self.noted.get(holder), self.replay.former.get(holder)) {
            (Some(change), _) if !is_kept(holder, &change.after) => Some(change.before.clone()),
            (None, Some(last)) => Replay::change(&self.reader, last)?.map(|change| change.before),
            _ => None,
        };
        let held = before.filter(|_| holder.starts_with("staff:"));
        Ok(held.is_some_and(|before| names_in(&before).any(|held| held == name)))
    }
}
