//! Fetched revocation lists, cached in files, one for each issuer.

use super::files::CrlSources;
use super::list::{List, split};
use std::path::{Path, PathBuf};

/// Prefix and suffix of the names of cached files.
pub(super) const KEPT: (&str, &str) = ("fetched", ".crl");

/// Reads a cached list. A list that can no longer be used is ignored: it must not prevent a start.
pub(super) fn read_kept(file: &Path) -> Option<List> {
    let bytes = std::fs::read(file).ok()?;
    let with_digest = |mut list: List| {
        (list.file, list.cached_digest) = (file.to_owned(), Some(crate::hex::sha256(&bytes)));
        list
    };
    let list = split(&bytes).map_err(|fault| fault.to_string()).and_then(|lists| match lists.as_slice() {
        [one] => List::parse(one).map(with_digest).map_err(|fault| fault.to_string()),
        _ => Err("is not one list".into()),
    });
    list.inspect_err(|reason| tracing::warn!(file = %file.display(), reason, "a cached revocation list is ignored"))
        .ok()
}

/// Returns the cached lists.
pub fn cached(sources: &CrlSources) -> Vec<List> {
    if sources.urls.is_empty() {
        return Vec::new();
    }
    let Ok(entries) = std::fs::read_dir(&sources.cached) else { return Vec::new() };
    let is_list = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(KEPT.0) && name.ends_with(KEPT.1)
    };
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_list).collect();
    files.sort();
    files.iter().filter_map(|file| read_kept(file)).collect()
}
