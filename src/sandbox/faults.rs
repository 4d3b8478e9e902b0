//! Fault injection for sources and hubs, changed while the sandbox runs.

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

/// How a source or hub misbehaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// No fault (but it may be slow).
    #[default]
    None,
    /// Returns the HTTP status `status`.
    Status,
    /// Accepts the request and never responds.
    Hang,
    /// Sends the headers and half of the body, then nothing.
    HangBody,
    /// Sends the body byte by byte, one every 200 ms.
    Drip,
    /// Closes the connection without a response.
    Close,
    /// Closes the connection in the middle of the body.
    ResetBody,
    /// Returns 200 with bytes that are no document.
    Garbage,
    /// Returns 200 with a web page.
    WrongContentType,
    /// Returns 200 with 64 MB.
    Huge,
    /// Returns 200 with a well-formed document of another shape.
    Inconsistent,
    /// Refuses every credential.
    CredentialsRefused,
    /// Rejects tokens and sessions issued before this fault was set.
    CredentialsExpired,
    /// A web server in front of the source returns 404 with its own page.
    NotFoundPage,
    /// Returns 200 with an empty body.
    EmptyBody,
    /// An API gateway in front of the source returns 200 with its own error document.
    GatewayFault,
    /// Returns the right body with the HTTP status `status`, 206 by default (202, 304, 404, 500…).
    OtherStatus,
    /// Is busy, with a `Retry-After` header as a date.
    BusyUntil,
    /// Compresses the response although the request does not accept it.
    UnrequestedGzip,
    /// Returns an error with status 200 instead of a token (a hub's fault).
    TokenError,
    /// Returns a token's lifetime as a text with decimals, after a byte order mark (a hub's fault).
    TokenMalformed,
    /// Puts a byte order mark before the document.
    ByteOrderMark,
    /// Writes XML in UTF-16.
    Utf16,
    /// Writes a member of a JSON object twice, with two values.
    DuplicateNames,
    /// Renames every field.
    OtherNames,
    /// Omits the field with the result or the success flag.
    NoVerdict,
    /// Writes unknown codes (sex, marital status, states).
    UnknownCodes,
    /// Adds spaces and line breaks around each text.
    Whitespace,
    /// Writes letters in decomposed form (Unicode NFD).
    Decomposed,
    /// Writes codes as numbers, which lose their leading zeros.
    LostZeros,
    /// Writes the maximum date (9999-12-31) instead of each date.
    Sentinels,
    /// Omits the second half of each list, with an unchanged total.
    CutLists,
    /// Writes lists as objects with numbers as names, as PHP does.
    ListsAsObjects,
    /// Adds a member to each structure that the contract does not have.
    AddedNames,
    /// Writes a structure instead of each text that begins with a letter.
    OtherTypes,
    /// Sends its response twice in one body.
    SecondResponse,
    /// Refers to a missing element of the SOAP body instead of the record.
    DanglingReference,
    /// Sends the first page of a list for every requested page.
    RepeatedPages,
}

impl FaultKind {
    /// Every kind with its name.
    pub fn names() -> Vec<String> {
        let name = |kind: &FaultKind| Some(serde_json::to_value(kind).ok()?.as_str()?.to_owned());
        Self::value_variants().iter().filter_map(name).collect()
    }
}

/// A fault setting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fault {
    /// The kind of fault.
    pub kind: FaultKind,
    /// The status for `status`, 500 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Added latency of every response, in milliseconds.
    pub latency_ms: u64,
    /// How many requests it processes concurrently, `latency_ms` each, while others queue there; unlimited by default.
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
    /// Number of times that credentials were expired, by id.
    expired: BTreeMap<String, u64>,
    /// Number of requests to each source or hub.
    requested: BTreeMap<String, u64>,
    /// End of each concurrently processed request, by id.
    busy: BTreeMap<String, Vec<Instant>>,
}

impl Inner {
    fn of(&self, id: &str) -> Fault {
        self.set.get(id).copied().unwrap_or_default()
    }

    /// The time of a request that arrives now, including its time in the queue.
    fn turn(&mut self, id: &str, fault: Fault, now: Instant) -> u64 {
        let Some(at_once) = fault.at_once else { return fault.latency_ms };
        let busy = self.busy.entry(id.to_owned()).or_default();
        busy.retain(|until| *until > now);
        busy.sort_unstable();
        // It waits for those ahead of it, except those that are processed at the same time.
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

    /// Clears a fault.
    pub fn clear(&self, id: &str) {
        self.inner().set.remove(id);
    }

    /// Counts a request to a source or hub, and returns its fault with the latency of this request.
    pub fn requested(&self, id: &str) -> Fault {
        let mut inner = self.inner();
        *inner.requested.entry(id.to_owned()).or_default() += 1;
        let fault = inner.of(id);
        Fault { latency_ms: inner.turn(id, fault, Instant::now()), ..fault }
    }

    /// Returns the number of requests to it.
    pub fn count(&self, id: &str) -> u64 {
        self.inner().requested.get(id).copied().unwrap_or_default()
    }

    /// Returns the fault of a source or hub.
    pub fn of(&self, id: &str) -> Fault {
        self.inner().of(id)
    }

    /// Returns a number that grows each time that the credentials of this id are expired.
    pub fn epoch(&self, id: &str) -> u64 {
        self.inner().expired.get(id).copied().unwrap_or_default()
    }

    /// Returns all faults that are set.
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
                    Err(_) => (413, "the fault is too large\n".to_owned()),
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
                    (200, format!("{id}: {}\n", serde_json::to_string(&fault).unwrap_or_default()))
                }
                Err(error) => (400, format!("not a fault: {error}\n")),
            },
            ("DELETE", id) if !id.is_empty() => {
                self.clear(id);
                (200, format!("{id}: no fault\n"))
            }
            _ => (404, "PUT or DELETE /faults/<source or hub>, GET /faults\n".to_owned()),
        }
    }
}
