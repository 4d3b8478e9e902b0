//! `audit`: the exchange log, in its files, whether a gateway runs or not.

mod filter;
mod receipt;
mod report;

use super::output::{Output, print_json};
use super::{CliError, ConfigFile};
use crate::exchange_log::pseudonym::Pseudonyms;
use crate::exchange_log::reader::{Found, LogReader, VKEY_FILE};
use crate::exchange_log::{Entry, Kind, entry, verify};
use crate::hex::hex;
use crate::server::pseudonym_folder;
use clap::{Args, Subcommand};
use filter::Filter;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

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
    Search {
        #[command(flatten)]
        filter: Box<Filter>,
        /// Most entries.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// What a citizen is owed: who asked for their data, when, for what purpose, and which fields they were told.
    Subject {
        /// Their id (citizen id, tax code, social-insurance number…).
        id: String,
        /// From this time on.
        #[arg(long, value_parser = filter::local_time)]
        from: Option<i64>,
        /// Until this time.
        #[arg(long, value_parser = filter::local_time)]
        to: Option<i64>,
    },
    /// A period in numbers: by client, operation and outcome.
    Report(Box<Filter>),
    /// Write entries to a file, oldest first.
    Export {
        #[command(flatten)]
        filter: Box<Filter>,
        /// The file; its ending says the form: `.jsonl` or `.csv`.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
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

pub fn run(args: AuditArgs, output: Output) -> Result<(), CliError> {
    if let AuditCommand::Verify { receipt: Some(file), vkey } = &args.command {
        let vkey = match vkey {
            Some(vkey) => vkey.clone(),
            None => std::fs::read_to_string(data_folder(&args)?.join("log").join(VKEY_FILE))?,
        };
        return receipt::verify(file, &vkey, output);
    }
    let data = data_folder(&args)?;
    match args.command {
        AuditCommand::Search { filter, limit } => {
            let found = filter.search(&LogReader::open(&data)?, &pseudonyms(&data)?, limit)?;
            match output {
                Output::Json => {
                    found.iter().for_each(|found| anstream::println!("{}", to_json(found)));
                    Ok(())
                }
                Output::Human => print_table(&found, output),
            }
        }
        AuditCommand::Subject { id, from, to } => {
            let filter = Filter::about(id, from, to);
            report::subject(&filter.search(&LogReader::open(&data)?, &pseudonyms(&data)?, usize::MAX)?, output)
        }
        AuditCommand::Report(filter) => {
            report::period(&filter.search(&LogReader::open(&data)?, &pseudonyms(&data)?, usize::MAX)?, output)
        }
        AuditCommand::Export { filter, out } => {
            let mut found = filter.search(&LogReader::open(&data)?, &pseudonyms(&data)?, usize::MAX)?;
            found.reverse();
            report::export(&found, &out, output)
        }
        AuditCommand::Show { exchange } => show(&LogReader::open(&data)?, &exchange),
        AuditCommand::Prove { exchange, out } => receipt::prove(&data, &exchange, out.as_deref(), output),
        AuditCommand::Verify { vkey, .. } => run_verify(&data, vkey.as_deref(), output),
    }
}

fn pseudonyms(data: &Path) -> Result<Pseudonyms, CliError> {
    Ok(Pseudonyms::open(&pseudonym_folder(data))?)
}

fn data_folder(args: &AuditArgs) -> Result<PathBuf, CliError> {
    match &args.data {
        Some(data) => Ok(data.clone()),
        None => Ok(args.config.load()?.data),
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
        // An administrator's act stands where a call's operation does.
        let operation = match text("operation").rsplit('.').next() {
            Some("") | None => format!("{} {}", text("act"), text("object")),
            Some(name) => name.to_owned(),
        };
        let operation = super::output::short(&operation);
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
