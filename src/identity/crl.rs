//! Revocation lists that are published at URLs (RFC 5280, section 4.2.1.13): fetched regularly, checked, and cached in
//! files, one for each issuer, which the gateway loads like any other. Plain HTTP is sufficient, since a list is
//! signed. A list is rejected if it cannot be loaded, if no CA of the clients signed it, or if it is out of date, from
//! the future, or older than the present one. A rejected list affects no other list of the same response.

use super::cached_lists::{KEPT, read_kept};
use super::list::{List, split};
use super::tls::{self, CrlSources};
use super::trust::Trust;
use crate::hex::hex;
use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Longest wait for a response.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest response: some hundred thousand revoked certificates.
const MAX_BYTES: usize = 16 << 20;
/// Maximum number of lists in one response.
const MAX_LISTS: usize = 64;
/// Only one list at a time is compared with the present one and stored.
static KEEPING: Mutex<()> = Mutex::new(());

/// The reason that a published list was rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the revocation list at {url} was not taken: {reason}")]
pub struct CrlError {
    url: String,
    reason: String,
}

type Fetching = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// Fetches the lists of one URL.
pub struct CrlFetcher {
    url: Uri,
    every: Duration,
    keeper: ListStore,
    client: Fetching,
    /// The cached files of the last response.
    files: Vec<PathBuf>,
    etag: Option<HeaderValue>,
    modified: Option<HeaderValue>,
}

impl CrlFetcher {
    /// Returns a fetcher for each URL; lists signed by a CA in `client_ca` are trusted.
    ///
    /// # Errors
    /// A file cannot be read, or the client for HTTPS not be set up.
    pub fn all(sources: &CrlSources, client_ca: &Path) -> Result<Vec<Self>, tls::TlsFault> {
        let one = |url: &Uri| {
            Ok(CrlFetcher {
                url: url.clone(),
                every: sources.every,
                keeper: ListStore { folder: sources.cached.clone(), client_ca: client_ca.to_owned() },
                client: client(client_ca)?,
                files: Vec::new(),
                etag: None,
                modified: None,
            })
        };
        sources.urls.iter().map(one).collect()
    }

    /// Returns the interval between fetches.
    pub fn every(&self) -> Duration {
        self.every
    }

    /// Returns its URL.
    pub fn url(&self) -> &Uri {
        &self.url
    }

    /// Fetches once. Returns whether a new list was cached, and the error of one that was not.
    pub async fn fetch(&mut self) -> (bool, Result<(), CrlError>) {
        let answer = tokio::time::timeout(FETCH_TIMEOUT, self.ask())
            .await
            .unwrap_or_else(|_| Err("the request timed out".into()));
        let (replaced, taken) = match answer {
            Ok(Some(bytes)) => self.take(bytes).await,
            Ok(None) => (false, Ok(())),
            Err(reason) => (false, Err(reason)),
        };
        if taken.is_err() {
            // A rejected list is requested again: it may be accepted once the CA file is right. The same holds for the
            // CA of the server.
            (self.etag, self.modified) = (None, None);
            if let Ok(fresh) = client(&self.keeper.client_ca) {
                self.client = fresh;
            }
        }
        (replaced, taken.map_err(|reason| CrlError { url: self.url.to_string(), reason }))
    }

    /// Returns the response's bytes, if they differ from the last ones.
    async fn ask(&mut self) -> Result<Option<Bytes>, String> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.url.clone();
        let at_hand = !self.files.is_empty() && self.files.iter().all(|file| file.exists());
        for (name, value) in [(header::IF_NONE_MATCH, &self.etag), (header::IF_MODIFIED_SINCE, &self.modified)] {
            if let Some(value) = value.clone().filter(|_| at_hand) {
                request.headers_mut().insert(name, value);
            }
        }
        let answer = self.client.request(request).await.map_err(|error| error.to_string())?;
        let kept = |name| answer.headers().get(name).cloned();
        let (etag, modified) = (kept(header::ETAG), kept(header::LAST_MODIFIED));
        match answer.status() {
            StatusCode::NOT_MODIFIED => return Ok(None),
            StatusCode::OK => {}
            other => return Err(format!("the response was {other}")),
        }
        let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await.map_err(|error| error.to_string())?;
        (self.etag, self.modified) = (etag, modified);
        Ok(Some(body.to_bytes()))
    }

    /// Processes a response, on a separate thread: a list may have hundreds of thousands of entries.
    async fn take(&mut self, bytes: Bytes) -> (bool, Result<(), String>) {
        let keeper = self.keeper.clone();
        match tokio::task::spawn_blocking(move || keeper.take(&bytes)).await {
            Ok(Ok(StoredLists { files, replaced, faults })) => {
                self.files = files;
                (replaced, if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) })
            }
            Ok(Err(reason)) => (false, Err(reason)),
            Err(_) => (false, Err("it could not be read".into())),
        }
    }
}

fn client(client_ca: &Path) -> Result<Fetching, tls::TlsFault> {
    let config = tls::client_config(client_ca, None, &[])?;
    let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

/// The result of a response.
struct StoredLists {
    files: Vec<PathBuf>,
    replaced: bool,
    faults: Vec<String>,
}

/// Stores lists, one file for each issuer and scope.
#[derive(Clone)]
struct ListStore {
    folder: PathBuf,
    client_ca: PathBuf,
}

impl ListStore {
    /// Each list of a response is accepted, or not, on its own.
    fn take(&self, bytes: &[u8]) -> Result<StoredLists, String> {
        let lists = split(bytes).map_err(|fault| fault.to_string())?;
        if lists.len() > MAX_LISTS {
            return Err(format!("it holds more than {MAX_LISTS} lists"));
        }
        let trust = Trust::of_authorities(&self.client_ca).map_err(|fault| fault.to_string())?;
        let _alone = KEEPING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = StoredLists { files: Vec::new(), replaced: false, faults: Vec::new() };
        for (at, der) in lists.iter().enumerate() {
            match self.keep(der, &trust) {
                Ok((file, new)) => {
                    kept.files.push(file);
                    kept.replaced |= new;
                }
                Err(reason) => kept.faults.push(format!("list {}: {reason}", at + 1)),
            }
        }
        Ok(kept)
    }

    fn keep(&self, der: &[u8], trust: &Trust) -> Result<(PathBuf, bool), String> {
        let list = List::parse(der).map_err(|fault| fault.to_string())?;
        let issuer = super::refused::plain(&list.issuer, 200);
        let Some(signer) = trust.signer(&list) else {
            return Err(format!("no CA in client_ca signed it (its issuer is {issuer})"));
        };
        let now = crate::registry::now();
        if list.is_over(now) {
            return Err(format!("the time of the list of {issuer} is over"));
        }
        if list.is_ahead(now) {
            return Err(format!("the list of {issuer} is from the future: compare the clocks"));
        }
        let name = digest(&SHA256, &[signer.identity(), list.scope().as_bytes()].concat());
        let file = self.folder.join(format!("{}-{}{}", KEPT.0, hex(&name.as_ref()[..16]), KEPT.1));
        if let Some(before) = read_kept(&file) {
            if before.der == list.der {
                return Ok((file, false));
            }
            if list.is_rollback(&before) {
                return Err(format!("the list of {issuer} is older than the one at hand"));
            }
        }
        let pem = crate::pem::encode("X509 CRL", &list.der);
        crate::keyfile::write_private(&file, pem.as_bytes()).map_err(|error| error.to_string())?;
        Ok((file, true))
    }
}
