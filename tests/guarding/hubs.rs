//! Hubs and credentials: a source moves from one hub to another while calls run; tokens and sessions are cached, and renewed when they
//! are refused.

use crate::support::{CATALOGUE, ENTERPRISE, PROCEDURE, Stage, UNIT, VERIFY, edit, until};
use ndxp_gateway::exchange_log::Kind;
use ndxp_gateway::sandbox::FaultKind;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tonic::Code;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_source_moves_to_another_hub_while_calls_run_and_none_fails() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let request = json!({ "enterpriseCode": stage.sandbox.province.enterprises[0].code });
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (actor, request, stop, done) = (actor.clone(), request.clone(), stop.clone(), done.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let told = actor.call(ENTERPRISE, request.clone()).await;
                    assert_eq!(told.code(), Code::Ok, "{:?}", told.answered.status);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let entry = stage.folder.path.join("sources/business.toml");
    for hub in ["ndop", "ndxp", "ndop"] {
        let before = done.load(Ordering::Relaxed);
        edit(&entry, |_| format!("source = \"business\"\nhub = \"{hub}\"\n"));
        until(&format!("calls through {hub}"), || {
            stage.exchanges().iter().rev().take(8).filter(|entry| entry.hub == hub).count() == 8
        });
        assert!(done.load(Ordering::Relaxed) > before);
    }
    // A broken entry changes nothing: the running configuration stays.
    edit(&entry, |_| "source = \"business\"\nhub = \"nowhere\"\n".into());
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(stage.gateway.as_ref().unwrap().reload().unwrap_err().to_string().contains("no hub \"nowhere\""));
    actor.call(ENTERPRISE, request).await.ok();
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_tokens_and_sessions_are_renewed_without_a_failed_call() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let enterprise = json!({ "enterpriseCode": stage.sandbox.province.enterprises[0].code });
    let procedure = json!({ "procedureCode": "1.004222" });
    for _ in 0..3 {
        actor.call(ENTERPRISE, enterprise.clone()).await.ok();
        actor.call(PROCEDURE, procedure.clone()).await.ok();
        // The hub loses its tokens, the portal its sessions, without notice.
        for id in ["ndxp", "publicservice"] {
            stage.sandbox.faults.set(id, FaultKind::CredentialsExpired);
        }
    }
    actor.call(ENTERPRISE, enterprise).await.ok();
    actor.call(PROCEDURE, procedure).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_renewed_ahead_of_their_end() {
    let stage = Stage::prepared(&|folder| {
        edit(&folder.sandbox_config(), |text| text.replace("[hubs.ndxp]\n", "[hubs.ndxp]\ntoken_life_s = 1\n"));
    });
    let actor = stage.system("one-stop-shop");
    let request = json!({ "enterpriseCode": stage.sandbox.province.enterprises[0].code });
    for _ in 0..12 {
        actor.call(ENTERPRISE, request.clone()).await.ok();
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_without_a_hub_and_with_ws_security_returns_the_same() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let person = stage.sandbox.province.people.iter().find(|person| person.birth.1 > 0).unwrap();
    let (year, month, day) = person.birth;
    let claim = json!({
        "citizenId": person.citizen_id, "fullName": person.full_name(),
        "birthDate": { "year": year, "month": month, "day": day },
    });
    assert_eq!(actor.call(VERIFY, claim.clone()).await.ok().messages[0], json!({ "matched": true }));
    let own_door = std::fs::read_to_string(stage.folder.sandbox_config()).unwrap();
    let own_door = own_door.split("[sources.population]").nth(1).unwrap();
    let address = own_door.split('"').nth(1).unwrap();
    edit(&stage.folder.path.join("sources/population.toml"), |_| {
        format!(
            "source = \"population\"\naddress = \"https://{address}\"\npath = \"/dancu\"\n[tls]\nca = \"../pki/ca.pem\"\n\
             [credentials]\nkind = \"username-token\"\nusername = \"quangninh\"\n\
             password = {{ file = \"../secrets/population\" }}\n[settings]\naccount = \"A\"\nphone = \"02033\"\n"
        )
    });
    stage.gateway.as_ref().unwrap().reload().unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let told = actor.call(VERIFY, claim.clone()).await.ok();
    assert_eq!(told.messages[0], json!({ "matched": true }));
    assert_eq!(stage.entry(&told.exchange()).entry.hub, "");
    // A wrong password is reported as the gateway's own fault.
    std::fs::write(stage.folder.path.join("secrets/population"), "wrong").unwrap();
    stage.gateway.as_ref().unwrap().reload().unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(actor.call(VERIFY, claim).await.reason(), "SOURCE_CREDENTIALS_REFUSED");
}

#[tokio::test(flavor = "multi_thread")]
async fn open_data_is_revalidated_and_not_fetched_again() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let request = json!({ "code": "mabuuchinhcap3" });
    let first = actor.call(CATALOGUE, request.clone()).await.ok();
    assert_eq!(first.messages.len(), 3_000);
    let second = actor.call(CATALOGUE, request).await.ok();
    assert_eq!(first.messages, second.messages);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_x_road_member_without_access_is_reported_as_refused_credentials() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    for source in ["budgetunit", "land"] {
        edit(&stage.folder.path.join(format!("sources/{source}.toml")), |text| {
            text.replace("H49/GATEWAY", "H49/OTHER")
        });
    }
    stage.gateway.as_ref().unwrap().reload().unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(actor.call(UNIT, json!({ "unitCode": "1057000" })).await.reason(), "SOURCE_CREDENTIALS_REFUSED");
    let parcel = &stage.sandbox.province.parcels[0];
    let request = json!({ "communeCode": parcel.town.commune, "mapSheet": parcel.sheet.to_string(), "parcelNumber": parcel.number.to_string() });
    assert_eq!(actor.call(crate::support::PARCEL, request).await.reason(), "SOURCE_CREDENTIALS_REFUSED");
}

fn second(stage: &Stage, keys: &str) {
    let entry = stage.folder.path.join("sources/business.toml");
    edit(&entry, |_| format!("source = \"business\"\nhub = \"ndxp\"\n[second]\nhub = \"ndop\"\n{keys}\n"));
    stage.gateway.as_ref().unwrap().reload().unwrap();
}

fn hubs(stage: &Stage, last: usize) -> Vec<String> {
    stage.exchanges().iter().rev().take(last).map(|entry| entry.hub.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_fail_over_to_the_second_hub_and_return() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    second(&stage, "mode = \"failover\"");
    let request = json!({ "enterpriseCode": stage.sandbox.province.enterprises[0].code });
    actor.call(ENTERPRISE, request.clone()).await.ok();
    assert_eq!(hubs(&stage, 1), ["ndxp"]);
    stage.sandbox.faults.set("ndxp", FaultKind::Close);
    for _ in 0..10 {
        actor.call(ENTERPRISE, request.clone()).await.ok();
    }
    assert_eq!(hubs(&stage, 10), vec!["ndop"; 10]);
    // Once it is known to fail, it is not tried first each time.
    let attempts: Vec<u32> = stage.exchanges().iter().rev().take(3).map(|entry| entry.attempts).collect();
    assert_eq!(attempts, [0, 0, 0]);
    stage.sandbox.faults.clear("ndxp");
    tokio::time::sleep(Duration::from_millis(5_200)).await;
    actor.call(ENTERPRISE, request.clone()).await.ok();
    actor.call(ENTERPRISE, request).await.ok();
    assert_eq!(hubs(&stage, 2), ["ndxp", "ndxp"]);
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_one_client_s_requests_move_no_other_client_to_the_second_hub() {
    let stage = Stage::start();
    let (crafty, other) = (stage.system("crafty"), stage.system("other"));
    second(&stage, "mode = \"failover\"");
    let request = json!({ "enterpriseCode": stage.sandbox.province.enterprises[0].code });
    for _ in 0..10 {
        // This client's requests break the connection, as if it were the hub's fault.
        stage.sandbox.faults.set("ndxp", FaultKind::ResetBody);
        crafty.call(ENTERPRISE, request.clone()).await.ok();
        stage.sandbox.faults.clear("ndxp");
        other.call(ENTERPRISE, request.clone()).await.ok();
        assert_eq!(hubs(&stage, 2), ["ndxp", "ndop"]);
    }
    // It no longer uses the first hub, so that it does not fail; the other client does.
    let attempts: Vec<u32> = stage.exchanges().iter().rev().take(2).map(|entry| entry.attempts).collect();
    assert_eq!(attempts, [0, 0]);
    // Both fail: a third client does not try it first.
    stage.sandbox.faults.set("ndxp", FaultKind::ResetBody);
    for _ in 0..5 {
        other.call(ENTERPRISE, request.clone()).await.ok();
    }
    stage.system("third").call(ENTERPRISE, request).await.ok();
    let third = stage.exchanges().pop().unwrap();
    assert_eq!((third.hub.as_str(), third.attempts), ("ndop", 0));
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_of_the_calls_goes_to_the_second_hub() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    second(&stage, "mode = \"share\"\nshare_percent = 30");
    let request = json!({ "enterpriseCode": stage.sandbox.province.enterprises[0].code });
    for _ in 0..200 {
        actor.call(ENTERPRISE, request.clone()).await.ok();
    }
    let there = hubs(&stage, 200).iter().filter(|hub| *hub == "ndop").count();
    assert!((35..=90).contains(&there), "{there} of 200 are not 30 of 100");
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_shadowed_at_the_second_hub_and_counted() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    second(&stage, "mode = \"shadow\"");
    let request = json!({ "enterpriseCode": stage.sandbox.province.enterprises[0].code });
    let counted = |result: &str, count: u32| {
        let line =
            format!("operation=\"ndxp.business.v1.BusinessService/GetEnterprise\",result=\"{result}\"}} {count}");
        until(&line, || crate::support::ops_text(&stage, "/metrics").contains(&line));
    };
    for _ in 0..3 {
        actor.call(ENTERPRISE, request.clone()).await.ok();
    }
    counted("same", 3);
    // The gateway's own entries may follow it.
    let last = stage.entries().into_iter().rfind(|found| found.entry.kind == Kind::Exchange as i32);
    let entry = last.unwrap().entry;
    assert_eq!((entry.hub.as_str(), entry.shadow_hub.as_str()), ("ndxp", "ndop"));
    // A failure there is not the caller's fault.
    stage.sandbox.faults.set("ndop", FaultKind::Garbage);
    actor.call(ENTERPRISE, request).await.ok();
    counted("failed", 1);
    let broken = "source = \"business\"\nhub = \"ndxp\"\n[second]\nhub = \"nowhere\"\nmode = \"mirror\"\n";
    edit(&stage.folder.path.join("sources/business.toml"), |_| broken.into());
    let told = stage.gateway.as_ref().unwrap().reload().unwrap_err().to_string();
    assert!(told.contains("no hub \"nowhere\"") && told.contains("must be failover, share or shadow"), "{told}");
}
