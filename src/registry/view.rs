//! Clients and grants as a call needs them.

use super::{Client, Grant, Network};
use std::hash::BuildHasher;
use std::sync::Arc;

/// What a call needs of a grant. Equal lists are one list ([`super::lists`]).
#[derive(Debug)]
pub struct GrantView {
    /// Id.
    pub id: Box<str>,
    /// Scopes.
    pub scopes: Arc<[String]>,
    /// Purposes.
    pub purposes: Arc<[String]>,
    /// Answer fields.
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
    /// Whether a second person approved it: without that, it opens nothing that a contract calls sensitive, also where the
    /// contract did not when it was granted.
    pub approved: bool,
}

impl GrantView {
    /// Whether it works now.
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
    /// Its grants that are approved and not withdrawn, by id, which is by age: where several fit, the same one is always
    /// taken. Their time is checked at each call.
    pub grants: Box<[GrantView]>,
    /// Which grants have a scope, by the scope's hash. A call looks at those of its scope alone, and a client's many
    /// grants stay where they are: they are on some thirty cache lines, these on one or two.
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

    /// Its grants that have a scope, the oldest first.
    pub fn granted(self: &Arc<Self>, scope: &str) -> impl Iterator<Item = Granted> {
        let hash = scope_hash(scope);
        let from = self.by_scope.partition_point(|(other, _)| *other < hash);
        let all = self.by_scope.iter().skip(from).take_while(move |(other, _)| *other == hash);
        let grants = all.filter_map(|(_, place)| Granted::new(self, *place as usize));
        grants.filter(move |granted| granted.scopes.iter().any(|one| one == scope))
    }

    /// Its grant of this id, with the client.
    pub fn granted_as(self: &Arc<Self>, id: &str) -> Option<Granted> {
        Granted::new(self, self.grants.iter().position(|grant| *grant.id == *id)?)
    }

    /// Its grant of this id.
    pub fn grant(&self, id: &str) -> Option<&GrantView> {
        self.grants.iter().find(|grant| *grant.id == *id)
    }
}

/// Only for finding: what is found is compared as text.
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

    /// The id of the client that it is granted to.
    pub fn client(&self) -> &str {
        &self.client.client.id
    }
}

impl std::ops::Deref for Granted {
    type Target = GrantView;

    fn deref(&self) -> &GrantView {
        // `new` has seen that it is there.
        &self.client.grants[self.place]
    }
}
