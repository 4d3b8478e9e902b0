//! Pending changes: listed with everything that an approver must see, approved, rejected; and the changes that may have
//! to wait.

use super::api;
use super::draft::{GrantDraft, StaffDraft};
use super::messages::{client_message, failed, grant_message, refused, role, size, staff_message, violated};
use crate::contract::ContractSet;
use crate::contract::validate::Violation;
use crate::hex::hex;
use crate::identity::Certificate;
use crate::registry::admin_event::canonical_json;
use crate::registry::{
    Actor, ChangeOutcome, Client, Grant, GrantFilter, GrantState, ListPage, Page, PendingChange, RegistryError, Role,
    Staff, Store, now,
};
use crate::status::{Reason, Refusal};
use rustls_pki_types::CertificateDer;
use tonic::Status;

/// The reason that the first people were not registered.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// An id or a name.
    #[error("{} {}", .0.field, .0.description)]
    Invalid(Violation),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// Registers the first administrator and the first approver, two different people, in one event: afterwards one person
/// requests new staff and another approves. Only on the gateway's own host, and only while there is no approver;
/// returns both as registered. The drafts' roles do not count.
///
/// # Errors
/// An id or a name is malformed or taken, both are one person, or there is an approver already.
pub fn bootstrap(
    store: &dyn Store,
    administrator: StaffDraft,
    approver: StaffDraft,
) -> Result<[Staff; 2], BootstrapError> {
    let with = |draft: StaffDraft, role| StaffDraft { roles: vec![role], ..draft }.check();
    let administrator = with(administrator, Role::Administrator).map_err(BootstrapError::Invalid)?;
    let approver = with(approver, Role::Approver).map_err(BootstrapError::Invalid)?;
    store.bootstrap(&administrator, &approver)?;
    Ok([administrator, approver])
}

/// Returns the id of the pending change; empty if the change is made.
pub(super) fn waits(outcome: &ChangeOutcome) -> String {
    match outcome {
        ChangeOutcome::Done => String::new(),
        ChangeOutcome::PendingApproval(pending) => pending.id.clone(),
    }
}

/// Returns the client of an object: the approver must see which certificate names get the right.
fn client_of(store: &dyn Store, pending: &PendingChange) -> Option<Client> {
    let id = match pending.object.split_once(':')? {
        ("client", id) => id,
        ("grant", _) => pending.after.get("client")?.as_str()?,
        _ => return None,
    };
    store.client(id).ok()
}

fn message(store: &dyn Store, pending: PendingChange) -> api::PendingChange {
    let client = client_of(store, &pending).map(client_message);
    let requester = pending.requester.as_ref();
    api::PendingChange {
        id: pending.id,
        event: pending.event,
        object: pending.object,
        before: canonical_json(&pending.before),
        after: canonical_json(&pending.after),
        requested_by: pending.requested_by,
        requester_certificate: requester.map(|actor| hex(actor.thumbprint())).unwrap_or_default(),
        requester_identity_provider: requester.map(|actor| actor.provider().to_owned()).unwrap_or_default(),
        requester_address: requester.map(|actor| actor.address().to_owned()).unwrap_or_default(),
        justification: pending.justification,
        requested: pending.requested,
        ends: pending.ends,
        client,
    }
}

/// Returns a pending grant in the form of the other changes.
fn of_grant(grant: Grant) -> Result<PendingChange, Status> {
    let (requested, ends) = (grant.requested().unwrap_or(0), grant.pending_until());
    let after = serde_json::to_value(&grant).map_err(|error| failed(RegistryError::Store(error.to_string())))?;
    Ok(PendingChange {
        object: format!("grant:{}", grant.id),
        id: grant.id,
        event: "grant.add".into(),
        before: serde_json::Value::Null,
        after,
        requested_by: grant.requested_by,
        requester: grant.requester,
        justification: String::new(),
        requested,
        ends,
    })
}

/// Returns whether an id is a grant's.
fn is_grant(id: &str) -> bool {
    id.starts_with("g-")
}

/// Returns everything that is pending, by id: changes first, then grants, the oldest of each first.
pub(super) fn list(
    store: &dyn Store,
    request: &api::ListPendingChangesRequest,
) -> Result<api::ListPendingChangesResponse, Status> {
    let (size, after) = (size(request.page_size), request.page_token.as_str());
    let mut found = if is_grant(after) { Vec::new() } else { store.pending_changes(after, size).map_err(failed)? };
    let mut next_page_token = found.last().map(|last| last.id.clone()).unwrap_or_default();
    if found.len() < size {
        let after = if is_grant(after) { after } else { "" };
        let filter = GrantFilter { state: Some(GrantState::Pending) };
        let page = Page { after, max: size - found.len(), filter };
        let ListPage { records, next } = store.grants(None, page).map_err(failed)?;
        let now = now();
        for grant in records.into_iter().filter(|grant| grant.pending_until() > now) {
            found.push(of_grant(grant)?);
        }
        next_page_token = next;
    }
    let changes = found.into_iter().map(|pending| message(store, pending)).collect();
    Ok(api::ListPendingChangesResponse { changes, next_page_token })
}

/// Approves a change, or a grant by its own id.
pub(super) fn approve(store: &dyn Store, id: &str) -> Result<api::ApproveChangeResponse, Status> {
    let approved = if is_grant(id) {
        store.approve_grant(id).map_err(failed)?;
        of_grant(store.grant(id).map_err(failed)?)?
    } else {
        store.approve_change(id).map_err(failed)?
    };
    Ok(api::ApproveChangeResponse { change: Some(message(store, approved)) })
}

/// Rejects a change; a pending grant is withdrawn.
pub(super) fn reject(store: &dyn Store, id: &str) -> Result<api::RejectChangeResponse, Status> {
    let rejected = if is_grant(id) {
        let grant = store.grant(id).map_err(failed)?;
        if grant.state(now()) != GrantState::Pending {
            return Err(failed(RegistryError::Unknown("change that waits for approval", id.to_owned())));
        }
        store.withdraw_grant(id).map_err(failed)?;
        of_grant(grant)?
    } else {
        store.reject_change(id).map_err(failed)?
    };
    Ok(api::RejectChangeResponse { change: Some(message(store, rejected)) })
}

/// Returns a grant as it is, and as a change would make it; unset fields stay.
pub(super) fn changed(
    store: &dyn Store,
    contracts: &ContractSet,
    message: api::ChangeGrantRequest,
) -> Result<(Grant, Grant), Status> {
    let before = store.grant(&message.id).map_err(failed)?;
    let or = |said: Vec<String>, before: &[String]| if said.is_empty() { before.to_vec() } else { said };
    let networks: Vec<String> = before.networks.iter().map(ToString::to_string).collect();
    let draft = GrantDraft {
        client: before.client.clone(),
        scopes: or(message.scopes, &before.scopes),
        purposes: or(message.purposes, &before.purposes),
        fields: or(message.fields, &before.fields),
        rate: message.rate.unwrap_or(before.rate),
        burst: message.burst.unwrap_or(before.burst),
        daily_quota: message.daily_quota.unwrap_or(before.daily_quota),
        not_before: message.not_before.unwrap_or(before.not_before),
        not_after: message.not_after.unwrap_or(before.not_after),
        legal_basis: message.legal_basis.unwrap_or_else(|| before.legal_basis.clone()),
        networks: if message.any_network { message.networks } else { or(message.networks, &networks) },
    };
    let grant = draft.check(contracts).map_err(violated)?;
    Ok((before, Grant { id: message.id, ..grant }))
}

/// Changes a grant; unset fields stay.
pub(super) fn change_grant(
    store: &dyn Store,
    contracts: &ContractSet,
    message: api::ChangeGrantRequest,
) -> Result<api::Grant, Status> {
    let (before, after) = changed(store, contracts, message)?;
    let outcome = store.change_grant(&after).map_err(failed)?;
    let now = store.grant(&before.id).map_err(failed)?;
    Ok(api::Grant { pending_change: waits(&outcome), ..grant_message(now) })
}

/// Requests the registration of a person.
pub(super) fn add_staff(store: &dyn Store, message: api::AddStaffRequest) -> Result<api::Staff, Status> {
    let api::AddStaffRequest { id, roles, names } = message;
    let roles: Vec<Role> = roles.into_iter().map(role).collect::<Result<_, _>>()?;
    let staff = StaffDraft { id, roles, names }.check().map_err(violated)?;
    let pending = store.add_staff(&staff).map_err(failed)?;
    Ok(api::Staff { pending_change: pending.id, ..staff_message(staff) })
}

/// Changes a person's roles or names; empty fields stay the same.
pub(super) fn change_staff(store: &dyn Store, message: api::ChangeStaffRequest) -> Result<api::Staff, Status> {
    let api::ChangeStaffRequest { id, roles, names } = message;
    let before = person(store, &id)?;
    let roles: Vec<Role> = roles.into_iter().map(role).collect::<Result<_, _>>()?;
    let draft = StaffDraft {
        id: id.clone(),
        roles: if roles.is_empty() { before.roles } else { roles },
        names: if names.is_empty() { before.names } else { names },
    };
    let outcome = store.change_staff(&draft.check().map_err(violated)?).map_err(failed)?;
    Ok(api::Staff { pending_change: waits(&outcome), ..staff_message(person(store, &id)?) })
}

fn person(store: &dyn Store, id: &str) -> Result<Staff, Status> {
    let found = store.staff().map_err(failed)?.into_iter().find(|staff| staff.id == id);
    found.ok_or_else(|| failed(RegistryError::Unknown("member of staff", id.to_owned())))
}

/// Refuses a token for the certificate of the person who issues it: nobody may read the data to which they give access.
pub(super) fn must_be_anothers(actor: &Actor, chain: &[CertificateDer<'_>]) -> Result<(), Status> {
    let Some(of) = Certificate::of(chain) else { return Ok(()) };
    let shown = match actor {
        Actor::Staff { thumbprint, key, .. } => of.thumbprint.0 == thumbprint.0 || of.key == key.0,
        _ => false,
    };
    let own = shown || of.names.iter().any(|name| actor.names().contains(name));
    let rule = "nobody issues a token for their own certificate";
    if own { Err(refused(Refusal::with(Reason::RoleMissing, rule))) } else { Ok(()) }
}
