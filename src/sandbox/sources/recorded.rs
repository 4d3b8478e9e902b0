//! A source from recorded exchanges: `records/<id>.json` has requests and their responses. An eleventh source gets its
//! sandbox this way, without a line of Rust (docs/adding-a-source.md).

use super::Source;
use crate::sandbox::http::{HttpReply, HttpRequest};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// One recorded exchange.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedExchange {
    /// Method; `GET` by default.
    #[serde(default = "get")]
    pub method: String,
    /// Path.
    pub path: String,
    /// Required query parameters.
    #[serde(default)]
    pub query: std::collections::BTreeMap<String, String>,
    /// A text that the body must contain.
    #[serde(default)]
    pub body_contains: String,
    /// Status of the response; 200 by default.
    #[serde(default = "ok")]
    pub status: u16,
    /// Content type of a text; `text/xml` by default.
    #[serde(default = "text_xml")]
    pub content_type: String,
    /// The response as JSON.
    #[serde(default)]
    pub json: Option<serde_json::Value>,
    /// The response as a text.
    #[serde(default)]
    pub text: Option<String>,
}

fn get() -> String {
    "GET".into()
}

fn ok() -> u16 {
    200
}

fn text_xml() -> String {
    "text/xml; charset=utf-8".into()
}

/// Recorded exchanges of one source.
pub struct Recorded {
    id: String,
    file: PathBuf,
}

impl Recorded {
    /// Loads the recorded sources of a folder.
    pub fn folder(folder: &Path) -> Vec<Recorded> {
        let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
        let mut found: Vec<Recorded> = entries
            .filter_map(|entry| {
                let file = entry.ok()?.path();
                let id = file.file_name()?.to_str()?.strip_suffix(".json")?.to_owned();
                Some(Recorded { id, file })
            })
            .collect();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found
    }

    /// Reads the file for each request, so that records can be changed while the sandbox runs.
    fn exchange(&self, ask: &HttpRequest) -> Option<RecordedExchange> {
        let text = std::fs::read_to_string(&self.file).ok()?;
        let all: Vec<RecordedExchange> = match serde_json::from_str(&text) {
            Ok(all) => all,
            Err(error) => {
                tracing::warn!(file = %self.file.display(), %error, "these records cannot be read");
                return None;
            }
        };
        all.into_iter().find(|one| {
            ask.method.as_str() == one.method
                && ask.path == one.path
                && one.query.iter().all(|(name, value)| ask.parameter(name) == Some(value))
                && String::from_utf8_lossy(&ask.body).contains(&one.body_contains)
        })
    }
}

impl Source for Recorded {
    fn id(&self) -> &str {
        &self.id
    }

    fn takes(&self, ask: &HttpRequest) -> bool {
        self.exchange(ask).is_some()
    }

    fn respond(&self, ask: &HttpRequest) -> HttpReply {
        match self.exchange(ask) {
            Some(RecordedExchange { status, json: Some(json), .. }) => HttpReply { status, ..HttpReply::json(&json) },
            Some(one) => HttpReply::typed(one.status, &one.content_type, one.text.unwrap_or_default()),
            None => HttpReply::error(404, "no recorded response for this request"),
        }
    }
}
