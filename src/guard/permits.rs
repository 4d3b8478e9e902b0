//! The permits at a source: as many as its limit, and a queue for them, shared among clients.
//!
//! A client that is alone may have all permits and the whole queue. If clients wait for permits, each released permit
//! goes to the client that holds the fewest, in turn if several hold as many, so that none keeps more than its share
//! (max-min fairness). If the queue is too long, the client with the most waiting calls gives way: its newest call is
//! refused, and a call of a client with fewer takes its place in the queue (the longest queue is cut, as in FQ-CoDel,
//! RFC 8290, section 4.1).

use super::adaptive_limit::{AdaptiveLimit, BaseLatency, CallStart, FEWEST};
use super::queue::QueueWait;
use super::retry::{self, Budget};
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Maximum number of clients that are remembered without calls here: all of a province's systems.
const MAX_SHARES: usize = 1_024;

pub(super) struct PermitPool {
    /// Calls that may wait.
    longest: usize,
    state: Mutex<PoolState>,
}

struct PoolState {
    bound: AdaptiveLimit,
    /// Permits in use. They exceed the limit after it has decreased; the excess disappears as they are released.
    held: usize,
    /// Calls that wait in the queue.
    queued: usize,
    /// Those, and further requests of streams, which wait beside the queue.
    waiting: usize,
    /// Number of calls that ever got a permit.
    calls: u64,
    shares: Vec<ClientShare>,
    by_client: HashMap<String, usize>,
    /// The share that is served first among equals.
    turn: usize,
    /// The number of the next call that waits.
    next: u64,
}

/// One client's share of a source.
struct ClientShare {
    client: String,
    held: usize,
    queued: usize,
    waiting: VecDeque<Waiter>,
    /// Its retry balance, in thousandths of a retry.
    retries: u64,
}

struct Waiter {
    number: u64,
    /// In the queue, so it may be evicted.
    queued: bool,
    outcome: oneshot::Sender<WaiterOutcome>,
}

/// The result of a waiting call.
enum WaiterOutcome {
    Place(TakenPermit),
    /// It is evicted for another client's call.
    GivesWay,
}

/// A permit in use, which must be released.
#[derive(Debug, Clone, Copy)]
pub(super) struct TakenPermit {
    pub(super) began: CallStart,
    /// The share of its client.
    pub(super) share: usize,
}

/// The result of a request for a permit.
pub(super) enum Acquired<'p> {
    Place(TakenPermit),
    Waits(QueuedCall<'p>),
    Refused(QueueFull),
}

/// Why a call may not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueueFull {
    /// Its client has more than half of all waiting calls, and others wait as well.
    pub(super) crowds: bool,
    /// When to retry.
    pub(super) after: Duration,
}

/// A call that waits for a permit.
pub(super) struct QueuedCall<'p> {
    permits: &'p PermitPool,
    share: usize,
    number: u64,
    outcome: oneshot::Receiver<WaiterOutcome>,
    over: bool,
}

impl QueuedCall<'_> {
    /// Waits for the permit, which must be released; `None` if the call has to give way.
    pub(super) async fn permitted(mut self) -> Option<TakenPermit> {
        let outcome = (&mut self.outcome).await;
        self.over = true;
        match outcome {
            Ok(WaiterOutcome::Place(taken)) => Some(taken),
            Ok(WaiterOutcome::GivesWay) | Err(_) => None,
        }
    }
}

#[cfg(test)]
impl QueuedCall<'_> {
    /// Returns the result so far: its permit, or that it has to give way; `None` while it waits.
    pub(super) fn poll_permit(&mut self) -> Option<Option<TakenPermit>> {
        let outcome = self.outcome.try_recv().ok()?;
        self.over = true;
        match outcome {
            WaiterOutcome::Place(taken) => Some(Some(taken)),
            WaiterOutcome::GivesWay => Some(None),
        }
    }
}

impl Drop for QueuedCall<'_> {
    fn drop(&mut self) {
        if self.over || self.permits.lock().leaves(self.share, self.number) {
            return;
        }
        if let Ok(WaiterOutcome::Place(taken)) = self.outcome.try_recv() {
            self.permits.release(taken.share);
        }
    }
}

impl PoolState {
    fn share(&mut self, client: &str) -> usize {
        if let Some(at) = self.by_client.get(client) {
            return *at;
        }
        let share = ClientShare {
            client: client.to_owned(),
            held: 0,
            queued: 0,
            waiting: VecDeque::new(),
            retries: retry::SHARE,
        };
        let idle = || self.shares.iter().position(|one| one.held == 0 && one.waiting.is_empty());
        let at = match (self.shares.len() >= MAX_SHARES).then(idle).flatten() {
            Some(at) => {
                self.by_client.remove(&self.shares[at].client);
                self.shares[at] = share;
                at
            }
            None => {
                self.shares.push(share);
                self.shares.len() - 1
            }
        };
        self.by_client.insert(client.to_owned(), at);
        at
    }

    fn size(&self) -> usize {
        self.bound.now()
    }

    fn take(&mut self, share: usize) -> TakenPermit {
        self.held += 1;
        self.shares[share].held += 1;
        let began = CallStart { number: self.calls, alone: self.held <= FEWEST };
        self.calls += 1;
        TakenPermit { began, share }
    }

    fn wait(&mut self, share: usize, queued: bool) -> (u64, oneshot::Receiver<WaiterOutcome>) {
        let (outcome, heard) = oneshot::channel();
        let number = self.next;
        self.next += 1;
        self.waiting += 1;
        self.queued += usize::from(queued);
        let one = &mut self.shares[share];
        one.queued += usize::from(queued);
        one.waiting.push_back(Waiter { number, queued, outcome });
        (number, heard)
    }

    fn remove(&mut self, share: usize, at: usize) -> Option<Waiter> {
        let one = &mut self.shares[share];
        let waiter = one.waiting.remove(at)?;
        one.queued -= usize::from(waiter.queued);
        self.queued -= usize::from(waiter.queued);
        self.waiting -= 1;
        Some(waiter)
    }

    /// Removes a waiting call; returns false if it is no longer waiting.
    fn leaves(&mut self, share: usize, number: u64) -> bool {
        let at = self.shares[share].waiting.iter().position(|waiter| waiter.number == number);
        at.and_then(|at| self.remove(share, at)).is_some()
    }

    /// Gives the free permits to waiting calls.
    fn serve(&mut self) {
        while self.waiting > 0 && self.held < self.size() {
            let (count, turn) = (self.shares.len(), self.turn);
            let waits = (0..count).map(|step| (turn + step) % count).filter(|at| !self.shares[*at].waiting.is_empty());
            let Some(share) = waits.min_by_key(|at| self.shares[*at].held) else { return };
            let Some(waiter) = self.remove(share, 0) else { return };
            self.turn = share + 1;
            let taken = self.take(share);
            if waiter.outcome.send(WaiterOutcome::Place(taken)).is_err() {
                self.grant(share);
            }
        }
    }

    fn grant(&mut self, share: usize) {
        self.held -= 1;
        self.shares[share].held -= 1;
    }

    /// Returns the maximum number of calls that get their permits before the next call of a client, including that one:
    /// as many of each other client.
    fn ahead(&self, share: usize) -> usize {
        let own = self.shares[share].waiting.len() + 1;
        let others = self.shares.iter().enumerate().filter(|(at, _)| *at != share);
        own + others.map(|(_, one)| one.waiting.len().min(own)).sum::<usize>()
    }

    /// Makes room in the queue for one more call of a client: the newest waiting call of the client with the most calls
    /// here gives way, if that client has more than this one would have then.
    fn make_room(&mut self, share: usize) -> bool {
        let all = |one: &ClientShare| one.held + one.queued;
        let own = all(&self.shares[share]) + 1;
        let queued = (0..self.shares.len()).filter(|at| *at != share && self.shares[*at].queued > 0);
        let most = queued.max_by_key(|at| all(&self.shares[*at]));
        let Some(most) = most.filter(|at| all(&self.shares[*at]) > own) else { return false };
        let newest = self.shares[most].waiting.iter().rposition(|waiter| waiter.queued);
        let Some(waiter) = newest.and_then(|at| self.remove(most, at)) else { return false };
        let _ = waiter.outcome.send(WaiterOutcome::GivesWay);
        true
    }

    /// Returns whether a client without a call here may wait although the queue is standing: for about one call's time,
    /// if another client has several.
    fn has_none(&self, share: usize) -> bool {
        let own = &self.shares[share];
        let several = |(at, one): (usize, &ClientShare)| at != share && one.held + one.queued > 1;
        own.held == 0
            && own.waiting.is_empty()
            && self.queued < self.size()
            && self.shares.iter().enumerate().any(several)
    }

    /// Returns whether a client has more than half of all waiting calls, with one more, while others wait.
    fn has_majority(&self, share: usize) -> bool {
        let own = self.shares[share].queued;
        self.queued > own && (own + 1) * 2 > self.queued + 1
    }
}

impl PermitPool {
    pub(super) fn new(most: usize, least: usize, longest: usize) -> Self {
        let state = PoolState {
            bound: AdaptiveLimit::new(most, least),
            held: 0,
            queued: 0,
            waiting: 0,
            calls: 0,
            shares: Vec::new(),
            by_client: HashMap::new(),
            turn: 0,
            next: 0,
        };
        PermitPool { longest, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of permits.
    pub(super) fn size(&self) -> usize {
        self.lock().size()
    }

    /// Returns the number of calls that wait in the queue.
    pub(super) fn queued(&self) -> usize {
        self.lock().queued
    }

    /// Requests a permit for a call of a client: returns the permit, or a waiting call, unless the queue is too long
    /// for it.
    pub(super) fn acquire(&self, client: &str, wait: &QueueWait, retries: &Budget, now: Instant) -> Acquired<'_> {
        let mut state = self.lock();
        let share = state.share(client);
        retries.call(&mut state.shares[share].retries);
        if state.held < state.size() {
            return Acquired::Place(state.take(share));
        }
        state.bound.record_wait();
        let (ahead, size) = (state.ahead(share), state.size());
        let fits = state.queued < self.longest;
        let admitted = fits && (wait.admits(ahead, size, now).is_ok() || state.has_none(share));
        if !admitted && !state.make_room(share) {
            let after = wait.expected(ahead.max(state.queued), size);
            return Acquired::Refused(QueueFull { crowds: state.has_majority(share), after });
        }
        let (number, outcome) = state.wait(share, true);
        Acquired::Waits(QueuedCall { permits: self, share, number, outcome, over: false })
    }

    /// Requests a permit for a further request of a client's stream: it waits beside the queue.
    pub(super) fn acquire_next(&self, client: &str, retries: &Budget) -> Acquired<'_> {
        let mut state = self.lock();
        let share = state.share(client);
        retries.call(&mut state.shares[share].retries);
        if state.held < state.size() {
            return Acquired::Place(state.take(share));
        }
        let (number, outcome) = state.wait(share, false);
        Acquired::Waits(QueuedCall { permits: self, share, number, outcome, over: false })
    }

    /// Takes one retry from the budget, for a client that has a permit.
    pub(super) fn retry(&self, share: usize, retries: &Budget) -> bool {
        retries.take(&mut self.lock().shares[share].retries)
    }

    /// Records that a call has completed: the limit may change.
    pub(super) fn record_latency(&self, pace: &BaseLatency, call: CallStart, took: Duration, now: Instant) {
        let mut state = self.lock();
        let calls = state.calls;
        state.bound.record_latency(pace, call, took, calls, now);
        state.serve();
    }

    /// Releases a client's permit.
    pub(super) fn release(&self, share: usize) {
        let mut state = self.lock();
        state.grant(share);
        state.serve();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
