//! Shares of a bounded resource: how much each holder may have at once, how much all together, and how often each may
//! take some. A lock for each beginning and end, never over an await.

use foldhash::HashMap;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Number of holders that are remembered for their rate before idle ones are dropped.
const MAX_AT_REST: usize = 1_024;
/// Minimum interval between sweeps: each scans all holders.
const SWEEP: Duration = Duration::from_secs(1);

/// The limits of a resource.
#[derive(Debug, Clone, Copy)]
pub struct ShareLimits {
    /// For all together.
    pub total: usize,
    /// For one holder.
    pub per_owner: usize,
    /// While all together hold at most this, one holder may exceed its own limit, since no other needs it. 0: never.
    pub has_headroom: usize,
    /// Rate at which one holder may begin; `None`: no limit.
    pub rate: Option<ShareRate>,
}

/// Rate at which one holder may begin.
#[derive(Debug, Clone, Copy)]
pub struct ShareRate {
    /// Beginnings a second, sustained.
    pub per_second: u32,
    /// Beginnings at once above that.
    pub burst: u32,
}

/// The metrics of shares.
#[derive(Debug, Clone, Default)]
pub struct ShareMetrics {
    /// The amount held by all together.
    pub held: Gauge,
    /// Number of refusals.
    pub refused: Counter,
}

/// The reason of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// The holder has reached its limit.
    #[error("one caller may have {0} at once")]
    OwnerFull(usize),
    /// The holder begins too often; it may again after this time.
    #[error("one caller may begin only so often")]
    TooFast(Duration),
    /// All together have reached the limit.
    #[error("all callers together have {0}")]
    Full(usize),
}

/// Hands out shares to holders of a kind.
#[derive(Debug)]
pub struct Shares<K> {
    limits: ShareLimits,
    state: Mutex<ShareState<K>>,
    metrics: ShareMetrics,
}

#[derive(Debug)]
struct ShareState<K> {
    held: usize,
    holders: HashMap<K, HolderUsage>,
    /// When idle holders were last dropped.
    swept: Option<Instant>,
}

#[derive(Debug)]
struct HolderUsage {
    held: usize,
    tokens: f64,
    refilled: Instant,
}

/// A share; released when dropped.
#[derive(Debug)]
pub struct Share<K: Eq + Hash> {
    shares: Arc<Shares<K>>,
    holder: K,
    amount: usize,
}

impl ShareRate {
    fn most(self) -> f64 {
        f64::from(self.per_second) + f64::from(self.burst)
    }

    /// Returns how long an idle holder takes to regain its full rate.
    fn rest(self) -> Duration {
        Duration::from_secs_f64(self.most() / f64::from(self.per_second.max(1)))
    }
}

impl<K: Eq + Hash + Clone> Shares<K> {
    /// Makes shares with these limits and metrics.
    pub fn new(limits: ShareLimits, metrics: ShareMetrics) -> Arc<Self> {
        let state = Mutex::new(ShareState { held: 0, holders: HashMap::default(), swept: None });
        Arc::new(Shares { limits, state, metrics })
    }

    /// Takes an amount for a holder.
    ///
    /// # Errors
    /// The holder has too much or begins too often, or all together have too much; in this order.
    pub fn take(self: &Arc<Self>, holder: &K, amount: usize) -> Result<Share<K>, ShareError> {
        self.take_at(holder, amount, Instant::now())
    }

    /// [`Shares::take`] at a given time.
    ///
    /// # Errors
    /// As there.
    pub fn take_at(self: &Arc<Self>, holder: &K, amount: usize, now: Instant) -> Result<Share<K>, ShareError> {
        let mut state = self.lock();
        let taken = state.take(&self.limits, holder, amount, now);
        self.metrics.held.set(i64::try_from(state.held).unwrap_or(i64::MAX));
        drop(state);
        match taken {
            Ok(()) => Ok(Share { shares: self.clone(), holder: holder.clone(), amount }),
            Err(error) => {
                self.metrics.refused.inc();
                Err(error)
            }
        }
    }
}

impl<K> Shares<K> {
    /// Returns the amount held by all together.
    pub fn held(&self) -> usize {
        self.lock().held
    }

    /// Returns the number of remembered holders.
    #[cfg(test)]
    pub fn owners(&self) -> usize {
        self.lock().holders.len()
    }

    fn lock(&self) -> MutexGuard<'_, ShareState<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone> ShareState<K> {
    fn take(&mut self, limits: &ShareLimits, key: &K, amount: usize, now: Instant) -> Result<(), ShareError> {
        if let Some(rate) = limits.rate
            && self.holders.len() >= MAX_AT_REST
            && self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP)
        {
            self.swept = Some(now);
            // A holder that holds nothing and has its full rate is equivalent to an unknown one.
            self.holders.retain(|_, one| one.held > 0 || now.saturating_duration_since(one.refilled) < rate.rest());
        }
        let all = self.held.saturating_add(amount);
        let held = self.holders.get(key).map_or(0, |holder| holder.held);
        if held.saturating_add(amount) > limits.per_owner && all > limits.has_headroom {
            return Err(ShareError::OwnerFull(limits.per_owner));
        }
        let tokens = limits.rate.map_or(0.0, ShareRate::most);
        let holder = self.holders.entry(key.clone());
        let holder = holder.or_insert(HolderUsage { held: 0, tokens, refilled: now });
        if let Some(rate) = limits.rate {
            let passed = now.saturating_duration_since(holder.refilled).as_secs_f64();
            holder.tokens = (holder.tokens + passed * f64::from(rate.per_second)).min(rate.most());
            holder.refilled = now;
            if holder.tokens < 1.0 {
                let wait = (1.0 - holder.tokens) / f64::from(rate.per_second.max(1));
                return Err(ShareError::TooFast(Duration::from_secs_f64(wait)));
            }
        }
        if all > limits.total {
            if limits.rate.is_none() && holder.held == 0 {
                self.holders.remove(key);
            }
            return Err(ShareError::Full(limits.total));
        }
        holder.tokens -= 1.0;
        holder.held += amount;
        self.held = all;
        Ok(())
    }
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut state = self.shares.lock();
        state.held = state.held.saturating_sub(self.amount);
        if let Some(holder) = state.holders.get_mut(&self.holder) {
            holder.held = holder.held.saturating_sub(self.amount);
            if holder.held == 0 && self.shares.limits.rate.is_none() {
                state.holders.remove(&self.holder);
            }
        }
        self.shares.metrics.held.set(i64::try_from(state.held).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PLAIN: ShareLimits = ShareLimits { total: 10, per_owner: 4, has_headroom: 0, rate: None };

    #[test]
    fn d3_shares_are_bounded_by_holder_and_in_all_and_come_back() {
        let metrics = ShareMetrics::default();
        let shares = Shares::new(PLAIN, metrics.clone());
        let first = shares.take(&"a", 3).unwrap();
        assert_eq!(shares.take(&"a", 2).unwrap_err(), ShareError::OwnerFull(4));
        let second = shares.take(&"a", 1).unwrap();
        let _others = (shares.take(&"b", 4).unwrap(), shares.take(&"c", 1).unwrap());
        assert_eq!(shares.take(&"d", 2).unwrap_err(), ShareError::Full(10));
        assert_eq!((shares.held(), shares.owners(), metrics.held.get(), metrics.refused.get()), (9, 3, 9, 2));
        drop((first, second));
        assert!(shares.take(&"d", 4).is_ok());
        assert_eq!((shares.held(), shares.owners(), metrics.held.get()), (5, 2, 5));
        assert_eq!(shares.take(&"e", usize::MAX).unwrap_err(), ShareError::OwnerFull(4));
        assert_eq!(shares.owners(), 2, "who was given nothing is not remembered");
    }

    #[test]
    fn d3_one_holder_may_have_more_while_nobody_else_wants_it() {
        let shares = Shares::new(ShareLimits { has_headroom: 5, ..PLAIN }, ShareMetrics::default());
        let alone = shares.take(&"a", 5).unwrap();
        assert_eq!(shares.take(&"a", 1).unwrap_err(), ShareError::OwnerFull(4));
        let other = shares.take(&"b", 4).unwrap();
        assert_eq!(shares.take(&"b", 1).unwrap_err(), ShareError::OwnerFull(4));
        drop((alone, other));
        let _other = shares.take(&"b", 3).unwrap();
        assert!(shares.take(&"a", 2).is_ok() && shares.take(&"a", 4).is_ok());
    }

    #[test]
    fn d3_a_rate_is_each_holder_s_own_and_holders_at_rest_are_forgotten() {
        let rate = ShareRate { per_second: 10, burst: 5 };
        let shares = Shares::new(ShareLimits { rate: Some(rate), ..PLAIN }, ShareMetrics::default());
        let start = Instant::now();
        let key = |number: usize| format!("c{number}");
        assert_eq!((0..40).filter(|_| shares.take_at(&key(0), 1, start).is_ok()).count(), 15);
        assert_eq!(
            shares.take_at(&key(0), 1, start).unwrap_err(),
            ShareError::TooFast(Duration::from_millis(100)),
            "in a tenth of a second one more"
        );
        assert!(shares.take_at(&key(1), 1, start).is_ok());
        assert!(shares.take_at(&key(0), 1, start + Duration::from_millis(101)).is_ok());
        for number in 1..10_000 {
            let at = start + Duration::from_millis(10 * number as u64);
            assert!(shares.take_at(&key(number), 1, at).is_ok());
        }
        // A hundred come each second, and are idle after one and a half.
        assert!(shares.owners() <= MAX_AT_REST + 100, "{}", shares.owners());
    }
}
