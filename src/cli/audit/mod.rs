//! `audit`: the exchange log, by `ndxp.audit.v1`: remotely as an auditor, or in its files as their owner, whether a
//! gateway runs or not.

mod complete;
mod entries;
mod export;
mod filter;
mod page;
mod receipt;
mod report;
mod retention;
mod status;
mod subject;
mod verifier;
mod verify;

use super::output::{Output, bar, cell, local, print_json};
use super::session::ConnectionArgs;
use super::session::local::owner;
use super::{CliError, client_name};
use crate::audit::index;
use crate::audit::rows::to_json;
use crate::config::{Config, ConfigFault, OfficialNames};
use crate::contract::{ContractFault, ContractSet};
use crate::exchange_log::reader::{Found, LogReader};
use crate::keyfile::Vault;
use crate::registry::sqlite::SqliteStore;
use crate::server::registry_path;
use clap::{Args, Subcommand};
use filter::Filter;
pub(in crate::cli) use filter::local_time;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
pub(in crate::cli) use subject::{SheetCatalogue, SubjectArgs, document as subject_document};
pub(in crate::cli) use verifier::{Verifier, run as run_verifier};

#[derive(Args)]
pub struct AuditArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// A data folder, or a copy of one, in place of the configuration's.
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
        /// Maximum number of entries.
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// Search the log itself, without the search index: slow, and correct even if the index's key was stolen.
        #[arg(long)]
        from_log: bool,
    },
    /// Print entries as they come under the checkpoint, within a second, until Ctrl-C.
    Tail {
        #[command(flatten)]
        filter: Box<Filter>,
        /// Begin with this entry; by default with the next new one.
        #[arg(long, value_name = "INDEX", default_value_t = 0, hide_default_value = true)]
        from_index: u64,
    },
    /// Report to a citizen who requested their data, when, for what purpose, and which fields were disclosed.
    Subject(subject::SubjectArgs),
    /// A period in numbers: by client, source, operation and outcome; and its anomalies.
    Report {
        #[command(flatten)]
        filter: Box<Filter>,
        /// Group by day, too.
        #[arg(long)]
        days: bool,
        /// Use the counts of the search index, including pruned entries: quick, and not checked against the log. Only
        /// by client, agency, source, operation, reason and whole hours.
        #[arg(long)]
        by_index: bool,
        /// Write it as one static page with charts (no script, no other file) for a browser.
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
        /// The page's language.
        #[arg(long, requires = "html", default_value = "vi", value_parser = ["vi", "en"])]
        language: String,
        /// A file of that name may go for it.
        #[arg(long, requires = "html")]
        force: bool,
    },
    /// List the anomalies that simple rules find in a period of at most 31 days, with their entries.
    #[command(alias = "odd")]
    Anomalies {
        /// From this time on; the last seven days by default.
        #[arg(long, value_parser = filter::local_time)]
        from: Option<i64>,
        /// Until this time; now by default.
        #[arg(long, value_parser = filter::local_time)]
        to: Option<i64>,
    },
    /// Mark an anomaly as reviewed, in your own name: the entry with the reason is the mark.
    Review {
        /// Its id, as `audit anomalies` shows it; another one once it has newer entries.
        finding: String,
        /// What was found out.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// The period that it was found in, from this time on; the last seven days by default.
        #[arg(long, value_parser = filter::local_time)]
        from: Option<i64>,
        /// Until this time; now by default.
        #[arg(long, value_parser = filter::local_time)]
        to: Option<i64>,
    },
    /// Write entries to a file, oldest first, and their proofs to another beside it.
    Export {
        #[command(flatten)]
        filter: Box<Filter>,
        /// The file; its extension selects the format: `.jsonl`, `.csv` or `.parquet`. The proofs go to FILE.proofs.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Overwrite existing files of those names.
        #[arg(long)]
        force: bool,
    },
    /// Show every entry of one exchange in full.
    Show {
        /// Its id, or an entry's index.
        exchange: String,
    },
    /// Show the state of the log, its checkpoint and its cosignatures, and the alarms.
    Status,
    /// Acknowledge an alarm, in your own name: the reason is logged before the alarm ends.
    Acknowledge {
        /// The alarm's id, as `audit status` shows it.
        alarm: String,
        /// The result of the investigation, and what was done.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Recompute every hash of the log from its entries, and check the signed checkpoint.
    Verify(verify::VerifyArgs),
    /// Make an entry's receipt: with it, anyone with the log's key can check offline that the entry is in the log.
    Prove {
        /// An exchange's id (selects its last entry), or an entry's index.
        exchange: String,
        /// File for the receipt; printed by default.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Overwrite an existing file of that name.
        #[arg(long, requires = "out")]
        force: bool,
    },
    /// Archive entries that are old enough, then delete them here; hashes and checkpoints stay, so every proof remains
    /// valid.
    Prune(retention::PruneArgs),
    /// Legal holds: entries that no pruning may touch.
    #[command(subcommand)]
    Hold(retention::HoldCommand),
    /// Show the state of the search index, or rebuild it from the log.
    Index {
        /// Delete it and rebuild it (a running gateway continues with the new one).
        #[arg(long)]
        rebuild: bool,
    },
}

pub fn run(args: AuditArgs, output: Output) -> Result<(), CliError> {
    let AuditArgs { connection, data, command } = args;
    let data = data.as_deref();
    let session = || {
        if let Ok(folder) = connection.data(data) {
            status::warn_of_checkpoint(&folder);
        }
        connection.open_audit(data)
    };
    let open = || {
        let session = session()?;
        status::warn_of_alarms(&session)?;
        Ok::<_, CliError>(session)
    };
    let folder = || {
        let data = connection.data(data)?;
        status::warn_of_folder(&data);
        Ok::<_, CliError>(data)
    };
    match command {
        AuditCommand::Status => status::show(&session()?, output),
        AuditCommand::Acknowledge { alarm, reason } => {
            status::acknowledge(&connection.open_audit(data)?, alarm, reason, output)
        }
        AuditCommand::Verify(args) => verify::run(&args, &connection, data, output),
        AuditCommand::Search { filter, limit, from_log } => {
            let filter = if from_log { filter.with_log_alone() } else { *filter };
            let listed = entries::newest(&open()?, &filter, limit, |_| true)?;
            match output {
                Output::Json => {
                    listed.found.iter().for_each(|found| anstream::println!("{}", to_json(found)));
                    anstream::println!("{}", json!({ "complete": complete::to_json(listed.complete.as_ref()) }));
                }
                Output::Human => {
                    print_table(&listed.found, output)?;
                    if listed.found.is_empty()
                        && let Some(hint) = filter.hint().or_else(|| hint_client(&connection, &filter))
                    {
                        anstream::eprintln!("{hint}");
                    }
                }
            }
            complete::print(listed.complete.as_ref(), output);
            Ok(())
        }
        AuditCommand::Tail { filter, from_index } => {
            entries::tail(&open()?, &filter, from_index, output == Output::Json)
        }
        AuditCommand::Subject(args) => {
            let words = || {
                connection.data(data).ok().and_then(|data| connection.config_of(&data)).map_or_else(embedded, words_of)
            };
            subject::run(&open()?, args, words, output)
        }
        AuditCommand::Report { filter, days, by_index, html, language, force } => match html {
            None => report::period(&open()?, &filter, (days, by_index), output),
            Some(file) => page::write(&open()?, &filter, (days, by_index), (&file, force, &language), output),
        },
        AuditCommand::Anomalies { from, to } => report::list_anomalies(&open()?, from, to, output),
        AuditCommand::Review { finding, reason, from, to } => {
            report::review(&open()?, (finding, reason), (from, to), output)
        }
        AuditCommand::Export { filter, out, force } => export::export(&open()?, &filter, (&out, force), output),
        AuditCommand::Show { exchange } => {
            let listed = entries::named(&open()?, &exchange)?;
            let found: Vec<_> = listed.found.iter().map(to_json).collect();
            print_json(&json!({ "complete": complete::to_json(listed.complete.as_ref()), "entries": found }))
        }
        AuditCommand::Prove { exchange, out, force } => {
            receipt::prove(&open()?, &exchange, out.as_deref().map(|out| (out, force)), output)
        }
        AuditCommand::Prune(args) => {
            let data = folder()?;
            let vault = connection.vault(&data);
            retention::prune(&data, &args, &registry(&data, &vault)?, &vault, output)
        }
        AuditCommand::Hold(command) => retention::hold(&open()?, &command, output),
        AuditCommand::Index { rebuild } => {
            let data = folder()?;
            owner(&data)?;
            run_index(&data, &connection.vault(&data), rebuild, output)
        }
    }
}

/// The words of the gateway's own contracts, and its names of agencies and procedures.
fn words_of(config: Config) -> Result<SheetCatalogue, CliError> {
    let names = config.names.as_deref().map_or_else(|| Ok(OfficialNames::default()), OfficialNames::read)?;
    Ok(SheetCatalogue { contracts: config.contracts()?, names })
}

/// The words of this program's contracts; agencies and procedures by their codes.
fn embedded() -> Result<SheetCatalogue, CliError> {
    let faults = |faults: Vec<ContractFault>| faults.into_iter().map(ConfigFault::from).collect::<Vec<_>>();
    Ok(SheetCatalogue { contracts: ContractSet::embedded().map_err(faults)?, names: OfficialNames::default() })
}

/// Opens the registry beside a log, in the name of the folder's owner.
fn registry(data: &Path, vault: &Vault) -> Result<SqliteStore, CliError> {
    let actor = owner(data)?;
    Ok(SqliteStore::open_with(&registry_path(data), vault)?.acting_as(actor))
}

/// What may be wrong with the client of a filter that nothing matches.
fn hint_client(connection: &ConnectionArgs, filter: &Filter) -> Option<String> {
    let client = filter.client()?;
    client_name::hint(&connection.open().ok()?, client)
}

fn print_table(found: &[Found], output: Output) -> Result<(), CliError> {
    let header = ["entry", "time", "kind", "actor", "action", "purpose", "outcome", "ms", "exchange"];
    let rows: Vec<Value> = found.iter().map(to_json).collect();
    output.records_with(&rows, &header, &["kind", "purpose", "ms", "exchange"], |row| {
        let text = |name: &str| cell(&row[name]);
        let total = row["total_us"].as_u64().unwrap_or(0) as f64 / 1e3;
        let time = local(&text("time"));
        let cells = [text("index"), time, text("kind"), entries::who(row), entries::what(row), text("purpose")];
        cells.into_iter().chain([entries::outcome(row), format!("{total:.1}"), text("exchange")]).collect()
    })
}

fn run_index(data: &Path, vault: &Vault, rebuild: bool, output: Output) -> Result<(), CliError> {
    if rebuild {
        let progress = bar("indexing {bar:40} {pos}/{len} entries, {per_sec}")?;
        let indexed = index::rebuild(data, vault, |done, of| {
            progress.set_length(of);
            progress.set_position(done);
        });
        progress.finish_and_clear();
        indexed?;
    }
    let (reader, index) = (LogReader::open(data)?, index::SearchIndex::read(data, vault));
    let indexed = index.as_ref().map_or(0, |index| index.indexed(&reader));
    let value = json!({ "indexed": indexed, "sealed": reader.sealed(), "entries": reader.size() });
    output.result(&value, || {
        format!("{indexed} of {} entries under the checkpoint are in the index (full bundles of 256)", reader.sealed())
    })
}
