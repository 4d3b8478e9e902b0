//! CPU and memory of this process and of others, from `/proc`.

use std::time::{Duration, Instant};

/// What was used until an instant.
pub struct Usage {
    at: Instant,
    /// CPU seconds of this process.
    pub own: f64,
    /// CPU seconds of the others.
    pub others: f64,
    /// Bytes of this process in memory.
    pub own_rss: u64,
    /// Bytes of the others in memory.
    pub others_rss: u64,
    /// Seconds since the other instant ([`Usage::since`]).
    pub seconds: f64,
}

impl Usage {
    /// Returns the usage of this process and of others by their numbers.
    pub fn of(others: &[u32]) -> Self {
        let all: Vec<(f64, u64)> = others.iter().map(|process| read(&process.to_string())).collect();
        let (own, own_rss) = read("self");
        Usage {
            at: Instant::now(),
            own,
            others: all.iter().map(|(cpu, _)| cpu).sum(),
            own_rss,
            others_rss: all.iter().map(|(_, rss)| rss).sum(),
            seconds: 0.0,
        }
    }

    /// Returns what was used since an earlier instant; memory as it is.
    pub fn since(self, before: &Usage) -> Self {
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        Usage { own: self.own - before.own, others: self.others - before.others, seconds, ..self }
    }
}

/// CPU seconds (of ticks of 10 ms) and resident bytes of a process.
fn read(process: &str) -> (f64, u64) {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let after: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks = |at: usize| after[at].parse::<u64>().unwrap();
    let pages: u64 = after[21].parse().unwrap();
    ((ticks(11) + ticks(12)) as f64 / 100.0, pages * 4_096)
}

/// Returns a percentile in milliseconds.
pub fn percentile(all: &[Duration], percent: usize) -> f64 {
    let mut all = all.to_vec();
    all.sort();
    all.get(all.len() * percent / 100).map_or(f64::NAN, |one| one.as_secs_f64() * 1e3)
}
