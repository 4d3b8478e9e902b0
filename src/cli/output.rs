//! How results are printed: tables for people, JSON for scripts.

use super::CliError;
use super::layout::{Layout, fit};
use crate::time_zone::timestamp_text;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table};
use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, ReflectMessage, Value as Field};
use serde::Serialize;
use serde_json::{Map, Value};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// Tables and sentences.
    Human,
    /// JSON: one document, or one line for each record.
    Json,
}

/// Whether tables show all their columns and every line, whatever the terminal's width: `--wide`.
static SHOW_ALL: AtomicBool = AtomicBool::new(false);

/// Has tables show everything from now on.
pub fn show_all() {
    SHOW_ALL.store(true, Ordering::Relaxed);
}

/// A table with its header.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.to_vec());
    table
}

/// Prints a table as wide as the terminal; the columns `wide` are the first to be left out where it has no room for all.
pub fn print_rows(header: &[&str], rows: Vec<Vec<String>>, wide: &[&str]) {
    let width = Table::new().width().filter(|_| !SHOW_ALL.load(Ordering::Relaxed));
    let mut table = table(&[]);
    // Cells have their line ends already.
    table.set_content_arrangement(ContentArrangement::Disabled);
    let layout = match width {
        Some(width) => fit(header, &rows, wide, usize::from(width)),
        None => Layout {
            lines: std::iter::once(header.iter().map(|name| (*name).to_owned()).collect()).chain(rows).collect(),
            hidden: Vec::new(),
        },
    };
    let mut lines = layout.lines.into_iter();
    table.set_header(lines.next().unwrap_or_default());
    lines.for_each(|line| {
        table.add_row(line);
    });
    anstream::println!("{table}");
    if !layout.hidden.is_empty() {
        anstream::eprintln!("not shown for lack of room: {} (--wide shows them)", layout.hidden.join(", "));
    }
}

impl Output {
    /// Prints records: as a table whose rows `row` makes, or as JSON.
    pub fn records<T: Serialize>(
        self,
        records: &[T],
        header: &[&str],
        row: impl Fn(&T) -> Vec<String>,
    ) -> Result<(), CliError> {
        self.records_with(records, header, &[], row)
    }

    /// The same; the columns `wide` are the first to be left out where the terminal has no room for all.
    pub fn records_with<T: Serialize>(
        self,
        records: &[T],
        header: &[&str],
        wide: &[&str],
        row: impl Fn(&T) -> Vec<String>,
    ) -> Result<(), CliError> {
        match self {
            Output::Json => print_json(&records),
            Output::Human if records.is_empty() => {
                anstream::println!("none");
                Ok(())
            }
            Output::Human => {
                print_rows(header, records.iter().map(row).collect(), wide);
                Ok(())
            }
        }
    }

    /// Prints messages of a service: as a table whose rows `row` makes, or as JSON.
    pub fn messages<M: Message + Name>(
        self,
        messages: &[M],
        header: &[&str],
        row: impl Fn(&M) -> Vec<String>,
    ) -> Result<(), CliError> {
        self.messages_with(messages, header, &[], row)
    }

    /// The same; the columns `wide` are the first to be left out where the terminal has no room for all.
    pub fn messages_with<M: Message + Name>(
        self,
        messages: &[M],
        header: &[&str],
        wide: &[&str],
        row: impl Fn(&M) -> Vec<String>,
    ) -> Result<(), CliError> {
        match self {
            Output::Json => print_json(&messages.iter().map(message_json).collect::<Result<Vec<_>, _>>()?),
            Output::Human => {
                let rows: Vec<Vec<String>> = messages.iter().map(row).collect();
                self.records_with(&rows, header, wide, Clone::clone)
            }
        }
    }

    /// Prints one message of a service: a sentence, or JSON.
    pub fn message<M: Message + Name>(self, message: &M, sentence: impl FnOnce() -> String) -> Result<(), CliError> {
        match self {
            Output::Json => print_json(&message_json(message)?),
            Output::Human => self.result(&(), sentence),
        }
    }

    /// Prints one result: a sentence, or JSON.
    pub fn result<T: Serialize>(self, value: &T, sentence: impl FnOnce() -> String) -> Result<(), CliError> {
        match self {
            Output::Json => print_json(value),
            Output::Human => {
                anstream::println!("{}", sentence());
                Ok(())
            }
        }
    }
}

/// The JSON form of a message: every field by its name in the contract, numbers as numbers, times as RFC 3339 (null: none, or no end), a
/// value of an enum by its name in lower case.
pub fn message_json<M: Message + Name>(message: &M) -> Result<Value, CliError> {
    static CONTRACTS: OnceLock<Option<DescriptorPool>> = OnceLock::new();
    let pool = CONTRACTS.get_or_init(|| DescriptorPool::decode(crate::contract::EMBEDDED).ok());
    let descriptor = pool.as_ref().and_then(|pool| pool.get_message_by_name(&M::full_name()));
    let dynamic = descriptor.and_then(|one| DynamicMessage::decode(one, message.encode_to_vec().as_slice()).ok());
    let dynamic = dynamic.ok_or_else(|| CliError::Failed(format!("{} cannot be printed", M::full_name())))?;
    Ok(object_json(&dynamic))
}

fn object_json(message: &DynamicMessage) -> Value {
    let fields = message.descriptor();
    let fields = fields.fields().filter(|field| !field.supports_presence() || message.has_field(field));
    let named = |field: prost_reflect::FieldDescriptor| match &*message.get_field(&field) {
        // Signed numbers of 64 bits are times in these services, and nothing else is.
        Field::I64(time) => match field.name().strip_suffix("_us") {
            Some(name) => (name.to_owned(), timestamp(time.div_euclid(1_000_000))),
            None => (field.name().to_owned(), timestamp(*time)),
        },
        value => (field.name().to_owned(), field_json(value, &field.kind())),
    };
    Value::Object(fields.map(named).collect::<Map<String, Value>>())
}

fn field_json(value: &Field, kind: &Kind) -> Value {
    match value {
        Field::Bool(value) => Value::from(*value),
        Field::I32(value) => Value::from(*value),
        Field::I64(value) => Value::from(*value),
        Field::U32(value) => Value::from(*value),
        Field::U64(value) => Value::from(*value),
        Field::F32(value) => Value::from(*value),
        Field::F64(value) => Value::from(*value),
        Field::String(value) => Value::from(value.as_str()),
        Field::Bytes(value) => Value::from(crate::hex::hex(value)),
        Field::EnumNumber(number) => Value::from(enum_text(*number, kind)),
        Field::Message(message) => object_json(message),
        Field::List(items) => items.iter().map(|item| field_json(item, kind)).collect(),
        // No message of these services has a map.
        Field::Map(_) => Value::Null,
    }
}

/// `administrator` of `ROLE_ADMINISTRATOR` or `ADMINISTRATOR`.
fn enum_text(number: i32, kind: &Kind) -> String {
    let Kind::Enum(descriptor) = kind else { return number.to_string() };
    let Some(value) = descriptor.get_value(number) else { return number.to_string() };
    let mut prefix = String::new();
    for (at, letter) in descriptor.name().char_indices() {
        if at > 0 && letter.is_ascii_uppercase() {
            prefix.push('_');
        }
        prefix.push(letter.to_ascii_uppercase());
    }
    let name = value.name();
    let bare = name.strip_prefix(&prefix).and_then(|rest| rest.strip_prefix('_')).unwrap_or(name);
    bare.to_ascii_lowercase()
}

/// Returns a JSON value as a cell: texts unchanged, lists joined by spaces.
pub fn cell(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// A progress bar for long work on a terminal: `what` as a sentence with `{pos}`, `{len}`, `{per_sec}`.
pub fn bar(what: &str) -> Result<indicatif::ProgressBar, CliError> {
    let style = indicatif::ProgressStyle::with_template(what).map_err(|error| CliError::Failed(error.to_string()))?;
    let whole = |state: &indicatif::ProgressState, out: &mut dyn std::fmt::Write| {
        // A line that cannot be drawn is no fault of the work.
        let _ = write!(out, "{:.0}/s", state.per_sec());
    };
    Ok(indicatif::ProgressBar::new(0).with_style(style.with_key("per_sec", whole)))
}

/// Prints JSON.
pub fn print_json<T: Serialize + ?Sized>(value: &T) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(value).map_err(|error| CliError::Failed(error.to_string()))?;
    anstream::println!("{text}");
    Ok(())
}

/// From here on, a time means that there is no end.
const NO_END: i64 = i32::MAX as i64 * 4;

/// Formats a Unix time in seconds for people in Ho Chi Minh City: `2026-11-28 12:10:07+07`.
pub fn time(seconds: i64) -> String {
    if seconds >= NO_END { "no end".to_owned() } else { local(&timestamp_text(seconds)) }
}

/// The same of a time as RFC 3339 has it, without fractions of a second.
pub fn local(timestamp: &str) -> String {
    match (timestamp.get(..19), timestamp.ends_with("+07:00")) {
        (Some(time), true) => format!("{}+07", time.replace('T', " ")),
        _ => timestamp.to_owned(),
    }
}

/// The JSON form of a Unix time in seconds: RFC 3339, or null for none and for no end.
pub fn timestamp(seconds: i64) -> Value {
    if seconds == 0 || seconds >= NO_END { Value::Null } else { timestamp_text(seconds).into() }
}

/// A duration such as `30m`, `24h`, `90d`.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    let wrong = || format!("{text:?} is no duration: write 30m, 24h or 90d");
    if let Some(days) = text.strip_suffix('d') {
        let days: u64 = days.parse().map_err(|_| wrong())?;
        return days.checked_mul(86_400).map(std::time::Duration::from_secs).ok_or_else(wrong);
    }
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    std::time::Duration::try_from(parsed).map_err(|_| wrong())
}

/// A number of things: `1 entry`, `2 entries`, `0 entries`.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// `1 entry`, `2 entries`.
pub fn entries(number: u64) -> String {
    counted(number, "entry", "entries")
}

/// At most 60 characters of a text.
pub fn short(text: &str) -> String {
    if text.chars().count() <= 60 { text.to_owned() } else { text.chars().take(59).collect::<String>() + "…" }
}

/// Seconds of a duration, as the services take them.
pub fn seconds(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}
