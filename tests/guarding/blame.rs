//! Blame: nothing that a caller does counts against a source, and nothing that one operation does counts against another.

use crate::support::{
    Actor, ENTERPRISE, OFFICIAL_OF, PROGRESS, Stage, UNIT, breaker, breaker_clients, breaker_for_all, comes, hasty,
    until,
};
use ndxp_gateway::sandbox::{Fault, FaultKind};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tonic::Code;

const STATUS: &str = "/ndxp.business.v1.BusinessService/VerifyEnterprise";

fn enterprise(stage: &Stage) -> Value {
    json!({ "enterpriseCode": stage.sandbox.province.enterprises[0].code })
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_short_deadlines_open_no_breaker_on_any_protocol() {
    let keys = "breaker_window = 4\nattempts = 1";
    let stage = Stage::guarded(&[("business", keys), ("officials", keys), ("population", keys)]);
    let actor = stage.system("one-stop-shop");
    let province = stage.sandbox.province.clone();
    let person = &province.people[0];
    let calls = [
        ("business", ENTERPRISE, enterprise(&stage)),
        ("officials", OFFICIAL_OF, json!({ "citizenId": province.people[province.officials[0].person].citizen_id })),
        (
            "population",
            crate::support::VERIFY,
            json!({ "citizenId": person.citizen_id, "fullName": person.full_name(), "birthDate": { "year": person.birth.0 } }),
        ),
    ];
    for (source, path, request) in calls {
        // So that connections and tokens exist.
        actor.call(path, request.clone()).await.ok();
        stage.sandbox.faults.set(source, Fault { latency_ms: 120, ..Fault::default() });
        for number in 0..20 {
            let told = hasty(&actor, path, &request, "40m").await;
            assert_eq!(
                (told.code(), told.reason().as_str()),
                (Code::DeadlineExceeded, "CALLER_DEADLINE"),
                "{source} {number}"
            );
            assert_eq!(stage.entry(&told.exchange()).entry.reason, "CALLER_DEADLINE");
        }
        assert_eq!(breaker(&stage, source), 0, "{source}");
        actor.call(path, request).await.ok();
    }
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_a_source_that_exceeds_the_operation_s_timeout_opens_its_breaker() {
    let stage = Stage::guarded(&[("officials", "breaker_window = 4\nattempts = 1\nbreaker_open_ms = 60000")]);
    let actor = stage.system("one-stop-shop");
    let official = &stage.sandbox.province.people[stage.sandbox.province.officials[0].person];
    let request = json!({ "citizenId": official.citizen_id });
    stage.sandbox.faults.set("officials", FaultKind::Hang);
    // A call without a deadline, and one with the contract's timeout.
    let own = || actor.call(OFFICIAL_OF, request.clone());
    let given = || hasty(&actor, OFFICIAL_OF, &request, "5S");
    let all = tokio::join!(own(), own(), given(), given());
    for told in [all.0, all.1, all.2, all.3] {
        assert_eq!(told.reason(), "SOURCE_TIMEOUT");
    }
    assert_eq!(breaker(&stage, "officials"), 2);
    assert_eq!(actor.call(OFFICIAL_OF, request).await.reason(), "SOURCE_CIRCUIT_OPEN");
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_a_hanging_source_is_detected_although_all_deadlines_are_short() {
    let stage = Stage::guarded(&[("officials", "breaker_window = 4\nattempts = 1\nbreaker_open_ms = 60000")]);
    let actor = stage.system("one-stop-shop");
    let official = &stage.sandbox.province.people[stage.sandbox.province.officials[0].person];
    let request = json!({ "citizenId": official.citizen_id });
    actor.call(OFFICIAL_OF, request.clone()).await.ok();
    stage.sandbox.faults.set("officials", FaultKind::Hang);
    let end = Instant::now() + Duration::from_secs(40);
    while breaker(&stage, "officials") == 0 {
        assert!(Instant::now() < end, "nobody noticed");
        let told = hasty(&actor, OFFICIAL_OF, &request, "50m").await;
        assert!(["CALLER_DEADLINE", "SOURCE_CIRCUIT_OPEN"].contains(&told.reason().as_str()), "{}", told.reason());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(actor.call(OFFICIAL_OF, request).await.reason(), "SOURCE_CIRCUIT_OPEN");
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_a_probe_with_a_short_deadline_continues_without_its_caller_and_closes_the_breaker() {
    let stage = Stage::guarded(&[("business", "breaker_window = 4\nattempts = 1\nbreaker_open_ms = 300")]);
    let actor = stage.system("one-stop-shop");
    let request = enterprise(&stage);
    stage.sandbox.faults.set("business", FaultKind::Close);
    for _ in 0..4 {
        assert_eq!(actor.call(ENTERPRISE, request.clone()).await.reason(), "SOURCE_UNAVAILABLE");
    }
    assert_eq!(breaker(&stage, "business"), 2);
    stage.sandbox.faults.set("business", Fault { latency_ms: 150, ..Fault::default() });
    tokio::time::sleep(Duration::from_millis(350)).await;
    // All deadlines are shorter than the source's time; on a busy machine one may end before it is sent, and probes nothing.
    let end = Instant::now() + Duration::from_secs(60);
    while breaker(&stage, "business") != 0 {
        assert!(Instant::now() < end, "no probe has shown that it answers");
        let told = hasty(&actor, ENTERPRISE, &request, "40m").await.reason();
        assert!(["CALLER_DEADLINE", "SOURCE_CIRCUIT_OPEN"].contains(&told.as_str()), "{told}");
        tokio::time::sleep(Duration::from_millis(350)).await;
    }
    actor.call(ENTERPRISE, request).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_an_operation_that_always_fails_opens_only_its_own_breaker() {
    let stage = Stage::guarded(&[("business", "breaker_window = 4\nattempts = 1\nbreaker_open_ms = 60000")]);
    let actor = stage.system("one-stop-shop");
    let request = enterprise(&stage);
    let failing = Fault { kind: FaultKind::Status, status: Some(500), ..Fault::default() };
    stage.sandbox.faults.set("business", failing);
    for _ in 0..4 {
        assert_eq!(actor.call(ENTERPRISE, request.clone()).await.reason(), "SOURCE_UNAVAILABLE");
    }
    assert_eq!(actor.call(ENTERPRISE, request.clone()).await.reason(), "SOURCE_CIRCUIT_OPEN");
    stage.sandbox.faults.clear("business");
    assert_ne!(actor.call(STATUS, request).await.reason(), "SOURCE_CIRCUIT_OPEN");
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_an_unreachable_source_has_an_open_breaker_for_all_operations() {
    let stage = Stage::guarded(&[("business", "breaker_window = 4\nattempts = 1\nbreaker_open_ms = 60000")]);
    let actor = stage.system("one-stop-shop");
    let request = enterprise(&stage);
    crate::support::edit(&stage.folder.path.join("hubs/ndxp.toml"), |text| {
        let hub = text.split("https://").nth(1).unwrap().split('"').next().unwrap().to_owned();
        text.replace(&hub, "127.0.0.1:1")
    });
    stage.gateway.as_ref().unwrap().reload().unwrap();
    for _ in 0..4 {
        let told = actor.call(ENTERPRISE, request.clone()).await;
        assert_eq!(told.reason(), "SOURCE_UNAVAILABLE");
    }
    // No request causes this, so it counts for all clients.
    assert_eq!(breaker_for_all(&stage, "business"), 2);
    let other = stage.system("other");
    for actor in [&actor, &other] {
        assert_eq!(actor.call(STATUS, request.clone()).await.reason(), "SOURCE_CIRCUIT_OPEN");
    }
}

/// A request of this client meets a fault at the source, as if it caused it.
async fn crafted(stage: &Stage, client: &Actor, source: &str, fault: impl Into<Fault>, request: &Value) -> String {
    stage.sandbox.faults.set(source, fault);
    let told = client.call(ENTERPRISE, request.clone()).await;
    stage.sandbox.faults.clear(source);
    told.reason()
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_requests_that_make_a_source_fail_block_only_their_client() {
    for kind in [FaultKind::Status, FaultKind::Garbage, FaultKind::ResetBody] {
        let stage = Stage::guarded(&[("business", "breaker_window = 4\nattempts = 1\nbreaker_open_ms = 60000")]);
        let (crafty, other) = (stage.system("crafty"), stage.system("other"));
        let request = enterprise(&stage);
        let fault = || Fault { kind, status: (kind == FaultKind::Status).then_some(500), ..Fault::default() };
        let mut reasons = Vec::new();
        for _ in 0..12 {
            reasons.push(crafted(&stage, &crafty, "business", fault(), &request).await);
            // Another client's calls continue, even if they are few, also of the same operation.
            other.call(ENTERPRISE, request.clone()).await.ok();
        }
        assert_eq!(reasons.last().map(String::as_str), Some("SOURCE_CIRCUIT_OPEN"), "{kind:?}: {reasons:?}");
        assert_eq!((breaker_for_all(&stage, "business"), breaker_clients(&stage, "business")), (0, 1), "{kind:?}");
        // The client itself is refused at once, although the source is healthy.
        let told = crafty.call(ENTERPRISE, request.clone()).await;
        assert_eq!((told.code(), told.reason().as_str()), (Code::Unavailable, "SOURCE_CIRCUIT_OPEN"));
        assert!(told.answered.status.message().contains("this client"), "{:?}", told.answered.status);
        stage.verify();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_requests_that_make_a_source_hang_block_only_their_client() {
    let keys = "breaker_window = 4\nattempts = 1\nbreaker_open_ms = 60000";
    let stage = Stage::guarded(&[("officials", keys)]);
    let (crafty, other) = (stage.system("crafty"), stage.system("other"));
    let official = &stage.sandbox.province.people[stage.sandbox.province.officials[0].person];
    let request = json!({ "citizenId": official.citizen_id });
    stage.sandbox.faults.set("officials", FaultKind::Hang);
    let hung = futures_util::future::join_all((0..4).map(|_| crafty.call(OFFICIAL_OF, request.clone()))).await;
    stage.sandbox.faults.clear("officials");
    assert!(hung.iter().all(|told| told.reason() == "SOURCE_TIMEOUT"));
    assert_eq!(crafty.call(OFFICIAL_OF, request.clone()).await.reason(), "SOURCE_CIRCUIT_OPEN");
    other.call(OFFICIAL_OF, request).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_a_source_that_fails_for_two_clients_is_blocked_for_all_and_one_of_them_cannot_prolong_it() {
    let stage = Stage::guarded(&[("business", "breaker_window = 4\nattempts = 1\nbreaker_open_ms = 3000")]);
    let (one, two, third) = (stage.system("one"), stage.system("two"), stage.system("third"));
    let request = enterprise(&stage);
    let fault = || Fault { kind: FaultKind::Status, status: Some(500), ..Fault::default() };
    // Its connection exists; this is another source.
    third.call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
    let reopened = || until("its time is over", || breaker_for_all(&stage, "business") != 2);
    for client in [&one, &two, &one, &two] {
        assert_eq!(crafted(&stage, client, "business", fault(), &request).await, "SOURCE_UNAVAILABLE");
    }
    assert_eq!(third.call(ENTERPRISE, request.clone()).await.reason(), "SOURCE_CIRCUIT_OPEN");
    assert_eq!(breaker_for_all(&stage, "business"), 2);
    tokio::time::sleep(Duration::from_millis(3_050)).await;
    // Its probe fails: this says nothing about the others.
    assert_eq!(crafted(&stage, &one, "business", fault(), &request).await, "SOURCE_UNAVAILABLE");
    reopened();
    third.call(ENTERPRISE, request.clone()).await.ok();
    assert_eq!(breaker_for_all(&stage, "business"), 0);
    two.call(ENTERPRISE, request).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn b2_a_write_past_its_deadline_leaves_no_intent() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let all = ndxp_gateway::sandbox::samples::samples(&stage.sandbox.province);
    let progress = &all.iter().find(|one| one.operation.ends_with("/UpdateProgress")).unwrap().requests[0];
    let asked = stage.sandbox.faults.count("publicservice");
    for timeout in ["0m", "1n", "10u"] {
        let told = hasty(&actor, PROGRESS, progress, timeout).await;
        assert_eq!(told.reason(), "CALLER_DEADLINE", "{timeout}");
    }
    assert_eq!(stage.sandbox.faults.count("publicservice"), asked);
    let kinds = |stage: &Stage| {
        let written = stage.entries().into_iter().filter(|one| one.entry.operation.ends_with("/UpdateProgress"));
        written.map(|one| one.entry.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&stage), [1, 1, 1], "no intent");
    // A write with enough time has an intent.
    hasty(&actor, PROGRESS, progress, "10S").await;
    assert_eq!(kinds(&stage), [1, 1, 1, 2, 1]);
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn b2_a_write_that_times_out_in_the_queue_leaves_no_intent() {
    let stage = Stage::guarded(&[("publicservice", "concurrency = 1")]);
    let actor = stage.system("one-stop-shop");
    let all = ndxp_gateway::sandbox::samples::samples(&stage.sandbox.province);
    let progress = &all.iter().find(|one| one.operation.ends_with("/UpdateProgress")).unwrap().requests[0];
    stage.sandbox.faults.set("publicservice", FaultKind::Hang);
    let asked = stage.sandbox.faults.count("publicservice");
    let procedure = json!({ "procedureCode": "1.004222" });
    let holder = hasty(&actor, crate::support::PROCEDURE, &procedure, "4S");
    let waits = async {
        comes("it is at its source", || stage.sandbox.faults.count("publicservice") > asked).await;
        hasty(&actor, PROGRESS, progress, "300m").await
    };
    let (_, told) = tokio::join!(holder, waits);
    assert_eq!(told.reason(), "CALLER_DEADLINE");
    assert!(stage.entries().iter().all(|one| one.entry.kind != 2), "an intent was written");
    assert_eq!(stage.sandbox.faults.count("publicservice"), asked + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_cancelled_calls_open_no_breaker_and_eject_no_endpoint() {
    let stage = Stage::guarded(&[("business", "breaker_window = 4\nattempts = 1")]);
    let actor = stage.system("one-stop-shop");
    let request = enterprise(&stage);
    actor.call(ENTERPRISE, request.clone()).await.ok();
    stage.sandbox.faults.set("business", Fault { latency_ms: 200, ..Fault::default() });
    for _ in 0..20 {
        let gone = tokio::time::timeout(Duration::from_millis(40), actor.call(ENTERPRISE, request.clone())).await;
        assert!(gone.is_err());
    }
    assert_eq!(breaker(&stage, "business"), 0);
    let metrics = crate::support::ops_text(&stage, "/metrics");
    let blames = |line: &str| ["source", "hub"].iter().any(|owner| line.contains(&format!("fault=\"{owner}\"")));
    let counted: Vec<&str> = metrics.lines().filter(|line| blames(line) && !line.ends_with(" 0")).collect();
    assert_eq!(counted, Vec::<&str>::new());
    actor.call(ENTERPRISE, request).await.ok();
}
