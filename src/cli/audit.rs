//! `audit`: search, show and verify the exchange log, in its files, whether a gateway runs or not.

use super::output::{Output, print_json};
use super::{CliError, ConfigFile};
use crate::exchange_log::checkpoint::LogVerifier;
use crate::exchange_log::pseudonym::{PersonKind, Pseudonyms};
use crate::exchange_log::reader::{Found, LogReader, VKEY_FILE};
use crate::exchange_log::receipt::Receipt;
use crate::exchange_log::{Entry, Kind, entry, verify};
use crate::hex::hex;
use crate::server::pseudonym_folder;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(Args)]
pub struct AuditArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// The data folder, in place of the configuration's.
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<PathBuf>,
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Subcommand)]
enum AuditCommand {
    /// Find entries, newest first.
    Search(Box<Filter>),
    /// Show every entry of one exchange, whole.
    Show {
        /// Its id, or an entry's index.
        exchange: String,
    },
    /// Recompute every hash of the log from its entries, and check the signed checkpoint.
    Verify {
        /// Check a receipt instead: its signature, its path and its entry, without the log.
        #[arg(long, value_name = "FILE")]
        receipt: Option<PathBuf>,
        /// The log's key (`name+hash+key`), from somewhere that the log's operator cannot change.
        #[arg(long, value_name = "KEY")]
        vkey: Option<String>,
    },
    /// Make an entry's receipt: with it, whoever has the log's key can check offline that the entry is in the log.
    Prove {
        /// An exchange's id (its last entry is meant), or an entry's index.
        exchange: String,
        /// File for the receipt; printed unless given.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

#[derive(Args)]
struct Filter {
    /// By client.
    #[arg(long)]
    client: Option<String>,
    /// By agency code, those below it included.
    #[arg(long)]
    agency: Option<String>,
    /// By source.
    #[arg(long)]
    source: Option<String>,
    /// By operation: a part of its name.
    #[arg(long)]
    operation: Option<String>,
    /// By reason (`SCOPE_NOT_GRANTED`; `OK` for what succeeded).
    #[arg(long)]
    reason: Option<String>,
    /// By purpose or dossier number.
    #[arg(long)]
    purpose: Option<String>,
    /// By the person or enterprise that it was about: their id is turned into its pseudonyms.
    #[arg(long, value_name = "ID")]
    subject: Option<String>,
    /// By the official who asked.
    #[arg(long, value_name = "ID")]
    official: Option<String>,
    /// From this time on (`2026-11-25`, `2026-11-25T08:00`; Ho Chi Minh City).
    #[arg(long, value_parser = local_time)]
    from: Option<i64>,
    /// Until this time.
    #[arg(long, value_parser = local_time)]
    to: Option<i64>,
    /// Most entries.
    #[arg(long, default_value_t = 50)]
    limit: usize,
}

/// A local time as Unix microseconds.
fn local_time(text: &str) -> Result<i64, String> {
    let parsed = text
        .parse::<jiff::civil::DateTime>()
        .or_else(|_| text.parse::<jiff::civil::Date>().map(|date| date.at(0, 0, 0, 0)));
    let local = parsed.map_err(|_| format!("{text:?} is no time: write 2026-11-25 or 2026-11-25T08:00"))?;
    let time = crate::contract::map::date::HO_CHI_MINH.to_timestamp(local).map_err(|error| error.to_string())?;
    Ok(time.as_microsecond())
}

pub fn run(args: AuditArgs, output: Output) -> Result<(), CliError> {
    if let AuditCommand::Verify { receipt: Some(receipt), vkey } = &args.command {
        let vkey = match vkey {
            Some(vkey) => vkey.clone(),
            None => std::fs::read_to_string(data_folder(&args)?.join("log").join(VKEY_FILE))?,
        };
        return verify_receipt(receipt, &vkey, output);
    }
    let data = data_folder(&args)?;
    match args.command {
        AuditCommand::Search(filter) => {
            let pseudonyms = Pseudonyms::open(&pseudonym_folder(&data))?;
            let found = filter.search(&LogReader::open(&data)?, &pseudonyms)?;
            match output {
                Output::Json => found.iter().try_for_each(|found| {
                    anstream::println!("{}", to_json(found));
                    Ok(())
                }),
                Output::Human => print_table(&found, output),
            }
        }
        AuditCommand::Show { exchange } => show(&LogReader::open(&data)?, &exchange),
        AuditCommand::Prove { exchange, out } => prove(&data, &exchange, out.as_deref(), output),
        AuditCommand::Verify { vkey, .. } => run_verify(&data, vkey.as_deref(), output),
    }
}

fn data_folder(args: &AuditArgs) -> Result<PathBuf, CliError> {
    match &args.data {
        Some(data) => Ok(data.clone()),
        None => Ok(args.config.load()?.data),
    }
}

/// Longest wait until a new entry is sealed: a checkpoint comes at least every second.
const SEALED_WITHIN: Duration = Duration::from_secs(5);

fn prove(data: &Path, exchange: &str, out: Option<&Path>, output: Output) -> Result<(), CliError> {
    let began = Instant::now();
    let receipt = loop {
        let reader = LogReader::open(data)?;
        let index = match exchange.parse::<u64>() {
            Ok(index) => Some(index),
            Err(_) => find_last(&reader, exchange)?,
        };
        let index = index.filter(|index| *index < reader.size());
        let index = index.ok_or_else(|| CliError::Failed(format!("the log has no exchange {exchange:?}")))?;
        match Receipt::make(&reader, index)? {
            Some(receipt) => break receipt,
            None if began.elapsed() < SEALED_WITHIN => std::thread::sleep(Duration::from_millis(200)),
            None => {
                return Err(CliError::Failed(
                    "the entry is not under a checkpoint yet: is the gateway running?".into(),
                ));
            }
        }
    };
    match out {
        Some(file) => {
            std::fs::write(file, receipt.to_text())?;
            let value = json!({ "index": receipt.index, "file": file });
            output.result(&value, || format!("receipt of entry {} in {}", receipt.index, file.display()))
        }
        None => {
            anstream::print!("{}", receipt.to_text());
            Ok(())
        }
    }
}

fn find_last(reader: &LogReader, exchange: &str) -> Result<Option<u64>, CliError> {
    let mut found = None;
    reader.newest_first(|one| {
        if one.entry.id_text() == exchange {
            found = Some(one.index);
        }
        found.is_none()
    })?;
    Ok(found)
}

fn verify_receipt(file: &Path, vkey: &str, output: Output) -> Result<(), CliError> {
    let failed = |reason: String| CliError::Failed(format!("not verified: {}: {reason}", file.display()));
    let verifier = LogVerifier::parse(vkey).map_err(|error| CliError::Usage(format!("--vkey: {error}")))?;
    let receipt = Receipt::parse(&std::fs::read_to_string(file)?).map_err(|error| failed(error.to_string()))?;
    let (entry, checkpoint) = receipt.verify(&verifier).map_err(|error| failed(error.to_string()))?;
    let entry = to_json(&Found { index: receipt.index, entry });
    let value = json!({ "verified": true, "origin": checkpoint.origin, "size": checkpoint.size, "entry": entry });
    let head = format!("verified: entry {} of {} entries of {}", receipt.index, checkpoint.size, checkpoint.origin);
    output.result(&value, || format!("{head}\n{entry:#}"))
}

impl Filter {
    fn search(&self, reader: &LogReader, pseudonyms: &Pseudonyms) -> Result<Vec<Found>, CliError> {
        let keys = pseudonyms.all()?;
        let of = |kind: PersonKind, id: &Option<String>| -> Option<Vec<entry::Pseudonym>> {
            id.as_ref().map(|id| keys.iter().map(|keys| keys.pseudonym(kind, id)).collect())
        };
        let subject = of(PersonKind::Subject, &self.subject);
        let official = of(PersonKind::Official, &self.official);
        let mut found = Vec::new();
        reader.newest_first(|one| {
            // Entries stand in the order of their ends, so one much older than `from` ends the search.
            if self.from.is_some_and(|from| one.entry.time_us < from - 86_400_000_000) {
                return false;
            }
            let people = subject.as_ref().is_none_or(|ids| one.entry.subjects.iter().any(|one| ids.contains(one)))
                && official.as_ref().is_none_or(|ids| one.entry.official.iter().any(|one| ids.contains(one)));
            if people && self.fits(&one.entry) {
                found.push(one);
            }
            found.len() < self.limit
        })?;
        Ok(found)
    }

    fn fits(&self, entry: &Entry) -> bool {
        let same = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
        let reason = if entry.status == 0 { "OK" } else { entry.reason.as_str() };
        same(&self.client, &entry.client)
            && same(&self.source, &entry.source)
            && same(&self.reason, reason)
            && same(&self.purpose, &entry.purpose)
            && self.agency.as_ref().is_none_or(|agency| {
                entry.agency.strip_prefix(agency.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
            && self.operation.as_ref().is_none_or(|part| entry.operation.contains(part.as_str()))
            && self.from.is_none_or(|from| entry.time_us >= from)
            && self.to.is_none_or(|to| entry.time_us < to)
    }
}

fn kind_text(entry: &Entry) -> &'static str {
    match entry.kind() {
        Kind::Unspecified => "?",
        Kind::Exchange => "exchange",
        Kind::Intent => "intent",
        Kind::StreamOpened => "stream opened",
        Kind::StreamPart => "stream part",
        Kind::Admin => "administration",
        Kind::Connection => "connection",
    }
}

fn print_table(found: &[Found], output: Output) -> Result<(), CliError> {
    let header = ["entry", "time", "kind", "client", "operation", "purpose", "outcome", "ms", "exchange"];
    let rows: Vec<Value> = found.iter().map(to_json).collect();
    output.records(&rows, &header, |row| {
        let text = |name: &str| match &row[name] {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        let outcome = if text("reason").is_empty() { "OK".to_owned() } else { text("reason") };
        let operation = text("operation").rsplit('.').next().unwrap_or("").to_owned();
        let total = row["total_us"].as_u64().unwrap_or(0) as f64 / 1e3;
        let cells = [text("index"), text("time"), text("kind"), text("client"), operation, text("purpose"), outcome];
        cells.into_iter().chain([format!("{total:.1}"), text("exchange")]).collect()
    })
}

/// An entry, whole, for people and scripts; what is empty is left out.
fn to_json(found: &Found) -> Value {
    let entry = &found.entry;
    let pseudonym = |one: &entry::Pseudonym| json!({ "key": one.key, "value": hex(&one.value) });
    let whole = json!({
        "index": found.index, "kind": kind_text(entry), "exchange": entry.id_text(), "time": entry.time_text(),
        "node": entry.node, "client": entry.client, "agency": entry.agency, "certificate": hex(&entry.certificate),
        "token": entry.token, "peer": entry.peer, "source": entry.source, "hub": entry.hub,
        "operation": entry.operation, "scope": entry.scope, "purpose": entry.purpose,
        "subjects": entry.subjects.iter().map(pseudonym).collect::<Vec<_>>(),
        "official": entry.official.as_ref().map(pseudonym), "fields": entry.fields,
        "request_commitment": hex(&entry.request_commitment), "answer_commitment": hex(&entry.answer_commitment),
        "status": entry.status_text(), "reason": entry.reason, "source_code": entry.source_code,
        "total_us": entry.total_us, "source_us": entry.source_us, "request_bytes": entry.request_bytes,
        "answer_bytes": entry.answer_bytes, "request_messages": entry.request_messages,
        "answer_messages": entry.answer_messages, "actor": entry.actor, "act": entry.act, "object": entry.object,
        "suppressed": entry.suppressed,
    });
    let Value::Object(mut object) = whole else { return whole };
    object.retain(|name, value| {
        let empty = value.is_null() || *value == json!("") || *value == json!([]) || *value == json!(0);
        !empty || name == "index"
    });
    Value::Object(object)
}

fn show(reader: &LogReader, exchange: &str) -> Result<(), CliError> {
    let index = exchange.parse::<u64>().ok();
    let mut found = Vec::new();
    reader.newest_first(|one| {
        let here = index == Some(one.index) || one.entry.id_text() == exchange;
        let done = index == Some(one.index);
        if here {
            found.push(one);
        }
        !done
    })?;
    if found.is_empty() {
        return Err(CliError::Failed(format!("the log has no exchange {exchange:?}")));
    }
    found.reverse();
    print_json(&found.iter().map(to_json).collect::<Vec<_>>())
}

fn run_verify(data: &Path, vkey: Option<&str>, output: Output) -> Result<(), CliError> {
    let style = ProgressStyle::with_template("verifying {bar:40} {pos}/{len} entries, {per_sec}")
        .map_err(|error| CliError::Failed(error.to_string()))?;
    let progress = ProgressBar::new(0).with_style(style);
    let report = verify::verify(data, vkey, |done, of| {
        progress.set_length(of);
        progress.set_position(done);
    });
    progress.finish_and_clear();
    let report = report.map_err(|error| CliError::Failed(format!("not verified: {error}")))?;
    let value = json!({
        "verified": true, "origin": report.origin, "sealed": report.sealed, "tail": report.tail, "root": report.root,
    });
    output.result(&value, || {
        let whose = if vkey.is_some() {
            ""
        } else {
            " (with the key in the log's own folder: give --vkey to check against yours)"
        };
        format!(
            "verified: {} entries of {} under the checkpoint, root {}; {} more in the journal{whose}",
            report.sealed, report.origin, report.root, report.tail
        )
    })
}
