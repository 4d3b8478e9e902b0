//! Admin events: changes of the registry by a person, on their way into the exchange log, complete enough that the registry can be
//! recomputed from the log alone.

use super::RegistryError;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One object's change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectChange {
    /// `client:ID`, `grant:ID`, `staff:ID`, `key:KID`, `token:ID` or `change:ID`.
    pub object: String,
    /// The complete record before, as canonical JSON; `null`: it did not exist.
    pub before: String,
    /// The complete record afterwards; `null`: it no longer exists.
    pub after: String,
}

/// An admin event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminEvent {
    /// Its number in the sequence of events, from 1, without gaps: a missing one was removed.
    pub sequence: u64,
    /// UUIDv7: the id of its entry, which shows whether two entries are one event.
    pub id: [u8; 16],
    /// Unix time in microseconds.
    pub time_us: i64,
    /// The actor, as [`super::Actor`] prints.
    pub actor: String,
    /// SHA-256 of the actor's certificate; empty without one.
    pub certificate: Vec<u8>,
    /// The issuer of the OpenID provider that has vouched for the actor; empty if none has.
    pub identity_provider: String,
    /// The peer's address, `ip:port`; empty without a connection.
    pub address: String,
    /// The kind of event (`grant.add`).
    pub event: String,
    /// The object, as `kind:id`.
    pub object: String,
    /// The approver, if one was needed.
    pub approved_by: String,
    /// The actor's justification.
    pub justification: String,
    /// Everything that it changed. A change that exceeds one entry is several events.
    pub changes: Vec<ObjectChange>,
}

/// A row of the events that wait for the exchange log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoggedEvent {
    /// An event that was recorded with its change.
    Authentic(AdminEvent),
    /// An event that was recorded by an older version, which authenticated none, and adopted when its file was upgraded.
    Upgraded(AdminEvent),
    /// A row that cannot be authenticated: forged, changed, moved or damaged.
    Refused(RefusedEvent),
}

impl LoggedEvent {
    /// Its number in the sequence.
    pub fn sequence(&self) -> u64 {
        match self {
            LoggedEvent::Authentic(event) | LoggedEvent::Upgraded(event) => event.sequence,
            LoggedEvent::Refused(refused) => refused.sequence,
        }
    }
}

/// A row among the events that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedEvent {
    /// The number in the sequence that it claims.
    pub sequence: u64,
    /// Its unauthenticated claim, at most [`MAX_CLAIM`] characters.
    pub claim: String,
}

/// Longest claim of a refused row in characters.
pub const MAX_CLAIM: usize = 200;

impl RefusedEvent {
    /// Makes a refused row with this claim.
    pub(super) fn new(sequence: u64, claim: &str) -> Self {
        let plain = |c: char| if c.is_control() { '\u{FFFD}' } else { c };
        RefusedEvent { sequence, claim: claim.chars().take(MAX_CLAIM).map(plain).collect() }
    }
}

impl From<&AdminEvent> for RefusedEvent {
    fn from(event: &AdminEvent) -> Self {
        RefusedEvent::new(event.sequence, &format!("{} of {} by {}", event.event, event.object, event.actor))
    }
}

/// Longest justification in characters.
pub const MAX_JUSTIFICATION: usize = 500;
/// Largest record (canonical JSON) that is accepted, in bytes: twice that and its frame fit into one entry.
pub const MAX_RECORD_BYTES: usize = 20_000;
/// Largest sum of changes in one event, in bytes.
pub const MAX_CHANGES_BYTES: usize = 44_000;
/// The placeholder for a record of an older version that no entry can hold: its SHA-256 shows whether the file still has it.
pub(crate) fn too_large(record: &str) -> String {
    let digest = crate::hex::sha256(record.as_bytes());
    format!("\"(larger than an entry, SHA-256 {digest})\"")
}

impl ObjectChange {
    /// Makes a change of an object's record.
    pub(super) fn new<T: Serialize>(
        object: String,
        before: Option<&T>,
        after: Option<&T>,
    ) -> Result<Self, RegistryError> {
        let (before, after) = (record(before)?, record(after)?);
        if after.len() > MAX_RECORD_BYTES && before.len() <= MAX_RECORD_BYTES {
            return Err(RegistryError::Invalid("a record is at most 20 kB: the exchange log holds all of it"));
        }
        // Records of older versions may be larger. Their removal is logged nonetheless.
        let fits = |text: String, most: usize| if text.len() > most { too_large(&text) } else { text };
        let before = fits(before, MAX_RECORD_BYTES);
        Ok(ObjectChange { object, before, after: fits(after, MAX_CHANGES_BYTES - MAX_RECORD_BYTES) })
    }

    /// Returns its approximate size in an entry.
    pub(super) fn size(&self) -> usize {
        self.object.len() + self.before.len() + self.after.len() + 16
    }
}

/// Returns a record as canonical JSON; `null` if there is none.
fn record<T: Serialize>(record: Option<&T>) -> Result<String, RegistryError> {
    let value = serde_json::to_value(record).map_err(|error| RegistryError::Store(error.to_string()))?;
    Ok(canonical_json(&value))
}

/// Returns JSON without white space, its names in order of their bytes (RFC 8785; the registry's numbers are all
/// integers).
pub fn canonical_json(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| *name);
            text.push('{');
            for (at, (name, value)) in sorted.into_iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(name.as_str()).to_string());
                text.push(':');
                write(value, text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                write(item, text);
            }
            text.push(']');
        }
        plain => text.push_str(&plain.to_string()),
    }
}

/// Splits changes into parts that fit into one entry each; at least one part.
pub(super) fn parts(changes: Vec<ObjectChange>) -> Vec<Vec<ObjectChange>> {
    let (mut parts, mut size) = (vec![Vec::new()], 0);
    for change in changes {
        size += change.size();
        if size > MAX_CHANGES_BYTES && parts.last().is_some_and(|part| !part.is_empty()) {
            size = change.size();
            parts.push(Vec::new());
        }
        if let Some(part) = parts.last_mut() {
            part.push(change);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn t4_records_are_written_in_one_way() {
        let value = json!({ "b": [1, { "z": null, "a": "ệ\"" }], "a": true });
        assert_eq!(canonical_json(&value), r#"{"a":true,"b":[1,{"a":"ệ\"","z":null}]}"#);
    }

    #[test]
    fn t4_what_one_entry_cannot_hold_is_several_acts() {
        let change =
            |at: usize| ObjectChange { object: format!("grant:{at}"), before: "x".repeat(9_000), after: "null".into() };
        let parts = parts((0..20).map(change).collect());
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 4, 4, 4]);
        assert_eq!(super::parts(Vec::new()), [Vec::new()]);
        let long = "x".repeat(MAX_RECORD_BYTES);
        assert!(ObjectChange::new("client:a".into(), None, Some(&long)).is_err());
        let old = "x".repeat(MAX_CHANGES_BYTES);
        let gone = ObjectChange::new("client:a".into(), Some(&old), Some(&old));
        // A record that fits into no entry is represented by its digest: another record has another.
        let summary = too_large(&Value::from(old.as_str()).to_string());
        assert!(gone.is_ok_and(|change| change.size() < MAX_CHANGES_BYTES && change.after == summary));
        assert!(summary != too_large("other") && serde_json::from_str::<Value>(&summary).is_ok());
    }
}
