//! Asks the witnesses of the log's policy for their cosignatures, and publishes the checkpoints that have enough of them.
//!
//! A checkpoint of the log is in `log/checkpoint` as soon as it is signed, since recovery needs it; where the policy wants
//! witnesses, `log/cosigned` is the one that counts: auditors and receipts get that one.

use super::request::AddCheckpoint;
use crate::drivers::http::HttpEndpoint;
use crate::exchange_log::cosignature::{Policy, Witness};
use crate::exchange_log::proof;
use crate::exchange_log::reader::{COSIGNED_FILE, LogReader};
use crate::exchange_log::{LogError, write_atomically};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often the log is looked at for a new checkpoint.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Longest wait for a witness.
const PATIENCE: Duration = Duration::from_secs(3);
/// Largest answer.
const MAX_ANSWER: usize = 64 << 10;

/// A witness that is asked.
struct Asked {
    witness: Witness,
    endpoint: HttpEndpoint,
    /// The size that it has signed last, as far as is known.
    size: u64,
    /// Whether it was told that it fails.
    failing: bool,
}

/// Asks the witnesses of a policy.
pub struct Asker {
    data: PathBuf,
    policy: Policy,
    witnesses: Vec<Asked>,
    published: u64,
}

/// Why a witness gave no cosignature.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("{0}")]
    Log(#[from] LogError),
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    #[error("it answered {0}")]
    Refused(StatusCode),
    #[error("it has signed {0} entries, more than the log has: the log was rolled back, or forked")]
    Ahead(u64),
    #[error("its answer holds no cosignature by its key")]
    NoCosignature,
}

impl Asker {
    /// For the log below a data folder; witnesses without a URL are not asked.
    pub fn new(data: &Path, policy: Policy, tls: &rustls::ClientConfig) -> Self {
        let asked = |witness: &Witness| {
            let endpoint = HttpEndpoint::new(witness.url.as_deref()?, tls.clone(), MAX_ANSWER);
            Some(Asked { witness: witness.clone(), endpoint, size: 0, failing: false })
        };
        let witnesses = policy.witnesses.iter().filter_map(asked).collect();
        Asker { data: data.to_owned(), policy, witnesses, published: 0 }
    }

    /// Asks for ever.
    pub async fn run(mut self) {
        let mut told = false;
        loop {
            match self.step().await {
                Ok(()) => told = false,
                Err(error) if !told => {
                    tracing::error!(%error, "the log's checkpoints are not cosigned");
                    told = true;
                }
                Err(_) => {}
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Has the newest checkpoint cosigned, where there is a newer one than was published.
    async fn step(&mut self) -> Result<(), LogError> {
        let data = self.data.clone();
        let opened = tokio::task::spawn_blocking(move || LogReader::sealed_only(&data)).await;
        let reader = opened.map_err(|_| LogError::Closed)??;
        if reader.sealed() <= self.published {
            return Ok(());
        }
        let mut note = reader.note().to_owned();
        let asking = self.witnesses.iter_mut().map(|one| async {
            let told = tokio::time::timeout(PATIENCE, one.ask(&reader)).await;
            let told = told.unwrap_or_else(|_| Err(AskError::Unreachable("no answer in time".into())));
            match &told {
                Ok(_) => one.failing = false,
                Err(error) if !one.failing => {
                    tracing::warn!(witness = one.witness.name, %error, "a witness did not cosign");
                    one.failing = true;
                }
                Err(_) => {}
            }
            told.ok()
        });
        for line in futures_util::future::join_all(asking).await.into_iter().flatten() {
            note.push_str(&line);
        }
        if self.policy.holds(&note) {
            write_atomically(&reader.paths().tiles.join(COSIGNED_FILE), note.as_bytes())?;
            self.published = reader.sealed();
        }
        Ok(())
    }
}

impl Asked {
    /// The witness's line for the newest checkpoint. Where it has signed another size than was believed, it says so, and
    /// is asked once more.
    async fn ask(&mut self, reader: &LogReader) -> Result<String, AskError> {
        for _ in 0..2 {
            let (old, size) = (self.size, reader.sealed());
            if old > size {
                return Err(AskError::Ahead(old));
            }
            let proof = proof::consistency(&|level, at| reader.node(level, at), old, size)?;
            let request = AddCheckpoint { old, proof, note: reader.note().to_owned() };
            let body = Bytes::from(request.to_text());
            let answer = self.endpoint.send(Method::POST, "/add-checkpoint", HeaderMap::new(), body).await;
            let answer = answer.map_err(|error| AskError::Unreachable(error.to_string()))?;
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            match answer.status {
                StatusCode::OK => {
                    self.size = size;
                    let body = reader.note().split_once("\n\n").map_or("", |(text, _)| text);
                    let found = self.witness.key.find(&format!("{body}\n"), &text);
                    return found.map(|(line, _)| format!("{line}\n")).ok_or(AskError::NoCosignature);
                }
                StatusCode::CONFLICT => match text.trim().parse::<u64>() {
                    Ok(other) if other != old => self.size = other,
                    _ => return Err(AskError::Refused(answer.status)),
                },
                other => return Err(AskError::Refused(other)),
            }
        }
        Err(AskError::Refused(StatusCode::CONFLICT))
    }
}
