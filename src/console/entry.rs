//! One entry of the log in words: what it says, what it was decided by, and where its time went.

use super::operator::live::fault;
use super::session::SignedIn;
use super::table::{lines, properties, table};
use super::text::Locale;
use super::{Console, request};
use crate::admin::api::admin_service_server::AdminService;
use crate::admin::api::{GrantId, TokenId};
use crate::config::OfficialNames;
use crate::exchange_log::Entry;
use crate::exchange_log::entry::Kind;
use crate::hex::hex;
use maud::{Markup, html};

/// What kind of entry it is.
pub fn kind(locale: Locale, entry: &Entry) -> String {
    locale.text(match entry.kind() {
        Kind::Exchange => "kind-exchange",
        Kind::Intent => "kind-intent",
        Kind::StreamOpened => "kind-stream-opened",
        Kind::Admin => "kind-admin",
        Kind::Connection => "kind-connection",
        Kind::StreamPart => "kind-stream-part",
        Kind::Unspecified => "kind-unspecified",
    })
}

/// How it ended.
pub fn outcome(entry: &Entry) -> Markup {
    let good = entry.reason.is_empty() && entry.status == 0;
    html! { span.state.(if good { "good" } else { "wrong" }) { (if good { "OK" } else { &entry.reason }) } }
}

/// The facts that an entry has.
type Facts = Vec<(&'static str, Markup)>;

fn text(text: &str) -> Option<Markup> {
    (!text.is_empty()).then(|| html! { (text) })
}

fn code(text: &str) -> Option<Markup> {
    (!text.is_empty()).then(|| html! { code { (text) } })
}

/// A code with its official name, where it has one.
pub fn named(code: &str, name: Option<&str>) -> Option<Markup> {
    (!code.is_empty()).then(|| html! { (code) @if let Some(name) = name { " – " span lang="vi" { (name) } } })
}

fn there(all: Vec<(&'static str, Option<Markup>)>) -> Facts {
    all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

/// What an entry says, without what it says nothing of, and without what [`decision`] and [`stages`] show.
pub fn facts(locale: Locale, names: &OfficialNames, index: u64, entry: &Entry) -> Facts {
    let bytes = |bytes: &[u8]| (!bytes.is_empty()).then(|| html! { code { (hex(bytes)) } });
    let number = |number: u64| (number > 0).then(|| html! { (locale.number(number)) });
    let list = |all: &[String]| (!all.is_empty()).then(|| lines(all));
    let suppressed = entry.suppressed;
    there(vec![
        ("column-time", Some(html! { (locale.timestamp(entry.time_us / 1_000_000)) })),
        ("entry-index", Some(html! { (locale.number(index)) })),
        ("entry-node", text(&entry.node)),
        ("column-client", text(&entry.client)),
        ("column-agency", named(&entry.agency, names.agency(&entry.agency))),
        ("entry-actor", text(&entry.actor)),
        ("column-action", code(&entry.event)),
        ("entry-object", text(&entry.object)),
        ("column-approved-by", text(&entry.approved_by)),
        ("justification", text(&entry.justification)),
        ("column-source", text(&entry.source)),
        ("column-hub", text(&entry.hub)),
        ("entry-shadow-hub", text(&entry.shadow_hub)),
        ("column-operation", code(&entry.operation)),
        ("entry-protocol", text(&entry.protocol)),
        ("entry-peer", text(&entry.peer)),
        ("entry-listener", text(&entry.listener)),
        ("entry-fault", text(&fault(locale, &entry.fault))),
        ("entry-cause", code(&entry.cause)),
        ("entry-source-code", code(&entry.source_code)),
        ("entry-source-reason", code(&entry.source_reason)),
        ("entry-suppressed", number(suppressed)),
        ("column-fields", list(&entry.fields)),
        ("entry-dropped-fields", list(&entry.dropped_fields)),
        ("entry-unknown-codes", list(&entry.unknown_codes)),
        ("entry-subjects", number(entry.subjects.len() as u64)),
        ("entry-response-subjects", number(entry.response_subjects.len() as u64 + entry.response_subjects_omitted)),
        ("entry-request-bytes", number(entry.request_bytes)),
        ("entry-response-bytes", number(entry.response_bytes)),
        ("entry-request-messages", number(entry.request_messages)),
        ("entry-response-messages", number(entry.response_messages)),
        ("entry-xroad-id", code(&entry.xroad_id)),
        ("entry-xroad-request-id", code(&entry.xroad_request_id)),
        ("entry-certificate", bytes(&entry.certificate)),
        ("entry-identity-provider", code(&entry.identity_provider)),
        ("entry-certificate-subject", text(&entry.certificate_subject)),
        ("entry-certificate-issuer", text(&entry.certificate_issuer)),
        ("entry-certificate-serial", code(&entry.certificate_serial)),
        ("entry-request-commitment", bytes(&entry.request_commitment)),
        ("entry-response-commitment", bytes(&entry.response_commitment)),
    ])
}

/// What the exchange was decided by: scope and purpose, the grant and the token as the registry has them now, the rule that refused.
pub async fn decision(console: &Console, session: &SignedIn, entry: &Entry) -> Markup {
    let locale = session.locale;
    let facts = there(vec![
        ("entry-rule", (!entry.rule.is_empty()).then(|| rule(&entry.rule))),
        ("column-scope", code(&entry.scope)),
        ("column-purpose", named(&entry.purpose, console.names.load().procedure(&entry.purpose))),
        ("entry-grant", grant(console, session, &entry.grant).await),
        ("entry-grant-call", (entry.grant_call > 0).then(|| html! { (locale.number(entry.grant_call)) })),
        ("token", token(console, session, &entry.token).await),
    ]);
    html! {
        @if !facts.is_empty() {
            h3 { (locale.text("entry-decision")) }
            (properties(locale, &facts))
        }
    }
}

/// A rule, with the grants that passed those before it.
fn rule(rule: &str) -> Markup {
    let mut words = rule.split(' ');
    html! {
        code { (words.next().unwrap_or_default()) }
        @for id in words { " " a href={ "/console/grants/" (id) } { code { (id) } } }
    }
}

async fn grant(console: &Console, session: &SignedIn, id: &str) -> Option<Markup> {
    if id.is_empty() {
        return None;
    }
    let locale = session.locale;
    let found = console.admin.get_grant(request(session, GrantId { id: id.to_owned() })).await;
    Some(html! {
        a href={ "/console/grants/" (id) } { code { (id) } }
        @if let Ok(found) = found.map(tonic::Response::into_inner) {
            br; (found.legal_basis)
            br; (locale.timestamp(found.not_before)) " – " (locale.timestamp(found.not_after))
            @if !found.approved_by.is_empty() { br; (locale.text("column-approved-by")) ": " (found.approved_by) }
        }
    })
}

async fn token(console: &Console, session: &SignedIn, id: &str) -> Option<Markup> {
    if id.is_empty() {
        return None;
    }
    let locale = session.locale;
    let found = console.admin.get_token(request(session, TokenId { id: id.to_owned() })).await;
    Some(html! {
        code { (id) }
        // A token that has long ended is in the registry no more.
        @if let Ok(found) = found.map(tonic::Response::into_inner) {
            br; (locale.timestamp(found.issued)) " – " (locale.timestamp(found.expires))
            @if found.revoked { " " span.state.gone { (locale.text("state-revoked")) } }
        }
    })
}

/// Where an exchange's time went: when it arrived, how long each stage took, when it ended. Entries of earlier versions have the source's
/// time and the gateway's as a whole.
pub fn stages(locale: Locale, entry: &Entry) -> Markup {
    if entry.total_us == 0 {
        return html! {};
    }
    let total = i64::try_from(entry.total_us).unwrap_or(i64::MAX);
    let at = |time_us: i64| html! { (locale.precise(time_us)) };
    let duration = |us: u64| html! { (locale.milliseconds(us)) };
    let took = |key: &str, us: u64| (us > 0).then(|| vec![html! { (locale.text(key)) }, html! { "–" }, duration(us)]);
    let source = (entry.source_us > 0).then(|| {
        let attempts = locale.number(entry.attempts.max(1).into());
        let source =
            html! { (locale.text("stage-source")) " (" (locale.with("stage-attempts", "count", attempts)) ")" };
        vec![source, html! { "–" }, duration(entry.source_us)]
    });
    let mut rows =
        vec![vec![html! { (locale.text("stage-arrived")) }, at(entry.time_us.saturating_sub(total)), html! { "–" }]];
    if entry.access_us > 0 {
        rows.extend(took("stage-access", entry.access_us));
        rows.extend(took("stage-request", entry.request_us));
        rows.extend(took("stage-guard", entry.guard_us));
        rows.extend(source);
        rows.extend(took("stage-response", entry.response_us));
        rows.extend(took("stage-log", entry.log_us));
    } else {
        rows.extend(took("stage-gateway", entry.total_us.saturating_sub(entry.source_us)));
        rows.extend(source);
    }
    let ended = if entry.kind() == Kind::Intent { "stage-sent" } else { "stage-ended" };
    rows.push(vec![html! { (locale.text(ended)) }, at(entry.time_us), duration(entry.total_us)]);
    html! {
        h3 { (locale.text("entry-stages")) }
        (table(locale, "entry-stages", &["column-stage", "column-time", "column-duration"], &rows))
    }
}
