//! Grants: the list, one grant, a new one, and withdrawal.

use super::failure::{Failure, FieldFaults, message_of};
use super::form::{Form, Sent};
use super::last_use::LastUses;
use super::layout::{client_link as link, justification};
use super::session::SignedIn;
use super::table::{client_filter, folded, lines, next, properties, table};
use super::text::Locale;
use super::{Console, change, layout, request};
use crate::admin::api::admin_service_server::AdminService;
use crate::admin::api::{AddGrantRequest, Grant, GrantId, ListGrantsRequest};
use crate::contract::options::DataClass;
use crate::contract::{ContractSet, Operation, comments};
use crate::registry::{Role, now};
use axum::extract::{Path, State};
use axum::response::Redirect;
use http::StatusCode;
use maud::{Markup, html};
use std::collections::BTreeMap;
use std::sync::Arc;

const HERE: &str = "/console/grants";
/// Grants on a page: when each was used last is looked up.
const PAGE: u32 = 50;

fn state(locale: Locale, grant: &Grant) -> Markup {
    let now = now();
    let (key, kind) = match grant {
        grant if grant.withdrawn => ("state-withdrawn", "gone"),
        grant if grant.needs_approval && grant.approved_by.is_empty() => ("state-waiting", "wrong"),
        grant if now >= grant.not_after => ("state-ended", "gone"),
        grant if now < grant.not_before => ("state-later", "wrong"),
        _ => ("state-in-force", "good"),
    };
    html! { span.state.(kind) { (locale.text(key)) } }
}

/// Grants as a table.
///
/// # Errors
/// The page that says why it is not known when they were used.
pub async fn rows(console: &Console, session: &SignedIn, grants: &[Grant]) -> Result<Markup, Failure> {
    let locale = session.locale;
    let object = |one: &Grant| format!("grant:{}", one.id);
    let uses = LastUses::of(console, session, grants.iter().map(object).collect()).await?;
    let rows: Vec<Vec<Markup>> = grants
        .iter()
        .map(|one| {
            vec![
                html! { a href={ (HERE) "/" (one.id) } { code { (one.id) } } },
                link(&one.client),
                folded(locale, &one.scopes),
                state(locale, one),
                html! { (locale.timestamp(one.not_after)) },
                uses.cell(locale, &object(one)),
            ]
        })
        .collect();
    let headings = ["column-id", "column-client", "column-scopes", "column-state", "column-ends", "column-last-use"];
    Ok(table(locale, "menu-grants", &headings, &rows))
}

/// Lists the grants.
pub async fn list(State(console): State<Arc<Console>>, session: SignedIn, query: Form) -> Result<Markup, Failure> {
    let locale = session.locale;
    let (client, state) = (query.text("client"), query.text("state"));
    let message = ListGrantsRequest {
        client: client.to_owned(),
        pending: state == "waiting",
        page_size: PAGE,
        page_token: query.text("page").to_owned(),
    };
    let found = message_of(&session, console.admin.list_grants(request(&session, message)).await)?;
    let body = html! {
        @if session.has(&[Role::Administrator]) {
            p { a.button href="/console/grants/add" { (locale.text("grant-add")) } }
        }
        (client_filter(locale, HERE, client, (state, "waiting", "state-waiting")))
        (rows(&console, &session, &found.grants).await?)
        (next(locale, HERE, &[("client", client), ("state", state)], &found.next_page_token))
    };
    Ok(layout::page(&session, HERE, &locale.text("menu-grants"), &body))
}

/// Shows one grant.
pub async fn one(
    State(console): State<Arc<Console>>,
    session: SignedIn,
    Path(id): Path<String>,
) -> Result<Markup, Failure> {
    let locale = session.locale;
    let grant = message_of(&session, console.admin.get_grant(request(&session, GrantId { id })).await)?;
    let any = |all: &[String]| {
        if all.is_empty() {
            html! { (locale.text("any")) }
        } else {
            lines(all)
        }
    };
    let quota = if grant.daily_quota == 0 { locale.text("none") } else { locale.number(grant.daily_quota) };
    let object = format!("grant:{}", grant.id);
    let used = LastUses::of(&console, &session, vec![object.clone()]).await?.cell(locale, &object);
    let body = html! {
        (properties(locale, &[
            ("column-state", state(locale, &grant)),
            ("column-last-use", used),
            ("column-client", link(&grant.client)),
            ("column-scopes", lines(&grant.scopes)),
            ("column-purposes", lines(&grant.purposes)),
            ("column-fields", lines(&grant.fields)),
            ("column-rate", html! { (grant.rate) " / " (grant.burst) }),
            ("column-quota", html! { (quota) }),
            ("column-begins", html! { (locale.timestamp(grant.not_before)) }),
            ("column-ends", html! { (locale.timestamp(grant.not_after)) }),
            ("column-legal-basis", html! { (grant.legal_basis) }),
            ("column-networks", any(&grant.networks)),
            ("column-requested-by", html! { (grant.requested_by) }),
            ("column-approved-by", html! { (grant.approved_by) }),
        ]))
        @if session.has(&[Role::Administrator]) && !grant.withdrawn {
            p.actions { a.button href={ (HERE) "/" (grant.id) "/change" } { (locale.text("grant-change")) } }
        }
        @if session.has(&[Role::Administrator, Role::Approver]) && !grant.withdrawn {
            details {
                summary { (locale.text("grant-withdraw")) }
                form method="post" action={ (HERE) "/" (grant.id) "/withdraw" } {
                    (layout::token(&session))
                    p { (locale.text("grant-withdraw-means")) }
                    (justification(locale))
                    button.danger type="submit" { (locale.text("grant-withdraw")) }
                }
            }
        }
    };
    Ok(layout::page(&session, HERE, &format!("{} {}", locale.text("grant"), grant.id), &body))
}

/// Withdraws a grant.
pub async fn withdraw(
    State(console): State<Arc<Console>>,
    Path(id): Path<String>,
    Sent { session, form }: Sent,
) -> Result<Redirect, Failure> {
    let message = change(&session, &form, GrantId { id: id.clone() });
    console.admin.withdraw_grant(message).await.map_err(|status| Failure::of(&session, &status))?;
    Ok(Redirect::to(&format!("{HERE}/{id}")))
}

/// The scopes of a source, each with its operations and their highest data class.
type Scopes<'c> = BTreeMap<&'c str, (Vec<&'c Operation>, DataClass)>;

/// Shows the form for a new grant: every scope of the contracts, with its operations.
pub async fn form(State(console): State<Arc<Console>>, session: SignedIn, query: Form) -> Markup {
    fill(&console, &session, &query, &FieldFaults::default())
}

/// The form with the submitted values and their errors.
fn fill(console: &Console, session: &SignedIn, form: &Form, faults: &FieldFaults) -> Markup {
    let locale = session.locale;
    let or = |name: &str, usual: &str| {
        let written = form.list(name).join("\n");
        if written.is_empty() { usual.to_owned() } else { written }
    };
    let area = |name: &str, key: &str, usual: &str, required: bool| {
        html! {
            label { (locale.text(key)) textarea name=(name) rows="2" required[required] { (or(name, usual)) } }
        }
    };
    let number = |name: &str, key: &str, usual: &str| {
        html! { label { (locale.text(key)) input name=(name) inputmode="numeric" pattern="[0-9]*" value=(or(name, usual)); } }
    };
    let body = html! {
        (faults.of_field("grant"))
        form method="post" action=(HERE) {
            (layout::token(session))
            label { (locale.text("column-client")) input name="client" required value=(form.text("client")); }
            fieldset {
                legend { (locale.text("column-scopes")) }
                (scopes(locale, &console.contracts.load(), &form.list("scope")))
                (faults.of_field("scopes"))
            }
            (area("purpose", "column-purposes", "", true))
            p.hint { (locale.text("grant-purposes-hint")) }
            (faults.of_field("purposes"))
            (area("field", "column-fields", "*", true))
            p.hint { (locale.text("grant-fields-hint")) }
            (faults.of_field("fields"))
            label { (locale.text("column-legal-basis")) input name="legal_basis" required value=(form.text("legal_basis")); }
            (faults.of_field("legal_basis"))
            (number("days", "grant-days", "365"))
            (faults.of_field("not_after"))
            (number("rate", "grant-rate", ""))
            (number("burst", "grant-burst", "50"))
            (number("daily_quota", "column-quota", ""))
            (area("network", "column-networks", "", false))
            p.hint { (locale.text("grant-networks-hint")) }
            (faults.of_field("networks"))
            (justification(locale))
            button type="submit" { (locale.text("grant-add")) }
        }
    };
    layout::page(session, HERE, &locale.text("grant-add"), &body)
}

/// Every scope by source, with its data class and its operations as their contracts describe them.
fn scopes(locale: Locale, contracts: &ContractSet, chosen: &[String]) -> Markup {
    let mut sources: BTreeMap<&str, (&str, Scopes<'_>)> = BTreeMap::new();
    for operation in contracts.operations() {
        let source = &operation.source;
        let name = if locale == Locale::Vietnamese { source.name_vi.as_str() } else { source.name.as_str() };
        let (_, scopes) = sources.entry(&source.id).or_insert((name, BTreeMap::new()));
        let (operations, class) = scopes.entry(&operation.scope).or_insert((Vec::new(), operation.data_class));
        operations.push(operation);
        *class = (*class).max(operation.data_class);
    }
    let is_chosen = |scope: &str| chosen.iter().any(|one| one == scope);
    html! {
        @for (name, scopes) in sources.values() {
            details open[scopes.keys().any(|scope| is_chosen(scope))] {
                summary { (name) }
                @for (scope, (operations, class)) in scopes {
                    label.choice {
                        input type="checkbox" name="scope" value=(scope) checked[is_chosen(scope)];
                        code { (scope) } " " (class_of(locale, *class))
                    }
                    ul.hint {
                        @for operation in operations {
                            li {
                                a href={ "/console/catalogue/" (operation.full_name) } { (operation.name) }
                                ": " (comments::of_method(&operation.method))
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Shows a data class as text and colour.
pub fn class_of(locale: Locale, class: DataClass) -> Markup {
    let (key, kind) = match class {
        DataClass::Sensitive => ("class-sensitive", "wrong"),
        DataClass::Personal => ("class-personal", "later"),
        DataClass::Shared => ("class-shared", "good"),
        DataClass::Open | DataClass::Unspecified => ("class-open", "good"),
    };
    html! { span.state.(kind) { (locale.text(key)) } }
}

/// Requests a grant.
pub async fn add(
    State(console): State<Arc<Console>>,
    Sent { session, form }: Sent,
) -> Result<Result<Redirect, (StatusCode, Markup)>, Failure> {
    let wrong = || Failure::plain(session.locale, StatusCode::BAD_REQUEST, "failure-number");
    let days: i64 = form.number("days").ok_or_else(wrong)?;
    let message = AddGrantRequest {
        client: form.text("client").to_owned(),
        scopes: form.list("scope"),
        purposes: form.list("purpose"),
        fields: form.list("field"),
        rate: form.number("rate").ok_or_else(wrong)?,
        burst: form.number("burst").ok_or_else(wrong)?,
        daily_quota: form.number("daily_quota").ok_or_else(wrong)?,
        not_before: 0,
        not_after: if days > 0 { now().saturating_add(days.saturating_mul(86_400)) } else { 0 },
        legal_basis: form.text("legal_basis").to_owned(),
        networks: form.list("network"),
    };
    match console.admin.add_grant(change(&session, &form, message)).await {
        Ok(added) => Ok(Ok(Redirect::to(&format!("{HERE}/{}", added.get_ref().id)))),
        Err(status) => {
            let faults = FieldFaults::of(&session, &status)?;
            Ok(Err((StatusCode::BAD_REQUEST, fill(&console, &session, &form, &faults))))
        }
    }
}
