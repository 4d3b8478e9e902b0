//! The places at a source: as many as its bound says, and a queue for them.

use super::bound::{Began, Bound, FEWEST, Pace};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

pub(super) struct Places {
    free: Semaphore,
    /// How many there are to be.
    size: AtomicUsize,
    /// Places that are taken although they are one too many: they go when they are given back.
    owed: AtomicUsize,
    waiting: AtomicUsize,
    /// Calls that ever had a place.
    calls: AtomicU64,
    bound: Mutex<Bound>,
}

/// A place in the queue.
pub(super) struct Waiting<'p> {
    places: &'p Places,
    /// How many wait, with this one.
    pub(super) ahead: usize,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.places.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Waiting<'_> {
    /// Waits for a place, which is to be given back.
    pub(super) async fn place(self) {
        self.places.wait().await;
    }
}

impl Places {
    pub(super) fn new(most: usize, least: usize) -> Self {
        Places {
            free: Semaphore::new(most),
            size: AtomicUsize::new(most),
            owed: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            calls: AtomicU64::new(0),
            bound: Mutex::new(Bound::new(most, least)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Bound> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    pub(super) fn size(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    /// Takes a place that is free, which is to be given back.
    pub(super) fn take(&self) -> bool {
        self.free.try_acquire().map(tokio::sync::SemaphorePermit::forget).is_ok()
    }

    /// Waits for a place, in no queue's count; it is to be given back.
    pub(super) async fn wait(&self) {
        // The semaphore is never closed.
        if let Ok(place) = self.free.acquire().await {
            place.forget();
        }
    }

    /// Gets into the queue, unless so many wait already.
    pub(super) fn queue(&self, longest: usize) -> Option<Waiting<'_>> {
        self.lock().waits();
        let ahead = self.waiting.fetch_add(1, Ordering::Relaxed) + 1;
        let waiting = Waiting { places: self, ahead };
        (ahead <= longest).then_some(waiting)
    }

    /// How a call begins that has just got its place.
    pub(super) fn begins(&self) -> Began {
        let there = self.size() + self.owed.load(Ordering::Relaxed);
        let alone = there.saturating_sub(self.free.available_permits()) <= FEWEST;
        Began { number: self.calls.fetch_add(1, Ordering::Relaxed), alone }
    }

    /// A call was answered: the bound may change.
    pub(super) fn answered(&self, pace: &Pace, call: Began, took: Duration, now: Instant) {
        let mut bound = self.lock();
        bound.answered(pace, call, took, self.calls.load(Ordering::Relaxed), now);
        self.resize(&bound);
    }

    /// Gives a place back.
    pub(super) fn give_back(&self) {
        if self.owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |owed| owed.checked_sub(1)).is_err() {
            self.free.add_permits(1);
        }
    }

    /// As many places as the bound says. Those under way stay: what is too much goes when it is given back.
    fn resize(&self, bound: &Bound) {
        let wanted = bound.now();
        let size = self.size.swap(wanted, Ordering::Relaxed);
        if wanted > size {
            (size..wanted).for_each(|_| self.give_back());
        } else if wanted < size {
            let gone = self.free.forget_permits(size - wanted);
            self.owed.fetch_add(size - wanted - gone, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// What each of these makes of a source's places: calls that come and go, and a bound that follows.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Comes,
        Goes,
        Bound(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Comes),
            3 => Just(Step::Goes),
            1 => (1..=8usize).prop_map(Step::Bound),
        ]
    }

    proptest! {
        #[test]
        fn never_more_than_there_are_and_none_is_lost(steps in proptest::collection::vec(step(), 0..200)) {
            let places = Places::new(8, 1);
            let mut calls = 0;
            for step in steps {
                let size = places.size();
                match step {
                    Step::Comes => {
                        let taken = places.take();
                        prop_assert_eq!(taken, calls < size);
                        calls += usize::from(taken);
                    }
                    Step::Goes if calls > 0 => {
                        places.give_back();
                        calls -= 1;
                    }
                    Step::Bound(bound) => {
                        let mut state = places.lock();
                        state.set(bound);
                        places.resize(&state);
                        prop_assert_eq!(places.size(), bound);
                    }
                    _ => {}
                }
            }
            (0..calls).for_each(|_| places.give_back());
            prop_assert_eq!(places.free.available_permits(), places.size());
        }
    }

    #[tokio::test]
    async fn a_place_that_is_one_too_many_goes_to_nobody() {
        let places = Places::new(2, 1);
        assert!(places.take() && places.take() && !places.take());
        {
            let mut state = places.lock();
            state.set(1);
            places.resize(&state);
        }
        let waits = tokio::time::timeout(SECOND / 50, async {
            places.give_back();
            places.queue(1).unwrap().place().await;
        });
        assert!(waits.await.is_err());
        assert!(places.queue(0).is_none());
        let waits = tokio::time::timeout(SECOND, async {
            places.give_back();
            places.queue(1).unwrap().place().await;
        });
        waits.await.unwrap();
    }
}
