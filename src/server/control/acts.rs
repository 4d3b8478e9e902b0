//! Takes administrators' acts from the registry into the exchange log. An act is forgotten when its entry is on disk; the log
//! knows its place in the sequence of acts, so that none is taken in twice, and one that is missing is noticed.
//!
//! Only what was noted with its change is logged in somebody's name (`registry/actkey.rs`). Any other row stays where it is, for
//! whoever looks into it, and is reported until it is gone; it keeps no other act from the log.

use crate::audit::replay::Replay;
use crate::audit::scan::LastEvent;
use crate::exchange_log::{Entry, Kind, entry};
use crate::registry::sqlite::ADOPT_ACT;
use crate::registry::{self, Act, ActKey, LoggedAct, RefusedAct, Store};
use crate::server::shared::Shared;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it is kept how far the log was looked at.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// The way of acts into the log.
pub(in crate::server) struct AdminEventLog {
    data: PathBuf,
    key: ActKey,
    store: Arc<dyn Store>,
    shared: Arc<Shared>,
    /// The last act that is in the log; `None` until the log was searched for it.
    last: Option<LastEvent>,
    /// The last row that was looked at.
    seen: u64,
    /// Whether the last act of the log may still be among the rows.
    unforgotten: bool,
    /// What the log has of a registry, where an older version's is to be stated.
    replay: Option<Replay>,
    /// Acts that were removed before they were logged, since the start.
    missing: u64,
    /// Whether the file said that it is of an older version, which the log contradicts.
    contradicted: bool,
    kept: Option<Instant>,
    /// What was reported last.
    alarm: String,
}

impl AdminEventLog {
    pub(in crate::server) fn new(data: PathBuf, key: ActKey, store: Arc<dyn Store>, shared: Arc<Shared>) -> Self {
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

    /// Takes in what is there.
    ///
    /// # Errors
    /// Acts are not in the log yet; the text says why.
    pub(in crate::server) async fn take_in(&mut self) -> Result<(), String> {
        let Some(last) = self.find_last()? else { return Ok(()) };
        let done = self.log_all(last).await;
        let reported = self.report();
        done.and(reported)
    }

    /// Searches the log for its last act, once. `None`: the gateway ends.
    fn find_last(&mut self) -> Result<Option<LastEvent>, String> {
        if let Some(last) = self.last {
            return Ok(Some(last));
        }
        let stop = self.shared.stop.clone();
        let search = || LastEvent::find(&self.data, &self.key, || !stop.is_cancelled());
        // The journal may move on while it is opened.
        let found = search().or_else(|_| search());
        let found = found.map_err(|error| format!("the exchange log cannot be searched for its last act: {error}"))?;
        let Some(last) = found else { return Ok(None) };
        let after = self.store.note_acts_after(last.sequence);
        after.map_err(|error| format!("the acts of administrators cannot be numbered: {error}"))?;
        (self.seen, self.unforgotten, self.last) = (last.sequence, last.sequence > 0, Some(last));
        Ok(Some(last))
    }

    async fn log_all(&mut self, mut last: LastEvent) -> Result<(), String> {
        loop {
            if self.unforgotten {
                let forgotten = self.store.forget_act(&last.id);
                forgotten.map_err(|error| format!("an act that is in the log cannot be forgotten: {error}"))?;
                self.unforgotten = false;
            }
            let rows = self.store.logged_acts(self.seen);
            let rows = rows.map_err(|error| format!("the acts of administrators cannot be read: {error}"))?;
            if rows.is_empty() {
                return Ok(());
            }
            for row in rows {
                self.notice_gap(&row);
                let sequence = row.sequence();
                match row {
                    LoggedAct::Act(act) if act.act == ADOPT_ACT && !self.may_adopt(&act.object)? => {
                        self.contradict(&act)?
                    }
                    LoggedAct::Act(act) => {
                        last = LastEvent { sequence: act.sequence, id: act.id };
                        self.log(act).await?;
                        (self.last, self.seen, self.unforgotten) = (Some(last), sequence, true);
                        let forgotten = self.store.forget_act(&last.id);
                        forgotten.map_err(|error| format!("an act that is in the log cannot be forgotten: {error}"))?;
                        self.unforgotten = false;
                    }
                    // Of an older version: the log has no act yet that it could be told from.
                    LoggedAct::Upgraded(act) if last.sequence == 0 => {
                        let id = act.id;
                        self.log(Act { sequence: 0, ..act }).await?;
                        let forgotten = self.store.forget_act(&id);
                        forgotten.map_err(|error| format!("an act that is in the log cannot be forgotten: {error}"))?;
                    }
                    LoggedAct::Upgraded(act) => refuse(&RefusedAct::from(&act)),
                    LoggedAct::Refused(row) => refuse(&row),
                }
                self.seen = sequence;
            }
        }
    }

    /// Notices acts that are missing before a row, once.
    fn notice_gap(&mut self, row: &LoggedAct) {
        let (before, sequence) = (self.seen, row.sequence());
        if before > 0 && sequence > before + 1 {
            let missing = sequence - before - 1;
            tracing::error!(
                from = before + 1,
                to = sequence - 1,
                "acts were removed from the registry's file before they were in the exchange log"
            );
            self.missing += missing;
            self.seen = sequence - 1;
            self.shared.metrics.admin_events_missing(missing);
        }
    }

    async fn log(&self, act: Act) -> Result<(), String> {
        let change =
            |one: registry::ObjectChange| entry::Change { object: one.object, before: one.before, after: one.after };
        let entry = Entry {
            exchange_id: act.id.to_vec(),
            time_us: act.time_us,
            actor: act.actor,
            act: act.act,
            object: act.object,
            certificate: act.certificate,
            peer: act.address,
            approved_by: act.approved_by,
            justification: act.justification,
            act_sequence: act.sequence,
            changes: act.changes.into_iter().map(change).collect(),
            ..Entry::begin(Kind::Admin, &self.shared.node)
        };
        let logged = self.shared.log.append(&entry).await;
        logged.map(drop).map_err(|error| format!("an administrator's act is not in the exchange log yet: {error}"))
    }

    /// Whether the log leaves room for an older version's registry to be stated.
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

    /// Drops what states the file as a whole where the log tells of it already. What differs is found by comparison.
    fn contradict(&mut self, act: &Act) -> Result<(), String> {
        if !self.contradicted {
            tracing::error!(
                "the registry's file says that an older version made it, and the exchange log says otherwise: nothing of it is \
                 taken for what the log says"
            );
        }
        self.contradicted = true;
        let forgotten = self.store.forget_act(&act.id);
        forgotten.map_err(|error| format!("what states an older registry cannot be dropped: {error}"))
    }

    /// Reports what is not believed, and keeps how far the log was looked at.
    fn report(&mut self) -> Result<(), String> {
        let left = self.store.left_acts(self.seen);
        let (left, first) = left.map_err(|error| format!("the acts of administrators cannot be read: {error}"))?;
        self.shared.metrics.events_refused(left);
        let mut alarm = String::new();
        if let Some(first) = first {
            let row = first.sequence();
            alarm += &format!(
                "the registry's file has {left} acts that this gateway did not note, first in row {row} (audit verify --registry)\n"
            );
        }
        if self.missing > 0 {
            let missing = self.missing;
            alarm +=
                &format!("{missing} acts were removed from the registry's file before they were in the exchange log\n");
        }
        if self.contradicted {
            alarm += "the registry's file says that an older version made it, and the exchange log says otherwise\n";
        }
        if alarm != self.alarm {
            alarm.lines().for_each(|line| tracing::error!("{line}"));
            self.shared.act_alarm.store(Arc::new(alarm.clone()));
            self.alarm = alarm;
        }
        if self.kept.is_none_or(|kept| kept.elapsed() > KEEP_EVERY) {
            self.keep();
        }
        Ok(())
    }

    /// Keeps how far the log was looked at, for the next start.
    pub(in crate::server) fn keep(&mut self) {
        self.kept = Some(Instant::now());
        // Nobody else appends acts: among all that is durable now, this one is the last.
        let Some(last) = self.last else { return };
        if let Err(error) = last.keep(&self.data, self.shared.log.durable(), &self.key) {
            tracing::warn!(%error, "the next start searches more of the exchange log for its last act");
        }
    }
}

fn refuse(row: &RefusedAct) {
    tracing::error!(row = row.sequence, "a row among the acts is not what this gateway noted: it is nobody's act");
}
