//! The terms of entries: each is 64 bits of a hash. A collision costs only the read of an entry that does not match:
//! every candidate is compared with the query.

use super::super::query::outcome;
use crate::exchange_log::Entry;
use aws_lc_rs::digest::{Context, SHA256};

fn term(kind: u8, text: &[u8]) -> u64 {
    let mut context = Context::new(&SHA256);
    context.update(&[kind]);
    context.update(text);
    let mut bits = [0; 8];
    bits.copy_from_slice(&context.finish().as_ref()[..8]);
    u64::from_be_bytes(bits)
}

/// A client.
pub fn client(text: &str) -> u64 {
    term(1, text.as_bytes())
}

/// An agency, or one above it.
pub fn agency(text: &str) -> u64 {
    term(2, text.as_bytes())
}

/// A source.
pub fn source(text: &str) -> u64 {
    term(3, text.as_bytes())
}

/// An operation's full name.
pub fn operation(text: &str) -> u64 {
    term(4, text.as_bytes())
}

/// A scope.
pub fn scope(text: &str) -> u64 {
    term(5, text.as_bytes())
}

/// A purpose.
pub fn purpose(text: &str) -> u64 {
    term(6, text.as_bytes())
}

/// `OK`, or a reason.
pub fn ended(text: &str) -> u64 {
    term(7, text.as_bytes())
}

/// A subject of a request or a response, by pseudonym.
pub fn subject(pseudonym: &[u8]) -> u64 {
    term(8, pseudonym)
}

/// The acting official, by pseudonym.
pub fn official(pseudonym: &[u8]) -> u64 {
    term(9, pseudonym)
}

/// An exchange's id.
pub fn exchange(id: &[u8]) -> u64 {
    term(10, id)
}

/// An admin event.
pub fn event(text: &str) -> u64 {
    term(11, text.as_bytes())
}

/// The grant that admitted an exchange.
pub fn grant(text: &str) -> u64 {
    term(12, text.as_bytes())
}

/// An access token, by its id.
pub fn token(text: &str) -> u64 {
    term(13, text.as_bytes())
}

/// Returns the agency and those above it, by the rule of [`is_within`](crate::contract::formats::is_within).
fn agencies(code: &str) -> impl Iterator<Item = &str> {
    code.match_indices('.').map(|(at, _)| &code[..at]).chain([code])
}

/// Adds all terms of an entry. Empty texts are skipped unless a query may name them.
pub fn of(entry: &Entry, terms: &mut Vec<u64>) {
    terms.extend([client(&entry.client), source(&entry.source), scope(&entry.scope), purpose(&entry.purpose)]);
    terms.extend([operation(&entry.operation), ended(outcome(entry)), exchange(&entry.exchange_id)]);
    terms.extend(agencies(&entry.agency).map(agency));
    terms.extend(entry.subjects.iter().chain(&entry.response_subjects).map(|one| subject(&one.value)));
    terms.extend(entry.official.iter().map(|one| official(&one.value)));
    // Few entries have these, and no query is for those without.
    let given = |text: &str, term: fn(&str) -> u64| (!text.is_empty()).then(|| term(text));
    terms.extend(
        [given(&entry.event, event), given(&entry.grant, grant), given(&entry.token, token)].into_iter().flatten(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_found_by_each_agency_above_its_own() {
        assert_eq!(agencies("H49.12.3").collect::<Vec<_>>(), ["H49", "H49.12", "H49.12.3"]);
        assert_eq!(agencies("").collect::<Vec<_>>(), [""]);
        assert_ne!(client("a"), source("a"));
    }
}
