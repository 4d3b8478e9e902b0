//! Streams: responses of a source, and requests of a caller. Both hold one message at a time, so that a slow end slows
//! the other end down, and memory stays bounded.

use super::authorization::AuthorizationWatch;
use super::context::{MAX_SUBJECTS, RequestStreamCounts};
use super::form::{Codec, RequestBody};
use super::record::{ExchangeRecord, append};
use super::response::{self, ResponseBody};
use crate::contract::drift::DriftPolicy;
use crate::contract::fields::{self, Disclosed};
use crate::contract::notes::Observed;
use crate::contract::{Operation, validate};
use crate::drivers::{CallerFault, GatewayFault, SourceError};
use crate::exchange_log::pseudonym::{Commitment, PeriodKeys, PersonKind};
use crate::exchange_log::{Entry, Kind};
use crate::frame::{FrameError, FrameReader, frame};
use crate::guard::StreamPermit;
use crate::server::shared::Shared;
use crate::status::{Reason, Refusal};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use http::{HeaderMap, Response};
use http_body::Frame;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A response stream after its source has begun to respond.
pub(in crate::server) struct OpenedStream {
    pub operation: Arc<Operation>,
    /// The rights by which it was admitted; they may be revoked, or expire, while it runs.
    pub standing: AuthorizationWatch,
    pub messages: BoxStream<'static, Result<Bytes, SourceError>>,
    /// Notes of reading the responses.
    pub observed: Arc<Observed>,
    /// The policy for responses with drift.
    pub drift: DriftPolicy,
    /// Held as long as the stream lives.
    pub _permit: StreamPermit,
    /// When the caller's own deadline passes.
    pub until: Option<Instant>,
}

/// Responds to a server stream: its opening is durable before the first message is sent, its end before the trailers.
pub(in crate::server) async fn respond(opened: OpenedStream, mut record: ExchangeRecord) -> Response<ResponseBody> {
    let id = record.context.id();
    let tree = &opened.operation.response_fields;
    record.context.may_disclose(tree.allowed(opened.standing.mask()));
    let opening = record.note(Kind::StreamOpened).await.and_then(|index| Ok((index, record.context.salts()?)));
    let (index, salts) = match opening {
        Ok(both) => both,
        Err(refusal) => {
            let refusal = record.context.refusal(refusal);
            // The caller is still connected: the exchange ends with the status that it gets, in the counts and, if
            // possible, in the log.
            let unlogged = record.refuse(&refusal).await.err();
            return response::refused(unlogged.as_ref().unwrap_or(&refusal), &id);
        }
    };
    let mut head = response::head(&id);
    response::put_entry(head.headers_mut(), index, &salts, record.context.remaining());
    response::put_maintenance(head.headers_mut(), record.context.notice());
    let disclosed = Disclosed::up_to(opened.operation.max_response_subjects);
    let flow = ResponseStream { opened, record, disclosed, parts: PartSchedule::begin(Instant::now()) };
    *head.body_mut() = ResponseBody::Stream(stream::unfold(Some(flow), ResponseStream::step).boxed());
    head
}

struct ResponseStream {
    opened: OpenedStream,
    record: ExchangeRecord,
    disclosed: Disclosed,
    parts: PartSchedule,
}

/// When a stream logs what it has disclosed so far before its end: after a number of messages, or a time.
struct PartSchedule {
    messages: u32,
    last: Instant,
}

impl PartSchedule {
    const MESSAGES: u32 = 1_000;
    const TIME: Duration = Duration::from_secs(60);

    fn begin(now: Instant) -> Self {
        PartSchedule { messages: 0, last: now }
    }

    /// Counts a message that is about to be sent; returns true if a part is due before it.
    fn is_due(&mut self, now: Instant) -> bool {
        self.messages += 1;
        let due = self.messages > Self::MESSAGES || now.duration_since(self.last) > Self::TIME;
        if due {
            *self = PartSchedule { messages: 1, last: now };
        }
        due
    }
}

impl ResponseStream {
    /// Returns the next frame: a message, or the trailers once the end is on disk.
    async fn step(flow: Option<ResponseStream>) -> Option<(Frame<Bytes>, Option<ResponseStream>)> {
        let mut flow = flow?;
        match flow.next().await {
            Ok(Some(message)) => Some((Frame::data(frame(&message)), Some(flow))),
            Ok(None) => Some((Frame::trailers(flow.end(None).await), None)),
            Err(refusal) => Some((Frame::trailers(flow.end(Some(refusal)).await), None)),
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        let OpenedStream { messages, standing, until, .. } = &mut self.opened;
        let shared = self.record.context.shared();
        let next = tokio::select! {
            next = shared.unless_ending(messages.next()) => next?,
            taken = standing.revoked(None) => return Err(taken),
            () = past(*until) => return Err(Reason::CallerDeadline.into()),
        };
        let Some(message) = next.transpose()? else { return Ok(None) };
        standing.check()?;
        let tree = &self.opened.operation.response_fields;
        let kept = fields::keep(tree, self.opened.standing.mask(), &message, &mut self.disclosed)
            .map_err(|garbled| Refusal::with(Reason::SourceProtocolError, garbled.to_string()))?;
        let kept = self.record.context.form.codec.encode(&self.opened.operation, kept)?;
        self.record.context.response_part(&kept)?;
        if self.parts.is_due(Instant::now()) {
            self.record.context.disclosed(&self.opened.operation, &self.disclosed)?;
            self.count_drift();
            self.record.note(Kind::StreamPart).await?;
        }
        Ok(Some(kept))
    }

    async fn end(&mut self, refusal: Option<Refusal>) -> HeaderMap {
        let (id, refusal) = (self.record.context.id(), refusal.map(|refusal| self.record.context.refusal(refusal)));
        self.record_disclosed();
        self.count_drift();
        self.record.context.noticed(self.opened.observed.snapshot());
        match self.record.close(refusal.as_ref()).await {
            Ok(index) => {
                let mut trailers = match &refusal {
                    Some(refusal) => response::refusal_trailers(refusal, &id),
                    None => response::ok_trailers(),
                };
                response::put_index(&mut trailers, index);
                let (tree, mask) = (&self.opened.operation.response_fields, self.opened.standing.mask());
                response::put_notes(&mut trailers, self.record.context.notes(), |path| tree.allows(mask, path));
                trailers
            }
            Err(unlogged) => response::refusal_trailers(&unlogged, &id),
        }
    }
}

impl ResponseStream {
    /// A watched request may last for an hour.
    fn count_drift(&self) {
        self.record.context.shared().drifted(&self.opened.operation, self.opened.drift, &self.opened.observed);
    }

    fn record_disclosed(&mut self) {
        if let Err(refusal) = self.record.context.disclosed(&self.opened.operation, &self.disclosed) {
            tracing::error!(reason = refusal.reason.as_str(), "the subjects of a stream cannot be logged");
        }
    }
}

/// Waits until a point in time; for ever if there is none.
async fn past(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

impl Drop for ResponseStream {
    fn drop(&mut self) {
        // The caller left the stream: what was disclosed until then belongs into its entry.
        self.record_disclosed();
    }
}

/// Counts that the outgoing stream shares with the record, which takes them at the end.
pub(in crate::server) type StreamCounts = Arc<Mutex<RequestStreamCounts>>;

/// Takes the counts.
pub(in crate::server) fn take_counts(tally: &StreamCounts) -> RequestStreamCounts {
    std::mem::take(&mut *tally.lock().unwrap_or_else(PoisonError::into_inner))
}

struct RequestStream {
    reader: FrameReader<RequestBody>,
    codec: Codec,
    operation: Arc<Operation>,
    shared: Arc<Shared>,
    keys: Arc<PeriodKeys>,
    tally: StreamCounts,
    /// The fields of a part's entry beside its subjects.
    part: Entry,
}

/// The caller's messages, each checked before it is forwarded. Their subjects are logged in parts before further
/// messages are sent.
pub(in crate::server) fn incoming(
    shared: &Arc<Shared>,
    operation: &Arc<Operation>,
    record: &mut ExchangeRecord,
    (client, body): (&str, RequestBody),
) -> Result<(BoxStream<'static, Result<Bytes, SourceError>>, StreamCounts), Refusal> {
    let keys = record.context.keys()?;
    let commitment = Some(Commitment::new(&record.context.salts()?.request));
    let tally: StreamCounts =
        Arc::new(Mutex::new(RequestStreamCounts { commitment, ..RequestStreamCounts::default() }));
    let requests = RequestStream {
        reader: FrameReader::new(body, shared.max_message).within(shared.message_memory.caller(client)),
        codec: record.context.form.codec,
        operation: operation.clone(),
        shared: shared.clone(),
        keys,
        tally: tally.clone(),
        part: record.entry_of(Kind::StreamPart),
    };
    let messages = stream::try_unfold(requests, |mut requests| async move {
        let next = requests.next().await?;
        Ok(next.map(|message| (message, requests)))
    });
    Ok((messages.boxed(), tally))
}

impl RequestStream {
    fn awaits(&self, awaited: bool) {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).awaited = awaited;
    }

    async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        self.awaits(true);
        let next = self.reader.next().await;
        self.awaits(false);
        let Some(sent) = next? else { return Ok(None) };
        let broken = |_| SourceError::from(FrameError::Broken);
        let (message, bytes) = self.codec.decode(&self.operation, &sent).map_err(broken)?;
        let mut violations = validate::check(&self.operation.request, &message);
        let full = {
            let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
            for violation in &mut violations {
                violation.field = format!("[{}].{}", tally.messages, violation.field);
            }
            if violations.is_empty() {
                let named = validate::subjects(&self.operation.subject, &message);
                tally.subjects.extend(named.iter().map(|id| self.keys.pseudonym(PersonKind::Subject, id)));
                tally.messages += 1;
                tally.bytes += sent.len() as u64;
                if let Some(commitment) = &mut tally.commitment {
                    commitment.message(&sent);
                }
            }
            tally.subjects.len() >= MAX_SUBJECTS
        };
        if !violations.is_empty() {
            return Err(CallerFault::Message(violations).into());
        }
        if full {
            self.log_part().await?;
        }
        Ok(Some(bytes))
    }

    async fn log_part(&mut self) -> Result<(), SourceError> {
        let subjects = std::mem::take(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner).subjects);
        for some in subjects.chunks(MAX_SUBJECTS) {
            let part =
                Entry { time_us: crate::exchange_log::clock::now_us(), subjects: some.to_vec(), ..self.part.clone() };
            append(&self.shared, &part).await.map_err(|_| GatewayFault::LogUnavailable)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l5_a_part_is_due_after_so_many_messages_or_so_long() {
        let start = Instant::now();
        let mut parts = PartSchedule::begin(start);
        let due: Vec<u32> = (1..=3_000).filter(|_| parts.is_due(start)).collect();
        assert_eq!(due, [1_001, 2_001]);
        let mut parts = PartSchedule::begin(start);
        assert!(!parts.is_due(start + PartSchedule::TIME));
        assert!(parts.is_due(start + PartSchedule::TIME + Duration::from_millis(1)));
        assert!(!parts.is_due(start + PartSchedule::TIME + Duration::from_millis(2)));
    }
}
