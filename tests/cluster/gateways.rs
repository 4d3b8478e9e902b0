//! Three gateways with one log and one registry: what callers, administrators and auditors see of them.

use crate::etcd::{LIMIT, MEMBERS};
use crate::province::{ADMINISTRATOR, KIOSK_QUOTA, Province};
use crate::support::{Actor, CITIZEN, ENTERPRISE, SECOND, Told, UNIT, entries, exchanges, ops_page, until};
use ndxp_gateway::audit::replay::Replay;
use ndxp_gateway::exchange_log::reader::Found;
use ndxp_gateway::exchange_log::verify::verify_data;
use ndxp_gateway::exchange_log::{Kind, SPOOL_EVENT};
use ndxp_gateway::sandbox::samples::samples;
use ndxp_gateway::server::registry_path;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

fn request(province: &Province, operation: &str) -> Value {
    let all = samples(&province.sandbox.province);
    all.into_iter().find(|one| one.operation.ends_with(operation)).unwrap().requests[0].clone()
}

/// One call, with a connection of its own.
fn told(actor: &Actor, path: &str, request: &Value) -> Told {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(actor.call(path, request.clone()))
}

/// Its reason; empty: it succeeded.
fn call(actor: &Actor, path: &str, request: &Value) -> String {
    told(actor, path, request).reason()
}

#[test]
fn every_exchange_is_in_every_log_once_and_a_person_has_one_pseudonym() {
    let Some(province) = Province::start() else { return };
    let citizen = request(&province, "GetCitizen");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut sent = BTreeSet::new();
    for at in 0..MEMBERS {
        let actor = province.actor(at, "shop");
        for _ in 0..5 {
            sent.insert(runtime.block_on(actor.call(CITIZEN, citizen.clone())).ok().exchange());
        }
    }
    let size = province.settle();
    for at in 0..MEMBERS {
        let data = province.data(at);
        let report = verify_data(&data, None, None, Default::default(), |_, _| {}).unwrap();
        assert!(report.sealed >= size);
        let all: Vec<_> = exchanges(&data).into_iter().filter(|entry| entry.status == 0).collect();
        let ids: Vec<String> = all.iter().map(|entry| entry.id_text()).collect();
        assert_eq!((ids.len(), ids.into_iter().collect::<BTreeSet<_>>()), (sent.len(), sent.clone()));
        let people: BTreeSet<_> = all.iter().flat_map(|entry| &entry.subjects).map(|one| one.value.clone()).collect();
        let nodes: BTreeSet<_> = all.iter().map(|entry| entry.node.clone()).collect();
        assert_eq!((people.len(), nodes.len()), (1, MEMBERS), "one person, whichever gateway was asked");
    }
}

#[test]
fn a_suspension_at_one_gateway_is_in_force_at_all_within_a_second_and_the_log_has_it() {
    let Some(province) = Province::start() else { return };
    let enterprise = request(&province, "GetEnterprise");
    let actors: Vec<Actor> = (0..MEMBERS).map(|at| province.actor(at, "shop")).collect();
    for actor in &actors {
        assert_eq!(call(actor, ENTERPRISE, &enterprise), "");
    }
    province.by(ADMINISTRATOR, 1, &["client", "suspend", "shop"]).unwrap();
    let began = Instant::now();
    for actor in &actors {
        until("it is suspended here", || call(actor, ENTERPRISE, &enterprise) == "CLIENT_SUSPENDED");
    }
    let took = began.elapsed();
    println!("in force at all three gateways after {} ms", took.as_millis());
    // Not a bound on time: a machine may be busy. The view is refreshed by a watch, and each second at the latest.
    assert!(took < LIMIT);
    province.settle();
    for at in 0..MEMBERS {
        let (data, pause) = (province.data(at), || std::thread::sleep(Duration::from_millis(200)));
        let mut replay = Replay::default();
        let found = replay.confirmed_differences(&data, &registry_path(&data), pause).unwrap();
        // What the seed's registry had before is in no log here.
        let unknown: Vec<_> =
            found.iter().filter(|one| one.object == "client:shop" && one.field == "suspended").collect();
        assert!(replay.last_event() > 0 && unknown.is_empty(), "{unknown:?}");
    }
}

#[test]
fn a_daily_quota_is_exact_over_all_gateways() {
    let Some(province) = Province::start() else { return };
    let enterprise = request(&province, "GetEnterprise");
    let actors: Vec<Actor> = (0..MEMBERS).map(|at| province.actor(at, "kiosk")).collect();
    let calls = |actor: &Actor| {
        let mut made = 0;
        loop {
            match call(actor, ENTERPRISE, &enterprise).as_str() {
                "" => made += 1,
                "QUOTA_EXCEEDED" => return made,
                other => panic!("{other}"),
            }
        }
    };
    let made: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = actors.iter().map(|actor| scope.spawn(move || calls(actor))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    // A gateway may have been refused while another one still held a call that it used later: none is left in the end.
    let rest: u64 = actors.iter().map(calls).sum();
    assert_eq!(made.iter().sum::<u64>() + rest, KIOSK_QUOTA, "{made:?} and {rest}");
}

/// How often an exchange is in a log, and how often an entry says that it was answered without a majority.
fn times(data: &std::path::Path, exchange: &str) -> (usize, usize) {
    let marked = format!("exchange:{exchange}");
    let all = entries(data);
    let is_it = |found: &&Found| found.entry.kind() == Kind::Exchange && found.entry.id_text() == exchange;
    let marks = all.iter().filter(|found| found.entry.event == SPOOL_EVENT && found.entry.object == marked);
    (all.iter().filter(is_it).count(), marks.count())
}

#[test]
fn what_policy_permits_is_answered_without_a_majority_and_joins_the_log_once_also_after_a_crash() {
    let Some(mut province) = Province::start_with(30 * SECOND, 2 * SECOND) else { return };
    let (enterprise, unit) = (request(&province, "GetEnterprise"), request(&province, "GetUnit"));
    for crashes in [false, true] {
        let actor = province.actor(0, "shop");
        let before = told(&actor, UNIT, &unit).ok().exchange();
        (1..MEMBERS).for_each(|at| province.etcd.kill(at));
        // One at least is in the batch that is stuck, the others come after it.
        let spooled: Vec<String> = (0..5).map(|_| told(&actor, UNIT, &unit).ok().exchange()).collect();
        assert_eq!(call(&actor, ENTERPRISE, &enterprise), "EXCHANGE_LOG_UNAVAILABLE", "it is not named");
        let page = ops_page(&province.ops(0), "/metrics");
        let kept = page.lines().find_map(|line| line.strip_prefix("ndxp_log_spooled_entries ")).unwrap_or_default();
        assert!(kept.parse::<u32>().unwrap() >= spooled.len() as u32, "{kept}");
        if crashes {
            province.gateways[0] = None;
        }
        (1..MEMBERS).for_each(|at| province.etcd.restart(at));
        if crashes {
            province.open(0);
        }
        let actor = province.actor(0, "shop");
        until("calls are served as usual", || call(&actor, ENTERPRISE, &enterprise).is_empty());
        let after = told(&actor, UNIT, &unit).ok().exchange();
        province.settle();
        for at in 0..MEMBERS {
            let data = province.data(at);
            assert_eq!((times(&data, &before), times(&data, &after)), ((1, 0), (1, 0)));
            for exchange in &spooled {
                assert_eq!(times(&data, exchange), (1, 1), "{exchange} at {at}");
            }
            let order: Vec<String> = exchanges(&data).iter().map(|entry| entry.id_text()).collect();
            let order: Vec<&String> = order.iter().filter(|id| spooled.contains(id)).collect();
            assert_eq!(order, spooled.iter().collect::<Vec<_>>(), "in their order");
        }
    }
}

#[test]
fn without_a_majority_calls_are_refused_at_once_and_an_old_view_gives_nobody_a_right() {
    let Some(mut province) = Province::start_with(8 * SECOND, 2 * SECOND) else { return };
    let enterprise = request(&province, "GetEnterprise");
    let actor = province.actor(0, "shop");
    assert_eq!(call(&actor, ENTERPRISE, &enterprise), "");
    (1..MEMBERS).for_each(|at| province.etcd.kill(at));
    until("the log refuses", || call(&actor, ENTERPRISE, &enterprise) == "EXCHANGE_LOG_UNAVAILABLE");
    let began = Instant::now();
    until("the view is too old", || call(&actor, ENTERPRISE, &enterprise) == "REGISTRY_UNAVAILABLE");
    let refused = province.by(ADMINISTRATOR, 0, &["client", "list"]).unwrap_err();
    assert!(refused.contains("_UNAVAILABLE"), "neither the view is known nor can the refusal be logged: {refused}");
    println!("the view was too old after {} ms", began.elapsed().as_millis());
    (1..MEMBERS).for_each(|at| province.etcd.restart(at));
    until("calls are served again", || call(&actor, ENTERPRISE, &enterprise).is_empty());
    // A gateway that was stopped meanwhile comes back with everything.
    province.gateways[2] = None;
    until("calls are served without it", || call(&actor, ENTERPRISE, &enterprise).is_empty());
    province.open(2);
    province.settle();
    let report = verify_data(&province.data(2), None, None, Default::default(), |_, _| {}).unwrap();
    assert_eq!(exchanges(&province.data(2)).len(), exchanges(&province.data(0)).len(), "of {}", report.sealed);
}
