//! Clients (provincial systems): the list, one client with its rights, registration by certificate, suspension and retirement.

use super::failure::{Failure, FieldFaults, message_of};
use super::form::{Form, Sent};
use super::last_use::LastUses;
use super::layout::{client_link, justification};
use super::session::SignedIn;
use super::table::{lines, next, properties, table};
use super::text::Locale;
use super::{Console, change, entry, grants, layout, request, tokens};
use crate::admin::api::admin_service_server::AdminService;
use crate::admin::api::{
    AddClientRequest, Client, ClientId, ClientState, ListClientsRequest, ListGrantsRequest, ListTokensRequest,
};
use crate::identity::Certificate;
use crate::registry::Role;
use axum::extract::{Path, State};
use axum::response::Redirect;
use http::StatusCode;
use maud::{Markup, html};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::sync::Arc;

const HERE: &str = "/console/clients";
const ADMINISTRATOR: &[Role] = &[Role::Administrator];
/// Roles that may revoke rights in an emergency.
const EMERGENCY: &[Role] = &[Role::Administrator, Role::Operator];
/// Clients on a page, and records of a client that its page shows.
const SHOWN: u32 = 50;

fn state(locale: Locale, client: &Client) -> Markup {
    let (key, kind) = match (client.retired, client.suspended) {
        (true, _) => ("state-retired", "gone"),
        (_, true) => ("state-suspended", "wrong"),
        _ => ("state-active", "good"),
    };
    html! { span.state.(kind) { (locale.text(key)) } }
}

/// Lists the clients.
pub async fn list(State(console): State<Arc<Console>>, session: SignedIn, query: Form) -> Result<Markup, Failure> {
    let locale = session.locale;
    let (agency, chosen) = (query.text("agency"), query.text("state"));
    let message = ListClientsRequest {
        agency: agency.to_owned(),
        page_size: SHOWN,
        page_token: query.text("page").to_owned(),
        state: ClientState::from_str_name(chosen).unwrap_or_default().into(),
    };
    let found = message_of(&session, console.admin.list_clients(request(&session, message)).await)?;
    let object = |one: &Client| format!("client:{}", one.id);
    let uses = LastUses::of(&console, &session, found.clients.iter().map(object).collect()).await?;
    let rows: Vec<Vec<Markup>> = found
        .clients
        .iter()
        .map(|one| {
            vec![
                client_link(&one.id),
                html! { (one.agency) },
                html! { (one.contact) },
                state(locale, one),
                html! { (locale.timestamp(one.created)) },
                uses.cell(locale, &object(one)),
            ]
        })
        .collect();
    let headings =
        ["column-id", "column-agency", "column-contact", "column-state", "column-registered", "column-last-use"];
    let choices =
        [("", "state-any"), ("ACTIVE", "state-active"), ("SUSPENDED", "state-suspended"), ("RETIRED", "state-retired")];
    let body = html! {
        @if session.has(ADMINISTRATOR) {
            p { a.button href="/console/clients/register" { (locale.text("client-register")) } }
        }
        form.filter method="get" action=(HERE) {
            label { (locale.text("column-agency")) input name="agency" value=(agency); }
            label { (locale.text("column-state"))
                select name="state" {
                    @for (value, key) in choices { option value=(value) selected[value == chosen] { (locale.text(key)) } }
                }
            }
            button type="submit" { (locale.text("filter")) }
        }
        (table(locale, "menu-clients", &headings, &rows))
        (next(locale, HERE, &[("agency", agency), ("state", chosen)], &found.next_page_token))
    };
    Ok(layout::page(&session, HERE, &locale.text("menu-clients"), &body))
}

/// Shows one client, its grants and its valid tokens.
pub async fn one(
    State(console): State<Arc<Console>>,
    session: SignedIn,
    Path(id): Path<String>,
) -> Result<Markup, Failure> {
    let locale = session.locale;
    let client = message_of(&session, console.admin.get_client(request(&session, ClientId { id: id.clone() })).await)?;
    let granted = ListGrantsRequest { client: id.clone(), page_size: SHOWN, ..Default::default() };
    let granted = message_of(&session, console.admin.list_grants(request(&session, granted)).await)?;
    let issued = ListTokensRequest { client: id.clone(), in_force: true, page_size: SHOWN, ..Default::default() };
    let issued = message_of(&session, console.admin.list_tokens(request(&session, issued)).await)?;
    let offered: Vec<&str> = ["suspend", "resume", "retire", "revoke-tokens"]
        .into_iter()
        .filter(|action| offers(&session, &client, action))
        .collect();
    let body = html! {
        (properties(locale, &[
            ("column-state", state(locale, &client)),
            ("column-agency", entry::named(&client.agency, console.names.load().agency(&client.agency)).unwrap_or_default()),
            ("column-contact", html! { (client.contact) }),
            ("column-names", lines(&client.names)),
            ("column-registered", html! { (locale.timestamp(client.created)) }),
        ]))
        p.actions {
            @if session.has(ADMINISTRATOR) && !client.retired {
                a.button href={ (HERE) "/" (client.id) "/change" } { (locale.text("client-change")) }
            }
            @for action in &offered {
                a.button href={ (HERE) "/" (client.id) "/" (action) } { (locale.text(&format!("action-{action}"))) }
            }
        }
        h2 { (locale.text("menu-grants")) }
        @if session.has(ADMINISTRATOR) && !client.retired {
            p { a.button href={ "/console/grants/add?client=" (client.id) } { (locale.text("grant-add")) } }
        }
        (grants::rows(&console, &session, &granted.grants).await?)
        (next(locale, "/console/grants", &[("client", &id)], &granted.next_page_token))
        h2 { (locale.text("tokens-in-force")) }
        (tokens::rows(&console, &session, &issued.tokens).await?)
        (next(locale, "/console/tokens", &[("client", &id), ("state", "in-force")], &issued.next_page_token))
    };
    Ok(layout::page(&session, HERE, &client.id, &body))
}

fn offers(session: &SignedIn, client: &Client, action: &str) -> bool {
    match action {
        "suspend" => session.has(EMERGENCY) && !client.suspended && !client.retired,
        "resume" => session.has(ADMINISTRATOR) && client.suspended && !client.retired,
        "retire" => session.has(ADMINISTRATOR) && !client.retired,
        "revoke-tokens" => session.has(EMERGENCY) && !client.retired,
        _ => false,
    }
}

/// Shows what an action stops, before it is done.
pub async fn confirmation(
    State(console): State<Arc<Console>>,
    session: SignedIn,
    Path((id, action)): Path<(String, String)>,
) -> Result<Markup, Failure> {
    let locale = session.locale;
    let client = message_of(&session, console.admin.get_client(request(&session, ClientId { id: id.clone() })).await)?;
    if !offers(&session, &client, &action) {
        return Err(Failure::plain(locale, StatusCode::NOT_FOUND, "failure-not-offered"));
    }
    let issued = ListTokensRequest { client: id.clone(), in_force: true, page_size: 1_000, ..Default::default() };
    let issued = message_of(&session, console.admin.list_tokens(request(&session, issued)).await)?;
    let count = locale.number(issued.tokens.len() as u64);
    let count = if issued.next_page_token.is_empty() { count } else { format!("> {count}") };
    let title = format!("{}: {id}", locale.text(&format!("action-{action}")));
    let body = html! {
        div.notice { p { (locale.with(&format!("action-{action}-means"), "tokens", count)) } }
        form method="post" {
            (layout::token(&session))
            (justification(locale))
            button.danger[action != "resume"] type="submit" { (locale.text(&format!("action-{action}"))) }
            a.button.quiet href={ (HERE) "/" (id) } { (locale.text("cancel")) }
        }
    };
    Ok(layout::page(&session, HERE, &title, &body))
}

/// Suspends, resumes or retires a client, or revokes all its tokens.
pub async fn apply(
    State(console): State<Arc<Console>>,
    Path((id, action)): Path<(String, String)>,
    Sent { session, form }: Sent,
) -> Result<Redirect, Failure> {
    let message = change(&session, &form, ClientId { id: id.clone() });
    let done = match action.as_str() {
        "suspend" => console.admin.suspend_client(message).await.map(|_| ()),
        "resume" => console.admin.resume_client(message).await.map(|_| ()),
        "retire" => console.admin.retire_client(message).await.map(|_| ()),
        "revoke-tokens" => console.admin.revoke_client_tokens(message).await.map(|_| ()),
        _ => return Err(Failure::plain(session.locale, StatusCode::NOT_FOUND, "failure-not-found")),
    };
    done.map_err(|status| Failure::of(&session, &status))?;
    Ok(Redirect::to(&format!("{HERE}/{id}")))
}

/// Shows the form that registers a client.
pub async fn registration(session: SignedIn) -> Markup {
    fill(&session, &Form::default(), &FieldFaults::default())
}

/// The form with what was written before, and what is wrong with it.
fn fill(session: &SignedIn, form: &Form, faults: &FieldFaults) -> Markup {
    let locale = session.locale;
    let body = html! {
        form method="post" action=(HERE) {
            (layout::token(session))
            label { (locale.text("column-id")) input name="id" required pattern="[a-z0-9.\\-]+" value=(form.text("id")); }
            p.hint { (locale.text("client-id-hint")) }
            (faults.of_field("id"))
            label { (locale.text("column-agency")) input name="agency" required value=(form.text("agency")); }
            (faults.of_field("agency"))
            label { (locale.text("column-contact")) input name="contact" value=(form.text("contact")); }
            (faults.of_field("contact"))
            label { (locale.text("client-certificate"))
                textarea name="certificate" rows="8" spellcheck="false" { (form.text("certificate")) }
            }
            p.hint { (locale.text("client-certificate-hint")) }
            (faults.of_field("certificate"))
            (faults.of_field("names"))
            button type="submit" name="step" value="look" { (locale.text("client-look")) }
        }
    };
    layout::page(session, HERE, &locale.text("client-register"), &body)
}

/// Shows the names and the end of the pasted certificate; after confirmation, registers the client.
pub async fn register(
    State(console): State<Arc<Console>>,
    Sent { session, form }: Sent,
) -> Result<Result<Redirect, (StatusCode, Markup)>, Failure> {
    let locale = session.locale;
    let pem = form.text("certificate");
    let certificate = match pem {
        "" => None,
        text => CertificateDer::from_pem_slice(text.as_bytes()).ok().and_then(|der| Certificate::of(&[der])),
    };
    let unreadable = certificate.as_ref().map_or(!pem.is_empty(), |certificate| certificate.names.is_empty());
    if unreadable {
        let faults = FieldFaults::one(locale, "certificate", "client-certificate-unreadable");
        return Ok(Err((StatusCode::BAD_REQUEST, fill(&session, &form, &faults))));
    }
    let names = certificate.as_ref().map(|certificate| certificate.names.clone()).unwrap_or_default();
    if form.text("step") != "register" {
        let end = certificate.map_or(0, |certificate| certificate.end());
        return Ok(Err((StatusCode::OK, confirm(&session, &form, &names, end))));
    }
    let text = |name: &str| form.text(name).to_owned();
    let message = AddClientRequest { id: text("id"), agency: text("agency"), contact: text("contact"), names };
    match console.admin.add_client(change(&session, &form, message)).await {
        Ok(added) => Ok(Ok(Redirect::to(&format!("{HERE}/{}", added.get_ref().id)))),
        Err(status) => {
            let faults = FieldFaults::of(&session, &status)?;
            Ok(Err((StatusCode::BAD_REQUEST, fill(&session, &form, &faults))))
        }
    }
}

fn confirm(session: &SignedIn, form: &Form, names: &[String], end: i64) -> Markup {
    let locale = session.locale;
    let own = [locale.text("client-own-name")];
    let body = html! {
        (properties(locale, &[
            ("column-id", html! { (form.text("id")) }),
            ("column-agency", html! { (form.text("agency")) }),
            ("column-contact", html! { (form.text("contact")) }),
            ("column-names", lines(if names.is_empty() { &own } else { names })),
            ("column-certificate-ends", html! { (locale.timestamp(end)) }),
        ]))
        form method="post" action=(HERE) {
            (layout::token(session))
            @for name in ["id", "agency", "contact", "certificate"] {
                input type="hidden" name=(name) value=(form.text(name));
            }
            (justification(locale))
            button type="submit" name="step" value="register" { (locale.text("client-register")) }
            button.quiet type="submit" name="step" value="look" formaction="/console/clients/register" formmethod="get" { (locale.text("cancel")) }
        }
    };
    layout::page(session, HERE, &locale.text("client-register"), &body)
}
