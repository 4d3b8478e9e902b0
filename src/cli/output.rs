//! How results are printed: tables for people, JSON for scripts.

use super::CliError;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// Tables and sentences.
    Human,
    /// JSON: one document, or one line for each record.
    Json,
}

/// A table with its header.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.to_vec());
    table
}

impl Output {
    /// Prints records: as a table whose rows `row` makes, or as JSON.
    pub fn records<T: Serialize>(
        self,
        records: &[T],
        header: &[&str],
        row: impl Fn(&T) -> Vec<String>,
    ) -> Result<(), CliError> {
        match self {
            Output::Json => print_json(&records),
            Output::Human if records.is_empty() => {
                anstream::println!("none");
                Ok(())
            }
            Output::Human => {
                let mut table = table(header);
                for record in records {
                    table.add_row(row(record));
                }
                anstream::println!("{table}");
                Ok(())
            }
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

/// A JSON value as a cell: texts as they are, lists joined by spaces.
pub fn cell(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// A bar for long work on a terminal: `what` as a sentence with `{pos}`, `{len}`, `{per_sec}`.
pub fn bar(what: &str) -> Result<indicatif::ProgressBar, CliError> {
    let style = indicatif::ProgressStyle::with_template(what).map_err(|error| CliError::Failed(error.to_string()))?;
    Ok(indicatif::ProgressBar::new(0).with_style(style))
}

/// Prints JSON.
pub fn print_json<T: Serialize + ?Sized>(value: &T) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(value).map_err(|error| CliError::Failed(error.to_string()))?;
    anstream::println!("{text}");
    Ok(())
}

/// A Unix time in seconds as people in Ho Chi Minh City read it.
pub fn time(seconds: i64) -> String {
    if seconds >= i64::from(i32::MAX) * 4 {
        return "no end".to_owned();
    }
    match jiff::Timestamp::from_second(seconds) {
        Ok(time) => {
            let local = crate::contract::map::date::HO_CHI_MINH.to_datetime(time);
            local.strftime("%Y-%m-%d %H:%M:%S").to_string()
        }
        Err(_) => seconds.to_string(),
    }
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

/// At most 60 characters of a text.
pub fn short(text: &str) -> String {
    if text.chars().count() <= 60 { text.to_owned() } else { text.chars().take(59).collect::<String>() + "…" }
}
