//! `audit subject`: who has looked a person up, as a table, as the auditor's PDF, or as the sheet for the person.

use super::complete::{self, CompleteListing};
use super::entries;
use super::filter::{self, Filter};
use super::report::method;
use crate::audit::pdf::{PdfError, TableHeader, citizen_sheet, subject_report};
use crate::audit::query::outcome;
use crate::audit::service::api;
use crate::audit::sheet::{Letterhead, Sheet, own_signature};
use crate::cli::CliError;
use crate::cli::output::{Output, cell, counted, local, print_json};
use crate::cli::session::Session;
use crate::config::OfficialNames;
use crate::contract::ContractSet;
use crate::exchange_log::Kind;
use crate::exchange_log::checkpoint::{Checkpoint, LogVerifier};
use crate::exchange_log::reader::Found;
use crate::keyfile::NewFile;
use clap::Args;
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;

#[derive(Args, Default)]
pub struct SubjectArgs {
    /// All known ids of the person (citizen id, old identity number, tax code, social-insurance number…): a look-up
    /// by another id is found only by that id.
    #[arg(required = true, num_args = 1..=16, value_name = "ID")]
    pub ids: Vec<String>,
    /// The number of their request. The search and this number are logged.
    #[arg(long, value_name = "NUMBER", value_parser = filter::case_number)]
    pub case: String,
    /// From this time on.
    #[arg(long, value_parser = filter::local_time)]
    pub from: Option<i64>,
    /// Until this time.
    #[arg(long, value_parser = filter::local_time)]
    pub to: Option<i64>,
    /// Search the log itself, without the search index: slow, and correct even if the index's key was stolen.
    #[arg(long)]
    pub from_log: bool,
    /// Write every entry to a PDF in Vietnamese: the auditor's table, for the case file.
    #[arg(long, value_name = "FILE", group = "document")]
    pub pdf: Option<PathBuf>,
    /// Write the sheet for the person to a PDF in plain Vietnamese: laid out as an official document, to be signed and handed over.
    #[arg(long, value_name = "FILE", group = "document")]
    pub sheet: Option<PathBuf>,
    /// Overwrite an existing file of that name.
    #[arg(long, requires = "document")]
    pub force: bool,
    #[command(flatten)]
    pub letterhead: LetterheadArgs,
}

/// What the sheet has in its heading and foot.
#[derive(Args, Default)]
pub struct LetterheadArgs {
    /// The sheet's heading: the agency above.
    #[arg(long, requires = "sheet", value_name = "NAME")]
    pub superior: Option<String>,
    /// The sheet's heading: the agency that hands it over.
    #[arg(long, requires = "sheet", value_name = "NAME")]
    pub agency: Option<String>,
    /// The place that the sheet is dated at.
    #[arg(long = "place", requires = "sheet", value_name = "NAME")]
    pub city: Option<String>,
    /// The title of who signs the sheet.
    #[arg(long, requires = "sheet", value_name = "TITLE")]
    pub signer: Option<String>,
    /// Where to complain: address, telephone.
    #[arg(long, requires = "sheet", value_name = "TEXT")]
    pub contact: Option<String>,
}

/// The contracts' words and the official names that the sheet is written in.
pub struct SheetCatalogue {
    pub contracts: ContractSet,
    pub names: OfficialNames,
}

/// Searches for the person and writes or prints what was asked for; `words` are read only for a sheet.
pub fn run(
    session: &Session,
    args: SubjectArgs,
    words: impl FnOnce() -> Result<SheetCatalogue, CliError>,
    output: Output,
) -> Result<(), CliError> {
    let Some(file) = args.sheet.clone().or_else(|| args.pdf.clone()) else {
        return print(&about(session, &args)?, output);
    };
    // First: a search that names a person is logged, and must not be made for a file that cannot be written.
    let new = NewFile::create(&file, args.force)?;
    let (entries, document) = document(session, args, words)?;
    new.file()?.write_all(&document)?;
    new.keep()?;
    let value = json!({ "entries": entries, "file": file });
    output.result(&value, || format!("{} in {}", counted(entries as u64, "entry", "entries"), file.display()))
}

/// Searches for the person; returns how many entries there are, and the PDF about them.
pub fn document(
    session: &Session,
    args: SubjectArgs,
    words: impl FnOnce() -> Result<SheetCatalogue, CliError>,
) -> Result<(usize, Vec<u8>), CliError> {
    let CompleteListing { mut found, complete } = about(session, &args)?;
    found.reverse();
    let (checkpoint, note) = checkpoint(session)?.unzip();
    if let (Some(complete), Some(signed)) = (&complete, &checkpoint) {
        complete::check(session, complete, signed)?;
    }
    let period = (args.from, args.to);
    let head = TableHeader::new(&args.ids, &args.case, period, checkpoint.as_ref(), complete.as_ref());
    let document = match args.sheet {
        None => subject_report(&head, &found),
        Some(_) => citizen(args, head, &words()?, &found, &note.unwrap_or_default()),
    };
    Ok((found.len(), document.map_err(|error| CliError::Failed(error.to_string()))?))
}

fn citizen(
    args: SubjectArgs,
    head: TableHeader,
    words: &SheetCatalogue,
    found: &[Found],
    note: &str,
) -> Result<Vec<u8>, PdfError> {
    let LetterheadArgs { superior, agency, city, signer, contact } = args.letterhead;
    citizen_sheet(&Sheet {
        head: Letterhead {
            superior: superior.unwrap_or_default(),
            agency: agency.unwrap_or_default(),
            city: city.unwrap_or_default(),
            signer: signer.unwrap_or_default(),
            contact: contact.unwrap_or_default(),
        },
        ids: args.ids,
        case: args.case,
        period: head.period,
        made: crate::registry::now(),
        rows: Sheet::rows_of(&words.contracts, &words.names, found),
        log: head.log,
        complete: head.complete,
        checkpoint: own_signature(note),
    })
}

/// Returns the exchanges about a person, newest first. Refused ones too: they are attempts.
fn about(session: &Session, args: &SubjectArgs) -> Result<CompleteListing<Found>, CliError> {
    let filter = Filter::about(&args.ids, args.case.clone(), args.from, args.to);
    let filter = if args.from_log { filter.with_log_alone() } else { filter };
    let exchange = |one: &Found| matches!(one.entry.kind(), Kind::Exchange | Kind::StreamPart);
    let listed = entries::newest(session, &filter, usize::MAX, exchange)?;
    let is_personal = |id: &&String| id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_digit());
    let others = args.ids.iter().filter(|id| !is_personal(id)).count();
    if listed.found.is_empty() && others > 0 {
        // A slip of the finger must not look like a clean sheet.
        let others = counted(others as u64, "number", "numbers");
        anstream::eprintln!("nothing is found by {others} other than of 12 digits: written as systems send them?");
    }
    Ok(listed)
}

/// Returns the published checkpoint, checked with the log's key, and its note; `None` if none counts yet.
fn checkpoint(session: &Session) -> Result<Option<(Checkpoint, String)>, CliError> {
    let got = session.read(session.audit().get_checkpoint(api::GetCheckpointRequest {}))?;
    if got.checkpoint.is_empty() {
        return Ok(None);
    }
    // The user's own copy of the key, if there is one.
    let key = session.vkey.as_deref().unwrap_or(&got.verifier_key);
    let key = LogVerifier::parse(key).map_err(|error| CliError::Failed(format!("the log's key: {error}")))?;
    let checked = key.check(&got.checkpoint);
    let checked = checked.map_err(|error| CliError::Failed(format!("the checkpoint is not the log's: {error}")))?;
    Ok(Some((checked, got.checkpoint)))
}

/// Prints the report as a table or as JSON.
fn print(listed: &CompleteListing<Found>, output: Output) -> Result<(), CliError> {
    let rows: Vec<Value> = listed
        .found
        .iter()
        .map(|one| {
            let entry = &one.entry;
            json!({
                "time": entry.time_text(), "agency": entry.agency, "client": entry.client, "source": entry.source,
                "operation": entry.operation, "purpose": entry.purpose, "outcome": outcome(entry),
                "fields": entry.fields, "exchange": entry.id_text(), "index": one.index,
            })
        })
        .collect();
    let header = ["time", "agency", "client", "operation", "purpose", "outcome", "fields returned", "entry"];
    if output == Output::Json {
        return print_json(&json!({ "complete": complete::to_json(listed.complete.as_ref()), "entries": rows }));
    }
    output.records(&rows, &header, |row| {
        let fields = cell(&row["fields"]).replace(' ', "\n");
        let head = [local(&cell(&row["time"])), cell(&row["agency"]), cell(&row["client"]), method(&row["operation"])];
        let tail = [cell(&row["purpose"]), cell(&row["outcome"]), fields, cell(&row["index"])];
        head.into_iter().chain(tail).collect()
    })?;
    complete::print(listed.complete.as_ref(), output);
    Ok(())
}
