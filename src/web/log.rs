//! The exchange log over HTTPS, for auditors and the gateways of other sites: checkpoint, hash tiles and entry bundles in the
//! layout of C2SP tlog-tiles, below `/log/`.

use super::oauth::CERTIFICATE_CHALLENGE;
use super::{Web, WebRequest, WebResponse, error};
use crate::access::reads::limits;
use crate::access::staff::RoleRule;
use crate::exchange_log::LogPaths;
use crate::exchange_log::checkpoint::Checkpoint;
use crate::exchange_log::disk::LocalDisk;
use crate::exchange_log::pruned::PRUNED_FILE;
use crate::exchange_log::reader::published_file;
use crate::exchange_log::tiles::{Tile, checkpoint_path, parse_name};
use crate::identity::principal::Principal;
use crate::registry::Role;
use crate::work::WorkLimits;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use std::path::Path;

/// Limits of concurrent reads of each auditor and site: as many requests as a connection carries, of files of some kilobytes (16 MB at
/// most).
pub(super) const READS: WorkLimits = limits(4, 256, 64, 2_000, 4_000);
/// The roles that may read them.
const READ: RoleRule = RoleRule { method: "log", event: "log.read", roles: &[Role::Auditor] };
/// Tiles and bundles never change.
const FOR_EVER: &str = "private, max-age=31536000, immutable";

/// A file of the log that may be requested.
#[derive(Debug, PartialEq, Eq)]
enum LogFile {
    Checkpoint,
    Pruned,
    Tile(Tile),
}

impl Web {
    /// A file of the log.
    pub(super) async fn log_file(&self, request: &WebRequest) -> WebResponse {
        let denied = || error(StatusCode::FORBIDDEN, "access_denied");
        let missing = || error(StatusCode::NOT_FOUND, "not_found");
        let Some(peer) = &request.peer else {
            let mut answer = error(StatusCode::UNAUTHORIZED, "no_certificate");
            let challenge = HeaderValue::from_static(CERTIFICATE_CHALLENGE);
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            return answer;
        };
        let site = self.config.log.sites.identify(peer, &self.registry.load()).map(|site| format!("site:{site}"));
        let reader = match site {
            Some(site) => site,
            None => match self.door.admit(&Principal::Certificate(peer.clone()), &READ).await {
                Ok(staff) => staff.id().to_owned(),
                Err(_) => return denied(),
            },
        };
        let Some(file) = LogFile::parse(request.path.strip_prefix("/log/").unwrap_or("")) else { return missing() };
        let Ok(permit) = self.reads.begin(&reader) else { return busy() };
        let root = LogPaths::new(&self.config.data).tiles;
        let (kind, cache) = match file {
            LogFile::Checkpoint | LogFile::Pruned => ("text/plain; charset=utf-8", "no-cache"),
            LogFile::Tile(_) => ("application/octet-stream", FOR_EVER),
        };
        let bytes = permit.run(move || file.read(&root)).await.flatten();
        let Some(bytes) = bytes else { return missing() };
        let mut answer = Response::new(Full::new(Bytes::from(bytes)));
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
        answer
    }
}

/// Too many reads are in flight, or start too fast.
fn busy() -> WebResponse {
    let mut answer = error(StatusCode::TOO_MANY_REQUESTS, "temporarily_unavailable");
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

impl LogFile {
    /// Returns its bytes. Entries that are not under the checkpoint are not served, and a partial tile is cut out of
    /// what the log has now: it is available for as long as its reader needs, and no other file is ever returned in its
    /// place.
    fn read(self, root: &Path) -> Option<Vec<u8>> {
        let plain = |name: &str| std::fs::read(root.join(name)).ok();
        match self {
            LogFile::Checkpoint => published_file(&LocalDisk, root).ok().and_then(plain),
            LogFile::Pruned => plain(PRUNED_FILE),
            LogFile::Tile(tile) => {
                let signed = std::fs::read_to_string(checkpoint_path(root)).ok()?;
                let (text, _) = signed.split_once("\n\n")?;
                let size = Checkpoint::parse(&format!("{text}\n")).ok()?.size;
                tile.read_under(&LocalDisk, root, size).ok()?
            }
        }
    }

    /// `tile/<level or entries>/<index>[.p/<width>]` and two names, nothing else: no other file can be reached.
    fn parse(name: &str) -> Option<Self> {
        match name {
            "checkpoint" => Some(LogFile::Checkpoint),
            PRUNED_FILE => Some(LogFile::Pruned),
            _ => parse_name(name).map(LogFile::Tile),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tiles_are_reached() {
        for tile in ["tile/0/000", "tile/entries/x001/x234/067", "tile/1/000.p/17", "tile/entries/000.p/255"] {
            assert!(LogFile::parse(tile).is_some(), "{tile}");
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
            "tile/8/000",
            "tile/0/000.p/256",
            "tile/0/000.p/017",
            "tile/0/x000/001",
            "tile/0/001/x000",
        ] {
            assert_eq!(LogFile::parse(other), None, "{other}");
        }
    }
}
