//! The stages of an exchange and their durations. Every instant from its arrival to its durable entry belongs to exactly one stage,
//! whatever the outcome.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use std::time::{Duration, Instant};

/// A stage of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Identity, token and grant are checked.
    Access,
    /// The request message arrives and is checked.
    Request,
    /// The exchange waits for a permit at the source.
    Guard,
    /// The source processes it, retries included.
    Source,
    /// The response is reduced to the granted fields; for a stream, all of its messages are sent.
    Response,
    /// One of its entries becomes durable.
    Log,
}

impl Stage {
    /// All stages, in the order of an exchange.
    pub const ALL: [Stage; 6] =
        [Stage::Access, Stage::Request, Stage::Guard, Stage::Source, Stage::Response, Stage::Log];

    /// Returns the metric label.
    pub fn label(self) -> &'static str {
        match self {
            Stage::Access => "access",
            Stage::Request => "request",
            Stage::Guard => "guard",
            Stage::Source => "source",
            Stage::Response => "response",
            Stage::Log => "log",
        }
    }
}

/// The stages of one exchange so far.
#[derive(Debug, Clone, Copy)]
pub struct StageTimes {
    arrived: Instant,
    current: Stage,
    since: Instant,
    /// First start of each stage, relative to the arrival.
    starts: [Option<Duration>; Stage::ALL.len()],
    times: [Duration; Stage::ALL.len()],
}

impl StageTimes {
    /// Starts the first stage.
    pub fn begin(arrived: Instant) -> Self {
        let mut starts = [None; Stage::ALL.len()];
        starts[Stage::Access as usize] = Some(Duration::ZERO);
        StageTimes { arrived, current: Stage::Access, since: arrived, starts, times: Default::default() }
    }

    /// Ends the current stage, starts another, and returns the ended one.
    pub fn enter(&mut self, next: Stage, now: Instant) -> Stage {
        self.times[self.current as usize] += now.saturating_duration_since(self.since);
        self.since = now;
        self.starts[next as usize].get_or_insert(now.saturating_duration_since(self.arrived));
        std::mem::replace(&mut self.current, next)
    }

    /// Returns the duration of a stage; zero if the exchange did not reach it.
    pub fn of(&self, stage: Stage) -> Duration {
        self.times[stage as usize]
    }

    /// Returns the reached stages: first start, relative to the arrival, and total duration.
    pub fn each(&self) -> impl Iterator<Item = (Stage, Duration, Duration)> {
        let (starts, times) = (self.starts, self.times);
        let all = Stage::ALL
            .into_iter()
            .filter_map(move |stage| Some((stage, starts[stage as usize]?, times[stage as usize])));
        all.filter(|(_, _, time)| !time.is_zero())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StageLabels {
    source: String,
    stage: &'static str,
}

/// The histograms of one source's stages, by [`Stage`].
pub(super) type StageHistograms = [Histogram; Stage::ALL.len()];

/// Buckets from 10 µs, the time of an access check, to 42 s.
pub(super) fn stage_times() -> Histogram {
    Histogram::new(exponential_buckets(0.000_01, 4.0, 12))
}

/// Returns the histograms of a source.
pub(super) fn histograms(family: &Family<StageLabels, Histogram>, source: &str) -> StageHistograms {
    Stage::ALL.map(|stage| family.get_or_create_owned(&StageLabels { source: source.to_owned(), stage: stage.label() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instant_belongs_to_one_stage() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut stages = StageTimes::begin(start);
        assert_eq!(stages.enter(Stage::Request, at(1)), Stage::Access);
        assert_eq!(stages.enter(Stage::Source, at(3)), Stage::Request);
        // An entry while the source works: that time belongs to the log; then the source's stage continues.
        let before = stages.enter(Stage::Log, at(10));
        stages.enter(before, at(14));
        assert_eq!(stages.enter(Stage::Log, at(20)), Stage::Source);
        stages.enter(Stage::Log, at(21));
        let ms = |stage| stages.of(stage).as_millis();
        assert_eq!(Stage::ALL.map(ms), [1, 2, 0, 13, 0, 5]);
        assert_eq!(stages.each().map(|(.., time)| time).sum::<Duration>(), Duration::from_millis(21));
        assert!(stages.each().all(|(stage, ..)| stage != Stage::Guard), "the exchange did not reach it");
        let starts: Vec<_> = stages.each().map(|(stage, start, _)| (stage.label(), start.as_millis())).collect();
        assert_eq!(starts, [("access", 0), ("request", 1), ("source", 3), ("log", 10)]);
    }

    #[test]
    fn a_clock_that_goes_back_subtracts_nothing() {
        let start = Instant::now() + Duration::from_secs(1);
        let mut stages = StageTimes::begin(start);
        stages.enter(Stage::Source, start - Duration::from_millis(5));
        assert_eq!(stages.of(Stage::Access), Duration::ZERO);
    }
}
