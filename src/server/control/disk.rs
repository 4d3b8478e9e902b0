//! Forecasts when the disk is full: reported days ahead, in metrics all the time, in the log once a day, and in readiness.

use crate::server::shared::Shared;
use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often the free space is checked.
const EVERY: Duration = Duration::from_secs(60);
/// How often the same warning is repeated.
const REPEAT: Duration = Duration::from_secs(86_400);
/// Samples that are kept: three days of one each ten minutes.
const MAX_SAMPLES: usize = 432;
const APART: Duration = Duration::from_secs(600);
/// The growth of the last hours, or of the last days, whichever fills the disk sooner.
const WINDOWS: [Duration; 2] = [Duration::from_secs(6 * 3_600), Duration::from_secs(72 * 3_600)];
/// The days that are reported if the disk does not fill: ten years.
const MAX_DAYS: f64 = 3_650.0;

/// Free space over time.
#[derive(Debug, Default)]
struct Forecast {
    samples: VecDeque<(Instant, u64)>,
}

impl Forecast {
    fn add(&mut self, at: Instant, free: u64) {
        if self.samples.back().is_none_or(|(last, _)| at.duration_since(*last) >= APART) {
            self.samples.push_back((at, free));
        }
        if self.samples.len() > MAX_SAMPLES {
            self.samples.pop_front();
        }
    }

    /// Returns the days until the disk is full; `None` if there are too few samples.
    fn days_remaining(&self, now: Instant, free: u64) -> Option<f64> {
        let days = |window: Duration| {
            let (since, before) = self.samples.iter().find(|(at, _)| now.duration_since(*at) <= window)?;
            let span = now.duration_since(*since);
            if span < APART {
                return None;
            }
            let a_day = before.saturating_sub(free) as f64 / span.as_secs_f64() * 86_400.0;
            Some(if a_day > 0.0 { (free as f64 / a_day).min(MAX_DAYS) } else { MAX_DAYS })
        };
        WINDOWS.into_iter().filter_map(days).reduce(f64::min)
    }
}

/// The control plane's state of the disk.
#[derive(Debug, Default)]
pub(in crate::server) struct DiskMonitor {
    looked: Option<Instant>,
    warned: Option<Instant>,
    forecast: Forecast,
}

impl DiskMonitor {
    /// Checks the disk of the data folder when it is due; warns below this number of days.
    pub(in crate::server) fn look(&mut self, data: &Path, warn_days: u32, shared: &Shared) {
        let now = Instant::now();
        if self.looked.is_some_and(|last| now.duration_since(last) < EVERY) {
            return;
        }
        self.looked = Some(now);
        let free = match rustix::fs::statvfs(data) {
            Ok(found) => found.f_bavail.saturating_mul(found.f_frsize),
            Err(error) => return tracing::warn!(%error, "the disk's free space cannot be read"),
        };
        let days = self.forecast.days_remaining(now, free);
        self.forecast.add(now, free);
        shared.metrics.disk(free, days.unwrap_or(MAX_DAYS));
        let few = days.filter(|days| *days < f64::from(warn_days)).map(|days| days as u32);
        shared.days_remaining.set(few);
        if let Some(days) = few
            && self.warned.is_none_or(|last| now.duration_since(last) >= REPEAT)
        {
            self.warned = Some(now);
            tracing::warn!(
                days,
                free_bytes = free,
                "the disk of the data folder will be full: archive, prune, or make it larger"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1 << 30;

    #[test]
    fn d1_the_disk_s_end_is_known_days_ahead_from_the_faster_growth() {
        let (start, hour) = (Instant::now(), Duration::from_secs(3_600));
        let mut forecast = Forecast::default();
        assert_eq!(forecast.days_remaining(start, 100 * GB), None);
        // Half a GB an hour for two days, twelve a day.
        for step in 0..48u32 {
            forecast.add(start + hour * step, 200 * GB - GB / 2 * u64::from(step));
        }
        let (now, free) = (start + hour * 48, 176 * GB);
        let days = forecast.days_remaining(now, free).unwrap_or(0.0);
        assert!((days - 176.0 / 12.0).abs() < 0.5, "{days}");
        // Then ten GB an hour: the last hours count.
        for step in 48..54u32 {
            forecast.add(start + hour * step, free - 10 * GB * u64::from(step - 48));
        }
        let days = forecast.days_remaining(start + hour * 54, 116 * GB).unwrap_or(0.0);
        assert!((days - 116.0 / 240.0).abs() < 0.1, "{days}");
    }

    #[test]
    fn d1_a_disk_that_does_not_fill_has_no_end_and_samples_are_bounded() {
        let (start, ten) = (Instant::now(), APART);
        let mut forecast = Forecast::default();
        for step in 0..2_000u32 {
            forecast.add(start + ten * step, 100 * GB + u64::from(step));
            forecast.add(start + ten * step + Duration::from_secs(1), 5);
        }
        assert_eq!(forecast.samples.len(), MAX_SAMPLES);
        assert_eq!(forecast.days_remaining(start + ten * 2_000, 100 * GB + 2_000), Some(MAX_DAYS));
    }
}
