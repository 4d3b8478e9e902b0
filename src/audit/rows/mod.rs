//! Entries as the rows of a table, in the formats of an export: JSON lines, CSV and Parquet.

mod parquet;

use crate::exchange_log::reader::Found;
use crate::exchange_log::{Entry, Kind, entry};
use crate::hex::hex;
use parquet::{Parquet, ParquetRow};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};

/// The type of a column. CSV has text in every column; Parquet has a type for each kind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ColumnKind {
    Text,
    /// A number that is never negative.
    Number,
    /// A point in time, in microseconds.
    Time,
    /// Several texts.
    List,
}

use ColumnKind::{List, Number, Text, Time};

/// Columns of a table: every field of an entry that is a single value or a list of texts.
const COLUMNS: [(&str, ColumnKind); 38] = [
    ("index", Number),
    ("time", Time),
    ("kind", Text),
    ("exchange", Text),
    ("node", Text),
    ("client", Text),
    ("agency", Text),
    ("certificate", Text),
    ("token", Text),
    ("peer", Text),
    ("source", Text),
    ("hub", Text),
    ("operation", Text),
    ("scope", Text),
    ("purpose", Text),
    ("fields", List),
    ("status", Text),
    ("reason", Text),
    ("source_code", Text),
    ("total_us", Number),
    ("source_us", Number),
    ("request_bytes", Number),
    ("response_bytes", Number),
    ("request_messages", Number),
    ("response_messages", Number),
    ("request_commitment", Text),
    ("response_commitment", Text),
    ("actor", Text),
    ("event", Text),
    ("object", Text),
    ("grant", Text),
    ("grant_call", Number),
    ("attempts", Number),
    ("suppressed", Number),
    ("shadow_hub", Text),
    ("approved_by", Text),
    ("justification", Text),
    ("rule", Text),
];
/// The format of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// A JSON document a line.
    Lines,
    /// CSV with a heading.
    Csv,
    /// Parquet.
    Parquet,
}

impl ExportFormat {
    /// All of them, the one for spreadsheets first.
    pub const ALL: [ExportFormat; 3] = [ExportFormat::Csv, ExportFormat::Lines, ExportFormat::Parquet];

    /// Returns the format of files that end like this; `None` if there is none.
    pub fn of(ending: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.ending() == ending)
    }

    /// Returns how its files end.
    pub fn ending(self) -> &'static str {
        match self {
            ExportFormat::Lines => "jsonl",
            ExportFormat::Csv => "csv",
            ExportFormat::Parquet => "parquet",
        }
    }

    /// Returns the media type of its files.
    pub fn media_type(self) -> &'static str {
        match self {
            ExportFormat::Lines => "application/x-ndjson",
            ExportFormat::Csv => "text/csv; charset=utf-8",
            ExportFormat::Parquet => "application/vnd.apache.parquet",
        }
    }
}

/// The reason that rows were not written.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// The file.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// CSV.
    #[error(transparent)]
    Csv(#[from] csv::Error),
    /// Parquet.
    #[error(transparent)]
    Parquet(#[from] ::parquet::errors::ParquetError),
}

/// The destination of the rows.
pub enum RowSink {
    /// Lines.
    Lines(BufWriter<File>),
    /// CSV.
    Csv(Box<csv::Writer<File>>),
    /// Parquet.
    Parquet(Box<Parquet>),
}

impl RowSink {
    /// Begins a file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn begin(form: ExportFormat, out: File) -> Result<Self, RowError> {
        match form {
            ExportFormat::Lines => Ok(RowSink::Lines(BufWriter::new(out))),
            ExportFormat::Csv => {
                let mut file = csv::Writer::from_writer(out);
                file.write_record(COLUMNS.map(|(name, _)| name))?;
                Ok(RowSink::Csv(Box::new(file)))
            }
            ExportFormat::Parquet => Ok(RowSink::Parquet(Box::new(Parquet::begin(out)?))),
        }
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add(&mut self, found: &Found) -> Result<(), RowError> {
        let row = to_json(found);
        match self {
            RowSink::Lines(file) => Ok(writeln!(file, "{row}")?),
            RowSink::Csv(file) => Ok(file.write_record(cells(&row))?),
            RowSink::Parquet(file) => Ok(file.add(ParquetRow::of(&row, &found.entry))?),
        }
    }

    /// Ends the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(self) -> Result<(), RowError> {
        match self {
            RowSink::Lines(mut file) => Ok(file.flush()?),
            RowSink::Csv(mut file) => Ok(file.flush()?),
            RowSink::Parquet(file) => Ok(file.finish()?),
        }
    }
}

fn cells(row: &Value) -> impl Iterator<Item = String> {
    COLUMNS.iter().map(|(name, _)| cell(&row[*name]))
}

/// Returns the text of a cell.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
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

/// Returns a complete entry, for people and scripts; empty fields are omitted.
pub fn to_json(found: &Found) -> Value {
    let entry = &found.entry;
    let pseudonym = |one: &entry::Pseudonym| json!({ "key": one.key, "value": hex(&one.value) });
    // Records as JSON, not as text within text.
    let record = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    let change = |one: &entry::Change| json!({ "object": one.object, "before": record(&one.before), "after": record(&one.after) });
    let whole = json!({
        "index": found.index, "kind": kind_text(entry), "exchange": entry.id_text(), "time": entry.time_text(),
        "node": entry.node, "client": entry.client, "agency": entry.agency, "certificate": hex(&entry.certificate),
        "token": entry.token, "peer": entry.peer, "source": entry.source, "hub": entry.hub,
        "operation": entry.operation, "scope": entry.scope, "purpose": entry.purpose,
        "subjects": entry.subjects.iter().map(pseudonym).collect::<Vec<_>>(),
        "official": entry.official.as_ref().map(pseudonym), "fields": entry.fields,
        "request_commitment": hex(&entry.request_commitment), "response_commitment": hex(&entry.response_commitment),
        "status": entry.status_text(), "reason": entry.reason, "source_code": entry.source_code,
        "total_us": entry.total_us, "source_us": entry.source_us, "request_bytes": entry.request_bytes,
        "response_bytes": entry.response_bytes, "request_messages": entry.request_messages,
        "response_messages": entry.response_messages, "actor": entry.actor, "event": entry.event, "object": entry.object,
        "suppressed": entry.suppressed, "grant": entry.grant, "grant_call": entry.grant_call,
        "attempts": entry.attempts, "shadow_hub": entry.shadow_hub, "approved_by": entry.approved_by,
        "rule": entry.rule, "justification": entry.justification, "changes": entry.changes.iter().map(change).collect::<Vec<_>>(),
    });
    let refused = [
        ("cause", &entry.cause),
        ("certificate_subject", &entry.certificate_subject),
        ("certificate_serial", &entry.certificate_serial),
        ("certificate_issuer", &entry.certificate_issuer),
        ("listener", &entry.listener),
    ];
    let Value::Object(mut object) = whole else { return whole };
    object.extend(refused.map(|(name, text)| (name.to_owned(), Value::from(text.as_str()))));
    object.insert("event_sequence".to_owned(), json!(entry.event_sequence));
    let answered: Vec<_> = entry.response_subjects.iter().map(pseudonym).collect();
    object.insert("response_subjects".to_owned(), json!(answered));
    object.insert("response_subjects_omitted".to_owned(), json!(entry.response_subjects_omitted));
    object.insert("dropped_fields".to_owned(), json!(entry.dropped_fields));
    object.insert("unknown_codes".to_owned(), json!(entry.unknown_codes));
    let xroad = [
        ("xroad_id", &entry.xroad_id),
        ("xroad_request_id", &entry.xroad_request_id),
        ("xroad_request_hash", &entry.xroad_request_hash),
        ("protocol", &entry.protocol),
        ("identity_provider", &entry.identity_provider),
    ];
    object.extend(xroad.map(|(name, text)| (name.to_owned(), Value::from(text.as_str()))));
    let stages = [
        ("access_us", entry.access_us),
        ("request_us", entry.request_us),
        ("guard_us", entry.guard_us),
        ("response_us", entry.response_us),
        ("log_us", entry.log_us),
    ];
    object.extend(stages.map(|(name, us)| (name.to_owned(), Value::from(us))));
    object.insert("fault".to_owned(), json!(entry.fault));
    object.insert("source_reason".to_owned(), json!(entry.source_reason));
    object.insert("source_dropped".to_owned(), json!(entry.source_dropped));
    object.retain(|name, value| {
        let empty = value.is_null() || *value == json!("") || *value == json!([]) || *value == json!(0);
        !empty || name == "index"
    });
    Value::Object(object)
}

/// The texts of each row of a file.
pub type ReadRows = Box<dyn Iterator<Item = Result<Vec<String>, String>>>;

/// Returns the expected text of a row, in the format of the file.
pub fn rendered(form: ExportFormat, found: &Found) -> Vec<String> {
    let row = to_json(found);
    match form {
        ExportFormat::Lines => vec![row.to_string()],
        ExportFormat::Csv => cells(&row).collect(),
        ExportFormat::Parquet => ParquetRow::of(&row, &found.entry).texts(),
    }
}

/// Reads the rows of a file.
///
/// # Errors
/// It is no Parquet file.
pub fn read_rows(form: ExportFormat, file: File) -> Result<ReadRows, RowError> {
    Ok(match form {
        ExportFormat::Lines => {
            let lines = BufReader::new(file).lines();
            Box::new(lines.map(|line| line.map(|line| vec![line]).map_err(|error| error.to_string())))
        }
        ExportFormat::Csv => {
            let rows = csv::Reader::from_reader(file).into_records();
            let texts = |row: csv::StringRecord| row.iter().map(str::to_owned).collect();
            Box::new(rows.map(move |row| row.map(texts).map_err(|error| error.to_string())))
        }
        ExportFormat::Parquet => {
            let rows = parquet::read(file)?;
            Box::new(rows.into_iter().map(|row| row.map(|row| row.texts())))
        }
    })
}
