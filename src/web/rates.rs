//! Rates of clients: a token bucket for each.

use crate::config::RateLimit;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Number of buckets; beyond it, full ones are dropped. There are as many as clients that made requests within some
/// seconds.
const MAX_KEPT: usize = 100_000;

/// The buckets of all clients.
pub(super) struct Rates {
    rate: RateLimit,
    buckets: Mutex<HashMap<String, RequestBucket>>,
}

struct RequestBucket {
    left: f64,
    filled: Instant,
}

impl Rates {
    /// Full buckets.
    pub(super) fn new(rate: RateLimit) -> Self {
        Rates { rate, buckets: Mutex::default() }
    }

    /// Takes one request from a client's bucket; if it is empty, returns the time to wait.
    pub(super) fn take(&self, client: &str, now: Instant) -> Result<(), Duration> {
        let (each_second, burst) = (f64::from(self.rate.each_second), f64::from(self.rate.burst.max(1)));
        let fill = |bucket: &RequestBucket| {
            let passed = now.saturating_duration_since(bucket.filled).as_secs_f64();
            (bucket.left + passed * each_second).min(burst)
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_KEPT && !buckets.contains_key(client) {
            buckets.retain(|_, bucket| fill(bucket) < burst);
            if buckets.len() >= MAX_KEPT {
                return Err(Duration::from_secs(1));
            }
        }
        let bucket = buckets.entry(client.to_owned()).or_insert(RequestBucket { left: burst, filled: now });
        let left = fill(bucket);
        bucket.filled = now;
        if left < 1.0 {
            bucket.left = left;
            return Err(Duration::from_secs_f64((1.0 - left) / each_second));
        }
        bucket.left = left - 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_its_own_bucket_which_fills_again() {
        let rates = Rates::new(RateLimit { each_second: 2, burst: 3 });
        let now = Instant::now();
        assert_eq!((0..5).filter(|_| rates.take("one", now).is_ok()).count(), 3);
        assert!(rates.take("two", now).is_ok());
        let wait = rates.take("one", now).err().unwrap_or_default();
        assert!(wait > Duration::from_millis(400) && wait <= Duration::from_millis(500), "{wait:?}");
        assert!(rates.take("one", now + wait).is_ok() && rates.take("one", now + wait).is_err());
        let later = now + Duration::from_secs(60);
        assert_eq!((0..9).filter(|_| rates.take("one", later).is_ok()).count(), 3, "no more than the burst");
    }

    #[test]
    fn the_number_of_buckets_is_bounded() {
        let rates = Rates::new(RateLimit { each_second: 1, burst: 2 });
        let now = Instant::now();
        let taken = (0..MAX_KEPT + 10).filter(|number| rates.take(&number.to_string(), now).is_ok()).count();
        assert_eq!(taken, MAX_KEPT);
        assert!(rates.take("another", now + Duration::from_secs(5)).is_ok(), "those that are full again went");
        assert_eq!(rates.buckets.lock().map(|buckets| buckets.len()).ok(), Some(1));
    }
}
