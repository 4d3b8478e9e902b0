//! `GET /v1/openapi.json`: the operations as OpenAPI describes them, for who has a certificate of the province's CA.

use super::{WebCalls, with_head};
use crate::identity::Peer;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use std::sync::Arc;

/// Serves the document. 401 without a client certificate: which data the province exchanges is told to its systems only.
pub(super) async fn openapi(State(calls): State<Arc<WebCalls>>, peer: Option<Extension<Arc<Peer>>>) -> Response {
    let respond = |status, body: Body| with_head(status, "application/json", HeaderMap::new(), body);
    if peer.is_none() {
        return respond(StatusCode::UNAUTHORIZED, Body::from(r#"{"error":"a client certificate is required"}"#));
    }
    let served = calls.served.borrow().clone();
    // The port's own thread waits for no document to be made.
    match tokio::task::spawn_blocking(move || served.operations.document(&calls.server)).await {
        Ok(document) => respond(StatusCode::OK, Body::from(document)),
        Err(_) => respond(StatusCode::INTERNAL_SERVER_ERROR, Body::from(r#"{"error":"the document cannot be made"}"#)),
    }
}
