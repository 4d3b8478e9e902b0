//! The known drift, for staff: read from the file in which the gateway saves it.

use super::api;
use crate::contract::ContractSet;
use crate::drift::file::{self, OperationDrift, PathDrift};
use crate::keyfile::Vault;
use crate::registry::AdminEventKey;
use crate::registry::sqlite::FILE;
use std::collections::BTreeSet;
use std::path::Path;
use tonic::Status;

/// The drift of one source, or of all.
pub(super) fn list(
    (data, vault): (&Path, &Vault),
    contracts: &ContractSet,
    request: &api::ListDriftRequest,
) -> Result<api::ListDriftResponse, Status> {
    let unread = |error: &dyn std::fmt::Display| {
        tracing::error!(%error, "what is known of drift cannot be read");
        Status::internal("what is known of drift cannot be read: see the gateway's log")
    };
    let key = AdminEventKey::read(&data.join(FILE), vault).map_err(|error| unread(&error))?;
    let state = file::load(data, key.as_ref()).map_err(|error| unread(&error))?;
    let mut found = api::ListDriftResponse::default();
    let wanted = |kept: &OperationDrift| request.source.is_empty() || kept.about.source == request.source;
    let mut sources = BTreeSet::new();
    for (operation, kept) in state.operations.iter().filter(|(_, kept)| wanted(kept)) {
        sources.insert(kept.about.source.clone());
        found.drift.extend(kept.paths.iter().map(|one| message(operation, kept, one)));
        if kept.beyond > 0 {
            let (source, operation) = (kept.about.source.clone(), operation.clone());
            found.unlisted.push(api::UnlistedDrift { source, operation, responses: kept.beyond });
        }
    }
    let order = |one: &api::Drift| (one.source.clone(), one.operation.clone(), one.kind, one.path.clone());
    found.drift.sort_by_key(order);
    let known = contracts.sources();
    let named = known.iter().filter(|source| sources.contains(&source.id)).map(|source| api::DriftSource {
        id: source.id.clone(),
        name: source.name.clone(),
        name_vi: source.name_vi.clone(),
        owner: source.owner.clone(),
    });
    found.sources = named.collect();
    Ok(found)
}

fn message(operation: &str, kept: &OperationDrift, one: &PathDrift) -> api::Drift {
    let kind = match one.kind.as_str() {
        "added" => api::DriftKind::Added,
        "missing" => api::DriftKind::Missing,
        "retyped" => api::DriftKind::Retyped,
        "unknown_code" => api::DriftKind::UnknownCode,
        "dropped" => api::DriftKind::Dropped,
        _ => api::DriftKind::Unspecified,
    };
    api::Drift {
        source: kept.about.source.clone(),
        operation: operation.to_owned(),
        protocol: kept.about.protocol.clone(),
        contract: kept.about.contract.clone(),
        kind: kind as i32,
        path: one.path.clone(),
        field: one.field.clone(),
        described: one.described.clone(),
        found: one.found.clone(),
        first_seen: one.first_s,
        last_seen: one.last_s,
        responses: one.responses,
    }
}
