//! The frame of every page: menu by role, language, signed-in person.

use super::headers;
use super::session::SignedIn;
use super::text::Locale;
use crate::registry::Role;
use axum::response::Response;
use maud::{DOCTYPE, Markup, html};

/// An entry of the menu: path, text, and whose it is (everybody's where no role is named).
type MenuEntry = (&'static str, &'static str, &'static [Role]);

/// The menu, in groups.
const MENU: [(&str, &[MenuEntry]); 3] = [
    (
        "menu-group-gateway",
        &[
            ("/console/", "menu-overview", &[]),
            ("/console/sources", "menu-sources", &[]),
            ("/console/cluster", "menu-cluster", &[Role::Administrator, Role::Auditor, Role::Operator]),
            ("/console/contracts", "menu-contracts", &[]),
            ("/console/catalogue", "menu-catalogue", &[]),
        ],
    ),
    (
        "menu-group-rights",
        &[
            ("/console/approvals", "menu-approvals", &[]),
            ("/console/clients", "menu-clients", &[]),
            ("/console/grants", "menu-grants", &[]),
            ("/console/tokens", "menu-tokens", &[]),
            ("/console/keys", "menu-keys", &[]),
            ("/console/staff", "menu-staff", &[]),
        ],
    ),
    (
        "menu-group-log",
        &[
            ("/console/exchanges", "menu-exchanges", &[Role::Auditor]),
            ("/console/tail", "menu-tail", &[Role::Auditor]),
            ("/console/people", "menu-people", &[Role::Auditor]),
            ("/console/statistics", "menu-statistics", &[Role::Auditor]),
            ("/console/findings", "menu-findings", &[Role::Auditor]),
            ("/console/holds", "menu-holds", &[Role::Auditor]),
            ("/console/exports", "menu-exports", &[Role::Auditor]),
            ("/console/checkpoints", "menu-checkpoints", &[Role::Auditor]),
        ],
    ),
];

/// The menu of a client's developers.
const DEVELOPERS: [(&str, &[MenuEntry]); 1] = [(
    "menu-group-own",
    &[
        ("/console/own", "menu-own", &[]),
        ("/console/catalogue", "menu-catalogue", &[]),
        ("/console/may-i", "may-i", &[]),
    ],
)];

/// The menu of somebody's roles. A narrow screen shows it folded, under the name of the page.
fn menu(session: &SignedIn, here: &str) -> Markup {
    let locale = session.locale;
    let is_offered = |(_, key, roles): &&MenuEntry| {
        (roles.is_empty() || session.has(roles)) && (session.in_cluster || *key != "menu-cluster")
    };
    let offered = |entries: &'static [MenuEntry]| entries.iter().filter(is_offered).collect::<Vec<_>>();
    let menu: &[(&str, &[MenuEntry])] = if session.is_client { &DEVELOPERS } else { &MENU };
    let groups =
        menu.iter().map(|(name, entries)| (*name, offered(entries))).filter(|(_, entries)| !entries.is_empty());
    html! {
        nav aria-label=(locale.text("menu")) {
            details.menu {
                summary { (locale.text("menu")) }
                @for (name, entries) in groups {
                    section {
                        p #(name) { (locale.text(name)) }
                        ul aria-labelledby=(name) {
                            @for (path, key, _) in entries {
                                li { a href=(path) aria-current=[(*path == here).then_some("page")] { (locale.text(key)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The text of a role.
pub fn role(locale: Locale, role: Role) -> String {
    locale.text(match role {
        Role::Administrator => "role-administrator",
        Role::Approver => "role-approver",
        Role::Auditor => "role-auditor",
        Role::Operator => "role-operator",
    })
}

/// Returns a page for the signed-in person; `here` is its menu entry.
pub fn page(session: &SignedIn, here: &str, title: &str, body: &Markup) -> Markup {
    signed_in(session, here, title, body, false)
}

/// Returns a page with a live part, with the two scripts that refresh it.
pub fn live_page(session: &SignedIn, here: &str, title: &str, body: &Markup) -> Response {
    headers::live(signed_in(session, here, title, body, true))
}

fn signed_in(session: &SignedIn, here: &str, title: &str, body: &Markup, live: bool) -> Markup {
    let locale = session.locale;
    let roles: Vec<String> = match session.is_client {
        true => vec![locale.text("role-client")],
        false => session.roles.iter().map(|one| role(locale, *one)).collect(),
    };
    let nav = menu(session, here);
    let who = html! {
        div.who {
            span { strong { (session.staff) } " · " (roles.join(", ")) }
            form method="post" action="/console/sign-out" {
                (token(session))
                button.quiet type="submit" { (locale.text("sign-out")) }
            }
        }
    };
    frame(locale, title, Some(Frame { nav, who, node: &session.node, live }), false, body)
}

/// Returns a page without a session.
pub fn anonymous(locale: Locale, title: &str, body: &Markup) -> Markup {
    frame(locale, title, None, false, body)
}

/// A page that leads on to the overview by itself, without a script.
pub fn refresh(locale: Locale, title: &str, body: &Markup) -> Markup {
    frame(locale, title, None, true, body)
}

/// The hidden field with the session's CSRF token.
pub fn token(session: &SignedIn) -> Markup {
    html! { input type="hidden" name="csrf" value=(session.token); }
}

/// The field for the reason of a change.
pub fn justification(locale: Locale) -> Markup {
    html! {
        label { (locale.text("justification"))
            textarea name="justification" rows="2" maxlength="500" {}
        }
    }
}

/// Links to a client's page.
pub fn client_link(id: &str) -> Markup {
    html! { a href={ "/console/clients/" (id) } { (id) } }
}

/// The parts of a page that depend on the session.
struct Frame<'s> {
    nav: Markup,
    who: Markup,
    node: &'s str,
    live: bool,
}

/// The htmx configuration: it only puts responses of this gateway into the page.
const HTMX: &str = r#"{"allowEval":false,"allowScriptTags":false,"includeIndicatorStyles":false,"selfRequestsOnly":true,"historyEnabled":false,"historyCacheSize":0}"#;

fn frame(locale: Locale, title: &str, session: Option<Frame<'_>>, onward: bool, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang=(locale.code()) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                @if onward { meta http-equiv="refresh" content="0; url=/console/"; }
                title { (title) " · NDXP" }
                link rel="stylesheet" href="/console/style.css";
                @if session.as_ref().is_some_and(|session| session.live) {
                    meta name="htmx-config" content=(HTMX);
                    script src="/console/script/trust.js" {}
                    script src="/console/script/htmx.min.js" defer {}
                }
            }
            body {
                a.skip href="#main" { (locale.text("skip")) }
                header {
                    a.brand href="/console/" { "NDXP " span { (locale.text("brand")) } }
                    @if let Some(session) = &session { (session.nav) }
                    div.side {
                    @if let Some(session) = &session { (session.who) }
                    div.languages {
                        @for (other, name) in Locale::ALL {
                            form method="post" action={ "/console/language/" (other.code()) } {
                                button.quiet type="submit" lang=(other.code()) aria-pressed=((other == locale).to_string()) { (name) }
                            }
                        }
                    }
                    }
                }
                main #main {
                    h1 { (title) }
                    (body)
                }
                footer { "ndxp-gateway " (env!("CARGO_PKG_VERSION")) @if let Some(session) = &session { " · " (session.node) } }
            }
        }
    }
}
