//! How the gateway does at this moment, for `GetOverview`: read from what it counts in memory.

use crate::admin::api;
use crate::guard::{BreakerState, Guard, GuardSettings};
use crate::registry::now;
use crate::server::shared::{Served, Shared, UpstreamRank};
use crate::status::Reason;
use crate::telemetry::SourceTraffic;
use std::time::Instant;

/// Reads it. Takes some milliseconds: never on a worker's thread.
pub(in crate::server) fn of(shared: &Shared) -> api::GetOverviewResponse {
    let figures = shared.traffic.summary(Instant::now(), now());
    let served = shared.served.load();
    let known = |id: &str| figures.sources.get(id).cloned().unwrap_or_default();
    let mut sources: Vec<api::SourceOverview> =
        served.catalogue.sources.keys().map(|id| source(&served, id, known(id))).collect();
    sources.sort_by(|one, other| one.id.cmp(&other.id));
    let unknown = known("");
    if unknown.calls > 0 || !unknown.errors.is_empty() {
        sources.insert(0, with_traffic(api::SourceOverview::default(), unknown));
    }
    let window = |(duration, calls, failed): &(std::time::Duration, u64, u64)| api::TrafficWindow {
        duration_ms: u32::try_from(duration.as_millis()).unwrap_or(u32::MAX),
        calls: *calls,
        failed: *failed,
    };
    api::GetOverviewResponse {
        period_s: u32::try_from(figures.period.as_secs()).unwrap_or(u32::MAX),
        sources,
        windows: figures.windows.iter().map(window).collect(),
        log: Some(log(shared)),
        witnesses: witnesses(shared),
        faults: [shared.readiness.faults(), shared.readiness.warnings()].concat(),
        ends: ends(shared),
    }
}

fn source(served: &Served, id: &str, traffic: SourceTraffic) -> api::SourceOverview {
    let version = served.catalogue.sources.get(id).map_or("", |entry| entry.contract.as_str());
    let operations = served.catalogue.contracts.operations();
    let about = operations.iter().map(|one| &one.source).find(|source| source.id == id && source.version == version);
    let text =
        |of: fn(&crate::contract::SourceInfo) -> &String| about.map(|source| of(source).clone()).unwrap_or_default();
    let mut guards: Vec<_> = served.guards_of(id).map(|(name, settings, one)| guard(name, settings, one)).collect();
    guards.sort_by(|one, other| one.name.cmp(&other.name));
    let overview = api::SourceOverview {
        id: id.to_owned(),
        name: text(|source| &source.name),
        name_vi: text(|source| &source.name_vi),
        owner: text(|source| &source.owner),
        contract: version.to_owned(),
        guards,
        endpoints: endpoints(served, id),
        ..Default::default()
    };
    with_traffic(overview, traffic)
}

fn with_traffic(source: api::SourceOverview, traffic: SourceTraffic) -> api::SourceOverview {
    let faults = |name: &str| traffic.faults.get(name).copied().unwrap_or(0);
    let fault = |reason: &str| {
        Reason::ALL.iter().find(|known| known.as_str() == reason).map_or("", |known| known.fault().as_str())
    };
    api::SourceOverview {
        calls: traffic.calls,
        caller_faults: faults("caller"),
        gateway_faults: faults("gateway"),
        hub_faults: faults("hub"),
        source_faults: faults("source"),
        p50_us: traffic.total_us.0,
        p99_us: traffic.total_us.1,
        source_p50_us: traffic.source_us.0,
        source_p99_us: traffic.source_us.1,
        errors: traffic
            .errors
            .into_iter()
            .map(|one| api::RecentError {
                fault: fault(&one.reason).to_owned(),
                reason: one.reason,
                last_seen: one.last_seen,
            })
            .collect(),
        ..source
    }
}

fn guard(name: &str, settings: &GuardSettings, guard: &Guard) -> api::GuardOverview {
    let whole = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let breaker = match guard.breaker_state() {
        BreakerState::Closed => api::BreakerState::BreakerClosed,
        BreakerState::HalfOpen => api::BreakerState::BreakerHalfOpen,
        BreakerState::Open => api::BreakerState::BreakerOpen,
    };
    api::GuardOverview {
        name: name.to_owned(),
        breaker: breaker as i32,
        breaker_clients: whole(guard.breaker_clients()),
        concurrency: whole(guard.concurrency_limit()),
        max_concurrency: whole(settings.concurrency),
        queued: whole(guard.queued()),
        max_queued: whole(settings.queue),
        streams: whole(guard.streams()),
        max_streams: whole(settings.streams),
    }
}

fn endpoints(served: &Served, id: &str) -> Vec<api::EndpointOverview> {
    let Some(entry) = served.catalogue.sources.get(id) else { return Vec::new() };
    let second = entry.second.as_ref().map(|(_, reach)| (UpstreamRank::Second, reach));
    let ways = std::iter::once((UpstreamRank::First, &entry.first)).chain(second);
    let mut all = Vec::new();
    for (rank, reach) in ways {
        let Some(endpoints) = served.endpoints.get(&(id.to_owned(), rank)) else { continue };
        all.extend(endpoints.states().map(|(address, up)| api::EndpointOverview {
            address: address.to_owned(),
            hub: reach.hub.clone().unwrap_or_default(),
            up,
        }));
    }
    all
}

fn log(shared: &Shared) -> api::LogOverview {
    let health = shared.log.health();
    let (disk_free_bytes, disk_days) = shared.metrics.disk_now().unwrap_or_default();
    api::LogOverview {
        entries: shared.log.durable(),
        unsealed_entries: health.unsealed_entries,
        checkpoint_age_s: u32::try_from(health.checkpoint_age.as_secs()).unwrap_or(u32::MAX),
        cosigned_entries: shared.metrics.witnesses.cosigned_now().0,
        disk_free_bytes,
        disk_days,
    }
}

fn witnesses(shared: &Shared) -> Vec<api::WitnessOverview> {
    let states = shared.metrics.witnesses.states();
    let message = |(name, state): (String, crate::telemetry::WitnessState)| api::WitnessOverview {
        name,
        up: state.up,
        entries: state.entries,
    };
    states.into_iter().map(message).collect()
}

fn ends(shared: &Shared) -> Vec<api::FileEnd> {
    let ends = shared.ends.load();
    let file = |path: &std::path::Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let message = |(path, one): &(std::path::PathBuf, crate::pki::Ending)| api::FileEnd {
        file: file(path),
        what: one.list.as_ref().map_or(&one.what, |list| &list.issuer).clone(),
        at: one.at,
        revocation_list: one.list.is_some(),
    };
    ends.iter().map(message).collect()
}
