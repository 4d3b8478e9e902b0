//! The record of one exchange: this file alone builds the log's entries from the exchange's context. Every call's last
//! entry is written: by [`ExchangeRecord::close`], which the response waits for, or, if the caller is gone, when the
//! record is dropped.

use super::context::{Contents, ExchangeContext};
use crate::access::refusals::RefusalKind;
use crate::exchange_log::clock::now_us;
use crate::exchange_log::{Entry, Kind, LogError, entry};
use crate::identity::Peer;
use crate::server::shared::{Shared, Upstream};
use crate::status::{Reason, Refusal};
use crate::telemetry::{EndedExchange, Stage};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The record of one exchange, with its context.
pub struct ExchangeRecord {
    /// The state of the exchange.
    pub context: ExchangeContext,
    closed: bool,
    /// The last entry, until its line is written.
    last: Option<Entry>,
}

impl ExchangeRecord {
    /// Begins with a call's arrival.
    pub fn arrive(shared: &Arc<Shared>, peer: &Arc<Peer>, arrived: Instant) -> Self {
        ExchangeRecord { context: ExchangeContext::arrive(shared, peer, arrived), closed: false, last: None }
    }

    /// Logs a note about the exchange that must be durable before it continues: a write's intent, a stream's opening.
    ///
    /// # Errors
    /// [`Reason::ExchangeLogUnavailable`].
    pub async fn note(&mut self, kind: Kind) -> Result<Option<u64>, Refusal> {
        let before = self.context.enter(Stage::Log);
        let noted = append(&self.context.shared, &self.entry_of(kind)).await;
        self.context.enter(before);
        noted
    }

    /// Returns an entry of this exchange while it runs.
    pub fn entry_of(&self, kind: Kind) -> Entry {
        make_entry(&self.context, kind, self.context.contents.clone())
    }

    /// The last entry, which takes the context's lists.
    fn last_entry(&mut self, refusal: Option<&Refusal>) -> Entry {
        self.closed = true;
        let context = &mut self.context;
        context.enter(Stage::Log);
        if let Some(commitment) = context.commitment.take() {
            context.contents.response_commitment = commitment.finish();
        }
        let contents = std::mem::take(&mut context.contents);
        let mut entry = make_entry(context, Kind::Exchange, contents);
        if let Some(refusal) = refusal {
            put_refusal(&mut entry, refusal);
        }
        match &context.metrics {
            Some(metrics) => metrics.count(&entry),
            None => context.shared.metrics.exchanges.of("", "").count(&entry),
        }
        entry
    }

    /// Counts the stages, and hands over the access line and the trace, when the last entry is durable or it is known that it will not be.
    fn finish(&mut self, index: Option<u64>) {
        let context = &mut self.context;
        context.enter(Stage::Log);
        if let Some(metrics) = &context.metrics {
            metrics.count_stages(&context.stages);
        }
        let (lines, trace) = (&context.shared.access_lines, context.trace.filter(|trace| trace.sampled));
        let Some(entry) = self.last.take().filter(|_| lines.are_on() || trace.is_some()) else { return };
        let ended = Arc::new(EndedExchange::of(entry, context.stages, index));
        lines.put(&ended);
        if let Some(trace) = trace {
            context.shared.tracer.put(trace, &ended, context.granted.is_some());
        }
    }

    /// Keeps a copy of an entry that others take, where there are access lines, or the exchange is traced.
    fn keep(&mut self, entry: &Entry) {
        let traced = self.context.trace.is_some_and(|trace| trace.sampled);
        self.last = (traced || self.context.shared.access_lines.are_on()).then(|| entry.clone());
    }

    /// Ends the record; returns its index when it is durable, without one where that is known only when it is sealed. Only
    /// then may the response be sent.
    ///
    /// # Errors
    /// [`Reason::ExchangeLogUnavailable`]; of a write that may have been done, [`Reason::WriteOutcomeUnknown`].
    pub async fn close(&mut self, refusal: Option<&Refusal>) -> Result<Option<u64>, Refusal> {
        let entry = self.last_entry(refusal);
        let (log, entry) = (&self.context.shared.log, self.last.insert(entry));
        let logged = match self.context.spools {
            true => log.append_or_spool(entry).await.map_err(|error| unlogged(&error)),
            false => append(&self.context.shared, entry).await,
        };
        self.finish(logged.as_ref().ok().copied().flatten());
        logged.map_err(|unlogged| self.context.refusal(unlogged))
    }

    /// Ends the record of a refused call; without an index if its entry was suppressed. An exchange that was admitted
    /// under a grant always has its entry; entries of earlier refusals are limited for each identity.
    ///
    /// # Errors
    /// As [`Self::close`].
    pub async fn refuse(&mut self, refusal: &Refusal) -> Result<Option<u64>, Refusal> {
        if self.context.granted.is_some() {
            return self.close(Some(refusal)).await;
        }
        let entry = self.last_entry(Some(refusal));
        self.keep(&entry);
        let noted = self.context.shared.refusals.note(RefusalKind::Exchange, self.context.identity(), entry).await;
        self.finish(noted.as_ref().ok().copied().flatten());
        noted.map_err(|_| Reason::ExchangeLogUnavailable.into())
    }
}

impl Drop for ExchangeRecord {
    fn drop(&mut self) {
        if self.closed {
            // The caller went away while its entry was on its way to the disk: the line has no index.
            if self.last.is_some() {
                self.finish(None);
            }
            return;
        }
        let refusal = self.context.refusal(Reason::Cancelled.into());
        let entry = self.last_entry(Some(&refusal));
        self.keep(&entry);
        let ExchangeContext { shared, granted, .. } = &self.context;
        if granted.is_none() {
            shared.refusals.note_detached(RefusalKind::Exchange, self.context.identity(), entry);
        } else if let Err(error) = shared.log.append_detached(&entry) {
            tracing::error!(%error, "a cancelled exchange could not be logged");
        }
        self.finish(None);
    }
}

/// Makes an entry: the only place that fills the log's fields from a call.
fn make_entry(context: &ExchangeContext, kind: Kind, contents: Contents) -> Entry {
    let client = context.client.as_ref().map(|view| &view.client);
    let operation = context.operation.as_deref();
    let hub = |upstream: &Option<Arc<Upstream>>| upstream.as_ref().and_then(|upstream| upstream.hub.clone());
    let text = |text: Option<&String>| text.cloned().unwrap_or_default();
    let notes = &context.notes;
    let stage = |stage| micros(context.stages.of(stage));
    let mut unknown_codes: Vec<String> = notes.unknown_codes.iter().map(|(path, _)| path.clone()).collect();
    unknown_codes.dedup();
    Entry {
        version: entry::VERSION,
        kind: kind as i32,
        exchange_id: context.id.to_vec(),
        time_us: now_us(),
        total_us: micros(context.elapsed()),
        node: context.shared.node.clone(),
        peer: context.peer.address.to_string(),
        certificate: context.peer.certificate.thumbprint.0.to_vec(),
        client: text(client.map(|client| &client.id)),
        agency: text(client.map(|client| &client.agency)),
        token: text(context.token.as_ref().map(|token| &token.id)),
        source: text(operation.map(|operation| &operation.source.id)),
        operation: text(operation.map(|operation| &operation.full_name)),
        scope: text(operation.map(|operation| &operation.scope)),
        hub: hub(&context.upstream).unwrap_or_default(),
        shadow_hub: hub(&context.shadow).unwrap_or_default(),
        purpose: text(context.purpose.as_ref()),
        grant: context.granted.as_ref().map(|(grant, _)| grant.id.to_string()).unwrap_or_default(),
        grant_call: context.remaining().map_or(0, |left| left.call),
        official: contents.official,
        subjects: contents.subjects,
        request_commitment: contents.request_commitment,
        request_bytes: context.request.bytes,
        request_messages: context.request.messages,
        source_us: micros(context.source_time),
        // One attempt is not worth a field.
        attempts: if context.attempts > 1 { context.attempts } else { 0 },
        response_commitment: contents.response_commitment,
        response_bytes: context.response.bytes,
        response_messages: context.response.messages,
        fields: contents.fields,
        response_subjects: contents.response_subjects,
        response_subjects_omitted: context.response_subjects_omitted,
        dropped_fields: notes.dropped_fields.clone(),
        unknown_codes,
        xroad_id: notes.xroad.id.clone(),
        xroad_request_id: notes.xroad.request_id.clone(),
        xroad_request_hash: notes.xroad.request_hash.clone(),
        protocol: context.form.protocol.as_str().into(),
        access_us: stage(Stage::Access),
        request_us: stage(Stage::Request),
        guard_us: stage(Stage::Guard),
        response_us: stage(Stage::Response),
        log_us: stage(Stage::Log),
        ..Entry::default()
    }
}

/// Sets the reason and the fault of an exchange that did not succeed.
fn put_refusal(entry: &mut Entry, refusal: &Refusal) {
    entry.status = refusal.reason.code() as u32;
    entry.reason = refusal.reason.as_str().to_owned();
    entry.source_code = refusal.source_code.as_deref().unwrap_or_default().to_owned();
    entry.fault = refusal.fault.as_str().to_owned();
    if let Some(status) = &refusal.source_status {
        entry.source_reason.clone_from(&status.reason);
        entry.source_dropped.clone_from(&status.dropped);
    }
    entry.rule = refusal.rule.as_deref().unwrap_or_default().to_owned();
    entry.cause = refusal.cause.map_or("", Reason::as_str).to_owned();
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Appends an entry and waits until it is durable.
///
/// # Errors
/// [`Reason::ExchangeLogUnavailable`].
pub async fn append(shared: &Shared, entry: &Entry) -> Result<Option<u64>, Refusal> {
    shared.log.append(entry).await.map_err(|error| unlogged(&error))
}

fn unlogged(error: &LogError) -> Refusal {
    // The log itself says so once, not for each exchange.
    if !matches!(error, LogError::Io { .. } | LogError::Unavailable(_) | LogError::Undecided(_)) {
        tracing::error!(%error, "an exchange could not be logged");
    }
    Reason::ExchangeLogUnavailable.into()
}
