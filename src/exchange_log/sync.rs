//! The locks of the log's threads: the standard library's, or those of `shuttle`, which the simulator schedules by
//! seed.

#[cfg(simulator)]
pub(super) use shuttle::sync::{Condvar, Mutex, MutexGuard};
use std::sync::PoisonError;
#[cfg(not(simulator))]
pub(super) use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// What a thread has seen and changed of the shared state: for the model that explores every interleaving
/// (`simulator/src/handover.rs`). Does nothing in the product.
#[cfg(simulator)]
pub(super) use crate::handover::{changed, forgets, seen};
#[cfg(not(simulator))]
#[inline]
pub(super) fn seen(_what: u8) {}
#[cfg(not(simulator))]
#[inline]
pub(super) fn changed(_what: u8) {}
/// What it has seen no longer matters from here on.
#[cfg(not(simulator))]
#[inline]
pub(super) fn forgets() {}

/// Locks. A panic in one thread does not make the log's plain data wrong: every change to it is one statement.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a notification.
pub(super) fn wait<'g, T>(wake: &Condvar, guard: MutexGuard<'g, T>) -> MutexGuard<'g, T> {
    wake.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// Waits for some time as long as a condition holds. Simulated time passes at once.
pub(super) fn pause<'g, T>(
    wake: &Condvar,
    guard: MutexGuard<'g, T>,
    time: Duration,
    condition: impl FnMut(&mut T) -> bool,
) -> MutexGuard<'g, T> {
    if cfg!(simulator) {
        return guard;
    }
    wake.wait_timeout_while(guard, time, condition).unwrap_or_else(PoisonError::into_inner).0
}
