//! Traces: an exchange that is sampled is a trace of spans, sent to a collector by OTLP over gRPC
//! (<https://opentelemetry.io/docs/specs/otlp/>).
//!
//! A worker hands over an exchange that has ended, and never waits; a thread of its own makes spans of it and sends them in batches. What
//! waits is bounded; what finds no room, or no collector, is dropped and counted.

mod collector;
mod context;
mod spans;

use super::EndedExchange;
use collector::Collector;
pub use context::{CallerTrace, ExchangeTrace};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use prost::Message;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Exchanges that wait to be sent, about 1 MB. Further ones are dropped.
const MAX_WAITING: usize = 2_048;
/// Exchanges in one batch, some 4,000 spans at most.
const MAX_BATCH: usize = 512;
/// How long a batch waits for more.
const GATHER: Duration = Duration::from_millis(500);
/// How long nothing is sent after a failure, doubled with each further one up to the longest. What waits meanwhile is bounded.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long the last batch may take when the gateway ends.
const LAST_BATCH: Duration = Duration::from_secs(1);

/// Where traces go, and which.
#[derive(Clone)]
pub struct TraceSettings {
    /// The collector, `http://127.0.0.1:4317` or `https://host:port`.
    pub endpoint: String,
    /// TLS towards it.
    pub tls: rustls::ClientConfig,
    /// Of a hundred exchanges whose callers name no trace, so many are recorded.
    pub sample_percent: u32,
}

impl std::fmt::Debug for TraceSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TraceSettings").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DropLabels {
    cause: &'static str,
}

/// What is counted of traces.
#[derive(Debug, Clone, Default)]
pub struct TraceMetrics {
    exported: Counter,
    dropped: Family<DropLabels, Counter>,
}

/// There was no room; the collector took it not.
const CAUSES: [&str; 2] = ["queue", "collector"];

impl TraceMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let all = TraceMetrics::default();
        registry.register("traces_exported", "Exchanges whose spans a collector has taken", all.exported.clone());
        let help =
            "Sampled exchanges whose spans were dropped: queue (too many waited), collector (it did not take them)";
        registry.register("traces_dropped", help, all.dropped.clone());
        for cause in CAUSES {
            let _ = all.dropped.get_or_create(&DropLabels { cause });
        }
        all
    }

    fn dropped(&self, cause: &'static str, exchanges: usize) {
        self.dropped.get_or_create(&DropLabels { cause }).inc_by(exchanges as u64);
    }
}

enum Queued {
    Exchange(ExchangeTrace, Arc<EndedExchange>),
    /// Everything before it is sent when its sender is dropped.
    Last {
        _done: std::sync::mpsc::SyncSender<()>,
    },
}

/// Takes the exchanges of a gateway that are sampled; nothing where traces are off.
#[derive(Default)]
pub struct Tracer(Option<(Sender<Queued>, TraceMetrics, u32)>);

impl Tracer {
    /// Starts the thread that sends.
    ///
    /// # Errors
    /// The system cannot start a thread, or the endpoint is no URL.
    pub fn start(settings: &TraceSettings, node: &str, metrics: &TraceMetrics) -> std::io::Result<Self> {
        let collector = Collector::new(&settings.endpoint, settings.tls.clone());
        let collector = collector.ok_or(std::io::ErrorKind::InvalidInput)?;
        let (sender, queue) = channel(MAX_WAITING);
        let exporter = Exporter { collector, node: node.to_owned(), metrics: metrics.clone(), failures: 0 };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let run = move || runtime.block_on(exporter.run(queue));
        std::thread::Builder::new().name("traces".into()).spawn(run)?;
        Ok(Tracer(Some((sender, metrics.clone(), settings.sample_percent))))
    }

    /// Whether there are traces at all.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The trace of an exchange; `None` where there are none.
    pub fn begin(&self, caller: Option<CallerTrace>) -> Option<ExchangeTrace> {
        let (_, _, percent) = self.0.as_ref()?;
        Some(ExchangeTrace::begin(caller, |trace| is_sampled(trace, *percent)))
    }

    /// Sends the spans of an exchange that has ended, soon, or drops and counts them. Never waits. What a caller alone wants recorded is
    /// not, where it was refused before a right of it was found (`admitted`): anybody could fill the queue with it.
    pub fn put(&self, trace: ExchangeTrace, ended: &Arc<EndedExchange>, admitted: bool) {
        let Some((sender, metrics, percent)) = &self.0 else { return };
        let wanted = trace.sampled && (admitted || trace.parent.is_none() || is_sampled(&trace.trace, *percent));
        if wanted && sender.try_send(Queued::Exchange(trace, ended.clone())).is_err() {
            metrics.dropped("queue", 1);
        }
    }

    /// Waits until what was put so far is sent, a second at most.
    pub fn flush(&self) {
        let Some((sender, _, _)) = &self.0 else { return };
        let (done, last) = std::sync::mpsc::sync_channel(0);
        if sender.try_send(Queued::Last { _done: done }).is_ok() {
            let _ = last.recv_timeout(LAST_BATCH);
        }
    }
}

/// Decides by a trace's id, so that every gateway decides alike.
fn is_sampled(trace: &[u8; 16], percent: u32) -> bool {
    let [.., a, b, c, d] = *trace;
    u64::from(u32::from_be_bytes([a, b, c, d])) * 100 < u64::from(percent) << 32
}

struct Exporter {
    collector: Collector,
    node: String,
    metrics: TraceMetrics,
    failures: u32,
}

impl Exporter {
    /// Sends until the queue is gone.
    async fn run(mut self, mut queue: Receiver<Queued>) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        while queue.recv_many(&mut batch, MAX_BATCH).await > 0 {
            let last = batch.iter().any(|one| matches!(one, Queued::Last { .. }));
            if batch.len() < MAX_BATCH && !last {
                tokio::time::sleep(GATHER).await;
                while batch.len() < MAX_BATCH
                    && let Ok(more) = queue.try_recv()
                {
                    batch.push(more);
                }
            }
            self.send(&batch).await;
            batch.clear();
            if self.failures > 0 && !last {
                tokio::time::sleep((BACKOFF.0 * 2_u32.saturating_pow(self.failures.min(8) - 1)).min(BACKOFF.1)).await;
            }
        }
    }

    async fn send(&mut self, batch: &[Queued]) {
        let exchanges: Vec<_> = batch
            .iter()
            .filter_map(|one| match one {
                Queued::Exchange(trace, ended) => Some((trace, ended.as_ref())),
                Queued::Last { .. } => None,
            })
            .collect();
        if exchanges.is_empty() {
            return;
        }
        let request = spans::request(&self.node, exchanges.iter().copied());
        match self.collector.export(&request.encode_to_vec()).await {
            Ok(()) => {
                if self.failures > 0 {
                    tracing::info!("the collector takes traces again");
                }
                self.failures = 0;
                self.metrics.exported.inc_by(exchanges.len() as u64);
            }
            Err(error) => {
                if self.failures == 0 {
                    tracing::warn!(%error, "the collector does not take traces: they are dropped");
                }
                self.failures = self.failures.saturating_add(1);
                self.metrics.dropped("collector", exchanges.len());
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::exchange_log::Entry;
    use crate::telemetry::StageTimes;
    use std::time::Instant;

    fn ended() -> Arc<EndedExchange> {
        Arc::new(EndedExchange::of(Entry::default(), StageTimes::begin(Instant::now()), None))
    }

    fn tracer(percent: u32) -> (Tracer, Receiver<Queued>, TraceMetrics) {
        let (sender, queue) = channel(MAX_WAITING);
        let metrics = TraceMetrics::default();
        (Tracer(Some((sender, metrics.clone(), percent))), queue, metrics)
    }

    #[test]
    fn a_collector_that_takes_nothing_costs_traces_and_never_time() {
        let (tracer, mut queue, metrics) = tracer(100);
        for _ in 0..MAX_WAITING + 100 {
            tracer.put(tracer.begin(None).unwrap(), &ended(), true);
        }
        assert_eq!(metrics.dropped.get_or_create(&DropLabels { cause: "queue" }).get(), 100);
        assert_eq!((0..).map_while(|_| queue.try_recv().ok()).count(), MAX_WAITING);
    }

    #[test]
    fn so_many_of_a_hundred_are_sampled_and_who_was_refused_samples_nothing() {
        for (percent, wanted) in [(0, 0..=0), (10, 800..=1_200), (100, 10_000..=10_000)] {
            let (tracer, ..) = tracer(percent);
            let sampled = (0..10_000).filter(|_| tracer.begin(None).unwrap().sampled).count();
            assert!(wanted.contains(&sampled), "{percent}: {sampled}");
        }
        let (tracer, mut queue, _) = tracer(0);
        let caller = CallerTrace { trace: [255; 16], span: [1; 8], sampled: true };
        let trace = tracer.begin(Some(caller)).unwrap();
        assert!(trace.sampled);
        tracer.put(trace, &ended(), false);
        assert!(queue.try_recv().is_err(), "refused before it had any right");
        tracer.put(trace, &ended(), true);
        assert!(queue.try_recv().is_ok());
        let unsampled = tracer.begin(Some(CallerTrace { sampled: false, ..caller })).unwrap();
        tracer.put(unsampled, &ended(), true);
        assert!(queue.try_recv().is_err(), "the caller does not want it");
        assert!(Tracer::default().begin(Some(caller)).is_none());
    }
}
