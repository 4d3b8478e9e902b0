//! Complete requests and replies of the sandbox.

use bytes::Bytes;
use http::{HeaderMap, Method};

/// A complete request.
#[derive(Debug, Default)]
pub struct HttpRequest {
    /// Method.
    pub method: Method,
    /// Path, percent-decoded.
    pub path: String,
    /// Path and query as received.
    pub target: String,
    /// Query parameters, percent-decoded.
    pub query: Vec<(String, String)>,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl HttpRequest {
    /// Returns a header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns a query parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Returns the body as JSON.
    pub fn json(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.body).ok()
    }
}

/// A complete reply.
#[derive(Debug, Clone)]
pub struct HttpReply {
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl HttpReply {
    /// Makes a JSON reply.
    pub fn json(value: &serde_json::Value) -> Self {
        HttpReply::typed(200, "application/json;charset=UTF-8", value.to_string())
    }

    /// Makes a reply with this content type.
    pub fn typed(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        HttpReply { status, headers: vec![("content-type".into(), content_type.into())], body: body.into() }
    }

    /// Makes a reply with a status and a JSON error.
    pub fn error(status: u16, text: &str) -> Self {
        HttpReply { status, ..HttpReply::json(&serde_json::json!({ "error": text })) }
    }

    /// Adds a header.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}
