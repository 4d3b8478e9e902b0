//! Moves admin events from the registry into the exchange log. An event is removed from the registry when its entry is
//! durable. Entries have its number in the sequence of events, so that no event is logged twice, and a missing one is
//! detected.
//!
//! An event is logged in a person's name only if it was recorded together with its change
//! (`registry/admin_event_key.rs`). Any other row stays where it is, for an investigation, and is reported until it is
//! removed; it does not block other events.

use crate::audit::replay::Replay;
use crate::audit::scan::LastEvent;
use crate::exchange_log::{Entry, Kind, entry};
use crate::registry::sqlite::ADOPT_EVENT;
use crate::registry::{self, AdminEvent, AdminEventKey, LoggedEvent, RefusedEvent, Store};
use crate::server::shared::Shared;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the position up to which the log was searched is saved.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// Moves admin events into the log.
pub(in crate::server) struct AdminEventLog {
    data: PathBuf,
    key: AdminEventKey,
    store: Arc<dyn Store>,
    shared: Arc<Shared>,
    /// The last event that is in the log; `None` until the log was searched for it.
    last: Option<LastEvent>,
    /// The last row that was examined.
    seen: u64,
    /// Whether the last event of the log may still be among the rows.
    unforgotten: bool,
    /// The registry as the log has it, if that of an older version must be recorded.
    replay: Option<Replay>,
    /// Events that were removed before they were logged, since the start.
    missing: u64,
    /// Whether the file claimed to be of an older version and the log contradicts it.
    contradicted: bool,
    kept: Option<Instant>,
    /// The last report.
    alarm: String,
}

impl AdminEventLog {
    pub(in crate::server) fn new(
        data: PathBuf,
        key: AdminEventKey,
        store: Arc<dyn Store>,
        shared: Arc<Shared>,
    ) -> Self {
        AdminEventLog {
            data,
            key,
            store,
            shared,
            last: None,
            seen: 0,
            unforgotten: false,
            replay: None,
            missing: 0,
            contradicted: false,
            kept: None,
            alarm: String::new(),
        }
    }

    /// Logs the waiting events.
    ///
    /// # Errors
    /// Events are not in the log yet; the text has the reason.
    pub(in crate::server) async fn take_in(&mut self) -> Result<(), String> {
        let Some(last) = self.find_last()? else { return Ok(()) };
        let done = self.log_all(last).await;
        let reported = self.report();
        done.and(reported)
    }

    /// Searches the log for its last event, once. `None`: the gateway ends.
    fn find_last(&mut self) -> Result<Option<LastEvent>, String> {
        if let Some(last) = self.last {
            return Ok(Some(last));
        }
        let stop = self.shared.stop.clone();
        let search = || LastEvent::find(&self.data, &self.key, || !stop.is_cancelled());
        // The journal may change while it is opened.
        let found = search().or_else(|_| search());
        let found =
            found.map_err(|error| format!("the exchange log cannot be searched for its last admin event: {error}"))?;
        let Some(last) = found else { return Ok(None) };
        let after = self.store.note_events_after(last.sequence);
        after.map_err(|error| format!("the admin events cannot be numbered: {error}"))?;
        (self.seen, self.unforgotten, self.last) = (last.sequence, last.sequence > 0, Some(last));
        Ok(Some(last))
    }

    async fn log_all(&mut self, mut last: LastEvent) -> Result<(), String> {
        loop {
            if self.unforgotten {
                let forgotten = self.store.forget_event(&last.id);
                forgotten.map_err(|error| {
                    format!("an admin event that is in the log cannot be removed from the registry: {error}")
                })?;
                self.unforgotten = false;
            }
            let rows = self.store.logged_events(self.seen);
            let rows = rows.map_err(|error| format!("the admin events cannot be read: {error}"))?;
            if rows.is_empty() {
                return Ok(());
            }
            for row in rows {
                self.notice_gap(&row);
                let sequence = row.sequence();
                match row {
                    LoggedEvent::Authentic(event)
                        if event.event == ADOPT_EVENT && !self.may_adopt(&event.object)? =>
                    {
                        self.contradict(&event)?
                    }
                    LoggedEvent::Authentic(event) => {
                        last = LastEvent { sequence: event.sequence, id: event.id };
                        self.log(event).await?;
                        (self.last, self.seen, self.unforgotten) = (Some(last), sequence, true);
                        let forgotten = self.store.forget_event(&last.id);
                        forgotten.map_err(|error| {
                            format!("an admin event that is in the log cannot be removed from the registry: {error}")
                        })?;
                        self.unforgotten = false;
                    }
                    // An event of an older version: the log has no event yet with which it could be compared.
                    LoggedEvent::Upgraded(event) if last.sequence == 0 => {
                        let id = event.id;
                        self.log(AdminEvent { sequence: 0, ..event }).await?;
                        let forgotten = self.store.forget_event(&id);
                        forgotten.map_err(|error| {
                            format!("an admin event that is in the log cannot be removed from the registry: {error}")
                        })?;
                    }
                    LoggedEvent::Upgraded(event) => refuse(&RefusedEvent::from(&event)),
                    LoggedEvent::Refused(row) => refuse(&row),
                }
                self.seen = sequence;
            }
        }
    }

    /// Detects events that are missing before a row, once.
    fn notice_gap(&mut self, row: &LoggedEvent) {
        let (before, sequence) = (self.seen, row.sequence());
        if before > 0 && sequence > before + 1 {
            let missing = sequence - before - 1;
            tracing::error!(
                from = before + 1,
                to = sequence - 1,
                "admin events were removed from the registry's file before they were in the exchange log"
            );
            self.missing += missing;
            self.seen = sequence - 1;
            self.shared.metrics.admin_events_missing(missing);
        }
    }

    async fn log(&self, event: AdminEvent) -> Result<(), String> {
        let logged = self.shared.log.append(&entry(&event, &self.shared.node)).await;
        logged.map(drop).map_err(|error| format!("an admin event is not in the exchange log yet: {error}"))
    }

    /// Returns whether the log permits recording an older version's registry.
    fn may_adopt(&mut self, object: &str) -> Result<bool, String> {
        let replay = match &mut self.replay {
            Some(replay) => replay,
            none => {
                let mut replay = Replay::default();
                let read = replay.advance(&self.data, |_, _| true);
                read.map_err(|error| format!("an older registry cannot be compared with the exchange log: {error}"))?;
                none.insert(replay)
            }
        };
        Ok(replay.may_adopt(object))
    }

    /// Drops an event that records the file as a whole if the log has the registry already. The comparison finds any
    /// difference.
    fn contradict(&mut self, event: &AdminEvent) -> Result<(), String> {
        if !self.contradicted {
            tracing::error!(
                "the registry's file says that an older version made it, and the exchange log says otherwise: nothing of it is \
                 taken for what the log says"
            );
        }
        self.contradicted = true;
        let forgotten = self.store.forget_event(&event.id);
        forgotten.map_err(|error| format!("what states an older registry cannot be dropped: {error}"))
    }

    /// Reports refused rows, and saves how far the log was searched.
    fn report(&mut self) -> Result<(), String> {
        let left = self.store.remaining_events(self.seen);
        let (left, first) = left.map_err(|error| format!("the admin events cannot be read: {error}"))?;
        self.shared.metrics.events_refused(left);
        let mut alarm = String::new();
        if let Some(first) = first {
            let row = first.sequence();
            alarm += &format!(
                "the registry's file has {left} admin events that this gateway did not record, first in row {row} (audit verify --registry)\n"
            );
        }
        if self.missing > 0 {
            let missing = self.missing;
            alarm += &format!(
                "{missing} admin events were removed from the registry's file before they were in the exchange log\n"
            );
        }
        if self.contradicted {
            alarm += "the registry's file says that an older version made it, and the exchange log says otherwise\n";
        }
        if alarm != self.alarm {
            alarm.lines().for_each(|line| tracing::error!("{line}"));
            self.shared.event_alarm.store(Arc::new(alarm.clone()));
            self.alarm = alarm;
        }
        if self.kept.is_none_or(|kept| kept.elapsed() > KEEP_EVERY) {
            self.keep();
        }
        Ok(())
    }

    /// Saves how far the log was searched, for the next start.
    pub(in crate::server) fn keep(&mut self) {
        self.kept = Some(Instant::now());
        // No other process appends events: this one is the last of all that is durable now.
        let Some(last) = self.last else { return };
        if let Err(error) = last.keep(&self.data, self.shared.log.durable(), &self.key) {
            tracing::warn!(%error, "the next start searches more of the exchange log for its last admin event");
        }
    }
}

/// Returns the entry of an event.
pub fn entry(event: &AdminEvent, node: &str) -> Entry {
    let change = |one: &registry::ObjectChange| {
        let registry::ObjectChange { object, before, after } = one.clone();
        entry::Change { object, before, after }
    };
    Entry {
        exchange_id: event.id.to_vec(),
        time_us: event.time_us,
        actor: event.actor.clone(),
        event: event.event.clone(),
        object: event.object.clone(),
        certificate: event.certificate.clone(),
        identity_provider: event.identity_provider.clone(),
        peer: event.address.clone(),
        approved_by: event.approved_by.clone(),
        justification: event.justification.clone(),
        event_sequence: event.sequence,
        changes: event.changes.iter().map(change).collect(),
        ..Entry::begin(Kind::Admin, node)
    }
}

fn refuse(row: &RefusedEvent) {
    tracing::error!(
        row = row.sequence,
        "a row among the admin events was not recorded by this gateway: it is logged in no one's name"
    );
}
