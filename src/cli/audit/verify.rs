//! `audit verify`: a data folder, a copy of a log, another machine's log, an export, or a receipt.

use super::{export, receipt};
use crate::audit::folder::{self, Expected, FolderFault};
use crate::audit::index::{self, Checked, IndexDifference, LastVerification};
use crate::audit::remote_log::RemoteLogFiles;
use crate::audit::replay::Replay;
use crate::audit::service::api;
use crate::cli::CliError;
use crate::cli::output::{Output, bar, counted, duration, entries, timestamp};
use crate::cli::session::{self, ConnectionArgs, Session, SessionTarget};
use crate::exchange_log::checkpoint::LogVerifier;
use crate::exchange_log::cosignature::Policy;
use crate::exchange_log::file_events::FileEvent;
use crate::exchange_log::key as log_key;
use crate::exchange_log::reader::VKEY_FILE;
use crate::exchange_log::verify::{Against, LogFolder, Report, verify, verify_data};
use crate::identity::tls::{self, Revocation};
use crate::keyfile::Vault;
use crate::registry::{AdminEventKey, now};
use crate::server::registry_path;
use clap::Args;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Args)]
pub struct VerifyArgs {
    /// Check a receipt instead: its signature, its path and its entry, without the log.
    #[arg(long, value_name = "FILE", group = "what")]
    receipt: Option<PathBuf>,
    /// Check an export instead: each of its entries against the proofs beside it, without the log.
    #[arg(long, value_name = "FILE", group = "what")]
    export: Option<PathBuf>,
    /// Check a copy of a log: the folder with `checkpoint` and `tile`.
    #[arg(long, value_name = "DIR", group = "what")]
    log: Option<PathBuf>,
    /// Folder with the bundles that were pruned: they are checked, too.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["receipt", "export"])]
    archive: Option<PathBuf>,
    /// Check the registry, too: recompute clients, grants, staff, certificate names, keys, revocations and the tokens
    /// that are valid now from the log alone, and compare them with the registry's files.
    #[arg(long, conflicts_with_all = ["receipt", "export", "log"])]
    registry: bool,
    /// Check the search index, too: recompute it from the log and name each bundle where it differs.
    #[arg(long, conflicts_with_all = ["receipt", "export", "log"])]
    index: bool,
    /// The witnesses that must have cosigned (C2SP tlog-policy); the log's own policy by default.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// An older checkpoint of this log: the log must still begin with its tree.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["receipt", "export"])]
    since: Option<PathBuf>,
    /// How long entries may wait for a cosignature (s, m, h, d).
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration, conflicts_with_all = ["receipt", "export"])]
    max_lag: Duration,
    /// The log's key (`name+hash+key`), or a file with it, from somewhere that the log's operator cannot change.
    #[arg(long, value_name = "KEY|FILE")]
    vkey: Option<String>,
}

/// A folder's log or another machine's.
enum VerifiedLog {
    /// Over the HTTPS port, with the auditor's certificate.
    Remote(session::RemoteGateway, Option<String>),
    Folder(PathBuf),
}

/// Returns the log to verify if no copy is given: by a profile, at an address, or of the data folder.
fn whose(connection: &ConnectionArgs, data: Option<&Path>) -> Result<VerifiedLog, CliError> {
    if data.is_none()
        && let SessionTarget::Remote(remote) = connection.target()?
    {
        // --remote names the HTTPS port here, since the log's files are there; a profile knows both.
        let address = connection.named_remote().map(str::to_owned).or_else(|| remote.log.clone());
        return Ok(VerifiedLog::Remote(remote, address));
    }
    Ok(VerifiedLog::Folder(connection.data(data)?))
}

pub fn run(
    args: &VerifyArgs,
    connection: &ConnectionArgs,
    data: Option<&Path>,
    output: Output,
) -> Result<(), CliError> {
    let file = args.receipt.is_some() || args.export.is_some() || args.log.is_some();
    if file && connection.named_remote().is_some() {
        return Err(CliError::Usage("--remote and a file or folder mean different logs: give one of them".into()));
    }
    // The configuration and profiles are read only if no key is given: a receipt can be checked anywhere.
    let whose = if file && (args.vkey.is_some() || args.log.is_some()) { None } else { Some(whose(connection, data)?) };
    let known = match &whose {
        Some(VerifiedLog::Remote(remote, _)) => remote.vkey.as_deref(),
        _ => None,
    };
    let given = match (args.vkey.as_deref(), known) {
        (Some(given), _) => Some(given_key("--vkey", given)?),
        (None, known) => known.map(parse).transpose()?,
    };
    let policy = args.policy.as_deref().map(read_policy).transpose()?;
    let key = |folder: &dyn Fn() -> Result<PathBuf, CliError>| match &given {
        Some(key) => Ok(key.clone()),
        None => {
            let file = folder()?.join(VKEY_FILE);
            let unread = |error| {
                let file = file.display();
                CliError::Failed(format!(
                    "not verified: {file}: {error} (give the log's key: --vkey, from your own copy)"
                ))
            };
            parse(&std::fs::read_to_string(&file).map_err(unread)?)
        }
    };
    let own = || match &whose {
        Some(VerifiedLog::Folder(data)) => Ok(data.join("log")),
        _ => Err(CliError::Usage("give the log's key: --vkey, or keep it in the profile (profile add --vkey)".into())),
    };
    if let Some(file) = &args.receipt {
        return receipt::verify(file, &key(&own)?, policy.as_ref(), output);
    }
    if let Some(file) = &args.export {
        return export::verify(file, &key(&own)?, policy.as_ref(), output);
    }
    let older = |key: &LogVerifier| {
        let read = |file: &Path| {
            let checked = key.check(&read_text(file)?);
            checked.map_err(|error| CliError::Failed(format!("not verified: {}: {error}", file.display())))
        };
        args.since.as_deref().map(read).transpose()
    };
    let progress = bar("verifying {bar:40} {pos}/{len} entries, {per_sec}")?;
    let report = |done, of| {
        progress.set_length(of);
        progress.set_position(done);
    };
    let archive = args.archive.as_deref();
    let key = match &args.log {
        Some(folder) => key(&|| Ok(folder.clone()))?,
        None => key(&own)?,
    };
    let older = older(&key)?;
    let registry = match (&whose, args.registry) {
        (_, false) => None,
        (Some(VerifiedLog::Folder(data)), true) => Some(data.clone()),
        _ => {
            return Err(CliError::Usage(
                "--registry reads the registry's file: on the gateway's own machine, or in a copy".into(),
            ));
        }
    };
    let folder = match (&args.log, &whose) {
        (None, Some(VerifiedLog::Folder(data))) => Some(data.clone()),
        _ => None,
    };
    let index = args.index.then(|| whose.as_ref().map(IndexScope::of)).flatten();
    let against = Against { policy: policy.as_ref(), older: older.as_ref(), max_lag: Some(args.max_lag), chain: None };
    let report = match (&args.log, whose) {
        (Some(folder), _) => verify(&LogFolder::with(folder, archive), &key, against, report),
        (None, Some(VerifiedLog::Remote(_, _))) if archive.is_some() => {
            return Err(CliError::Usage("--archive goes with a log on this machine".into()));
        }
        (None, Some(VerifiedLog::Remote(remote, address))) => {
            let url = address.ok_or_else(|| {
                let needed = "audit verify reads the log over the gateway's HTTPS port: name it with --remote, or keep it in \
                              the profile (profile add --log)";
                CliError::Usage(needed.into())
            })?;
            verify(&remote_files(&url, &remote)?, &key, against, report)
        }
        (None, Some(VerifiedLog::Folder(data))) => {
            super::status::warn_of_folder(&data);
            let chain = log_key::chain(&data, &connection.vault(&data), &key)?;
            verify_data(&data, archive, Some(&key), Against { chain: chain.as_ref(), ..against }, report)
        }
        (None, None) => return Err(CliError::Usage("say what to verify".into())),
    };
    progress.finish_and_clear();
    let report = report.map_err(|error| CliError::Failed(format!("not verified: {error}")))?;
    let objects = registry.map(|data| compare(&data, &connection.vault(&data))).transpose()?;
    let indexed = index.map(|index| index.check(connection)).transpose()?;
    if let Some(data) = folder {
        check_folder(&data, connection, (&key, &report.admin_events))?;
    }
    print(&report, (objects, indexed), given.is_some(), output)
}

/// Checks that every file in the folder beside the log matches the log, the configuration or a key.
fn check_folder(data: &Path, connection: &ConnectionArgs, log: (&LogVerifier, &[FileEvent])) -> Result<(), CliError> {
    let config = connection.config_of(data);
    let policy = config.as_ref().map(|config| config.log.policy_text.as_deref());
    let hsm = config.as_ref().is_some_and(|config| config.hsm.is_some());
    let revocation = config.as_ref().is_some_and(|config| config.tls.revocation != Revocation::Unchecked);
    let expected = Expected { policy, hsm, revocation };
    let pause = || std::thread::sleep(Duration::from_secs(1));
    let found = folder::check(data, &connection.vault(data), &expected, log, pause)?;
    let (warnings, faults): (Vec<FolderFault>, Vec<FolderFault>) =
        found.into_iter().partition(|fault| fault.is_warning);
    warnings.iter().for_each(|fault| anstream::eprintln!("WARNING: {fault}"));
    let Some(first) = faults.first() else { return Ok(()) };
    faults.iter().skip(1).take(MAX_PRINTED).for_each(|fault| anstream::eprintln!("{fault}"));
    let more = if faults.len() > 1 { format!(" ({} more above)", faults.len() - 1) } else { String::new() };
    let named = FolderFault { file: data.join(&first.file), ..first.clone() };
    Err(CliError::Failed(format!("the log is whole, but not the folder: {named}{more}")))
}

/// Maximum number of differences of an index, and of faults of a folder, that are printed.
const MAX_PRINTED: usize = 50;

/// The index that is compared with its log.
enum IndexScope {
    /// By the gateway itself, for an auditor.
    Remote(session::RemoteGateway, bool),
    Folder(PathBuf),
}

impl IndexScope {
    fn of(whose: &VerifiedLog) -> Self {
        match whose {
            VerifiedLog::Remote(remote, _) => IndexScope::Remote(remote.clone(), remote.log.is_some()),
            VerifiedLog::Folder(data) => IndexScope::Folder(data.clone()),
        }
    }

    /// Compares it, and returns how many entries are in it.
    fn check(&self, connection: &ConnectionArgs) -> Result<u64, CliError> {
        let progress = bar("recomputing the index {bar:40} {pos}/{len} entries, {per_sec}")?;
        let report = |done, of| {
            progress.set_length(of);
            progress.set_position(done);
        };
        let checked = match self {
            IndexScope::Folder(data) => {
                let vault = connection.vault(data);
                let checked = index::check(data, &vault, |done, of| {
                    report(done, of);
                    true
                })?;
                let checked = checked.ok_or_else(|| CliError::Failed("the log is whole, but there is no search index (log.index): a gateway makes one, or audit index --rebuild".into()))?;
                LastVerification { time: now(), entries: checked.entries, differences: checked.found }
                    .keep(data, &vault)?;
                checked
            }
            IndexScope::Remote(_, false) => {
                let needed = "--index asks the gateway itself, at its gRPC port: use a profile that knows both ports (profile add --log)";
                return Err(CliError::Usage(needed.into()));
            }
            IndexScope::Remote(remote, true) => from_afar(&Session::remote(remote)?, &report)?,
        };
        progress.finish_and_clear();
        let Some(first) = checked.differences.first() else { return Ok(checked.entries) };
        for difference in checked.differences.iter().skip(1).take(MAX_PRINTED) {
            anstream::eprintln!("{difference}");
        }
        let more = if checked.found > 1 { format!(" ({} more above)", checked.found - 1) } else { String::new() };
        let progress = "audit index --rebuild rebuilds it; searches repair the faults that they find";
        Err(CliError::Failed(format!(
            "the log is whole, but the search index is not what it says: {first}{more}; {progress}"
        )))
    }
}

/// Requests the comparison that a gateway makes of its own index.
fn from_afar(session: &Session, report: &dyn Fn(u64, u64)) -> Result<Checked, CliError> {
    let last = session.block_on(async {
        let mut parts = session.audit().verify_index(api::VerifyIndexRequest {}).await?.into_inner();
        while let Some(part) = parts.message().await? {
            report(part.done, part.of);
            if part.complete {
                return Ok(Some(part));
            }
        }
        Ok(None)
    })?;
    let last = last.ok_or_else(|| CliError::Failed("not all of the index was compared".into()))?;
    let difference = |one: api::IndexDifference| IndexDifference { first: one.first, last: one.last, what: one.what };
    let differences = last.differences.into_iter().map(difference).collect();
    Ok(Checked { entries: last.done, sealed: last.of, differences, found: last.found })
}

/// Recomputes the registry from a folder's log and compares it with its file; returns the number of objects.
fn compare(data: &Path, vault: &Vault) -> Result<usize, CliError> {
    let failed = |error: &dyn std::fmt::Display| {
        CliError::Failed(format!("the log is whole, but the registry is not verified: {error}"))
    };
    let progress = bar("recomputing the registry {bar:40} {pos}/{len} entries, {per_sec}")?;
    let key = AdminEventKey::read(&registry_path(data), vault).map_err(|error| failed(&error))?;
    let mut replay = key.map(Replay::with_key).unwrap_or_default().with_issued_tokens();
    let advanced = replay.advance(data, |done, of| {
        progress.set_length(of);
        progress.set_position(done);
        true
    });
    progress.finish_and_clear();
    advanced.map_err(|error| failed(&error))?;
    let pause = || std::thread::sleep(Duration::from_secs(1));
    let found = replay.confirmed_differences(data, &registry_path(data), pause).map_err(|error| failed(&error))?;
    match found.first() {
        None => Ok(replay.objects()),
        Some(first) => {
            let more = if found.len() > 1 { format!(" ({} more)", found.len() - 1) } else { String::new() };
            Err(CliError::Failed(format!("the log is whole, but the registry is not what it says: {first}{more}")))
        }
    }
}

fn parse(vkey: &str) -> Result<LogVerifier, CliError> {
    LogVerifier::parse(vkey).map_err(|error| CliError::Usage(format!("--vkey: {error}")))
}

/// Reads a key as an option gives it: text is told from a file by its `+`, which separates the key's three parts.
pub(super) fn given_key(option: &str, given: &str) -> Result<LogVerifier, CliError> {
    let text = match std::fs::read_to_string(given) {
        Ok(text) => text,
        Err(error) if !given.contains('+') => return Err(CliError::Usage(format!("{option} {given}: {error}"))),
        Err(_) => given.to_owned(),
    };
    LogVerifier::parse(text.trim()).map_err(|error| CliError::Usage(format!("{option}: {error}")))
}

/// Reads a file that the command line names: a wrong name is wrong usage, not a log that was altered.
pub(super) fn read_text(file: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(file).map_err(|error| CliError::Usage(format!("{}: {error}", file.display())))
}

pub(super) fn read_policy(file: &Path) -> Result<Policy, CliError> {
    let text = read_text(file)?;
    Policy::parse(&text).map_err(|(line, reason)| CliError::Usage(format!("{}:{line}: {reason}", file.display())))
}

pub(super) fn print(
    report: &Report,
    (objects, indexed): (Option<usize>, Option<u64>),
    given: bool,
    output: Output,
) -> Result<(), CliError> {
    let value = json!({
        "verified": true, "origin": report.origin, "sealed": report.sealed, "pruned": report.pruned,
        "tail": report.tail, "journal_key": report.is_chain_checked, "root": report.root, "registry_objects": objects, "indexed": indexed,
        "cosigned": report.cosigned.as_ref().map(|cosigned| json!({
            "size": cosigned.size, "root": cosigned.root, "witnesses": cosigned.witnesses,
            "time": timestamp(i64::try_from(cosigned.time).unwrap_or(i64::MAX)),
        })),
    });
    output.result(&value, || {
        let whose =
            if given { "" } else { " (with the key in the log's own folder: give --vkey to check against yours)" };
        let registry = match objects {
            None => String::new(),
            Some(objects) => format!("the registry is what the log says: {}\n", counted(objects as u64, "object", "objects")),
        };
        let index = match indexed {
            None => String::new(),
            Some(indexed) => format!("the search index is what the log says: {}\n", entries(indexed)),
        };
        let unkeyed = if report.tail == 0 || report.is_chain_checked {
            ""
        } else {
            " (checked without the log's key: anyone who can write there could have forged them)"
        };
        let pruned = match report.pruned {
            0 => String::new(),
            some => format!("; {some} of them pruned, as recorded in the log"),
        };
        let cosigned = match &report.cosigned {
            None => String::new(),
            Some(cosigned) => format!(
                "\ncosigned by {}: {}, root {}; {} more signed by the log alone",
                cosigned.witnesses.join(", "),
                entries(cosigned.size),
                cosigned.root,
                report.sealed - cosigned.size
            ),
        };
        format!(
            "{registry}{index}verified: {} of {} under the checkpoint, root {}{pruned}; {} more in the journal{unkeyed}{whose}{cosigned}",
            entries(report.sealed), report.origin, report.root, report.tail
        )
    })
}

/// The log of another machine, read with an auditor's certificate.
fn remote_files(url: &str, remote: &session::RemoteGateway) -> Result<RemoteLogFiles, CliError> {
    let files = &remote.files;
    let tls = tls::client_config(&files.ca, Some((&files.certificate, &files.key)), &[])
        .map_err(|error| CliError::Usage(error.to_string()))?;
    RemoteLogFiles::new(url, tls).map_err(|error| CliError::Failed(error.to_string()))
}
