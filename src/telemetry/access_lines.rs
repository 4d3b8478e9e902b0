//! One line for each exchange that has ended, for those who follow a gateway's traffic with the tools that they use for everything
//! else: JSON on standard output, under the target [`ACCESS_TARGET`].
//!
//! A worker moves a handful of texts into a bounded queue, and never waits; a thread of its own formats and writes. Where standard output
//! does not keep up, lines are dropped and counted. The exchange log has every exchange in any case. A line names systems and operations,
//! and nothing that a caller has written.

use super::ended::EndedExchange;
use super::stages::Stage;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// The target of these lines, in every one of them.
pub const ACCESS_TARGET: &str = "ndxp_gateway::access";

/// Lines that wait to be written, about 1 MB; a second's at 4,000 exchanges a second. Further ones are dropped.
const MAX_WAITING: usize = 4_096;
/// How long the last lines may take when the gateway ends.
const LAST_LINES: Duration = Duration::from_secs(1);
/// How often it is said that lines were dropped.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// What is counted of the lines.
#[derive(Debug, Clone, Default)]
pub struct AccessLineMetrics {
    written: Counter,
    dropped: Counter,
}

impl AccessLineMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let all = AccessLineMetrics::default();
        registry.register("access_lines", "Access lines that were written", all.written.clone());
        let help = "Access lines that were dropped because standard output did not keep up";
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
    /// Everything before it is written when its sender is dropped.
    Last(SyncSender<()>),
}

/// Takes the lines of a gateway; nothing where they are off.
#[derive(Default)]
pub struct AccessLines(Option<(SyncSender<Queued>, AccessLineMetrics)>);

impl AccessLines {
    /// Starts the thread that writes.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn start(metrics: &AccessLineMetrics) -> std::io::Result<Self> {
        let (sender, lines) = sync_channel(MAX_WAITING);
        let counts = metrics.clone();
        std::thread::Builder::new().name("access-lines".into()).spawn(move || write(&lines, &counts, &write_line))?;
        Ok(AccessLines(Some((sender, metrics.clone()))))
    }

    /// Whether there are lines at all.
    pub fn are_on(&self) -> bool {
        self.0.is_some()
    }

    /// Writes the line of an exchange that has ended, soon, or drops and counts it. Never waits.
    pub fn put(&self, ended: &Arc<EndedExchange>) {
        let Some((sender, metrics)) = &self.0 else { return };
        if sender.try_send(Queued::Line(ended.clone())).is_err() {
            metrics.dropped.inc();
        }
    }

    /// Waits until what was put so far is written, a second at most.
    pub fn flush(&self) {
        let Some((sender, _)) = &self.0 else { return };
        let (done, last) = sync_channel(0);
        if sender.try_send(Queued::Last(done)).is_ok() {
            let _ = last.recv_timeout(LAST_LINES);
        }
    }
}

/// Writes lines until their queue is gone.
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
    fn a_writer_that_stands_still_costs_lines_and_never_time() {
        let metrics = AccessLineMetrics::default();
        let (sender, lines) = sync_channel(MAX_WAITING);
        let all = AccessLines(Some((sender, metrics.clone())));
        let began = Instant::now();
        (0..MAX_WAITING as u64 + 1_000).for_each(|number| all.put(&ended(number)));
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(metrics.dropped.get(), 1_000, "the bound is reached, the rest is counted");
        all.flush();
        // What waited is written when the writer gets on, in order.
        let seen = Mutex::new(Vec::new());
        drop(all);
        write(&lines, &metrics, &|line| seen.lock().unwrap().push(line.total_us));
        let seen = seen.into_inner().unwrap();
        assert_eq!((seen.len(), seen[0], seen[MAX_WAITING - 1]), (MAX_WAITING, 0, MAX_WAITING as u64 - 1));
        assert_eq!(metrics.written.get(), MAX_WAITING as u64);
    }

    #[test]
    fn what_was_put_is_written_before_a_flush_returns_and_off_is_off() {
        let metrics = AccessLineMetrics::default();
        let all = AccessLines::start(&metrics).unwrap();
        (0..100).for_each(|number| all.put(&ended(number)));
        all.flush();
        assert_eq!((metrics.written.get(), metrics.dropped.get()), (100, 0));
        AccessLines::default().put(&ended(1));
        AccessLines::default().flush();
    }
}
