//! The cluster: how far the log is sealed and stored, the gateways, the members of etcd, and since when each gateway applies the newest
//! changes of the registry.

use super::live;
use crate::admin::api::admin_service_server::AdminService;
use crate::admin::api::{
    AppliedChange, ClusterGateway, EtcdMember, EtcdRole, GetClusterRequest, GetClusterResponse, RegistryChange,
};
use crate::console::failure::{Failure, message_of};
use crate::console::session::{SignedIn, Watching};
use crate::console::table::{folded, properties, table};
use crate::console::text::Locale;
use crate::console::{Console, layout, request};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use std::sync::Arc;

const HERE: &str = "/console/cluster";
/// After how long without a report a gateway no longer reports: three times the pause between two.
const SILENT_MS: u64 = 15_000;

/// The page.
pub async fn page(State(console): State<Arc<Console>>, session: SignedIn) -> Result<Response, Failure> {
    let title = session.locale.text("menu-cluster");
    let shown = shown(&console, &session).await?;
    if !session.in_cluster {
        return Ok(layout::page(&session, HERE, &title, &shown).into_response());
    }
    let body = html! { div #live hx-get={ (HERE) "/live" } hx-trigger="every 5s" { (shown) } };
    Ok(layout::live_page(&session, HERE, &title, &body))
}

/// Returns the part of the page that refreshes itself.
pub async fn fragment(State(console): State<Arc<Console>>, Watching(session): Watching) -> Result<Markup, Failure> {
    shown(&console, &session).await
}

async fn shown(console: &Console, session: &SignedIn) -> Result<Markup, Failure> {
    let locale = session.locale;
    let found = match console.admin.get_cluster(request(session, GetClusterRequest {})).await {
        Err(status) if status.code() == tonic::Code::FailedPrecondition => {
            return Ok(html! { p.empty { (locale.text("cluster-alone")) } });
        }
        response => message_of(session, response)?,
    };
    // Each gateway has the witnesses of its own data centre.
    let witnesses = live::overview(console, session).await?.witnesses;
    let entries = found.checkpoint.map_or(0, |checkpoint| checkpoint.entries);
    Ok(html! {
        (part(locale, &found))
        @if !witnesses.is_empty() { (live::witnesses(locale, &witnesses, entries)) }
    })
}

fn part(locale: Locale, found: &GetClusterResponse) -> Markup {
    html! {
        @if found.faults.is_empty() {
            p.state.good { (locale.text("cluster-sound")) }
        } @else {
            div.notice.wrong role="alert" {
                p { strong { (locale.text("cluster-faults")) } }
                @for fault in &found.faults { p { (fault) } }
            }
        }
        (log(locale, found))
        h2 { (locale.text("cluster-gateways")) }
        p.hint { (locale.text("cluster-gateways-hint")) }
        (gateways(locale, found))
        h2 { (locale.text("cluster-members")) }
        (members(locale, &found.members))
        h2 { (locale.text("cluster-changes")) }
        p.hint { (locale.text("cluster-changes-hint")) }
        (changes(locale, &found.changes))
    }
}

fn log(locale: Locale, found: &GetClusterResponse) -> Markup {
    let unknown = || html! { (locale.text("cluster-unknown")) };
    let number = |number: Option<u64>| number.map_or_else(unknown, |number| html! { (locale.number(number)) });
    let age = |age_s: u32| html! { (locale.with("live-seconds", "seconds", locale.number(age_s.into()))) };
    let sealer = match (&found.sealer, &found.checkpoint) {
        (Some(sealer), _) => html! {
            (sealer.gateway) ", " (locale.with("cluster-incarnation", "number", sealer.incarnation.as_str()))
        },
        (None, Some(_)) => html! { (locale.text("cluster-nobody-seals")) },
        (None, None) => unknown(),
    };
    let checkpoint = found.checkpoint;
    properties(
        locale,
        &[
            ("cluster-sealed", number(checkpoint.map(|checkpoint| checkpoint.entries))),
            ("live-checkpoint-age", checkpoint.map_or_else(unknown, |checkpoint| age(checkpoint.age_s))),
            ("cluster-epoch", number(checkpoint.map(|checkpoint| checkpoint.epoch))),
            ("cluster-sealer", sealer),
            ("cluster-read", html! { (locale.precise(found.time_us)) }),
        ],
    )
}

/// The text of a gateway's state, and its kind.
fn gateway_state(locale: Locale, one: &ClusterGateway) -> (String, &'static str) {
    match one {
        one if one.reported_us == 0 => (locale.text("cluster-never-reported"), "gone"),
        one if one.report_age_ms > SILENT_MS => (locale.text("cluster-silent"), "wrong"),
        one if !one.stopped.is_empty() => (locale.with("cluster-stopped", "state", one.stopped.as_str()), "wrong"),
        one if one.changes_behind > 0 => (locale.text("cluster-follows"), "later"),
        _ => (locale.text("cluster-in-step"), "good"),
    }
}

fn gateways(locale: Locale, found: &GetClusterResponse) -> Markup {
    let row = |one: &ClusterGateway| {
        let (state, kind) = gateway_state(locale, one);
        let reported = |value: Markup| {
            if one.reported_us == 0 {
                html! { "–" }
            } else {
                value
            }
        };
        let (ago, known) = (locale.number(one.report_age_ms / 1_000), found.checkpoint.is_some());
        let behind = if known { locale.number(one.entries_behind) } else { locale.text("cluster-unknown") };
        vec![
            html! {
                span.moment { (one.name) }
                @if one.name == found.gateway { br; (locale.text("cluster-this")) }
                @if !one.version.is_empty() { br; (locale.text("column-version")) " " (one.version) }
            },
            html! { span.state.(kind) { (state) } },
            html! { (locale.number(one.entries)) " / " (behind) },
            reported(html! { (locale.number(one.change)) " / " (locale.number(one.changes_behind)) }),
            html! { @if let Some(age) = one.view_age_ms { (locale.number(age)) " ms" } @else { "–" } },
            reported(html! { (locale.precise(one.reported_us)) br; (locale.with("cluster-ago", "seconds", ago)) }),
        ]
    };
    let headings =
        ["column-gateway", "column-state", "column-stored", "column-change", "column-view-age", "column-reported"];
    table(locale, "cluster-gateways", &headings, &found.gateways.iter().map(row).collect::<Vec<_>>())
}

fn members(locale: Locale, all: &[EtcdMember]) -> Markup {
    let mebibytes = |bytes: u64| format!("{} MiB", live::decimal(locale, bytes as f64 / f64::from(1 << 20)));
    let row = |one: &EtcdMember| {
        let (key, kind) = match one.role() {
            EtcdRole::Leader => ("cluster-leader", "good"),
            EtcdRole::Follower => ("cluster-follower", "good"),
            EtcdRole::Alone => ("cluster-no-leader", "wrong"),
            EtcdRole::Unspecified => ("cluster-away", "wrong"),
        };
        let state = html! {
            span.state.(kind) { (locale.text(key)) }
            @if !one.fault.is_empty() { br; (one.fault) }
            @if !one.alarms.is_empty() {
                br; span.state.wrong { (locale.with("cluster-alarms", "alarms", one.alarms.join(", "))) }
            }
        };
        let known = |value: String| if one.id.is_empty() { "–".to_owned() } else { value };
        let size = || format!("{} / {}", mebibytes(one.database_bytes_in_use), mebibytes(one.database_bytes));
        vec![
            html! { code { (one.address) } @if !one.id.is_empty() { br; code { (one.id) } } },
            state,
            html! { (known(one.version.clone())) },
            html! { (known(locale.number(one.revision.unsigned_abs()))) },
            html! { (known(locale.number(one.raft_index))) },
            html! { (known(size())) },
        ]
    };
    let headings =
        ["column-member", "column-state", "column-version", "column-revision", "column-raft-index", "column-database"];
    table(locale, "cluster-members", &headings, &all.iter().map(row).collect::<Vec<_>>())
}

fn changes(locale: Locale, all: &[RegistryChange]) -> Markup {
    let row = |change: &RegistryChange| {
        let (key, kind) = match change.gateways.iter().all(|one| one.in_force) {
            true => ("cluster-everywhere", "good"),
            false => ("cluster-pending", "later"),
        };
        vec![
            html! { (locale.number(change.number)) },
            html! { (locale.number(change.event)) },
            html! { @for (at, one) in change.objects.iter().enumerate() { @if at > 0 { br; } (object(locale, one)) } },
            html! { span.state.(kind) { (locale.text(key)) } },
            folded(locale, &in_force(locale, &change.gateways)),
        ]
    };
    let headings = ["column-number", "column-event", "column-what", "column-state", "column-in-force"];
    table(locale, "cluster-changes", &headings, &all.iter().map(row).collect::<Vec<_>>())
}

/// Since when each gateway applies a change: first those that do not yet, then in the order in which it came into force.
fn in_force(locale: Locale, all: &[AppliedChange]) -> Vec<String> {
    let first = all.iter().filter(|one| one.since_us > 0).map(|one| one.since_us).min();
    let mut sorted: Vec<&AppliedChange> = all.iter().collect();
    sorted.sort_by_key(|one| (one.in_force, one.since_us));
    let line = |one: &&AppliedChange| {
        let since = match (one.in_force, one.since_us) {
            (false, _) => locale.text("cluster-not-yet"),
            (true, 0) => locale.text("cluster-before"),
            (true, since) => {
                let later = u64::try_from(since - first.unwrap_or(since)).unwrap_or_default() / 1_000;
                let after = if later > 0 { format!(" (+{} ms)", locale.number(later)) } else { String::new() };
                format!("{}{after}", locale.precise(since))
            }
        };
        format!("{}: {since}", one.gateway)
    };
    sorted.iter().map(line).collect()
}

/// What a change touched, with its page.
fn object(locale: Locale, touched: &str) -> Markup {
    let (kind, id) = touched.split_once(':').unwrap_or((touched, ""));
    match kind {
        "client" => html! { (locale.text("column-client")) " " (layout::client_link(id)) },
        "token" => html! { (locale.text("token")) " " a.object href={ "/console/tokens/" (id) } { (id) } },
        "keys" => html! { a href="/console/keys" { (locale.text("menu-keys")) } },
        "staff" => html! { a href="/console/staff" { (locale.text("menu-staff")) } },
        "notices" => html! { (locale.text("notice")) },
        _ => html! { (touched) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EN: Locale = Locale::English;

    #[test]
    fn a_gateway_s_state_is_the_worst_that_is_known_of_it() {
        let sound = || ClusterGateway { reported_us: 1, report_age_ms: 4_000, ..ClusterGateway::default() };
        let state = |one: ClusterGateway| gateway_state(EN, &one);
        assert_eq!(state(ClusterGateway::default()), ("Has not reported yet".into(), "gone"));
        assert_eq!(state(sound()), ("Up to date".into(), "good"));
        assert_eq!(state(ClusterGateway { changes_behind: 2, ..sound() }), ("Behind".into(), "later"));
        let stopped = || ClusterGateway { stopped: "ETCD_DIVERGED".into(), changes_behind: 2, ..sound() };
        assert_eq!(state(stopped()), ("Its log has stopped: ETCD_DIVERGED".into(), "wrong"));
        // What it said long ago is not known of it now.
        assert_eq!(
            state(ClusterGateway { report_age_ms: SILENT_MS + 1, ..stopped() }),
            ("No longer reports".into(), "wrong")
        );
    }

    #[test]
    fn a_change_says_where_it_is_not_in_force_yet_first_and_how_much_later_it_came_elsewhere() {
        let one = |gateway: &str, in_force, since_us| AppliedChange { gateway: gateway.into(), in_force, since_us };
        let all = [
            one("dc1", true, 1_795_712_400_250_000),
            one("dc2", true, 1_795_712_400_007_000),
            one("dc4", true, 0),
            one("dc3", false, 0),
        ];
        assert_eq!(
            in_force(EN, &all),
            [
                "dc3: not yet",
                "dc4: before it was started",
                "dc2: 2026-11-27 00:00:00.007 (UTC+7)",
                "dc1: 2026-11-27 00:00:00.250 (UTC+7) (+243 ms)"
            ]
        );
        let change = RegistryChange { gateways: all.to_vec(), ..RegistryChange::default() };
        let shown = |change: &RegistryChange| changes(EN, std::slice::from_ref(change)).into_string();
        assert!(shown(&change).contains("Not at every gateway yet"));
        let everywhere = RegistryChange { gateways: all[..2].to_vec(), ..change };
        assert!(shown(&everywhere).contains("In force at every gateway"));
    }

    #[test]
    fn without_etcd_the_page_says_what_is_unknown_and_no_zero_for_it() {
        let own = ClusterGateway { name: "dc1".into(), reported_us: 1, entries: 7, ..ClusterGateway::default() };
        let away =
            EtcdMember { address: "https://etcd1:2379".into(), fault: "refused".into(), ..EtcdMember::default() };
        let found = GetClusterResponse {
            gateway: "dc1".into(),
            faults: vec!["not read from etcd (checkpoint): etcd has no quorum".into()],
            gateways: vec![own],
            members: vec![away],
            ..GetClusterResponse::default()
        };
        let page = part(EN, &found).into_string();
        assert!(page.contains("<dt>Entries sealed</dt><dd>unknown</dd>"), "{page}");
        assert!(page.contains("<dt>Sealed by</dt><dd>unknown</dd>") && page.contains("etcd has no quorum"), "{page}");
        assert!(page.contains("Does not respond</span><br>refused") && page.contains("this gateway"), "{page}");
    }

    #[test]
    fn what_a_change_touched_leads_to_its_page_and_text_from_outside_is_escaped() {
        let shown = |touched| object(EN, touched).into_string();
        assert!(shown("client:shop").contains("href=\"/console/clients/shop\""));
        assert!(shown("token:t1").contains("href=\"/console/tokens/t1\""));
        assert_eq!(shown("keys"), "<a href=\"/console/keys\">Keys</a>");
        assert_eq!(shown("<b>"), "&lt;b&gt;");
    }
}
