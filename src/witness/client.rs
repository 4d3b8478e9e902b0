//! Requests cosignatures from the witnesses of the log's policy, and publishes the checkpoints that have enough of
//! them.
//!
//! A checkpoint of the log is in `log/checkpoint` as soon as it is signed, since recovery needs it; if the policy
//! requires witnesses, `log/cosigned` is the one that counts: auditors and receipts get that one.

use super::alarm::{self, ForkAlarm};
use super::request::{AddCheckpoint, checkpoint_path};
use crate::drivers::http::HttpEndpoint;
use crate::exchange_log::checkpoint::{Checkpoint, decimal};
use crate::exchange_log::cosignature::{Policy, Witness, plausible_times};
use crate::exchange_log::file_events::FORK_EVENT;
use crate::exchange_log::note::{MAX_NOTE, Note};
use crate::exchange_log::reader::{COSIGNED_FILE, LogReader};
use crate::exchange_log::{Entry, ExchangeLog, Kind, LogError, proof, write_atomically};
use crate::telemetry::WitnessMetrics;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often the client checks for a new checkpoint.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Longest wait for a witness.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Pause after a failure, doubled with each further one up to the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Consecutive failures with "another history" before a witness's claim alone raises the alarm: one wrong response does
/// not.
const CLAIMS: u32 = 3;

/// A witness to which checkpoints are submitted.
struct PolledWitness {
    witness: Witness,
    endpoint: HttpEndpoint,
    /// The size that it last cosigned for this process; never a mere claim.
    size: u64,
    /// Its line for that size.
    line: String,
    /// Consecutive failures, and those of them that claim another history.
    failures: u32,
    claims: u32,
    /// The reason of the last one.
    reason: String,
    /// The next submission is not before this.
    next: Instant,
}

/// Submits checkpoints to the witnesses of a policy.
pub struct WitnessClient {
    data: PathBuf,
    policy: Policy,
    peers: Vec<PolledWitness>,
    /// Entries and cosignatures of the last publication.
    published: (u64, usize),
    alarms: Alarms,
}

/// Records failures of witnesses, and alarms.
pub struct Alarms {
    /// Metrics of witnesses.
    pub metrics: WitnessMetrics,
    /// The log, which gets an entry for each alarm.
    pub log: ExchangeLog,
    /// This gateway, as entries name it.
    pub node: String,
}

/// The reason that a witness gave no cosignature.
#[derive(Debug, thiserror::Error)]
enum WitnessClientError {
    #[error("{0}")]
    Log(#[from] LogError),
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    #[error("it returned {0}{1}")]
    Refused(StatusCode, String),
    #[error("it says that it has cosigned {0} entries, more than the log has: the log was rolled back, or forked")]
    Ahead(u64),
    #[error(
        "it says that the log's tree does not contain the one of {0} entries that it has cosigned: the log was forked"
    )]
    Inconsistent(u64),
    #[error("its response has no cosignature by its key")]
    NoCosignature,
    #[error("its cosignature is of {0} (Unix seconds): its clock or this machine's is wrong")]
    Time(u64),
}

impl WitnessClientError {
    /// Returns whether the witness claims to have seen another history.
    fn is_claim(&self) -> bool {
        matches!(self, WitnessClientError::Ahead(_) | WitnessClientError::Inconsistent(_))
    }

    /// Whether it has a reason of the witness's own that is another one than before: entries that do not come, or are lost.
    fn is_other_than(&self, before: &str) -> bool {
        matches!(self, WitnessClientError::Refused(_, reason) if !reason.is_empty()) && self.to_string() != before
    }
}

impl WitnessClient {
    /// Makes it for the log below a data folder; witnesses without a URL are skipped.
    pub fn new(data: &Path, policy: Policy, tls: &rustls::ClientConfig, alarms: Alarms) -> Self {
        let peer = |witness: &Witness| {
            let endpoint = HttpEndpoint::new(witness.url.as_deref()?, tls.clone(), MAX_NOTE);
            let (witness, next) = (witness.clone(), Instant::now());
            let (size, line, reason) = Default::default();
            Some(PolledWitness { witness, endpoint, size, line, failures: 0, claims: 0, reason, next })
        };
        let peers = policy.witnesses.iter().filter_map(peer).collect();
        WitnessClient { data: data.to_owned(), policy, peers, published: (0, 0), alarms }
    }

    /// Runs for ever.
    pub async fn run(mut self) {
        let mut reported = false;
        loop {
            match self.step().await {
                Ok(()) => reported = false,
                Err(error) if !reported => {
                    tracing::error!(%error, "the log's checkpoints are not cosigned");
                    reported = true;
                }
                Err(_) => {}
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Submits the newest checkpoint to the witnesses that have not cosigned it and are due, and publishes it if the
    /// cosignatures are enough.
    async fn step(&mut self) -> Result<(), LogError> {
        let data = self.data.clone();
        let opened = tokio::task::spawn_blocking(move || LogReader::sealed_only(&data)).await;
        let reader = opened.map_err(|_| LogError::Closed)??;
        let (sealed, now) = (reader.sealed(), Instant::now());
        if sealed == 0 || sealed == self.published.0 && self.peers.iter().all(|peer| peer.size == sealed) {
            return Ok(());
        }
        let (data, alarms) = (&self.data, &self.alarms);
        let due = self.peers.iter_mut().filter(|peer| peer.size != sealed && peer.next <= now);
        let pushes = due.map(|peer| async {
            let answered = tokio::time::timeout(TIMEOUT, peer.ask(&reader)).await;
            let answered = answered.unwrap_or_else(|_| Err(WitnessClientError::Unreachable("it timed out".into())));
            peer.settle(answered, &reader, data, alarms).await
        });
        let settled = futures_util::future::join_all(pushes).await;
        self.publish(&reader)?;
        settled.into_iter().collect()
    }

    /// Publishes the checkpoint if it has enough cosignatures; once more if further ones came later.
    fn publish(&mut self, reader: &LogReader) -> Result<(), LogError> {
        let sealed = reader.sealed();
        let lines: Vec<_> =
            self.peers.iter().filter(|peer| peer.size == sealed).map(|peer| peer.line.as_str()).collect();
        if self.published == (sealed, lines.len()) {
            return Ok(());
        }
        let note = format!("{}{}", reader.note(), lines.concat());
        let counts = self.policy.quorum(&note, &plausible_times(0, crate::registry::now()));
        let path = reader.paths().tiles.join(COSIGNED_FILE);
        if counts.map_err(|error| LogError::corrupt(&path, 0, error.to_string()))?.is_some() {
            write_atomically(&path, note.as_bytes())?;
            self.published = (sealed, lines.len());
            self.alarms.metrics.cosigned(sealed, crate::registry::now());
        }
        Ok(())
    }
}

impl PolledWitness {
    /// Records the result: a failure delays the next attempt; one that claims another history is examined.
    async fn settle(
        &mut self,
        answered: Result<(), WitnessClientError>,
        reader: &LogReader,
        data: &Path,
        alarms: &Alarms,
    ) -> Result<(), LogError> {
        let name = &self.witness.name;
        alarms.metrics.responded(name, answered.is_ok(), self.size);
        let Err(error) = answered else {
            if self.failures > 0 {
                tracing::info!(witness = name, "a witness cosigns again");
            }
            (self.failures, self.claims) = (0, 0);
            return Ok(());
        };
        let pause = BACKOFF.0 * 2_u32.saturating_pow(self.failures.min(16));
        self.next = Instant::now() + pause.min(BACKOFF.1);
        if self.failures == 0 || error.is_claim() || error.is_other_than(&self.reason) {
            tracing::warn!(witness = name, %error, "a witness did not cosign");
        }
        self.reason = error.to_string();
        self.failures = self.failures.saturating_add(1);
        if !error.is_claim() {
            self.claims = 0;
            return Ok(());
        }
        self.claims += 1;
        let evidence = tokio::time::timeout(TIMEOUT, self.evidence(reader)).await.ok().flatten();
        if evidence.is_none() && self.claims < CLAIMS {
            return Ok(());
        }
        let (witness, time) = (self.witness.name.clone(), crate::registry::now());
        let raised = ForkAlarm { witness, time, detail: error.to_string(), evidence };
        tracing::error!("{raised}");
        // It is stored before the log records it: a crash in between leaves an alarm, not none.
        let Some(object) = alarm::raise(data, &raised)? else { return Ok(()) };
        let (actor, event) = ("gateway".to_owned(), FORK_EVENT.to_owned());
        let entry = Entry { actor, event, object, ..Entry::begin(Kind::Admin, &alarms.node) };
        alarms.log.append(&entry).await.map(drop)
    }

    /// Returns the checkpoint that the witness shows to monitors, if the log's key signed it and it is not of this
    /// tree.
    async fn evidence(&self, reader: &LogReader) -> Option<String> {
        let path = checkpoint_path(reader.verifier().origin());
        let response = self.endpoint.send(Method::GET, &path, HeaderMap::new(), Bytes::new()).await.ok()?;
        let note = String::from_utf8(response.body.to_vec()).ok().filter(|_| response.status == StatusCode::OK)?;
        let Checkpoint { size, root, .. } = reader.verifier().check(&note).ok()?;
        let here = (1..=reader.sealed()).contains(&size);
        let own = here.then(|| proof::root(&|level, at| reader.node(level, at), size)).transpose().ok()?;
        (size > 0 && own != Some(root)).then_some(note)
    }

    /// Gets the witness's line for the newest checkpoint. If it has cosigned another size than assumed, it reports
    /// this, and gets the request once more.
    async fn ask(&mut self, reader: &LogReader) -> Result<(), WitnessClientError> {
        let (mut old, size) = (self.size, reader.sealed());
        for _ in 0..2 {
            if old > size {
                return Err(WitnessClientError::Ahead(old));
            }
            let proof = proof::consistency(&|level, at| reader.node(level, at), old, size)?;
            let request = AddCheckpoint { old, proof, note: reader.note().to_owned() };
            let body = Bytes::from(request.to_text());
            let response = self.endpoint.send(Method::POST, "/add-checkpoint", HeaderMap::new(), body).await;
            let response = response.map_err(|error| WitnessClientError::Unreachable(error.to_string()))?;
            let text = String::from_utf8(response.body.to_vec()).map_err(|_| WitnessClientError::NoCosignature)?;
            match response.status {
                StatusCode::OK => {
                    self.line = self.own_line(reader, &text)?;
                    self.size = size;
                    return Ok(());
                }
                StatusCode::UNPROCESSABLE_ENTITY => return Err(WitnessClientError::Inconsistent(old)),
                StatusCode::CONFLICT => match text.strip_suffix('\n').and_then(decimal) {
                    Some(other) if other != old => old = other,
                    _ => return Err(WitnessClientError::Refused(response.status, String::new())),
                },
                other => return Err(WitnessClientError::Refused(other, reason(&text))),
            }
        }
        Err(WitnessClientError::Refused(StatusCode::CONFLICT, String::new()))
    }

    /// Returns the line of a response that is this witness's cosignature with a plausible time.
    fn own_line(&self, reader: &LogReader, lines: &str) -> Result<String, WitnessClientError> {
        let whole = format!("{}{lines}", reader.note());
        let note = Note::parse(&whole).map_err(|_| WitnessClientError::NoCosignature)?;
        let checkpoint = Checkpoint::parse(note.text).map_err(|_| WitnessClientError::NoCosignature)?;
        let found = self.witness.key.find(&note, &checkpoint).map_err(|_| WitnessClientError::NoCosignature)?;
        let now = crate::registry::now();
        let times = plausible_times(now.saturating_mul(1_000_000), now);
        match found.iter().find(|(_, time)| times.contains(time)) {
            Some((line, _)) => Ok((*line).to_owned()),
            None => Err(found
                .first()
                .map_or(WitnessClientError::NoCosignature, |(_, time)| WitnessClientError::Time(*time))),
        }
    }
}

/// The beginning of a witness's reason: one line, without control characters, and only so much of it.
fn reason(text: &str) -> String {
    let line: String = text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(300).collect();
    if line.is_empty() { line } else { format!(": {line}") }
}
