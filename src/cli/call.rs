//! `call`: an operation as a provincial system calls it, JSON in and out; `--csv` for a batch.

use super::operation_name::find;
use super::output::{Output, duration, print_json};
use super::{CliError, runtime};
use crate::caller::{CallerFiles, CompleteResponse, GatewayClient};
use crate::contract::{CallShape, ContractSet, Operation};
use crate::server::{EXCHANGE_ID, LOG_INDEX};
use bytes::Bytes;
use clap::Args;
use futures_util::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::{Map, Value, json};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tonic::Code;
use tonic_types::StatusExt;

/// Number of concurrent calls of a batch.
const AT_ONCE: usize = 8;

/// The target of a call, and the caller.
#[derive(Args)]
pub struct CallTarget {
    /// `Service/Method`, with or without its package: `PopulationService/GetCitizen`.
    operation: String,
    /// The gateway.
    #[arg(long, env = "NDXP_GATEWAY", default_value = "https://localhost:7443", value_name = "URL")]
    to: String,
    /// CA of the gateway (PEM).
    #[arg(long, env = "NDXP_CA", default_value = "pki/ca.pem", value_name = "FILE")]
    ca: PathBuf,
    /// The caller's certificate (PEM).
    #[arg(long, env = "NDXP_CERTIFICATE", value_name = "FILE")]
    certificate: PathBuf,
    /// Its key (PEM); the certificate's path with `.key` by default.
    #[arg(long, env = "NDXP_KEY", value_name = "FILE")]
    key: Option<PathBuf>,
    /// File with the access token.
    #[arg(long, env = "NDXP_TOKEN_FILE", value_name = "FILE")]
    token_file: PathBuf,
    /// The purpose: a procedure code or a dossier number.
    #[arg(long)]
    purpose: Option<String>,
    /// The acting official.
    #[arg(long)]
    official: Option<String>,
    /// Folder of further contracts.
    #[arg(long, value_name = "DIR")]
    contracts: Option<PathBuf>,
}

/// The prepared data of calls.
pub struct PreparedCalls {
    pub files: CallerFiles,
    pub operation: Arc<Operation>,
    pub metadata: Vec<(&'static str, String)>,
}

impl CallTarget {
    /// Reads contracts and token.
    pub fn prepare(&self) -> Result<PreparedCalls, CliError> {
        let contracts = match &self.contracts {
            Some(folder) => ContractSet::with_folder(folder),
            None => ContractSet::embedded(),
        };
        let contracts = contracts
            .map_err(|faults| CliError::Usage(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))?;
        let operation = find(&contracts, &self.operation)?;
        let token = std::fs::read_to_string(&self.token_file)
            .map_err(|error| CliError::Usage(format!("{}: {error}", self.token_file.display())))?;
        let mut metadata = vec![("authorization", format!("Bearer {}", token.trim()))];
        metadata.extend(self.purpose.iter().map(|purpose| ("ndxp-purpose", purpose.clone())));
        metadata.extend(self.official.iter().map(|official| ("ndxp-official", official.clone())));
        let key = self.key.clone().unwrap_or_else(|| self.certificate.with_extension("key"));
        let files = CallerFiles { ca: self.ca.clone(), certificate: self.certificate.clone(), key };
        Ok(PreparedCalls { files, operation, metadata })
    }

    /// Returns the operation as given.
    pub fn operation(&self) -> &str {
        &self.operation
    }

    /// The gateway's address.
    pub fn to(&self) -> &str {
        &self.to
    }
}

#[derive(Args)]
pub struct CallArgs {
    /// The request as JSON, one message or several; `-` reads standard input.
    #[arg(long, short, default_value = "{}", conflicts_with = "csv")]
    data: String,
    /// A batch: one call for each row; columns are fields by path (`citizen_id`, `birth_date.year`).
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    #[command(flatten)]
    target: CallTarget,
    /// How long to wait for the response.
    #[arg(long, value_parser = duration)]
    timeout: Option<Duration>,
}

struct Batch {
    caller: GatewayClient,
    operation: Arc<Operation>,
    metadata: Vec<(&'static str, String)>,
}

pub fn run(args: CallArgs, output: Output) -> Result<(), CliError> {
    let PreparedCalls { files, operation, metadata } = args.target.prepare()?;
    runtime()?.block_on(async {
        let batch = Batch { caller: GatewayClient::new(args.target.to(), &files)?, operation, metadata };
        match &args.csv {
            Some(file) => batch.run(file, output).await,
            None => batch.one(&args.data, args.timeout, output).await,
        }
    })
}

/// Reads messages from JSON: one object, or several one after the other or in a list.
pub(super) fn messages(descriptor: &MessageDescriptor, text: &str) -> Result<Vec<Bytes>, CliError> {
    let mut found = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        let value = value.map_err(|error| CliError::Usage(format!("the data is no JSON: {error}")))?;
        let items = if let Value::Array(items) = value { items } else { vec![value] };
        for item in items {
            found.push(encode(descriptor, &item).map_err(CliError::Usage)?);
        }
    }
    Ok(found)
}

/// Encodes one message from its JSON form.
pub(super) fn encode(descriptor: &MessageDescriptor, value: &Value) -> Result<Bytes, String> {
    let message = DynamicMessage::deserialize(descriptor.clone(), value)
        .map_err(|error| format!("the data is no {}: {error}", descriptor.name()))?;
    Ok(message.encode_to_vec().into())
}

/// The JSON form of a message.
pub(super) fn decode(descriptor: &MessageDescriptor, bytes: &Bytes) -> Result<Value, CliError> {
    let failed =
        |error: String| CliError::Failed(format!("the response is not a valid {}: {error}", descriptor.name()));
    let message =
        DynamicMessage::decode(descriptor.clone(), bytes.clone()).map_err(|error| failed(error.to_string()))?;
    let options = SerializeOptions::new();
    message.serialize_with_options(serde_json::value::Serializer, &options).map_err(|error| failed(error.to_string()))
}

/// A refusal as text.
pub(super) fn explain(status: &tonic::Status) -> String {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.clone()).unwrap_or_default();
    let mut text = format!("{:?} {reason}: {}", status.code(), status.message());
    for violation in details.bad_request().iter().flat_map(|bad| &bad.field_violations) {
        text.push_str(&format!("\n  {}: {}", violation.field, violation.description));
    }
    if let Some(delay) = details.retry_info().and_then(|retry| retry.retry_delay) {
        text.push_str(&format!("\n  try again in {:.1} s", delay.as_secs_f64()));
    }
    text
}

impl Batch {
    fn metadata(&self) -> Vec<(&str, &str)> {
        self.metadata.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }

    async fn one(&self, data: &str, timeout: Option<Duration>, output: Output) -> Result<(), CliError> {
        let mut text = data.to_owned();
        if data == "-" {
            text.clear();
            std::io::stdin().read_to_string(&mut text)?;
        }
        let requests = messages(&self.operation.request.message, &text)?;
        if self.operation.shape != CallShape::ClientStream && requests.len() != 1 {
            return Err(CliError::Usage(format!("{} takes one message", self.operation.full_name)));
        }
        let mut answering = match self.caller.start(&self.operation.path, &self.metadata(), requests, timeout).await {
            Ok(answering) => answering,
            Err(error) => return Err(self.caller.explained(error).await.into()),
        };
        loop {
            match answering.next().await {
                Ok(Some(message)) => print_json(&decode(&self.operation.response.message, &message)?)?,
                Ok(None) => break,
                Err(error) => return Err(CliError::Failed(format!("the response was cut off: {error}"))),
            }
        }
        let (metadata, status) = answering.end();
        let text = |name: &str| metadata.get(name).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
        if output == Output::Human {
            anstream::eprintln!("exchange {} (entry {} of the log)", text(EXCHANGE_ID), text(LOG_INDEX));
        }
        if status.code() == Code::Ok {
            return Ok(());
        }
        Err(CliError::Refused { text: explain(&status), exit_code: 1, status: Box::new(status) })
    }

    /// One call for each row of a CSV file; results are JSON lines on standard output, in the order of the rows.
    async fn run(&self, file: &Path, output: Output) -> Result<(), CliError> {
        let rows = read_csv(file, &self.operation.request.message)?;
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} {eta} {msg}")
            .map_err(|error| CliError::Failed(error.to_string()))?;
        let progress = ProgressBar::new(rows.len() as u64).with_style(style);
        let total = rows.len();
        let mut results = stream::iter(rows.into_iter().enumerate())
            .map(|(number, row)| async move { (number, self.row(row).await) })
            .buffered(AT_ONCE);
        let mut failed = 0usize;
        while let Some((number, result)) = results.next().await {
            let (ok, mut line) = result?;
            failed += usize::from(!ok);
            line.insert("row".into(), Value::from(number + 1));
            progress.suspend(|| anstream::println!("{}", Value::Object(line)));
            progress.inc(1);
            progress.set_message(if failed > 0 { format!("{failed} failed") } else { String::new() });
        }
        progress.finish_and_clear();
        if output == Output::Human {
            anstream::eprintln!("{} of {total} calls succeeded", total - failed);
        }
        if failed == 0 { Ok(()) } else { Err(CliError::Failed(format!("{failed} of {total} calls failed"))) }
    }

    async fn row(&self, request: Result<Bytes, String>) -> Result<(bool, Map<String, Value>), CliError> {
        let mut line = Map::new();
        let answered = match request {
            Ok(request) => self.caller.call(&self.operation.path, &self.metadata(), vec![request]).await?,
            Err(wrong) => {
                line.insert("error".into(), Value::from(wrong));
                return Ok((false, line));
            }
        };
        line.insert("exchange_id".into(), Value::from(answered.text(EXCHANGE_ID)));
        line.insert("status".into(), Value::from(format!("{:?}", answered.status.code())));
        let ok = answered.status.code() == Code::Ok;
        if !ok {
            line.insert("reason".into(), Value::from(answered.reason()));
            line.insert("message".into(), Value::from(answered.status.message()));
        }
        line.insert("responses".into(), Value::from(self.responses(&answered)?));
        Ok((ok, line))
    }

    fn responses(&self, answered: &CompleteResponse) -> Result<Vec<Value>, CliError> {
        answered.messages.iter().map(|message| decode(&self.operation.response.message, message)).collect()
    }
}

/// Reads a batch. A malformed row is reported in its own result, not before all others.
fn read_csv(file: &Path, descriptor: &MessageDescriptor) -> Result<Vec<Result<Bytes, String>>, CliError> {
    let wrong = |error: csv::Error| CliError::Usage(format!("{}: {error}", file.display()));
    let mut reader = csv::Reader::from_path(file).map_err(wrong)?;
    let header = reader.headers().map_err(wrong)?.clone();
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(wrong)?;
        let mut object = json!({});
        for (path, text) in header.iter().zip(record.iter()).filter(|(_, text)| !text.is_empty()) {
            // Proto3 JSON accepts numbers as texts, and texts unchanged; true and false must be booleans.
            let value = text.parse::<bool>().map_or_else(|_| Value::from(text), Value::from);
            put(&mut object, path, value);
        }
        rows.push(encode(descriptor, &object));
    }
    Ok(rows)
}

fn put(object: &mut Value, path: &str, value: Value) {
    match path.split_once('.') {
        Some((name, rest)) => {
            if !object[name].is_object() {
                object[name] = json!({});
            }
            put(&mut object[name], rest, value);
        }
        None => object[path] = value,
    }
}
