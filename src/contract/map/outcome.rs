//! Success or failure of an answer, as the contract tells them apart.

use super::{WirePath, lookup, scalar_text};
use crate::contract::options::{Meaning, Outcome};
use serde_json::Value;

/// What an answer's code says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A success.
    Success,
    /// A failure of this meaning, with the source's code.
    Failure(Meaning, String),
    /// No code where one is required.
    NoCode,
}

/// Reads the code and judges it.
pub fn judge(rules: &Outcome, document: &Value, place: &Value) -> Verdict {
    let code = rules.code.iter().find_map(|path| lookup(place, document, &WirePath::parse(path)).and_then(scalar_text));
    match code {
        Some(code) if rules.success.contains(&code) => Verdict::Success,
        Some(code) => Verdict::Failure(meaning_of(rules, &code).unwrap_or(Meaning::Rejected), shorten(code)),
        None if rules.absent_is_success || rules.code.is_empty() => Verdict::Success,
        None => Verdict::NoCode,
    }
}

/// What a code means, where the contract says. `Client` stands for `Client.Anything` as well, unless that is named.
pub fn meaning_of(rules: &Outcome, code: &str) -> Option<Meaning> {
    let exact = rules.failure.iter().find(|failure| failure.codes.iter().any(|known| known == code));
    let family = || {
        let head = code.split('.').next()?;
        rules.failure.iter().find(|failure| failure.codes.iter().any(|known| known == head))
    };
    exact.or_else(family).and_then(|failure| Meaning::try_from(failure.meaning).ok())
}

/// Codes are short by nature: a longer one is no code, and might hold anything.
pub fn shorten(code: String) -> String {
    let plain = code.len() <= 64 && code.chars().all(|c| c.is_ascii_alphanumeric() || "._-:".contains(c));
    if plain { code } else { "(not a code)".to_owned() }
}
