//! Permits and their queue, under every behaviour of clients.

use super::*;
use crate::guard::retry::RetrySettings;
use futures_util::FutureExt;
use proptest::prelude::*;

struct Source {
    permits: PermitPool,
    wait: QueueWait,
    retries: Budget,
}

impl Source {
    fn new(most: usize, longest: usize) -> Self {
        let retries = Budget::new(RetrySettings::default());
        Source { permits: PermitPool::new(most, 1, longest), wait: QueueWait::new(), retries }
    }

    fn enter(&self, client: &str) -> Acquired<'_> {
        self.permits.acquire(client, &self.wait, &self.retries, Instant::now())
    }

    fn taken(&self, client: &str) -> TakenPermit {
        match self.enter(client) {
            Acquired::Place(taken) => taken,
            _ => panic!("{client} has no permit"),
        }
    }

    fn waits(&self, client: &str) -> QueuedCall<'_> {
        match self.enter(client) {
            Acquired::Waits(waiting) => waiting,
            _ => panic!("{client} does not wait"),
        }
    }

    fn refused(&self, client: &str) -> QueueFull {
        match self.enter(client) {
            Acquired::Refused(full) => full,
            _ => panic!("{client} is not refused"),
        }
    }

    fn bound(&self, now: usize) {
        let mut state = self.permits.lock();
        state.bound.set(now);
        state.serve();
    }

    fn held(&self, client: &str) -> usize {
        let mut state = self.permits.lock();
        let share = state.share(client);
        state.shares[share].held
    }
}

/// A client's step at a source, or a change of the limit.
#[derive(Debug, Clone, Copy)]
enum Step {
    Comes(usize),
    Goes(usize),
    LeavesTheQueue(usize),
    Bound(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..4usize).prop_map(Step::Comes),
        3 => any::<prop::sample::Index>().prop_map(|at| Step::Goes(at.index(64))),
        2 => any::<prop::sample::Index>().prop_map(|at| Step::LeavesTheQueue(at.index(64))),
        1 => (1..=8usize).prop_map(Step::Bound),
    ]
}

proptest! {
    #[test]
    fn never_more_than_there_are_and_none_is_lost(steps in proptest::collection::vec(step(), 0..300)) {
        let source = Source::new(8, 16);
        let (mut held, mut waiting): (Vec<TakenPermit>, Vec<QueuedCall<'_>>) = Default::default();
        for step in steps {
            match step {
                Step::Comes(client) => match source.enter(["a", "b", "c", "d"][client]) {
                    Acquired::Place(taken) => {
                        prop_assert!(held.len() < source.permits.size());
                        held.push(taken);
                    }
                    Acquired::Waits(one) => waiting.push(one),
                    Acquired::Refused(_) => {}
                },
                Step::Goes(at) if !held.is_empty() => {
                    let taken = held.swap_remove(at % held.len());
                    source.permits.release(taken.share);
                }
                Step::LeavesTheQueue(at) if !waiting.is_empty() => drop(waiting.remove(at % waiting.len())),
                Step::Bound(bound) => source.bound(bound),
                _ => {}
            }
            let mut still = Vec::new();
            for mut one in waiting {
                match one.outcome.try_recv() {
                    Ok(WaiterOutcome::Place(taken)) => {
                        one.over = true;
                        held.push(taken);
                    }
                    Ok(WaiterOutcome::GivesWay) => one.over = true,
                    Err(_) => still.push(one),
                }
            }
            waiting = still;
            let state = source.permits.lock();
            prop_assert_eq!((state.held, state.queued), (held.len(), waiting.len()));
            prop_assert!(waiting.len() <= 16 && (waiting.is_empty() || state.held >= state.size()));
        }
        drop(waiting);
        held.iter().for_each(|taken| source.permits.release(taken.share));
        let state = source.permits.lock();
        prop_assert_eq!((state.held, state.queued, state.waiting), (0, 0, 0));
        prop_assert!(state.shares.iter().all(|one| one.held == 0 && one.queued == 0 && one.waiting.is_empty()));
    }
}

#[test]
fn a_permit_that_is_one_too_many_goes_to_nobody() {
    let source = Source::new(2, 4);
    let held = [source.taken("a"), source.taken("a")];
    source.bound(1);
    let mut waits = std::pin::pin!(source.waits("a").permitted());
    source.permits.release(held[0].share);
    assert!(waits.as_mut().now_or_never().is_none());
    source.permits.release(held[1].share);
    assert!(waits.now_or_never().unwrap().is_some());
}

#[test]
fn a_client_alone_has_everything_and_shares_permits_as_soon_as_another_waits() {
    let source = Source::new(4, 8);
    let first: Vec<TakenPermit> = (0..4).map(|_| source.taken("crowd")).collect();
    let mut queue: Vec<_> = (0..8).map(|_| Box::pin(source.waits("crowd").permitted())).collect();
    assert!(!source.refused("crowd").crowds, "alone, it fills the source");
    // The other client's calls take the queue's newest places.
    let other: Vec<_> = (0..2).map(|_| Box::pin(source.waits("other").permitted())).collect();
    let gave_way: Vec<_> = queue.iter_mut().map(|one| one.now_or_never()).collect();
    assert!(gave_way[..6].iter().all(Option::is_none) && gave_way[6..].iter().all(|one| matches!(one, Some(None))));
    assert!(source.refused("crowd").crowds);
    // Two of four permits are released: they go to the other client.
    first[..2].iter().for_each(|taken| source.permits.release(taken.share));
    assert!(other.into_iter().all(|one| one.now_or_never().unwrap().is_some()));
    assert_eq!((source.held("crowd"), source.held("other")), (2, 2));
}

#[test]
fn the_queue_is_shared_evenly_and_a_small_client_is_not_told_that_it_crowds() {
    let source = Source::new(1, 9);
    let _held = source.taken("a");
    let queued = |client: &str| {
        let mut state = source.permits.lock();
        let share = state.share(client);
        state.shares[share].queued
    };
    let _a: Vec<_> = (0..9).map(|_| source.waits("a")).collect();
    let _b: Vec<_> = (0..5).map(|_| source.waits("b")).collect();
    // a has five with its permit, and so has b: one more of b would not make the shares more even.
    assert!(source.refused("b").crowds && !source.refused("a").crowds);
    let _c: Vec<_> = (0..3).map(|_| source.waits("c")).collect();
    assert_eq!((queued("a") + queued("b"), queued("c")), (6, 3));
    assert!(!source.refused("c").crowds && source.permits.queued() == 9);
}

#[test]
fn a_client_without_a_call_may_wait_behind_a_crowd_that_may_not() {
    let source = Source::new(1, 1_000);
    (0..100).for_each(|_| source.wait.record_latency(Duration::from_millis(50), 0));
    let start = Instant::now();
    let enter =
        |client: &str, after: Duration| source.permits.acquire(client, &source.wait, &source.retries, start + after);
    assert!(matches!(enter("crowd", Duration::ZERO), Acquired::Place(_)));
    let mut queue = enter("crowd", Duration::from_millis(1));
    let later = Duration::from_millis(500);
    assert!(matches!(enter("crowd", later), Acquired::Refused(_)), "a queue that stands");
    let _other = enter("other", later);
    assert!(matches!(_other, Acquired::Waits(_)));
    let Acquired::Waits(newest) = &mut queue else { panic!("it waited") };
    assert!(matches!(newest.outcome.try_recv(), Ok(WaiterOutcome::GivesWay)));
    assert!(matches!(enter("other", later), Acquired::Refused(QueueFull { crowds: false, .. })));
}

#[test]
fn clients_that_come_and_go_are_not_remembered_without_end() {
    let source = Source::new(1, 4);
    let taken = source.taken("holder");
    for number in 0..2 * MAX_SHARES {
        drop(source.waits(&format!("client-{number}")));
    }
    assert!(source.permits.lock().shares.len() <= MAX_SHARES);
    assert_eq!(source.held("holder"), 1);
    source.permits.release(taken.share);
    assert_eq!(source.held("holder"), 0);
}
