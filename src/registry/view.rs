//! Clients and grants as a call needs them.

use super::{Client, Grant, Network};
use std::hash::BuildHasher;
use std::sync::Arc;

/// The part of a grant that a call needs. Equal lists are one list ([`super::lists`]).
#[derive(Debug)]
pub struct GrantView {
    /// Id.
    pub id: Box<str>,
    /// Scopes.
    pub scopes: Arc<[String]>,
    /// Purposes.
    pub purposes: Arc<[String]>,
    /// Response fields.
    pub fields: Arc<[String]>,
    /// Networks that calls may come from; none: any.
    pub networks: Vec<Network>,
    /// Calls a second, sustained.
    pub rate: u32,
    /// Calls at once above that.
    pub burst: u32,
    /// Calls a day (Ho Chi Minh City); 0: no quota.
    pub daily_quota: u64,
    /// In force from, Unix time in seconds.
    pub not_before: i64,
    /// In force until.
    pub not_after: i64,
    /// Whether a second person approved it: without approval, it allows nothing that a contract marks as sensitive,
    /// even if the contract did not when the grant was made.
    pub approved: bool,
}

impl GrantView {
    /// Returns whether it is in force.
    pub fn in_force(&self, now: i64) -> bool {
        (self.not_before..self.not_after).contains(&now)
    }
}

impl From<&Grant> for GrantView {
    fn from(grant: &Grant) -> Self {
        GrantView {
            id: grant.id.as_str().into(),
            scopes: grant.scopes.as_slice().into(),
            purposes: grant.purposes.as_slice().into(),
            fields: grant.fields.as_slice().into(),
            networks: grant.networks.clone(),
            rate: grant.rate,
            burst: grant.burst,
            daily_quota: grant.daily_quota,
            not_before: grant.not_before,
            not_after: grant.not_after,
            approved: grant.approved_by.is_some(),
        }
    }
}

/// A client with its grants.
#[derive(Debug)]
pub struct ClientView {
    /// The client.
    pub client: Client,
    /// Its grants that are approved and not withdrawn, by id, that is, by age: if several match, the same one is always
    /// selected. Each call checks their time.
    pub grants: Box<[GrantView]>,
    /// The grants of each scope, by the scope's hash. A call reads only those of its scope and does not touch the
    /// client's other grants: those are on about thirty cache lines, these on one or two.
    by_scope: Box<[(u32, u32)]>,
}

impl ClientView {
    pub(super) fn new(client: Client, mut grants: Vec<GrantView>) -> Self {
        grants.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        let places = grants.iter().zip(0u32..);
        let of_grant = |(grant, place): (&GrantView, u32)| {
            grant.scopes.iter().map(move |scope| (scope_hash(scope), place)).collect::<Vec<_>>()
        };
        let mut by_scope: Vec<(u32, u32)> = places.flat_map(of_grant).collect();
        by_scope.sort_unstable();
        ClientView { client, grants: grants.into(), by_scope: by_scope.into() }
    }

    /// Returns its grants with a scope, the oldest first.
    pub fn granted(self: &Arc<Self>, scope: &str) -> impl Iterator<Item = Granted> {
        let hash = scope_hash(scope);
        let from = self.by_scope.partition_point(|(other, _)| *other < hash);
        let all = self.by_scope.iter().skip(from).take_while(move |(other, _)| *other == hash);
        let grants = all.filter_map(|(_, place)| Granted::new(self, *place as usize));
        grants.filter(move |granted| granted.scopes.iter().any(|one| one == scope))
    }

    /// Returns its grant of this id, with the client.
    pub fn granted_as(self: &Arc<Self>, id: &str) -> Option<Granted> {
        Granted::new(self, self.grants.iter().position(|grant| *grant.id == *id)?)
    }

    /// Returns its grant of this id.
    pub fn grant(&self, id: &str) -> Option<&GrantView> {
        self.grants.iter().find(|grant| *grant.id == *id)
    }
}

/// Only for look-ups: results are compared as text.
fn scope_hash(scope: &str) -> u32 {
    let hash = foldhash::fast::FixedState::default().hash_one(scope);
    hash as u32
}

/// One of a client's grants, and the client with it.
#[derive(Debug, Clone)]
pub struct Granted {
    client: Arc<ClientView>,
    place: usize,
}

impl Granted {
    fn new(client: &Arc<ClientView>, place: usize) -> Option<Self> {
        client.grants.get(place)?;
        Some(Granted { client: client.clone(), place })
    }

    /// Returns the id of the grant's client.
    pub fn client(&self) -> &str {
        &self.client.client.id
    }
}

impl std::ops::Deref for Granted {
    type Target = GrantView;

    fn deref(&self) -> &GrantView {
        // `new` has checked that it exists.
        &self.client.grants[self.place]
    }
}
