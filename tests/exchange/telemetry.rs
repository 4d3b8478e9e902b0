//! What the gateway exports: metrics (those of alerts and dashboard are there, none by what callers send), stages, access
//! lines; and that no person is in any of it.

use super::privacy::{found, seeded};
use crate::support::{CITIZEN, Outside, Running, Stage, UNIT, edit, ops_page, ops_text, until};
use ndxp_gateway::sandbox::samples::samples;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn file(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The value of one series.
fn value(page: &str, series: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

#[test]
fn every_alert_has_a_test_case_and_a_row_in_the_docs() {
    let rules = file("deploy/prometheus/ndxp.rules.yml");
    let alerts: BTreeSet<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 30);
    let (cases, handbook) = (file("deploy/prometheus/ndxp.rules.test.yml"), file("docs/operation.md"));
    for alert in alerts {
        let tried = cases.lines().filter(|line| line.trim() == format!("alertname: {alert}")).count();
        assert_eq!(tried, 1, "{alert} fires in no case");
        assert!(cases.contains(&format!("alertname: {alert} }}")), "{alert} is quiet in no case");
        assert!(handbook.contains(&format!("`{alert}`")), "{alert} is not in docs/operation.md");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_reached_stages_are_timed() {
    let stage = Stage::start();
    stage.client("clerk");
    stage.grant("clerk", &["budgetunit:read"], |_| {});
    let clerk = stage.actor("clerk");
    let counts = |source: &str| {
        let page = ops_text(&stage, "/metrics");
        ["access", "request", "guard", "source", "response", "log"].map(|stage| {
            value(&page, &format!("ndxp_stage_seconds_count{{source=\"{source}\",stage=\"{stage}\"}}")) as u32
        })
    };
    clerk.call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
    until("the stages", || counts("budgetunit") == [1; 6]);
    // Refused without a grant: it reaches no source.
    let refused = clerk.call(crate::support::PARCEL, json!({})).await;
    assert_ne!(refused.code(), tonic::Code::Ok);
    until("the refusal's stages", || counts("land")[0] == 1);
    assert_eq!(counts("land")[2..5], [0, 0, 0]);
    assert_eq!(counts("budgetunit"), [1; 6]);
    let page = ops_text(&stage, "/metrics");
    let sum = |stage: &str| value(&page, &format!("ndxp_stage_seconds_sum{{source=\"budgetunit\",stage=\"{stage}\"}}"));
    let all: f64 = ["access", "request", "guard", "source", "response", "log"].into_iter().map(sum).sum();
    let whole = value(&page, "ndxp_exchange_seconds_sum{source=\"budgetunit\"}");
    assert!(all >= whole * 0.9 && all < whole + 1.0, "the stages are the whole: {all} of {whole}");
    assert!(sum("source") > 0.0 && sum("log") > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn invented_names_create_no_series() {
    let stage = Stage::start();
    stage.client("clerk");
    stage.grant("clerk", &["budgetunit:read"], |_| {});
    let clerk = stage.actor("clerk");
    clerk.raw("/invented.v1.Service/Method", &[("ndxp-purpose", "x")], vec![]).await.unwrap();
    clerk.call(UNIT, json!({ "unitCode": "0000000" })).await;
    // Beyond its burst: refused for its rate, and refusals are aggregated.
    for _ in 0..150 {
        clerk.raw("/invented.v1.Service/Method", &[("ndxp-purpose", "x")], vec![]).await.unwrap();
        clerk.call(UNIT, json!({ "unitCode": "1" })).await;
    }
    let series = |stage: &Stage| {
        let page = ops_text(stage, "/metrics");
        let series = page.split_once("\r\n\r\n").unwrap().1;
        series
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(name, _)| name.to_owned())
            .collect::<BTreeSet<_>>()
    };
    let before = series(&stage);
    for number in 0..100 {
        let purpose = format!("purpose-{number}");
        let path = format!("/invented{number}.v1.Service/Method{number}");
        clerk.raw(&path, &[("ndxp-purpose", &purpose)], vec![]).await.unwrap();
        let request = clerk.encode(UNIT, &json!({ "unitCode": format!("{:07}", number + 1) }));
        clerk.raw(UNIT, &[("ndxp-purpose", &purpose), ("traceparent", &purpose)], vec![request]).await.unwrap();
    }
    let after = series(&stage);
    // Its rate is used up, that is all.
    let fresh: Vec<_> = after.difference(&before).filter(|name| !name.contains("RATE_LIMITED")).collect();
    assert!(fresh.is_empty(), "{fresh:?}");
}

/// A running gateway whose output is read to its end: access lines, and the log.
struct Followed {
    running: Running,
    out: Arc<Mutex<String>>,
    log: Arc<Mutex<String>>,
}

fn collect(from: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let all = Arc::<Mutex<String>>::default();
    let into = all.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut into = into.lock().unwrap();
            into.push_str(&line);
            into.push('\n');
        }
    });
    all
}

impl Followed {
    fn start(outside: &Outside, log: &str) -> Self {
        let mut running = Running::spawn(&outside.folder, &[("NDXP_LOG", log)]);
        let out = collect(running.0.stdout.take().unwrap());
        let log = collect(running.0.stderr.take().unwrap());
        until("the gateway", || out.lock().unwrap().contains("gRPC on"));
        Followed { running, out, log }
    }

    fn lines(&self) -> Vec<Value> {
        let out = self.out.lock().unwrap();
        out.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn with_lines() -> Outside {
    Outside::prepared(&|folder| {
        edit(&folder.gateway_config(), |text| format!("{text}\n[telemetry]\naccess_lines = true\n"));
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn each_exchange_has_one_line_with_its_stages() {
    let outside = with_lines();
    let mut gateway = Followed::start(&outside, "warn");
    let actor = outside.actor();
    let done = actor.call(UNIT, json!({ "unitCode": "1057000" })).await.ok().exchange();
    let none = actor.call(UNIT, json!({ "unitCode": "0000001" })).await;
    let unknown = actor.raw("/invented.v1.Service/Method", &[("ndxp-purpose", "x")], vec![]).await.unwrap();
    until("three lines", || gateway.lines().len() >= 3);
    let lines = gateway.lines();
    let of = |id: &str| lines.iter().filter(|line| line["exchange"] == id).collect::<Vec<_>>();
    let [line] = of(&done)[..] else { panic!("{lines:#?}") };
    assert_eq!(line["target"], "ndxp_gateway::access");
    let said = ["source", "client", "reason", "status", "attempts"].map(|key| line[key].clone());
    assert_eq!(said, [json!("budgetunit"), json!("one-stop-shop"), json!("OK"), json!(0), json!(1)]);
    assert_eq!(line["operation"], UNIT.trim_start_matches('/'));
    let us = |key: &str| line[key].as_u64().unwrap();
    assert!(us("source_us") > 0 && us("log_us") > 0 && us("access_us") > 0, "{line}");
    let stages = ["access_us", "request_us", "guard_us", "source_us", "response_us"].map(us).iter().sum::<u64>();
    assert!(stages <= us("total_us") + 10, "{line}");
    let [line] = of(&none.exchange())[..] else { panic!("{lines:#?}") };
    assert_eq!((&line["reason"], line["log_index"].is_u64()), (&json!(none.reason()), true));
    let [line] = of(&unknown.exchange())[..] else { panic!("{lines:#?}") };
    assert_eq!((&line["reason"], &line["operation"]), (&json!("OPERATION_UNKNOWN"), &json!("")));
    // The last ones are written when it ends.
    let last = actor.call(UNIT, json!({ "unitCode": "1057000" })).await.ok().exchange();
    gateway.running.signal(rustix::process::Signal::TERM);
    gateway.running.0.wait().unwrap();
    until("the last line", || gateway.lines().iter().any(|line| line["exchange"] == last.as_str()));
    assert!(!gateway.log.lock().unwrap().contains(&last), "the log is apart from them");
}

#[tokio::test(flavor = "multi_thread")]
async fn access_lines_are_off_by_default() {
    let outside = Outside::new();
    let gateway = Followed::start(&outside, "info");
    let done = outside.actor().call(UNIT, json!({ "unitCode": "1057000" })).await.ok().exchange();
    outside.actor().call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
    assert!(!gateway.out.lock().unwrap().contains(&done) && gateway.lines().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unread_standard_output_costs_lines_but_no_call() {
    let outside = with_lines();
    let mut running = Running::start(&outside.folder, &[("NDXP_LOG", "error")]);
    let (actor, address) = (Arc::new(outside.actor()), outside.config.listen.operator_http.unwrap().to_string());
    let dropped = || value(&ops_page(&address, "/metrics"), "ndxp_access_lines_dropped_total");
    // The pipe holds 64 kB, some 130 lines; then the queue fills.
    let (began, mut longest) = (Instant::now(), Duration::ZERO);
    while dropped() == 0.0 {
        assert!(began.elapsed() < Duration::from_secs(60), "no line was dropped");
        let calls = (0..256).map(|_| {
            let actor = actor.clone();
            tokio::spawn(async move {
                let began = Instant::now();
                actor.raw("/invented.v1.Service/Method", &[("ndxp-purpose", "x")], vec![]).await.unwrap();
                began.elapsed()
            })
        });
        for call in calls.collect::<Vec<_>>() {
            longest = longest.max(call.await.unwrap());
        }
    }
    assert!(longest < Duration::from_secs(10), "{longest:?}");
    actor.call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
    // It does not delay the stop either.
    running.signal(rustix::process::Signal::TERM);
    let began = Instant::now();
    running.0.wait().unwrap();
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_person_is_in_metrics_lines_or_log() {
    let outside = with_lines();
    let gateway = Followed::start(&outside, "warn,ndxp_gateway=trace");
    let actor = outside.actor();
    let province = &outside.sandbox.province;
    for sample in samples(province) {
        let path = format!("/{}", sample.operation);
        let metadata = [("ndxp-purpose", sample.purpose.as_str()), ("ndxp-official", sample.official.as_str())];
        let requests: Vec<_> = sample.requests.iter().map(|one| actor.encode(&path, one)).collect();
        actor.raw(&path, &metadata, requests).await.unwrap().ok();
    }
    // Errors are reported most: wrong ids in every field that a caller fills.
    let person = &province.people[0];
    let (id, name) = (person.citizen_id.as_str(), person.full_name());
    for said in [id, &name, &person.phone] {
        let request = actor.encode(CITIZEN, &json!({ "citizenId": said }));
        let metadata = [("ndxp-purpose", id), ("ndxp-official", id), ("traceparent", id), ("x-request-id", id)];
        actor.raw(CITIZEN, &metadata, vec![request]).await.unwrap();
    }
    actor.raw(&format!("/{}", person.citizen_id), &[("ndxp-purpose", "x")], vec![]).await.unwrap();
    let exchanges = samples(province).len() + 4;
    until("every line", || gateway.lines().len() >= exchanges);
    let names = seeded(province);
    let address = outside.config.listen.operator_http.unwrap().to_string();
    for page in ["/metrics", "/readyz"] {
        let page = ops_page(&address, page);
        assert_eq!(found(page.as_bytes(), &names), None, "metrics");
    }
    let (out, log) = (gateway.out.lock().unwrap().clone(), gateway.log.lock().unwrap().clone());
    assert!(log.contains("ndxp_gateway"), "{log}");
    assert_eq!(found(out.as_bytes(), &names), None, "access lines");
    assert_eq!(found(log.as_bytes(), &names), None, "the log");
    let with_name = format!("{log}\n{}", person.citizen_id);
    assert_eq!(found(with_name.as_bytes(), &names), Some(person.citizen_id.as_str()), "the search finds");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_configuration_is_reported_while_the_gateway_stays_ready() {
    let stage = Stage::start();
    let file = stage.folder.path.join("sources/land.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    let faults =
        |count: u32| ops_text(&stage, "/metrics").contains(&format!("ndxp_faults{{part=\"configuration\"}} {count}\n"));
    assert!(faults(0));
    std::fs::write(&file, format!("{good}\nnonsense = 1\n")).unwrap();
    until("the fault is counted", || faults(1));
    let ready = ops_text(&stage, "/readyz");
    assert!(
        ready.contains(" 200 OK")
            && ready.contains("\nready\n")
            && ready.contains("land.toml:")
            && ready.contains("stays in force"),
        "{ready}"
    );
    stage.system("one-stop-shop").call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
    std::fs::write(&file, good).unwrap();
    until("it is in order again", || faults(0));
    assert!(!ops_text(&stage, "/readyz").contains("land.toml"));
}
