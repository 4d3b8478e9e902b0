//! The form that changes a client: its agency, its contact, the names in its certificate. A new name waits for a second person while the
//! client has a grant that needs approval.

use super::failure::{Failure, FieldFaults, message_of};
use super::form::{Form, Sent};
use super::layout::justification;
use super::session::SignedIn;
use super::{Console, change, layout, request};
use crate::admin::api::admin_service_server::AdminService;
use crate::admin::api::{ChangeClientRequest, Client, ClientId};
use axum::extract::{Path, State};
use axum::response::Redirect;
use http::StatusCode;
use maud::{Markup, html};
use std::sync::Arc;

const HERE: &str = "/console/clients";

async fn found(console: &Console, session: &SignedIn, id: String) -> Result<Client, Failure> {
    message_of(session, console.admin.get_client(request(session, ClientId { id })).await)
}

/// Shows the form with what the client has now.
pub async fn form(
    State(console): State<Arc<Console>>,
    session: SignedIn,
    Path(id): Path<String>,
) -> Result<Markup, Failure> {
    let client = found(&console, &session, id).await?;
    Ok(page(&session, &client, None, &FieldFaults::default()))
}

fn page(session: &SignedIn, client: &Client, written: Option<&Form>, faults: &FieldFaults) -> Markup {
    let locale = session.locale;
    let text = |name: &str, now: &str| written.map_or_else(|| now.to_owned(), |form| form.text(name).to_owned());
    let names = written.map_or_else(|| client.names.join("\n"), |form| form.list("name").join("\n"));
    let body = html! {
        div.notice { p { (locale.text("client-change-means")) } }
        form method="post" {
            (layout::token(session))
            label { (locale.text("column-agency")) input name="agency" required value=(text("agency", &client.agency)); }
            (faults.of_field("agency"))
            label { (locale.text("column-contact")) input name="contact" value=(text("contact", &client.contact)); }
            p.hint { (locale.text("client-contact-hint")) }
            (faults.of_field("contact"))
            label { (locale.text("column-names")) textarea name="name" rows="3" required spellcheck="false" { (names) } }
            p.hint { (locale.text("client-names-hint")) }
            (faults.of_field("names"))
            (justification(locale))
            button type="submit" { (locale.text("client-change")) }
            a.button.quiet href={ (HERE) "/" (client.id) } { (locale.text("cancel")) }
        }
    };
    layout::page(session, HERE, &format!("{}: {}", locale.text("client-change"), client.id), &body)
}

/// Changes the client, or requests the change.
pub async fn apply(
    State(console): State<Arc<Console>>,
    Path(id): Path<String>,
    Sent { session, form }: Sent,
) -> Result<Result<Redirect, (StatusCode, Markup)>, Failure> {
    let (agency, contact) = (form.text("agency").to_owned(), form.text("contact").to_owned());
    let message = ChangeClientRequest { id: id.clone(), agency, contact, names: form.list("name") };
    match console.admin.change_client(change(&session, &form, message)).await {
        Ok(changed) if !changed.get_ref().pending_change.is_empty() => Ok(Ok(Redirect::to("/console/approvals"))),
        Ok(_) => Ok(Ok(Redirect::to(&format!("{HERE}/{id}")))),
        Err(status) => {
            let faults = FieldFaults::of(&session, &status)?;
            let client = found(&console, &session, id).await?;
            Ok(Err((StatusCode::BAD_REQUEST, page(&session, &client, Some(&form), &faults))))
        }
    }
}
