//! The members of etcd as one: own failover over one connection each, since a balancer keeps choosing a dead member.
//!
//! The gateway's own member comes first. After a request without a success, the next one is sent to the next member. Every
//! response is compared with what was seen before its request was sent.

use super::ClusterError;
use super::member::{EtcdMember, RangePage, RangeRead, ResponseHeader, Txn, TxnOutcome};
use super::timers::Timers;
use futures_util::future::join_all;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a response is waited for, before the request goes to the next member.
pub const DEADLINE: Duration = Duration::from_secs(2);
/// The same where all members are asked at once.
pub const EACH_DEADLINE: Duration = Duration::from_millis(500);

/// The members of a cluster.
pub struct EtcdMembers<M, T> {
    members: Vec<M>,
    timers: T,
    /// Requests go to this one, as long as it responds.
    preferred: AtomicUsize,
    /// The cluster and the highest revision in any response.
    seen: Mutex<Option<(u64, i64)>>,
}

impl<M: EtcdMember, T: Timers> EtcdMembers<M, T> {
    /// Members, the own one first; `seen` is the cluster and the highest revision that the own disk has of earlier runs.
    pub fn new(members: Vec<M>, timers: T, seen: Option<(u64, i64)>) -> Self {
        EtcdMembers { members, timers, preferred: AtomicUsize::new(0), seen: Mutex::new(seen) }
    }

    /// The timers.
    pub fn timers(&self) -> &T {
        &self.timers
    }

    /// How many members are more than half.
    pub fn majority(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// Forgets what was seen before a response: a new epoch has begun with it.
    pub fn accept(&self, header: &ResponseHeader) {
        *self.seen() = Some((header.cluster, header.revision));
    }

    /// Carries out a transaction at one member. It is not repeated: the next call goes to another member after a failure.
    ///
    /// # Errors
    /// As for [`EtcdMember::transact`]; [`ClusterError::RolledBack`] if the response is behind what was seen.
    pub async fn transact(&self, txn: &Txn) -> Result<TxnOutcome, ClusterError> {
        self.at_one(|member| member.transact(txn), |outcome| Some(outcome.header)).await
    }

    /// Carries out a transaction whose repetition has no further effect: at each member at most once, until one responds.
    ///
    /// # Errors
    /// The last member's error; [`ClusterError::RolledBack`] if a response is behind what was seen.
    pub async fn settle(&self, txn: &Txn) -> Result<TxnOutcome, ClusterError> {
        self.until_success(|member| member.transact(txn), |outcome| Some(outcome.header)).await
    }

    /// Carries out a transaction that puts a value, and reads its key if the conditions do not hold. Returns whether the value
    /// is there: put now, or by an earlier repetition of this request.
    ///
    /// # Errors
    /// As for [`settle`](EtcdMembers::settle).
    pub async fn settle_put(&self, txn: &Txn, value: &[u8]) -> Result<bool, ClusterError> {
        let outcome = self.settle(txn).await?;
        Ok(outcome.succeeded || outcome.found.into_iter().flatten().any(|there| there.value == value))
    }

    /// Reads a range: at each member at most once, until one responds.
    ///
    /// # Errors
    /// As for [`EtcdMember::range`]; [`ClusterError::RolledBack`] if the response is behind what was seen.
    pub async fn range(&self, read: &RangeRead) -> Result<RangePage, ClusterError> {
        let page = self.until_success(|member| member.range(read), |page| Some(page.header)).await;
        page.map_err(|error| match error {
            ClusterError::FutureRevision => ClusterError::RolledBack(format!("revision {} was seen", read.revision)),
            other => other,
        })
    }

    /// Sends a request without a linearizable response (leases, compaction) to one member.
    ///
    /// # Errors
    /// The member's.
    pub async fn send<'m, R, F>(&'m self, limit: Duration, request: impl Fn(&'m M) -> F) -> Result<R, ClusterError>
    where
        F: Future<Output = Result<R, ClusterError>> + Send + 'm,
    {
        let at = self.preferred.load(Ordering::Relaxed);
        let member = self.members.get(at).ok_or(ClusterError::NoQuorum)?;
        let response = self.timers.within(limit, request(member)).await;
        self.prefer_another(at, &response);
        response
    }

    /// Waits until a key with this prefix has changed after a revision, or for this time: whoever waits reads again then.
    pub async fn wait_for_change(&self, prefix: &[u8], after: i64, limit: Duration) {
        let Some(member) = self.members.get(self.preferred.load(Ordering::Relaxed)) else { return };
        let changed = async {
            if member.wait_for_change(prefix, after).await.is_err() {
                self.timers.sleep(limit).await;
            }
        };
        tokio::select! {
            biased;
            () = changed => {}
            () = self.timers.sleep(limit) => {}
        }
    }

    /// Sends a request to all members at once; the responses are in the order of the members.
    pub async fn each<'m, R, F>(&'m self, request: impl Fn(&'m M) -> F) -> Vec<Result<R, ClusterError>>
    where
        F: Future<Output = Result<R, ClusterError>> + Send + 'm,
    {
        join_all(self.members.iter().map(|member| self.timers.within(EACH_DEADLINE, request(member)))).await
    }

    async fn until_success<'m, R, F>(
        &'m self,
        request: impl Fn(&'m M) -> F,
        header: impl Fn(&R) -> Option<ResponseHeader>,
    ) -> Result<R, ClusterError>
    where
        F: Future<Output = Result<R, ClusterError>> + Send + 'm,
    {
        let mut last = ClusterError::NoQuorum;
        for _ in 0..self.members.len() {
            match self.at_one(&request, &header).await {
                Err(error @ (ClusterError::OutcomeUnknown(_) | ClusterError::NoQuorum)) => last = error,
                response => return response,
            }
        }
        Err(last)
    }

    async fn at_one<'m, R, F>(
        &'m self,
        request: impl Fn(&'m M) -> F,
        header: impl Fn(&R) -> Option<ResponseHeader>,
    ) -> Result<R, ClusterError>
    where
        F: Future<Output = Result<R, ClusterError>> + Send + 'm,
    {
        let before = *self.seen();
        let response = self.send(DEADLINE, request).await?;
        if let Some(header) = header(&response) {
            self.observe(before, &header)?;
        }
        Ok(response)
    }

    /// Compares a response with what was seen when its request was sent: responses may overtake each other.
    fn observe(&self, before: Option<(u64, i64)>, header: &ResponseHeader) -> Result<(), ClusterError> {
        if let Some((cluster, revision)) = before {
            let behind = |what: String| Err(ClusterError::RolledBack(format!("member {:x}: {what}", header.member)));
            if cluster != header.cluster {
                return behind("this is another cluster".into());
            }
            if header.revision < revision {
                return behind(format!("revision {revision} was seen, it is {}", header.revision));
            }
        }
        let mut seen = self.seen();
        let highest = seen.map_or(header.revision, |(_, revision)| revision.max(header.revision));
        *seen = Some((header.cluster, highest));
        Ok(())
    }

    fn prefer_another<R>(&self, at: usize, response: &Result<R, ClusterError>) {
        if let Err(ClusterError::OutcomeUnknown(_) | ClusterError::NoQuorum) = response {
            let next = (at + 1) % self.members.len().max(1);
            // Another request may have moved it already.
            let _ = self.preferred.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    fn seen(&self) -> MutexGuard<'_, Option<(u64, i64)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
