//! `audit export` and `audit verify --export`: entries in a file, and beside it the proof of each that it is in the log.
//!
//! The file of proofs has one JSON document a line. The first holds the signed checkpoint; each other an entry's index, its
//! canonical bytes and its inclusion path (RFC 9162, section 2.1.3), in the order of the export's rows.

use super::filter::Filter;
use super::to_json;
use crate::audit::service::api;
use crate::cli::CliError;
use crate::cli::output::{Output, bar, cell};
use crate::cli::session::Session;
use crate::exchange_log::Entry;
use crate::exchange_log::checkpoint::LogVerifier;
use crate::exchange_log::proof::root_of;
use crate::exchange_log::reader::Found;
use crate::exchange_log::tree::{Hash, leaf_hash};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::SerializedFileReader;
use parquet::file::writer::SerializedFileWriter;
use parquet::record::RowAccessor;
use parquet::schema::parser::parse_message_type;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tonic::Status;

/// Columns of a table: every field of an entry that is a single value, and the lists joined.
const COLUMNS: [&str; 32] = [
    "index",
    "time",
    "kind",
    "exchange",
    "node",
    "client",
    "agency",
    "certificate",
    "token",
    "peer",
    "source",
    "hub",
    "operation",
    "scope",
    "purpose",
    "fields",
    "status",
    "reason",
    "source_code",
    "total_us",
    "source_us",
    "request_bytes",
    "answer_bytes",
    "request_messages",
    "answer_messages",
    "request_commitment",
    "answer_commitment",
    "actor",
    "act",
    "object",
    "grant",
    "grant_call",
];
/// Rows of a Parquet file that are written at once.
const ROW_GROUP: usize = 50_000;

/// A line of the proofs.
#[derive(Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Line {
    Checkpoint { checkpoint: String },
    Proof { index: u64, entry: String, path: Vec<String> },
}

fn proofs_path(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".proofs");
    PathBuf::from(name)
}

fn is_number(column: &str) -> bool {
    ["index", "grant_call"].contains(&column)
        || column.ends_with("_us")
        || column.ends_with("_bytes")
        || column.ends_with("_messages")
}

/// Where the rows go.
enum Rows {
    Lines(BufWriter<File>),
    Csv(Box<csv::Writer<File>>),
    Parquet(Box<Parquet>),
}

impl Rows {
    fn create(out: &Path) -> Result<Self, CliError> {
        match out.extension().and_then(|ending| ending.to_str()) {
            Some("jsonl") => Ok(Rows::Lines(BufWriter::new(File::create(out)?))),
            Some("csv") => {
                let mut file = csv::Writer::from_writer(File::create(out)?);
                file.write_record(COLUMNS).map_err(failed)?;
                Ok(Rows::Csv(Box::new(file)))
            }
            Some("parquet") => Ok(Rows::Parquet(Box::new(Parquet::create(out).map_err(failed)?))),
            _ => Err(CliError::Usage("--out must end in .jsonl, .csv or .parquet".into())),
        }
    }

    fn add(&mut self, found: &Found) -> Result<(), CliError> {
        let row = to_json(found);
        match self {
            Rows::Lines(file) => Ok(writeln!(file, "{row}")?),
            Rows::Csv(file) => file.write_record(cells(&row)).map_err(failed),
            Rows::Parquet(file) => file.add(row, found.entry.to_bytes()).map_err(failed),
        }
    }

    fn finish(self) -> Result<(), CliError> {
        match self {
            Rows::Lines(mut file) => Ok(file.flush()?),
            Rows::Csv(mut file) => Ok(file.flush()?),
            Rows::Parquet(file) => file.finish().map_err(failed),
        }
    }
}

fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::Failed(error.to_string())
}

fn cells(row: &Value) -> impl Iterator<Item = String> {
    COLUMNS.iter().map(|name| cell(&row[*name]))
}

/// A Parquet file: the columns above, numbers as numbers, and each entry's canonical bytes; zstd.
struct Parquet {
    writer: SerializedFileWriter<File>,
    rows: Vec<(Value, Vec<u8>)>,
}

impl Parquet {
    fn create(out: &Path) -> Result<Self, ParquetError> {
        let columns: String = COLUMNS
            .iter()
            .map(|name| {
                let kind = if is_number(name) { format!("INT64 {name}") } else { format!("BINARY {name} (UTF8)") };
                format!("REQUIRED {kind};\n")
            })
            .collect();
        let schema = parse_message_type(&format!("message entries {{ {columns} REQUIRED BINARY entry; }}"))?;
        let compression = Compression::ZSTD(ZstdLevel::default());
        let properties = WriterProperties::builder().set_compression(compression).build();
        let writer = SerializedFileWriter::new(File::create(out)?, Arc::new(schema), Arc::new(properties))?;
        Ok(Parquet { writer, rows: Vec::new() })
    }

    fn add(&mut self, row: Value, entry: Vec<u8>) -> Result<(), ParquetError> {
        self.rows.push((row, entry));
        if self.rows.len() >= ROW_GROUP { self.group() } else { Ok(()) }
    }

    fn group(&mut self) -> Result<(), ParquetError> {
        let rows = std::mem::take(&mut self.rows);
        let mut group = self.writer.next_row_group()?;
        for name in COLUMNS {
            let Some(mut column) = group.next_column()? else { break };
            if is_number(name) {
                let values: Vec<i64> = rows.iter().map(|(row, _)| row[name].as_i64().unwrap_or(0)).collect();
                column.typed::<Int64Type>().write_batch(&values, None, None)?;
            } else {
                let values: Vec<ByteArray> = rows.iter().map(|(row, _)| cell(&row[name]).into_bytes().into()).collect();
                column.typed::<ByteArrayType>().write_batch(&values, None, None)?;
            }
            column.close()?;
        }
        if let Some(mut column) = group.next_column()? {
            let values: Vec<ByteArray> = rows.into_iter().map(|(_, entry)| entry.into()).collect();
            column.typed::<ByteArrayType>().write_batch(&values, None, None)?;
            column.close()?;
        }
        group.close()?;
        Ok(())
    }

    fn finish(mut self) -> Result<(), ParquetError> {
        if !self.rows.is_empty() {
            self.group()?;
        }
        self.writer.close().map(|_| ())
    }
}

/// Entries as they were received, newest first: in a file without a name, since a log may be larger than memory.
struct Received {
    file: BufWriter<File>,
    /// Where each begins: eight bytes for each.
    begins: Vec<u64>,
    end: u64,
}

impl Received {
    fn beside(out: &Path) -> Result<Self, CliError> {
        let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(Received { file: BufWriter::new(tempfile::tempfile_in(folder)?), begins: Vec::new(), end: 0 })
    }

    fn add(&mut self, line: &Line) -> Result<(), CliError> {
        let text = serde_json::to_vec(line).map_err(failed)?;
        self.file.write_all(&text)?;
        self.begins.push(self.end);
        self.end += text.len() as u64;
        Ok(())
    }

    /// Hands the lines over, oldest first.
    fn oldest_first(mut self, mut take: impl FnMut(Line) -> Result<(), CliError>) -> Result<(), CliError> {
        self.file.flush()?;
        let file = self.file.get_ref();
        let mut end = self.end;
        for begin in self.begins.iter().rev() {
            let mut text = vec![0; usize::try_from(end - begin).unwrap_or(0)];
            file.read_exact_at(&mut text, *begin)?;
            take(serde_json::from_slice(&text).map_err(failed)?)?;
            end = *begin;
        }
        Ok(())
    }
}

/// Takes every part of an export, and believes none that is not proved.
async fn receive(
    session: &Session,
    filter: &Filter,
    key: Option<LogVerifier>,
    to: &mut Received,
) -> Result<Result<String, CliError>, Status> {
    let mut audit = session.audit();
    let request = api::ExportRequest { query: Some(filter.request()), reason: filter.why() };
    let mut parts = audit.export(request).await?.into_inner();
    let key = match key {
        Some(key) => key,
        None => {
            let got = audit.get_checkpoint(api::GetCheckpointRequest {}).await?.into_inner();
            match LogVerifier::parse(&got.verifier_key) {
                Ok(key) => key,
                Err(error) => return Ok(Err(failed(error))),
            }
        }
    };
    let Some(api::ExportPart { checkpoint: note, .. }) = parts.message().await? else {
        let nothing = "no checkpoint counts yet: is the gateway running, and its witnesses?";
        return Ok(Err(CliError::Failed(nothing.into())));
    };
    let checkpoint = match key.check(&note) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return Ok(Err(CliError::Failed(format!("not verified: the checkpoint: {error}")))),
    };
    let progress = match bar("receiving {spinner} {pos} entries, {per_sec}") {
        Ok(progress) => progress,
        Err(error) => return Ok(Err(error)),
    };
    let mut before = checkpoint.size;
    while let Some(api::ExportPart { index, entry, path, .. }) = parts.message().await? {
        let hashes: Option<Vec<Hash>> = path.iter().map(|hash| hash.as_slice().try_into().ok()).collect();
        let root = hashes.and_then(|hashes| root_of(leaf_hash(&entry), index, checkpoint.size, &hashes));
        if index >= before || root != Some(checkpoint.root) {
            return Ok(Err(CliError::Failed(format!("not verified: entry {index} is not under the checkpoint"))));
        }
        before = index;
        let path = path.iter().map(|hash| STANDARD.encode(hash)).collect();
        if let Err(error) = to.add(&Line::Proof { index, entry: STANDARD.encode(entry), path }) {
            return Ok(Err(error));
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(Ok(note))
}

/// Writes every entry under the published checkpoint that fits, oldest first, and the proofs; each is checked as it is
/// received.
pub fn export(session: &Session, filter: &Filter, out: &Path, output: Output) -> Result<(), CliError> {
    let mut rows = Rows::create(out)?;
    let key = session.vkey.as_deref().map(LogVerifier::parse).transpose().map_err(failed)?;
    let mut received = Received::beside(out)?;
    let note = session.block_on(receive(session, filter, key, &mut received))??;
    let proofs = proofs_path(out);
    let mut file = BufWriter::new(File::create(&proofs)?);
    write_line(&mut file, &Line::Checkpoint { checkpoint: note })?;
    let count = received.begins.len();
    let progress = bar("writing {bar:40} {pos}/{len} entries, {per_sec}")?;
    progress.set_length(count as u64);
    received.oldest_first(|line| {
        write_line(&mut file, &line)?;
        let Line::Proof { index, entry, .. } = &line else { return Ok(()) };
        let bytes = STANDARD.decode(entry).map_err(failed)?;
        let entry = Entry::from_bytes(&bytes).ok_or_else(|| failed(format!("entry {index} cannot be read")))?;
        progress.inc(1);
        rows.add(&Found { index: *index, entry })
    })?;
    rows.finish()?;
    file.flush()?;
    progress.finish_and_clear();
    let value = json!({ "entries": count, "file": out, "proofs": proofs });
    output.result(&value, || format!("{count} entries in {}, their proofs in {}", out.display(), proofs.display()))
}

fn write_line(file: &mut impl Write, line: &Line) -> Result<(), CliError> {
    serde_json::to_writer(&mut *file, line).map_err(failed)?;
    Ok(file.write_all(b"\n")?)
}

/// Checks each entry of an export against its proof, and the rows against the entries.
pub fn verify(out: &Path, verifier: &LogVerifier, output: Output) -> Result<(), CliError> {
    let path = proofs_path(out);
    let wrong =
        |row: usize, reason: &str| CliError::Failed(format!("not verified: {}: row {row}: {reason}", out.display()));
    let mut lines = BufReader::new(File::open(&path)?).lines();
    let first = lines.next().ok_or_else(|| wrong(0, "there are no proofs"))??;
    let Ok(Line::Checkpoint { checkpoint }) = serde_json::from_str(&first) else {
        return Err(wrong(0, "the proofs do not begin with a checkpoint"));
    };
    let checkpoint = verifier.check(&checkpoint).map_err(|error| wrong(0, &error.to_string()))?;
    let mut rows = read_rows(out)?;
    let (mut count, mut last) = (0usize, None);
    for line in lines {
        count += 1;
        let Ok(Line::Proof { index, entry, path }) = serde_json::from_str(&line?) else {
            return Err(wrong(count, "its proof is garbled"));
        };
        if last.is_some_and(|last| last >= index) {
            return Err(wrong(count, "the entries are out of order"));
        }
        last = Some(index);
        let bytes = STANDARD.decode(entry).map_err(|_| wrong(count, "its proof is garbled"))?;
        let path: Option<Vec<Hash>> = path.iter().map(|hash| STANDARD.decode(hash).ok()?.try_into().ok()).collect();
        let root = path.and_then(|path| root_of(leaf_hash(&bytes), index, checkpoint.size, &path));
        if root != Some(checkpoint.root) {
            return Err(wrong(count, "the entry is not under the checkpoint"));
        }
        let entry = Entry::from_bytes(&bytes).ok_or_else(|| wrong(count, "the entry is not canonical"))?;
        let row = rows.next().ok_or_else(|| wrong(count, "is missing"))?.map_err(|reason| wrong(count, &reason))?;
        if row != rendered(out, &Found { index, entry }) {
            return Err(wrong(count, "is not what the log has"));
        }
    }
    if rows.next().is_some() {
        return Err(wrong(count + 1, "has no proof"));
    }
    let value = json!({ "verified": true, "origin": checkpoint.origin, "entries": count, "size": checkpoint.size });
    output.result(&value, || {
        format!(
            "verified: {count} entries, all under the checkpoint of {} entries of {}",
            checkpoint.size, checkpoint.origin
        )
    })
}

type ReadRows = Box<dyn Iterator<Item = Result<Vec<String>, String>>>;

/// A row as it must read, in the form of the file.
fn rendered(out: &Path, found: &Found) -> Vec<String> {
    let row = to_json(found);
    match out.extension().and_then(|ending| ending.to_str()) {
        Some("jsonl") => vec![row.to_string()],
        Some("csv") => cells(&row).collect(),
        _ => {
            let zero =
                |(name, text): (&&str, String)| if is_number(name) && text.is_empty() { "0".into() } else { text };
            let whole = STANDARD.encode(found.entry.to_bytes());
            COLUMNS.iter().zip(cells(&row)).map(zero).chain([whole]).collect()
        }
    }
}

fn read_rows(out: &Path) -> Result<ReadRows, CliError> {
    let file = File::open(out)?;
    match out.extension().and_then(|ending| ending.to_str()) {
        Some("jsonl") => {
            let lines = BufReader::new(file).lines();
            Ok(Box::new(lines.map(|line| line.map(|line| vec![line]).map_err(|error| error.to_string()))))
        }
        Some("csv") => {
            let rows = csv::Reader::from_reader(file).into_records();
            let texts = |row: csv::StringRecord| row.iter().map(str::to_owned).collect();
            Ok(Box::new(rows.map(move |row| row.map(texts).map_err(|error| error.to_string()))))
        }
        Some("parquet") => {
            let reader = SerializedFileReader::new(file).map_err(failed)?;
            let rows = reader.into_iter().map(|row| {
                let row = row.map_err(|error| error.to_string())?;
                let cell = |(at, name): (usize, &&str)| {
                    if is_number(name) {
                        row.get_long(at).map(|number| number.to_string())
                    } else {
                        row.get_string(at).cloned()
                    }
                };
                let cells = COLUMNS.iter().enumerate().map(cell).collect::<Result<Vec<_>, _>>();
                let whole = row.get_bytes(COLUMNS.len()).map(|bytes| STANDARD.encode(bytes.data()));
                let (mut cells, whole) =
                    (cells.map_err(|error| error.to_string())?, whole.map_err(|error| error.to_string())?);
                cells.push(whole);
                Ok(cells)
            });
            Ok(Box::new(rows.collect::<Vec<_>>().into_iter()))
        }
        _ => Err(CliError::Usage("an export ends in .jsonl, .csv or .parquet".into())),
    }
}
