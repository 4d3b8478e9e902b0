//! The HTTPS port: OAuth2, the public keys, and the exchange log for auditors. A client certificate is requested, not
//! required: a client without one gets only the public documents. The port has a separate thread, so that it never
//! waits for calls, and calls never wait for it.

mod jwk;
mod layers;
mod log;
mod oauth;
mod port;
pub use port::RemoteAddress;
mod rates;
mod recorder;
mod request;

pub use oauth::INTROSPECT;

use crate::access::reads::ReadPermits;
use crate::access::refusals::RefusalLog;
use crate::access::staff::StaffAuthorizer;
use crate::config::Config;
use crate::exchange_log::ExchangeLog;
use crate::identity::handshake_limits::HandshakeLimits;
use crate::registry::{Snapshot, Store};
use crate::telemetry::{OAuthMetrics, PortMetrics};
use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State;
use axum::routing::{MethodRouter, get, post};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use request::WebRequest;
use std::sync::Arc;

/// A response of this port.
type WebResponse = Response<Full<Bytes>>;

/// The parts of the gateway that the HTTPS port needs.
pub struct Web {
    config: Config,
    store: Arc<dyn Store>,
    registry: Arc<ArcSwap<Snapshot>>,
    tokens: crate::access::token::TokenChecker,
    log: ExchangeLog,
    refusals: Arc<RefusalLog>,
    handshakes: Arc<HandshakeLimits>,
    door: StaffAuthorizer,
    reads: Arc<ReadPermits>,
    bodies: request::Bodies,
    recorder: recorder::Recorder,
    signer: oauth::CurrentSigner,
    limits: oauth::OAuthLimits,
    metrics: PortMetrics,
}

/// A response with a JSON document.
fn json(status: StatusCode, value: &serde_json::Value, cache: &'static str) -> WebResponse {
    let mut answer = Response::new(Full::new(Bytes::from(value.to_string())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    answer
}

/// An error that is not OAuth's.
fn error(status: StatusCode, error: &str) -> WebResponse {
    json(status, &serde_json::json!({ "error": error }), "no-store")
}

impl Web {
    /// Creates the port's state, and starts the thread that records issued tokens.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn new(
        config: Config,
        store: Arc<dyn Store>,
        registry: Arc<ArcSwap<Snapshot>>,
        log: ExchangeLog,
        refusals: Arc<RefusalLog>,
        handshakes: Arc<HandshakeLimits>,
        metrics: OAuthMetrics,
    ) -> std::io::Result<Self> {
        let said = &config.tokens;
        Ok(Web {
            tokens: crate::access::token::TokenChecker::new(&said.issuer, &said.audience, said.leeway_s),
            door: StaffAuthorizer::new(registry.clone(), log.clone(), refusals.clone(), &config.node),
            bodies: request::Bodies::default(),
            reads: ReadPermits::counted(log::READS, refusals.reads_refused("tiles")),
            metrics: metrics.port.clone(),
            recorder: recorder::Recorder::start(store.clone())?,
            signer: oauth::CurrentSigner::default(),
            limits: oauth::OAuthLimits::new(said, metrics),
            config,
            store,
            registry,
            log,
            refusals,
            handshakes,
        })
    }

    /// The routes, with `pages` beside them, and `calls`, which have deadlines of their own. A path with another method is 405 with
    /// `Allow`, and HEAD is GET without its body.
    fn router(self: Arc<Self>, pages: Router, calls: Router) -> Router {
        type Routes = MethodRouter<Arc<Web>>;
        type Port = State<Arc<Web>>;
        let token: Routes = post(|State(web): Port, request: WebRequest| async move { web.token(&request).await });
        let introspect: Routes = post(|State(web): Port, request: WebRequest| async move { web.introspect(&request) });
        let revoke: Routes = post(|State(web): Port, request: WebRequest| async move { web.revoke(&request).await });
        let metadata: Routes = get(|State(web): Port| async move { web.metadata() });
        let jwks: Routes = get(|State(web): Port| async move { web.jwks() });
        let log: Routes = get(|State(web): Port, request: WebRequest| async move { web.log_file(&request).await });
        let routes = Router::new()
            .route("/oauth2/token", token)
            .route("/oauth2/introspect", introspect)
            .route("/oauth2/revoke", revoke)
            .route("/.well-known/oauth-authorization-server", metadata)
            .route("/oauth2/jwks.json", jwks)
            .route("/log/{*file}", log)
            .method_not_allowed_fallback(|| async { error(StatusCode::METHOD_NOT_ALLOWED, "invalid_request") })
            .fallback(|| async { error(StatusCode::NOT_FOUND, "not_found") })
            .with_state(self);
        layers::layered(pages.merge(routes)).merge(layers::named(calls))
    }
}
