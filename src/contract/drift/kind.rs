//! The kinds of drift, and the policies for a response that has drifted.

use crate::contract::options;

/// A difference between a response and its contract.
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

    /// Its name in metrics, tables and reports.
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

/// What becomes of a response that has drifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum DriftPolicy {
    /// Counted only.
    Pass,
    /// Said in the log once for each path.
    #[default]
    Warn,
    /// The response is refused.
    Refuse,
}

impl DriftPolicy {
    /// Returns the policy of this name in connection entries.
    pub fn named(text: &str) -> Option<Self> {
        match text {
            "pass" => Some(DriftPolicy::Pass),
            "warn" => Some(DriftPolicy::Warn),
            "refuse" => Some(DriftPolicy::Refuse),
            _ => None,
        }
    }

    /// Its name in connection entries.
    pub fn as_str(self) -> &'static str {
        match self {
            DriftPolicy::Pass => "pass",
            DriftPolicy::Warn => "warn",
            DriftPolicy::Refuse => "refuse",
        }
    }

    /// Returns the policy of a contract; `None` if it has none.
    pub fn of(said: options::DriftPolicy) -> Option<Self> {
        match said {
            options::DriftPolicy::Unspecified => None,
            options::DriftPolicy::Pass => Some(DriftPolicy::Pass),
            options::DriftPolicy::Warn => Some(DriftPolicy::Warn),
            options::DriftPolicy::Refuse => Some(DriftPolicy::Refuse),
        }
    }
}

/// One thing that was noticed in a response. Names of the contract's, and folded ones of the source's: never a value.
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
}
