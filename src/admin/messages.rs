//! Conversions between the registry's types and those of `ndxp.admin.v1`, errors included.

use super::api;
use crate::contract::validate::Violation;
use crate::issuer::IssueError;
use crate::registry::{self, ClientState, KeyState, RegistryError, Role, Staff};
use crate::status::{Reason, Refusal};
use crate::telemetry::{RevocationEffect, Revocations};
use tonic::Status;

pub(super) fn refused(refusal: Refusal) -> Status {
    refusal.to_status("")
}

/// A fault of a field, in English and Vietnamese.
pub(super) fn invalid(field: &str, description: impl Into<String>, vietnamese: impl Into<String>) -> Status {
    violated(Violation::new(field, description).in_vietnamese(vietnamese))
}

pub(super) fn violated(violation: Violation) -> Status {
    refused(Refusal::fields(vec![violation]))
}

pub(super) fn failed(error: RegistryError) -> Status {
    refused(match error {
        RegistryError::Unknown(..) => Refusal::with(Reason::ObjectUnknown, error.to_string()),
        RegistryError::Exists(..) | RegistryError::NameTaken { .. } => {
            Refusal::with(Reason::ObjectExists, error.to_string())
        }
        RegistryError::Forbidden(rule) => Refusal::with(Reason::RoleMissing, rule),
        RegistryError::Invalid(rule) => return violated(Violation::new("record", rule)),
        RegistryError::Outdated => Reason::ChangeOutdated.into(),
        RegistryError::Full(what) => Refusal::with(Reason::ChangesFull, what),
        RegistryError::Store(_) => {
            tracing::error!(%error, "the registry failed");
            Reason::RegistryUnavailable.into()
        }
    })
}

pub(super) fn client_message(client: registry::Client) -> api::Client {
    let registry::Client { id, agency, contact, names, suspended, created, retired, .. } = client;
    api::Client { id, agency, contact, names, suspended, created, retired, pending_change: String::new() }
}

pub(super) fn grant_message(grant: registry::Grant) -> api::Grant {
    api::Grant {
        id: grant.id,
        client: grant.client,
        scopes: grant.scopes,
        purposes: grant.purposes,
        fields: grant.fields,
        rate: grant.rate,
        burst: grant.burst,
        daily_quota: grant.daily_quota,
        not_before: grant.not_before,
        not_after: grant.not_after,
        legal_basis: grant.legal_basis,
        networks: grant.networks.iter().map(ToString::to_string).collect(),
        requested_by: grant.requested_by,
        approved_by: grant.approved_by.unwrap_or_default(),
        needs_approval: grant.needs_approval,
        withdrawn: grant.withdrawn,
        pending_change: String::new(),
    }
}

pub(super) fn token_message(token: registry::TokenRecord) -> api::Token {
    let registry::TokenRecord { id, client, scopes, issued, starts, expires, revoked, .. } = token;
    api::Token { id, client, scopes, issued, starts, expires, revoked, revocation: None }
}

/// Returns a token with what its revocation has done here.
pub(super) fn revocation_message(token: registry::TokenRecord, revocations: &Revocations) -> api::Token {
    let effect = revocations.of(&token.id).filter(|_| token.revoked);
    let message = |effect: RevocationEffect| api::Revocation {
        in_force: effect.duration.is_some(),
        duration_us: effect.duration.map_or(0, |took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
        ended: effect.ended,
    };
    api::Token { revocation: effect.map(message), ..token_message(token) }
}

/// Returns a key with its state among all keys.
pub(super) fn key_message(key: &registry::SigningKey, all: &[registry::SigningKey]) -> api::Key {
    let state = match key.state(all, registry::now()) {
        KeyState::Published => api::KeyState::KeyPublished,
        KeyState::Signing => api::KeyState::KeySigning,
        KeyState::Replaced => api::KeyState::KeyReplaced,
        KeyState::Retired => api::KeyState::KeyRetired,
    };
    api::Key {
        kid: key.kid.clone(),
        algorithm: key.algorithm.clone(),
        created: key.created,
        trusted_until: key.trusted_until,
        signs_from: key.signs_from,
        state: state.into(),
    }
}

pub(super) fn staff_message(staff: Staff) -> api::Staff {
    let role = |role: &Role| match role {
        Role::Administrator => api::Role::Administrator as i32,
        Role::Approver => api::Role::Approver as i32,
        Role::Auditor => api::Role::Auditor as i32,
        Role::Operator => api::Role::Operator as i32,
    };
    let roles = staff.roles.iter().map(role).collect();
    api::Staff { roles, id: staff.id, names: staff.names, pending_change: String::new() }
}

pub(super) fn role(number: i32) -> Result<Role, Status> {
    match api::Role::try_from(number) {
        Ok(api::Role::Administrator) => Ok(Role::Administrator),
        Ok(api::Role::Approver) => Ok(Role::Approver),
        Ok(api::Role::Auditor) => Ok(Role::Auditor),
        Ok(api::Role::Operator) => Ok(Role::Operator),
        Ok(api::Role::Unspecified) | Err(_) => {
            Err(invalid("roles", "must be roles of the contract", "phải là vai trò có trong hợp đồng"))
        }
    }
}

pub(super) fn issue_failed(error: IssueError) -> Status {
    match error {
        IssueError::Registry(error) => failed(error),
        IssueError::NotGranted { .. } | IssueError::NoScopeInForce { .. } | IssueError::TooLarge { .. } => {
            let vietnamese = "hệ thống không có quyền còn hiệu lực cho các phạm vi này, hoặc mã sẽ quá lớn";
            invalid("scopes", error.to_string(), vietnamese)
        }
        IssueError::TooLong(_) => {
            invalid("lifetime_s", error.to_string(), "thời hạn dài hơn mức tối đa trong cấu hình của cổng")
        }
        IssueError::Certificate(_) => invalid(
            "certificate",
            error.to_string(),
            "chứng thư số không phải của hệ thống này hoặc không còn hiệu lực",
        ),
        IssueError::Suspended(_) => refused(Reason::ClientSuspended.into()),
        IssueError::Retired(_) => refused(Refusal::with(Reason::ObjectUnknown, error.to_string())),
        IssueError::NoKey => {
            let remedy = "there is no signing key yet: an administrator makes one with `keys rotate`";
            refused(Refusal::with(Reason::RegistryUnavailable, remedy))
        }
        IssueError::Key { .. } => {
            tracing::error!(%error, "no token could be issued");
            refused(Refusal::with(Reason::RegistryUnavailable, "no signing key can be used"))
        }
    }
}

/// Default and maximum records of a page.
const PAGE: (u32, u32) = (100, 1_000);

/// Returns the number of records in a page.
pub(super) fn size(message: u32) -> usize {
    if message == 0 { PAGE.0 as usize } else { message.min(PAGE.1) as usize }
}

/// Returns the state that clients of a listing must have; `None`: any.
pub(super) fn client_state(number: i32) -> Result<Option<ClientState>, Status> {
    match api::ClientState::try_from(number) {
        Ok(api::ClientState::Unspecified) => Ok(None),
        Ok(api::ClientState::Active) => Ok(Some(ClientState::Active)),
        Ok(api::ClientState::Suspended) => Ok(Some(ClientState::Suspended)),
        Ok(api::ClientState::Retired) => Ok(Some(ClientState::Retired)),
        Err(_) => Err(invalid("state", "must be a state of the contract", "phải là trạng thái có trong hợp đồng")),
    }
}
