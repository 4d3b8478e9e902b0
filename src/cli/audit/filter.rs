//! The filter of entries.

use crate::audit::service::api;
use crate::cli::suggestion;
use crate::status::Reason;
use clap::Args;

/// The filter of a search; an option that is not given matches all.
#[derive(Args, Default, Clone)]
pub struct Filter {
    /// By client.
    #[arg(long)]
    client: Option<String>,
    /// By agency code, including those below it.
    #[arg(long)]
    agency: Option<String>,
    /// By source.
    #[arg(long)]
    source: Option<String>,
    /// By operation: a part of its name.
    #[arg(long)]
    operation: Option<String>,
    /// By scope.
    #[arg(long)]
    scope: Option<String>,
    /// By reason (`SCOPE_NOT_GRANTED`; `OK` for success).
    #[arg(long)]
    reason: Option<String>,
    /// By admin event (`audit.review`).
    #[arg(long)]
    event: Option<String>,
    /// By the grant that admitted an exchange.
    #[arg(long)]
    grant: Option<String>,
    /// By access token, by its id.
    #[arg(long)]
    token: Option<String>,
    /// By purpose or dossier number.
    #[arg(long)]
    purpose: Option<String>,
    /// By the person or enterprise: the gateway turns the id into its pseudonyms.
    #[arg(long, value_name = "ID", requires = "case")]
    subject: Option<String>,
    /// Another id of the same person or enterprise; may be given several times.
    #[arg(long = "or-subject", value_name = "ID", requires = "subject")]
    other_subjects: Vec<String>,
    /// By the acting official.
    #[arg(long, value_name = "ID", requires = "case")]
    official: Option<String>,
    /// The reason of a search for a person: the number of a document or case. The search and this number are logged.
    #[arg(long, value_name = "NUMBER", value_parser = case_number)]
    pub case: Option<String>,
    /// From this time on (`2026-11-25`, `2026-11-25T08:00`; Ho Chi Minh City).
    #[arg(long, value_parser = local_time)]
    from: Option<i64>,
    /// Until this time.
    #[arg(long, value_parser = local_time)]
    to: Option<i64>,
    #[arg(skip)]
    from_log: bool,
}

/// A local time as Unix microseconds.
pub fn local_time(text: &str) -> Result<i64, String> {
    let parsed = text
        .parse::<jiff::civil::DateTime>()
        .or_else(|_| text.parse::<jiff::civil::Date>().map(|date| date.at(0, 0, 0, 0)));
    let local = parsed.map_err(|_| format!("{text:?} is no time: write 2026-11-25 or 2026-11-25T08:00"))?;
    let time = crate::time_zone::HO_CHI_MINH.to_timestamp(local).map_err(|error| error.to_string())?;
    Ok(time.as_microsecond())
}

/// The number of a document or case: nothing that could name a person.
pub fn case_number(text: &str) -> Result<String, String> {
    use crate::contract::formats::{Format, check};
    if text.len() <= 64 && check(Format::Code, text).is_ok() {
        Ok(text.to_owned())
    } else {
        Err("must be a document or case number of letters, digits and . - _ / (at most 64)".into())
    }
}

impl Filter {
    /// Search the log itself, without the search index: slow, and correct even if the index's key was stolen.
    pub fn with_log_alone(&self) -> Self {
        Filter { from_log: true, ..self.clone() }
    }

    /// Returns whether the search reads the log itself.
    pub fn is_from_log(&self) -> bool {
        self.from_log
    }

    /// Returns whether it searches for a person.
    pub fn has_subject(&self) -> bool {
        self.subject.is_some() || self.official.is_some()
    }

    /// Makes a filter for everything about one person or enterprise in a period. Several ids are those of one person or
    /// enterprise.
    pub fn about(ids: &[String], case: String, from: Option<i64>, to: Option<i64>) -> Self {
        let mut ids = ids.iter().cloned();
        Filter { subject: ids.next(), other_subjects: ids.collect(), case: Some(case), from, to, ..Filter::default() }
    }

    /// Returns it as a query of the service.
    pub fn request(&self) -> api::Query {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        api::Query {
            client: text(&self.client),
            agency: text(&self.agency),
            source: text(&self.source),
            operation: text(&self.operation),
            scope: text(&self.scope),
            outcome: text(&self.reason),
            purpose: text(&self.purpose),
            from_us: self.from.unwrap_or_default(),
            to_us: self.to.unwrap_or_default(),
            subject: text(&self.subject),
            official: text(&self.official),
            other_subjects: self.other_subjects.clone(),
            exchange_id: String::new(),
            event: text(&self.event),
            grant: text(&self.grant),
            token: text(&self.token),
        }
    }

    /// Returns what may be wrong with a filter that nothing matches: a value that this program does not know. A log may
    /// have others, of another version's contracts or reasons.
    pub fn hint(&self) -> Option<String> {
        let known = || Reason::ALL.iter().map(|reason| reason.as_str()).chain(["OK"]);
        let reason =
            self.reason.as_deref().and_then(|given| suggestion::hint("reason", given, known().collect::<Vec<_>>()));
        reason.or_else(|| suggestion::hint_source(self.source.as_deref()?))
    }

    /// Returns the client that it is limited to.
    pub fn client(&self) -> Option<&str> {
        self.client.as_deref()
    }

    /// Returns the reason of a search for a person; empty for any other.
    pub fn why(&self) -> String {
        self.case.clone().filter(|_| self.subject.is_some() || self.official.is_some()).unwrap_or_default()
    }
}
