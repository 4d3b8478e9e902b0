//! Anomalies that simple rules find in a period, with their entries.

use super::{Field, day_us, days_ago, field};
use crate::audit::service::api::ListFindingsRequest;
use crate::audit::service::api::audit_service_server::AuditService;
use crate::console::failure::{Failure, message_of};
use crate::console::form::Form;
use crate::console::session::SignedIn;
use crate::console::table::table;
use crate::console::{Console, exchanges, layout, request};
use axum::extract::State;
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
    let locale = session.locale;
    let given = |name: &str, days: i64| match form.text(name) {
        "" => days_ago(days),
        text => text.to_owned(),
    };
    let (from, to) = (given("from", USUAL_DAYS), given("to", 0));
    let (from_us, to_us) = (day_us(&from, 0), day_us(&to, 1));
    let period = from_us.zip(to_us).filter(|(from, to)| from < to && to - from <= LONGEST_US);
    let of_period = (from_us.is_some() && to_us.is_some() && period.is_none()).then_some("error-month");
    let wrong = |us: Option<i64>| us.is_none().then_some("error-date");
    let filter = html! {
        form.filter method="get" action=(HERE) {
            (field(locale, &Field { name: "from", label: "period-from", kind: "date", value: &from, error: wrong(from_us) }))
            (field(locale, &Field { name: "to", label: "period-to", kind: "date", value: &to, error: wrong(to_us).or(of_period) }))
            button type="submit" { (locale.text("filter")) }
        }
    };
    let title = locale.text("menu-findings");
    let Some((from_us, to_us)) = period else {
        return Ok((StatusCode::BAD_REQUEST, layout::page(&session, HERE, &title, &filter)));
    };
    let message = ListFindingsRequest { from_us, to_us };
    let found = message_of(&session, console.audit.list_findings(request(&session, message)).await)?;
    let rows: Vec<Vec<Markup>> = found
        .findings
        .iter()
        .map(|one| {
            let entries = html! {
                details {
                    summary { (locale.number(one.count)) }
                    @for index in one.entries.iter().take(LINKED) {
                        a href={ "/console/exchanges/" (index) } { (index) } " "
                    }
                }
            };
            vec![html! { (one.rule) }, layout::client_link(&one.client), html! { (one.explanation) }, entries]
        })
        .collect();
    let headings = ["finding-rule", "column-client", "finding-explanation", "finding-entries"];
    let body = html! {
        (filter)
        (table(locale, "menu-findings", &headings, &rows))
        (exchanges::complete(locale, found.complete.as_ref()))
    };
    Ok((StatusCode::OK, layout::page(&session, HERE, &title, &body)))
}
