//! Passes the drift of a response to its counter; if the operation's policy refuses drift, the response is rejected.

use super::{SourceError, SourceFault};
use crate::contract::Operation;
use crate::contract::drift::DriftPolicy;
use crate::contract::notes::Notes;
use crate::contract::settings::CallContext;
use bytes::Bytes;

/// Reports the noticed drift, whatever the result of the response.
///
/// # Errors
/// The response's own; [`SourceFault::Drifted`] if it was read and its policy refuses drift.
pub(super) fn apply_policy<T>(
    operation: &Operation,
    context: &CallContext,
    notes: Notes,
    answer: Result<T, SourceError>,
) -> Result<T, SourceError> {
    let first = notes.drift.first().filter(|_| context.drift == DriftPolicy::Refuse);
    let refused =
        first.map(|drift| SourceFault::Drifted { kind: drift.kind.as_str(), path: drift.source_path(operation) });
    context.observed.add(notes);
    match (answer, refused) {
        (Ok(_), Some(refused)) => Err(refused.into()),
        (answer, _) => answer,
    }
}

/// The same for a message of a gRPC source.
pub(super) fn of_message(operation: &Operation, context: &CallContext, message: Bytes) -> Result<Bytes, SourceError> {
    let mut notes = Notes::default();
    operation.response_shape.message.observe(&message, &mut notes);
    if notes.drift.is_empty() { Ok(message) } else { apply_policy(operation, context, notes, Ok(message)) }
}
