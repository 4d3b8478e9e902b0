//! A small witness. What it has signed is on its disk before its signature leaves, so no crash makes it sign two histories.

use super::config::WitnessConfig;
use super::request::AddCheckpoint;
use crate::exchange_log::checkpoint::{Checkpoint, CheckpointError, LogSigner, LogVerifier};
use crate::exchange_log::cosignature::Cosigner;
use crate::exchange_log::proof::is_consistent;
use crate::exchange_log::{LogError, make_folder, write_atomically};
use crate::hex::hex;
use crate::identity::connections::Connections;
use crate::identity::tls;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Largest request: 63 hashes and a note with some signatures.
const MAX_BODY: usize = 64 << 10;
/// Connections at once, in all and from one address: a witness asks nobody who he is.
const MAX_CONNECTIONS: (usize, usize) = (256, 32);
/// Longest handshake, wait for a request's head, and request.
const PATIENCE: Duration = Duration::from_secs(10);
/// The file with the witness's public key.
pub const VKEY_FILE: &str = "vkey";

/// Why a witness did not start.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// Its files.
    #[error(transparent)]
    State(#[from] LogError),
    /// Its certificate.
    #[error(transparent)]
    Tls(#[from] tls::TlsFault),
    /// Its signing key.
    #[error("{0}: {1}")]
    Key(PathBuf, String),
    /// Its port.
    #[error("{0} cannot be listened on: {1}")]
    Bind(std::net::SocketAddr, String),
}

/// A log, and the last of its checkpoints that was signed here.
struct Known {
    verifier: LogVerifier,
    file: PathBuf,
    last: Mutex<Option<Checkpoint>>,
}

/// A witness.
pub struct Witness {
    cosigner: Cosigner,
    logs: Vec<Known>,
}

/// What a witness answers: its status, and a body where there is one.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// The cosignature's line.
    Cosigned(String),
    /// Another size was signed last.
    Conflict(u64),
    /// Refused.
    Refused(StatusCode, &'static str),
}

impl Witness {
    /// Loads key and state; the key is made at the first start.
    pub fn open(config: &WitnessConfig) -> Result<Self, WitnessError> {
        make_folder(&config.state)?;
        let path = config.state.join("witness.key");
        let fail = |reason: String| WitnessError::Key(path.clone(), reason);
        let key = config.vault.read_or_make(&path, LogSigner::generate).map_err(|error| fail(error.to_string()))?;
        let cosigner =
            Cosigner::from_pkcs8(&config.name, &key).ok_or_else(|| fail("is no Ed25519 key (PKCS#8)".into()))?;
        write_atomically(&config.state.join(VKEY_FILE), cosigner.vkey().as_bytes())?;
        let logs = config.logs.iter().map(|verifier| Known::open(config, verifier)).collect::<Result<_, _>>()?;
        Ok(Witness { cosigner, logs })
    }

    /// Its public key, as `name+hash+key`.
    pub fn vkey(&self) -> String {
        self.cosigner.vkey()
    }

    /// Answers `add-checkpoint`, at this time (Unix seconds).
    pub fn add_checkpoint(&self, body: &[u8], time: u64) -> Told {
        let request = std::str::from_utf8(body).ok().and_then(AddCheckpoint::parse);
        let Some(AddCheckpoint { old, proof, note }) = request else {
            return Told::Refused(StatusCode::BAD_REQUEST, "not in the form of c2sp.org/tlog-witness");
        };
        let origin = note.lines().next().unwrap_or("");
        let Some(known) = self.logs.iter().find(|known| known.verifier.origin() == origin) else {
            return Told::Refused(StatusCode::NOT_FOUND, "this log is not witnessed here");
        };
        let checkpoint = match known.verifier.check(&note) {
            Ok(checkpoint) => checkpoint,
            Err(CheckpointError::Malformed) => return Told::Refused(StatusCode::BAD_REQUEST, "no checkpoint"),
            Err(_) => return Told::Refused(StatusCode::FORBIDDEN, "no signature by the log's key"),
        };
        if old > checkpoint.size {
            return Told::Refused(StatusCode::BAD_REQUEST, "the old size is larger than the new one");
        }
        // Held until the new state is on disk: looking and keeping are one.
        let mut last = known.last.lock().unwrap_or_else(PoisonError::into_inner);
        let size = last.as_ref().map_or(0, |last| last.size);
        if old != size {
            return Told::Conflict(size);
        }
        if last.as_ref().is_some_and(|last| last.size == checkpoint.size && last.root != checkpoint.root) {
            tracing::error!(origin, size, "the log has signed two trees of this size");
            return Told::Conflict(size);
        }
        let old_tree = (size, last.as_ref().map_or([0; 32], |last| last.root));
        if !is_consistent(old_tree, (checkpoint.size, checkpoint.root), &proof) {
            return Told::Refused(StatusCode::UNPROCESSABLE_ENTITY, "the proof does not hold");
        }
        if let Err(error) = write_atomically(&known.file, note.as_bytes()) {
            tracing::error!(%error, "a checkpoint could not be kept, and is not signed");
            return Told::Refused(StatusCode::SERVICE_UNAVAILABLE, "the checkpoint could not be kept");
        }
        *last = Some(checkpoint);
        let text = format!("{}\n", note.split_once("\n\n").map_or("", |(text, _)| text));
        Told::Cosigned(self.cosigner.cosign(&text, time))
    }

    /// Serves until it is told to stop.
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
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return Ok(()),
            };
            let Ok((stream, address)) = accepted else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let Some(place) = places.take(address.ip()) else { continue };
            let (witness, acceptor) = (self.clone(), acceptor.clone());
            tokio::spawn(async move {
                let _place = place;
                let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await else { return };
                let service = service_fn(move |request| witness.clone().answer(request));
                let served = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(PATIENCE)
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = served.await {
                    tracing::debug!(%error, "a connection ended");
                }
            });
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        if request.uri().path() != "/add-checkpoint" {
            return Ok(reply(StatusCode::NOT_FOUND, "text/plain", "POST /add-checkpoint (c2sp.org/tlog-witness)\n"));
        }
        if request.method() != Method::POST {
            return Ok(reply(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "POST\n"));
        }
        let body = tokio::time::timeout(PATIENCE, Limited::new(request.into_body(), MAX_BODY).collect()).await;
        let Ok(Ok(body)) = body else {
            return Ok(reply(StatusCode::PAYLOAD_TOO_LARGE, "text/plain", "too large, or too slow\n"));
        };
        let time = crate::registry::now().unsigned_abs();
        let told = tokio::task::spawn_blocking(move || self.add_checkpoint(&body.to_bytes(), time)).await;
        Ok(match told {
            Ok(Told::Cosigned(line)) => reply(StatusCode::OK, "text/plain; charset=utf-8", &line),
            Ok(Told::Conflict(size)) => reply(StatusCode::CONFLICT, "text/x.tlog.size", &format!("{size}\n")),
            Ok(Told::Refused(status, why)) => reply(status, "text/plain", &format!("{why}\n")),
            Err(_) => reply(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", "\n"),
        })
    }
}

impl Known {
    /// What was signed before. A state that cannot be read stops the witness: it must not begin anew by itself.
    fn open(config: &WitnessConfig, verifier: &LogVerifier) -> Result<Self, WitnessError> {
        let name = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.origin().as_bytes());
        let file = config.state.join(format!("{}.checkpoint", hex(name.as_ref())));
        let last = match std::fs::read_to_string(&file) {
            Ok(note) => {
                let checked = verifier.check(&note);
                Some(checked.map_err(|error| LogError::corrupt(&file, 0, error.to_string()))?)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(LogError::io(&file, &error).into()),
        };
        Ok(Known { verifier: verifier.clone(), file, last: Mutex::new(last) })
    }
}

fn reply(status: StatusCode, kind: &'static str, body: &str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(body.to_owned())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
