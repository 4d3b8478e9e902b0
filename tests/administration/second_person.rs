//! Access to sensitive data needs two people: also if a contract later marks it as sensitive, if a suspended client resumes, and if
//! nobody approves in time.

use crate::support::{CITIZEN, Stage, UNIT, ops_text, until};
use ndxp_gateway::pki::staff_uri;
use ndxp_gateway::registry::sqlite::SqliteStore;
use ndxp_gateway::registry::{
    Actor, ChangeOutcome, Client, Digest, Grant, GrantState, RegistryError, Staff, Store, now,
};
use ndxp_gateway::sandbox::samples::samples;
use serde_json::json;
use std::path::Path;
use std::process::Command;

const RECORD: &str = "/ndxp.civilstatus.v1.CivilStatusService/GetRecord";

/// A person with a certificate that nobody else has, as the store sees them.
fn person(id: &str) -> Actor {
    let mut bytes = [7; 32];
    bytes[..id.len()].copy_from_slice(id.as_bytes());
    let (thumbprint, key) = (Digest(bytes), Digest(bytes.map(|byte| byte ^ 1)));
    Actor::Staff { id: id.into(), thumbprint, key, names: vec![staff_uri(id)], address: "192.0.2.1:1".into() }
}

/// The first two people; the registry in the name of each.
fn two_people(store: &SqliteStore) -> (SqliteStore, SqliteStore) {
    let staff = |id: &str| Staff { id: id.into(), roles: vec![], names: vec![staff_uri(id)] };
    store.bootstrap(&staff("lan"), &staff("minh")).unwrap();
    (store.acting_as(person("lan")), store.acting_as(person("minh")))
}

fn registry(folder: &Path) -> (SqliteStore, SqliteStore) {
    let (lan, minh) = two_people(&SqliteStore::open(&folder.join("registry.sqlite")).unwrap());
    for id in ["shop", "other"] {
        let names = vec![format!("{id}.vn")];
        lan.add_client(&Client { id: id.into(), agency: "H49".into(), names, ..Client::default() }).unwrap();
    }
    (lan, minh)
}

fn sensitive(id: &str) -> Grant {
    Grant { id: id.into(), client: "shop".into(), needs_approval: true, not_after: i64::MAX, ..Grant::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn t3_an_unapproved_grant_returns_no_field_that_became_sensitive() {
    let stage = Stage::start();
    let (_, minh) = two_people(&stage.store);
    stage.client("shop");
    // As it was made before the contract said so.
    let grant = stage.grant("shop", &["civilstatus:record", "population:read", "budgetunit:read"], |_| {});
    let shop = stage.actor("shop");
    let citizen = citizen(&stage);
    let refused = shop.call(RECORD, json!({})).await;
    assert_eq!(refused.reason(), "SCOPE_NOT_GRANTED");
    assert_eq!(stage.entry(&refused.exchange()).entry.rule, format!("approval {grant}"));
    let told = shop.call(CITIZEN, citizen.clone()).await.ok();
    let disclosed = |exchange: &str| stage.entry(exchange).entry.fields.clone();
    let sensitive = ["ethnicity_code", "religion_code", "blood_type"];
    let fields = disclosed(&told.exchange());
    assert!(!fields.is_empty() && !fields.iter().any(|field| sensitive.contains(&field.as_str())), "{fields:?}");
    // What is not sensitive stays open, and who administers is told why the other is not.
    shop.call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
    let run = |args: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_ndxp-gateway")).args(args).current_dir(&stage.folder.path).output();
        let output = output.unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let can = |operation: &str| {
        run(&["client", "can-i", "shop", operation, "--purpose", crate::support::PURPOSE, "--official", "022080990129"])
    };
    let why = can(RECORD);
    assert!(why.contains("rule approval") && why.contains(&format!("grant change {grant}")), "{why}");
    let without = can(CITIZEN);
    assert!(without.starts_with("yes") && without.contains("without the response's sensitive fields"), "{without}");
    // Approved, it opens both.
    let asked = run(&["grant", "change", &grant]);
    let id =
        asked.split_whitespace().find(|word| word.starts_with("c-")).unwrap_or_else(|| panic!("{asked}")).to_owned();
    until("it is counted", || ops_text(&stage, "/metrics").lines().any(|line| line == "ndxp_pending_changes 1"));
    minh.approve_change(id.trim_matches(|c: char| !c.is_ascii_alphanumeric())).unwrap();
    until("it is granted", || can(RECORD).starts_with("yes"));
    stage.settle();
    assert_ne!(shop.call(RECORD, json!({})).await.reason(), "SCOPE_NOT_GRANTED");
    let told = shop.call(CITIZEN, citizen).await.ok();
    let fields = disclosed(&told.exchange());
    assert!(fields.iter().any(|field| sensitive.contains(&field.as_str())), "{fields:?}");
}

#[test]
fn t3_a_client_with_a_sensitive_grant_is_resumed_by_two_people() {
    let folder = tempfile::tempdir().unwrap();
    let (lan, minh) = registry(folder.path());
    let suspended = |id: &str| lan.client(id).unwrap().suspended;
    // Without such a grant, or while it waits, the client has no right that it would get back.
    lan.add_grant(&sensitive("g-1")).unwrap();
    for id in ["shop", "other"] {
        lan.suspend_client(id, true).unwrap();
        assert_eq!(lan.resume_client(id).unwrap(), ChangeOutcome::Done);
        assert!(!suspended(id));
    }
    minh.approve_grant("g-1").unwrap();
    lan.suspend_client("shop", true).unwrap();
    let ChangeOutcome::PendingApproval(asked) = lan.resume_client("shop").unwrap() else {
        panic!("it was resumed by one person")
    };
    assert!(suspended("shop") && asked.event == "client.resume" && asked.object == "client:shop");
    for alone in [lan.clone(), lan.acting_as(Actor::local()), lan.acting_as(Actor::System)] {
        assert!(matches!(alone.approve_change(&asked.id), Err(RegistryError::Forbidden(_))));
    }
    // By the other call, too; and an approval is bound to the state that it was asked on.
    lan.suspend_client("shop", false).unwrap();
    assert!(suspended("shop"));
    lan.change_client(&Client { contact: "x".into(), ..lan.client("shop").unwrap() }).unwrap();
    assert!(matches!(minh.approve_change(&asked.id), Err(RegistryError::Outdated)));
    let ChangeOutcome::PendingApproval(asked) = lan.resume_client("shop").unwrap() else {
        panic!("it was resumed by one person")
    };
    minh.approve_change(&asked.id).unwrap();
    assert!(!suspended("shop"));
    // Suspending takes away: one person does it. What has no such grant any more is let in by one, too.
    lan.suspend_client("shop", true).unwrap();
    lan.withdraw_grant("g-1").unwrap();
    assert_eq!(lan.resume_client("shop").unwrap(), ChangeOutcome::Done);
}

fn citizen(stage: &Stage) -> serde_json::Value {
    samples(&stage.sandbox.province).into_iter().find(|one| one.operation.ends_with("GetCitizen")).unwrap().requests[0]
        .clone()
}

/// A grant's id of so many days ago.
fn days_ago(days: i64) -> String {
    let ms = u64::try_from(now() - days * 86_400).unwrap() * 1_000;
    let id = uuid::Builder::from_unix_timestamp_millis(ms, &[days as u8; 10]).into_uuid();
    format!("g-{}", id.simple())
}

#[test]
fn t2_pending_grants_are_bounded_and_expire() {
    let folder = tempfile::tempdir().unwrap();
    let (lan, minh) = registry(folder.path());
    let (old, new) = (days_ago(8), days_ago(6));
    for id in [&old, &new] {
        lan.add_grant(&sensitive(id)).unwrap();
    }
    assert!(matches!(minh.approve_grant(&old), Err(RegistryError::Unknown(..))), "a week is over");
    assert_eq!((lan.end_pending_changes().unwrap(), lan.end_pending_changes().unwrap()), (1, 0));
    let state = |id: &str| lan.grant(id).unwrap().state(now());
    assert_eq!((state(&old), state(&new)), (GrantState::Withdrawn, GrantState::Pending));
    let ended = lan.admin_events().unwrap().pop().unwrap();
    assert_eq!((ended.event.as_str(), ended.actor.as_str()), ("change.end", "system"));
    assert_eq!(ended.changes[0].object, format!("grant:{old}"));
    minh.approve_grant(&new).unwrap();
    // What was approved in time stays, and so does what needed no approval.
    let plain = Grant { needs_approval: false, ..sensitive(&days_ago(9)) };
    lan.add_grant(&plain).unwrap();
    assert_eq!(lan.end_pending_changes().unwrap(), 0);
    assert_eq!((state(&new), state(&plain.id)), (GrantState::InForce, GrantState::InForce));
    // Bounded with the other changes that wait.
    for number in 0..50 {
        lan.add_grant(&sensitive(&format!("g-w{number}"))).unwrap();
    }
    assert_eq!(lan.count_pending().unwrap(), 50);
    assert!(matches!(lan.add_grant(&sensitive("g-x")), Err(RegistryError::Full(_))), "of one person");
    let more = Staff { id: "hoa".into(), roles: vec![], names: vec!["hoa.vn".into()] };
    assert!(matches!(lan.add_staff(&more), Err(RegistryError::Full(_))));
    lan.add_grant(&Grant { needs_approval: false, ..sensitive("g-y") }).unwrap();
    minh.add_staff(&more).unwrap();
    lan.withdraw_grant("g-w0").unwrap();
    lan.add_grant(&sensitive("g-x")).unwrap();
}
