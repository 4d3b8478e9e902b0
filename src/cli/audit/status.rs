//! `audit status` and `audit acknowledge`; and the alarm that every `audit` command shows first.

use crate::audit::service::api;
use crate::cli::CliError;
use crate::cli::output::{Output, counted, entries, time, timestamp};
use crate::cli::session::Session;
use crate::exchange_log::LogPaths;
use crate::exchange_log::tiles::checkpoint_path;
use crate::witness::alarm;
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use tonic::{Code, Status};

async fn status(session: &Session) -> Result<Option<api::GetStatusResponse>, Status> {
    match session.audit().get_status(api::GetStatusRequest {}).await {
        Ok(got) => Ok(Some(got.into_inner())),
        // A gateway of a version without a status.
        Err(status) if status.code() == Code::Unimplemented => Ok(None),
        Err(status) => Err(status),
    }
}

fn warn(text: &str) {
    anstream::eprintln!("WARNING: {text}\n(audit status tells the alarm's id, audit acknowledge ends it)");
}

/// Shows the alarms before a command's own output.
pub fn warn_of_alarms(session: &Session) -> Result<(), CliError> {
    let status = session.block_on(status(session))?;
    status.iter().flat_map(|status| &status.alarms).for_each(|alarm| warn(&alarm.text));
    Ok(())
}

/// The same for commands that work on a data folder itself.
pub fn warn_of_folder(data: &Path) {
    alarm::read(data).iter().for_each(|alarm| warn(&alarm.to_string()));
}

/// Longer than the time between signing a checkpoint and publishing it.
const BETWEEN: Duration = Duration::from_millis(300);

/// Warns if the published checkpoint of a folder is not the last signed one, or one of the two is missing: then the log
/// has fewer entries than before. A crash between the two has the same effect, until the gateway has started again.
pub fn warn_of_checkpoint(data: &Path) {
    let paths = LogPaths::new(data);
    let size = |file: &Path| std::fs::read_to_string(file).ok()?.lines().nth(1)?.parse::<u64>().ok();
    let read = || (size(&checkpoint_path(&paths.tiles)), size(&paths.signed));
    let (mut published, mut signed) = read();
    if published != signed {
        // A running gateway may be between the two.
        std::thread::sleep(BETWEEN);
        (published, signed) = read();
    }
    let what =
        |size: Option<u64>| size.map_or_else(|| "is missing".to_owned(), |size| format!("is of {}", entries(size)));
    if published != signed {
        anstream::eprintln!(
            "WARNING: {} {}, {} {}: audit verify tells what that means",
            checkpoint_path(&paths.tiles).display(),
            what(published),
            paths.signed.display(),
            what(signed)
        );
    }
}

pub fn show(session: &Session, output: Output) -> Result<(), CliError> {
    let status = session.block_on(status(session))?;
    let status = status.ok_or_else(|| CliError::Failed("this gateway is too old to tell its status".into()))?;
    let alarm = |one: &api::Alarm| json!({ "id": one.id, "text": one.text, "evidence": one.evidence });
    let value = json!({
        "entries": status.entries, "sealed": status.sealed,
        "cosigned": status.needs_witnesses.then_some(status.cosigned),
        "index": status.has_index.then(|| json!({
            "indexed": status.indexed, "behind": status.sealed.saturating_sub(status.indexed),
            "rebuilt": status.index_rebuilt, "verified": timestamp(status.index_verified),
            "verified_entries": status.index_verified_entries, "differences": status.index_differences,
        })),
        "alarms": status.alarms.iter().map(alarm).collect::<Vec<_>>(), "open_findings": status.open_findings,
    });
    output.result(&value, || {
        let cosigned = if status.needs_witnesses {
            format!("{} of them cosigned by enough witnesses", status.cosigned)
        } else {
            "no witnesses are required".to_owned()
        };
        let mut lines =
            vec![format!("{}, {} under the signed checkpoint, {cosigned}", entries(status.entries), status.sealed)];
        lines.push(index(&status));
        if status.alarms.is_empty() {
            lines.push("there is no alarm".into());
        }
        for api::Alarm { id, text, evidence } in &status.alarms {
            lines.push(format!("{id}: {text}"));
            if !evidence.is_empty() {
                lines.push(format!("evidence:\n{evidence}"));
            }
        }
        lines.join("\n")
    })
}

/// Returns when the index was last verified; `None`: never.
fn verified(status: &api::GetStatusResponse) -> Option<String> {
    (status.index_verified != 0).then(|| time(status.index_verified))
}

fn index(status: &api::GetStatusResponse) -> String {
    if !status.has_index {
        return "there is no search index: searches read the log itself".to_owned();
    }
    let behind = status.sealed.saturating_sub(status.indexed);
    let verified = match verified(status) {
        None => "never verified (audit verify --index)".to_owned(),
        Some(time) => format!(
            "verified at {time}: {} in {}",
            counted(status.index_differences, "difference", "differences"),
            entries(status.index_verified_entries)
        ),
    };
    format!(
        "search index: {}, {behind} behind the checkpoint (it takes whole bundles of 256; searches read the rest from the log); \
         {verified}",
        entries(status.indexed)
    )
}

pub fn acknowledge(session: &Session, id: String, reason: String, output: Output) -> Result<(), CliError> {
    let request = api::AcknowledgeAlarmRequest { id: id.clone(), reason };
    session.change(async { session.audit().acknowledge_alarm(request).await })?;
    output.result(&json!({ "acknowledged": id }), || format!("acknowledged: {id}"))
}
