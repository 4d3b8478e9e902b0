//! Administrators and approvers: one requests, the other approves.

use super::{Stage, add_grant};
use ndxp_gateway::contract::ContractSet;
use ndxp_gateway::registry::Store;
use ndxp_gateway::registry::sqlite::SqliteStore;

/// A person with their own certificate, as the store sees them.
fn acting(store: &SqliteStore, id: &str, mark: u8) -> SqliteStore {
    use ndxp_gateway::registry::{Actor, Digest};
    let (thumbprint, key) = (Digest([mark; 32]), Digest([mark + 1; 32]));
    let names = vec![ndxp_gateway::pki::staff_uri(id)];
    store.acting_as(Actor::Staff { id: id.into(), thumbprint, key, names, address: "192.0.2.1:1".into() })
}

/// The first two people, created if missing: the requester and the approver.
fn two_persons(store: &SqliteStore) -> (SqliteStore, SqliteStore) {
    use ndxp_gateway::registry::Staff;
    let person = |id: &str| Staff { id: id.into(), roles: vec![], names: vec![ndxp_gateway::pki::staff_uri(id)] };
    let (first, second) = ("first-administrator", "first-approver");
    if store.staff().unwrap().is_empty() {
        store.bootstrap(&person(first), &person(second)).unwrap();
    }
    (acting(store, first, 10), acting(store, second, 20))
}

/// A grant requested by one person and approved by another: it includes sensitive data.
pub fn approved_grant(stage: &Stage, client: &str, scopes: &[&str]) -> String {
    approved(&stage.store, &stage.contracts, client, scopes)
}

/// The same in a registry.
pub fn approved(store: &SqliteStore, contracts: &ContractSet, client: &str, scopes: &[&str]) -> String {
    let (first, second) = two_persons(store);
    let id = add_grant(&first, contracts, client, scopes, |grant| grant.needs_approval = true);
    second.approve_grant(&id).unwrap();
    id
}

/// Registers an auditor with this id, requested by one person and approved by another. The first auditor also creates the first two
/// people.
pub fn add_auditor(store: &SqliteStore, id: &str) {
    use ndxp_gateway::registry::{Role, Staff};
    let (first, second) = two_persons(store);
    let auditor = Staff { id: id.into(), roles: vec![Role::Auditor], names: vec![ndxp_gateway::pki::staff_uri(id)] };
    let asked = first.add_staff(&auditor).unwrap();
    second.approve_change(&asked.id).unwrap();
}
