//! Drift: where a source's answer is not of the shape that its contract describes, though it may well be read.
//!
//! An operation's [`Shape`] is worked out once, when its contract loads: every name at the source that the contract reads, or knows and
//! ignores. An answer is held against it in one walk that looks each name up once, and allocates nothing while all is as described. What
//! is noticed has a path, a kind and two words of types, never a value: see [`name`].

mod grpc;
mod name;
mod shape;
#[cfg(test)]
mod tests;
mod walk;

pub use grpc::MessageShape;
pub use shape::{Shape, ShapeFault};

use super::operation::Operation;
use super::options;
use super::plan::{FieldKind, MessagePlan};

/// Longest path that is kept, in bytes.
pub const MAX_PATH: usize = 200;

/// What of an answer is not as its contract says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DriftKind {
    /// A member, an element or a field that the contract neither reads nor ignores.
    Added,
    /// A name that is not there, though the contract expects it.
    Missing,
    /// Another type than the contract's.
    Retyped,
    /// A code that the contract does not know.
    UnknownCode,
    /// A value that could not be read, and was left out.
    Dropped,
}

impl DriftKind {
    /// All of them.
    pub const ALL: [DriftKind; 5] =
        [DriftKind::Added, DriftKind::Missing, DriftKind::Retyped, DriftKind::UnknownCode, DriftKind::Dropped];

    /// As it stands in metrics, tables and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            DriftKind::Added => "added",
            DriftKind::Missing => "missing",
            DriftKind::Retyped => "retyped",
            DriftKind::UnknownCode => "unknown_code",
            DriftKind::Dropped => "dropped",
        }
    }

    /// The kind of this name.
    pub fn named(text: &str) -> Option<Self> {
        DriftKind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// What becomes of an answer that has drifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum DriftPolicy {
    /// Counted only.
    Pass,
    /// Said in the log once for each path.
    #[default]
    Warn,
    /// The answer is refused.
    Refuse,
}

impl DriftPolicy {
    /// The policy of this name, as connection entries have it.
    pub fn named(text: &str) -> Option<Self> {
        match text {
            "pass" => Some(DriftPolicy::Pass),
            "warn" => Some(DriftPolicy::Warn),
            "refuse" => Some(DriftPolicy::Refuse),
            _ => None,
        }
    }

    /// As connection entries have it.
    pub fn as_str(self) -> &'static str {
        match self {
            DriftPolicy::Pass => "pass",
            DriftPolicy::Warn => "warn",
            DriftPolicy::Refuse => "refuse",
        }
    }

    /// As a contract says it; `None` where it says nothing.
    pub fn of(said: options::DriftPolicy) -> Option<Self> {
        match said {
            options::DriftPolicy::Unspecified => None,
            options::DriftPolicy::Pass => Some(DriftPolicy::Pass),
            options::DriftPolicy::Warn => Some(DriftPolicy::Warn),
            options::DriftPolicy::Refuse => Some(DriftPolicy::Refuse),
        }
    }
}

/// One thing that was noticed in an answer. Names of the contract's, and folded ones of the source's: never a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// What it is.
    pub kind: DriftKind,
    /// The contract's field that it concerns, or within whose document it stands; empty where there is none.
    pub field: String,
    /// Path at the source: from the root, or from the field's document.
    pub path: String,
    /// What the contract describes ("text"); empty where that says nothing.
    pub described: &'static str,
    /// What came; empty where that says nothing.
    pub found: &'static str,
}

impl Drift {
    /// Drift of a field of the contract's.
    pub fn of_field(kind: DriftKind, field: &str) -> Self {
        Drift { kind, field: field.to_owned(), path: String::new(), described: "", found: "" }
    }

    /// Its path at the source, from the document's root.
    pub fn source_path(&self, operation: &Operation) -> String {
        let mut path = if self.field.is_empty() { String::new() } else { wire_path(operation, &self.field) };
        if !path.is_empty() && !self.path.is_empty() {
            path.push('/');
        }
        path.push_str(&self.path);
        bounded(path)
    }
}

/// A path of at most [`MAX_PATH`] bytes.
fn bounded(mut path: String) -> String {
    if path.len() > MAX_PATH {
        let end = (0..=MAX_PATH - 1).rev().find(|at| path.is_char_boundary(*at)).unwrap_or(0);
        path.truncate(end);
        path.push('*');
    }
    path
}

/// Where a field of an answer (`household_head.gender`) stands at the source.
fn wire_path(operation: &Operation, field: &str) -> String {
    let mut parts: Vec<&str> = operation.answer_root.first().into_iter().flatten().map(String::as_str).collect();
    let mut plan: Option<&MessagePlan> = Some(&operation.answer);
    for name in field.split('.') {
        let Some(found) = plan.and_then(|plan| plan.field(name)) else {
            parts.push(name);
            continue;
        };
        if let Some(first) = found.names.first() {
            if first.absolute {
                parts.clear();
            }
            parts.extend(first.parts.iter().map(String::as_str));
        }
        parts.extend(found.item.as_deref());
        plan = if let FieldKind::Message(inner) = &found.kind { Some(inner) } else { None };
    }
    parts.join("/")
}
