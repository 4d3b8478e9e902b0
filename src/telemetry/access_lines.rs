//! Access log: one JSON line on standard output for each finished exchange, under the target [`ACCESS_TARGET`], for the operator's usual
//! log tools.
//!
//! A worker moves a few strings into a bounded queue and never waits; a separate thread formats and writes. If standard output does not
//! keep up, lines are dropped and counted. The exchange log has every exchange in any case. A line names systems and operations, and
//! contains no text from a caller.

use super::ended::EndedExchange;
use super::stages::Stage;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// The target of these lines, part of each.
pub const ACCESS_TARGET: &str = "ndxp_gateway::access";

/// Maximum of queued lines, about 1 MB: one second at 4,000 exchanges a second. Further ones are dropped.
const MAX_WAITING: usize = 4_096;
/// Timeout for the last lines when the gateway stops.
const LAST_LINES: Duration = Duration::from_secs(1);
/// Interval between warnings about dropped lines.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// Metrics of the access lines.
#[derive(Debug, Clone, Default)]
pub struct AccessLineMetrics {
    written: Counter,
    dropped: Counter,
}

impl AccessLineMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let all = AccessLineMetrics::default();
        registry.register("access_lines", "Written access lines", all.written.clone());
        let help = "Access lines dropped because standard output did not keep up";
        registry.register("access_lines_dropped", help, all.dropped.clone());
        all
    }
}

fn write_line(ended: &EndedExchange) {
    tracing::info!(
        target: ACCESS_TARGET,
        exchange = %uuid::Uuid::from_bytes(ended.id),
        source = ended.source,
        operation = ended.operation,
        hub = ended.hub,
        client = ended.client,
        status = ended.status,
        reason = ended.reason,
        fault = ended.fault,
        attempts = ended.attempts,
        request_bytes = ended.request_bytes,
        response_bytes = ended.response_bytes,
        log_index = ended.index,
        total_us = ended.total_us,
        access_us = ended.us(Stage::Access),
        request_us = ended.us(Stage::Request),
        guard_us = ended.us(Stage::Guard),
        source_us = ended.us(Stage::Source),
        response_us = ended.us(Stage::Response),
        log_us = ended.us(Stage::Log),
        "exchange"
    );
}

enum Queued {
    Line(Arc<EndedExchange>),
    /// A flush: when its sender is dropped, everything before it is written.
    Last(SyncSender<()>),
}

/// The access log of a gateway; it does nothing if access lines are off.
#[derive(Default)]
pub struct AccessLines(Option<(SyncSender<Queued>, AccessLineMetrics)>);

impl AccessLines {
    /// Starts the writer thread.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn start(metrics: &AccessLineMetrics) -> std::io::Result<Self> {
        let (sender, lines) = sync_channel(MAX_WAITING);
        let counts = metrics.clone();
        std::thread::Builder::new().name("access-lines".into()).spawn(move || write(&lines, &counts, &write_line))?;
        Ok(AccessLines(Some((sender, metrics.clone()))))
    }

    /// Whether access lines are on.
    pub fn are_on(&self) -> bool {
        self.0.is_some()
    }

    /// Queues the line of a finished exchange, or drops and counts it. Never waits.
    pub fn put(&self, ended: &Arc<EndedExchange>) {
        let Some((sender, metrics)) = &self.0 else { return };
        if sender.try_send(Queued::Line(ended.clone())).is_err() {
            metrics.dropped.inc();
        }
    }

    /// Waits until all queued lines are written, at most one second.
    pub fn flush(&self) {
        let Some((sender, _)) = &self.0 else { return };
        let (done, last) = sync_channel(0);
        if sender.try_send(Queued::Last(done)).is_ok() {
            let _ = last.recv_timeout(LAST_LINES);
        }
    }
}

/// Writes lines until the queue is closed.
fn write(lines: &Receiver<Queued>, metrics: &AccessLineMetrics, line: &dyn Fn(&EndedExchange)) {
    let (mut reported, mut last) = (0, None::<Instant>);
    while let Ok(next) = lines.recv() {
        match next {
            Queued::Line(ended) => line(&ended),
            Queued::Last(done) => {
                drop(done);
                continue;
            }
        }
        metrics.written.inc();
        let dropped = metrics.dropped.get();
        if dropped > reported && last.is_none_or(|last| last.elapsed() >= REPORT_EVERY) {
            tracing::warn!(dropped = dropped - reported, "access lines were dropped: standard output did not keep up");
            (reported, last) = (dropped, Some(Instant::now()));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::exchange_log::Entry;
    use crate::telemetry::StageTimes;
    use std::sync::Mutex;

    fn ended(number: u64) -> Arc<EndedExchange> {
        let entry = Entry { total_us: number, ..Entry::default() };
        Arc::new(EndedExchange::of(entry, StageTimes::begin(Instant::now()), Some(number)))
    }

    #[test]
    fn a_stalled_writer_costs_lines_but_never_time() {
        let metrics = AccessLineMetrics::default();
        let (sender, lines) = sync_channel(MAX_WAITING);
        let all = AccessLines(Some((sender, metrics.clone())));
        let began = Instant::now();
        (0..MAX_WAITING as u64 + 1_000).for_each(|number| all.put(&ended(number)));
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(metrics.dropped.get(), 1_000, "the bound is reached, the rest is counted");
        all.flush();
        // Queued lines are written in order when the writer continues.
        let seen = Mutex::new(Vec::new());
        drop(all);
        write(&lines, &metrics, &|line| seen.lock().unwrap().push(line.total_us));
        let seen = seen.into_inner().unwrap();
        assert_eq!((seen.len(), seen[0], seen[MAX_WAITING - 1]), (MAX_WAITING, 0, MAX_WAITING as u64 - 1));
        assert_eq!(metrics.written.get(), MAX_WAITING as u64);
    }

    #[test]
    fn queued_lines_are_written_before_a_flush_returns_and_off_writes_nothing() {
        let metrics = AccessLineMetrics::default();
        let all = AccessLines::start(&metrics).unwrap();
        (0..100).for_each(|number| all.put(&ended(number)));
        all.flush();
        assert_eq!((metrics.written.get(), metrics.dropped.get()), (100, 0));
        AccessLines::default().put(&ended(1));
        AccessLines::default().flush();
    }
}
