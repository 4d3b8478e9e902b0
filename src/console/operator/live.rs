//! The gateway's current state: the part of the first page that refreshes itself.

use crate::admin::api::admin_service_server::AdminService;
use crate::admin::api::{
    BreakerState, GetOverviewRequest, GetOverviewResponse, LogOverview, SourceOverview, WitnessOverview,
};
use crate::console::failure::{Failure, message_of};
use crate::console::session::{SignedIn, Watching};
use crate::console::table::{properties, table};
use crate::console::text::Locale;
use crate::console::{Console, request};
use crate::status::Reason;
use axum::extract::State;
use maud::{Markup, html};
use std::sync::Arc;

/// Number of days from which the page shows that the disk does not fill.
const NEVER_FULL_DAYS: f64 = 3_650.0;

/// Returns the administration service's overview.
///
/// # Errors
/// The error page of the service's status.
pub async fn overview(console: &Console, session: &SignedIn) -> Result<GetOverviewResponse, Failure> {
    message_of(session, console.admin.get_overview(request(session, GetOverviewRequest {})).await)
}

/// Returns the part alone, for the refresh.
pub async fn fragment(State(console): State<Arc<Console>>, Watching(session): Watching) -> Result<Markup, Failure> {
    Ok(part(session.locale, &overview(&console, &session).await?))
}

/// Shows the part.
pub fn part(locale: Locale, overview: &GetOverviewResponse) -> Markup {
    let named: Vec<&SourceOverview> = overview.sources.iter().filter(|source| !source.id.is_empty()).collect();
    let open = named.iter().filter(|source| worst(source) == BreakerState::BreakerOpen).count();
    let streams: u64 = named.iter().flat_map(|source| &source.guards).map(|guard| u64::from(guard.streams)).sum();
    let calls: u64 = overview.windows.iter().map(|window| window.calls).sum();
    let failed: u64 = overview.windows.iter().map(|window| window.failed).sum();
    let log = overview.log.unwrap_or_default();
    let minutes = locale.number(u64::from(overview.period_s.div_ceil(60)));
    html! {
        @if overview.faults.is_empty() {
            p.state.good { (locale.text("live-ready")) }
        } @else {
            div.notice.wrong role="alert" {
                p { strong { (locale.text("live-not-ready")) } }
                @for fault in &overview.faults { p { (fault) } }
            }
        }
        section.cards aria-label=(locale.text("live-now")) {
            (card(&locale.number(calls), &locale.with("live-calls", "minutes", minutes)))
            (card(&percent(locale, failed, calls), &locale.text("live-failed")))
            (card(&format!("{open}/{}", named.len()), &locale.text("live-breakers")))
            (card(&locale.number(streams), &locale.text("live-streams")))
            (card(&locale.number(log.unsealed_entries), &locale.text("log-unsealed")))
            (card(&days(locale, &log), &locale.text("live-disk-days")))
        }
        h2 { (locale.text("live-by-source")) }
        (sources(locale, &overview.sources))
        h2 { (locale.text("overview-log")) }
        (log_state(locale, &log))
        @if !overview.witnesses.is_empty() { (witnesses(locale, &overview.witnesses, log.entries)) }
    }
}

fn card(figure: &str, what: &str) -> Markup {
    html! { div.card { strong { (figure) } span { (what) } } }
}

/// Shows sources as a table, each with its figures.
pub fn sources(locale: Locale, all: &[SourceOverview]) -> Markup {
    let row = |source: &SourceOverview| {
        let failed = source.hub_faults + source.source_faults + source.gateway_faults;
        vec![
            html! {
                @if source.id.is_empty() { (locale.text("source-none")) }
                @else { a href={ "/console/sources/" (source.id) } { (name(locale, source)) } }
            },
            html! { @if !source.id.is_empty() { (breaker(locale, worst(source))) } },
            html! { (locale.number(source.calls)) },
            html! { (percent(locale, failed, source.calls)) },
            html! { (percent(locale, source.caller_faults, source.calls)) },
            html! { (millis(locale, source.p50_us)) " / " (millis(locale, source.p99_us)) },
            html! { (last_error(locale, source)) },
        ]
    };
    let headings = [
        "column-source",
        "column-breaker",
        "column-calls",
        "column-failed",
        "column-refused",
        "column-times",
        "column-last-error",
    ];
    table(locale, "live-by-source", &headings, &all.iter().map(row).collect::<Vec<_>>())
}

fn last_error(locale: Locale, source: &SourceOverview) -> Markup {
    html! {
        @if let Some(error) = source.errors.first() {
            code { (error.reason) } " " (fault(locale, &error.fault)) br; (locale.timestamp(error.last_seen))
        } @else { "–" }
    }
}

/// Returns the source's name in the reader's language.
pub fn name(locale: Locale, source: &SourceOverview) -> String {
    let name = if locale == Locale::Vietnamese { &source.name_vi } else { &source.name };
    if name.is_empty() { source.id.clone() } else { name.clone() }
}

/// Returns the localized name of the party at fault.
pub fn fault(locale: Locale, owner: &str) -> String {
    match owner {
        "caller" => locale.text("fault-caller"),
        "gateway" => locale.text("fault-gateway"),
        "hub" => locale.text("fault-hub"),
        "source" => locale.text("fault-source"),
        other => other.to_owned(),
    }
}

/// Returns what a reason means and what to do about it; empty for one that this version does not know.
pub fn meaning(locale: Locale, reason: &str) -> &'static str {
    let known = Reason::ALL.iter().find(|known| known.as_str() == reason);
    known.map_or("", |reason| match locale {
        Locale::Vietnamese => reason.vietnamese(),
        Locale::English => reason.english(),
    })
}

/// Returns the worst state of a source's breakers.
pub fn worst(source: &SourceOverview) -> BreakerState {
    source.guards.iter().map(|guard| guard.breaker()).max_by_key(|state| *state as i32).unwrap_or_default()
}

/// Shows a breaker's state.
pub fn breaker(locale: Locale, state: BreakerState) -> Markup {
    let (key, kind) = match state {
        BreakerState::BreakerClosed => ("breaker-closed", "good"),
        BreakerState::BreakerHalfOpen => ("breaker-half-open", "later"),
        BreakerState::BreakerOpen => ("breaker-open", "wrong"),
        BreakerState::Unspecified => ("breaker-unknown", "gone"),
    };
    html! { span.state.(kind) { (locale.text(key)) } }
}

/// A share in percent, with one decimal; a dash if the total is 0.
fn percent(locale: Locale, part: u64, all: u64) -> String {
    if all == 0 {
        return "–".to_owned();
    }
    format!("{} %", decimal(locale, part as f64 * 100.0 / all as f64))
}

/// Formats microseconds as milliseconds; a dash for 0.
pub fn millis(locale: Locale, us: u64) -> String {
    match us {
        0 => "–".to_owned(),
        us if us >= 100_000 => format!("{} ms", locale.number(us / 1_000)),
        us => format!("{} ms", decimal(locale, us as f64 / 1_000.0)),
    }
}

/// Formats a number with one decimal.
pub fn decimal(locale: Locale, number: f64) -> String {
    let text = format!("{number:.1}");
    if locale == Locale::Vietnamese { text.replace('.', ",") } else { text }
}

fn days(locale: Locale, log: &LogOverview) -> String {
    match log.disk_days {
        _ if log.disk_free_bytes == 0 => "–".to_owned(),
        days if days >= NEVER_FULL_DAYS => format!("> {}", locale.number(NEVER_FULL_DAYS as u64)),
        days => locale.number(days.max(0.0) as u64),
    }
}

fn log_state(locale: Locale, log: &LogOverview) -> Markup {
    let gigabytes = log.disk_free_bytes as f64 / f64::from(1_u32 << 30);
    let free = if log.disk_free_bytes == 0 { "–".to_owned() } else { format!("{} GiB", decimal(locale, gigabytes)) };
    let age = locale.with("live-seconds", "seconds", locale.number(log.checkpoint_age_s.into()));
    properties(
        locale,
        &[
            ("log-entries", html! { (locale.number(log.entries)) }),
            ("log-unsealed", html! { (locale.number(log.unsealed_entries)) }),
            ("live-checkpoint-age", html! { (age) }),
            ("live-disk-free", html! { (free) }),
            ("live-disk-days", html! { (days(locale, log)) }),
        ],
    )
}

/// Shows witnesses, each with how far it has cosigned a log of so many entries.
pub fn witnesses(locale: Locale, all: &[WitnessOverview], entries: u64) -> Markup {
    let row = |one: &WitnessOverview| {
        let (key, kind) = if one.up { ("witness-up", "good") } else { ("witness-down", "wrong") };
        vec![
            html! { (one.name) },
            html! { span.state.(kind) { (locale.text(key)) } },
            html! { (locale.number(one.entries)) },
            html! { (locale.number(entries.saturating_sub(one.entries))) },
        ]
    };
    let headings = ["column-witness", "column-state", "column-cosigned", "column-behind"];
    html! {
        h2 { (locale.text("witnesses")) }
        (table(locale, "witnesses", &headings, &all.iter().map(row).collect::<Vec<_>>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_follow_the_language_and_a_missing_value_is_not_zero() {
        let (vi, en) = (Locale::Vietnamese, Locale::English);
        assert_eq!(
            (millis(vi, 1_250), millis(en, 12_340), millis(en, 2_345_678)),
            ("1,2 ms".into(), "12.3 ms".into(), "2,345 ms".into())
        );
        assert_eq!((millis(en, 0), percent(en, 0, 0), percent(vi, 1, 8)), ("–".into(), "–".into(), "12,5 %".into()));
        let log = |disk_free_bytes, disk_days| LogOverview { disk_free_bytes, disk_days, ..Default::default() };
        assert_eq!(
            (days(en, &log(0, 9.0)), days(en, &log(1, 9.9)), days(vi, &log(1, 3_650.0))),
            ("–".into(), "9".into(), "> 3.650".into())
        );
    }
}
