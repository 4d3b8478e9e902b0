//! `audit verify`: a data folder, a copy of a log, another machine's log, an export, or a receipt.

use super::{export, receipt};
use crate::cli::output::{Output, bar};
use crate::cli::{CliError, runtime};
use crate::drivers::http::HttpEndpoint;
use crate::exchange_log::LogError;
use crate::exchange_log::checkpoint::LogVerifier;
use crate::exchange_log::cosignature::Policy;
use crate::exchange_log::reader::VKEY_FILE;
use crate::exchange_log::verify::{Against, LogFiles, LogFolder, Report, verify, verify_data};
use crate::identity::tls;
use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, Method, StatusCode};
use serde_json::json;
use std::path::{Path, PathBuf};
use tokio::runtime::Runtime;

/// Largest file of a log: a bundle of 256 entries of 64 kB.
const MAX_FILE: usize = 17 << 20;

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
    #[arg(long, value_name = "DIR", conflicts_with = "remote")]
    archive: Option<PathBuf>,
    /// Check the log of a gateway that runs, over its HTTPS port (`https://host:8443`), as an auditor.
    #[arg(long, value_name = "URL", group = "what", requires = "certificate", requires = "vkey")]
    remote: Option<String>,
    /// CA of the gateway (PEM), for --remote.
    #[arg(long, env = "NDXP_CA", default_value = "pki/ca.pem", value_name = "FILE")]
    ca: PathBuf,
    /// The auditor's certificate (PEM), for --remote.
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// Its key (PEM); the certificate's path with `.key` unless said.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Which witnesses must have cosigned (C2SP tlog-policy); that beside the log unless said.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// A checkpoint of this log that you kept: the log must still begin with its tree.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["receipt", "export"])]
    since: Option<PathBuf>,
    /// The log's key (`name+hash+key`), from somewhere that the log's operator cannot change.
    #[arg(long, value_name = "KEY")]
    vkey: Option<String>,
}

pub fn run(args: &VerifyArgs, data: impl Fn() -> Result<PathBuf, CliError>, output: Output) -> Result<(), CliError> {
    let given = args.vkey.as_deref().map(parse).transpose()?;
    let policy = args.policy.as_deref().map(read_policy).transpose()?;
    // The configuration is only asked where no key was given: a receipt is checked anywhere.
    let key = |folder: &dyn Fn() -> Result<PathBuf, CliError>| match &given {
        Some(key) => Ok(key.clone()),
        None => parse(&std::fs::read_to_string(folder()?.join(VKEY_FILE))?),
    };
    let own = || Ok(data()?.join("log"));
    if let Some(file) = &args.receipt {
        return receipt::verify(file, &key(&own)?, policy.as_ref(), output);
    }
    if let Some(file) = &args.export {
        return export::verify(file, &key(&own)?, output);
    }
    let older = |key: &LogVerifier| {
        let read = |file: &Path| {
            let checked = key.check(&std::fs::read_to_string(file)?);
            checked.map_err(|error| CliError::Failed(format!("not verified: {}: {error}", file.display())))
        };
        args.since.as_deref().map(read).transpose()
    };
    let progress = bar("verifying {bar:40} {pos}/{len} entries, {per_sec}")?;
    let told = |done, of| {
        progress.set_length(of);
        progress.set_position(done);
    };
    let archive = args.archive.as_deref();
    let key = match &args.log {
        Some(folder) => key(&|| Ok(folder.clone()))?,
        None => key(&own)?,
    };
    let older = older(&key)?;
    let against = Against { policy: policy.as_ref(), older: older.as_ref() };
    let report = match (&args.remote, &args.log) {
        (Some(url), _) => verify(&Remote::new(url, args)?, &key, against, told),
        (None, Some(folder)) => verify(&LogFolder::with(folder, archive), &key, against, told),
        (None, None) => verify_data(&data()?, archive, Some(&key), against, told),
    };
    progress.finish_and_clear();
    print(&report.map_err(|error| CliError::Failed(format!("not verified: {error}")))?, given.is_some(), output)
}

fn parse(vkey: &str) -> Result<LogVerifier, CliError> {
    LogVerifier::parse(vkey).map_err(|error| CliError::Usage(format!("--vkey: {error}")))
}

fn read_policy(file: &Path) -> Result<Policy, CliError> {
    let text = std::fs::read_to_string(file)?;
    Policy::parse(&text).map_err(|(line, reason)| CliError::Usage(format!("{}:{line}: {reason}", file.display())))
}

fn print(report: &Report, given: bool, output: Output) -> Result<(), CliError> {
    let value = json!({
        "verified": true, "origin": report.origin, "sealed": report.sealed, "pruned": report.pruned,
        "tail": report.tail, "witnesses": report.witnesses, "root": report.root,
    });
    output.result(&value, || {
        let whose =
            if given { "" } else { " (with the key in the log's own folder: give --vkey to check against yours)" };
        let pruned = match report.pruned {
            0 => String::new(),
            some => format!("; {some} of them pruned, and told of in the log"),
        };
        let witnesses = match report.witnesses.as_slice() {
            [] => String::new(),
            some => format!(", cosigned by {}", some.join(", ")),
        };
        format!(
            "verified: {} entries of {} under the checkpoint, root {}{witnesses}{pruned}; {} more in the journal{whose}",
            report.sealed, report.origin, report.root, report.tail
        )
    })
}

/// The log of another machine.
struct Remote {
    url: String,
    endpoint: HttpEndpoint,
    runtime: Runtime,
}

impl Remote {
    fn new(url: &str, args: &VerifyArgs) -> Result<Self, CliError> {
        let certificate = args.certificate.clone().unwrap_or_default();
        let key = args.key.clone().unwrap_or_else(|| certificate.with_extension("key"));
        let tls = tls::client_config(&args.ca, Some((&certificate, &key)), &[])
            .map_err(|error| CliError::Usage(error.to_string()))?;
        let url = url.trim_end_matches('/').to_owned();
        Ok(Remote { endpoint: HttpEndpoint::new(&url, tls, MAX_FILE), url, runtime: runtime()? })
    }
}

impl LogFiles for Remote {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, LogError> {
        let path = format!("/log/{name}");
        let asked = self.endpoint.send(Method::GET, &path, HeaderMap::new(), Bytes::new());
        let answer = self.runtime.block_on(asked);
        let failed = |reason: String| LogError::Io { path: self.path(name), reason };
        let answer = answer.map_err(|error| failed(error.to_string()))?;
        match answer.status {
            StatusCode::OK => Ok(Some(answer.body.to_vec())),
            StatusCode::NOT_FOUND => Ok(None),
            other => Err(failed(format!("the answer was {other}"))),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(&self.url).join("log").join(name)
    }
}
