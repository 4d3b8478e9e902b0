//! The state of one exchange while it runs: caller, operation, rights, and what has passed so far. It logs nothing:
//! `record.rs` alone builds the log's entries from it.

use super::form::CallForm;
use crate::access::CallMetadata;
use crate::access::limits::Remaining;
use crate::access::refusals::Identity;
use crate::access::token::VerifiedToken;
use crate::contract::fields::Disclosed;
use crate::contract::formats::{self, Format};
use crate::contract::notes::Notes;
use crate::contract::options::DataClass;
use crate::contract::settings::SentFlag;
use crate::contract::{Operation, validate};
use crate::exchange_log::clock::now_us;
use crate::exchange_log::entry::Pseudonym;
use crate::exchange_log::pseudonym::{Commitment, Direction, PeriodKeys, PersonKind, Salt, commit};
use crate::identity::Peer;
use crate::registry::{self, ClientView, Granted, MaintenanceNotice};
use crate::server::shared::{Route, Shared, Upstream};
use crate::status::{Maintenance, Reason, Refusal};
use crate::telemetry::{CallerTrace, ExchangeTrace, OperationMetrics, Stage, StageTimes};
use bytes::Bytes;
use http::HeaderMap;
use prost_reflect::DynamicMessage;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Maximum number of subjects in one entry: about 30 kB of its 64.
pub const MAX_SUBJECTS: usize = 1_000;

/// The salts of an exchange's commitments, returned to the caller.
#[derive(Debug, Clone, Copy)]
pub struct Salts {
    /// Of the request.
    pub request: Salt,
    /// Of the response.
    pub response: Salt,
}

/// Messages and bytes of one direction of an exchange.
#[derive(Default)]
pub(super) struct MessageVolume {
    pub bytes: u64,
    pub messages: u64,
}

/// The subjects and the contents of an exchange: lists that its last entry takes and earlier entries copy.
#[derive(Default, Clone)]
pub(super) struct Contents {
    pub official: Option<Pseudonym>,
    pub subjects: Vec<Pseudonym>,
    pub request_commitment: Vec<u8>,
    pub fields: Vec<String>,
    pub response_subjects: Vec<Pseudonym>,
    pub response_commitment: Vec<u8>,
}

/// The state of one exchange while it runs.
pub struct ExchangeContext {
    pub(super) shared: Arc<Shared>,
    pub(super) id: [u8; 16],
    pub(super) peer: Arc<Peer>,
    arrived: Instant,
    /// How it came.
    pub form: CallForm,
    pub(super) stages: StageTimes,
    /// Its trace, where the gateway has traces.
    pub(super) trace: Option<ExchangeTrace>,
    pub(super) client: Option<Arc<ClientView>>,
    pub(super) token: Option<Arc<VerifiedToken>>,
    pub(super) operation: Option<Arc<Operation>>,
    /// Whether it is answered when its entry is on this gateway's own disk alone, while no majority of etcd responds.
    pub(super) spools: bool,
    pub(super) metrics: Option<Arc<OperationMetrics>>,
    /// The upstream that was used, and the shadowed one.
    pub(super) upstream: Option<Arc<Upstream>>,
    pub(super) shadow: Option<Arc<Upstream>>,
    pub(super) purpose: Option<String>,
    pub(super) granted: Option<(Granted, Remaining)>,
    keys: Option<Arc<PeriodKeys>>,
    salts: Option<Salts>,
    /// The persons that the request names.
    named: Vec<String>,
    pub(super) contents: Contents,
    pub(super) request: MessageVolume,
    pub(super) response: MessageVolume,
    pub(super) response_subjects_omitted: u64,
    /// The commitment of a response stream, so far.
    pub(super) commitment: Option<Commitment>,
    pub(super) source_time: Duration,
    pub(super) attempts: u32,
    pub(super) notes: Notes,
    /// Of a write: whether its request has been sent, until it is known that it was not processed.
    write: Option<SentFlag>,
    /// The maintenance of its source that the caller is told of.
    notice: Option<Arc<MaintenanceNotice>>,
    /// Notes of reading the response, for the caller.
    pub(super) response_metadata: HeaderMap,
}

impl ExchangeContext {
    /// Begins with a call's arrival.
    pub fn arrive(shared: &Arc<Shared>, peer: &Arc<Peer>, arrived: Instant) -> Self {
        ExchangeContext {
            shared: shared.clone(),
            id: uuid::Uuid::now_v7().into_bytes(),
            peer: peer.clone(),
            arrived,
            form: CallForm::default(),
            stages: StageTimes::begin(arrived),
            trace: None,
            client: None,
            token: None,
            operation: None,
            spools: false,
            metrics: None,
            upstream: None,
            shadow: None,
            purpose: None,
            granted: None,
            keys: None,
            salts: None,
            named: Vec::new(),
            contents: Contents::default(),
            request: MessageVolume::default(),
            response: MessageVolume::default(),
            response_subjects_omitted: 0,
            commitment: None,
            source_time: Duration::ZERO,
            attempts: 0,
            notes: Notes::default(),
            write: None,
            notice: None,
            response_metadata: HeaderMap::new(),
        }
    }

    /// Returns the state that all calls share.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The exchange id as text.
    pub fn id(&self) -> String {
        uuid::Uuid::from_bytes(self.id).to_string()
    }

    /// Time since the call's arrival.
    pub fn elapsed(&self) -> Duration {
        self.arrived.elapsed()
    }

    /// Begins its trace, where the gateway has traces: the caller's own goes on.
    pub fn begin_trace(&mut self, headers: &HeaderMap) {
        if self.shared.tracer.is_on() {
            self.trace = self.shared.tracer.begin(CallerTrace::read(headers));
        }
    }

    /// The `traceparent` for its source: of the gateway's own span, or, where it has none, the caller's.
    pub fn traceparent(&self, headers: &HeaderMap) -> Option<String> {
        match &self.trace {
            Some(trace) => Some(trace.to_source()),
            None => CallerTrace::read(headers).map(|caller| caller.to_text()),
        }
    }

    /// Enters a stage of the exchange; returns the previous one.
    pub fn enter(&mut self, stage: Stage) -> Stage {
        self.stages.enter(stage, Instant::now())
    }

    /// Records the client.
    pub fn client(&mut self, view: &Arc<ClientView>) {
        self.client = Some(view.clone());
    }

    /// Records its token.
    pub fn token(&mut self, token: &Arc<VerifiedToken>) {
        self.token = Some(token.clone());
    }

    /// Records the operation. Only an operation of a contract is named: a path of the caller's own might contain
    /// anything.
    pub fn operation(&mut self, route: &Route) {
        self.metrics = Some(route.metrics.clone());
        self.operation = Some(route.operation.clone());
        self.spools = route.spools;
        self.upstream = Some(route.upstream.clone());
    }

    /// Records the upstream of an attempt.
    pub fn upstream(&mut self, upstream: &Arc<Upstream>) {
        if !self.upstream.as_ref().is_some_and(|before| Arc::ptr_eq(before, upstream)) {
            self.upstream = Some(upstream.clone());
        }
    }

    /// Records that another hub gets the same request; returns false if it has no name for the log.
    pub fn shadow(&mut self, upstream: &Arc<Upstream>) -> bool {
        self.shadow = Some(upstream.clone());
        upstream.hub.as_ref().is_some_and(|hub| !hub.is_empty())
    }

    /// Records the purpose and the acting official.
    ///
    /// # Errors
    /// [`Reason::ExchangeLogUnavailable`] if the keys of pseudonyms cannot be used.
    pub fn metadata(&mut self, metadata: &CallMetadata) -> Result<(), Refusal> {
        self.purpose.clone_from(&metadata.purpose);
        if let Some(official) = &metadata.official {
            self.contents.official = Some(self.keys()?.pseudonym(PersonKind::Official, official));
        }
        Ok(())
    }

    /// Records the request message and the subjects that it names.
    ///
    /// # Errors
    /// As [`Self::keys`].
    pub fn request(&mut self, operation: &Operation, message: &DynamicMessage, bytes: &Bytes) -> Result<(), Refusal> {
        let keys = self.keys()?;
        let named = validate::subjects(&operation.subject, message);
        self.contents.subjects =
            named.iter().take(MAX_SUBJECTS).map(|id| keys.pseudonym(PersonKind::Subject, id)).collect();
        self.named = named;
        self.contents.request_commitment = commit(&self.salts()?.request, bytes);
        self.request = MessageVolume { bytes: bytes.len() as u64, messages: 1 };
        Ok(())
    }

    /// Returns whether the request names a person by citizen id without a purpose, for an operation that is not
    /// personal as such, as that of enterprises: since 2025-07-01 a household business has its owner's id.
    pub fn is_purpose_missing(&self, operation: &Operation) -> bool {
        let person = |id: &String| formats::check(Format::CitizenId, id).is_ok();
        let unsaid = self.purpose.as_ref().is_none_or(String::is_empty);
        operation.data_class < DataClass::Personal && unsaid && self.named.iter().any(person)
    }

    /// Records the messages of a client stream.
    pub fn request_stream(&mut self, counts: RequestStreamCounts) {
        self.contents.subjects = counts.subjects;
        self.contents.request_commitment = counts.commitment.map(Commitment::finish).unwrap_or_default();
        self.request = MessageVolume { bytes: counts.bytes, messages: counts.messages };
    }

    /// Returns the keys of the period in which the exchange arrived.
    ///
    /// # Errors
    /// [`Reason::ExchangeLogUnavailable`] if they cannot be used.
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

    /// Returns the salts of the commitments; computed once.
    ///
    /// # Errors
    /// As [`Self::keys`].
    pub fn salts(&mut self) -> Result<Salts, Refusal> {
        if let Some(salts) = self.salts {
            return Ok(salts);
        }
        let keys = self.keys()?;
        let salts = Salts {
            request: keys.salt(&self.id, Direction::Request),
            response: keys.salt(&self.id, Direction::Response),
        };
        self.salts = Some(salts);
        Ok(salts)
    }

    /// Records the grant, and what remains of it.
    pub fn admitted(&mut self, grant: &Granted, left: Remaining) {
        self.granted = Some((grant.clone(), left));
    }

    /// Returns what remains of the grant's rate and quota, for the caller.
    pub fn remaining(&self) -> Option<Remaining> {
        self.granted.as_ref().map(|(_, left)| *left)
    }

    /// Records the maintenance of its source that the caller is told of.
    pub fn maintenance(&mut self, notice: Option<&Arc<MaintenanceNotice>>) {
        self.notice = notice.cloned();
    }

    /// Returns the maintenance of its source that the caller is told of.
    pub fn notice(&self) -> Option<&MaintenanceNotice> {
        self.notice.as_deref()
    }

    /// Records that this call is about to send a write. From then on only the source's response shows its outcome.
    pub fn writes(&mut self, sent: &SentFlag) {
        self.write = Some(sent.clone());
    }

    /// Records that its source has certainly not processed it.
    pub fn not_done(&mut self) {
        self.write = None;
    }

    /// Returns a refusal for its caller and the log: of a write that may have been processed, that its outcome is not
    /// known; of a source under maintenance, until when.
    pub fn refusal(&self, refusal: Refusal) -> Refusal {
        let refusal = match &self.write {
            Some(sent) if sent.is_marked() && refusal.cause.is_none() => refusal.of_an_open_write(),
            _ => refusal,
        };
        let now = registry::now();
        match &self.notice {
            Some(notice) if notice.is_active(now) => refusal.under_maintenance(Maintenance {
                interval: notice.interval(),
                remaining: Duration::from_secs(notice.ends.abs_diff(now)),
                vietnamese: notice.text_vi.clone(),
                english: notice.text_en.clone(),
            }),
            _ => refusal,
        }
    }

    /// Records the source's duration and the number of attempts.
    pub fn dispatched(&mut self, source_time: Duration, attempts: u32) {
        (self.source_time, self.attempts) = (source_time, attempts);
    }

    /// Records the unary response in its final form.
    ///
    /// # Errors
    /// As [`Self::keys`].
    pub fn response(&mut self, bytes: &Bytes) -> Result<(), Refusal> {
        self.contents.response_commitment = commit(&self.salts()?.response, bytes);
        self.response = MessageVolume { bytes: bytes.len() as u64, messages: 1 };
        Ok(())
    }

    /// Records one message of a response stream in its final form.
    ///
    /// # Errors
    /// As [`Self::keys`].
    pub fn response_part(&mut self, bytes: &Bytes) -> Result<(), Refusal> {
        let salts = self.salts()?;
        let commitment = self.commitment.get_or_insert_with(|| Commitment::new(&salts.response));
        commitment.message(bytes);
        self.response.bytes += bytes.len() as u64;
        self.response.messages += 1;
        Ok(())
    }

    /// Records which fields were disclosed, and the subjects in them that the request does not name.
    ///
    /// # Errors
    /// As [`Self::keys`].
    pub fn disclosed(&mut self, operation: &Operation, disclosed: &Disclosed) -> Result<(), Refusal> {
        self.contents.fields = disclosed.paths(&operation.response_fields);
        self.response_subjects_omitted = disclosed.omitted();
        let others = disclosed.subjects().any(|id| !self.named.iter().any(|named| named == id));
        if others {
            let keys = self.keys()?;
            let others = disclosed.subjects().filter(|id| !self.named.iter().any(|named| named == id));
            self.contents.response_subjects = others.map(|id| keys.pseudonym(PersonKind::Subject, id)).collect();
        }
        Ok(())
    }

    /// Records which fields a stream may disclose: in its opening entry, since a crash leaves no other one.
    pub fn may_disclose(&mut self, fields: Vec<String>) {
        self.contents.fields = fields;
    }

    /// Records notes of reading its responses; paths only.
    pub fn noticed(&mut self, notes: Notes) {
        self.notes = notes;
    }

    /// Returns these notes.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Returns the identity under which its refusals are counted.
    pub(super) fn identity(&self) -> Identity {
        match &self.client {
            Some(view) => Identity::Client(view.client.id.as_str().into()),
            None => Identity::Certificate(self.peer.certificate.thumbprint),
        }
    }
}

/// Counts of a client stream while it passes.
#[derive(Default)]
pub struct RequestStreamCounts {
    /// Subjects since the last part.
    pub subjects: Vec<Pseudonym>,
    /// Bytes of the messages.
    pub bytes: u64,
    /// Messages.
    pub messages: u64,
    /// The commitment so far.
    pub commitment: Option<Commitment>,
    /// Whether the call waits for the caller's next message.
    pub awaited: bool,
}
