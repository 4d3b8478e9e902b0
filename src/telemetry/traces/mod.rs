//! Traces: a sampled exchange becomes spans, sent to a collector by OTLP over gRPC (<https://opentelemetry.io/docs/specs/otlp/>).
//!
//! A worker queues a finished exchange and never waits; a separate thread makes spans of it and sends them in batches. The queue is
//! bounded; exchanges are dropped and counted if it is full or if there is no collector.

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

/// Maximum of queued exchanges, about 1 MB. Further ones are dropped.
const MAX_WAITING: usize = 2_048;
/// Exchanges per batch, at most some 4,000 spans.
const MAX_BATCH: usize = 512;
/// How long a batch waits for more exchanges.
const GATHER: Duration = Duration::from_millis(500);
/// Backoff after a failure, doubled with each further one up to the maximum. The queue is bounded meanwhile.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Timeout of the last batch when the gateway stops.
const LAST_BATCH: Duration = Duration::from_secs(1);

/// The collector, and which exchanges are sampled.
#[derive(Clone)]
pub struct TraceSettings {
    /// The collector, `http://127.0.0.1:4317` or `https://host:port`.
    pub endpoint: String,
    /// TLS to the collector.
    pub tls: rustls::ClientConfig,
    /// Percentage of sampled exchanges among those whose callers send no trace context.
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

/// Metrics of traces.
#[derive(Debug, Clone, Default)]
pub struct TraceMetrics {
    exported: Counter,
    dropped: Family<DropLabels, Counter>,
}

/// Causes of drops: the queue was full; the collector did not accept the batch.
const CAUSES: [&str; 2] = ["queue", "collector"];

impl TraceMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let all = TraceMetrics::default();
        registry.register("traces_exported", "Exchanges whose spans a collector has accepted", all.exported.clone());
        let help =
            "Sampled exchanges whose spans were dropped: queue (it was full), collector (it did not accept them)";
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
    /// A flush: when its sender is dropped, everything before it is sent.
    Last {
        _done: std::sync::mpsc::SyncSender<()>,
    },
}

/// The tracer of a gateway; it does nothing if traces are off.
#[derive(Default)]
pub struct Tracer(Option<(Sender<Queued>, TraceMetrics, u32)>);

impl Tracer {
    /// Starts the sender thread.
    ///
    /// # Errors
    /// The system cannot start a thread, or the endpoint is not a valid URL.
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

    /// Whether traces are on.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Returns the trace of an exchange; `None` if traces are off.
    pub fn begin(&self, caller: Option<CallerTrace>) -> Option<ExchangeTrace> {
        let (_, _, percent) = self.0.as_ref()?;
        Some(ExchangeTrace::begin(caller, |trace| is_sampled(trace, *percent)))
    }

    /// Queues the spans of a finished exchange, or drops and counts them. Never waits. If only the caller's sampling decision applies, and
    /// the call was refused before its grant was found (not `admitted`), nothing is sent: otherwise anybody could fill the queue.
    pub fn put(&self, trace: ExchangeTrace, ended: &Arc<EndedExchange>, admitted: bool) {
        let Some((sender, metrics, percent)) = &self.0 else { return };
        let wanted = trace.sampled && (admitted || trace.parent.is_none() || is_sampled(&trace.trace, *percent));
        if wanted && sender.try_send(Queued::Exchange(trace, ended.clone())).is_err() {
            metrics.dropped("queue", 1);
        }
    }

    /// Waits until all queued exchanges are sent, at most one second.
    pub fn flush(&self) {
        let Some((sender, _, _)) = &self.0 else { return };
        let (done, last) = std::sync::mpsc::sync_channel(0);
        if sender.try_send(Queued::Last { _done: done }).is_ok() {
            let _ = last.recv_timeout(LAST_BATCH);
        }
    }
}

/// Decides by the trace id, so that all gateways decide alike.
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
    /// Sends batches until the queue is closed.
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
                    tracing::info!("the collector accepts traces again");
                }
                self.failures = 0;
                self.metrics.exported.inc_by(exchanges.len() as u64);
            }
            Err(error) => {
                if self.failures == 0 {
                    tracing::warn!(%error, "the collector does not accept traces: they are dropped");
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
    fn a_failing_collector_costs_traces_but_never_time() {
        let (tracer, mut queue, metrics) = tracer(100);
        for _ in 0..MAX_WAITING + 100 {
            tracer.put(tracer.begin(None).unwrap(), &ended(), true);
        }
        assert_eq!(metrics.dropped.get_or_create(&DropLabels { cause: "queue" }).get(), 100);
        assert_eq!((0..).map_while(|_| queue.try_recv().ok()).count(), MAX_WAITING);
    }

    #[test]
    fn the_percentage_is_sampled_and_a_refused_caller_samples_nothing() {
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
        assert!(queue.try_recv().is_err(), "the caller does not sample it");
        assert!(Tracer::default().begin(Some(caller)).is_none());
    }
}
