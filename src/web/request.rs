//! A request with its complete body, and its client. Each part of it has a bound.

use super::Web;
use super::port::REQUEST_TIMEOUT;
use crate::identity::{Peer, Thumbprint};
use crate::registry::now;
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Largest request body: a token and a few parameters.
const MAX_BODY: usize = 32 << 10;
/// Bytes of a larger one that are read and discarded: a connection that is closed while its client still writes may be
/// reset before the client has read the reason (RFC 9112, section 9.6).
const MAX_THROWN_AWAY: usize = 1 << 20;

/// A request.
pub(super) struct WebRequest {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The client, if it has shown a certificate.
    pub peer: Option<Arc<Peer>>,
}

/// Maximum number of bodies that are read at once, of clients with a certificate and of all others: 32 kB each.
const MAX_AT_ONCE: (usize, usize) = (4_096, 1_024);

/// Maximum number of these by one certificate: as many as a connection has streams.
const MAX_OF_ONE: usize = 64;

/// Limits of bodies that are read at once.
pub(super) struct Bodies {
    known: Semaphore,
    unknown: Semaphore,
    /// Bodies that are being read, by certificate.
    of: Mutex<HashMap<Thumbprint, usize>>,
}

impl Default for Bodies {
    fn default() -> Self {
        let (known, unknown) = (Semaphore::new(MAX_AT_ONCE.0), Semaphore::new(MAX_AT_ONCE.1));
        Bodies { known, unknown, of: Mutex::default() }
    }
}

/// A body that is being read.
struct BodyPermit<'b> {
    bodies: &'b Bodies,
    of: Option<Thumbprint>,
    _permit: SemaphorePermit<'b>,
}

impl Bodies {
    fn of(&self) -> MutexGuard<'_, HashMap<Thumbprint, usize>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins one more body, of a client with this certificate: 429 if it has too many in flight, 503 if all together
    /// have.
    fn begin(&self, of: Option<Thumbprint>) -> Result<BodyPermit<'_>, StatusCode> {
        let all = if of.is_some() { &self.known } else { &self.unknown };
        let permit = all.try_acquire().map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
        if let Some(of) = of {
            let mut counts = self.of();
            let own = counts.entry(of).or_default();
            if *own >= MAX_OF_ONE {
                return Err(StatusCode::TOO_MANY_REQUESTS);
            }
            *own += 1;
        }
        Ok(BodyPermit { bodies: self, of, _permit: permit })
    }
}

impl Drop for BodyPermit<'_> {
    fn drop(&mut self) {
        let Some(of) = self.of else { return };
        let mut counts = self.bodies.of();
        if let Some(own) = counts.get_mut(&of) {
            *own -= 1;
            if *own == 0 {
                counts.remove(&of);
            }
        }
    }
}

impl FromRequest<Arc<Web>> for WebRequest {
    /// 413 if the body is too large or breaks off, 408 if it does not arrive in time, 429 if too many of the same
    /// certificate are read, 503 if too many in all are.
    type Rejection = StatusCode;

    async fn from_request(request: Request, web: &Arc<Web>) -> Result<Self, StatusCode> {
        let (mut head, body) = request.into_parts();
        let of = head.extensions.get::<Arc<Peer>>().map(|peer| peer.certificate.thumbprint);
        let _permit = web.bodies.begin(of)?;
        let body = match tokio::time::timeout(REQUEST_TIMEOUT, whole(body)).await {
            Ok(Some(body)) => body,
            Ok(None) => return Err(StatusCode::PAYLOAD_TOO_LARGE),
            Err(_) => return Err(StatusCode::REQUEST_TIMEOUT),
        };
        // An expired certificate counts as none, also while its connection is being closed.
        let peer = head.extensions.remove::<Arc<Peer>>().filter(|peer| peer.check_time(now()).is_ok());
        Ok(WebRequest { path: head.uri.path().to_owned(), headers: head.headers, body, peer })
    }
}

/// A request's body; `None` if it is too large or breaks off.
async fn whole(mut body: Body) -> Option<Bytes> {
    let (mut kept, mut size) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let data = frame.ok()?.into_data().unwrap_or_default();
        size += data.len();
        if size > MAX_THROWN_AWAY {
            return None;
        }
        if size <= MAX_BODY {
            kept.extend_from_slice(&data);
        }
    }
    (size <= MAX_BODY).then(|| kept.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn d1_one_certificate_s_bodies_leave_room_for_the_others() {
        let bodies = Bodies::default();
        let (one, other) = (Thumbprint::of(b"one"), Thumbprint::of(b"other"));
        let mut held: Vec<_> = (0..MAX_OF_ONE).map(|_| bodies.begin(Some(one)).unwrap()).collect();
        assert_eq!(bodies.begin(Some(one)).err(), Some(StatusCode::TOO_MANY_REQUESTS));
        assert!(bodies.begin(Some(other)).is_ok() && bodies.begin(None).is_ok());
        held.pop();
        assert!(bodies.begin(Some(one)).is_ok());
        drop(held);
        assert!(bodies.of().is_empty());
        assert_eq!(bodies.known.available_permits(), MAX_AT_ONCE.0);
        let unknown: Vec<_> = (0..MAX_AT_ONCE.1).map(|_| bodies.begin(None).unwrap()).collect();
        assert_eq!(bodies.begin(None).err(), Some(StatusCode::SERVICE_UNAVAILABLE));
        assert!(bodies.begin(Some(one)).is_ok(), "who shows a certificate has room of their own");
        drop(unknown);
        // All permits of clients with a certificate: 64 certificates that each use their maximum.
        let by = |number: usize| Some(Thumbprint::of(&(number / MAX_OF_ONE).to_be_bytes()));
        let known: Vec<_> = (0..MAX_AT_ONCE.0).map(|number| bodies.begin(by(number)).unwrap()).collect();
        assert_eq!(bodies.begin(Some(other)).err(), Some(StatusCode::SERVICE_UNAVAILABLE));
        assert!(bodies.begin(None).is_ok(), "who shows none has room of their own, too");
        drop(known);
        assert!(bodies.begin(Some(other)).is_ok());
    }
}
