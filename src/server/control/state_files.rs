//! Files of the gateway's own that no other entry covers: which revocation lists are in force, fetched lists, and the
//! marks of pseudonym keys. The log records what each holds (`log.file`), so that an older file that is put back is
//! noticed: at a start, before anything is written over it, and by `audit verify`.

use crate::audit::logged_files::{FileVersion, LoggedFiles, object};
use crate::exchange_log::file_events::FILE_EVENT;
use crate::exchange_log::{Entry, Kind, pseudonym};
use crate::identity::trust::Trust;
use crate::server::shared::Shared;
use std::path::Path;
use std::sync::PoisonError;

/// The record of the revocation lists that were in force, in the data folder.
const REVOCATION: &str = "state/revocation.json";

/// Takes what the first read of the log found; from then on the entries that this process writes are added.
pub(in crate::server) fn begin(shared: &Shared, files: &LoggedFiles) {
    let mut known = shared.state_files.lock().unwrap_or_else(PoisonError::into_inner);
    known.get_or_insert_with(|| files.clone());
}

/// Compares the record of revocation lists with the log, once. Then it records what is in force, and logs every file
/// with new content. It does nothing before the log was read. Returns the faults.
pub(in crate::server) fn keep(shared: &Shared, trust: &Trust) -> Vec<String> {
    let mut known = shared.state_files.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(known) = known.as_mut() else { return Vec::new() };
    trust.compare_record(|digest| known.version(REVOCATION, digest) == FileVersion::Older);
    let mut faults = Vec::new();
    match trust.remember() {
        Ok(files) => {
            for (path, digest) in files {
                faults
                    .extend(path.strip_prefix(&shared.data).ok().and_then(|file| state(shared, known, file, &digest)));
            }
        }
        Err(error) => {
            faults.push(format!("which revocation lists are in force cannot be noted for the next start: {error}"));
        }
    }
    let folder = pseudonym::folder(&shared.data);
    for (period, digest) in pseudonym::marks(&folder).unwrap_or_default() {
        let file = Path::new("keys/pseudonyms").join(format!("{period}.made"));
        // A mark that differs from the log's may be recorded only by the process that made the key: any other was put
        // there.
        let is_new = file.to_str().is_some_and(|file| known.last(file).is_none());
        if is_new || shared.pseudonyms.made(&period) {
            faults.extend(state(shared, known, &file, &digest));
        }
    }
    faults
}

/// Logs a file's content if the log's last record differs; returns the fault, if any.
fn state(shared: &Shared, known: &mut LoggedFiles, file: &Path, digest: &str) -> Option<String> {
    let file = file.to_str()?;
    if known.last(file) == Some(digest) {
        return None;
    }
    let object = object(file, digest);
    let (actor, event) = ("gateway".to_owned(), FILE_EVENT.to_owned());
    let entry = Entry { actor, event, object: object.clone(), ..Entry::begin(Kind::Admin, &shared.node) };
    match shared.log.append_detached(&entry) {
        Ok(()) => known.take(u64::MAX, FILE_EVENT, &object),
        Err(error) => return Some(format!("the exchange log does not tell yet what {file} holds: {error}")),
    }
    None
}
