//! Faults of sources and hubs, switched on and off while the sandbox runs.

use bytes::Bytes;
use clap::ValueEnum;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What a source or hub does wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// Nothing (but it may be slow).
    #[default]
    None,
    /// Answers with the HTTP status `status`.
    Status,
    /// Takes the request and never answers.
    Hang,
    /// Sends the head and half of the body, then nothing.
    HangBody,
    /// Sends the body byte by byte, one every 200 ms.
    Drip,
    /// Closes the connection without a response.
    Close,
    /// Closes the connection in the middle of the body.
    ResetBody,
    /// Answers 200 with bytes that are no document.
    Garbage,
    /// Answers 200 with a web page.
    WrongContentType,
    /// Answers 200 with 64 MB.
    Huge,
    /// Answers 200 with a well-formed document of another form.
    Inconsistent,
    /// Refuses every credential.
    CredentialsRefused,
    /// Has forgotten the tokens and sessions given out before this was switched on.
    CredentialsExpired,
    /// A web server before the source answers 404 with a page of its own.
    NotFoundPage,
    /// Answers 200 with no body at all.
    EmptyBody,
    /// An API gateway before the source answers 200 with an error document of its own.
    GatewayFault,
    /// Answers as it should, with the HTTP status `status`, 206 unless said (202, 304, 404, 500…).
    OtherStatus,
    /// Is busy, and says until when as a date (`Retry-After`).
    BusyUntil,
    /// Compresses what nobody asked to be compressed.
    UnrequestedGzip,
    /// Gives an error with status 200 in place of a token (a hub's fault).
    TokenError,
    /// Gives a token's lifetime as a text with decimals, after a byte order mark (a hub's fault).
    TokenMalformed,
    /// Puts a byte order mark before the document.
    ByteOrderMark,
    /// Writes XML in UTF-16.
    Utf16,
    /// Writes a member of a JSON object twice, with two values.
    DuplicateNames,
    /// Names everything otherwise.
    OtherNames,
    /// Leaves out the field that holds the verdict or the sign of success.
    NoVerdict,
    /// Writes codes that no list has (sex, marital status, states).
    UnknownCodes,
    /// Puts blanks and line breaks around each text.
    Whitespace,
    /// Writes letters and their marks apart (Unicode NFD).
    Decomposed,
    /// Writes codes as numbers, which lose their leading zeros.
    LostZeros,
    /// Writes the end of all days (9999-12-31) in place of each date.
    Sentinels,
    /// Leaves out the second half of each list, and counts it all the same.
    CutLists,
    /// Writes lists as objects with numbers for names, as PHP does.
    ListsAsObjects,
    /// Has another member in each structure, whose contract nobody has changed.
    AddedNames,
    /// Writes a structure in place of each text that begins with a letter.
    OtherTypes,
    /// Sends its response twice in one body.
    SecondResponse,
    /// Refers to an element of the SOAP body that is not there, in place of the record.
    DanglingReference,
    /// Sends the first page of a list whichever page is requested.
    RepeatedPages,
}

impl FaultKind {
    /// Every kind, by the name that it is switched on by.
    pub fn names() -> Vec<String> {
        let name = |kind: &FaultKind| Some(serde_json::to_value(kind).ok()?.as_str()?.to_owned());
        Self::value_variants().iter().filter_map(name).collect()
    }
}

/// A fault as it is set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// For `status`: which, 500 unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How much later every response comes, in milliseconds.
    pub latency_ms: u64,
    /// How many it works at at once, `latency_ms` each, while others wait there; as many as come unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_once: Option<u16>,
}

impl From<FaultKind> for Fault {
    fn from(kind: FaultKind) -> Self {
        Fault { kind, ..Fault::default() }
    }
}

/// The faults of all sources and hubs, by id.
#[derive(Debug, Default)]
pub struct Faults(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    set: BTreeMap<String, Fault>,
    /// How often credentials were made to expire, by id.
    expired: BTreeMap<String, u64>,
    /// How often each source or hub was asked.
    requested: BTreeMap<String, u64>,
    /// When each of those that it works at at once will be done, by id.
    busy: BTreeMap<String, Vec<Instant>>,
}

impl Inner {
    fn of(&self, id: &str) -> Fault {
        self.set.get(id).copied().unwrap_or_default()
    }

    /// How long a request that comes now takes, with its turn to wait for.
    fn turn(&mut self, id: &str, fault: Fault, now: Instant) -> u64 {
        let Some(at_once) = fault.at_once else { return fault.latency_ms };
        let busy = self.busy.entry(id.to_owned()).or_default();
        busy.retain(|until| *until > now);
        busy.sort_unstable();
        // Behind as many as are ahead, but for those that it works at with it.
        let turn = busy.len().checked_sub(usize::from(at_once.max(1))).and_then(|ahead| busy.get(ahead));
        let done = turn.copied().unwrap_or(now) + Duration::from_millis(fault.latency_ms);
        busy.push(done);
        u64::try_from((done - now).as_millis()).unwrap_or(u64::MAX)
    }
}

impl Faults {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets a fault.
    pub fn set(&self, id: &str, fault: impl Into<Fault>) {
        let fault = fault.into();
        let mut inner = self.inner();
        if fault.kind == FaultKind::CredentialsExpired {
            *inner.expired.entry(id.to_owned()).or_default() += 1;
        }
        inner.set.insert(id.to_owned(), fault);
    }

    /// Takes a fault back.
    pub fn clear(&self, id: &str) {
        self.inner().set.remove(id);
    }

    /// Counts that a source or hub is asked, and gives its fault, with the latency of this request.
    pub fn requested(&self, id: &str) -> Fault {
        let mut inner = self.inner();
        *inner.requested.entry(id.to_owned()).or_default() += 1;
        let fault = inner.of(id);
        Fault { latency_ms: inner.turn(id, fault, Instant::now()), ..fault }
    }

    /// How often it was asked.
    pub fn count(&self, id: &str) -> u64 {
        self.inner().requested.get(id).copied().unwrap_or_default()
    }

    /// The fault of a source or hub.
    pub fn of(&self, id: &str) -> Fault {
        self.inner().of(id)
    }

    /// A number that grows each time that the credentials of this id are made to expire.
    pub fn epoch(&self, id: &str) -> u64 {
        self.inner().expired.get(id).copied().unwrap_or_default()
    }

    /// All that are set.
    pub fn all(&self) -> BTreeMap<String, Fault> {
        self.inner().set.clone()
    }
}

/// Sets and clears faults over HTTP: `PUT /faults/<id>` with a fault as JSON, `DELETE /faults/<id>`, `GET /faults`.
pub async fn control(listener: tokio::net::TcpListener, faults: Arc<Faults>) {
    loop {
        let (stream, _) = crate::accept::accept(&listener).await;
        let faults = faults.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let faults = faults.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = Limited::new(body, 4_096).collect().await.map(|body| body.to_bytes());
                let (status, text) = match body {
                    Ok(body) => faults.change(&head.method, head.uri.path(), &body),
                    Err(_) => (413, "a fault is smaller than that\n".to_owned()),
                };
                let mut answer = Response::new(Full::new(Bytes::from(text)));
                *answer.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
                Ok::<_, std::convert::Infallible>(answer)
            }
        });
        tokio::spawn(async move {
            let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            if let Err(error) = served.await {
                tracing::debug!(%error, "a request to the sandbox's control failed");
            }
        });
    }
}

impl Faults {
    fn change(&self, method: &Method, path: &str, body: &[u8]) -> (u16, String) {
        let id = path.strip_prefix("/faults/").unwrap_or("");
        match (method.as_str(), id) {
            ("GET", _) => (200, serde_json::to_string_pretty(&self.all()).unwrap_or_default() + "\n"),
            ("PUT", id) if !id.is_empty() => match serde_json::from_slice::<Fault>(body) {
                Ok(fault) => {
                    self.set(id, fault);
                    (200, format!("{id}: {fault:?}\n"))
                }
                Err(error) => (400, format!("no fault: {error}\n")),
            },
            ("DELETE", id) if !id.is_empty() => {
                self.clear(id);
                (200, format!("{id}: no fault\n"))
            }
            _ => (404, "PUT or DELETE /faults/<source or hub>, GET /faults\n".to_owned()),
        }
    }
}
