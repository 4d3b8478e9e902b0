//! Legal holds: the list, placing one, releasing one.

use super::{Field, day_us, field};
use crate::audit::service::api::audit_service_server::AuditService;
use crate::audit::service::api::{Hold, ListHoldsRequest, PlaceHoldRequest, Query, ReleaseHoldRequest};
use crate::console::failure::{Failure, message_of};
use crate::console::form::{Form, Sent};
use crate::console::session::SignedIn;
use crate::console::table::table;
use crate::console::text::Locale;
use crate::console::{Console, layout, request};
use crate::contract::formats::{Format, check};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use maud::{Markup, html};
use std::sync::Arc;

const HERE: &str = "/console/holds";

/// The errors of a form, by field.
#[derive(Default)]
struct Errors {
    case: Option<&'static str>,
    from: Option<&'static str>,
    to: Option<&'static str>,
    scope: Option<&'static str>,
}

/// Shows the list and the form.
pub async fn page(State(console): State<Arc<Console>>, session: SignedIn) -> Result<Markup, Failure> {
    shown(&console, &session, &Form::default(), &Errors::default()).await
}

async fn shown(console: &Console, session: &SignedIn, form: &Form, errors: &Errors) -> Result<Markup, Failure> {
    let locale = session.locale;
    let found = message_of(session, console.audit.list_holds(request(session, ListHoldsRequest {})).await)?;
    let rows: Vec<Vec<Markup>> = found
        .holds
        .iter()
        .map(|hold| {
            let release = html! {
                details {
                    summary { (locale.text("hold-release")) }
                    p.hint { (locale.text("hold-release-means")) }
                    form method="post" action={ (HERE) "/" (hold.id) "/release" } {
                        (layout::token(session))
                        button.danger type="submit" { (locale.text("hold-release-confirm")) }
                    }
                }
            };
            vec![
                html! { (hold.id) },
                html! { (hold.case_number) },
                conditions(locale, hold),
                html! { (hold.by) },
                html! { (locale.timestamp(hold.since)) },
                html! {
                    @if hold.counting { "≥ " }
                    (locale.number(hold.entries))
                    @if hold.counting { br; span.hint { (locale.text("hold-counting")) } }
                },
                release,
            ]
        })
        .collect();
    let headings =
        ["hold-number", "hold-case", "hold-conditions", "hold-by", "hold-since", "hold-entries", "column-action"];
    let body = html! {
        p.hint { (locale.text("hold-hint")) }
        (table(locale, "menu-holds", &headings, &rows))
        h2 { (locale.text("hold-place")) }
        (input(session, form, errors))
    };
    Ok(layout::page(session, HERE, &locale.text("menu-holds"), &body))
}

/// What a hold's entries have in common; of people, only that they were named.
fn conditions(locale: Locale, hold: &Hold) -> Markup {
    let query = hold.query.clone().unwrap_or_default();
    let moment = |us: i64| locale.timestamp(us.div_euclid(1_000_000));
    let texts = [
        ("column-client", query.client),
        ("column-agency", query.agency),
        ("column-source", query.source),
        ("column-operation", query.operation),
        ("column-scope", query.scope),
        ("column-outcome", query.outcome),
        ("column-purpose", query.purpose),
        ("period-from", moment(query.from_us)),
        ("period-to", moment(query.to_us)),
        ("column-event", query.event),
        ("entry-grant", query.grant),
        ("token", query.token),
    ];
    let people = [("column-subject", hold.by_subject), ("column-official", hold.by_official)];
    html! {
        @for (key, text) in texts.iter().filter(|(_, text)| !text.is_empty()) { (locale.text(key)) ": " (text) br; }
        @for (key, _) in people.iter().filter(|(_, given)| *given) { (locale.text(key)) ": " (locale.text("hold-not-kept")) br; }
    }
}

fn input(session: &SignedIn, form: &Form, errors: &Errors) -> Markup {
    let locale = session.locale;
    let text = |name: &'static str, label: &'static str, kind: &'static str, error: Option<&'static str>| {
        field(locale, &Field { name, label, kind, value: form.text(name), error })
    };
    html! {
        form method="post" action=(HERE) {
            (layout::token(session))
            (text("case", "hold-case", "text", errors.case))
            @if let Some(key) = errors.scope { p.error role="alert" #scope-error { (locale.text(key)) } }
            (text("client", "column-client", "text", None))
            (text("source", "column-source", "text", None))
            (text("purpose", "column-purpose", "text", None))
            label { (locale.text("person-ids"))
                textarea name="ids" rows="2" autocomplete="off" { (form.list("ids").join("\n")) }
            }
            (text("from", "period-from", "date", errors.from))
            (text("to", "period-to", "date", errors.to))
            p.actions { button type="submit" { (locale.text("hold-place")) } }
        }
    }
}

/// Places a hold.
pub async fn create(State(console): State<Arc<Console>>, sent: Sent) -> Result<Response, Failure> {
    let Sent { session, form } = sent;
    let text = |name: &str| form.text(name).to_owned();
    let (from, to) = (day_us(form.text("from"), 0), day_us(form.text("to"), 1));
    let case = text("case");
    let ordered = from.zip(to).is_none_or(|(from, to)| to == 0 || from < to);
    let mut ids = form.list("ids").into_iter();
    let query = Query {
        client: text("client"),
        source: text("source"),
        purpose: text("purpose"),
        subject: ids.next().unwrap_or_default(),
        other_subjects: ids.collect(),
        from_us: from.unwrap_or(0),
        to_us: to.unwrap_or(0),
        ..Query::default()
    };
    let errors = Errors {
        case: (case.len() > 64 || check(Format::Code, &case).is_err()).then_some("error-case"),
        from: from.is_none().then_some("error-date"),
        to: if ordered { to.is_none().then_some("error-date") } else { Some("error-period") },
        // The service's own rule, shown beside the fields.
        scope: (query == Query::default()).then_some("error-scope"),
    };
    if [errors.case, errors.from, errors.to, errors.scope].iter().any(Option::is_some) {
        let page = shown(&console, &session, &form, &errors).await?;
        return Ok((StatusCode::BAD_REQUEST, page).into_response());
    }
    let message = PlaceHoldRequest { query: Some(query), case_number: case };
    message_of(&session, console.audit.place_hold(request(&session, message)).await)?;
    Ok(Redirect::to(HERE).into_response())
}

/// Releases a hold.
pub async fn release(
    State(console): State<Arc<Console>>,
    Path(id): Path<String>,
    sent: Sent,
) -> Result<Response, Failure> {
    let session = sent.session;
    let missing = || Failure::plain(session.locale, StatusCode::NOT_FOUND, "failure-not-found");
    let message = ReleaseHoldRequest { id: id.parse().map_err(|_| missing())? };
    message_of(&session, console.audit.release_hold(request(&session, message)).await)?;
    Ok(Redirect::to(HERE).into_response())
}
