//! Maintenance notices of sources.

use super::api;
use super::messages::{failed, invalid};
use crate::contract::ContractSet;
use crate::registry::{MaintenanceNotice, RegistryError, Store, now};
use tonic::Status;

fn message(notice: MaintenanceNotice) -> api::Notice {
    let MaintenanceNotice { source, starts, ends, text_vi, text_en } = notice;
    api::Notice { source, starts, ends, text_vi, text_en }
}

/// Sets a source's notice: of a source that has a contract.
pub(super) fn set(
    store: &dyn Store,
    contracts: &ContractSet,
    request: api::SetNoticeRequest,
) -> Result<api::Notice, Status> {
    let api::SetNoticeRequest { source, starts, ends, text_vi, text_en } = request;
    if !contracts.sources().iter().any(|known| known.id == source) {
        return Err(failed(RegistryError::Unknown("source", source)));
    }
    let now = now();
    let starts = if starts == 0 { now } else { starts };
    let notice = MaintenanceNotice { source, starts, ends, text_vi, text_en };
    notice.check(now).map_err(|fault| invalid(fault.field(), fault.to_string(), fault.vietnamese()))?;
    store.set_notice(&notice).map_err(failed)?;
    Ok(message(notice))
}

/// Removes a source's notice and returns it.
pub(super) fn clear(store: &dyn Store, source: String) -> Result<api::Notice, Status> {
    store.clear_notice(&source).map(message).map_err(failed)
}

/// Lists the notices.
pub(super) fn list(store: &dyn Store) -> Result<api::ListNoticesResponse, Status> {
    let notices = store.notices().map_err(failed)?;
    Ok(api::ListNoticesResponse { notices: notices.into_iter().map(message).collect() })
}
