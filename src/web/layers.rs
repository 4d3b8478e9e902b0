//! Layers around every request of the HTTPS port, for every route: one layer for each purpose, outermost first. Bodies
//! are bounded where they are read ([`super::request`]), since the bound depends on the client. Responses are not
//! compressed: tokens are beside what a client has sent (BREACH), and tiles are hashes.

use axum::Router;
use axum::body::Body;
use axum::middleware::Next;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use std::time::Duration;
use tower::ServiceBuilder;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;
use tracing::Span;

/// Longest time for a response: longer than every wait inside (a body 10 s, the registry's pools some seconds). Then
/// 503.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Puts the layers around the routes.
pub(super) fn layered(router: Router) -> Router {
    named(router.layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, RESPONSE_TIMEOUT)))
}

/// The same around calls, which have a deadline each, and whose streams may last for hours.
pub(super) fn named(router: Router) -> Router {
    let layers = ServiceBuilder::new()
        .layer(axum::middleware::from_fn(of_one_meaning))
        // `x-request-id`: the caller's own, or a new UUID; the response repeats it.
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
        // At DEBUG only, failures included: a client must not be able to fill the operator's log.
        .layer(TraceLayer::new_for_http().make_span_with(span).on_request(()).on_failure(()))
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(SetResponseHeaderLayer::if_not_present(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ));
    router.layer(layers)
}

/// Refuses a request of HTTP/1.1 that another server on its way may read differently (RFC 9112, sections 3.2 and 6.1): without one `Host`, or in
/// a transfer coding other than `chunked`, once. The connection ends with it.
async fn of_one_meaning(request: Request<Body>, next: Next) -> Response<Body> {
    let refused = |status: StatusCode, why: &'static str| {
        let mut response = Response::new(Body::from(why));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    };
    if request.version() == Version::HTTP_11 {
        let mut hosts = request.headers().get_all(header::HOST).iter();
        if hosts.next().is_none() || hosts.next().is_some() {
            return refused(
                StatusCode::BAD_REQUEST,
                r#"{"error":"invalid_request","error_description":"send one Host"}"#,
            );
        }
        let mut codings = request.headers().get_all(header::TRANSFER_ENCODING).iter();
        let is_chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        if codings.next().is_some_and(|coding| !is_chunked(coding)) || codings.next().is_some() {
            let why = r#"{"error":"invalid_request","error_description":"send no transfer coding but chunked, once"}"#;
            return refused(StatusCode::NOT_IMPLEMENTED, why);
        }
    }
    next.run(request).await
}

/// The span of a request: only its method. Paths, queries and headers are the caller's words.
fn span(request: &Request<Body>) -> Span {
    tracing::debug_span!("https", method = %request.method())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tower::ServiceExt;

    async fn ask(path: &str, id: Option<&str>) -> Response<Body> {
        let router = Router::new()
            .route("/quick", get(|| async { "done" }))
            .route("/stuck", get(std::future::pending::<&'static str>));
        let mut request = Request::get(path).header(header::HOST, "localhost");
        if let Some(id) = id {
            request = request.header("x-request-id", id);
        }
        layered(router).oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn every_response_has_an_id_and_no_type_but_its_own() {
        for (path, status) in [("/quick", StatusCode::OK), ("/nowhere", StatusCode::NOT_FOUND)] {
            let response = ask(path, None).await;
            let text = |name: &str| response.headers().get(name).unwrap().to_str().unwrap().to_owned();
            assert_eq!((response.status(), text("x-content-type-options").as_str()), (status, "nosniff"), "{path}");
            assert!(uuid::Uuid::parse_str(&text("x-request-id")).is_ok(), "{path}");
            // Each has its own, unless the caller has set one.
            assert_ne!(ask(path, None).await.headers()["x-request-id"], text("x-request-id"));
            assert_eq!(ask(path, Some("trace-7")).await.headers()["x-request-id"], "trace-7");
        }
    }

    #[tokio::test]
    async fn a_request_that_others_may_read_differently_is_refused() {
        for (headers, status) in [
            (&[("host", "localhost")][..], 200),
            (&[("host", "localhost"), ("transfer-encoding", "Chunked")], 200),
            (&[], 400),
            (&[("host", "localhost"), ("host", "other")], 400),
            (&[("host", "localhost"), ("transfer-encoding", "gzip, chunked")], 501),
            (&[("host", "localhost"), ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], 501),
        ] {
            let router = layered(Router::new().route("/quick", get(|| async { "done" })));
            let request =
                headers.iter().fold(Request::get("/quick"), |request, (name, value)| request.header(*name, *value));
            let response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(response.status().as_u16(), status, "{headers:?}");
            assert_eq!(response.headers().contains_key("connection"), status != 200, "{headers:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_answer_in_time_is_503_and_not_before() {
        let began = tokio::time::Instant::now();
        let response = ask("/stuck", None).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(began.elapsed() >= RESPONSE_TIMEOUT, "{:?}", began.elapsed());
        assert!(response.headers().contains_key("x-request-id"));
    }
}
