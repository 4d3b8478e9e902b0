//! Whether a gateway knows the registry as it is: a view that is too old gives no access.

use crate::cluster::timers::Timers;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How old a view may be before calls are refused, if nothing else is configured.
pub const MAX_AGE: Duration = Duration::from_secs(30);

/// The age of a gateway's view of the registry, by a monotonic clock.
pub struct Freshness<T> {
    timers: T,
    max_age: Duration,
    /// When the last successful refresh began: what was changed before is known since.
    refreshed: Mutex<Option<Duration>>,
}

impl<T: Timers> Freshness<T> {
    /// Nothing is known yet: the view is stale.
    pub fn new(timers: T, max_age: Duration) -> Self {
        Freshness { timers, max_age, refreshed: Mutex::new(None) }
    }

    /// Returns whether the gateway must refuse calls: a revocation of that long ago may not be known here.
    pub fn is_stale(&self) -> bool {
        self.age().is_none_or(|age| age > self.max_age)
    }

    /// Returns how old the view is at most; `None` before the first refresh.
    pub fn age(&self) -> Option<Duration> {
        let refreshed = *self.refreshed();
        refreshed.map(|refreshed| self.timers.now().saturating_sub(refreshed))
    }

    /// Everything that etcd had at this time is applied.
    pub(super) fn has_refreshed(&self, began: Duration) {
        let mut refreshed = self.refreshed();
        *refreshed = Some(refreshed.map_or(began, |before| before.max(began)));
    }

    fn refreshed(&self) -> MutexGuard<'_, Option<Duration>> {
        self.refreshed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
