//! The exchange log over HTTPS, for those who administer or audit: checkpoint, hash tiles and entry bundles in the layout
//! of C2SP tlog-tiles, below `/log/`.

use super::{Asked, Web, json};
use crate::exchange_log::LogPaths;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::json;

/// Tiles and bundles never change.
const FOR_EVER: &str = "private, max-age=31536000, immutable";

impl Web {
    /// A file of the log.
    pub(super) fn log_file(&self, asked: &Asked) -> Response<Full<Bytes>> {
        let known = asked.peer.as_ref().is_some_and(|peer| self.registry.load().staff_of(&peer.names).is_some());
        if !known {
            return json(StatusCode::FORBIDDEN, &json!({ "error": "access_denied" }), "no-store");
        }
        let name = asked.path.strip_prefix("/log/").unwrap_or("");
        let missing = || json(StatusCode::NOT_FOUND, &json!({ "error": "not_found" }), "no-store");
        let (kind, cache) = match name {
            "checkpoint" => ("text/plain; charset=utf-8", "no-cache"),
            tile if is_tile(tile) => ("application/octet-stream", FOR_EVER),
            _ => return missing(),
        };
        let Ok(bytes) = std::fs::read(LogPaths::new(&self.config.data).tiles.join(name)) else { return missing() };
        let mut answer = Response::new(Full::new(Bytes::from(bytes)));
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
        answer
    }
}

/// `tile/<level or entries>/<index>[.p/<width>]` and nothing else: no other file can be reached.
fn is_tile(name: &str) -> bool {
    let digits =
        |text: &str, most: usize| (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some((level, rest)) = name.strip_prefix("tile/").and_then(|rest| rest.split_once('/')) else { return false };
    let (index, width) = rest.split_once(".p/").map_or((rest, None), |(index, width)| (index, Some(width)));
    let mut parts = index.split('/').rev();
    (level == "entries" || digits(level, 1))
        && width.is_none_or(|width| digits(width, 3))
        && parts.next().is_some_and(|last| last.len() == 3 && digits(last, 3))
        && parts.all(|part| part.strip_prefix('x').is_some_and(|part| part.len() == 3 && digits(part, 3)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tiles_are_reached() {
        for tile in ["tile/0/000", "tile/entries/x001/x234/067", "tile/1/000.p/17", "tile/entries/000.p/255"] {
            assert!(is_tile(tile), "{tile}");
        }
        for other in [
            "",
            "tile",
            "tile/0/../../keys/log.key",
            "tile/0/0",
            "tile/0/000.p/",
            "tile/00/000",
            "tile/0/x00/001",
            "vkey",
            "tile/0/000/000",
            "tile/0/000.p/1/2",
            "tile//000",
        ] {
            assert!(!is_tile(other), "{other}");
        }
    }
}
