//! `audit export` and `audit verify --export`: entries in a file, and beside it the proof for each that it is in the
//! log.
//!
//! The file of proofs has one JSON document a line. The first holds the signed checkpoint; each other an entry's index, its
//! canonical bytes and its inclusion path (RFC 9162, section 2.1.3), in the order of the export's rows.

use super::filter::Filter;
use crate::audit::rows::{ExportFormat, RowSink, read_rows, rendered};
use crate::audit::service::api;
use crate::cli::CliError;
use crate::cli::output::{Output, bar, entries};
use crate::cli::session::Session;
use crate::exchange_log::Entry;
use crate::exchange_log::checkpoint::LogVerifier;
use crate::exchange_log::cosignature::Policy;
use crate::exchange_log::proof::root_of;
use crate::exchange_log::reader::Found;
use crate::exchange_log::tree::{Hash, leaf_hash};
use crate::keyfile::NewFile;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tonic::Status;

/// A line of the proofs.
#[derive(Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum ProofLine {
    Checkpoint { checkpoint: String },
    Proof { index: u64, entry: String, path: Vec<String> },
}

/// The format of an export, by its file's extension.
fn form(out: &Path) -> Result<ExportFormat, CliError> {
    let ending = out.extension().and_then(|ending| ending.to_str()).and_then(ExportFormat::of);
    ending.ok_or_else(|| CliError::Usage("an export ends in .jsonl, .csv or .parquet".into()))
}

fn proofs_path(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".proofs");
    PathBuf::from(name)
}

fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::Failed(error.to_string())
}

/// Received entries, newest first: in an unnamed file, since a log may be larger than memory.
struct Received {
    file: BufWriter<File>,
    /// The offset of each: eight bytes for each.
    begins: Vec<u64>,
    end: u64,
}

impl Received {
    fn beside(out: &Path) -> Result<Self, CliError> {
        let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(Received { file: BufWriter::new(tempfile::tempfile_in(folder)?), begins: Vec::new(), end: 0 })
    }

    fn add(&mut self, line: &ProofLine) -> Result<(), CliError> {
        let text = serde_json::to_vec(line).map_err(failed)?;
        self.file.write_all(&text)?;
        self.begins.push(self.end);
        self.end += text.len() as u64;
        Ok(())
    }

    /// Returns the lines, oldest first.
    fn oldest_first(mut self, mut take: impl FnMut(ProofLine) -> Result<(), CliError>) -> Result<(), CliError> {
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

/// Reads every part of an export, and accepts only proved ones.
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
        if let Err(error) = to.add(&ProofLine::Proof { index, entry: STANDARD.encode(entry), path }) {
            return Ok(Err(error));
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(Ok(note))
}

/// Writes every matching entry under the published checkpoint, oldest first, and the proofs; each is checked when it is
/// received.
pub fn export(session: &Session, filter: &Filter, (out, force): (&Path, bool), output: Output) -> Result<(), CliError> {
    let (form, proofs) = (form(out)?, proofs_path(out));
    let (new, new_proofs) = (NewFile::create(out, force)?, NewFile::create(&proofs, force)?);
    let mut rows = RowSink::begin(form, new.file()?).map_err(failed)?;
    let key = session.vkey.as_deref().map(LogVerifier::parse).transpose().map_err(failed)?;
    let mut received = Received::beside(out)?;
    let note = session.block_on(receive(session, filter, key, &mut received))??;
    let mut file = BufWriter::new(new_proofs.file()?);
    write_line(&mut file, &ProofLine::Checkpoint { checkpoint: note })?;
    let count = received.begins.len();
    let progress = bar("writing {bar:40} {pos}/{len} entries, {per_sec}")?;
    progress.set_length(count as u64);
    received.oldest_first(|line| {
        write_line(&mut file, &line)?;
        let ProofLine::Proof { index, entry, .. } = &line else { return Ok(()) };
        let bytes = STANDARD.decode(entry).map_err(failed)?;
        let entry = Entry::from_bytes(&bytes).ok_or_else(|| failed(format!("entry {index} cannot be read")))?;
        progress.inc(1);
        rows.add(&Found { index: *index, entry }).map_err(failed)
    })?;
    rows.finish().map_err(failed)?;
    file.flush()?;
    new_proofs.keep()?;
    new.keep()?;
    progress.finish_and_clear();
    let value = json!({ "entries": count, "file": out, "proofs": proofs });
    output.result(&value, || format!("{} in {}, proofs in {}", entries(count as u64), out.display(), proofs.display()))
}

fn opened(file: &Path) -> Result<File, CliError> {
    File::open(file).map_err(|error| CliError::Usage(format!("{}: {error}", file.display())))
}

fn write_line(file: &mut impl Write, line: &ProofLine) -> Result<(), CliError> {
    serde_json::to_writer(&mut *file, line).map_err(failed)?;
    Ok(file.write_all(b"\n")?)
}

/// Checks each entry of an export against its proof, and the rows against the entries.
pub fn verify(out: &Path, verifier: &LogVerifier, policy: Option<&Policy>, output: Output) -> Result<(), CliError> {
    let path = proofs_path(out);
    let wrong =
        |row: usize, reason: &str| CliError::Failed(format!("not verified: {}: row {row}: {reason}", out.display()));
    let mut lines = BufReader::new(opened(&path)?).lines();
    let first = lines.next().ok_or_else(|| wrong(0, "there are no proofs"))??;
    let Ok(ProofLine::Checkpoint { checkpoint }) = serde_json::from_str(&first) else {
        return Err(wrong(0, "the proofs do not begin with a checkpoint"));
    };
    let note = checkpoint;
    let checkpoint = verifier.check(&note).map_err(|error| wrong(0, &error.to_string()))?;
    let form = form(out)?;
    let mut rows = read_rows(form, opened(out)?).map_err(failed)?;
    let (mut count, mut last, mut newest) = (0usize, None, 0);
    for line in lines {
        count += 1;
        let Ok(ProofLine::Proof { index, entry, path }) = serde_json::from_str(&line?) else {
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
        newest = newest.max(entry.time_us);
        let row = rows.next().ok_or_else(|| wrong(count, "is missing"))?.map_err(|reason| wrong(count, &reason))?;
        if row != rendered(form, &Found { index, entry }) {
            return Err(wrong(count, "is not what the log has"));
        }
    }
    if rows.next().is_some() {
        return Err(wrong(count + 1, "has no proof"));
    }
    if let Some(policy) = policy {
        super::receipt::check_quorum(policy, &note, newest).map_err(|reason| wrong(0, &reason))?;
    }
    let value = json!({ "verified": true, "origin": checkpoint.origin, "entries": count, "size": checkpoint.size });
    output.result(&value, || {
        format!(
            "verified: {}, all under the checkpoint of {} of {}",
            entries(count as u64),
            entries(checkpoint.size),
            checkpoint.origin
        )
    })
}
