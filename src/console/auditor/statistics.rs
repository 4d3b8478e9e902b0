//! The statistics of a period.

use super::figures::Figures;
use super::{Field, day_us, days_ago, field};
use crate::audit::service::api::audit_service_server::AuditService;
use crate::audit::service::api::{Bucket, CountExchangesRequest, Query, StatisticsRequest};
use crate::console::failure::{Failure, message_of};
use crate::console::form::Form;
use crate::console::session::SignedIn;
use crate::console::text::Locale;
use crate::console::{Console, layout, request};
use axum::extract::State;
use futures_util::TryStreamExt;
use http::StatusCode;
use maud::{Markup, html};
use std::sync::Arc;

const HERE: &str = "/console/statistics";
/// Days that are shown by default.
const USUAL_DAYS: i64 = 6;
/// Maximum period in days that is counted by hour; a longer one is counted by day.
const HOURS_UP_TO_US: i64 = 31 * 86_400_000_000;

/// Shows the page.
pub async fn page(
    State(console): State<Arc<Console>>,
    session: SignedIn,
    form: Form,
) -> Result<(StatusCode, Markup), Failure> {
    let locale = session.locale;
    let from = if form.text("from").is_empty() { days_ago(USUAL_DAYS) } else { form.text("from").to_owned() };
    let to = if form.text("to").is_empty() { days_ago(0) } else { form.text("to").to_owned() };
    let (from_us, to_us) = (day_us(&from, 0), day_us(&to, 1));
    let ordered = from_us.zip(to_us).is_none_or(|(from, to)| from < to);
    let errors = (
        from_us.is_none().then_some("error-date"),
        if ordered { to_us.is_none().then_some("error-date") } else { Some("error-period") },
    );
    let filter = filter(locale, &form, (&from, &to), errors);
    let (Some(from_us), Some(to_us), true) = (from_us, to_us, ordered) else {
        return Ok((
            StatusCode::BAD_REQUEST,
            layout::page(&session, HERE, &locale.text("menu-statistics"), &html! { (filter) }),
        ));
    };
    let text = |name: &str| form.text(name).to_owned();
    let query = Query {
        client: text("client"),
        source: text("source"),
        purpose: text("purpose"),
        from_us,
        to_us,
        ..Query::default()
    };
    let hours = to_us - from_us <= HOURS_UP_TO_US;
    // The index has no purposes.
    let exact = form.text("exact") == "yes" || !query.purpose.is_empty();
    let figures = if exact {
        counted(&console, &session, query, hours).await?
    } else {
        of_index(&console, &session, query, hours).await?
    };
    let body = html! {
        (filter)
        @if !exact { p.hint { (locale.text("figures-by-index")) } }
        (figures.body(locale))
    };
    Ok((StatusCode::OK, layout::page(&session, HERE, &locale.text("menu-statistics"), &body)))
}

fn bucket(hours: bool) -> i32 {
    if hours { Bucket::Hour.into() } else { Bucket::Day.into() }
}

async fn of_index(console: &Console, session: &SignedIn, query: Query, hours: bool) -> Result<Figures, Failure> {
    let message = StatisticsRequest { query: Some(query), bucket: bucket(hours) };
    let found = message_of(session, console.audit.statistics(request(session, message)).await)?;
    let (counts, complete, not_counted) = (found.counts, found.complete, found.not_counted);
    Ok(Figures { counts, hours, not_counted, complete, ..Figures::default() })
}

async fn counted(console: &Console, session: &SignedIn, query: Query, hours: bool) -> Result<Figures, Failure> {
    let message = CountExchangesRequest { query: Some(query), bucket: bucket(hours), reason: String::new() };
    let mut parts = message_of(session, console.audit.count_exchanges(request(session, message)).await)?;
    let mut figures = Figures { hours, ..Figures::default() };
    while let Some(part) = parts.try_next().await.map_err(|status| Failure::of(session, &status))? {
        if part.complete.is_some() {
            let (counts, complete, purposes) = (part.counts, part.complete, part.purposes);
            let (not_counted, other_purposes) = (part.not_counted, part.other_purposes);
            figures = Figures { counts, hours, purposes, other_purposes, not_counted, complete };
        }
    }
    Ok(figures)
}

type Errors = (Option<&'static str>, Option<&'static str>);

fn filter(locale: Locale, form: &Form, (from, to): (&str, &str), errors: Errors) -> Markup {
    let text = |name: &'static str, label: &'static str| {
        field(locale, &Field { name, label, kind: "text", value: form.text(name), error: None })
    };
    html! {
        form.filter method="get" action=(HERE) {
            (field(locale, &Field { name: "from", label: "period-from", kind: "date", value: from, error: errors.0 }))
            (field(locale, &Field { name: "to", label: "period-to", kind: "date", value: to, error: errors.1 }))
            (text("client", "column-client"))
            (text("source", "column-source"))
            (text("purpose", "column-purpose"))
            label.choice {
                input type="checkbox" name="exact" value="yes" checked[form.text("exact") == "yes"];
                (locale.text("figures-exact"))
            }
            button type="submit" { (locale.text("figures-show")) }
        }
    }
}
