//! The files of another machine's log, read over its HTTPS port: by `audit verify`, and by a site of a cluster that lacks
//! tiles. Whoever reads them checks them: nothing here is trusted.
//!
//! Bounds: 17 MB a file, [`TIMEOUT`] a request, and the connections of as many threads as read at once.

use crate::drivers::http::HttpEndpoint;
use crate::exchange_log::LogError;
use crate::exchange_log::verify::LogFiles;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::runtime::Runtime;

/// Largest file of a log: a bundle of 256 entries of 64 kB.
const MAX_FILE: usize = 17 << 20;
/// Longest request, from the connection to the last byte: the largest file at 10 Mbit/s. Files of usual size need some
/// milliseconds, so a machine that hangs delays its reader by this.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The log of another machine. Its methods block: they are for threads that may, outside of any task.
pub struct RemoteLogFiles {
    url: String,
    endpoint: HttpEndpoint,
    timeout: Duration,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl RemoteLogFiles {
    /// Makes a reader of `/log/` at `url` (`https://host:port`), with these CAs and this certificate. Nothing is connected
    /// yet.
    ///
    /// # Errors
    /// The system gives no more descriptors.
    pub fn new(url: &str, tls: rustls::ClientConfig) -> io::Result<Self> {
        let url = url.trim_end_matches('/').to_owned();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let endpoint = HttpEndpoint::new(&url, tls, MAX_FILE);
        Ok(RemoteLogFiles { endpoint, url, timeout: TIMEOUT, runtime: Some(runtime) })
    }

    /// Bounds each request by another time.
    pub fn within(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl LogFiles for RemoteLogFiles {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, LogError> {
        let failed = |reason: String| LogError::Io { path: self.path(name), reason };
        let path = format!("/log/{name}");
        let request = self.endpoint.send(Method::GET, &path, HeaderMap::new(), Bytes::new());
        let runtime = self.runtime.as_ref().ok_or(LogError::Closed)?;
        let response = runtime.block_on(async { tokio::time::timeout(self.timeout, request).await });
        let response = response.map_err(|_| failed(format!("no response in {} s", self.timeout.as_secs())))?;
        let response = response.map_err(|error| failed(error.to_string()))?;
        match response.status {
            StatusCode::OK => Ok(Some(response.body.to_vec())),
            StatusCode::NOT_FOUND => Ok(None),
            other => Err(failed(format!("the response was {other}"))),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(&self.url).join("log").join(name)
    }
}

impl Drop for RemoteLogFiles {
    /// The last owner may be a task, which must not wait for a runtime's end.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
