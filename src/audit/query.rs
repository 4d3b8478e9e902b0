//! Queries for entries.

use crate::contract::formats::is_within;
use crate::exchange_log::pseudonym::{PersonKind, Pseudonyms};
use crate::exchange_log::{Entry, LogError, entry::Pseudonym};
use serde::{Deserialize, Serialize};

/// A query for entries; an unset field matches all.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// By client.
    pub client: Option<String>,
    /// By agency code, including those below it.
    pub agency: Option<String>,
    /// By source.
    pub source: Option<String>,
    /// By operation: a part of its full name.
    pub operation: Option<String>,
    /// By scope.
    pub scope: Option<String>,
    /// By reason; `OK` for success.
    pub outcome: Option<String>,
    /// By purpose: a procedure code or a dossier number, as given.
    pub purpose: Option<String>,
    /// By the subjects of its request or its response: any of these pseudonyms.
    #[serde(with = "people")]
    pub subject: Option<Vec<Pseudonym>>,
    /// By the acting official: any of these pseudonyms.
    #[serde(with = "people")]
    pub official: Option<Vec<Pseudonym>>,
    /// From this time on, Unix microseconds.
    pub from_us: Option<i64>,
    /// Until before this time.
    pub to_us: Option<i64>,
    /// Of one exchange, by its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<[u8; 16]>,
    /// By admin event, as `audit.review`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// By the grant that admitted an exchange.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// By access token, by its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// Pseudonyms in a file, as `period:hexadecimal`. One that cannot be read is an error: a query must not lose a subject.
mod people {
    use super::Pseudonym;
    use crate::hex::{hex, unhex};
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    type People = Option<Vec<Pseudonym>>;

    pub fn serialize<S: Serializer>(people: &People, to: S) -> Result<S::Ok, S::Error> {
        let name = |one: &Pseudonym| format!("{}:{}", one.key, hex(&one.value));
        people.as_ref().map(|people| people.iter().map(name).collect::<Vec<_>>()).serialize(to)
    }

    pub fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<People, D::Error> {
        let read = |name: String| {
            let (key, value) = name.split_once(':')?;
            Some(Pseudonym { key: key.to_owned(), value: unhex(value)? })
        };
        let Some(names) = Option::<Vec<String>>::deserialize(from)? else { return Ok(None) };
        let people: Option<Vec<Pseudonym>> = names.into_iter().map(read).collect();
        people.map(Some).ok_or_else(|| D::Error::custom("a pseudonym must be period:hexadecimal"))
    }
}

/// How an entry ended: `OK`, or its reason.
pub fn outcome(entry: &Entry) -> &str {
    if entry.status == 0 { "OK" } else { entry.reason.as_str() }
}

/// Returns all pseudonyms of an id in the log: one under the key of every period that still has one.
///
/// # Errors
/// A key cannot be read, or is not the one that was made.
pub fn known_as(pseudonyms: &Pseudonyms, kind: PersonKind, id: &str) -> Result<Vec<Pseudonym>, LogError> {
    Ok(pseudonyms.all()?.iter().map(|keys| keys.pseudonym(kind, id)).collect())
}

impl Query {
    /// Returns whether it searches for a person: such searches are in the log themselves, with their reason.
    pub fn has_subject_filter(&self) -> bool {
        self.subject.is_some() || self.official.is_some()
    }

    /// Returns the time before which nothing matches: an exchange's entries are not older than its id (RFC 9562,
    /// section 5.7).
    pub fn earliest_us(&self) -> Option<i64> {
        let made = || {
            let id = uuid::Uuid::from_bytes(self.exchange?);
            let (seconds, _) = (id.get_version_num() == 7).then(|| id.get_timestamp())??.to_unix();
            i64::try_from(seconds).ok()?.checked_mul(1_000_000)
        };
        self.from_us.max(made())
    }

    /// Returns whether an entry matches.
    pub fn fits(&self, entry: &Entry) -> bool {
        let same = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
        same(&self.client, &entry.client)
            && same(&self.source, &entry.source)
            && same(&self.scope, &entry.scope)
            && same(&self.outcome, outcome(entry))
            && same(&self.purpose, &entry.purpose)
            && same(&self.event, &entry.event)
            && same(&self.grant, &entry.grant)
            && same(&self.token, &entry.token)
            && self.agency.as_ref().is_none_or(|agency| is_within(agency, &entry.agency))
            && self.operation.as_ref().is_none_or(|part| entry.operation.contains(part.as_str()))
            && self.exchange.is_none_or(|id| entry.exchange_id == id)
            && self.from_us.is_none_or(|from| entry.time_us >= from)
            && self.to_us.is_none_or(|to| entry.time_us < to)
            && self
                .subject
                .as_ref()
                .is_none_or(|ids| entry.subjects.iter().chain(&entry.response_subjects).any(|one| ids.contains(one)))
            && self.official.as_ref().is_none_or(|ids| entry.official.iter().any(|one| ids.contains(one)))
    }
}
