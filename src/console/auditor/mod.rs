//! The auditor's room: figures, people's reports, holds, findings, checkpoints, exports, and what comes in.

pub(super) mod checkpoints;
pub(super) mod exports;
pub(crate) mod figures;
pub(super) mod findings;
pub(super) mod holds;
pub(super) mod statistics;
pub(super) mod subject;
pub(super) mod tail;

use super::form::Form;
use super::text::Locale;
use crate::time_zone::HO_CHI_MINH;
use maud::{Markup, html};
use tonic::Status;
use tonic_types::StatusExt;

/// A field of a form.
struct Field<'f> {
    /// Its name in the form.
    name: &'static str,
    /// Its text's key.
    label: &'static str,
    /// The HTML input type: `text`, `date`.
    kind: &'static str,
    /// Its value.
    value: &'f str,
    /// The key of its error's text.
    error: Option<&'static str>,
}

/// A field with its label and its error.
fn field(locale: Locale, field: &Field<'_>) -> Markup {
    let error = format!("{}-error", field.name);
    html! {
        label { (locale.text(field.label))
            input type=(field.kind) name=(field.name) value=(field.value) autocomplete="off"
                aria-invalid=[field.error.map(|_| "true")] aria-describedby=[field.error.map(|_| &error)];
            @if let Some(key) = field.error { span.error id=(error) { (locale.text(key)) } }
        }
    }
}

/// The field for what somebody has found out; with what was written and is wrong.
fn reason_field(locale: Locale, name: &str, written: Option<&Form>) -> Markup {
    html! {
        label { (locale.text("review-reason"))
            textarea name=(name) rows="2" maxlength="500" required aria-invalid=[written.map(|_| "true")] {
                (written.map_or("", |form| form.text(name)))
            }
            @if written.is_some() { span.error role="alert" { (locale.text("error-reason")) } }
        }
    }
}

/// Whether a service refuses the words that say why, and nothing else.
fn is_of_reason(status: &Status) -> bool {
    let details = status.get_error_details();
    details.bad_request().is_some_and(|wrong| wrong.field_violations.iter().any(|one| one.field == "reason"))
}

/// The beginning of a day in Vietnam, days later, in microseconds; `Some(0)` where nothing is given.
fn day_us(text: &str, later: i64) -> Option<i64> {
    if text.is_empty() {
        return Some(0);
    }
    let date: jiff::civil::Date = text.parse().ok()?;
    let at = HO_CHI_MINH.to_timestamp(date.at(0, 0, 0, 0)).ok()?;
    at.as_microsecond().checked_add(later.checked_mul(86_400_000_000)?)
}

/// The date in Vietnam that many days ago, as `date` fields write it.
fn days_ago(days: i64) -> String {
    let at = crate::registry::now().saturating_sub(days.saturating_mul(crate::time_zone::DAY_S));
    jiff::Timestamp::from_second(at).map_or_else(|_| String::new(), |at| HO_CHI_MINH.to_datetime(at).date().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_at_midnight_in_vietnam() {
        assert_eq!(day_us("2026-11-27", 0), Some(1_795_712_400_000_000));
        assert_eq!(day_us("2026-11-26", 1), day_us("2026-11-27", 0));
        assert_eq!((day_us("", 1), day_us("27/11/2026", 0), day_us("2026-02-30", 0)), (Some(0), None, None));
    }
}
