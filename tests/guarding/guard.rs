//! One slow or broken source never hurts the others, and a short failure does not reach the caller.

use crate::support::{CITIZEN, ENTERPRISE, OFFICIAL_OF, PROCEDURE, PROGRESS, STALL, Stage, UNIT, VERIFY, comes, edit};
use ndxp_gateway::sandbox::province::Province;
use ndxp_gateway::sandbox::samples::samples;
use ndxp_gateway::sandbox::{Fault, FaultKind};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tonic::Code;

const SCHEMA: &str = "/ndxp.catalogue.v1.CatalogueService/GetSchema";

/// A gateway whose calls all run in one thread.
fn one_worker() -> Stage {
    Stage::prepared(&|folder| {
        edit(&folder.gateway_config(), |text| text.replacen("[listen]\n", "[listen]\nworkers = 1\n", 1));
    })
}

/// Breaks a source until one request has met it.
fn broken_once(stage: &Stage, source: &'static str, fault: Fault) -> impl Future<Output = ()> {
    let before = stage.sandbox.faults.count(source);
    stage.sandbox.faults.set(source, fault);
    let faults = stage.sandbox.faults.clone();
    async move {
        comes("it has met the fault", || faults.count(source) > before).await;
        faults.clear(source);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_did_not_reach_its_source_is_retried_on_every_protocol() {
    let keys = "retry_backoff_ms = 1000";
    let stage = Stage::guarded(&[("business", keys), ("population", keys), ("budgetunit", keys), ("officials", keys)]);
    let actor = stage.system("one-stop-shop");
    let province = stage.sandbox.province.clone();
    let (person, official) = (&province.people[0], &province.people[province.officials[0].person]);
    let claim = json!({ "citizenId": person.citizen_id, "fullName": person.full_name(), "birthDate": { "year": person.birth.0 } });
    let calls = [
        ("business", ENTERPRISE, json!({ "enterpriseCode": province.enterprises[0].code })),
        ("population", VERIFY, claim),
        ("budgetunit", UNIT, json!({ "unitCode": "1057000" })),
        ("officials", OFFICIAL_OF, json!({ "citizenId": official.citizen_id })),
    ];
    for (source, path, request) in calls {
        // The connections exist: the first request is the call's.
        actor.call(path, request.clone()).await.ok();
        let mended = broken_once(&stage, source, FaultKind::Close.into());
        let (told, ()) = tokio::join!(actor.call(path, request), mended);
        assert_eq!(told.code(), Code::Ok, "{source}: {:?}", told.answered.status);
        assert_eq!(stage.entry(&told.exchange()).entry.attempts, 2, "{source}");
    }
    // A busy one, too; without a failure, nothing is reported.
    let busy = Fault { kind: FaultKind::Status, status: Some(503), ..Fault::default() };
    let mended = broken_once(&stage, "business", busy);
    let call = actor.call(ENTERPRISE, json!({ "enterpriseCode": province.enterprises[1].code }));
    let (told, ()) = tokio::join!(call, mended);
    assert_eq!((told.code(), stage.entry(&told.exchange()).entry.attempts), (Code::Ok, 2));
    let told = actor.call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
    assert_eq!(stage.entry(&told.exchange()).entry.attempts, 0);
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_never_sent_twice_and_a_deadline_is_kept() {
    let stage = Stage::guarded(&[
        ("publicservice", "retry_backoff_ms = 100"),
        ("business", "retry_backoff_ms = 1500\nattempts = 5"),
    ]);
    let actor = stage.system("one-stop-shop");
    let all = samples(&stage.sandbox.province);
    let progress = &all.iter().find(|one| one.operation.ends_with("/UpdateProgress")).unwrap().requests[0];
    stage.sandbox.faults.set("publicservice", FaultKind::ResetBody);
    let message = actor.encode(PROGRESS, progress);
    let told = actor
        .raw(PROGRESS, &[("ndxp-purpose", "1.004222"), ("ndxp-official", "022080990129")], vec![message])
        .await
        .unwrap();
    assert_ne!(told.code(), Code::Ok);
    assert_eq!(stage.entry(&told.exchange()).entry.attempts, 0, "{}", told.reason());
    // Five attempts would take 11 seconds and more; the caller's deadline is shorter. The connections exist.
    let enterprise = json!({ "enterpriseCode": stage.sandbox.province.enterprises[0].code });
    actor.call(ENTERPRISE, enterprise.clone()).await.ok();
    stage.sandbox.faults.set("business", FaultKind::Close);
    let began = Instant::now();
    let message = actor.encode(ENTERPRISE, &enterprise);
    let metadata = [("ndxp-purpose", "1.004222"), ("ndxp-official", "022080990129"), ("grpc-timeout", "3S")];
    let told = actor.raw(ENTERPRISE, &metadata, vec![message]).await.unwrap();
    assert_eq!(told.reason(), "SOURCE_UNAVAILABLE");
    assert!(began.elapsed() < Duration::from_secs(3) + STALL, "{:?}", began.elapsed());
    let attempts = stage.entry(&told.exchange()).entry.attempts;
    assert!((2..=3).contains(&attempts), "{attempts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_are_a_bounded_share_of_the_calls_however_long_a_source_is_down() {
    let stage = Stage::guarded(&[("business", "breaker_window = 10000\nretry_backoff_ms = 1\nattempts = 5")]);
    let actor = stage.system("one-stop-shop");
    stage.sandbox.faults.set("business", FaultKind::Close);
    let mut attempts = 0;
    for _ in 0..100 {
        let told = actor.call(ENTERPRISE, json!({ "enterpriseCode": "0100109106" })).await;
        assert_eq!(told.reason(), "SOURCE_UNAVAILABLE");
        attempts += stage.entry(&told.exchange()).entry.attempts.max(1);
    }
    // Ten reserved ones, and a tenth of the calls.
    assert!((110..=121).contains(&attempts), "{attempts} attempts for 100 calls");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_source_opens_its_breaker_and_is_visible_in_the_metrics() {
    let stage = Stage::guarded(&[("business", "breaker_window = 4\nbreaker_slow_ms = 100\nbreaker_open_ms = 60000")]);
    let actor = stage.system("one-stop-shop");
    let metrics = |clients: i64| {
        let text = crate::support::ops_text(&stage, "/metrics");
        assert!(text.contains(&format!("ndxp_breaker_clients{{source=\"business\"}} {clients}")), "{text}");
    };
    metrics(0);
    stage.sandbox.faults.set("business", Fault { latency_ms: 200, ..Fault::default() });
    let codes: Vec<String> = stage.sandbox.province.enterprises.iter().map(|one| one.code.clone()).collect();
    for number in 0..4 {
        actor.call(ENTERPRISE, json!({ "enterpriseCode": codes[number % codes.len()] })).await.ok();
    }
    let told = actor.call(ENTERPRISE, json!({ "enterpriseCode": codes[0] })).await;
    assert_eq!(told.reason(), "SOURCE_CIRCUIT_OPEN");
    metrics(1);
    // The others are not affected.
    let began = Instant::now();
    actor.call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

/// While one source fails in ten ways, calls of another continue.
async fn whatever_happens_to(source: &str, path: &str, request: impl Fn(&Province) -> Value) {
    let stage = Stage::guarded(&[(source, "breaker_window = 10000\nconcurrency = 8\nqueue = 8")]);
    let (actor, other) = (stage.system("one-stop-shop"), stage.actor("one-stop-shop"));
    let message = actor.encode(path, &request(&stage.sandbox.province));
    let kinds = [
        FaultKind::Status,
        FaultKind::Hang,
        FaultKind::HangBody,
        FaultKind::Drip,
        FaultKind::Close,
        FaultKind::ResetBody,
        FaultKind::Garbage,
        FaultKind::WrongContentType,
        FaultKind::Huge,
        FaultKind::CredentialsExpired,
    ];
    for kind in kinds {
        stage.sandbox.faults.set(source, kind);
        let crowd = futures_util::future::join_all((0..24).map(|_| async {
            let metadata = [("ndxp-purpose", "1.004222"), ("ndxp-official", "022080990129"), ("grpc-timeout", "400m")];
            actor.raw(path, &metadata, vec![message.clone()]).await.unwrap().reason()
        }));
        let others = async {
            let mut times = Vec::new();
            for _ in 0..20 {
                let began = Instant::now();
                other.call(PROCEDURE, json!({ "procedureCode": "1.004222" })).await.ok();
                times.push(began.elapsed());
            }
            most_of(times)
        };
        let (reasons, time) = tokio::join!(crowd, others);
        stage.sandbox.faults.clear(source);
        assert!(time < Duration::from_millis(1_000), "{kind:?}: another source's call took {time:?}");
        let known = [
            "",
            "SOURCE_UNAVAILABLE",
            "CALLER_DEADLINE",
            "SOURCE_PROTOCOL_ERROR",
            "GATEWAY_OVERLOADED",
            "RECORD_NOT_FOUND",
            // For a source that authenticates us only by our certificate.
            "SOURCE_CREDENTIALS_REFUSED",
        ];
        assert!(reasons.iter().all(|reason| known.contains(&reason.as_str())), "{kind:?}: {reasons:?}");
        // Faults are reported, except for credentials, which are renewed.
        let failed = reasons.iter().filter(|reason| !reason.is_empty()).count();
        assert!(failed > 0 || kind == FaultKind::CredentialsExpired, "{kind:?} at {source} was not noticed");
    }
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_of_a_rest_source_affects_the_others() {
    whatever_happens_to("business", ENTERPRISE, |province| json!({ "enterpriseCode": province.enterprises[0].code }))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_of_a_soap_source_affects_the_others() {
    let claim = |province: &Province| {
        let person = &province.people[0];
        json!({ "citizenId": person.citizen_id, "fullName": person.full_name(), "birthDate": { "year": person.birth.0 } })
    };
    whatever_happens_to("population", VERIFY, claim).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_of_an_x_road_source_affects_the_others() {
    whatever_happens_to("budgetunit", UNIT, |_| json!({ "unitCode": "1057000" })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_of_a_grpc_source_affects_the_others() {
    let official =
        |province: &Province| json!({ "citizenId": province.people[province.officials[0].person].citizen_id });
    whatever_happens_to("officials", OFFICIAL_OF, official).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_with_its_own_guard_does_not_delay_its_source_s_others() {
    let keys = "breaker_window = 10000\n[guard.GetCitizen]\nconcurrency = 1\nqueue = 0\nbreaker_window = 4";
    let stage = Stage::guarded(&[("population", keys)]);
    let actor = stage.system("one-stop-shop");
    let person = stage.sandbox.province.people[0].clone();
    let claim = json!({ "citizenId": person.citizen_id, "fullName": person.full_name(), "birthDate": { "year": person.birth.0 } });
    stage.sandbox.faults.set("population", Fault { latency_ms: 800, ..Fault::default() });
    let slow = actor.call(CITIZEN, claim.clone());
    let (first, (second, other)) = tokio::join!(slow, async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        tokio::join!(actor.call(CITIZEN, claim.clone()), actor.call(VERIFY, claim.clone()))
    });
    assert_eq!((first.code(), second.reason().as_str(), other.code()), (Code::Ok, "GATEWAY_OVERLOADED", Code::Ok));
    // Only its breaker opens.
    stage.sandbox.faults.set("population", FaultKind::Close);
    for _ in 0..4 {
        actor.call(CITIZEN, claim.clone()).await;
    }
    stage.sandbox.faults.clear("population");
    assert_eq!(actor.call(CITIZEN, claim.clone()).await.reason(), "SOURCE_CIRCUIT_OPEN");
    actor.call(VERIFY, claim).await.ok();
    let metrics = crate::support::ops_text(&stage, "/metrics");
    for line in ["{source=\"population/GetCitizen\"} 1", "{source=\"population\"} 0"] {
        assert!(metrics.contains(&format!("ndxp_breaker_clients{line}")), "{metrics}");
    }
    // An unknown operation name is reported.
    edit(&stage.folder.path.join("sources/population.toml"), |text| {
        text.replace("guard.GetCitizen", "guard.GetCitizn")
    });
    let told = stage.gateway.as_ref().unwrap().reload().unwrap_err().to_string();
    assert!(told.contains("did you mean GetCitizen?"), "{told}");
}

/// One test at a time overloads this machine: two at once would measure each other.
static OVERLOAD: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Calls at a steady rate, regardless of earlier ones: outcome and duration of each.
async fn open_loop(actor: &crate::support::Actor, code: &str, every: Duration, count: u32) -> Vec<(String, Duration)> {
    let message = actor.encode(ENTERPRISE, &json!({ "enterpriseCode": code }));
    let began = Instant::now();
    let calls = (0..count).map(|number| {
        let message = message.clone();
        async move {
            tokio::time::sleep_until((began + every * number).into()).await;
            let sent = Instant::now();
            let metadata = [("ndxp-purpose", "1.004222"), ("ndxp-official", "022080990129")];
            let told = actor.raw(ENTERPRISE, &metadata, vec![message]).await.unwrap();
            (told.reason(), sent.elapsed())
        }
    });
    futures_util::future::join_all(calls).await
}

/// What four of five took at most: a machine that stands still for a second changes one or two, what is blocked changes all.
fn most_of(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() * 4 / 5]
}

/// The durations of successful calls, in order.
fn answered_in(ended: &[(String, Duration)]) -> Vec<Duration> {
    let mut times: Vec<Duration> = ended.iter().filter(|(ended, _)| ended.is_empty()).map(|(_, time)| *time).collect();
    times.sort_unstable();
    times
}

#[tokio::test(flavor = "multi_thread")]
async fn at_ten_times_a_source_s_capacity_the_excess_is_refused_early() {
    let _alone = OVERLOAD.lock().await;
    // Four at once, a second each: 4 a second, and 40 come. So slow a source leaves even a busy machine time for everything else.
    let stage = Stage::guarded(&[("business", "concurrency = 4\nqueue = 1000")]);
    let actor = stage.system("one-stop-shop");
    let other = stage.actor("one-stop-shop");
    stage.sandbox.faults.set("business", Fault { latency_ms: 1_000, ..Fault::default() });
    let code = stage.sandbox.province.enterprises[0].code.clone();
    let others = async {
        let mut times = Vec::new();
        for _ in 0..10 {
            let began = Instant::now();
            other.call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
            let health = other.raw("/grpc.health.v1.Health/Check", &[], vec![bytes::Bytes::new()]).await.unwrap();
            assert_eq!(health.code(), Code::Ok);
            times.push(began.elapsed());
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert!(most_of(times.clone()) < Duration::from_secs(1), "{times:?}");
    };
    let (ended, ()) = tokio::join!(open_loop(&actor, &code, Duration::from_millis(25), 280), others);
    let count = |reason: &str| ended.iter().filter(|(ended, _)| ended == reason).count();
    assert_eq!(count("") + count("GATEWAY_OVERLOADED"), 280, "{ended:?}");
    // Seven seconds: 28 calls, and the queue at the end. A busy machine uses less of it.
    assert!(count("") >= 16, "only {} were answered", count(""));
    // The first ones may be a burst; calls that arrive after the first second wait for about one call, not for the queue of 1,000.
    let times = answered_in(&ended[40..]);
    assert!(times.len() >= 8 && times[times.len() * 3 / 4] < Duration::from_millis(3_500), "{times:?}");
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_with_less_capacity_than_configured_is_not_overloaded() {
    let _alone = OVERLOAD.lock().await;
    // Two at once, 60 ms each, so 33 a second; 64 permits are configured.
    let stage = Stage::guarded(&[]);
    let actor = stage.system("one-stop-shop");
    let places = || {
        let text = crate::support::ops_text(&stage, "/metrics");
        let line = text.lines().find(|line| line.starts_with("ndxp_source_permits{source=\"business\"}")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()
    };
    let code = stage.sandbox.province.enterprises[0].code.clone();
    stage.sandbox.faults.set("business", Fault { latency_ms: 60, at_once: Some(2), ..Fault::default() });
    // A quiet period first, in which the base latency is learnt.
    open_loop(&actor, &code, Duration::from_millis(70), 40).await;
    assert_eq!(places(), 64);
    // Eight seconds at ten times its capacity.
    let ended = open_loop(&actor, &code, Duration::from_millis(3), 2_640).await;
    let found = places();
    assert!((4..=16).contains(&found), "{found} places");
    let answered = ended.iter().filter(|(ended, _)| ended.is_empty()).count();
    assert!(answered >= 150, "only {answered} of 264 were answered");
    let refused = ended.iter().filter(|(ended, _)| ended == "GATEWAY_OVERLOADED").count();
    assert_eq!(answered + refused, 2_640, "{ended:?}");
    // A call admitted after the limit has adapted waits for a few calls, not for the 192 that permits and queue can hold.
    let times = answered_in(&ended[1_800..]);
    assert!(times.len() > 20 && times[times.len() * 3 / 4] < Duration::from_millis(900), "{times:?}");
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overloaded_gateway_refuses_calls_but_not_its_administrators() {
    let _alone = OVERLOAD.lock().await;
    let stage = one_worker();
    let first = stage.system("one-stop-shop");
    let crowd: Vec<_> = (0..12).map(|_| stage.with_token("one-stop-shop", &first.token)).collect();
    let request = json!({ "unitCode": "1057000" });
    // Until both have happened often enough, however fast the machine is, and for longer than the second in which each refusal has its
    // own entry.
    let (served, shed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let began = Instant::now();
    let goes_on = || {
        let enough = |count: &AtomicUsize| count.load(Ordering::Relaxed) > 200;
        let over = enough(&served) && enough(&shed) && began.elapsed() > Duration::from_secs(3);
        !over && began.elapsed() < Duration::from_secs(60)
    };
    let callers = crowd.iter().flat_map(|actor| std::iter::repeat_n(actor, 100)).map(|actor| async {
        let mut reasons = Vec::new();
        while goes_on() {
            let sent = Instant::now();
            let told = actor.call(UNIT, request.clone()).await;
            assert_eq!(told.exchange().is_empty(), told.answered.metadata.get("ndxp-log-index").is_none());
            let count = if told.reason().is_empty() { &served } else { &shed };
            count.fetch_add(1, Ordering::Relaxed);
            reasons.push((told.reason(), sent.elapsed()));
        }
        reasons
    });
    let health = async {
        let mut times = Vec::new();
        while goes_on() {
            let began = Instant::now();
            let told = first.raw("/grpc.health.v1.Health/Check", &[], vec![bytes::Bytes::new()]).await.unwrap();
            assert_eq!(told.code(), Code::Ok);
            times.push(began.elapsed());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        times.sort_unstable();
        times
    };
    let (ended, checks) = tokio::join!(futures_util::future::join_all(callers), health);
    let ended: Vec<(String, Duration)> = ended.into_iter().flatten().collect();
    let count = |reason: &str| ended.iter().filter(|(ended, _)| ended == reason).count();
    assert_eq!(count("") + count("GATEWAY_OVERLOADED"), ended.len());
    assert!(count("") > 100 && count("GATEWAY_OVERLOADED") > 100, "{} of {}", count(""), ended.len());
    // A health check waits for no permit: it is faster than a call that is served, on whatever machine.
    let calls = answered_in(&ended);
    let (check, call) = (checks[checks.len() / 2], calls[calls.len() / 2]);
    assert!(check < call, "a health check takes {check:?}, a call {call:?}");
    // They are in the log: some as entries, the others as their number.
    let shed =
        |entry: &ndxp_gateway::exchange_log::Entry| entry.reason == "GATEWAY_OVERLOADED" && entry.source.is_empty();
    first.call(UNIT, request.clone()).await.ok();
    let entries = stage.entries();
    let told: u64 = entries.iter().filter(|one| shed(&one.entry)).map(|one| 1 + one.entry.suppressed).sum();
    assert!(told > 20 && entries.iter().any(|one| shed(&one.entry) && one.entry.suppressed > 0), "{told}");
    assert!(crate::support::ops_text(&stage, "/metrics").contains("ndxp_shed_calls_total "));
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_requests_for_open_data_share_one_dispatch_and_its_response_is_cached_as_the_source_allows() {
    let stage = one_worker();
    let actor = stage.system("one-stop-shop");
    let asked = || stage.sandbox.faults.count("catalogue");
    let schema = |code: &'static str| actor.call(SCHEMA, json!({ "code": code }));
    stage.sandbox.faults.set("catalogue", Fault { latency_ms: 500, ..Fault::default() });
    let all = futures_util::future::join_all((0..20).map(|_| schema("donvihanhchinhcap1"))).await;
    let first = all[0].messages.clone();
    assert!(all.into_iter().all(|told| told.ok().messages == first) && !first.is_empty());
    assert_eq!(asked(), 1);
    // Cached for two seconds; then it is revalidated, and has not changed.
    assert_eq!(schema("donvihanhchinhcap1").await.ok().messages, first);
    assert_eq!(asked(), 1);
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    assert_eq!(schema("donvihanhchinhcap1").await.ok().messages, first);
    assert_eq!(asked(), 2);
    assert_eq!(schema("donvihanhchinhcap1").await.ok().messages, first);
    assert_eq!(asked(), 2);
    // A cancelled caller leaves the others their response, and a failure is not cached.
    let message = actor.encode(SCHEMA, &json!({ "code": "donvihanhchinhcap2" }));
    let hasty = async {
        let metadata = [("ndxp-purpose", "1.004222"), ("grpc-timeout", "100m")];
        actor.raw(SCHEMA, &metadata, vec![message]).await.unwrap().code()
    };
    let (hasty, patient) = tokio::join!(hasty, schema("donvihanhchinhcap2"));
    assert_eq!((hasty, patient.code(), asked()), (Code::DeadlineExceeded, Code::Ok, 3));
    stage.sandbox.faults.set("catalogue", FaultKind::Garbage);
    let failed = schema("mabuuchinhcap3").await;
    assert_eq!(failed.reason(), "SOURCE_PROTOCOL_ERROR");
    stage.sandbox.faults.clear("catalogue");
    schema("mabuuchinhcap3").await.ok();
    // Each of them is a separate exchange in the log.
    let logged = stage.entries().iter().filter(|one| one.entry.operation.ends_with("/GetSchema")).count();
    assert_eq!(logged, 27);
    stage.verify();
}
