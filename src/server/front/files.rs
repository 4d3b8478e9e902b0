//! Open files: a connection is one, and the system's usual soft limit (1,024) is for programs that use `select`.

use crate::config::Listen;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of open files to what the system allows, and warns if that is too low for the connections that may
/// come.
pub(in crate::server) fn allow_connections(listen: &Listen) {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current < limit.maximum.or(Some(u64::MAX))
        && let Err(error) = setrlimit(Resource::Nofile, wanted)
    {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    let needed = listen.open_files();
    if let Some(files) = getrlimit(Resource::Nofile).current.filter(|files| *files < needed) {
        tracing::warn!(
            files,
            needed,
            "not all connections of listen.max_connections will find a file: allow more open files (LimitNOFILE in the unit), \
             or fewer connections"
        );
    }
}
