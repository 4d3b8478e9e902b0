//! Staff: the list, a new person, changes of roles or certificate names, and removal. Whatever adds a right waits for a second person.

use crate::admin::api::admin_service_server::AdminService;
use crate::admin::api::{AddStaffRequest, ChangeStaffRequest, ListStaffRequest, Role as RoleMessage, Staff, StaffId};
use crate::console::failure::{Failure, FieldFaults, message_of};
use crate::console::form::{Form, Sent};
use crate::console::layout::{self, justification};
use crate::console::session::SignedIn;
use crate::console::table::{lines, properties, table};
use crate::console::text::Locale;
use crate::console::{Console, change, request};
use crate::registry::Role;
use axum::extract::{Path, State};
use axum::response::Redirect;
use http::StatusCode;
use maud::{Markup, html};
use std::sync::Arc;

const HERE: &str = "/console/staff";
const ADMINISTRATOR: &[Role] = &[Role::Administrator];
/// Roles with their form values.
const ROLES: [(&str, RoleMessage, Role); 4] = [
    ("ADMINISTRATOR", RoleMessage::Administrator, Role::Administrator),
    ("APPROVER", RoleMessage::Approver, Role::Approver),
    ("AUDITOR", RoleMessage::Auditor, Role::Auditor),
    ("OPERATOR", RoleMessage::Operator, Role::Operator),
];

async fn people(console: &Console, session: &SignedIn) -> Result<Vec<Staff>, Failure> {
    let found = message_of(session, console.admin.list_staff(request(session, ListStaffRequest {})).await)?;
    Ok(found.staff)
}

fn roles(locale: Locale, staff: &Staff) -> String {
    let own = ROLES.iter().filter(|(_, message, _)| staff.roles.contains(&(*message as i32)));
    own.map(|(_, _, role)| layout::role(locale, *role)).collect::<Vec<_>>().join(", ")
}

/// Lists the staff, with the form for a new person.
pub async fn list(State(console): State<Arc<Console>>, session: SignedIn) -> Result<Markup, Failure> {
    shown(&console, &session, &Form::default(), &FieldFaults::default()).await
}

async fn shown(console: &Console, session: &SignedIn, form: &Form, faults: &FieldFaults) -> Result<Markup, Failure> {
    let locale = session.locale;
    let row = |one: &Staff| {
        vec![html! { a href={ (HERE) "/" (one.id) } { (one.id) } }, html! { (roles(locale, one)) }, lines(&one.names)]
    };
    let rows: Vec<Vec<Markup>> = people(console, session).await?.iter().map(row).collect();
    let body = html! {
        @if session.has(ADMINISTRATOR) { (adding(session, form, faults)) }
        (table(locale, "menu-staff", &["column-id", "column-roles", "column-names"], &rows))
    };
    Ok(layout::page(session, HERE, &locale.text("menu-staff"), &body))
}

fn adding(session: &SignedIn, form: &Form, faults: &FieldFaults) -> Markup {
    let locale = session.locale;
    html! {
        details open[!faults.is_empty()] {
            summary { (locale.text("staff-add")) }
            form method="post" action=(HERE) {
                (layout::token(session))
                p { (locale.text("staff-second")) }
                (faults.of_field("staff"))
                label { (locale.text("column-id")) input name="id" required value=(form.text("id")); }
                p.hint { (locale.text("client-id-hint")) }
                (faults.of_field("id"))
                (choices(locale, &form.list("role")))
                (faults.of_field("roles"))
                label { (locale.text("column-names")) textarea name="name" rows="2" spellcheck="false" { (form.list("name").join("\n")) } }
                p.hint { (locale.text("staff-names-hint")) }
                (faults.of_field("names"))
                (justification(locale))
                button type="submit" { (locale.text("staff-add")) }
            }
        }
    }
}

fn choices(locale: Locale, chosen: &[String]) -> Markup {
    html! {
        fieldset {
            legend { (locale.text("column-roles")) }
            @for (value, _, role) in ROLES {
                label.choice {
                    input type="checkbox" name="role" value=(value) checked[chosen.iter().any(|one| one == value)];
                    (layout::role(locale, role))
                }
            }
        }
    }
}

fn chosen(form: &Form) -> Vec<i32> {
    form.list("role").iter().map(|role| RoleMessage::from_str_name(role).unwrap_or_default() as i32).collect()
}

/// Requests the registration of a person.
pub async fn add(
    State(console): State<Arc<Console>>,
    Sent { session, form }: Sent,
) -> Result<Result<Redirect, (StatusCode, Markup)>, Failure> {
    let message = AddStaffRequest { id: form.text("id").to_owned(), roles: chosen(&form), names: form.list("name") };
    match console.admin.add_staff(change(&session, &form, message)).await {
        Ok(_) => Ok(Ok(Redirect::to("/console/approvals"))),
        Err(status) => {
            let faults = FieldFaults::of(&session, &status)?;
            Ok(Err((StatusCode::BAD_REQUEST, shown(&console, &session, &form, &faults).await?)))
        }
    }
}

/// Shows one person.
pub async fn one(
    State(console): State<Arc<Console>>,
    session: SignedIn,
    Path(id): Path<String>,
) -> Result<Markup, Failure> {
    person(&console, &session, &id, &FieldFaults::default()).await
}

async fn person(console: &Console, session: &SignedIn, id: &str, faults: &FieldFaults) -> Result<Markup, Failure> {
    let locale = session.locale;
    let found = people(console, session).await?.into_iter().find(|one| one.id == id);
    let found = found.ok_or_else(|| Failure::plain(locale, StatusCode::NOT_FOUND, "failure-not-found"))?;
    let own: Vec<String> = ROLES
        .iter()
        .filter(|(_, message, _)| found.roles.contains(&(*message as i32)))
        .map(|(value, ..)| (*value).to_owned())
        .collect();
    let to = format!("{HERE}/{}", found.id);
    let body = html! {
        (properties(locale, &[
            ("column-roles", html! { (roles(locale, &found)) }),
            ("column-names", lines(&found.names)),
        ]))
        @if session.has(ADMINISTRATOR) {
            details open[!faults.is_empty()] {
                summary { (locale.text("staff-change")) }
                form method="post" action=(to) {
                    (layout::token(session))
                    p { (locale.text("staff-second")) }
                    (faults.of_field("staff"))
                    (choices(locale, &own))
                    (faults.of_field("roles"))
                    label { (locale.text("column-names"))
                        textarea name="name" rows="3" spellcheck="false" { (found.names.join("\n")) }
                    }
                    (faults.of_field("names"))
                    (justification(locale))
                    button type="submit" { (locale.text("staff-change")) }
                }
            }
            details {
                summary { (locale.text("staff-remove")) }
                form method="post" action={ (to) "/remove" } {
                    (layout::token(session))
                    p { (locale.text("staff-remove-means")) }
                    (justification(locale))
                    button.danger type="submit" { (locale.text("staff-remove")) }
                }
            }
        }
    };
    Ok(layout::page(session, HERE, &found.id, &body))
}

/// Changes somebody's roles or certificate names.
pub async fn change_roles(
    State(console): State<Arc<Console>>,
    Path(id): Path<String>,
    Sent { session, form }: Sent,
) -> Result<Result<Redirect, (StatusCode, Markup)>, Failure> {
    let message = ChangeStaffRequest { id: id.clone(), roles: chosen(&form), names: form.list("name") };
    match console.admin.change_staff(change(&session, &form, message)).await {
        Ok(changed) if changed.get_ref().pending_change.is_empty() => Ok(Ok(Redirect::to(&format!("{HERE}/{id}")))),
        Ok(_) => Ok(Ok(Redirect::to("/console/approvals"))),
        Err(status) => {
            let faults = FieldFaults::of(&session, &status)?;
            Ok(Err((StatusCode::BAD_REQUEST, person(&console, &session, &id, &faults).await?)))
        }
    }
}

/// Removes all roles of a person.
pub async fn remove(
    State(console): State<Arc<Console>>,
    Path(id): Path<String>,
    Sent { session, form }: Sent,
) -> Result<Redirect, Failure> {
    message_of(&session, console.admin.remove_staff(change(&session, &form, StaffId { id })).await)?;
    Ok(Redirect::to(HERE))
}
