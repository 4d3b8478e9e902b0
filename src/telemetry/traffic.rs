//! Traffic by source over the last minutes, for the console: differences between samples of the exchange metrics. It adds no work for the
//! workers beyond their usual metrics; the cost is on the reading side.

use super::ExchangeMetrics;
use prometheus_client::registry::Registry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Interval between samples.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// Number of samples: figures cover the last five minutes.
const MAX_SAMPLES: usize = 31;

/// Counts of one source since the start.
#[derive(Debug, Clone, Default)]
struct Counts {
    /// Exchanges by reason; `OK` for success.
    reasons: BTreeMap<String, u64>,
    /// Failed or refused exchanges by fault.
    faults: BTreeMap<String, u64>,
    /// Cumulative counts below each bound in seconds.
    seconds: Buckets,
    source_seconds: Buckets,
}

/// Cumulative counts of a histogram, by its bounds.
#[derive(Debug, Clone, Default)]
struct Buckets(Vec<(f64, u64)>);

impl Buckets {
    /// The difference to an earlier sample.
    fn since(&self, before: &Buckets) -> Buckets {
        let earlier = |at: usize| before.0.get(at).map_or(0, |(_, count)| *count);
        Buckets(
            self.0.iter().enumerate().map(|(at, (bound, count))| (*bound, count.saturating_sub(earlier(at)))).collect(),
        )
    }

    /// The quantile in microseconds, interpolated within its bucket; 0 if nothing was counted.
    fn quantile(&self, part: f64) -> u64 {
        let all = self.0.last().map_or(0, |(_, count)| *count);
        if all == 0 {
            return 0;
        }
        let rank = part * all as f64;
        let (mut low, mut below) = (0.0, 0);
        for (bound, count) in &self.0 {
            if *count as f64 >= rank && *count > below {
                // Beyond the last bound, only the bound itself is known.
                let bound = if bound.is_finite() { *bound } else { low };
                let within = (rank - below as f64) / (count - below) as f64;
                return ((low + (bound - low) * within) * 1e6) as u64;
            }
            (low, below) = (if bound.is_finite() { *bound } else { low }, *count);
        }
        (low * 1e6) as u64
    }
}

type Sample = BTreeMap<String, Counts>;

/// An error of a source's exchanges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecentError {
    /// Its reason ("SOURCE_UNREACHABLE").
    pub reason: String,
    /// When it was last seen, Unix time in seconds, with the precision of a sample.
    pub last_seen: i64,
}

/// Figures of one source over the period.
#[derive(Debug, Clone, Default)]
pub struct SourceTraffic {
    /// Finished exchanges.
    pub calls: u64,
    /// Failed or refused ones by fault.
    pub faults: BTreeMap<String, u64>,
    /// Median and 99th percentile of the time from arrival to the durable entry, in microseconds; 0: none.
    pub total_us: (u64, u64),
    /// The same for the time at the source.
    pub source_us: (u64, u64),
    /// Errors since the start, newest first.
    pub errors: Vec<RecentError>,
}

/// Figures of all sources over the period.
#[derive(Debug, Clone, Default)]
pub struct TrafficSummary {
    /// Length of the period.
    pub period: Duration,
    /// By source; calls of no known operation have an empty id.
    pub sources: BTreeMap<String, SourceTraffic>,
    /// Exchanges between consecutive samples, and those of them that failed or were refused; oldest first.
    pub windows: Vec<(Duration, u64, u64)>,
}

#[derive(Default)]
struct Ring {
    samples: VecDeque<(Instant, Sample)>,
    /// Last time of each reason at each source: bounded by the number of sources and reasons.
    errors: BTreeMap<(String, String), i64>,
}

/// The samples of the last minutes.
pub struct Traffic {
    /// A registry with only the exchange families, which a sample reads.
    registry: Registry,
    ring: Mutex<Ring>,
}

impl Traffic {
    /// Starts sampling these metrics; the first sample is taken now.
    pub fn new(exchanges: &ExchangeMetrics) -> Self {
        let mut registry = Registry::default();
        exchanges.register_again(&mut registry);
        let traffic = Traffic { registry, ring: Mutex::default() };
        traffic.sample(Instant::now(), 0);
        traffic
    }

    fn read(&self) -> Sample {
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            Ok(()) => parse(&text),
            Err(_) => Sample::new(),
        }
    }

    /// Takes a sample; `unix_s` is the current Unix time in seconds.
    pub fn sample(&self, at: Instant, unix_s: i64) {
        let sample = self.read();
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.note_errors(&sample, unix_s);
        ring.samples.push_back((at, sample));
        while ring.samples.len() > MAX_SAMPLES {
            ring.samples.pop_front();
        }
    }

    /// Returns the figures from the oldest sample until now.
    pub fn summary(&self, at: Instant, unix_s: i64) -> TrafficSummary {
        let sample = self.read();
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.note_errors(&sample, unix_s);
        let none = (at, Sample::new());
        let (since, first) = ring.samples.front().unwrap_or(&none);
        let empty = Counts::default();
        let of = |(id, counts): (&String, &Counts)| (id.clone(), ring.of(id, counts, first.get(id).unwrap_or(&empty)));
        let mut windows = Vec::new();
        let (mut from, mut before) = (*since, totals(first));
        let steps = ring.samples.iter().skip(1).map(|(at, sample)| (*at, totals(sample)));
        for (until, now) in steps.chain([(at, totals(&sample))]) {
            let grown = (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1));
            windows.push((until.saturating_duration_since(from), grown.0, grown.1));
            (from, before) = (until, now);
        }
        TrafficSummary {
            period: at.saturating_duration_since(*since),
            sources: sample.iter().map(of).collect(),
            windows,
        }
    }
}

impl Ring {
    /// Records the reasons whose counts have grown since the last sample.
    fn note_errors(&mut self, sample: &Sample, unix_s: i64) {
        let Some((_, before)) = self.samples.back() else { return };
        for (source, counts) in sample {
            let earlier = |reason: &str| before.get(source).and_then(|counts| counts.reasons.get(reason)).copied();
            for (reason, count) in counts.reasons.iter().filter(|(reason, _)| *reason != "OK") {
                if *count > earlier(reason).unwrap_or(0) {
                    self.errors.insert((source.clone(), reason.clone()), unix_s);
                }
            }
        }
    }

    fn of(&self, id: &str, now: &Counts, before: &Counts) -> SourceTraffic {
        let earlier = |name: &String| before.faults.get(name).copied().unwrap_or(0);
        let (total, source) = (now.seconds.since(&before.seconds), now.source_seconds.since(&before.source_seconds));
        let own = self.errors.iter().filter(|((source, _), _)| source == id);
        let mut errors: Vec<RecentError> =
            own.map(|((_, reason), last)| RecentError { reason: reason.clone(), last_seen: *last }).collect();
        errors.sort_by_key(|error| (std::cmp::Reverse(error.last_seen), error.reason.clone()));
        SourceTraffic {
            calls: now.calls().saturating_sub(before.calls()),
            faults: now
                .faults
                .iter()
                .map(|(name, count)| (name.clone(), count.saturating_sub(earlier(name))))
                .collect(),
            total_us: (total.quantile(0.5), total.quantile(0.99)),
            source_us: (source.quantile(0.5), source.quantile(0.99)),
            errors,
        }
    }
}

impl Counts {
    fn calls(&self) -> u64 {
        self.reasons.values().sum()
    }
}

/// Exchanges of all sources, and failed or refused ones.
fn totals(sample: &Sample) -> (u64, u64) {
    let all = sample.values().map(Counts::calls).sum::<u64>();
    let good = sample.values().filter_map(|counts| counts.reasons.get("OK")).sum::<u64>();
    (all, all.saturating_sub(good))
}

/// Parses the text of the exchange families. Labels are names from contracts: none has a quotation mark.
fn parse(text: &str) -> Sample {
    let mut sample = Sample::new();
    for line in text.lines() {
        let Some((name, rest)) = line.split_once('{') else { continue };
        let Some((labels, value)) = rest.rsplit_once("} ") else { continue };
        let (Some(source), Ok(value)) = (label(labels, "source"), value.parse::<u64>()) else { continue };
        let counts = sample.entry(source.to_owned()).or_default();
        match (name, label(labels, "reason"), label(labels, "fault"), label(labels, "le")) {
            ("exchanges_total", Some(reason), ..) => *counts.reasons.entry(reason.to_owned()).or_default() += value,
            ("exchange_faults_total", _, Some(fault), _) => {
                *counts.faults.entry(fault.to_owned()).or_default() += value
            }
            ("exchange_seconds_bucket", .., Some(bound)) => counts.seconds.0.push((limit(bound), value)),
            ("source_seconds_bucket", .., Some(bound)) => counts.source_seconds.0.push((limit(bound), value)),
            _ => {}
        }
    }
    sample
}

fn label<'l>(labels: &'l str, name: &str) -> Option<&'l str> {
    let pairs = labels.split("\",").filter_map(|pair| pair.split_once("=\""));
    pairs.filter(|(known, _)| *known == name).map(|(_, value)| value.trim_end_matches('"')).next()
}

fn limit(bound: &str) -> f64 {
    bound.parse().unwrap_or(f64::INFINITY)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::exchange_log::{Entry, Kind};

    fn entry(source: &str, reason: &str, fault: &str, total_us: u64) -> Entry {
        let (source, reason, fault) = (source.to_owned(), reason.to_owned(), fault.to_owned());
        let operation = "a.v1.A/Get".to_owned();
        Entry { source, reason, fault, operation, total_us, source_us: total_us, ..Entry::begin(Kind::Exchange, "g") }
    }

    #[test]
    fn figures_cover_the_period_only_by_source() {
        let exchanges = ExchangeMetrics::register(&mut Registry::default());
        let (a, b) = (exchanges.of("a", "a.v1.A/Get"), exchanges.of("b", "a.v1.A/Get"));
        (0..50).for_each(|_| a.count(&entry("a", "", "", 900_000)));
        let (traffic, start) = (Traffic::new(&exchanges), Instant::now());
        (0..98).for_each(|_| a.count(&entry("a", "", "", 3_000)));
        (0..2).for_each(|_| a.count(&entry("a", "SOURCE_UNREACHABLE", "hub", 200_000)));
        b.count(&entry("b", "PURPOSE_MISSING", "caller", 100));
        let figures = traffic.summary(start + Duration::from_secs(20), 1_000);
        let of = &figures.sources["a"];
        assert_eq!((of.calls, &of.faults["hub"]), (100, &2));
        // Earlier exchanges do not belong to the period: half of all took 0.9 s.
        assert!((2_000..4_100).contains(&of.total_us.0) && of.total_us.1 > 100_000, "{of:?}");
        assert_eq!(of.errors, [RecentError { reason: "SOURCE_UNREACHABLE".into(), last_seen: 1_000 }]);
        assert_eq!((figures.sources["b"].calls, figures.windows.last().unwrap().1), (1, 101));
        // The period moves on: earlier samples are removed.
        for step in 0..MAX_SAMPLES as u64 {
            traffic.sample(start + Duration::from_secs(30) + SAMPLE_EVERY * u32::try_from(step).unwrap(), 2_000);
        }
        let later = traffic.summary(start + Duration::from_secs(400), 3_000);
        assert_eq!((later.sources["a"].calls, later.sources["a"].total_us), (0, (0, 0)));
        assert_eq!(later.sources["a"].errors[0].last_seen, 2_000, "an error is recorded once, and stays");
        assert_eq!(later.windows.len(), MAX_SAMPLES);
    }

    #[test]
    fn a_quantile_lies_within_its_bucket_and_is_zero_without_counts() {
        let buckets = Buckets(vec![(0.001, 0), (0.002, 50), (0.004, 100), (f64::INFINITY, 100)]);
        assert_eq!((buckets.quantile(0.25), buckets.quantile(0.5), buckets.quantile(0.75)), (1_500, 2_000, 3_000));
        assert_eq!(Buckets(vec![(0.001, 0), (f64::INFINITY, 7)]).quantile(0.5), 1_000);
        assert_eq!((Buckets::default().quantile(0.5), Buckets(vec![(0.1, 0)]).quantile(0.99)), (0, 0));
    }
}
