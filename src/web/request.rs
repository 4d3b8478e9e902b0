//! A request with its whole body, and who asks. Each part of it has a bound.

use super::Web;
use super::port::PATIENCE;
use crate::identity::Peer;
use crate::registry::now;
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Largest request body: a token and some words.
const MAX_BODY: usize = 32 << 10;
/// Of a larger one, so much is read and thrown away: a connection that is closed while its client still writes may be
/// reset before the client has read why (RFC 9112, section 9.6).
const MAX_THROWN_AWAY: usize = 1 << 20;

/// A request.
pub(super) struct Asked {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Who asks, where they have shown a certificate.
    pub peer: Option<Arc<Peer>>,
}

/// Bodies that are read at once, of those who have shown a certificate and of all others: 32 kB each.
const MAX_AT_ONCE: (usize, usize) = (4_096, 1_024);

/// How many bodies may be read at once.
pub(super) struct Bodies {
    known: Semaphore,
    unknown: Semaphore,
}

impl Default for Bodies {
    fn default() -> Self {
        Bodies { known: Semaphore::new(MAX_AT_ONCE.0), unknown: Semaphore::new(MAX_AT_ONCE.1) }
    }
}

impl FromRequest<Arc<Web>> for Asked {
    /// 413 where the body is too large or breaks off, 408 where it does not come in time, 503 where too many others are read.
    type Rejection = StatusCode;

    async fn from_request(request: Request, web: &Arc<Web>) -> Result<Self, StatusCode> {
        let (mut head, body) = request.into_parts();
        let known = head.extensions.get::<Arc<Peer>>().is_some();
        let bodies = if known { &web.bodies.known } else { &web.bodies.unknown };
        let _place = bodies.try_acquire().map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
        let body = match tokio::time::timeout(PATIENCE, whole(body)).await {
            Ok(Some(body)) => body,
            Ok(None) => return Err(StatusCode::PAYLOAD_TOO_LARGE),
            Err(_) => return Err(StatusCode::REQUEST_TIMEOUT),
        };
        // A certificate whose time is over is none, also while its connection is being closed.
        let peer = head.extensions.remove::<Arc<Peer>>().filter(|peer| peer.check_time(now()).is_ok());
        Ok(Asked { path: head.uri.path().to_owned(), headers: head.headers, body, peer })
    }
}

/// A request's body; `None` where it is too large or breaks off.
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
