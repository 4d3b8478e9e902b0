//! Contracts: the loaded ones, their warnings, and responses that differ from them (drift).

use crate::admin::api::admin_service_server::AdminService;
use crate::admin::api::{Drift, DriftKind, ListDriftRequest};
use crate::console::failure::{Failure, message_of};
use crate::console::form::Form;
use crate::console::session::SignedIn;
use crate::console::table::table;
use crate::console::text::Locale;
use crate::console::{Console, layout, request};
use crate::contract::warnings::{ContractWarning, warnings};
use crate::contract::{ContractSet, Operation};
use crate::hex::hex;
use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::State;
use maud::{Markup, html};
use std::collections::BTreeMap;
use std::sync::Arc;

const HERE: &str = "/console/contracts";

/// Shows the page.
pub async fn page(State(console): State<Arc<Console>>, session: SignedIn, query: Form) -> Result<Markup, Failure> {
    let locale = session.locale;
    let only = query.text("source");
    let message = ListDriftRequest { source: only.to_owned() };
    let drift = message_of(&session, console.admin.list_drift(request(&session, message)).await)?;
    let contracts = console.contracts.load();
    let beyond: u64 = drift.unlisted.iter().map(|one| one.responses).sum();
    let body = html! {
        @if !only.is_empty() { p { a href=(HERE) { (locale.text("contracts-all")) } } }
        h2 { (locale.text("contracts-drift")) }
        p.hint { (locale.text("contracts-drift-hint")) }
        (drifts(locale, &drift.drift))
        @if beyond > 0 { p.hint { (locale.with("contracts-drift-beyond", "count", locale.number(beyond))) } }
        h2 { (locale.text("contracts-loaded")) }
        (loaded(locale, &contracts, only))
        h2 { (locale.text("contracts-warnings")) }
        (warned(locale, &contracts, only))
    };
    Ok(layout::page(&session, HERE, &locale.text("menu-contracts"), &body))
}

/// A row of the table of contracts.
struct Loaded<'c> {
    first: &'c Operation,
    operations: usize,
    digest: String,
}

fn loaded(locale: Locale, contracts: &ContractSet, only: &str) -> Markup {
    let mut all: BTreeMap<(&str, &str), Loaded<'_>> = BTreeMap::new();
    for operation in contracts.operations() {
        let source = &operation.source;
        if !only.is_empty() && source.id != only {
            continue;
        }
        let of = || {
            let file = operation.method.parent_file().encode_to_vec();
            Loaded { first: operation, operations: 0, digest: hex(digest(&SHA256, &file).as_ref()) }
        };
        all.entry((&source.id, &source.version)).or_insert_with(of).operations += 1;
    }
    let row = |one: &Loaded<'_>| {
        let source = &one.first.source;
        let name = if locale == Locale::Vietnamese { &source.name_vi } else { &source.name };
        vec![
            html! { a href={ "/console/catalogue?source=" (source.id) } { (name) } },
            html! { (source.version) },
            html! { (locale.number(one.operations as u64)) },
            html! { code { (source.file) } },
            html! { code { (one.digest.get(..16).unwrap_or_default()) } },
        ]
    };
    let headings = ["column-source", "column-version", "column-operations", "column-file", "column-digest"];
    table(locale, "contracts-loaded", &headings, &all.values().map(row).collect::<Vec<_>>())
}

fn warned(locale: Locale, contracts: &ContractSet, only: &str) -> Markup {
    let operations = contracts.operations().into_iter();
    let shown = operations.filter(|operation| only.is_empty() || operation.source.id == only);
    let rows: Vec<Vec<Markup>> = shown
        .flat_map(|operation| {
            let words = |warning: ContractWarning| match locale {
                Locale::Vietnamese => warning.vietnamese(),
                Locale::English => warning.to_string(),
            };
            let row = |warning| vec![link(&operation.full_name), html! { (words(warning)) }];
            warnings(operation).into_iter().map(row).collect::<Vec<_>>()
        })
        .collect();
    table(locale, "contracts-warnings", &["column-operation", "column-warning"], &rows)
}

fn drifts(locale: Locale, all: &[Drift]) -> Markup {
    let row = |one: &Drift| {
        let types = match (one.described.as_str(), one.found.as_str()) {
            ("", found) => found.to_owned(),
            (described, found) => format!("{described} → {found}"),
        };
        vec![
            link(&one.operation),
            html! { (kind(locale, one.kind())) },
            html! { code { (one.path) } },
            html! { (types) },
            html! { (locale.number(one.responses)) },
            html! { (locale.timestamp(one.last_seen)) },
        ]
    };
    let headings =
        ["column-operation", "column-drift", "column-path", "column-types", "column-responses", "column-last-seen"];
    table(locale, "contracts-drift", &headings, &all.iter().map(row).collect::<Vec<_>>())
}

/// An operation, linked to its catalogue page.
fn link(full_name: &str) -> Markup {
    let method = full_name.rsplit('/').next().unwrap_or_default();
    html! { a href={ "/console/catalogue/" (full_name) } { (method) } }
}

fn kind(locale: Locale, kind: DriftKind) -> String {
    locale.text(match kind {
        DriftKind::Added => "drift-added",
        DriftKind::Missing => "drift-missing",
        DriftKind::Retyped => "drift-retyped",
        DriftKind::UnknownCode => "drift-unknown-code",
        DriftKind::Dropped => "drift-dropped",
        DriftKind::Unspecified => "drift-unknown",
    })
}
