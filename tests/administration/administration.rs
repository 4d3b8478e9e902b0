//! Changes by administrators are in force at once, everywhere, and in the log.

use crate::support::{Actor, SECOND, STALL, Stage, UNIT, files, show, until};
use ndxp_gateway::config::Config;
use ndxp_gateway::exchange_log::Kind;
use ndxp_gateway::exchange_log::file_events::FILE_EVENT;
use ndxp_gateway::exchange_log::reader::Found;
use ndxp_gateway::registry::{Page, Store};
use ndxp_gateway::server::Gateway;
use serde_json::json;
use std::time::{Duration, Instant};
use tonic::Code;

const WATCH: &str = "/ndxp.criminalrecord.v1.CriminalRecordService/WatchRequest";

#[tokio::test(flavor = "multi_thread")]
async fn every_admin_event_is_in_the_exchange_log_with_its_actor() {
    let stage = Stage::start();
    stage.client("clerk");
    let grant = stage.grant("clerk", &["population:verify"], |_| {});
    stage.token("clerk", Duration::from_secs(60), Duration::ZERO);
    let lan = stage.store.acting_as(ndxp_gateway::registry::Actor::Local { uid: 1000, user: "lan".into() });
    lan.withdraw_grant(&grant).unwrap();
    lan.suspend_client("clerk", true).unwrap();
    lan.suspend_client("clerk", false).unwrap();
    // Entries about the gateway's own files are nobody's act.
    let is_act = |one: &&Found| one.entry.kind() == Kind::Admin && one.entry.event != FILE_EVENT;
    until("the acts in the log", || stage.entries().iter().filter(is_act).count() == 7);
    let entries = stage.entries();
    let admin_events: Vec<(&str, &str, &str)> = entries
        .iter()
        .filter(is_act)
        .map(|one| (one.entry.event.as_str(), one.entry.actor.as_str(), one.entry.object.as_str()))
        .collect();
    assert_eq!(admin_events[0].0, "key.rotate");
    assert_eq!((admin_events[1].0, admin_events[1].2), ("client.add", "client:clerk"));
    assert_eq!(admin_events[2].0, "grant.add");
    assert_eq!(admin_events[3].0, "token.issue");
    assert_eq!(admin_events[4], ("grant.withdraw", "local:lan(1000)", format!("grant:{grant}").as_str()));
    assert_eq!(admin_events[5..].iter().map(|event| event.0).collect::<Vec<_>>(), ["client.suspend", "client.resume"]);
    assert!(stage.store.admin_events().unwrap().is_empty());
    stage.verify();
}

/// A stream that would last an hour: the request's state does not change.
async fn watching(stage: &Stage, actor: &Actor, number: usize) -> ndxp_gateway::caller::StreamingResponse {
    // Every third of the first dossiers has a request that nobody has queried yet.
    let number = stage.sandbox.province.dossiers[3 * number].number.clone();
    let mut answering = actor.start(WATCH, json!({ "dossierNumber": number })).await;
    assert!(answering.next().await.unwrap().is_some());
    // The source hangs from now on: the stream is idle.
    stage.sandbox.faults.set("criminalrecord", ndxp_gateway::sandbox::FaultKind::Hang);
    answering
}

#[tokio::test(flavor = "multi_thread")]
async fn open_streams_end_within_a_second_of_the_revocation() {
    let stage = Stage::start();
    type Take = fn(&Stage, &str);
    let ways: [(&str, Take, &str); 3] = [
        (
            "grant",
            |stage, id| {
                let grants = stage.store.grants(Some(id), Page::ALL).unwrap();
                stage.store.withdraw_grant(&grants[0].id).unwrap();
            },
            "SCOPE_NOT_GRANTED",
        ),
        (
            "token",
            |stage, id| {
                let token = stage.store.tokens(Some(id), Page::ALL).unwrap()[0].id.clone();
                stage.store.revoke_token(&token).unwrap();
            },
            "TOKEN_REVOKED",
        ),
        ("client", |stage, id| stage.store.suspend_client(id, true).unwrap(), "CLIENT_SUSPENDED"),
    ];
    for (number, (id, take, reason)) in ways.into_iter().enumerate() {
        let actor = stage.system(id);
        stage.sandbox.faults.clear("criminalrecord");
        let mut stream = watching(&stage, &actor, number).await;
        take(&stage, id);
        let began = Instant::now();
        let ended =
            tokio::time::timeout(Duration::from_secs(10), async { while let Ok(Some(_)) = stream.next().await {} });
        ended.await.unwrap_or_else(|_| panic!("{id}: the stream goes on"));
        assert!(began.elapsed() < SECOND + STALL, "{id}: {:?}", began.elapsed());
        let (metadata, status) = stream.end();
        use tonic_types::StatusExt;
        assert_eq!(status.get_details_error_info().unwrap().reason, reason);
        let exchange = metadata["ndxp-exchange-id"].to_str().unwrap();
        assert_eq!(stage.entry(exchange).entry.reason, reason);
    }
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_in_flight_gets_no_response_after_its_grant_is_withdrawn() {
    let stage = Stage::start();
    let actor = stage.system("clerk");
    stage.sandbox.faults.set("budgetunit", ndxp_gateway::sandbox::Fault { latency_ms: 6_000, ..Default::default() });
    let call = actor.call(UNIT, json!({ "unitCode": "1057000" }));
    let (told, ()) = tokio::join!(call, async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let grant = stage.store.grants(None, Page::ALL).unwrap()[0].id.clone();
        stage.store.withdraw_grant(&grant).unwrap();
    });
    assert_eq!((told.reason().as_str(), told.messages.len()), ("SCOPE_NOT_GRANTED", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_does_not_outlive_its_token() {
    let stage = Stage::prepared(&|folder| {
        crate::support::edit(&folder.gateway_config(), |text| text.replace("audience = ", "leeway_s = 0\naudience = "));
    });
    let actor = stage.system("clerk");
    let token = stage.token("clerk", Duration::from_secs(5), Duration::ZERO);
    let mut stream = watching(&stage, &Actor { token, ..actor }, 0).await;
    let ended = tokio::time::timeout(Duration::from_secs(9), async { while let Ok(Some(_)) = stream.next().await {} });
    ended.await.unwrap();
    use tonic_types::StatusExt;
    assert_eq!(stream.end().1.get_details_error_info().unwrap().reason, "TOKEN_EXPIRED");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_a_revoked_certificate_are_closed() {
    let stage = Stage::start();
    let (actor, other) = (stage.system("laptop"), stage.system("desktop"));
    let mut stream = watching(&stage, &actor, 0).await;
    stage.folder.pki().revoke(&files(&stage.folder, "laptop").certificate).unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(3), async { while let Ok(Some(_)) = stream.next().await {} });
    closed.await.expect("the connection stays open");
    // Nobody waits for this entry: it is on disk shortly afterwards.
    let logged = |one: &Found| one.entry.reason == "CERTIFICATE_REVOKED" && one.entry.kind() == Kind::Connection;
    crate::support::until("it is in the log", || stage.entries().iter().any(logged));
    let entries = stage.entries();
    assert_eq!(entries.iter().find(|one| logged(one)).unwrap().entry.status, Code::Unauthenticated as u32);
    other.call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_connection_is_renewed_without_a_failed_call() {
    let stage = Stage::prepared(&|folder| {
        crate::support::edit(&folder.gateway_config(), |text| {
            text.replace("[listen]\n", "[listen]\nmax_connection_age_s = 1\n")
        });
    });
    let actor = stage.system("clerk");
    let began = Instant::now();
    let mut peers = std::collections::HashSet::new();
    while peers.len() < 4 && began.elapsed() < Duration::from_secs(12) {
        let told = actor.call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
        peers.insert(stage.entry(&told.exchange()).entry.peer);
    }
    assert!(peers.len() >= 4, "{peers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_survive_a_restart_and_report_the_rest() {
    let mut stage = Stage::start();
    stage.client("clerk");
    stage.grant("clerk", &["budgetunit:read"], |grant| (grant.daily_quota, grant.rate, grant.burst) = (5, 10, 10));
    let actor = stage.actor("clerk");
    for left in ["4", "3", "2"] {
        let told = actor.call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
        assert_eq!(told.answered.text("ndxp-quota-left"), left);
        assert!(told.answered.text("ndxp-rate-left").parse::<u32>().unwrap() <= 20);
    }
    tokio::task::block_in_place(|| stage.gateway.take().unwrap().stop());
    // As after a crash before the usage was saved: only the exchange log has it.
    for file in ["usage.sqlite", "usage.sqlite-wal", "usage.sqlite-shm"] {
        let _ = std::fs::remove_file(stage.data().join(file));
    }
    let config = Config::load(&stage.folder.gateway_config()).map_err(show).unwrap();
    stage.gateway = Some(Gateway::start(config).unwrap());
    for left in ["1", "0"] {
        assert_eq!(
            actor.call(UNIT, json!({ "unitCode": "1057000" })).await.ok().answered.text("ndxp-quota-left"),
            left
        );
    }
    assert_eq!(actor.call(UNIT, json!({ "unitCode": "1057000" })).await.reason(), "QUOTA_EXCEEDED");
    let mut numbers: Vec<u64> =
        stage.entries().iter().map(|one| one.entry.grant_call).filter(|call| *call > 0).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4, 5], "each admitted call has its number in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retired_client_and_revoked_tokens_are_refused_within_a_second() {
    let stage = Stage::start();
    let (clerk, other) = (stage.system("clerk"), stage.system("other"));
    let ask = json!({ "unitCode": "1057000" });
    clerk.call(UNIT, ask.clone()).await.ok();
    stage.store.retire_client("clerk").unwrap();
    assert_eq!(stage.store.revoke_client_tokens("other").unwrap(), 1);
    stage.settle();
    assert_eq!(clerk.call(UNIT, ask.clone()).await.reason(), "CLIENT_UNKNOWN");
    assert_eq!(other.call(UNIT, ask.clone()).await.reason(), "TOKEN_REVOKED");
    // A token issued afterwards is valid, even in the same second.
    stage.actor("other").call(UNIT, ask).await.ok();
    assert!(stage.store.view("clerk").is_err() && stage.store.client("clerk").unwrap().retired);
    assert!(stage.store.grants(Some("clerk"), Page::ALL).unwrap().iter().all(|grant| grant.withdrawn));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_outside_the_grant_never_reaches_the_source() {
    let stage = Stage::start();
    stage.client("clerk");
    stage.grant("clerk", &["population:verify"], |grant| grant.purposes = vec!["procedure:1.004222".into()]);
    let actor = stage.actor("clerk");
    // A source that never responds: a call that reached it would hang until its deadline.
    stage.sandbox.faults.set("population", ndxp_gateway::sandbox::FaultKind::Hang);
    let person = &stage.sandbox.province.people[0];
    let message = actor.encode(crate::support::VERIFY, &json!({ "citizenId": person.citizen_id }));
    let household = actor.encode(crate::support::CITIZEN, &json!({ "citizenId": person.citizen_id }));
    for (path, purpose, message, reason) in [
        (crate::support::VERIFY, "1.004873", &message, "PURPOSE_NOT_GRANTED"),
        (crate::support::VERIFY, "H49.12-251103-0001", &message, "PURPOSE_NOT_GRANTED"),
        (crate::support::CITIZEN, crate::support::PURPOSE, &household, "SCOPE_NOT_GRANTED"),
    ] {
        let metadata = [("ndxp-purpose", purpose), ("ndxp-official", ndxp_gateway::sandbox::samples::OFFICIAL)];
        let began = Instant::now();
        let told = actor.raw(path, &metadata, vec![message.clone()]).await.unwrap();
        assert_eq!(told.reason(), reason);
        assert!(began.elapsed() < Duration::from_secs(5), "it has waited for the source");
        let entry = stage.entry(&told.exchange()).entry;
        assert_eq!((entry.source_us, entry.grant.as_str(), entry.reason.as_str()), (0, "", reason));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_lives_longer_than_the_policy_says() {
    use ndxp_gateway::issuer::{IssueError, IssueRequest, Issuer};
    let stage = Stage::prepared(&|folder| {
        crate::support::edit(&folder.gateway_config(), |text| {
            text.replace("audience = ", "max_lifetime_s = 600\naudience = ")
        });
    });
    stage.client("clerk");
    stage.grant("clerk", &["budgetunit:read"], |_| {});
    let config = Config::load(&stage.folder.gateway_config()).map_err(show).unwrap();
    assert_eq!(config.tokens.lifetime, Duration::from_secs(600));
    let view = stage.store.view("clerk").unwrap();
    let request = |seconds| IssueRequest {
        scopes: vec![],
        certificate: ndxp_gateway::identity::Thumbprint([0; 32]),
        lifetime: Duration::from_secs(seconds),
        starts_in: Duration::ZERO,
    };
    let issuer = Issuer::new(&stage.store, config.issuer_settings());
    issuer.issue(&view, request(600)).unwrap();
    assert!(matches!(issuer.issue(&view, request(601)), Err(IssueError::TooLong(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_secret_of_a_source_is_reloaded_automatically() {
    let stage = Stage::start();
    let actor = stage.system("clerk");
    let files = stage.gateway_files();
    let secret = files.iter().find(|file| file.ends_with("ndxp-consumer")).expect("a secret is named").clone();
    let good = std::fs::read_to_string(&secret).unwrap();
    let tax = stage.sandbox.province.enterprises[0].code.clone();
    let ask = || actor.call(crate::support::ENTERPRISE, json!({ "enterpriseCode": tax }));
    ask().await.ok();
    let becomes = async |reason: &str| {
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while ask().await.reason() != reason {
            assert!(std::time::Instant::now() < end, "it never becomes {reason:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    std::fs::write(&secret, "another secret").unwrap();
    becomes("SOURCE_CREDENTIALS_REFUSED").await;
    std::fs::write(&secret, good).unwrap();
    becomes("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded_for_each_address() {
    let stage = Stage::prepared(&|folder| {
        crate::support::edit(&folder.gateway_config(), |text| {
            text.replace("[listen]\n", "[listen]\nmax_connections_per_peer = 2\n")
        });
    });
    let actor = stage.system("clerk");
    let again = stage.with_token("clerk", &actor.token);
    let third = stage.with_token("clerk", &actor.token);
    for open in [&actor, &again] {
        open.call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
    }
    let message = third.encode(UNIT, &json!({ "unitCode": "1057000" }));
    assert!(third.raw(UNIT, &[], vec![message]).await.is_err());
    actor.call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
}
