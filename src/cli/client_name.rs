//! Clients as people name them: a wrong id is told from one without records, and the nearest one is named.

use super::session::{PAGE, Session};
use super::{CliError, suggestion};
use crate::admin::api;
use tonic::Status;

/// Checks the client that a listing is limited to, where the listing has nothing.
///
/// # Errors
/// There is no such client, which names the nearest one; those of the service.
pub fn check(session: &Session, id: &str) -> Result<(), CliError> {
    let found = session.read(session.admin().get_client(api::ClientId { id: id.to_owned() }));
    found.map(drop).map_err(|error| suggested(session, Some(id), error))
}

/// Returns what may be wrong with a client by which nothing is found; `None` if it is there, or this person may not know.
pub fn hint(session: &Session, id: &str) -> Option<String> {
    match check(session, id) {
        Err(CliError::Refused { text, status, .. }) if is_of(&status, id) => Some(text),
        _ => None,
    }
}

fn is_of(status: &Status, id: &str) -> bool {
    status.message().contains(&format!("there is no client {id:?}"))
}

/// Adds the nearest id to an error for a client that there is not; any other error stays as it is. It looks at the first
/// thousand clients.
pub fn suggested(session: &Session, id: Option<&str>, error: CliError) -> CliError {
    let Some(id) = id else { return error };
    let CliError::Refused { text, exit_code, status } = error else { return error };
    let hint = match is_of(&status, id) {
        true => nearest(session, id),
        false => None,
    };
    let text = hint.map_or_else(|| text.clone(), |hint| format!("{text}\n  {hint}"));
    CliError::Refused { text, exit_code, status }
}

fn nearest(session: &Session, id: &str) -> Option<String> {
    let request = api::ListClientsRequest { page_size: PAGE, ..api::ListClientsRequest::default() };
    let clients = session.read(session.admin().list_clients(request)).ok()?.clients;
    Some(match suggestion::nearest(clients.iter().map(|client| client.id.as_str()), id) {
        Some(near) => format!("did you mean {near}?"),
        None => "`ndxp-gateway client list` lists them".to_owned(),
    })
}
