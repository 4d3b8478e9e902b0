//! What administrators and callers were promised.

use crate::cluster::ClusterError;
use crate::runtime::Machine;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What somebody was told of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Nothing yet, or that its outcome is unknown.
    Unknown,
    /// That it counts.
    Made,
    /// That it does not.
    Refused,
}

/// Everything that has left a process.
#[derive(Default)]
pub struct Promises {
    /// What was said of each change, by its tag.
    pub answers: BTreeMap<String, Answer>,
    /// Revoked tokens, and when that was acknowledged.
    pub revoked: Vec<(String, Duration)>,
    /// Tokens that were handed out.
    pub issued: BTreeSet<String>,
    /// Changes that were judged again because another one was first.
    pub superseded: u64,
    /// Calls that were refused because the view was too old.
    pub stale: u64,
    /// Gateways that have stopped by themselves.
    pub stops: Vec<(Machine, ClusterError)>,
    /// What must never happen.
    pub violation: Option<String>,
}

impl Promises {
    /// Remembers the first violation.
    pub fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    /// Compares the answers with the changes that count, each by its tag, in their order.
    pub fn check(&self, made: &[String]) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        for tag in made {
            if !seen.insert(tag) {
                return Err(format!("{tag} was made twice"));
            }
            match self.answers.get(tag) {
                Some(Answer::Refused) => return Err(format!("{tag} was refused, and counts")),
                None => return Err(format!("{tag} was made by nobody")),
                Some(Answer::Made | Answer::Unknown) => {}
            }
        }
        let lost = self.answers.iter().find(|(tag, answer)| **answer == Answer::Made && !seen.contains(tag));
        lost.map_or(Ok(()), |(tag, _)| Err(format!("{tag} was acknowledged and does not count")))
    }
}
