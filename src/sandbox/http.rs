//! The sandbox's HTTP server: complete requests in, complete replies out, over TLS, with fault injection.

use super::faults::{Fault, FaultKind, Faults};
pub use super::message::{HttpReply, HttpRequest};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Maximum request size.
const MAX_REQUEST: usize = 32 << 20;
/// Size of the huge response.
const HUGE: usize = 64 << 20;

/// The body of a reply.
pub type ReplyBody = UnsyncBoxBody<Bytes, io::Error>;

/// A handler of the requests at one address.
pub trait Site: Send + Sync + 'static {
    /// Returns the id of the source or hub whose faults apply to a request.
    fn fault_target(&self, ask: &HttpRequest) -> String;
    /// Returns the response.
    fn respond(&self, ask: &HttpRequest) -> HttpReply;
}

/// Serves a site until the runtime ends.
pub async fn serve(listener: TcpListener, tls: Arc<rustls::ServerConfig>, site: Arc<dyn Site>, faults: Arc<Faults>) {
    accept(listener, tls, move |request| {
        let (site, faults) = (site.clone(), faults.clone());
        async move {
            let ask = read(request).await?;
            let fault = faults.requested(&site.fault_target(&ask));
            before(fault).await?;
            let ask = super::malformed_responses::requested(ask, fault);
            // On a separate thread: some responses are computed from thousands of records.
            let reply = tokio::task::spawn_blocking(move || site.respond(&ask)).await.map_err(io::Error::other)?;
            Ok(apply_fault(reply, fault))
        }
    })
    .await;
}

/// Accepts connections and serves each with HTTP/1 or HTTP/2.
pub async fn accept<F, A>(listener: TcpListener, tls: Arc<rustls::ServerConfig>, answer: F)
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = io::Result<Response<ReplyBody>>> + Send + 'static,
{
    let acceptor = TlsAcceptor::from(tls);
    loop {
        let (stream, _) = crate::accept::accept(&listener).await;
        let (acceptor, answer) = (acceptor.clone(), answer.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(answer);
            let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            builder.http2().max_concurrent_streams(1_000);
            // A disconnected caller, or a fault that closes the connection, is not reported.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn read(request: Request<Incoming>) -> io::Result<HttpRequest> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_REQUEST).collect().await.map_err(io::Error::other)?.to_bytes();
    let query = head.uri.query().unwrap_or("");
    let query = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (crate::percent::decode(name), crate::percent::decode(value))
    });
    Ok(HttpRequest {
        method: head.method,
        path: crate::percent::decode(head.uri.path()),
        target: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        query: query.collect(),
        headers: head.headers,
        body,
    })
}

/// Applies a fault before the response.
///
/// # Errors
/// `ConnectionReset` if the fault closes the connection.
pub async fn before(fault: Fault) -> io::Result<()> {
    if fault.latency_ms > 0 {
        tokio::time::sleep(Duration::from_millis(fault.latency_ms)).await;
    }
    match fault.kind {
        FaultKind::Hang => std::future::pending().await,
        FaultKind::Close => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
        _ => Ok(()),
    }
}

/// Applies a fault to a response.
pub fn apply_fault(reply: HttpReply, fault: Fault) -> Response<ReplyBody> {
    let reply = super::malformed_responses::altered(reply, fault);
    let half = Bytes::copy_from_slice(&reply.body[..reply.body.len() / 2]);
    let full = |bytes: Vec<u8>| Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed_unsync();
    let typed = |content_type: &str, text: &str| HttpReply::typed(200, content_type, text);
    let (reply, body) = match fault.kind {
        FaultKind::Status => {
            let reply = HttpReply::error(fault.status.unwrap_or(500), "fault");
            (reply.clone(), full(reply.body))
        }
        FaultKind::HangBody => {
            let parts = stream::once(async { Ok(Frame::data(half)) }).chain(stream::pending());
            (reply, UnsyncBoxBody::new(StreamBody::new(parts.boxed())))
        }
        FaultKind::ResetBody => {
            let broken = || io::Error::from(io::ErrorKind::ConnectionReset);
            let parts = stream::iter([Ok(Frame::data(half)), Err(broken())]);
            (reply, UnsyncBoxBody::new(StreamBody::new(parts)))
        }
        FaultKind::Drip => {
            let parts = stream::unfold(reply.body.clone().into_iter(), |mut rest| async move {
                tokio::time::sleep(Duration::from_millis(200)).await;
                let byte = rest.next()?;
                Some((Ok(Frame::data(Bytes::copy_from_slice(&[byte]))), rest))
            });
            (reply, UnsyncBoxBody::new(StreamBody::new(parts.boxed())))
        }
        FaultKind::Garbage => {
            let reply = HttpReply { body: vec![0xff, 0x00, b'{', b'<', 0xc3, 0x28], ..reply };
            (reply.clone(), full(reply.body))
        }
        FaultKind::WrongContentType => {
            let reply = typed("text/html", "<html><body><p>Bảo trì hệ thống</body></html>");
            (reply.clone(), full(reply.body))
        }
        FaultKind::Inconsistent => {
            let reply = if reply.body.starts_with(b"<") {
                typed("text/xml", "<a><b>1</b></a>")
            } else {
                typed("application/json", r#"[[{"a":1},{"b":[2]}],{"Data":7}]"#)
            };
            (reply.clone(), full(reply.body))
        }
        FaultKind::Huge => {
            let chunk = Bytes::from(vec![b' '; 64 << 10]);
            let parts = stream::iter((0..HUGE / chunk.len()).map(move |_| Ok(Frame::data(chunk.clone()))));
            (reply, UnsyncBoxBody::new(StreamBody::new(parts)))
        }
        _ => (reply.clone(), full(reply.body)),
    };
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in &reply.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<http::HeaderName>(), http::HeaderValue::from_str(value)) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}
