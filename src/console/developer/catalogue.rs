//! The catalogue: every source and its operations, as their contracts describe them.

use super::operation::{self, HERE, shape, source_name};
use crate::console::failure::Failure;
use crate::console::form::Form;
use crate::console::grants::class_of;
use crate::console::session::SignedIn;
use crate::console::table::table;
use crate::console::text::Locale;
use crate::console::{Console, layout};
use crate::contract::{ContractSet, Operation, SourceInfo, comments};
use axum::extract::{Path, State};
use http::StatusCode;
use maud::{Markup, html};
use std::sync::Arc;

/// Lists the operations of all sources or of one.
pub async fn list(State(console): State<Arc<Console>>, session: SignedIn, query: Form) -> Markup {
    let locale = session.locale;
    let contracts = console.contracts.load();
    let (only, words) = (query.text("source"), query.text("words").to_lowercase());
    let body = html! {
        p { a.button href="/console/may-i" { (locale.text("may-i")) } }
        (filter(locale, &contracts, only, query.text("words")))
        @for source in contracts.sources().into_iter().filter(|source| only.is_empty() || source.id == only) {
            @let operations = of(&contracts, source, &words);
            @if !operations.is_empty() {
                h2 #(source.id) { (source_name(locale, source)) }
                p.hint { (source.owner) }
                (rows(locale, source_name(locale, source), &operations))
            }
        }
    };
    layout::page(&session, HERE, &locale.text("menu-catalogue"), &body)
}

fn filter(locale: Locale, contracts: &ContractSet, only: &str, words: &str) -> Markup {
    html! {
        form.filter method="get" action=(HERE) {
            label { (locale.text("column-source"))
                select name="source" {
                    option value="" { (locale.text("state-any")) }
                    @for source in contracts.sources() {
                        option value=(source.id) selected[source.id == only] { (source_name(locale, source)) }
                    }
                }
            }
            label { (locale.text("catalogue-words")) input name="words" value=(words); }
            button type="submit" { (locale.text("filter")) }
        }
    }
}

/// A source's operations whose name, scope or description contains the words.
fn of<'c>(contracts: &'c ContractSet, source: &SourceInfo, words: &str) -> Vec<&'c Arc<Operation>> {
    let fits = |one: &&Arc<Operation>| {
        let text = format!("{} {} {}", one.full_name, one.scope, comments::of_method(&one.method));
        one.source.id == source.id && (words.is_empty() || text.to_lowercase().contains(words))
    };
    contracts.operations().into_iter().filter(fits).collect()
}

/// A source's operations. The table's name is the source's, not the key of a text.
fn rows(locale: Locale, source: &str, operations: &[&Arc<Operation>]) -> Markup {
    let row = |one: &&Arc<Operation>| {
        vec![
            html! { a href={ (HERE) "/" (one.full_name) } { (one.name) } },
            html! { (comments::of_method(&one.method)) },
            html! { code { (one.scope) } },
            class_of(locale, one.data_class),
            html! { (shape(locale, one)) },
        ]
    };
    let headings = ["column-operation", "column-what", "column-scope", "column-class", "column-shape"];
    table(locale, source, &headings, &operations.iter().map(row).collect::<Vec<_>>())
}

/// Shows one operation.
pub async fn one(
    State(console): State<Arc<Console>>,
    session: SignedIn,
    Path((service, method)): Path<(String, String)>,
) -> Result<Markup, Failure> {
    let contracts = console.contracts.load();
    let found = contracts.operation(&format!("/{service}/{method}")).cloned();
    let found = found.ok_or_else(|| Failure::plain(session.locale, StatusCode::NOT_FOUND, "failure-not-found"))?;
    let locale = session.locale;
    // The sandbox's province is generated once, for the first page that shows an example.
    let example = tokio::task::spawn_blocking(move || (operation::page(locale, &found), found)).await;
    let (body, found) =
        example.map_err(|_| Failure::plain(locale, StatusCode::INTERNAL_SERVER_ERROR, "failure-not-offered"))?;
    Ok(layout::page(&session, HERE, &found.name, &body))
}
