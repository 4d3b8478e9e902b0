//! `bench`: load on a running gateway.
//!
//! Closed loop: a number of concurrent calls, each followed by the next; it shows what the gateway can serve. Open loop
//! (`--rate`): calls begin when they are due, whatever happened to earlier ones, and their time counts from then. So
//! every call of a second in which the gateway stops shows the delay (no coordinated omission), as users would see it.

use super::call::{CallTarget, PreparedCalls, messages};
use super::output::{Output, duration, table};
use super::{CliError, runtime};
use crate::caller::GatewayClient;
use bytes::Bytes;
use clap::Args;
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tonic::Code;

/// Longest time that is measured, in microseconds: a minute.
const LONGEST_US: u64 = 60_000_000;
/// The outcome of a call with a response.
const OK: &str = "OK";
/// The outcome of a call that was due, but for which no caller was free before the end.
const NOT_BEGUN: &str = "not begun in time";
/// Percentiles that are reported.
const PERCENTILES: [f64; 6] = [50.0, 90.0, 95.0, 99.0, 99.9, 100.0];

#[derive(Args)]
pub struct BenchArgs {
    #[command(flatten)]
    target: CallTarget,
    /// The request as JSON, or several that are sent in turn.
    #[arg(long, short, default_value = "{}")]
    data: String,
    /// Connections.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Concurrent calls on each connection.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    streams: u32,
    /// Duration.
    #[arg(long, default_value = "10s", value_parser = duration)]
    time: Duration,
    /// Duration of a warm-up that is not counted.
    #[arg(long, default_value = "1s", value_parser = duration)]
    warmup: Duration,
    /// Open loop: this many calls a second, begun when they are due.
    #[arg(long, value_name = "CALLS", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
}

/// The results so far.
struct BenchResults {
    /// Of all calls, from when they were due.
    times: Histogram<u64>,
    /// Of calls with a response, from when they were sent.
    completed: Histogram<u64>,
    outcomes: BTreeMap<String, u64>,
}

impl BenchResults {
    fn new() -> Result<Self, CliError> {
        let times =
            Histogram::new_with_bounds(1, LONGEST_US, 3).map_err(|error| CliError::Failed(error.to_string()))?;
        Ok(BenchResults { completed: times.clone(), times, outcomes: BTreeMap::new() })
    }

    fn add(&mut self, due: Instant, sent: Instant, outcome: String) {
        let us = |since: Instant| u64::try_from(since.elapsed().as_micros()).unwrap_or(LONGEST_US).max(1);
        self.times.saturating_record(us(due));
        if outcome == OK {
            self.completed.saturating_record(us(sent));
        }
        *self.outcomes.entry(outcome).or_default() += 1;
    }
}

fn lock(seen: &Mutex<BenchResults>) -> MutexGuard<'_, BenchResults> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// State that all callers share.
struct BenchLoad {
    prepared: PreparedCalls,
    requests: Vec<Bytes>,
    next: AtomicU64,
    begin: Instant,
    counted_from: Instant,
    ends: Instant,
    between: Option<Duration>,
    stopped: AtomicBool,
}

pub fn run(args: &BenchArgs, output: Output) -> Result<(), CliError> {
    let prepared = args.target.prepare()?;
    let requests = messages(&prepared.operation.request.message, &args.data)?;
    if requests.is_empty() {
        return Err(CliError::Usage("--data holds no request".into()));
    }
    let begin = Instant::now();
    let counted_from = begin + args.warmup;
    let load = Arc::new(BenchLoad {
        prepared,
        requests,
        next: AtomicU64::new(0),
        begin,
        counted_from,
        ends: counted_from + args.time,
        between: args.rate.map(|rate| Duration::from_secs(1) / rate),
        stopped: AtomicBool::new(false),
    });
    let seen = runtime()?.block_on(async {
        let mut shards = Vec::new();
        let mut callers = Vec::new();
        for _ in 0..args.connections {
            let shard = Arc::new(Mutex::new(BenchResults::new()?));
            let caller = GatewayClient::new(args.target.to(), &load.prepared.files)?;
            for _ in 0..args.streams {
                callers.push(tokio::spawn(load.clone().calls(caller.clone(), shard.clone())));
            }
            shards.push(shard);
        }
        let shown = tokio::spawn(progress(load.clone(), shards.clone()));
        let mut failed = None;
        for caller in callers {
            if let Ok(Err(error)) = caller.await {
                load.stopped.store(true, Ordering::Relaxed);
                failed.get_or_insert(error);
            }
        }
        shown.abort();
        match failed {
            Some(error) => Err(error),
            None => merged(&shards),
        }
    })?;
    report(args, &seen, output)
}

impl BenchLoad {
    /// One caller: makes calls until the end.
    async fn calls(self: Arc<Self>, caller: GatewayClient, seen: Arc<Mutex<BenchResults>>) -> Result<(), CliError> {
        let metadata: Vec<(&str, &str)> =
            self.prepared.metadata.iter().map(|(name, text)| (*name, text.as_str())).collect();
        while !self.stopped.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let due = match self.between {
                Some(between) => {
                    let due = self.begin + between.mul_f64(number as f64);
                    tokio::time::sleep_until(due.min(self.ends).into()).await;
                    due
                }
                None => Instant::now(),
            };
            if due >= self.ends {
                return Ok(());
            }
            let sent = Instant::now();
            let late = |end: Instant| due < end && sent >= end;
            if late(self.counted_from) {
                continue;
            }
            if late(self.ends) {
                lock(&seen).add(due, sent, NOT_BEGUN.to_owned());
                continue;
            }
            let request = self.requests[(number % self.requests.len() as u64) as usize].clone();
            let answered = caller.call(&self.prepared.operation.path, &metadata, vec![request]).await?;
            if due >= self.counted_from {
                let outcome = match answered.status.code() {
                    Code::Ok => OK.to_owned(),
                    code => format!("{code:?} {}", answered.reason()),
                };
                lock(&seen).add(due, sent, outcome);
            }
        }
        Ok(())
    }
}

fn merged(shards: &[Arc<Mutex<BenchResults>>]) -> Result<BenchResults, CliError> {
    let mut all = BenchResults::new()?;
    for shard in shards {
        let shard = lock(shard);
        for (sum, one) in [(&mut all.times, &shard.times), (&mut all.completed, &shard.completed)] {
            sum.add(one).map_err(|error| CliError::Failed(error.to_string()))?;
        }
        for (outcome, count) in &shard.outcomes {
            *all.outcomes.entry(outcome.clone()).or_default() += count;
        }
    }
    Ok(all)
}

/// Reports the progress every second.
async fn progress(load: Arc<BenchLoad>, shards: Vec<Arc<Mutex<BenchResults>>>) {
    let bar = ProgressBar::new_spinner();
    let (mut before, mut tick) = (0, tokio::time::interval(Duration::from_secs(1)));
    loop {
        tick.tick().await;
        let Ok(seen) = merged(&shards) else { return };
        let (count, left) = (seen.times.len(), load.ends.saturating_duration_since(Instant::now()));
        let refused = count - seen.outcomes.get(OK).copied().unwrap_or(0);
        bar.set_message(format!(
            "{} a second, {count} calls, {refused} refused or failed, p50 {}, p99 {}; {} s left",
            count - before,
            time(seen.times.value_at_percentile(50.0)),
            time(seen.times.value_at_percentile(99.0)),
            left.as_secs()
        ));
        bar.tick();
        before = count;
    }
}

/// Microseconds, for people.
fn time(us: u64) -> String {
    if us < 10_000 { format!("{us} µs") } else { format!("{:.1} ms", us as f64 / 1e3) }
}

fn report(args: &BenchArgs, seen: &BenchResults, output: Output) -> Result<(), CliError> {
    let (count, seconds) = (seen.times.len(), args.time.as_secs_f64());
    let answered = seen.outcomes.get(OK).copied().unwrap_or(0);
    let latency = |times: &Histogram<u64>| -> serde_json::Map<String, serde_json::Value> {
        PERCENTILES.iter().map(|percent| (format!("p{percent}"), json!(times.value_at_percentile(*percent)))).collect()
    };
    let value = json!({
        "operation": args.target.operation(), "mode": if args.rate.is_some() { "open" } else { "closed" },
        "connections": args.connections, "streams": args.streams, "rate": args.rate, "seconds": seconds,
        "calls": count, "answered": answered, "per_second": count as f64 / seconds,
        "answered_per_second": answered as f64 / seconds, "outcomes": seen.outcomes,
        "latency_us": latency(&seen.times), "answered_since_sent_us": latency(&seen.completed),
        "mean_us": seen.times.mean(),
    });
    output.result(&value, || {
        let mut shown = table(&["", ""]);
        shown.add_row(["calls", &count.to_string()]);
        shown.add_row(["a second", &format!("{:.0}", count as f64 / seconds)]);
        for (outcome, count) in &seen.outcomes {
            shown.add_row([outcome, &count.to_string()]);
        }
        shown.add_row(["mean", &time(seen.times.mean() as u64)]);
        for percent in PERCENTILES {
            let name = if percent == 100.0 { "longest".to_owned() } else { format!("p{percent}") };
            shown.add_row([name, time(seen.times.value_at_percentile(percent))]);
        }
        if answered < count {
            for percent in [50.0, 99.0] {
                let name = format!("p{percent} of successful calls, from sending");
                shown.add_row([name, time(seen.completed.value_at_percentile(percent))]);
            }
        }
        shown.to_string()
    })?;
    if answered > 0 { Ok(()) } else { Err(CliError::Failed("no call succeeded".into())) }
}
