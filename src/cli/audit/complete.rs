//! The checkpoint up to which a response is complete, for people and scripts.

use crate::audit::service::api;
use crate::cli::CliError;
use crate::cli::output::{Output, counted, entries, time, timestamp};
use crate::cli::session::Session;
use crate::exchange_log::checkpoint::Checkpoint;
use crate::exchange_log::proof::is_consistent;
use crate::exchange_log::tree::Hash;
use crate::hex::hex;
use serde_json::{Value, json};

/// A listing, and the checkpoint up to which it is complete.
pub struct CompleteListing<T> {
    /// Its records.
    pub found: Vec<T>,
    /// `None` for a gateway of an earlier version, which does not send it.
    pub complete: Option<api::Complete>,
}

pub fn to_json(complete: Option<&api::Complete>) -> Value {
    complete.map_or(Value::Null, |complete| {
        json!({
            "size": complete.size, "root": hex(&complete.root), "newest": timestamp(complete.newest_us.div_euclid(1_000_000)), "unsealed": complete.unsealed,
            "pruned": complete.pruned, "from_log": complete.from_log,
        })
    })
}

/// When the newest entry under the checkpoint was made; empty where there is none.
pub fn newest(complete: &api::Complete) -> String {
    if complete.newest_us == 0 { String::new() } else { time(complete.newest_us.div_euclid(1_000_000)) }
}

/// Prints it below a table.
pub fn print(complete: Option<&api::Complete>, output: Output) {
    let (Some(complete), Output::Human) = (complete, output) else { return };
    let newest = newest(complete);
    let newest = if newest.is_empty() { String::new() } else { format!(", the newest of {newest}") };
    let pruned = match complete.pruned {
        0 => String::new(),
        some => format!("; {} archived and pruned, and not in it", counted(some, "entry is", "entries are")),
    };
    anstream::println!(
        "complete up to the checkpoint of {} (root {}{newest}) and {} behind it{pruned}{}",
        entries(complete.size),
        hex(&complete.root),
        complete.unsealed,
        if complete.from_log { "; read from the log itself" } else { "" }
    );
}

/// Checks that the tree up to which a response is complete, and that of a signed checkpoint, belong to one log: the
/// smaller is the beginning of the larger.
pub fn check(session: &Session, complete: &api::Complete, signed: &Checkpoint) -> Result<(), CliError> {
    let failed =
        || CliError::Failed("the response is not from the log with the signed checkpoint: run audit verify".into());
    let own: (u64, Hash) = (complete.size, complete.root.as_slice().try_into().map_err(|_| failed())?);
    let signed = (signed.size, signed.root);
    let (old, new) = if own.0 <= signed.0 { (own, signed) } else { (signed, own) };
    let path = if old.0 == 0 || old.0 == new.0 {
        Vec::new()
    } else {
        let request = api::ProveConsistencyRequest { old_size: old.0, new_size: new.0 };
        let path = session.read(session.audit().prove_consistency(request))?.path;
        path.into_iter().map(|hash| hash.try_into()).collect::<Result<_, _>>().map_err(|_| failed())?
    };
    if is_consistent(old, new, &path) { Ok(()) } else { Err(failed()) }
}
