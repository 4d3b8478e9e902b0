//! From a judged document to the contract's messages, for every driver: what is found, what is absent, and what is not believed.

use super::{SourceError, drift, error::heed};
use crate::contract::Operation;
use crate::contract::map::MapError;
use crate::contract::map::answer::{self, Found, Read};
use crate::contract::map::outcome::{self, Verdict};
use crate::contract::map::start::{Start, start};
use crate::contract::notes::Notes;
use crate::contract::plan::WirePath;
use crate::contract::settings::CallContext;
use bytes::Bytes;
use serde_json::{Map, Value};

/// An answer that says that it succeeded.
#[derive(Debug)]
pub struct Judged {
    /// The answer.
    pub document: Value,
    /// Whether something of the contract's says so: its code, or its body element.
    by_sign: bool,
}

/// Judges a document; `element`: the contract's body element that it is the content of.
pub(super) fn judge(operation: &Operation, document: Value, element: Option<&str>) -> Result<Judged, SourceError> {
    let place = match start(&document, &operation.answer_root) {
        Start::At(place) => place,
        Start::Empty | Start::Missing => &document,
    };
    let verdict = outcome::judge(&operation.outcome, &document, place);
    let failed = matches!(verdict, Verdict::Failure(..));
    if !failed && operation.outcome.says_no_record(&document, element) {
        return Err(SourceError::NotFound("no record".into()));
    }
    let coded = heed(verdict)?;
    Ok(Judged { by_sign: coded || element.is_some(), document })
}

/// Reads the one message of an answer.
pub(super) fn read_one(operation: &Operation, judged: &Judged, context: &CallContext) -> Result<Bytes, SourceError> {
    let mut notes = drift::of_document(operation, &judged.document);
    let message = one(operation, judged, &mut notes);
    drift::heeded(operation, context, notes, message)
}

fn one(operation: &Operation, judged: &Judged, notes: &mut Notes) -> Result<Bytes, SourceError> {
    let document = &judged.document;
    let nothing = Value::Object(Map::new());
    let start = start(document, &operation.answer_root);
    let place = match start {
        Start::At(place) => place,
        Start::Empty if operation.outcome.empty_is_not_found => return Err(SourceError::NotFound("empty".into())),
        Start::Empty | Start::Missing => &nothing,
    };
    let read = match (start, answer::read_noted(&operation.answer, place, document, notes)) {
        (Start::At(_), read) => read?,
        // What stands outside of the empty place may be all that there is to say.
        (_, Ok(read)) if read.found == Found::Value => read,
        (Start::Empty, _) if is_list(operation) => empty(),
        (_, _) if says_enough(operation, judged, document) => empty(),
        (Start::Empty, _) => return Err(unbelieved()),
        (_, _) => return Err(missing(operation)),
    };
    believe(operation, judged, place, read)
}

fn empty() -> Read {
    Read { message: Vec::new(), found: Found::EmptyList }
}

/// Whether what was found is the contract's.
fn believe(operation: &Operation, judged: &Judged, place: &Value, read: Read) -> Result<Bytes, SourceError> {
    let at_root = std::ptr::eq(place, &raw const judged.document);
    let ours = |name: &str| at_root && is_of_outcome(operation, name);
    let mut left = answer::leftovers(&operation.answer, place, ours);
    match read.found {
        Found::Value => Ok(read.message.into()),
        Found::EmptyList if !left.any(is_structure) => Ok(read.message.into()),
        Found::Nothing | Found::Names if says_enough(operation, judged, place) => Ok(read.message.into()),
        Found::Names if operation.outcome.empty_is_not_found && left.next().is_none() => {
            Err(SourceError::NotFound("empty".into()))
        }
        _ => Err(unbelieved()),
    }
}

/// Whether success is all that an answer needs to say: of an operation whose answer has no fields, or of a write whose success was
/// read, where nothing is left over that could be what was asked for.
fn says_enough(operation: &Operation, judged: &Judged, place: &Value) -> bool {
    if operation.answer.fields.is_empty() {
        return place.is_object();
    }
    let mut left = answer::leftovers(&operation.answer, place, |_| false);
    operation.writes && judged.by_sign && !left.any(is_structure)
}

fn is_of_outcome(operation: &Operation, name: &str) -> bool {
    operation.outcome.code.iter().any(|path| path.parts.first().is_some_and(|first| first == name))
}

fn is_structure(value: &Value) -> bool {
    value.is_object() || value.is_array()
}

/// Whether the answer's message is the list at its place.
fn is_list(operation: &Operation) -> bool {
    let own = |name: &WirePath| name.parts.is_empty();
    operation.answer.fields.iter().any(|field| field.list && field.names.iter().any(own))
}

/// Reads the list that a server stream carries. Each of its items must be the contract's.
pub(super) fn read_list(
    operation: &Operation,
    judged: &Judged,
    context: &CallContext,
) -> Result<Vec<Bytes>, SourceError> {
    let mut notes = drift::of_document(operation, &judged.document);
    let messages = list(operation, judged, &mut notes);
    drift::heeded(operation, context, notes, messages)
}

fn list(operation: &Operation, judged: &Judged, notes: &mut Notes) -> Result<Vec<Bytes>, SourceError> {
    let document = &judged.document;
    let place = match start(document, &operation.answer_root) {
        Start::At(place) => place,
        Start::Empty if operation.outcome.empty_is_not_found => return Err(SourceError::NotFound("empty".into())),
        Start::Empty => return Ok(Vec::new()),
        Start::Missing => return Err(missing(operation)),
    };
    // A row of whatever columns there are is told from an error document by the list that it stands in.
    if operation.answer.takes_any() && !answer::is_list(place) {
        return Err(unbelieved());
    }
    let mut messages = Vec::new();
    for item in answer::items(place) {
        let read = answer::read_noted(&operation.answer, item, document, notes)?;
        if read.found != Found::Value {
            return Err(unbelieved());
        }
        messages.push(read.message.into());
    }
    Ok(messages)
}

fn unbelieved() -> SourceError {
    MapError::Answer { path: ".".into(), reason: answer::NOTHING }.into()
}

fn missing(operation: &Operation) -> SourceError {
    let ways: Vec<String> = operation.answer_root.iter().map(|way| way.join("/")).collect();
    SourceError::Unreadable(format!("the answer has no {}", ways.join(" or ")))
}
