//! A small witness. What it signs is on its disk before it returns the signature, so no crash makes it sign two
//! histories.
//!
//! One that stores the entries is a cosigner of its own, with other keys: whoever reads its signature knows what it says
//! (C2SP tlog-mirror, tlog-cosignature).

use super::checked::SiteFolder;
use super::config::WitnessConfig;
use super::request::{AddCheckpoint, checkpoint_path};
use super::stored::StoredLog;
use crate::accept::accept;
use crate::exchange_log::checkpoint::{Checkpoint, LogVerifier};
use crate::exchange_log::cosignature::{Algorithm, Cosigner};
use crate::exchange_log::note::{MAX_NOTE, Note};
use crate::exchange_log::proof::is_consistent;
use crate::exchange_log::tree::{Hash, empty_root};
use crate::exchange_log::verify::LogFolder;
use crate::exchange_log::{LogError, make_folder, write_atomically};
use crate::identity::connections::Connections;
use crate::identity::tls;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::borrow::Cow;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Largest request: 63 hashes and a note.
const MAX_BODY: usize = MAX_NOTE + (4 << 10);
/// Concurrent connections, in all and from one address: a witness does not authenticate its clients.
const MAX_CONNECTIONS: (usize, usize) = (256, 32);
/// Longest handshake, wait for a request's headers, and request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request waits for entries: the log's gateway waits a second longer.
const WAIT: Duration = Duration::from_secs(2);
/// How often some of the entries that are stored are looked at again.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// The file with the witness's public keys, one a line.
pub const VKEY_FILE: &str = "vkey";

/// The reason that a witness did not start.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// Its files.
    #[error(transparent)]
    State(#[from] LogError),
    /// Its certificate.
    #[error(transparent)]
    Tls(#[from] tls::TlsFault),
    /// A signing key.
    #[error("{0}: {1}")]
    Key(PathBuf, String),
    /// No signing key.
    #[error("{0} holds no key: make it with ndxp-gateway witness --key, or bring back the one that was there")]
    NoKey(PathBuf),
    /// The keys of a witness that makes another promise.
    #[error(
        "{0} is the key of a witness that {1}: one key never says two things, so give this one a folder and a name of its own"
    )]
    OtherPromise(PathBuf, &'static str),
    /// Its port.
    #[error("{0} cannot be listened on: {1}")]
    Bind(std::net::SocketAddr, String),
}

/// A log, and its last checkpoint that was signed here.
struct KnownLog {
    /// The keys that the log signs with.
    verifiers: Vec<LogVerifier>,
    /// The file of the last checkpoint, with the log's signatures and the cosignatures.
    file: PathBuf,
    /// The file of a checkpoint that proves a fork.
    fork_file: PathBuf,
    last: Mutex<Option<LastSigned>>,
    /// Its entries, if the witness signs that they are stored.
    stored: Option<Arc<StoredLog>>,
}

struct LastSigned {
    checkpoint: Checkpoint,
    /// With the log's signatures and the cosignatures.
    note: String,
}

impl LastSigned {
    fn tree(&self) -> (u64, Hash) {
        (self.checkpoint.size, self.checkpoint.root)
    }
}

/// A witness.
pub struct WitnessService {
    cosigners: Vec<Cosigner>,
    logs: Vec<KnownLog>,
}

/// A witness's response: its status, and an optional body.
#[derive(Debug, PartialEq, Eq)]
pub enum WitnessResponse {
    /// The cosignatures' lines.
    Cosigned(String),
    /// The last signed checkpoint has another size.
    Conflict(u64),
    /// Refused.
    Refused(StatusCode, Cow<'static, str>),
}

const NO_FORM: WitnessResponse = refused(StatusCode::BAD_REQUEST, "not in the form of c2sp.org/tlog-witness");

const fn refused(status: StatusCode, reason: &'static str) -> WitnessResponse {
    WitnessResponse::Refused(status, Cow::Borrowed(reason))
}

/// What a witness's signature says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// The log only grew.
    Grew,
    /// The log only grew, and its entries are stored at this site.
    Stored,
}

impl Promise {
    fn of(config: &WitnessConfig) -> Self {
        if config.stores.is_empty() { Promise::Grew } else { Promise::Stored }
    }

    fn key_file(self, state: &Path, algorithm: Algorithm) -> PathBuf {
        state.join(match (self, algorithm) {
            (Promise::Grew, Algorithm::Ed25519) => "witness.key",
            (Promise::Grew, Algorithm::MlDsa44) => "witness-mldsa44.key",
            (Promise::Stored, Algorithm::Ed25519) => "mirror.key",
            (Promise::Stored, Algorithm::MlDsa44) => "mirror-mldsa44.key",
        })
    }

    /// A folder is of one witness: what it has signed is under one name and one promise.
    fn check_folder(self, state: &Path) -> Result<(), WitnessError> {
        let (other, says) = match self {
            Promise::Grew => (Promise::Stored, "stores entries"),
            Promise::Stored => (Promise::Grew, "stores no entries"),
        };
        let mut keys = Algorithm::ALL.into_iter().map(|algorithm| other.key_file(state, algorithm));
        keys.find(|key| key.exists()).map_or(Ok(()), |key| Err(WitnessError::OtherPromise(key, says)))
    }
}

impl WitnessService {
    /// Makes the missing keys.
    ///
    /// # Errors
    /// They cannot be made or written.
    pub fn make_keys(config: &WitnessConfig) -> Result<(), WitnessError> {
        make_folder(&config.state)?;
        let promise = Promise::of(config);
        promise.check_folder(&config.state)?;
        for algorithm in Algorithm::ALL {
            let path = promise.key_file(&config.state, algorithm);
            let made = config.vault.read_or_make(&path, || algorithm.generate());
            made.map_err(|error| WitnessError::Key(path, error.to_string()))?;
        }
        Ok(())
    }

    /// Loads keys and state.
    ///
    /// # Errors
    /// There is no key, or one cannot be read; the earlier state cannot be read.
    pub fn open(config: &WitnessConfig) -> Result<Self, WitnessError> {
        make_folder(&config.state)?;
        let (promise, mut cosigners) = (Promise::of(config), Vec::new());
        promise.check_folder(&config.state)?;
        for algorithm in Algorithm::ALL {
            let path = promise.key_file(&config.state, algorithm);
            let fail = |reason: String| WitnessError::Key(path.clone(), reason);
            let key = match config.vault.read(&path) {
                Ok(key) => key,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(fail(error.to_string())),
            };
            let cosigner = Cosigner::from_pkcs8(&config.name, algorithm, &key);
            cosigners.push(cosigner.ok_or_else(|| fail(format!("is no {algorithm:?} key (PKCS#8)")))?);
        }
        if cosigners.is_empty() {
            return Err(WitnessError::NoKey(config.state.clone()));
        }
        let mut witness = WitnessService { cosigners, logs: Vec::new() };
        write_atomically(&config.state.join(VKEY_FILE), format!("{}\n", witness.vkeys().join("\n")).as_bytes())?;
        for verifier in &config.logs {
            match witness.logs.iter_mut().find(|known| known.verifiers[0].origin() == verifier.origin()) {
                Some(known) => known.verifiers.push(verifier.clone()),
                None => witness.logs.push(KnownLog::new(&config.state, verifier)),
            }
        }
        for known in &witness.logs {
            known.load(&witness)?;
        }
        for known in &mut witness.logs {
            known.stored = known.open_stored(config);
        }
        Ok(witness)
    }

    /// Returns its public keys, as `name+hash+key`; that for new deployments first.
    pub fn vkeys(&self) -> Vec<String> {
        self.cosigners.iter().map(|cosigner| cosigner.key().to_string()).collect()
    }

    /// Handles `add-checkpoint`, at this time (Unix seconds).
    pub fn add_checkpoint(&self, body: &[u8], time: u64) -> WitnessResponse {
        let request = std::str::from_utf8(body).ok().and_then(AddCheckpoint::parse);
        let Some(AddCheckpoint { old, proof, note }) = request else { return NO_FORM };
        let Ok(note) = Note::parse(&note) else { return NO_FORM };
        let Ok(checkpoint) = Checkpoint::parse(note.text) else { return NO_FORM };
        let known = self.logs.iter().find(|known| known.verifiers[0].origin() == checkpoint.origin);
        let Some(known) = known else {
            return refused(StatusCode::NOT_FOUND, "this log is not witnessed here");
        };
        let Some(signatures) = known.signatures(&note) else {
            return refused(StatusCode::FORBIDDEN, "no signature by the log's key, or one that does not verify");
        };
        if old > checkpoint.size {
            return refused(StatusCode::BAD_REQUEST, "the old size is larger than the new one");
        }
        let refusal = |last: &Option<LastSigned>| {
            let (size, root) = last.as_ref().map_or((0, empty_root()), LastSigned::tree);
            if old != size {
                return Some(WitnessResponse::Conflict(size));
            }
            if checkpoint.size == size && checkpoint.root != root {
                if size > 0 {
                    known.keep_evidence(&note, &signatures);
                }
                return Some(refused(StatusCode::UNPROCESSABLE_ENTITY, "the root is not the one of this size"));
            }
            if !is_consistent((size, root), (checkpoint.size, checkpoint.root), &proof) {
                return Some(refused(StatusCode::UNPROCESSABLE_ENTITY, "the proof does not hold"));
            }
            None
        };
        if let Some(stored) = &known.stored {
            // Nothing is held while the entries are read. The protocol has no status for what is not stored yet: 422 would
            // say that the log was forked.
            if let Some(refusal) = refusal(&known.last()) {
                return refusal;
            }
            if let Err(reason) = stored.prove((checkpoint.size, checkpoint.root), WAIT) {
                return WitnessResponse::Refused(StatusCode::SERVICE_UNAVAILABLE, reason.into());
            }
        }
        // Held until the new state is on disk: check and update are atomic.
        let mut last = known.last();
        if let Some(refusal) = refusal(&last) {
            return refusal;
        }
        let Some(lines) = self.cosign(&note, &checkpoint, time) else {
            return refused(StatusCode::BAD_REQUEST, "the origin is too long to be cosigned");
        };
        let cosigned = format!("{}\n{}{lines}", note.text, signatures.concat());
        if let Err(error) = write_atomically(&known.file, cosigned.as_bytes()) {
            tracing::error!(%error, "a checkpoint could not be saved, and is not signed");
            return refused(StatusCode::SERVICE_UNAVAILABLE, "the checkpoint could not be saved");
        }
        *last = Some(LastSigned { checkpoint, note: cosigned });
        WitnessResponse::Cosigned(lines)
    }

    fn cosign(&self, note: &Note<'_>, checkpoint: &Checkpoint, time: u64) -> Option<String> {
        self.cosigners.iter().map(|cosigner| cosigner.cosign(note.text, checkpoint, time)).collect()
    }

    /// Returns the newest cosigned checkpoint of the log with this path, for monitors.
    fn newest(&self, path: &str) -> Option<String> {
        let known = self.logs.iter().find(|known| checkpoint_path(known.verifiers[0].origin()) == path)?;
        known.last().as_ref().map(|last| last.note.clone())
    }

    /// Looks at some of the entries that are stored. It reads files: it is for a thread that may. Returns whether it could.
    pub fn look(&self) -> bool {
        let looked = self.logs.iter().filter_map(|known| known.stored.as_ref()).map(|stored| stored.look());
        // Every one of them is looked at, whatever becomes of the others.
        looked.filter(|looked| !looked).count() == 0
    }

    /// Returns the losses of entries that were promised, by the origins of their logs.
    pub fn losses(&self) -> Vec<(String, String)> {
        let loss = |known: &KnownLog| Some((known.verifiers[0].origin().to_owned(), known.stored.as_ref()?.alarm()?));
        self.logs.iter().filter_map(loss).collect()
    }

    /// Looks at what is stored, at the start and then every minute, for ever.
    async fn look_on(self: Arc<Self>) {
        if self.logs.iter().all(|known| known.stored.is_none()) {
            return std::future::pending().await;
        }
        loop {
            let witness = self.clone();
            let looked = tokio::task::spawn_blocking(move || witness.look()).await;
            tokio::time::sleep(if let Ok(true) = looked { LOOK_EVERY } else { REQUEST_TIMEOUT }).await;
        }
    }

    /// Serves until it is stopped.
    ///
    /// # Errors
    /// The port cannot be bound, or the state not be read.
    pub async fn serve(
        self: Arc<Self>,
        config: &WitnessConfig,
        stop: CancellationToken,
        bound: impl FnOnce(std::net::SocketAddr),
    ) -> Result<(), WitnessError> {
        let mut tls = tls::plain_server_config(&config.certificate, &config.key)?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind(config.listen).await;
        let listener = listener.map_err(|error| WitnessError::Bind(config.listen, error.to_string()))?;
        bound(listener.local_addr().unwrap_or(config.listen));
        let places = Connections::new(MAX_CONNECTIONS.0, MAX_CONNECTIONS.1);
        self.logs.iter().filter_map(|known| known.stored.as_ref()).for_each(StoredLog::begin);
        let mut looks = pin!(self.clone().look_on());
        loop {
            let (stream, address) = tokio::select! {
                accepted = accept(&listener) => accepted,
                () = &mut looks => continue,
                () = stop.cancelled() => return Ok(()),
            };
            let Some(place) = places.take(address.ip()) else { continue };
            let (witness, acceptor) = (self.clone(), acceptor.clone());
            tokio::spawn(async move {
                let _place = place;
                let Ok(Ok(stream)) = tokio::time::timeout(REQUEST_TIMEOUT, acceptor.accept(stream)).await else {
                    return;
                };
                let service = service_fn(move |request| witness.clone().answer(request));
                let served = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(REQUEST_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = served.await {
                    tracing::debug!(%error, "a connection ended");
                }
            });
        }
    }

    /// Ready: no entries that were promised are lost.
    fn readiness(&self) -> Response<Full<Bytes>> {
        let losses = self.losses();
        let lines = losses.iter().map(|(origin, reason)| format!("LOST: {origin}: {reason}\n"));
        match losses.is_empty() {
            true => reply(StatusCode::OK, TEXT, "ready\n"),
            false => reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, &lines.collect::<String>()),
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        const ADD: &str = "/add-checkpoint";
        let path = request.uri().path();
        match (request.method(), path) {
            (&Method::POST, ADD) => {}
            (_, ADD) => return Ok(not_allowed("POST")),
            (&Method::GET | &Method::HEAD, "/readyz") => return Ok(self.readiness()),
            (&Method::GET | &Method::HEAD, _) => {
                let found = self.newest(path);
                let missing = "no checkpoint of such a log was cosigned here (c2sp.org/tlog-witness)\n";
                return Ok(match found {
                    Some(note) => reply(StatusCode::OK, TEXT, &note),
                    None => reply(StatusCode::NOT_FOUND, TEXT, missing),
                });
            }
            (_, path) if self.logs.iter().any(|known| checkpoint_path(known.verifiers[0].origin()) == path) => {
                return Ok(not_allowed("GET, HEAD"));
            }
            _ => return Ok(reply(StatusCode::NOT_FOUND, TEXT, "POST /add-checkpoint (c2sp.org/tlog-witness)\n")),
        }
        let body = tokio::time::timeout(REQUEST_TIMEOUT, Limited::new(request.into_body(), MAX_BODY).collect()).await;
        let Ok(Ok(body)) = body else {
            return Ok(reply(StatusCode::PAYLOAD_TOO_LARGE, TEXT, "too large, or too slow\n"));
        };
        let time = crate::registry::now().unsigned_abs();
        let added = tokio::task::spawn_blocking(move || self.add_checkpoint(&body.to_bytes(), time)).await;
        Ok(match added {
            Ok(WitnessResponse::Cosigned(lines)) => reply(StatusCode::OK, TEXT, &lines),
            Ok(WitnessResponse::Conflict(size)) => {
                reply(StatusCode::CONFLICT, "text/x.tlog.size", &format!("{size}\n"))
            }
            Ok(WitnessResponse::Refused(status, why)) => reply(status, TEXT, &format!("{why}\n")),
            Err(_) => reply(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "\n"),
        })
    }
}

impl KnownLog {
    fn new(state: &Path, verifier: &LogVerifier) -> Self {
        let path = checkpoint_path(verifier.origin());
        let name = path.split('/').nth(1).unwrap_or_default();
        KnownLog {
            verifiers: vec![verifier.clone()],
            file: state.join(format!("{name}.checkpoint")),
            fork_file: state.join(format!("{name}.fork")),
            last: Mutex::new(None),
            stored: None,
        }
    }

    fn last(&self) -> MutexGuard<'_, Option<LastSigned>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_stored(&self, config: &WitnessConfig) -> Option<Arc<StoredLog>> {
        let origin = self.verifiers[0].origin();
        let folder = SiteFolder::new(LogFolder::with(config.stores.get(origin)?, None), self.verifiers.clone());
        let name = self.file.file_stem()?.to_str()?;
        Some(StoredLog::open(origin, folder, (&config.state, name), self.last().as_ref().map(LastSigned::tree)))
    }

    /// Reads the earlier state. A state that cannot be read stops the witness: it must not start again by itself.
    fn load(&self, witness: &WitnessService) -> Result<(), LogError> {
        let text = match std::fs::read_to_string(&self.file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(LogError::io(&self.file, &error)),
        };
        let wrong = |reason: &str| LogError::corrupt(&self.file, 0, reason);
        let note = Note::parse(&text).map_err(|error| wrong(&error.to_string()))?;
        let checkpoint = Checkpoint::parse(note.text).map_err(|error| wrong(&error.to_string()))?;
        let signatures = self.signatures(&note).filter(|_| checkpoint.origin == self.verifiers[0].origin());
        let signatures = signatures.ok_or_else(|| wrong("it is not signed by a key of this log"))?;
        // A newer key has not signed the stored checkpoint.
        let now = crate::registry::now().unsigned_abs();
        let lines = witness.cosign(&note, &checkpoint, now).ok_or_else(|| wrong("its origin is too long"))?;
        let note = format!("{}\n{}{lines}", note.text, signatures.concat());
        *self.last() = Some(LastSigned { checkpoint, note });
        Ok(())
    }

    /// Returns the lines by the log's keys; `None` if there is none, or one does not verify.
    fn signatures<'n>(&self, note: &Note<'n>) -> Option<Vec<&'n str>> {
        let found: Result<Vec<_>, _> = self.verifiers.iter().map(|key| key.signatures(note)).collect();
        found.ok().map(|lines| lines.concat()).filter(|lines| !lines.is_empty())
    }

    /// Stores the first checkpoint that proves that the log has signed two trees of one size.
    fn keep_evidence(&self, note: &Note<'_>, signatures: &[&str]) {
        let origin = self.verifiers[0].origin();
        tracing::error!(origin, file = %self.fork_file.display(), "the log has signed two trees of one size");
        if !self.fork_file.exists()
            && let Err(error) =
                write_atomically(&self.fork_file, format!("{}\n{}", note.text, signatures.concat()).as_bytes())
        {
            tracing::error!(%error, "the proof could not be saved");
        }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

fn not_allowed(methods: &'static str) -> Response<Full<Bytes>> {
    let mut response = reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, &format!("{methods}\n"));
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}

fn reply(status: StatusCode, kind: &'static str, body: &str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(body.to_owned())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
