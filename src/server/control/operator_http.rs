//! Health and metrics for the operator: plain HTTP on loopback.

use crate::accept::accept;
use crate::exchange_log::clock;
use crate::server::shared::Shared;
use crate::witness::alarm;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Concurrent connections, and how long each may last: a scraper opens another.
const MAX_CONNECTIONS: usize = 32;
const MAX_LIFETIME: Duration = Duration::from_secs(300);
/// Requests that take longer to arrive are cut off.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves until the control plane's runtime ends.
pub(in crate::server) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "health and metrics cannot be served"),
    };
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Further connections wait in the socket's own queue.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (stream, _) = accept(&listener).await;
        let shared = shared.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let answer = answer(request.method(), request.uri().path(), &shared);
            async move { Ok::<_, Infallible>(answer) }
        });
        tokio::spawn(async move {
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            if let Ok(Err(error)) = tokio::time::timeout(MAX_LIFETIME, served).await {
                tracing::debug!(%error, "a request for health or metrics failed");
            }
            drop(place);
        });
    }
}

/// The media type of `/metrics`: Prometheus 3 accepts no page without it.
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

fn answer(method: &Method, path: &str, shared: &Shared) -> Response<Full<Bytes>> {
    let readable = method == Method::GET || method == Method::HEAD;
    let (status, kind, text) = match path {
        "/healthz" | "/readyz" | "/metrics" if !readable => {
            (StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET or HEAD\n".to_owned())
        }
        "/healthz" => (StatusCode::OK, TEXT, "alive\n".to_owned()),
        "/readyz" => {
            let (status, text) = ready(shared);
            (status, TEXT, text)
        }
        "/metrics" => (StatusCode::OK, METRICS, shared.metrics_text()),
        _ => (StatusCode::NOT_FOUND, TEXT, "healthz, readyz or metrics\n".to_owned()),
    };
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    answer
}

/// Returns whether the gateway can do its work; if not, the reasons, one a line.
fn ready(shared: &Shared) -> (StatusCode, String) {
    let mut faults = shared.readiness.faults();
    if !shared.log.is_writable() {
        faults.push("the exchange log cannot be written".to_owned());
    }
    let health = shared.log.health();
    if health.is_full {
        faults.push("the exchange log accepts no more entries: too many wait to be sealed".to_owned());
    }
    let late = clock::behind().as_secs();
    let late = if late == 0 {
        String::new()
    } else {
        format!(
            "the system's clock was set back: it is {late} s behind the gateway's, which continues from its own time\n"
        )
    };
    let unsealed = if health.is_behind() { format!("{health}\n") } else { String::new() };
    // The gateway can do its work, but an operator must look: the alarm is in the text, and in the metrics.
    let differing = shared.registry_differences.load();
    let detail = match differing.first() {
        None => String::new(),
        Some(first) => format!(
            "the registry is not what the exchange log says: {} and {} more (audit verify --registry)\n",
            first.object,
            differing.len() - 1
        ),
    };
    let detail = match alarm::read(&shared.data) {
        None => detail,
        Some(alarm) => format!("{detail}{alarm} (audit acknowledge)\n"),
    };
    let drifted: Vec<String> = shared.drift.fresh(crate::registry::now()).into_iter().collect();
    let detail = match drifted.as_slice() {
        [] => detail,
        sources => {
            format!("{detail}responses of {} have drifted from their contracts (contract drift)\n", sources.join(", "))
        }
    };
    let warnings: String = shared.readiness.warnings().iter().map(|warning| format!("{warning}\n")).collect();
    let detail = detail + &warnings;
    match faults.as_slice() {
        // Reported, but no fault yet: it is one when the log cannot be written.
        [] => (
            StatusCode::OK,
            format!("ready\n{late}{unsealed}{detail}{}", shared.event_alarm.load())
                + &shared.days_remaining.line().unwrap_or_default(),
        ),
        faults => (StatusCode::SERVICE_UNAVAILABLE, faults.join("\n") + "\n" + &late + &unsealed),
    }
}
