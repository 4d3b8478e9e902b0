//! Drift: the gateway notices on the first response what a source adds, drops or retypes, by path and never by value;
//! `docs/contracts.md`.

use crate::support::{
    CITIZEN, ENTERPRISE, HOUSEHOLD, PARCEL, Stage, approved_grant, edit, grpc_source, ops_text, until,
};
use grpc_source::{LIST, Plan, READ, with_source};
use ndxp_gateway::config::Config;
use ndxp_gateway::sandbox::FaultKind;
use ndxp_gateway::sandbox::samples::{holds, samples};
use serde_json::{Value, json};
use std::process::Command;
use tonic::Code;

/// The value of the sandbox's added member.
const VALUE: &str = "022199000123";

/// `contract drift` on the folder of a stage.
fn cli(stage: &Stage, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ndxp-gateway"));
    command.current_dir(&stage.folder.path).env("NDXP_LOG", "error").env_remove("NDXP_CONFIG");
    command.args(["contract", "drift", "--config", "gateway.toml"]).args(arguments);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn listed(stage: &Stage) -> Vec<Value> {
    serde_json::from_str::<Vec<Value>>(&cli(stage, &["--output", "json"])).unwrap()
}

/// The kinds and paths of an operation's drift, as they are listed.
fn of(stage: &Stage, operation: &str) -> Vec<String> {
    let all = listed(stage);
    let own = all.iter().filter(|one| one["operation"] == operation.trim_start_matches('/'));
    own.map(|one| format!("{} {}", one["kind"].as_str().unwrap(), one["path"].as_str().unwrap())).collect()
}

fn request(stage: &Stage, path: &str) -> Value {
    let all = samples(&stage.sandbox.province);
    all.into_iter().find(|one| format!("/{}", one.operation) == path).unwrap().requests[0].clone()
}

/// With this policy in the connection entries of these sources.
fn refusing(sources: &'static [&'static str]) -> Stage {
    Stage::prepared(&|folder| {
        for source in sources {
            edit(&folder.path.join(format!("sources/{source}.toml")), |text| {
                format!("{text}\n[drift]\nall = \"refuse\"\n")
            });
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_added_member_is_reported_on_the_first_response_by_path_without_values() {
    let stage = Stage::start();
    stage.client("one-stop-shop");
    approved_grant(&stage, "one-stop-shop", &["*"]);
    let actor = stage.actor("one-stop-shop");
    assert!(listed(&stage).is_empty() && cli(&stage, &[]).contains("none"));
    let all = samples(&stage.sandbox.province);
    for path in [CITIZEN, PARCEL] {
        let source = path.split('.').nth(1).unwrap();
        stage.sandbox.faults.set(source, FaultKind::AddedNames);
        let told = actor.call(path, request(&stage, path)).await.ok();
        let sample = all.iter().find(|one| format!("/{}", one.operation) == path).unwrap();
        assert!(holds(&told.messages[0], &sample.expect), "the answer stands: {}", told.messages[0]);
        stage.sandbox.faults.clear(source);
    }
    until("the drift is kept", || of(&stage, PARCEL).len() > 1);
    let paths = of(&stage, PARCEL);
    assert!(
        paths.contains(&"added ThuaDat/truongMoi".to_owned())
            && paths.iter().all(|one| one.ends_with("/truongMoi") || one == "added truongMoi"),
        "{paths:?}"
    );
    assert!(
        of(&stage, CITIZEN).contains(&"added CongDan/HoVaTen/truongMoi".to_owned())
            || of(&stage, CITIZEN).contains(&"added CongDan/truongMoi".to_owned()),
        "{:?}",
        of(&stage, CITIZEN)
    );
    let first = listed(&stage).into_iter().find(|one| one["path"] == "ThuaDat/truongMoi").unwrap();
    assert_eq!(
        (&first["responses"], &first["found"], &first["protocol"], &first["contract"]),
        (&json!(1), &json!("text"), &json!("X-Road REST"), &json!("v1"))
    );
    // Metric, readiness, table, report; none of them has a value.
    let metrics = ops_text(&stage, "/metrics");
    let line =
        format!("operation=\"{}\",field=\"ThuaDat/truongMoi\",kind=\"added\"}} 1", PARCEL.trim_start_matches('/'));
    assert!(metrics.contains(&line), "{line}");
    let ready = ops_text(&stage, "/readyz");
    assert!(ready.contains("200 OK") && ready.contains("responses of land, population have drifted"), "{ready}");
    let table = cli(&stage, &[]);
    assert!(table.contains("truongMoi"), "{table}");
    let report = cli(&stage, &["--report", "--source", "land"]);
    assert!(
        report.contains("ThuaDat/truongMoi") && report.contains("Agriculture") && !report.contains("CongDan"),
        "{report}"
    );
    let kept = std::fs::read_to_string(stage.data().join("state/drift.json")).unwrap();
    for text in [metrics, ready, table, report, kept, format!("{:?}", listed(&stage))] {
        assert!(!text.contains(VALUE), "{text}");
    }
    // As the contract describes it, nothing is added.
    let before = listed(&stage);
    actor.call(PARCEL, request(&stage, PARCEL)).await.ok();
    assert_eq!(listed(&stage), before);
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retyped_or_missing_member_is_reported_for_an_unreadable_response() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    stage.sandbox.faults.set("business", FaultKind::OtherTypes);
    assert_eq!(actor.call(ENTERPRISE, request(&stage, ENTERPRISE)).await.reason(), "SOURCE_PROTOCOL_ERROR");
    until("the drift is kept", || !of(&stage, ENTERPRISE).is_empty());
    let found = listed(&stage);
    let name = found.iter().find(|one| one["path"] == "Data/MainInformation/NAME").unwrap();
    assert_eq!(
        (&name["kind"], &name["described"], &name["found"]),
        (&json!("retyped"), &json!("text"), &json!("structure"))
    );
    // Another name in place of a known one is both.
    stage.sandbox.faults.set("insurance", FaultKind::OtherNames);
    actor.call(HOUSEHOLD, request(&stage, HOUSEHOLD)).await;
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_refuse_rejects_only_drifted_responses() {
    let stage = refusing(&["land", "catalogue", "publicservice"]);
    stage.client("one-stop-shop");
    approved_grant(&stage, "one-stop-shop", &["*"]);
    let actor = stage.actor("one-stop-shop");
    const SYNC: &str = "/ndxp.publicservice.v1.PublicServiceService/SyncDossiers";
    const SCHEMA: &str = "/ndxp.catalogue.v1.CatalogueService/GetSchema";
    for path in [PARCEL, SCHEMA] {
        let source = path.split('.').nth(1).unwrap();
        stage.sandbox.faults.set(source, FaultKind::AddedNames);
        let told = actor.call(path, request(&stage, path)).await;
        assert_eq!((told.code(), told.reason().as_str()), (Code::Internal, "SOURCE_DRIFTED"), "{path}");
        let message = told.answered.status.message().to_owned();
        assert!(message.contains("truongMoi") && !message.contains(VALUE), "{message}");
        let entry = stage.entry(&told.exchange()).entry;
        assert_eq!((entry.reason.as_str(), entry.fault.as_str()), ("SOURCE_DRIFTED", "source"));
        assert_eq!(entry.response_messages, 0, "nothing was disclosed");
        stage.sandbox.faults.clear(source);
        // The refused response is not cached, and the source's breaker stays closed.
        actor.call(path, request(&stage, path)).await.ok();
    }
    // The write may have been done, and its caller must know.
    stage.sandbox.faults.set("publicservice", FaultKind::AddedNames);
    let told = actor.call(SYNC, request(&stage, SYNC)).await;
    assert_eq!(told.reason(), "WRITE_OUTCOME_UNKNOWN");
    assert_eq!(stage.entry(&told.exchange()).entry.cause, "SOURCE_DRIFTED");
    // Another source's entry has no policy: its responses are returned.
    stage.sandbox.faults.set("insurance", FaultKind::AddedNames);
    actor.call(HOUSEHOLD, request(&stage, HOUSEHOLD)).await.ok();
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_pass_counts_without_a_report() {
    let stage = Stage::prepared(&|folder| {
        let own = "\n[drift]\nall = \"refuse\"\nGetParcel = \"pass\"\n";
        edit(&folder.path.join("sources/land.toml"), |text| text + own);
    });
    let actor = stage.system("one-stop-shop");
    stage.sandbox.faults.set("land", FaultKind::AddedNames);
    actor.call(PARCEL, request(&stage, PARCEL)).await.ok();
    until("the drift is kept", || !of(&stage, PARCEL).is_empty());
    assert!(!ops_text(&stage, "/readyz").contains("drifted"), "nobody is told");
    const OWNER: &str = "/ndxp.land.v1.LandService/ListParcelsByOwner";
    assert_eq!(actor.call(OWNER, request(&stage, OWNER)).await.reason(), "SOURCE_DRIFTED");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_fields_of_a_grpc_source_are_reported_by_number_and_refused_by_policy() {
    let (stage, source, actor) = with_source("[drift]\nList = \"refuse\"").await;
    actor.call(READ, json!({ "parts": 1 })).await.ok();
    source.plan(Plan::Another);
    actor.call(READ, json!({ "parts": 1 })).await.ok();
    let told = actor.call(LIST, json!({ "parts": 1 })).await;
    assert_eq!(told.reason(), "SOURCE_DRIFTED", "before the first message leaves");
    until("the drift is kept", || !of(&stage, LIST).is_empty());
    assert_eq!((of(&stage, READ), of(&stage, LIST)), (vec!["added #15".to_owned()], vec!["added #15".to_owned()]));
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_in_a_later_message_of_a_stream_is_reported_and_ends_it_by_policy() {
    for (policy, code, messages) in [("pass", Code::Ok, 4), ("warn", Code::Ok, 4), ("refuse", Code::Internal, 2)] {
        let keys = format!("[drift]\nList = \"{policy}\"");
        let (stage, source, actor) = with_source(&keys).await;
        source.plan(Plan::AnotherLater);
        let told = actor.call(LIST, json!({ "parts": 1 })).await;
        assert_eq!((told.code(), told.messages.len()), (code, messages), "{policy}: what came before stands");
        if policy == "refuse" {
            assert_eq!(told.reason(), "SOURCE_DRIFTED");
        }
        until("the drift is kept", || !of(&stage, LIST).is_empty());
        assert_eq!(of(&stage, LIST), ["added #15"], "{policy}");
        assert_eq!(ops_text(&stage, "/readyz").contains("drifted"), policy != "pass", "{policy}");
        let entry = stage.entry(&told.exchange()).entry;
        assert_eq!(entry.response_messages, messages as u64, "{policy}: what was disclosed is logged");
        stage.verify();
    }
}

#[test]
fn an_invalid_policy_or_one_weaker_than_the_contract_s_is_refused_at_load() {
    let stage = Stage::start();
    let file = stage.folder.path.join("sources/publicservice.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    let folder = stage.folder.path.join("contracts/ndxp/publicservice/v2");
    std::fs::create_dir_all(&folder).unwrap();
    let contract = include_str!("../../seeds/contracts/publicservice-v2.proto");
    let contract = contract.replacen("scope: \"publicservice:", "drift: REFUSE scope: \"publicservice:", 1);
    std::fs::write(folder.join("publicservice.proto"), contract).unwrap();
    let faults = |keys: &str| {
        std::fs::write(&file, format!("{before}\n{keys}\n")).unwrap();
        let config = Config::load(&stage.folder.gateway_config()).map_err(crate::support::show).unwrap();
        config.catalogue().map(|_| ()).map_err(crate::support::show)
    };
    assert_eq!(faults("[drift]\nall = \"warn\"\nGetDossier = \"refuse\""), Ok(()));
    for (keys, told) in [
        ("[drift]\nall = \"loud\"", "must be \"pass\", \"warn\" or \"refuse\""),
        ("[drift]\nGetDossier = \"no\"", "must be \"pass\", \"warn\" or \"refuse\""),
        ("[drift]\nNothing = \"warn\"", "Nothing"),
        ("[drift]\nall = true", "all"),
    ] {
        let found = faults(keys).unwrap_err();
        assert!(found.contains(told), "{keys}: {found}");
    }
    let v2 = before.replacen("source = ", "contract = \"v2\"\nsource = ", 1);
    // Its bodies are bare lists without a session.
    std::fs::write(&file, &v2).unwrap();
    let config = Config::load(&stage.folder.gateway_config()).map_err(crate::support::show).unwrap();
    let found = config.catalogue().map(|_| ()).map_err(crate::support::show).unwrap_err();
    assert!(found.contains("these credentials are never sent: a session"), "{found}");
    let (head, rest) = v2.split_once("[credentials]").unwrap();
    let (_, settings) = rest.split_once("[settings]").unwrap();
    let v2 = format!("{head}[credentials]\nkind = \"none\"\n[settings]{settings}");
    let with = |keys: &str| {
        std::fs::write(&file, format!("{v2}\n{keys}\n")).unwrap();
        let config = Config::load(&stage.folder.gateway_config()).map_err(crate::support::show).unwrap();
        config.catalogue().map(|_| ()).map_err(crate::support::show)
    };
    let found = with("[drift]\nSyncDossiers = \"pass\"").unwrap_err();
    assert!(found.contains("an entry cannot loosen it"), "{found}");
    assert_eq!(with("[drift]\nSyncDossiers = \"refuse\""), Ok(()));
}
