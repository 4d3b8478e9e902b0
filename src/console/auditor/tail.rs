//! The newest entries, as they come: asked for every second, by a page that stands still where its reader wants it to.

use crate::audit::service::api::audit_service_server::AuditService;
use crate::audit::service::api::{Query, SearchRequest};
use crate::console::failure::{Failure, message_of};
use crate::console::form::Form;
use crate::console::session::{SignedIn, Watching};
use crate::console::{Console, exchanges, layout, request};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use std::sync::Arc;

const HERE: &str = "/console/tail";
/// Entries that are shown.
const SHOWN: u32 = 40;
/// What is filtered by, with the texts.
const FILTERS: [(&str, &str); 4] = [
    ("client", "column-client"),
    ("source", "column-source"),
    ("outcome", "column-outcome"),
    ("event", "column-event"),
];

/// The page.
pub async fn page(State(console): State<Arc<Console>>, session: SignedIn, form: Form) -> Result<Response, Failure> {
    let locale = session.locale;
    let still = form.text("still") == "yes";
    let newest = newest(&console, &session, &form).await?;
    let address = |still: bool| {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(
            FILTERS.iter().map(|(name, _)| (*name, form.text(name))).filter(|(_, value)| !value.is_empty()),
        );
        let query = if still { query.append_pair("still", "yes").finish() } else { query.finish() };
        if query.is_empty() { String::new() } else { format!("?{query}") }
    };
    let live = format!("{HERE}/live{}", address(false));
    let body = html! {
        form.filter method="get" action=(HERE) {
            @for (name, key) in FILTERS {
                label { (locale.text(key)) input name=(name) value=(form.text(name)) autocomplete="off"; }
            }
            @if still { input type="hidden" name="still" value="yes"; }
            button type="submit" { (locale.text("filter")) }
        }
        p.actions {
            @if still {
                a.button.quiet href={ (HERE) (address(false)) } { (locale.text("tail-go-on")) }
                a.button.quiet href={ (HERE) (address(true)) } { (locale.text("tail-reload")) }
            } @else {
                a.button.quiet href={ (HERE) (address(true)) } { (locale.text("tail-stand-still")) }
            }
        }
        @if still { div { (newest) } }
        @else {
            noscript { p.hint { (locale.text("tail-without-script")) } }
            div #live hx-get=(live) hx-trigger="every 1s" { (newest) }
        }
    };
    let title = locale.text("menu-tail");
    Ok(match still {
        true => layout::page(&session, HERE, &title, &body).into_response(),
        false => layout::live_page(&session, HERE, &title, &body),
    })
}

/// The part that is asked for every second.
pub async fn fragment(
    State(console): State<Arc<Console>>,
    Watching(session): Watching,
    form: Form,
) -> Result<Markup, Failure> {
    newest(&console, &session, &form).await
}

async fn newest(console: &Console, session: &SignedIn, form: &Form) -> Result<Markup, Failure> {
    let locale = session.locale;
    let text = |name: &str| form.text(name).to_owned();
    let query = Query {
        client: text("client"),
        source: text("source"),
        outcome: text("outcome"),
        event: text("event"),
        ..Query::default()
    };
    let message = SearchRequest { query: Some(query), page_size: SHOWN, ..SearchRequest::default() };
    let found = message_of(session, console.audit.search(request(session, message)).await)?;
    let complete = found.complete.unwrap_or_default();
    let now = locale.timestamp(crate::registry::now());
    Ok(html! {
        (exchanges::entries(locale, "menu-tail", &found.entries))
        p.hint {
            (locale.with("tail-as-of", "time", now)) " · "
            (locale.text("complete-size")) ": " (locale.number(complete.size)) " · "
            (locale.text("log-unsealed")) ": " (locale.number(complete.unsealed))
        }
    })
}
