//! Anomalies that simple rules find in a period, with their entries.

use super::{Field, day_us, days_ago, field, is_of_reason, reason_field};
use crate::audit::service::api::audit_service_server::AuditService;
use crate::audit::service::api::{Finding, ListFindingsRequest, ReviewFindingRequest};
use crate::console::failure::{Failure, message_of};
use crate::console::form::{Form, Sent};
use crate::console::session::SignedIn;
use crate::console::table::table;
use crate::console::text::Locale;
use crate::console::{Console, exchanges, layout, request};
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use maud::{Markup, html};
use std::sync::Arc;

const HERE: &str = "/console/findings";
/// Days that are shown by default.
const USUAL_DAYS: i64 = 6;
/// Maximum period in days.
const LONGEST_US: i64 = 31 * 86_400_000_000;
/// Maximum of linked entries per anomaly.
const LINKED: usize = 20;

/// Shows the page.
pub async fn page(
    State(console): State<Arc<Console>>,
    session: SignedIn,
    form: Form,
) -> Result<(StatusCode, Markup), Failure> {
    shown(&console, &session, &form, None).await
}

/// A period as its two fields have it, in microseconds; what is wrong with each where it is none.
struct Period {
    from: String,
    to: String,
    us: Option<(i64, i64)>,
    errors: (Option<&'static str>, Option<&'static str>),
}

impl Period {
    fn of(form: &Form) -> Self {
        let given = |name: &str, days: i64| match form.text(name) {
            "" => days_ago(days),
            text => text.to_owned(),
        };
        let (from, to) = (given("from", USUAL_DAYS), given("to", 0));
        let (from_us, to_us) = (day_us(&from, 0), day_us(&to, 1));
        let us = from_us.zip(to_us).filter(|(from, to)| from < to && to - from <= LONGEST_US);
        let of_period = (from_us.is_some() && to_us.is_some() && us.is_none()).then_some("error-month");
        let wrong = |us: Option<i64>| us.is_none().then_some("error-date");
        Period { us, errors: (wrong(from_us), wrong(to_us).or(of_period)), from, to }
    }

    fn query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("from", &self.from).append_pair("to", &self.to).finish()
    }
}

/// The page; with a review that was sent and is wrong.
async fn shown(
    console: &Console,
    session: &SignedIn,
    form: &Form,
    wrong: Option<&Form>,
) -> Result<(StatusCode, Markup), Failure> {
    let locale = session.locale;
    let period = Period::of(form);
    let Period { from, to, errors, .. } = &period;
    let filter = html! {
        form.filter method="get" action=(HERE) {
            (field(locale, &Field { name: "from", label: "period-from", kind: "date", value: from, error: errors.0 }))
            (field(locale, &Field { name: "to", label: "period-to", kind: "date", value: to, error: errors.1 }))
            button type="submit" { (locale.text("filter")) }
        }
    };
    let title = locale.text("menu-findings");
    let Some((from_us, to_us)) = period.us else {
        return Ok((StatusCode::BAD_REQUEST, layout::page(session, HERE, &title, &filter)));
    };
    let message = ListFindingsRequest { from_us, to_us };
    let found = message_of(session, console.audit.list_findings(request(session, message)).await)?;
    let rows: Vec<Vec<Markup>> = found.findings.iter().map(|one| row(session, &period, one, wrong)).collect();
    let headings = ["finding-rule", "column-client", "finding-explanation", "finding-entries", "finding-review"];
    let body = html! {
        (filter)
        p.hint { (locale.text("finding-hint")) }
        (table(locale, "menu-findings", &headings, &rows))
        (exchanges::complete(locale, found.complete.as_ref()))
    };
    let status = if wrong.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    Ok((status, layout::page(session, HERE, &title, &body)))
}

/// A rule in words; by its name where there are none.
fn rule(locale: Locale, name: &str) -> String {
    locale.text(match name {
        "UNUSUAL_HOUR" => "rule-unusual-hour",
        "UNUSUAL_RATE" => "rule-unusual-rate",
        "ONE_PERSON_MANY_CLIENTS" => "rule-one-person-many-clients",
        "MANY_PEOPLE_ONE_DOSSIER" => "rule-many-people-one-dossier",
        "MANY_PEOPLE_ONE_OFFICIAL" => "rule-many-people-one-official",
        other => other,
    })
}

fn row(session: &SignedIn, period: &Period, one: &Finding, wrong: Option<&Form>) -> Vec<Markup> {
    let locale = session.locale;
    let words = if locale == Locale::Vietnamese { &one.explanation_vi } else { &one.explanation };
    let entries = html! {
        details {
            summary { (locale.number(one.count)) }
            @for index in one.entries.iter().take(LINKED) {
                a href={ "/console/exchanges/" (index) } { (index) } " "
            }
        }
    };
    let review = match &one.review {
        Some(review) => html! {
            span.state.good { (locale.text("finding-reviewed")) }
            p.hint {
                (review.by.trim_start_matches("staff:")) " · "
                a href={ "/console/exchanges/" (review.entry) } { (locale.timestamp(review.time_us / 1_000_000)) }
            }
            p { (review.reason) }
        },
        None => review_form(session, period, one, wrong.filter(|form| form.text("id") == one.id)),
    };
    let client = if one.client.is_empty() {
        html! { "–" }
    } else {
        layout::client_link(&one.client)
    };
    vec![html! { (rule(locale, &one.rule)) }, client, html! { (words) }, entries, review]
}

fn review_form(session: &SignedIn, period: &Period, one: &Finding, wrong: Option<&Form>) -> Markup {
    let locale = session.locale;
    html! {
        span.state.wrong { (locale.text("finding-open")) }
        details open[wrong.is_some()] {
            summary { (locale.text("finding-mark")) }
            form method="post" action=(HERE) {
                (layout::token(session))
                input type="hidden" name="id" value=(one.id);
                input type="hidden" name="from" value=(period.from);
                input type="hidden" name="to" value=(period.to);
                (reason_field(locale, "reason", wrong))
                button type="submit" { (locale.text("finding-mark")) }
            }
        }
    }
}

/// Marks an anomaly as reviewed.
pub async fn review(State(console): State<Arc<Console>>, sent: Sent) -> Result<Response, Failure> {
    let Sent { session, form } = sent;
    let period = Period::of(&form);
    let (from_us, to_us) = period.us.unwrap_or_default();
    let (id, reason) = (form.text("id").to_owned(), form.text("reason").to_owned());
    let message = ReviewFindingRequest { id, from_us, to_us, reason };
    match console.audit.review_finding(request(&session, message)).await {
        Ok(_) => Ok(Redirect::to(&format!("{HERE}?{}", period.query())).into_response()),
        Err(status) if is_of_reason(&status) => {
            Ok(shown(&console, &session, &form, Some(&form)).await?.into_response())
        }
        Err(status) => Err(Failure::of(&session, &status)),
    }
}
