//! Pending changes: a change that grants a right is requested by one person and approved by another.

use super::{Actor, Client, Grant, Network, Role, Staff};
use serde::Serialize;
use serde_json::Value;

/// How long a change waits before it expires, in seconds: a week.
pub const PENDING_S: i64 = 7 * 86_400;
/// Maximum number of pending changes in all.
pub const MAX_PENDING: i64 = 1_000;
/// Maximum number of pending changes of one requester.
pub const MAX_PENDING_OF_ONE: i64 = 50;

/// A change that waits for approval by another person than its requester. It is bound to the state in which it was requested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PendingChange {
    /// Id, `c-…`; in order of age.
    pub id: String,
    /// The requested event: `client.change`, `client.resume`, `grant.change`, `staff.add` or `staff.change`.
    #[serde(rename = "act")]
    pub event: String,
    /// The object, as `kind:id`.
    pub object: String,
    /// The complete record at the request; null: there was none.
    pub before: Value,
    /// The complete record after the change.
    pub after: Value,
    /// The requester.
    pub requested_by: String,
    /// The requester with certificate and address; none if it cannot be read: then the change cannot be approved.
    pub requester: Option<Actor>,
    /// The requester's justification.
    pub justification: String,
    /// When it was requested, Unix time in seconds.
    pub requested: i64,
    /// When it expires.
    pub ends: i64,
}

/// The outcome of a requested change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeOutcome {
    /// It is made.
    Done,
    /// It waits for a second person.
    PendingApproval(Box<PendingChange>),
}

/// Returns whether a client would get a new certificate name, or call in another agency's name: sources and the log know it by that.
pub fn client_widens(before: &Client, after: &Client) -> bool {
    after.agency != before.agency || after.names.iter().any(|name| !before.names.contains(name))
}

/// Returns whether a person would get a new role or certificate name.
pub fn staff_widens(before: &Staff, after: &Staff) -> bool {
    let role = |role: &Role| !before.roles.contains(role);
    after.roles.iter().any(role) || after.names.iter().any(|name| !before.names.contains(name))
}

/// Returns whether a changed grant would allow anything new. Purposes and fields are compared as text: one that a wider
/// one covers in another form counts as new, and needs a review.
pub fn grant_widens(before: &Grant, after: &Grant) -> bool {
    let more = |before: &[String], after: &[String]| {
        after.iter().any(|one| !before.contains(one) && !before.iter().any(|all| all == "*"))
    };
    let within = |network: &Network| before.networks.iter().any(|wider| wider.contains(network));
    let networks = !before.networks.is_empty() && (after.networks.is_empty() || !after.networks.iter().all(within));
    let quota = before.daily_quota != 0 && (after.daily_quota == 0 || after.daily_quota > before.daily_quota);
    more(&before.scopes, &after.scopes)
        || more(&before.purposes, &after.purposes)
        || more(&before.fields, &after.fields)
        || networks
        || quota
        || after.rate > before.rate
        || after.burst > before.burst
        || after.not_before < before.not_before
        || after.not_after > before.not_after
        // The approval was based on it.
        || after.legal_basis != before.legal_basis
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn t3_what_a_change_widens_is_known_from_what_it_takes_away() {
        let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let networks = |all: &[&str]| all.iter().map(|text| Network::parse(text).unwrap()).collect::<Vec<_>>();
        let before = Grant {
            scopes: texts(&["a:read", "b:read"]),
            purposes: texts(&["procedure:1"]),
            fields: texts(&["name", "birth"]),
            networks: networks(&["10.20.0.0/16"]),
            rate: 10,
            burst: 10,
            daily_quota: 100,
            not_before: 100,
            not_after: 200,
            ..Grant::default()
        };
        type Change<'c> = &'c dyn Fn(&mut Grant);
        let wider: &[Change<'_>] = &[
            &|grant| grant.scopes.push("c:read".into()),
            &|grant| grant.purposes = texts(&["*"]),
            &|grant| grant.fields = texts(&["name", "*"]),
            &|grant| grant.networks.clear(),
            &|grant| grant.networks = networks(&["10.20.0.0/15"]),
            &|grant| grant.networks = networks(&["10.20.1.0/24", "10.21.0.1"]),
            &|grant| grant.rate += 1,
            &|grant| grant.burst += 1,
            &|grant| grant.daily_quota = 0,
            &|grant| grant.daily_quota += 1,
            &|grant| grant.not_before -= 1,
            &|grant| grant.not_after += 1,
            &|grant| grant.legal_basis = "another".into(),
        ];
        let narrower: &[Change<'_>] = &[
            &|_| {},
            &|grant| drop(grant.scopes.pop()),
            &|grant| grant.purposes.clear(),
            &|grant| drop(grant.fields.pop()),
            &|grant| grant.networks = networks(&["10.20.7.0/24", "10.20.0.0/16"]),
            &|grant| (grant.rate, grant.burst, grant.daily_quota) = (1, 0, 1),
            &|grant| (grant.not_before, grant.not_after) = (101, 199),
        ];
        for (list, widens) in [(wider, true), (narrower, false)] {
            for (number, change) in list.iter().enumerate() {
                let mut after = before.clone();
                change(&mut after);
                assert_eq!(grant_widens(&before, &after), widens, "{number}");
            }
        }
        let all = Grant { fields: texts(&["*"]), networks: Vec::new(), daily_quota: 0, ..before.clone() };
        let some = Grant { fields: texts(&["x"]), networks: networks(&["10.0.0.0/8"]), ..before };
        assert!(!grant_widens(&all, &some) && grant_widens(&some, &all));
    }
}
