//! `CanI`: whether a call would be admitted, and if not, which rule refuses it. The decision is [`access::explain`],
//! the same as for a call; this file adds the explanation.

use super::api;
use super::messages::{failed, invalid, refused};
use crate::access::{self, AccessDenied, AccessRule, CallMetadata};
use crate::contract::{ContractSet, Operation};
use crate::registry::{GrantFilter, GrantState, Page, Store, now};
use crate::status::Reason;
use http::{HeaderMap, HeaderValue};
use std::net::IpAddr;
use std::sync::Arc;
use tonic::Status;

/// Maximum number of pending grants that are searched for a sufficient one.
const MAX_PENDING: usize = 1_000;

/// Handles the request.
///
/// # Errors
/// No such client or operation, or a malformed purpose, official or address.
pub(super) fn can_i(
    contracts: &ContractSet,
    store: &dyn Store,
    message: api::CanIRequest,
) -> Result<api::CanIResponse, Status> {
    let [operation] = contracts.named(&message.operation)[..] else {
        return Err(refused(Reason::OperationUnknown.into()));
    };
    let said = CallMetadata::read(&metadata(&message)?).map_err(refused)?;
    let from = address(&message.address)?;
    let view = Arc::new(store.view(&message.client).map_err(failed)?);
    if view.client.suspended {
        let explanation = "the client is suspended: client resume".to_owned();
        return Ok(denied(Reason::ClientSuspended, "client", Vec::new(), explanation));
    }
    let at = if message.at == 0 { now() } else { message.at };
    match access::explain(operation, &view, &said, from, at) {
        Ok(grant) => {
            let withheld =
                operation.response_fields.discloses_sensitive(&operation.response_fields.mask(&grant.fields));
            let withheld = match withheld && !grant.approved {
                true => {
                    "; without the response's sensitive fields, since nobody approved the grant: grant change requests that"
                }
                false => "",
            };
            let explanation =
                format!("admitted by {}, with a token of the scope {}{withheld}", grant.id, operation.scope);
            Ok(api::CanIResponse {
                allowed: true,
                grants: vec![grant.id.to_string()],
                explanation,
                ..Default::default()
            })
        }
        Err(why) => {
            let (reason, rule) = (why.rule.reason(), why.rule.as_str());
            let explanation = explanation(operation, store, &message, &why)?;
            Ok(denied(reason, rule, why.grants, explanation))
        }
    }
}

fn denied(reason: Reason, rule: &str, grants: Vec<String>, explanation: String) -> api::CanIResponse {
    let (reason, rule) = (reason.as_str().to_owned(), rule.to_owned());
    api::CanIResponse { allowed: false, reason, rule, grants, explanation }
}

/// The metadata that the caller would send.
fn metadata(message: &api::CanIRequest) -> Result<HeaderMap, Status> {
    let mut headers = HeaderMap::new();
    for (name, value) in [("ndxp-purpose", &message.purpose), ("ndxp-official", &message.official)] {
        if !value.is_empty() {
            let value = HeaderValue::from_str(value).map_err(|_| {
                invalid(name, "has characters that metadata cannot have", "có ký tự không gửi được trong metadata")
            })?;
            headers.insert(name, value);
        }
    }
    Ok(headers)
}

fn address(text: &str) -> Result<Option<IpAddr>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = |_| invalid("address", "must be an IP address", "phải là địa chỉ IP");
    let address: IpAddr = text.parse().map_err(wrong)?;
    Ok(Some(address.to_canonical()))
}

fn explanation(
    operation: &Operation,
    store: &dyn Store,
    message: &api::CanIRequest,
    denied: &AccessDenied,
) -> Result<String, Status> {
    let (scope, grants) = (&operation.scope, denied.grants.join(", "));
    Ok(match denied.rule {
        AccessRule::TokenScope => format!("the token lacks {scope}"),
        AccessRule::Scope => match pending(store, &message.client, scope)? {
            Some(grant) => format!("{grant} has {scope}, and waits for approval by a second person"),
            None => format!("no grant has {scope}: grant add"),
        },
        AccessRule::Approval => format!(
            "{grants}: nobody approved it, and by now the contract calls the operation sensitive: grant change {}, as it is, asks \
             for the approval",
            denied.grants.first().map_or("GRANT", String::as_str)
        ),
        AccessRule::Period => format!("{grants}: not in force at that time"),
        AccessRule::Network => format!("{grants}: {} is in none of its networks", message.address),
        AccessRule::PurposeGiven => "the operation requires a purpose: metadata ndxp-purpose".to_owned(),
        AccessRule::OfficialGiven => "the operation requires the acting official: metadata ndxp-official".to_owned(),
        AccessRule::Purpose => format!("{grants}: does not cover the purpose {}", message.purpose),
    })
}

/// Returns a pending grant of this scope.
fn pending(store: &dyn Store, client: &str, scope: &str) -> Result<Option<String>, Status> {
    let filter = GrantFilter { state: Some(GrantState::Pending) };
    let page = Page { after: "", max: MAX_PENDING, filter };
    let waiting = store.grants(Some(client), page).map_err(failed)?.records;
    Ok(waiting.into_iter().find(|grant| grant.scopes.iter().any(|one| one == scope)).map(|grant| grant.id))
}
