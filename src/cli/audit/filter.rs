//! Which entries are meant.

use crate::cli::CliError;
use crate::contract::formats::is_within;
use crate::exchange_log::pseudonym::{PersonKind, Pseudonyms};
use crate::exchange_log::reader::{Found, LogReader};
use crate::exchange_log::{Entry, entry};
use clap::Args;

/// Which entries are meant; what is not said fits all.
#[derive(Args, Default)]
pub struct Filter {
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
}

/// A local time as Unix microseconds.
pub fn local_time(text: &str) -> Result<i64, String> {
    let parsed = text
        .parse::<jiff::civil::DateTime>()
        .or_else(|_| text.parse::<jiff::civil::Date>().map(|date| date.at(0, 0, 0, 0)));
    let local = parsed.map_err(|_| format!("{text:?} is no time: write 2026-11-25 or 2026-11-25T08:00"))?;
    let time = crate::contract::map::date::HO_CHI_MINH.to_timestamp(local).map_err(|error| error.to_string())?;
    Ok(time.as_microsecond())
}

impl Filter {
    /// Everything about one person or enterprise in a period.
    pub fn about(subject: String, from: Option<i64>, to: Option<i64>) -> Self {
        Filter { subject: Some(subject), from, to, ..Filter::default() }
    }

    /// Entries that fit, newest first, at most `limit`.
    pub fn search(&self, reader: &LogReader, pseudonyms: &Pseudonyms, limit: usize) -> Result<Vec<Found>, CliError> {
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
            found.len() < limit
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
            && self.agency.as_ref().is_none_or(|agency| is_within(agency, &entry.agency))
            && self.operation.as_ref().is_none_or(|part| entry.operation.contains(part.as_str()))
            && self.from.is_none_or(|from| entry.time_us >= from)
            && self.to.is_none_or(|to| entry.time_us < to)
    }
}
