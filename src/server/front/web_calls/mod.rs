//! Calls of the HTTPS port, for systems that have no gRPC: Connect and gRPC-Web at a method's own path, plain JSON at
//! `/v1/SOURCE/OPERATION`. A call is handed to a worker, and takes the way of every other one; here is only what differs on the wire.

mod connect;
mod connect_get;
mod description;
mod error;
mod grpc_web;
mod rest;

use crate::identity::Peer;
use crate::server::exchange::form::{CallForm, CallProtocol, RequestBody};
use crate::server::exchange::response::{self, ResponseBody};
use crate::server::front::refusals::Refusals;
use crate::server::shared::Served;
use crate::status::{Reason, Refusal};
use crate::web::RemoteAddress;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::{any, get};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use http_body::Frame;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// Calls of the HTTPS port that one worker has not begun yet, at most.
pub(in crate::server) const QUEUE: usize = 1_024;
/// When to try again where all are taken.
const RETRY: Duration = Duration::from_millis(500);

/// A call on its way to a worker.
pub(in crate::server) struct WebCall {
    pub peer: Arc<Peer>,
    pub request: http::Request<RequestBody>,
    pub arrived: Instant,
    pub form: CallForm,
    pub reply: oneshot::Sender<http::Response<ResponseBody>>,
}

/// The workers, as the HTTPS port sees them.
pub(in crate::server) struct WebCalls {
    pub workers: Vec<mpsc::Sender<WebCall>>,
    pub served: watch::Receiver<Arc<Served>>,
    pub refusals: Arc<Refusals>,
    pub next: AtomicUsize,
    /// The gateway's address, as callers reach it.
    pub server: String,
}

impl WebCalls {
    /// The paths of calls.
    pub fn router(self) -> Router {
        Router::new()
            .route("/{service}/{method}", any(method))
            .route("/v1/{source}/{operation}", any(rest::operation))
            .route("/v1/openapi.json", get(description::openapi))
            .with_state(Arc::new(self))
    }

    /// Has a worker serve a call, each worker in its turn.
    ///
    /// # Errors
    /// [`Reason::CertificateRequired`] where the caller has shown none, [`Reason::GatewayOverloaded`] where the worker's queue is full.
    async fn serve(
        &self,
        request: Request,
        path: Uri,
        form: CallForm,
    ) -> Result<http::Response<ResponseBody>, Refusal> {
        let arrived = Instant::now();
        let (mut head, body) = request.into_parts();
        let Some(peer) = head.extensions.remove::<Arc<Peer>>() else {
            if let Some(RemoteAddress(address)) = head.extensions.get() {
                self.refusals.connection(*address, Reason::CertificateRequired);
            }
            return Err(Reason::CertificateRequired.into());
        };
        head.uri = path;
        let request = http::Request::from_parts(head, RequestBody::Web(body));
        let (reply, response) = oneshot::channel();
        let call = WebCall { peer: peer.clone(), request, arrived, form, reply };
        let overloaded = || Refusal::retry(Reason::GatewayOverloaded, RETRY);
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.workers.len().max(1);
        let worker = self.workers.get(turn).ok_or_else(overloaded)?;
        if worker.try_send(call).is_err() {
            self.refusals.call(&peer, &overloaded());
            return Err(overloaded());
        }
        // Only a worker that ends drops a call.
        response.await.map_err(|_| overloaded())
    }
}

/// A call at its method's own path: Connect or gRPC-Web, as its media type says.
async fn method(
    State(calls): State<Arc<WebCalls>>,
    Path((service, _)): Path<(String, String)>,
    request: Request,
) -> Response {
    // Services of Protobuf are in packages.
    if !service.contains('.') {
        return with_head(
            StatusCode::NOT_FOUND,
            "application/json",
            HeaderMap::new(),
            Body::from(r#"{"error":"not_found"}"#),
        );
    }
    let path = request.uri().clone();
    let mut request = request;
    // Only other methods than POST are read by GET, or told that they could be; the media type of a POST must be of the operation's kind.
    let (by_get, has_stream) = {
        let operations = &calls.served.borrow().operations;
        let by_get = request.method() != Method::POST && operations.is_read_by_get(path.path());
        (by_get, operations.has_stream(path.path()))
    };
    let form = if by_get && request.method() == Method::GET {
        let (form, message) = connect_get::call(path.query().unwrap_or_default(), request.headers());
        *request.body_mut() = Body::from(message);
        form
    } else {
        connect::form(request.method(), request.headers()).of_shape(has_stream)
    };
    let response = calls.serve(request, path, form).await;
    let mut response = response.unwrap_or_else(|refusal| response::refused(&refusal, ""));
    if by_get && response.headers().contains_key(header::ALLOW) {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, POST"));
    }
    match form.protocol {
        // HTTP's own status: no call has begun, so there is no stream to end.
        _ if response.status() != StatusCode::OK => connect::unary(response, form.codec),
        CallProtocol::GrpcWeb => grpc_web::response(response),
        CallProtocol::ConnectStream => connect::stream(response, form.codec),
        _ => connect::unary(response, form.codec),
    }
}

/// The metadata of a response: everything but what gRPC itself has there.
fn metadata(headers: &HeaderMap) -> HeaderMap {
    let own = |name: &HeaderName| name == header::CONTENT_TYPE || name.as_str().starts_with("grpc-");
    headers.iter().filter(|(name, _)| !own(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// A response with its head, which nobody between may keep.
fn with_head(status: StatusCode, media_type: &'static str, metadata: HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = metadata;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A response's frames, where it has a body; the last one has the trailers. The stream of a response is made by its worker, one frame ahead.
fn frames(body: ResponseBody) -> BoxStream<'static, Frame<Bytes>> {
    match body {
        ResponseBody::Empty | ResponseBody::Tonic(_) => stream::empty().boxed(),
        ResponseBody::One(message, trailers) => stream::iter([Frame::data(message), Frame::trailers(trailers)]).boxed(),
        ResponseBody::Stream(frames) => frames,
    }
}

/// Has a worker make a response's stream where the caller's connection is not its own: what is polled here runs there. Returns the response
/// to hand over, and what the worker has to do until the stream ends or nobody takes it any more.
pub(in crate::server) fn handed_over(
    response: http::Response<ResponseBody>,
) -> (http::Response<ResponseBody>, impl Future<Output = ()> + Send) {
    let (head, body) = response.into_parts();
    let (body, work) = match body {
        ResponseBody::Stream(mut frames) => {
            let (sender, receiver) = mpsc::channel(1);
            let work = async move {
                loop {
                    let frame = tokio::select! {
                        frame = frames.next() => frame,
                        () = sender.closed() => return,
                    };
                    let Some(frame) = frame else { return };
                    if sender.send(frame).await.is_err() {
                        return;
                    }
                }
            };
            let next =
                |mut receiver: mpsc::Receiver<_>| async move { receiver.recv().await.map(|frame| (frame, receiver)) };
            (ResponseBody::Stream(stream::unfold(receiver, next).boxed()), work.boxed())
        }
        other => (other, std::future::ready(()).boxed()),
    };
    (http::Response::from_parts(head, body), work)
}
