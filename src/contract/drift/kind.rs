//! The kinds of drift, and the policies for a response that has drifted.

use crate::contract::options;

/// A difference between a response and its contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DriftKind {
    /// A member, an element or a field that the contract neither reads nor ignores.
    Added,
    /// A name that is not present, though the contract expects it.
    Missing,
    /// Another type than the contract's.
    Retyped,
    /// A code that the contract does not know.
    UnknownCode,
    /// A value that could not be read, and was omitted.
    Dropped,
}

impl DriftKind {
    /// All of them.
    pub const ALL: [DriftKind; 5] =
        [DriftKind::Added, DriftKind::Missing, DriftKind::Retyped, DriftKind::UnknownCode, DriftKind::Dropped];

    /// Returns its name in metrics, tables and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            DriftKind::Added => "added",
            DriftKind::Missing => "missing",
            DriftKind::Retyped => "retyped",
            DriftKind::UnknownCode => "unknown_code",
            DriftKind::Dropped => "dropped",
        }
    }

    /// Returns the kind of this name.
    pub fn named(text: &str) -> Option<Self> {
        DriftKind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// The policy for a response with drift.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum DriftPolicy {
    /// Counted only.
    Pass,
    /// Logged once for each path.
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

    /// Returns its name in connection entries.
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

/// One difference that was noticed in a response. Names of the contract, and folded names of the source: never a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// The kind of difference.
    pub kind: DriftKind,
    /// The contract's field that it concerns, or that contains its document; empty if there is none.
    pub field: String,
    /// Path at the source: from the root, or from the field's document.
    pub path: String,
    /// The type that the contract describes ("text"); empty if it is irrelevant.
    pub described: &'static str,
    /// The type that was received; empty if it is irrelevant.
    pub found: &'static str,
}

impl Drift {
    /// Makes the drift of a field of the contract.
    pub fn of_field(kind: DriftKind, field: &str) -> Self {
        Drift { kind, field: field.to_owned(), path: String::new(), described: "", found: "" }
    }
}
