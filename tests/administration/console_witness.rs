//! The page of checkpoints beside a real witness: how far it has cosigned, that it is gone, and the alarm about a fork that it has seen,
//! which ends with a reason.

use crate::browser::{Browser, auditor, staffed};
use crate::support::witness::{RunningWitness, config, log_signer, with_policy};
use crate::support::{Stage, UNIT, until};
use ndxp_gateway::exchange_log::cosignature::{Policy, plausible_times};
use ndxp_gateway::registry::now;
use ndxp_gateway::witness::alarm;
use ndxp_gateway::witness::config::WitnessConfig;
use ndxp_gateway::witness::request::AddCheckpoint;
use ndxp_gateway::witness::server::{WitnessResponse, WitnessService};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

const HERE: &str = "/console/checkpoints";

/// A stage with an auditor and entries, whose gateway is stopped, and a witness of its log that is not started yet.
async fn prepared(state: &Path) -> (Stage, WitnessConfig) {
    let mut stage = staffed();
    auditor(&stage);
    let actor = stage.system("one-stop-shop");
    for _ in 0..3 {
        actor.call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
    }
    drop(stage.gateway.take());
    let of = config("w.example/dc2", state, &stage.folder.path.join("pki"), vec![log_signer(&stage).verifier()], 0);
    WitnessService::make_keys(&of).unwrap();
    (stage, of)
}

/// Starts the witness, and the gateway with a policy that wants it; returns the policy.
fn started(stage: &mut Stage, of: WitnessConfig) -> (RunningWitness, String) {
    let file = of.state.join("vkey");
    let witness = RunningWitness::start(of);
    let vkey = std::fs::read_to_string(file).unwrap().lines().next().unwrap().to_owned();
    let policy = format!("witness dc2 {vkey} https://127.0.0.1:{}\nquorum dc2\n", witness.port);
    with_policy(stage, &policy);
    (witness, policy)
}

/// Loads the page until it has these texts.
async fn until_shown(browser: &mut Browser, wanted: &[&str]) -> String {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let page = browser.get(HERE).await;
        if page.status == 200 && wanted.iter().all(|text| page.text.contains(text)) {
            return page.text;
        }
        assert!(Instant::now() < end, "{wanted:?} are not shown: {}", page.text);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auditor_sees_how_far_a_witness_has_cosigned_and_that_it_is_gone() {
    let state = tempfile::tempdir().unwrap();
    let (mut stage, of) = prepared(state.path()).await;
    let (witness, policy) = started(&mut stage, of);
    let mut kiem = Browser::signed_in(&stage, "kiem").await;
    let page = until_shown(&mut kiem, &["dc2", "Cosigns", "w.example/dc2"]).await;
    assert!(!page.contains("Not yet") && !page.contains("role=\"alert\""), "{page}");
    // What is taken away has the cosignature that the policy wants.
    let note = kiem.get(&format!("{HERE}/text")).await.text;
    let policy = Policy::parse(&policy).unwrap();
    assert!(policy.quorum(&note, &plausible_times(0, now())).unwrap().is_some(), "{note}");
    drop(witness);
    stage.actor("one-stop-shop").call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
    until_shown(&mut kiem, &["Does not cosign"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_alarm_about_a_fork_is_on_the_page_until_an_auditor_says_what_it_was() {
    let state = tempfile::tempdir().unwrap();
    let (mut stage, of) = prepared(state.path()).await;
    // The log's key has signed another tree for the witness, as a forked copy of the gateway would.
    let forked = AddCheckpoint { old: 0, proof: vec![], note: log_signer(&stage).sign(2, &[9; 32]) };
    let told = WitnessService::open(&of).unwrap().add_checkpoint(forked.to_text().as_bytes(), now().unsigned_abs());
    assert!(matches!(told, WitnessResponse::Cosigned(_)), "{told:?}");
    let (_witness, _) = started(&mut stage, of);
    until("the alarm stands", || alarm::read(&stage.data()).is_some());
    let mut kiem = Browser::signed_in(&stage, "kiem").await;
    until_shown(&mut kiem, &["role=\"alert\"", "dc2", "Acknowledge the alarm"]).await;
    let id = alarm::read(&stage.data()).unwrap().id();
    let to = format!("{HERE}/acknowledge");
    let refused = kiem.submit(HERE, &to, &[("id", &id), ("reason", " ")]).await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    let ended = kiem.submit(HERE, &to, &[("id", &id), ("reason", "bản sao thử nghiệm đã ký nhầm")]).await;
    assert_eq!((ended.status, ended.to()), (303, HERE), "{}", ended.text);
    let page = kiem.get(HERE).await.text;
    assert!(!page.contains("Acknowledge the alarm"), "{page}");
    until("its reason is in the log", || {
        let events = stage.entries().into_iter().filter(|one| one.entry.event == "audit.acknowledge");
        events
            .map(|one| one.entry)
            .any(|entry| entry.object.contains(&id) && entry.justification.contains("thử nghiệm"))
    });
}
