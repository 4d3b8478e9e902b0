//! Maintenance notices: callers are told before and while a source is out of service, calls are tried all the same, and only failures
//! of the source name the maintenance.

use crate::support::{Actor, CITIZEN, ENTERPRISE, Stage, Told, UNIT};
use ndxp_gateway::registry::{MaintenanceNotice, Store, now};
use ndxp_gateway::sandbox::FaultKind;
use serde_json::{Value, json};
use tonic_types::StatusExt;

const TEXT: &str = "Nâng cấp hệ thống đăng ký kinh doanh";

/// A notice from so many seconds from now, for so long.
fn notice(from: i64, length: i64) -> MaintenanceNotice {
    let (starts, text_en) = (now() + from, "Upgrade of the register".to_owned());
    MaintenanceNotice { source: "business".into(), starts, ends: starts + length, text_vi: TEXT.into(), text_en }
}

fn code(stage: &Stage) -> Value {
    json!({ "enterpriseCode": stage.sandbox.province.enterprises[0].code })
}

fn metadata(told: &Told, name: &str) -> Option<String> {
    told.answered.status.get_details_error_info().unwrap().metadata.get(name).cloned()
}

async fn set(stage: &Stage, notice: &MaintenanceNotice) {
    stage.store.set_notice(notice).unwrap();
    stage.settle();
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_are_told_a_day_before_until_the_end_and_of_no_other_source() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let header = async |actor: &Actor| {
        actor.call(ENTERPRISE, code(&stage)).await.ok().answered.text("ndxp-maintenance").to_owned()
    };
    assert_eq!(header(&actor).await, "");
    set(&stage, &notice(2 * 86_400, 3_600)).await;
    assert_eq!(header(&actor).await, "", "it is not announced yet");
    let soon = notice(3_600, 3_600);
    set(&stage, &soon).await;
    assert_eq!(header(&actor).await, soon.interval());
    assert!(soon.interval().contains("+07:00/"), "{}", soon.interval());
    assert_eq!(actor.call(UNIT, json!({ "unitCode": "1057000" })).await.ok().answered.text("ndxp-maintenance"), "");
    // Before it begins, a failure is one like any other.
    stage.sandbox.faults.set("business", FaultKind::Close);
    let told = actor.call(ENTERPRISE, code(&stage)).await;
    assert_eq!((told.reason().as_str(), metadata(&told, "maintenance")), ("SOURCE_UNAVAILABLE", None));
    stage.sandbox.faults.clear("business");
    stage.store.clear_notice("business").unwrap();
    stage.settle();
    assert_eq!(header(&actor).await, "");
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_during_maintenance_says_until_when_and_when_to_try_again() {
    let stage = Stage::guarded(&[("business", "attempts = 1\nbreaker_window = 4\nbreaker_open_ms = 60000")]);
    let actor = stage.system("one-stop-shop");
    let under_way = notice(-60, 7_200);
    set(&stage, &under_way).await;
    // The source may be back early: a call that succeeds is served.
    assert_eq!(actor.call(ENTERPRISE, code(&stage)).await.ok().answered.text("ndxp-maintenance"), under_way.interval());
    // What the source says for sure has nothing to do with its maintenance.
    let none = actor.call(ENTERPRISE, json!({ "enterpriseCode": "9999999997" })).await;
    assert_eq!((none.reason().as_str(), metadata(&none, "maintenance")), ("RECORD_NOT_FOUND", None));
    stage.sandbox.faults.set("business", FaultKind::Close);
    let mut reasons = Vec::new();
    for _ in 0..5 {
        let told = actor.call(ENTERPRISE, code(&stage)).await;
        assert_eq!(metadata(&told, "maintenance"), Some(under_way.interval()), "{:?}", told.answered.status);
        let details = told.answered.status.get_error_details();
        let delay = details.retry_info().unwrap().retry_delay.unwrap();
        assert!((60..=300).contains(&delay.as_secs()), "{delay:?}");
        let vietnamese = &details.localized_message().unwrap().message;
        assert!(vietnamese.contains(TEXT), "{vietnamese}");
        let english = told.answered.status.message();
        assert!(english.contains("under maintenance: Upgrade of the register"), "{english}");
        reasons.push(told.reason());
    }
    // The breaker opened on the way: its refusal says so, too.
    assert_eq!((reasons[0].as_str(), reasons[4].as_str()), ("SOURCE_UNAVAILABLE", "SOURCE_CIRCUIT_OPEN"));
    // The caller's own fault, and other sources, are not under maintenance.
    let wrong = actor.call(ENTERPRISE, json!({ "enterpriseCode": "x" })).await;
    assert_eq!((wrong.reason().as_str(), metadata(&wrong, "maintenance")), ("FIELD_INVALID", None));
    stage.sandbox.faults.set("population", FaultKind::Close);
    let other = actor.call(CITIZEN, json!({ "citizenId": stage.sandbox.province.people[0].citizen_id, "fullName": stage.sandbox.province.people[0].full_name(), "birthDate": { "year": stage.sandbox.province.people[0].birth.0 } })).await;
    assert_eq!(metadata(&other, "maintenance"), None, "{:?}", other.answered.status);
    stage.verify();
}
