//! The client of an S3-compatible store: `object_store` over the HTTP client and the TLS that the gateway has.

use super::TileStoreError;
use crate::secret::Secret;
use bytes::Bytes;
use http_body::Body;
use http_body_util::{BodyExt, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::aws::AmazonS3Builder;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpService,
};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Longest time to open a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time of a request, to the last byte of its response: the largest bundle has 16 MB.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Idle time after which a pooled connection is closed.
const IDLE: Duration = Duration::from_secs(30);
/// Largest response: a bundle of 256 entries of 64 kB.
const MAX_RESPONSE: usize = 20 << 20;
/// How often a request is repeated, and within which time. Longer pauses are the uploader's.
const RETRIES: (usize, Duration) = (2, Duration::from_secs(10));

/// Where the tiles go.
#[derive(Debug, Clone)]
pub struct ObjectStoreSettings {
    /// `https://host:port`, or `http://` on this machine.
    pub endpoint: String,
    /// The bucket.
    pub bucket: String,
    /// What all names of objects begin with; may be empty.
    pub prefix: String,
    /// The region that requests are signed for.
    pub region: String,
    /// The id of the access key.
    pub access_key_id: String,
    /// The access key.
    pub secret_access_key: Secret,
    /// CA of the store's certificate; that of the clients by default.
    pub ca: Option<PathBuf>,
}

/// Makes a client of the store, below the prefix.
///
/// # Errors
/// [`TileStoreError::Settings`].
pub fn connect(
    settings: &ObjectStoreSettings,
    tls: rustls::ClientConfig,
) -> Result<Arc<dyn ObjectStore>, TileStoreError> {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(200),
        max_backoff: Duration::from_secs(2),
        ..BackoffConfig::default()
    };
    let store = AmazonS3Builder::new()
        .with_endpoint(&settings.endpoint)
        .with_bucket_name(&settings.bucket)
        .with_region(&settings.region)
        .with_access_key_id(&settings.access_key_id)
        .with_secret_access_key(settings.secret_access_key.reveal())
        .with_allow_http(settings.endpoint.starts_with("http://"))
        // Not every store has DeleteObjects.
        .with_disable_bulk_delete(true)
        .with_retry(RetryConfig { backoff, max_retries: RETRIES.0, retry_timeout: RETRIES.1 })
        .with_http_connector(OwnHttp(service(tls)))
        .build()
        .map_err(|error| TileStoreError::Settings(error.to_string()))?;
    let prefix = Path::parse(&settings.prefix).map_err(|error| TileStoreError::Settings(error.to_string()))?;
    Ok(Arc::new(PrefixStore::new(store, prefix)))
}

type HyperClient = Client<HttpsConnector<connect::HttpConnector>, HttpRequestBody>;

fn service(tls: rustls::ClientConfig) -> OwnService {
    let mut tcp = connect::HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    // The configuration refuses plain HTTP to another machine.
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
    let mut builder = Client::builder(TokioExecutor::new());
    builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE);
    OwnService(builder.build(connector.wrap_connector(tcp)))
}

#[derive(Debug)]
struct OwnHttp(OwnService);

impl HttpConnector for OwnHttp {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

#[derive(Debug, Clone)]
struct OwnService(HyperClient);

impl OwnService {
    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.0.request(request).await.map_err(|error| {
            let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Request };
            HttpError::new(kind, error)
        })?;
        let (head, body) = response.into_parts();
        // An object that is larger is none of the log's: its size, which is in the headers, says so.
        if body.size_hint().lower() > MAX_RESPONSE as u64 {
            return Ok(HttpResponse::from_parts(head, Bytes::new().into()));
        }
        let body = Limited::new(body, MAX_RESPONSE).collect().await;
        let body: Bytes = body.map_err(|error| HttpError::new_boxed(HttpErrorKind::Decode, error))?.to_bytes();
        Ok(HttpResponse::from_parts(head, body.into()))
    }
}

impl HttpService for OwnService {
    // The form that `async_trait` gives the trait's method.
    fn call<'service, 'call>(
        &'service self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'call>>
    where
        'service: 'call,
        Self: 'call,
    {
        Box::pin(async move {
            let response = tokio::time::timeout(TIMEOUT, self.exchange(request)).await;
            response.unwrap_or_else(|late| Err(HttpError::new(HttpErrorKind::Timeout, late)))
        })
    }
}
