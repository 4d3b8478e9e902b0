//! "Did you mean": the nearest name to one that nothing has.

use crate::contract::ContractSet;
use strsim::levenshtein;

/// Largest number of letters by which a name that is suggested differs.
const MAX_DISTANCE: usize = 3;

/// Returns the name nearest to one that is not among them; `None` if none is near.
pub fn nearest<'n>(known: impl IntoIterator<Item = &'n str>, given: &str) -> Option<&'n str> {
    let nearest = known.into_iter().map(|name| (levenshtein(name, given), name)).min();
    nearest.filter(|(distance, _)| *distance <= MAX_DISTANCE).map(|(_, name)| name)
}

/// Returns what may be wrong with a value by which nothing is found: it is not among those that this program knows.
pub fn hint<'n>(what: &str, given: &str, known: impl IntoIterator<Item = &'n str> + Clone) -> Option<String> {
    if known.clone().into_iter().any(|name| name == given) {
        return None;
    }
    let hint = nearest(known, given).map(|near| format!(": did you mean {near}?")).unwrap_or_default();
    Some(format!("this program knows no {what} {given:?}{hint}"))
}

/// The same of a source, by the contracts of this program; a gateway may have others.
pub fn hint_source(given: &str) -> Option<String> {
    let contracts = ContractSet::embedded().ok()?;
    let sources = contracts.sources();
    hint("source", given, sources.iter().map(|source| source.id.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_value_is_doubted_and_a_near_one_is_named() {
        let known = ["population", "land"];
        assert_eq!(hint("source", "land", known), None);
        let near = hint("source", "popolation", known);
        assert_eq!(near.as_deref(), Some("this program knows no source \"popolation\": did you mean population?"));
        assert_eq!(
            hint("source", "moon phases", known).as_deref(),
            Some("this program knows no source \"moon phases\"")
        );
    }
}
