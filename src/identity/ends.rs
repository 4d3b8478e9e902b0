//! Expiry of rights. Each expiry is a timer on the wall clock: nothing polls, and a change of the clock is noticed
//! soon.

use super::Certificate;
use super::refused::RefusedHandshake;
use super::tls::TlsAcceptors;
use crate::registry::now;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Longest sleep before the wall clock is read again: it may be set, and a machine may have been suspended.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Returns the time until a Unix time in seconds; zero if it is past.
pub fn remaining_until(at: i64) -> Duration {
    let now_ms = crate::exchange_log::clock::now_us().div_euclid(1_000);
    Duration::from_millis(at.saturating_mul(1_000).saturating_sub(now_ms).max(0).unsigned_abs())
}

/// Waits until a Unix time in seconds.
pub async fn expired(at: i64) {
    loop {
        let left = remaining_until(at);
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK_AGAIN)).await;
    }
}

/// Waits until an accepted certificate is no longer valid, and returns the cause: it has expired or is revoked, is no
/// longer under a CA, a CA above it has expired, or a list that covers it is out of date. `gate` is the TLS state at
/// its acceptance, `until` the latest end (Unix time in seconds).
pub async fn certificate_ended(
    mut gate: watch::Receiver<Arc<TlsAcceptors>>,
    certificate: &Certificate,
    mut until: i64,
) -> RefusedHandshake {
    loop {
        let next = certificate.next_end(now()).map_or(until, |end| end.min(until));
        tokio::select! {
            changed = gate.changed() => if changed.is_err() {
                std::future::pending::<()>().await;
            },
            () = expired(next) => {}
        }
        let admitted = gate.borrow_and_update().still_admits(&certificate.chain);
        match admitted {
            Ok(again) => until = again,
            Err(refused) => return refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn t6_what_is_past_is_reached_at_once_and_what_is_to_come_is_not() {
        expired(0).await;
        expired(now()).await;
        assert!(tokio::time::timeout(Duration::from_millis(300), expired(now() + 5)).await.is_err());
        assert!(remaining_until(now() + 5) > Duration::from_secs(3) && remaining_until(i64::MIN).is_zero());
    }
}
