//! The record of one exchange: its entry, from arrival to the moment it is durable. Whatever becomes of a call, its
//! record is written: by [`ExchangeRecord::close`], which the answer waits for, or, where the caller is gone, when it is dropped.

use crate::access::CallMetadata;
use crate::access::limits::Remaining;
use crate::access::refusals::{Identity, RefusalKind};
use crate::access::token::VerifiedToken;
use crate::contract::fields::Disclosed;
use crate::contract::formats::{self, Format};
use crate::contract::notes::Notes;
use crate::contract::options::DataClass;
use crate::contract::settings::SentFlag;
use crate::contract::{Operation, validate};
use crate::exchange_log::pseudonym::{Commitment, Direction, PeriodKeys, PersonKind, Salt, commit};
use crate::exchange_log::{Entry, Kind, LogError, entry};
use crate::identity::{Peer, Thumbprint};
use crate::registry::{ClientView, GrantView};
use crate::server::shared::{Route, Shared};
use crate::status::{Reason, Refusal};
use crate::telemetry::OperationMetrics;
use bytes::Bytes;
use http::HeaderMap;
use prost_reflect::DynamicMessage;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most subjects in one entry: about 30 kB of its 64.
pub const MAX_SUBJECTS: usize = 1_000;

/// The salts of an exchange's commitments, handed to the caller.
#[derive(Debug, Clone, Copy)]
pub struct Salts {
    /// Of the request.
    pub request: Salt,
    /// Of the answer.
    pub answer: Salt,
}

/// The record of one exchange.
pub struct ExchangeRecord {
    shared: Arc<Shared>,
    entry: Entry,
    id: [u8; 16],
    certificate: Thumbprint,
    arrived: Instant,
    keys: Option<Arc<PeriodKeys>>,
    salts: Option<Salts>,
    answer: Option<Commitment>,
    closed: bool,
    /// Of a write: whether its request has left, until it is known that it was not done.
    write: Option<SentFlag>,
    /// Whom the request names.
    named: Vec<String>,
    /// Of the operation that is called.
    metrics: Option<Arc<OperationMetrics>>,
    /// What is left of the grant's rate and quota, for the caller.
    pub remaining: Option<Remaining>,
    /// What was noticed while its answer was read, for the caller.
    pub response_metadata: HeaderMap,
}

fn now_us() -> i64 {
    crate::exchange_log::clock::now_us()
}

impl ExchangeRecord {
    /// What all calls share.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Begins with a call's arrival.
    pub fn arrive(shared: &Arc<Shared>, peer: &Peer, arrived: Instant) -> Self {
        let id = uuid::Uuid::now_v7();
        let entry = Entry {
            version: entry::VERSION,
            kind: Kind::Exchange as i32,
            exchange_id: id.as_bytes().to_vec(),
            node: shared.node.clone(),
            certificate: peer.certificate.thumbprint.0.to_vec(),
            peer: peer.address.to_string(),
            ..Entry::default()
        };
        ExchangeRecord {
            shared: shared.clone(),
            entry,
            id: id.into_bytes(),
            certificate: peer.certificate.thumbprint,
            arrived,
            keys: None,
            salts: None,
            answer: None,
            closed: false,
            write: None,
            named: Vec::new(),
            metrics: None,
            remaining: None,
            response_metadata: HeaderMap::new(),
        }
    }

    /// The exchange id as text.
    pub fn id(&self) -> String {
        uuid::Uuid::from_bytes(self.id).to_string()
    }

    /// Who calls.
    pub fn client(&mut self, view: &ClientView) {
        self.entry.client.clone_from(&view.client.id);
        self.entry.agency.clone_from(&view.client.agency);
    }

    /// With which token.
    pub fn token(&mut self, token: &VerifiedToken) {
        self.entry.token.clone_from(&token.id);
    }

    /// What is called. Only an operation of a contract is named: a path of the caller's own might hold anything.
    pub fn operation(&mut self, route: &Route) {
        let operation = &route.operation;
        self.metrics = Some(route.metrics.clone());
        self.entry.source.clone_from(&operation.source.id);
        self.entry.operation.clone_from(&operation.full_name);
        self.entry.scope.clone_from(&operation.scope);
        self.hub(route.way.hub.as_deref());
    }

    /// The hub that it goes through.
    pub fn hub(&mut self, hub: Option<&str>) {
        hub.unwrap_or_default().clone_into(&mut self.entry.hub);
    }

    /// Another hub is asked the same; false where it has no name to be told by.
    pub fn shadow(&mut self, hub: Option<&str>) -> bool {
        hub.unwrap_or_default().clone_into(&mut self.entry.shadow_hub);
        !self.entry.shadow_hub.is_empty()
    }

    /// Why, and on whose behalf.
    pub fn metadata(&mut self, said: &CallMetadata) -> Result<(), Refusal> {
        self.entry.purpose = said.purpose.clone().unwrap_or_default();
        if let Some(official) = &said.official {
            self.entry.official = Some(self.keys()?.pseudonym(PersonKind::Official, official));
        }
        Ok(())
    }

    /// The request message, with those whom it names.
    pub fn request(&mut self, operation: &Operation, message: &DynamicMessage, bytes: &Bytes) -> Result<(), Refusal> {
        let keys = self.keys()?;
        let named = validate::subjects(&operation.subject, message);
        self.entry.subjects =
            named.iter().take(MAX_SUBJECTS).map(|id| keys.pseudonym(PersonKind::Subject, id)).collect();
        self.named = named;
        self.entry.request_commitment = commit(&self.salts()?.request, bytes);
        self.entry.request_bytes = bytes.len() as u64;
        self.entry.request_messages = 1;
        Ok(())
    }

    /// Whether the request names a person by citizen id, and nobody has said why: of an operation that is not personal as such, as that of
    /// enterprises, among which a household business goes by its owner's id since 2025-07-01.
    pub fn is_purpose_missing(&self, operation: &Operation) -> bool {
        let person = |id: &String| formats::check(Format::CitizenId, id).is_ok();
        operation.data_class < DataClass::Personal && self.entry.purpose.is_empty() && self.named.iter().any(person)
    }

    /// What a client stream brought.
    pub fn request_stream(&mut self, tally: RequestStreamCounts) {
        self.entry.subjects = tally.subjects;
        self.entry.request_bytes = tally.bytes;
        self.entry.request_messages = tally.messages;
        self.entry.request_commitment = tally.commitment.map(Commitment::finish).unwrap_or_default();
    }

    /// Keys of the period in which the exchange arrived.
    pub fn keys(&mut self) -> Result<Arc<PeriodKeys>, Refusal> {
        if let Some(keys) = &self.keys {
            return Ok(keys.clone());
        }
        let keys = self.shared.pseudonyms.keys(now_us()).map_err(|error| {
            tracing::error!(%error, "the keys of pseudonyms cannot be used");
            Refusal::from(Reason::ExchangeLogUnavailable)
        })?;
        self.keys = Some(keys.clone());
        Ok(keys)
    }

    /// The salts of the commitments; worked out once.
    pub fn salts(&mut self) -> Result<Salts, Refusal> {
        if let Some(salts) = self.salts {
            return Ok(salts);
        }
        let keys = self.keys()?;
        let salts =
            Salts { request: keys.salt(&self.id, Direction::Request), answer: keys.salt(&self.id, Direction::Answer) };
        self.salts = Some(salts);
        Ok(salts)
    }

    /// Under which grant, and what is left of it.
    pub fn admitted(&mut self, grant: &GrantView, left: Remaining) {
        self.entry.grant = grant.id.to_string();
        self.entry.grant_call = left.call;
        self.remaining = Some(left);
    }

    /// Logs a note about the exchange that must be durable before it goes on: a write's intent, a stream's opening.
    pub async fn note(&self, kind: Kind) -> Result<u64, Refusal> {
        append(&self.shared, &self.entry_of(kind)).await
    }

    /// An entry of this exchange, of another kind.
    pub fn entry_of(&self, kind: Kind) -> Entry {
        Entry { kind: kind as i32, time_us: now_us(), total_us: self.elapsed_us(), ..self.entry.clone() }
    }

    /// A write is about to go out by this call. From then on its outcome is known by the source's answer alone.
    pub fn writes(&mut self, sent: &SentFlag) {
        self.write = Some(sent.clone());
    }

    /// Its source has certainly not done it.
    pub fn not_done(&mut self) {
        self.write = None;
    }

    /// A refusal as its caller and the log are told: of a write that may have been done, that its outcome is not known.
    pub fn refusal(&self, refusal: Refusal) -> Refusal {
        match &self.write {
            Some(sent) if sent.is_marked() && refusal.cause.is_none() => refusal.of_an_open_write(),
            _ => refusal,
        }
    }

    /// How long the source took.
    pub fn source_duration(&mut self, time: Duration) {
        self.entry.source_us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    }

    /// How often the source was asked; once is not told.
    pub fn attempts(&mut self, attempts: u32) {
        self.entry.attempts = if attempts > 1 { attempts } else { 0 };
    }

    /// The one answer, as it will leave.
    pub fn response(&mut self, bytes: &Bytes) -> Result<(), Refusal> {
        self.entry.answer_commitment = commit(&self.salts()?.answer, bytes);
        self.entry.answer_bytes = bytes.len() as u64;
        self.entry.answer_messages = 1;
        Ok(())
    }

    /// One message of a stream of answers, as it will leave.
    pub fn response_part(&mut self, bytes: &Bytes) -> Result<(), Refusal> {
        let salts = self.salts()?;
        let commitment = self.answer.get_or_insert_with(|| Commitment::new(&salts.answer));
        commitment.message(bytes);
        self.entry.answer_bytes += bytes.len() as u64;
        self.entry.answer_messages += 1;
        Ok(())
    }

    /// Which fields were disclosed, and whom they name beside those whom the request names.
    pub fn disclosed(&mut self, operation: &Operation, disclosed: &Disclosed) -> Result<(), Refusal> {
        self.entry.fields = disclosed.paths(&operation.response_fields);
        self.entry.answer_subjects_omitted = disclosed.omitted();
        let others = disclosed.subjects().any(|id| !self.named.iter().any(|named| named == id));
        if others {
            let keys = self.keys()?;
            let others = disclosed.subjects().filter(|id| !self.named.iter().any(|named| named == id));
            self.entry.answer_subjects = others.map(|id| keys.pseudonym(PersonKind::Subject, id)).collect();
        }
        Ok(())
    }

    /// Which fields a stream may disclose: they stand in its opening, since a crash leaves no other entry.
    pub fn may_disclose(&mut self, fields: Vec<String>) {
        self.entry.fields = fields;
    }

    /// What was noticed while its answers were read; paths only.
    pub fn noticed(&mut self, notes: &Notes) {
        self.entry.dropped_fields.clone_from(&notes.dropped_fields);
        self.entry.unknown_codes = notes.unknown_codes.iter().map(|(path, _)| path.clone()).collect();
        self.entry.unknown_codes.dedup();
        self.entry.xroad_id.clone_from(&notes.xroad.id);
        self.entry.xroad_request_id.clone_from(&notes.xroad.request_id);
        self.entry.xroad_request_hash.clone_from(&notes.xroad.request_hash);
    }

    fn elapsed_us(&self) -> u64 {
        u64::try_from(self.arrived.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn outcome(&mut self, refusal: Option<&Refusal>) {
        self.closed = true;
        self.entry.time_us = now_us();
        self.entry.total_us = self.elapsed_us();
        if let Some(commitment) = self.answer.take() {
            self.entry.answer_commitment = commitment.finish();
        }
        if let Some(refusal) = refusal {
            self.entry.status = refusal.reason.code() as u32;
            self.entry.reason = refusal.reason.as_str().to_owned();
            self.entry.source_code = refusal.source_code.clone().unwrap_or_default();
            refusal.fault.as_str().clone_into(&mut self.entry.fault);
            if let Some(status) = &refusal.source_status {
                self.entry.source_reason.clone_from(&status.reason);
                self.entry.source_dropped.clone_from(&status.dropped);
            }
            refusal.rule.as_deref().unwrap_or_default().clone_into(&mut self.entry.rule);
            refusal.cause.map_or("", Reason::as_str).clone_into(&mut self.entry.cause);
        }
        match &self.metrics {
            Some(metrics) => metrics.count(&self.entry),
            None => self.shared.metrics.exchanges.of("", "").count(&self.entry),
        }
    }

    /// Ends the record; its index comes when it is durable. Only then may the answer leave.
    pub async fn close(&mut self, refusal: Option<&Refusal>) -> Result<u64, Refusal> {
        self.outcome(refusal);
        append(&self.shared, &self.entry).await.map_err(|unlogged| self.refusal(unlogged))
    }

    /// Ends the record of a call that is refused; without an index where its entry was left out. An exchange that was
    /// admitted under a grant has its entry always; what was refused before that is bounded for each identity.
    pub async fn refuse(&mut self, refusal: &Refusal) -> Result<Option<u64>, Refusal> {
        if !self.entry.grant.is_empty() {
            return self.close(Some(refusal)).await.map(Some);
        }
        self.outcome(Some(refusal));
        let noted = self.shared.refusals.note(RefusalKind::Exchange, self.identity(), self.entry.clone()).await;
        noted.map_err(|_| Reason::ExchangeLogUnavailable.into())
    }

    /// Whose refusals are counted with this one.
    fn identity(&self) -> Identity {
        if self.entry.client.is_empty() {
            return Identity::Certificate(self.certificate);
        }
        Identity::Client(self.entry.client.as_str().into())
    }
}

impl Drop for ExchangeRecord {
    fn drop(&mut self) {
        if !self.closed {
            let refusal = self.refusal(Reason::Cancelled.into());
            self.outcome(Some(&refusal));
            if self.entry.grant.is_empty() {
                let (by, entry) = (self.identity(), std::mem::take(&mut self.entry));
                self.shared.refusals.note_detached(RefusalKind::Exchange, by, entry);
            } else if let Err(error) = self.shared.log.append_detached(&self.entry) {
                tracing::error!(%error, "a cancelled exchange could not be logged");
            }
        }
    }
}

/// Appends an entry and waits until it is durable.
pub async fn append(shared: &Shared, entry: &Entry) -> Result<u64, Refusal> {
    shared.log.append(entry).await.map_err(|error| {
        if !matches!(error, LogError::Io { .. }) {
            tracing::error!(%error, "an exchange could not be logged");
        }
        Reason::ExchangeLogUnavailable.into()
    })
}

/// What is counted of a client stream while it passes.
#[derive(Default)]
pub struct RequestStreamCounts {
    /// Subjects since the last part.
    pub subjects: Vec<entry::Pseudonym>,
    /// Bytes of the messages.
    pub bytes: u64,
    /// Messages.
    pub messages: u64,
    /// The commitment so far.
    pub commitment: Option<Commitment>,
    /// Whether the caller's next message is waited for.
    pub awaited: bool,
}
