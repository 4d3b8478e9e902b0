//! The clock and the timers, so that a simulation can replace them.

use super::ClusterError;
use std::future::Future;
use std::time::Duration;

/// A monotonic clock with timers.
pub trait Timers: Clone + Send + Sync {
    /// Returns the time since some fixed instant.
    fn now(&self) -> Duration;
    /// Waits.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send;

    /// Waits for a request, at most this long.
    ///
    /// # Errors
    /// Those of the request; [`ClusterError::OutcomeUnknown`] if there is no response in time.
    fn within<T>(
        &self,
        limit: Duration,
        request: impl Future<Output = Result<T, ClusterError>> + Send,
    ) -> impl Future<Output = Result<T, ClusterError>> + Send {
        async move {
            tokio::select! {
                biased;
                response = request => response,
                () = self.sleep(limit) => {
                    Err(ClusterError::OutcomeUnknown(format!("no response in {} ms", limit.as_millis())))
                }
            }
        }
    }
}

/// The timers of the tokio runtime.
#[derive(Debug, Clone, Copy)]
pub struct RuntimeTimers(tokio::time::Instant);

impl Default for RuntimeTimers {
    fn default() -> Self {
        RuntimeTimers(tokio::time::Instant::now())
    }
}

impl Timers for RuntimeTimers {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
