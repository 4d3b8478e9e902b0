//! Rates and quotas of grants, exact within one gateway. A rate is a token bucket; a quota counts the calls of a day in
//! Ho Chi Minh City. One small lock for each of 64 shards, held for some tens of nanoseconds and never over an await.

use crate::registry::GrantView;
use crate::registry::usage::DayUsage;
use crate::status::{Reason, Refusal};
use crate::time_zone::{day, day_begins};
use foldhash::{HashMap, quality::RandomState};
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const SHARDS: usize = 64;

struct Usage {
    tokens: f64,
    refilled: Instant,
    day: i64,
    used: u64,
    /// Changed since the last save.
    changed: bool,
    /// Calls since [`GrantLimits::demand`] was called, those that were refused included.
    demand: u32,
    /// The part of the grant's rate that this gateway has.
    part: f64,
}

/// The rest of a grant's rate and quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remaining {
    /// Calls that may be made at once now.
    pub rate: u32,
    /// Calls left today; `None`: no quota.
    pub quota: Option<u64>,
    /// The number of this call in its day.
    pub call: u64,
}

impl Usage {
    /// A grant that was not used yet on this day: its bucket is full.
    fn begin(at: Instant, day: i64, part: f64) -> Self {
        Usage { tokens: f64::MAX, refilled: at, day, used: 0, changed: false, demand: 0, part }
    }
}

/// The usage of all grants.
pub struct GrantLimits {
    shards: Vec<Mutex<HashMap<String, Usage>>>,
    hasher: RandomState,
    /// The part of a rate that this gateway has of a grant of which nothing else is known.
    part: f64,
    /// Whether daily quotas are counted here: several gateways count them where they agree.
    has_quotas: bool,
}

impl Default for GrantLimits {
    fn default() -> Self {
        let (shards, hasher) = ((0..SHARDS).map(|_| Mutex::default()).collect(), RandomState::default());
        GrantLimits { shards, hasher, part: 1.0, has_quotas: true }
    }
}

/// Returns the refusal of a call beyond a day's quota.
pub fn quota_exceeded(quota: u64, day: i64, now: i64) -> Refusal {
    let left = day_begins(day + 1) - now;
    let after = Duration::from_secs(left.max(1).unsigned_abs());
    let detail = format!("{quota} calls a day");
    Refusal { retry_after: Some(after), ..Refusal::with(Reason::QuotaExceeded, detail) }
}

impl GrantLimits {
    /// Limits of one of several gateways: it has a part of each rate, and quotas are counted where they agree.
    pub fn one_of(gateways: usize) -> Self {
        GrantLimits { part: 1.0 / gateways.max(1) as f64, has_quotas: false, ..GrantLimits::default() }
    }

    /// Returns how many calls came to this gateway since the last time, by grant, those that were refused included.
    pub fn demand(&self) -> Vec<(String, u32)> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let busy = shard.iter_mut().filter(|(_, usage)| usage.demand > 0);
            all.extend(busy.map(|(grant, usage)| (grant.clone(), std::mem::take(&mut usage.demand))));
        }
        all
    }

    /// Sets this gateway's part of each grant's rate; of a grant that is not named, it is that of the beginning.
    pub fn set_parts(&self, parts: &std::collections::HashMap<String, f64>) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.iter_mut().for_each(|(grant, usage)| usage.part = parts.get(grant).copied().unwrap_or(self.part));
        }
    }

    /// Takes one call from a grant's rate and quota, and returns what remains.
    ///
    /// # Errors
    /// RATE_LIMITED or QUOTA_EXCEEDED, with the time after which a call may be made again.
    pub fn take(&self, grant: &GrantView, at: Instant, now: i64) -> Result<Remaining, Refusal> {
        let mut shard = self.shard(&grant.id);
        let today = day(now);
        if !shard.contains_key(&*grant.id) {
            shard.insert(grant.id.to_string(), Usage::begin(at, today, self.part));
        }
        let Some(usage) = shard.get_mut(&*grant.id) else { return Err(Reason::RateLimited.into()) };
        usage.demand = usage.demand.saturating_add(1);
        let rate = f64::from(grant.rate) * usage.part;
        // A call at a time is always possible.
        let most = ((f64::from(grant.rate) + f64::from(grant.burst)) * usage.part).max(1.0);
        let passed = at.saturating_duration_since(usage.refilled).as_secs_f64();
        usage.tokens = (usage.tokens + passed * rate).min(most);
        usage.refilled = at;
        // A clock that is set back returns to an earlier day: the usage of the later day continues.
        if today > usage.day {
            usage.day = today;
            usage.used = 0;
        }
        if grant.daily_quota > 0 && usage.used >= grant.daily_quota && self.has_quotas {
            return Err(quota_exceeded(grant.daily_quota, usage.day, now));
        }
        if usage.tokens < 1.0 {
            let wait = (1.0 - usage.tokens) / rate.max(0.01);
            return Err(Refusal::retry(Reason::RateLimited, Duration::from_secs_f64(wait)));
        }
        usage.tokens -= 1.0;
        usage.used += 1;
        usage.changed = true;
        let quota = (grant.daily_quota > 0).then(|| grant.daily_quota.saturating_sub(usage.used));
        Ok(Remaining { rate: usage.tokens as u32, quota, call: usage.used })
    }

    /// Restores the usage from before a restart: the later day counts, and on the same day the greater number. Rates
    /// begin with full buckets: they refill in seconds.
    pub fn restore(&self, kept: impl IntoIterator<Item = DayUsage>) {
        let at = Instant::now();
        for DayUsage { grant, day, used } in kept {
            let mut shard = self.shard(&grant);
            let usage = shard.entry(grant);
            let usage = usage.or_insert_with(|| Usage { changed: true, ..Usage::begin(at, day, self.part) });
            if (day, used) > (usage.day, usage.used) {
                (usage.day, usage.used) = (day, used);
            }
        }
    }

    /// Returns what was used since the last call.
    pub fn changed(&self) -> Vec<DayUsage> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for (grant, usage) in shard.iter_mut().filter(|(_, usage)| usage.changed) {
                usage.changed = false;
                all.push(DayUsage { grant: grant.clone(), day: usage.day, used: usage.used });
            }
        }
        all
    }

    fn shard(&self, grant: &str) -> MutexGuard<'_, HashMap<String, Usage>> {
        let shard = (self.hasher.hash_one(grant) as usize) % SHARDS;
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::registry::Grant;

    fn grant(rate: u32, burst: u32, daily_quota: u64) -> GrantView {
        let grant = Grant { id: "g".into(), rate, burst, daily_quota, not_after: i64::MAX, ..Grant::default() };
        GrantView::from(&grant)
    }

    #[test]
    fn a_rate_lets_its_burst_through_and_then_waits() {
        let (limits, grant, start) = (GrantLimits::default(), grant(10, 5, 0), Instant::now());
        assert_eq!((0..20).filter(|_| limits.take(&grant, start, 0).is_ok()).count(), 15);
        let refusal = limits.take(&grant, start, 0).unwrap_err();
        assert_eq!((refusal.reason, refusal.retry_after), (Reason::RateLimited, Some(Duration::from_millis(100))));
        assert!(limits.take(&grant, start + Duration::from_millis(101), 0).is_ok());
    }

    #[test]
    fn one_of_several_gateways_has_its_part_of_a_rate_and_the_parts_follow_the_calls() {
        let (limits, grant, start) = (GrantLimits::one_of(3), grant(30, 0, 0), Instant::now());
        let served = |at: Instant| (0..100).filter(|_| limits.take(&grant, at, 0).is_ok()).count();
        assert_eq!(served(start), 10);
        assert_eq!((limits.demand(), limits.demand()), (vec![("g".to_owned(), 100)], vec![]));
        limits.set_parts(&[("g".to_owned(), 0.5)].into());
        assert_eq!(served(start + Duration::from_secs(2)), 15);
        limits.set_parts(&Default::default());
        assert_eq!(served(start + Duration::from_secs(4)), 10);
    }

    #[test]
    fn l11_a_quota_is_had_once_though_the_clock_goes_back() {
        let (limits, grant, start) = (GrantLimits::default(), grant(100, 0, 2), Instant::now());
        let (noon, day_s) = (1_795_500_000, 86_400);
        assert!(limits.take(&grant, start, noon).is_ok() && limits.take(&grant, start, noon).is_ok());
        for back in [1, 30, 365 * 40] {
            let refusal = limits.take(&grant, start, noon - back * day_s).unwrap_err();
            assert_eq!(refusal.reason, Reason::QuotaExceeded);
        }
        assert!(limits.take(&grant, start, noon).is_err(), "the day that it had is the same");
        assert!(limits.take(&grant, start, noon + day_s).is_ok(), "the next day has its own");
        // Saved over a restart, too.
        let restarted = GrantLimits::default();
        restarted.restore(limits.changed());
        assert!(restarted.take(&grant, start, noon - day_s).is_ok(), "one is left of the later day");
        assert!(restarted.take(&grant, start, noon - day_s).is_err());
    }

    #[test]
    fn a_quota_ends_at_midnight_in_ho_chi_minh_city() {
        let (limits, grant, start) = (GrantLimits::default(), grant(100, 0, 2), Instant::now());
        // 2026-11-24 23:59:50 there is 16:59:50 UTC.
        let evening = 1_795_539_590;
        assert!(limits.take(&grant, start, evening).is_ok() && limits.take(&grant, start, evening).is_ok());
        let refusal = limits.take(&grant, start, evening).unwrap_err();
        assert_eq!((refusal.reason, refusal.retry_after), (Reason::QuotaExceeded, Some(Duration::from_secs(10))));
        assert!(limits.take(&grant, start, evening + 10).is_ok());
    }
}
