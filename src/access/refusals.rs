//! Entries of refusals before a grant or role was found. They cost the refused caller nothing, and the gateway disk: so
//! each identity has an entry rate, and so have all together. Further refusals are counted, and reported in the next
//! entry of the same identity, or in a separate one within a minute. Callers with a right (a grant, a role) always get
//! an entry: the right's own rate limits those.
//!
//! Estimated: an entry is about 400 bytes; 20 a second of each kind are 700 MB a day, and one identity's one a second
//! 35 MB.

use crate::exchange_log::{Entry, ExchangeLog, LogError};
use crate::identity::Thumbprint;
use crate::identity::connections::PeerNetwork;
use crate::identity::principal::Principal;
use crate::telemetry::Metrics;
use foldhash::HashMap;
use prometheus_client::metrics::counter::Counter;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Entries a second of one identity, sustained, and the burst.
const OF_ONE: (f64, f64) = (1.0, 60.0);
/// The same of all identities together, for each kind.
const OF_ALL: (f64, f64) = (20.0, 400.0);
/// Identities that are counted separately, for each kind; further ones share one count.
const MAX_IDENTITIES: usize = 1_024;
/// How long suppressed refusals may wait for an entry that counts them.
const MAX_SUMMARY_DELAY: Duration = Duration::from_secs(60);

/// The kind of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// A connection, before any call.
    Connection,
    /// A call that an overloaded gateway did not read.
    Unhandled,
    /// An exchange, before it was admitted under a grant.
    Exchange,
    /// An admin event, by anyone.
    Staff,
    /// A request at the token endpoint.
    Token,
}

impl RefusalKind {
    /// Returns the metric's label.
    fn as_str(self) -> &'static str {
        match self {
            RefusalKind::Connection => "connection",
            RefusalKind::Unhandled => "unseen",
            RefusalKind::Exchange => "exchange",
            RefusalKind::Staff => "staff",
            RefusalKind::Token => "token",
        }
    }
}

/// The identity that refusals are counted for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A registered client, whichever its certificate.
    Client(Box<str>),
    /// The holder of a certificate that names no client.
    Certificate(Thumbprint),
    /// A member of staff for whom an OpenID provider has vouched, by their id.
    Staff(Box<str>),
    /// A peer without a certificate, by its address.
    Address(PeerNetwork),
}

impl From<&Principal> for Identity {
    fn from(principal: &Principal) -> Self {
        match principal {
            Principal::Certificate(peer) => Identity::Certificate(peer.certificate.thumbprint),
            Principal::Federated(person) => Identity::Staff(person.staff.as_str().into()),
        }
    }
}

/// A token bucket.
#[derive(Debug)]
struct EntryBucket {
    tokens: f64,
    refilled: Instant,
}

impl EntryBucket {
    fn full((_, burst): (f64, f64), now: Instant) -> Self {
        EntryBucket { tokens: burst, refilled: now }
    }

    fn refill(&mut self, (rate, burst): (f64, f64), now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.tokens = (self.tokens + passed * rate).min(burst);
        self.refilled = now;
        self.tokens
    }
}

/// Refusals of one identity.
#[derive(Debug)]
struct RefusalWindow {
    bucket: EntryBucket,
    left_out: Option<OmittedRefusals>,
}

/// Refusals without an entry since the last one.
#[derive(Debug)]
struct OmittedRefusals {
    /// The first one, with the number of the others.
    first: Entry,
    /// How many more.
    more: u64,
    since: Instant,
}

impl RefusalWindow {
    fn new(now: Instant) -> Self {
        RefusalWindow { bucket: EntryBucket::full(OF_ONE, now), left_out: None }
    }

    fn is_at_rest(&mut self, now: Instant) -> bool {
        self.left_out.is_none() && self.bucket.refill(OF_ONE, now) >= OF_ONE.1
    }
}

/// Refusals of one kind.
#[derive(Debug)]
struct RefusalWindows {
    all: EntryBucket,
    by_identity: HashMap<Identity, RefusalWindow>,
    /// When idle identities were last dropped.
    swept: Instant,
    /// Refusals of identities beyond the maximum.
    rest: RefusalWindow,
}

impl RefusalWindows {
    fn new(now: Instant) -> Self {
        RefusalWindows {
            all: EntryBucket::full(OF_ALL, now),
            by_identity: HashMap::default(),
            swept: now,
            rest: RefusalWindow::new(now),
        }
    }

    /// Returns the entry, with the number of refusals omitted before it, if it may be written; otherwise it is counted.
    fn take(&mut self, by: Identity, mut entry: Entry, now: Instant) -> Option<Entry> {
        // Not for each refusal of a flood: it scans all identities.
        if self.by_identity.len() >= MAX_IDENTITIES && now.duration_since(self.swept) >= Duration::from_secs(1) {
            self.swept = now;
            self.by_identity.retain(|_, window| !window.is_at_rest(now));
        }
        let room = self.by_identity.len() < MAX_IDENTITIES || self.by_identity.contains_key(&by);
        let window =
            if room { self.by_identity.entry(by).or_insert_with(|| RefusalWindow::new(now)) } else { &mut self.rest };
        if window.bucket.refill(OF_ONE, now) >= 1.0 && self.all.refill(OF_ALL, now) >= 1.0 {
            window.bucket.tokens -= 1.0;
            self.all.tokens -= 1.0;
            // The first omitted one counts, too.
            entry.suppressed = window.left_out.take().map_or(0, |left_out| left_out.more + 1);
            return Some(entry);
        }
        match &mut window.left_out {
            Some(left_out) => left_out.more += 1,
            none => *none = Some(OmittedRefusals { first: entry, more: 0, since: now }),
        }
        None
    }

    /// Returns entries for refusals that were omitted for this long.
    fn due(&mut self, waited: Duration, now: Instant) -> Vec<Entry> {
        let all = self.by_identity.values_mut().chain([&mut self.rest]);
        let due = |left_out: &mut OmittedRefusals| now.duration_since(left_out.since) >= waited;
        let entry_of = |OmittedRefusals { first, more, .. }| Entry { suppressed: more, ..first };
        all.filter_map(|window| window.left_out.take_if(due).map(entry_of)).collect()
    }
}

/// Logs refusals, rate-limited.
pub struct RefusalLog {
    log: ExchangeLog,
    pub(super) metrics: Arc<Metrics>,
    kinds: [Mutex<RefusalWindows>; 5],
}

impl RefusalLog {
    /// Makes it for a gateway's log.
    pub fn new(log: ExchangeLog, metrics: Arc<Metrics>) -> Self {
        let now = Instant::now();
        RefusalLog { log, metrics, kinds: std::array::from_fn(|_| Mutex::new(RefusalWindows::new(now))) }
    }

    fn windows(&self, kind: RefusalKind) -> MutexGuard<'_, RefusalWindows> {
        self.kinds[kind as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, kind: RefusalKind, by: Identity, entry: Entry) -> Option<Entry> {
        let taken = self.windows(kind).take(by, entry, Instant::now());
        if taken.is_none() {
            self.metrics.refusal_suppressed(kind.as_str());
        }
        taken
    }

    /// Logs a refusal, and returns its index when its entry is durable; `None` if it was only counted, or its index is known
    /// only when it is sealed.
    ///
    /// # Errors
    /// If the log cannot be written.
    pub async fn note(&self, kind: RefusalKind, by: Identity, entry: Entry) -> Result<Option<u64>, LogError> {
        match self.take(kind, by, entry) {
            Some(entry) => self.log.append(&entry).await,
            None => Ok(None),
        }
    }

    /// Logs a refusal without waiting; false if it was only counted.
    pub fn note_detached(&self, kind: RefusalKind, by: Identity, entry: Entry) -> bool {
        let Some(entry) = self.take(kind, by, entry) else { return false };
        self.append(&entry);
        true
    }

    /// Counts a connection that was closed without a byte: it has no entry.
    pub fn probe(&self) {
        self.metrics.probe();
    }

    /// Counts refused reads of the log's files, by kind.
    pub fn reads_refused(&self, kind: &'static str) -> Counter {
        self.metrics.reads_refused(kind)
    }

    /// Logs refusals that were omitted for a minute without an entry that counts them; all of them when the gateway
    /// `ends`. Called about once a second.
    pub fn log_omitted(&self, ends: bool) {
        let waited = if ends { Duration::ZERO } else { MAX_SUMMARY_DELAY };
        for kind in &self.kinds {
            let due = kind.lock().unwrap_or_else(PoisonError::into_inner).due(waited, Instant::now());
            due.iter().for_each(|entry| self.append(entry));
        }
    }

    fn append(&self, entry: &Entry) {
        if let Err(error) = self.log.append_detached(entry) {
            tracing::error!(%error, "a refusal could not be logged");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::exchange_log::Kind;

    fn entry(reason: &str) -> Entry {
        Entry { reason: reason.into(), ..Entry::begin(Kind::Exchange, "dc1") }
    }

    fn client(number: usize) -> Identity {
        Identity::Client(format!("c{number}").into())
    }

    /// Returns the number of entries, and of the refusals that they count.
    fn sum(entries: &[Entry]) -> (usize, u64) {
        (entries.len(), entries.iter().map(|entry| 1 + entry.suppressed).sum())
    }

    #[test]
    fn d1_one_identity_writes_its_rate_and_every_refusal_is_counted_once() {
        let start = Instant::now();
        let mut windows = RefusalWindows::new(start);
        let mut written = Vec::new();
        for ms in 0..10_000u64 {
            let now = start + Duration::from_millis(ms);
            written.extend(windows.take(client(1), entry("TOKEN_MISSING"), now));
        }
        assert!((69..=71).contains(&written.len()), "{}", written.len());
        // Another identity's entries are not delayed by it.
        let other = windows.take(client(2), entry("TOKEN_EXPIRED"), start + Duration::from_secs(10)).unwrap();
        assert_eq!(other.suppressed, 0);
        assert!(windows.due(MAX_SUMMARY_DELAY, start + Duration::from_secs(11)).is_empty());
        written.extend(windows.due(MAX_SUMMARY_DELAY, start + Duration::from_secs(71)));
        assert_eq!(sum(&written).1, 10_000);
        assert!(windows.due(Duration::ZERO, start + Duration::from_secs(72)).is_empty());
    }

    #[test]
    fn d1_many_identities_share_what_all_may_write_and_memory_is_bounded() {
        let start = Instant::now();
        let mut windows = RefusalWindows::new(start);
        let mut written = Vec::new();
        for number in 0..200_000usize {
            // Each identity comes once: 20,000 a second for ten seconds.
            let now = start + Duration::from_micros(50 * number as u64);
            written.extend(windows.take(client(number), entry("CLIENT_UNKNOWN"), now));
        }
        let (most, burst) = (10.0 * OF_ALL.0, OF_ALL.1);
        assert!(written.len() as f64 <= most + burst + 1.0, "{}", written.len());
        assert!(windows.by_identity.len() <= MAX_IDENTITIES);
        let entry_of = windows.due(Duration::ZERO, start + Duration::from_secs(10));
        assert!(entry_of.len() <= MAX_IDENTITIES + 1);
        written.extend(entry_of);
        assert_eq!(sum(&written).1, 200_000);
        // Idle identities make room again.
        let later = start + Duration::from_secs(200);
        windows.take(client(0), entry("CLIENT_UNKNOWN"), later);
        windows.take(client(300_000), entry("CLIENT_UNKNOWN"), later);
        assert!(windows.by_identity.len() < 10, "{}", windows.by_identity.len());
    }
}
