//! Every row of the status table, provoked through the real listener: status, reason, details and a log entry.

use crate::support::{Actor, CITIZEN, ENTERPRISE, PROCEDURE, Stage, Told, UNIT, VERIFY, comes, edit};
use ndxp_gateway::exchange_log::checkpoint::LogSigner;
use ndxp_gateway::exchange_log::journal::segments;
use ndxp_gateway::exchange_log::{Entry, ExchangeLog, Kind, LogPaths};
use ndxp_gateway::registry::{Page, Store, now};
use ndxp_gateway::sandbox::{Fault, FaultKind};
use ndxp_gateway::status::Reason;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tonic::Code;
use tonic_types::StatusExt;

const SYNC: &str = "/ndxp.publicservice.v1.PublicServiceService/SyncDossiers";

/// Asserts status, reason, domain, exchange id and the entry in the log.
#[track_caller]
fn refused(stage: &Stage, told: &Told, reason: Reason) {
    let details = told.answered.status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo in {:?}", told.answered.status));
    assert_eq!((info.reason.as_str(), told.code()), (reason.as_str(), reason.code()), "{:?}", told.answered.status);
    assert_eq!(info.domain, "ndxp-gateway");
    assert_eq!(info.metadata["exchange_id"], told.exchange());
    let vietnamese = details.localized_message().unwrap();
    assert_eq!((vietnamese.locale.as_str(), vietnamese.message.as_str()), ("vi", reason.vietnamese()));
    let entry = stage.entry(&told.exchange()).entry;
    assert_eq!((entry.reason.as_str(), entry.status), (reason.as_str(), reason.code() as u32));
}

fn code(stage: &Stage) -> Value {
    json!({ "enterpriseCode": stage.sandbox.province.enterprises[0].code })
}

fn claim(stage: &Stage) -> Value {
    let person = &stage.sandbox.province.people[0];
    json!({ "citizenId": person.citizen_id, "fullName": person.full_name(), "birthDate": { "year": person.birth.0 } })
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens() {
    let stage = Stage::prepared(&|folder| {
        edit(&folder.gateway_config(), |text| text.replace("audience = ", "leeway_s = 0\naudience = "));
    });
    let actor = stage.system("one-stop-shop");
    let with = |token: &str| Actor { token: token.to_owned(), ..actor.clone() };
    refused(&stage, &with("").call(ENTERPRISE, code(&stage)).await, Reason::TokenMissing);
    for malformed in ["x", "a.b", "a.b.c.d", "....", "!.!.!", &"a".repeat(9_000)] {
        refused(&stage, &with(malformed).call(ENTERPRISE, code(&stage)).await, Reason::TokenMalformed);
    }
    let twice = [("authorization", "Bearer a.b.c")];
    let message = vec![actor.encode(ENTERPRISE, &code(&stage))];
    refused(&stage, &actor.raw(ENTERPRISE, &twice, message).await.unwrap(), Reason::TokenMalformed);
    let (head, signature) = actor.token.rsplit_once('.').unwrap();
    let other = if signature.starts_with('A') { "B" } else { "A" };
    let forged = format!("{head}.{other}{}", &signature[1..]);
    refused(&stage, &with(&forged).call(ENTERPRISE, code(&stage)).await, Reason::TokenInvalid);
    let early = stage.token("one-stop-shop", Duration::from_secs(60), Duration::from_secs(600));
    refused(&stage, &with(&early).call(ENTERPRISE, code(&stage)).await, Reason::TokenNotYetValid);
    let lifetime = Duration::from_secs(6);
    let short = stage.token("one-stop-shop", lifetime, Duration::ZERO);
    with(&short).call(ENTERPRISE, code(&stage)).await.ok();
    tokio::time::sleep(lifetime + Duration::from_millis(1_100)).await;
    refused(&stage, &with(&short).call(ENTERPRISE, code(&stage)).await, Reason::TokenExpired);
    let revoked = stage.token("one-stop-shop", Duration::from_secs(60), Duration::ZERO);
    let newest = stage.store.tokens(Some("one-stop-shop"), Page::ALL).unwrap();
    let id = newest.iter().max_by_key(|token| token.id.clone()).unwrap().id.clone();
    with(&revoked).call(ENTERPRISE, code(&stage)).await.ok();
    stage.store.revoke_token(&id).unwrap();
    stage.settle();
    refused(&stage, &with(&revoked).call(ENTERPRISE, code(&stage)).await, Reason::TokenRevoked);
    let other = stage.system("other");
    let stolen = Actor { token: actor.token.clone(), ..other };
    refused(&stage, &stolen.call(ENTERPRISE, code(&stage)).await, Reason::TokenNotBound);
    stage.folder.pki().issue("stranger", &ndxp_gateway::pki::CertificateRole::Client("stranger".into()), 30).unwrap();
    let stranger = stage.with_token("stranger", &actor.token);
    refused(&stage, &stranger.call(ENTERPRISE, code(&stage)).await, Reason::ClientUnknown);
    stage.store.suspend_client("one-stop-shop", true).unwrap();
    stage.settle();
    refused(&stage, &actor.call(ENTERPRISE, code(&stage)).await, Reason::ClientSuspended);
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_rates_and_quotas() {
    let stage = Stage::start();
    stage.client("clerk");
    stage.grant("clerk", &["population:verify"], |grant| grant.purposes = vec!["procedure:1.001193".into()]);
    stage.grant("clerk", &["budgetunit:read"], |grant| grant.not_after = now() - 1);
    stage.grant("clerk", &["business:verify"], |grant| (grant.rate, grant.burst) = (1, 0));
    stage.grant("clerk", &["business:read"], |grant| grant.daily_quota = 1);
    let actor = stage.actor("clerk");
    let say = |metadata: Vec<(&'static str, &'static str)>| {
        let (actor, message) = (actor.clone(), actor.encode(VERIFY, &claim(&stage)));
        async move { actor.raw(VERIFY, &metadata, vec![message]).await.unwrap() }
    };
    refused(&stage, &actor.call(CITIZEN, claim(&stage)).await, Reason::ScopeNotGranted);
    // This grant has expired, so the token could not have its scope either.
    refused(&stage, &actor.call(UNIT, json!({ "unitCode": "1057000" })).await, Reason::ScopeNotGranted);
    refused(&stage, &say(vec![("ndxp-official", "022080990129")]).await, Reason::PurposeRequired);
    let other = vec![("ndxp-official", "022080990129"), ("ndxp-purpose", "1.000894")];
    refused(&stage, &say(other).await, Reason::PurposeNotGranted);
    refused(&stage, &say(vec![("ndxp-purpose", "1.001193")]).await, Reason::OfficialRequired);
    let told = say(vec![("ndxp-purpose", "Nguyen Van An"), ("ndxp-official", "022080990129")]).await;
    refused(&stage, &told, Reason::FieldInvalid);

    let verify = "/ndxp.business.v1.BusinessService/VerifyEnterprise";
    // One a second: of several at once all but one are too many.
    let began = Instant::now();
    let all = futures_util::future::join_all((0..8).map(|_| actor.call(verify, code(&stage)))).await;
    let served = all.iter().filter(|told| told.code() == Code::Ok).count() as u64;
    assert!((1..=2 + began.elapsed().as_secs()).contains(&served), "{served} in {:?}", began.elapsed());
    let told = all.into_iter().find(|told| told.code() != Code::Ok).expect("one that is refused");
    refused(&stage, &told, Reason::RateLimited);
    let delay = told.answered.status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!(delay <= Duration::from_secs(1), "{delay:?}");
    actor.call(ENTERPRISE, code(&stage)).await.ok();
    let told = actor.call(ENTERPRISE, code(&stage)).await;
    refused(&stage, &told, Reason::QuotaExceeded);
    assert!(told.answered.status.get_details_quota_failure().is_some());
    assert!(told.answered.status.get_details_retry_info().unwrap().retry_delay.unwrap() <= Duration::from_secs(86_400));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests() {
    let stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    let wrong =
        json!({ "citizenId": "12345", "fullName": "R2D2", "birthDate": { "year": 2024, "month": 2, "day": 30 } });
    let told = actor.call(CITIZEN, wrong).await;
    refused(&stage, &told, Reason::FieldInvalid);
    let details = told.answered.status.get_error_details();
    let fields: Vec<&str> =
        details.bad_request().unwrap().field_violations.iter().map(|one| one.field.as_str()).collect();
    assert_eq!(fields, ["citizen_id", "full_name", "birth_date"]);
    let unknown =
        actor.raw("/ndxp.population.v1.PopulationService/Delete", &[], vec![bytes::Bytes::new()]).await.unwrap();
    refused(&stage, &unknown, Reason::OperationUnknown);
    let nobody = json!({ "citizenId": "022199999999", "fullName": "Nguyễn Văn Không", "birthDate": { "year": 1999 } });
    refused(&stage, &actor.call(CITIZEN, nobody).await, Reason::RecordNotFound);
    let none = actor.call(UNIT, json!({ "unitCode": "9999999" })).await;
    refused(&stage, &none, Reason::RecordNotFound);
    assert_eq!(none.answered.status.get_details_error_info().unwrap().metadata["source_code"], "404");
    let late = json!({ "fromDate": { "year": 2026, "month": 11, "day": 1 }, "toDate": { "year": 2026, "month": 11, "day": 20 } });
    let told = actor.call("/ndxp.business.v1.BusinessService/ListRegistrations", late).await;
    refused(&stage, &told, Reason::SourceRejected);
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_that_fail() {
    // A breaker that does not open for single failures.
    let stage = Stage::prepared(&|folder| {
        for source in ["business", "population", "publicservice", "budgetunit"] {
            edit(&folder.path.join(format!("sources/{source}.toml")), |text| {
                text + "\n[guard]\nbreaker_window = 1000\nconcurrency = 1\nqueue = 0\n"
            });
        }
    });
    let actor = stage.system("one-stop-shop");
    let faults = &stage.sandbox.faults;
    let status = |status| Fault { kind: FaultKind::Status, status: Some(status), ..Fault::default() };
    let cases: [(Fault, Reason); 8] = [
        (status(500), Reason::SourceUnavailable),
        (status(503), Reason::SourceUnavailable),
        (status(429), Reason::SourceUnavailable),
        (FaultKind::Close.into(), Reason::SourceUnavailable),
        (FaultKind::ResetBody.into(), Reason::SourceUnavailable),
        (FaultKind::Garbage.into(), Reason::SourceProtocolError),
        (FaultKind::WrongContentType.into(), Reason::SourceProtocolError),
        (FaultKind::CredentialsRefused.into(), Reason::SourceCredentialsRefused),
    ];
    for (fault, reason) in cases {
        for (source, path, request) in [
            ("business", ENTERPRISE, code(&stage)),
            ("population", VERIFY, claim(&stage)),
            ("publicservice", PROCEDURE, json!({ "procedureCode": "1.004222" })),
        ] {
            // A misleading SOAP status comes with an envelope; a plain one is recognised by its HTTP status.
            faults.set(source, fault);
            let told = actor.call(path, request).await;
            faults.clear(source);
            assert_eq!(told.reason(), reason.as_str(), "{source} with {fault:?}: {:?}", told.answered.status);
            refused(&stage, &told, reason);
        }
    }
    faults.set("business", FaultKind::Hang);
    let message = actor.encode(ENTERPRISE, &code(&stage));
    let slow = actor.raw(ENTERPRISE, &[("grpc-timeout", "3000m")], vec![message]);
    let before = faults.count("business");
    let (slow, crowded) = tokio::join!(slow, async {
        comes("it is at its source", || faults.count("business") > before).await;
        actor.call(ENTERPRISE, code(&stage)).await
    });
    refused(&stage, &slow.unwrap(), Reason::CallerDeadline);
    refused(&stage, &crowded, Reason::GatewayOverloaded);
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_source_has_an_open_breaker_and_is_probed_later() {
    let stage = Stage::prepared(&|folder| {
        edit(&folder.path.join("sources/business.toml"), |text| {
            text + "\n[guard]\nbreaker_window = 4\nbreaker_open_ms = 4000\nattempts = 1\n"
        });
    });
    let actor = stage.system("one-stop-shop");
    stage.sandbox.faults.set("business", FaultKind::Close);
    for _ in 0..4 {
        refused(&stage, &actor.call(ENTERPRISE, code(&stage)).await, Reason::SourceUnavailable);
    }
    let told = actor.call(ENTERPRISE, code(&stage)).await;
    refused(&stage, &told, Reason::SourceCircuitOpen);
    assert!(told.answered.status.get_details_retry_info().is_some());
    // The others are not affected.
    actor.call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
    stage.sandbox.faults.clear("business");
    tokio::time::sleep(Duration::from_millis(4_100)).await;
    actor.call(ENTERPRISE, code(&stage)).await.ok();
}

/// Fills the journal's newest segment up to a few bytes: no further batch fits.
async fn fill_segment(config: &ndxp_gateway::config::Config) {
    let key = config.vault.read(&config.data.join("keys/log.key")).unwrap();
    let log = ExchangeLog::open(&config.data, LogSigner::from_pkcs8(&config.log.origin, &key).unwrap()).unwrap();
    let paths = LogPaths::new(&config.data);
    let left = || {
        let (_, newest) = segments(&*paths.disk, &paths.journal).unwrap().pop().unwrap();
        let bytes = std::fs::read(newest).unwrap();
        bytes.len() - bytes.iter().rposition(|byte| *byte != 0).unwrap()
    };
    let entry = |bytes: usize| Entry { purpose: "p".repeat(bytes), ..Entry::begin(Kind::Exchange, "dc1") };
    loop {
        match left() {
            // Less than a batch header.
            0..88 => return,
            few @ 0..61_000 => drop(log.append(&entry(few - 200)).await.unwrap()),
            some @ 0..3_000_000 => {
                for _ in 0..some / 61_000 {
                    log.append(&entry(60_000)).await.unwrap();
                }
            }
            // Batches of a megabyte; as many as fit in the queue.
            many => {
                for _ in 1..(many / 61_000 - 40).min(400) {
                    log.append_detached(&entry(60_000)).unwrap();
                }
                log.append(&entry(60_000)).await.unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_log_the_gateway_refuses_and_then_resumes_automatically() {
    let mut stage = Stage::start();
    let actor = stage.system("one-stop-shop");
    // Behind a full segment the next entry needs a new one, and without the journal's folder it cannot be made.
    tokio::task::block_in_place(|| stage.gateway.take().unwrap().stop());
    let (journal, away) = (stage.data().join("journal"), stage.data().join("journal-away"));
    let config =
        ndxp_gateway::config::Config::load(&stage.folder.gateway_config()).map_err(crate::support::show).unwrap();
    fill_segment(&config).await;
    stage.gateway = Some(ndxp_gateway::server::Gateway::start(config).unwrap());
    std::fs::rename(&journal, &away).unwrap();
    let number = "H49.12-261125-7001";
    let dossier = json!({
        "dossierNumber": number, "procedureCode": "1.004222", "applicantName": "Nguyễn Văn An",
        "applicantKind": "CITIZEN", "status": "RECEIVED",
    });
    let (read, write) = (
        actor.call(ENTERPRISE, code(&stage)).await,
        actor.call(SYNC, json!({ "updating": false, "dossiers": [dossier] })).await,
    );
    let list = actor.call(crate::support::CATALOGUE, json!({ "code": "mabuuchinhcap3" })).await;
    let metrics = crate::support::ops_text(&stage, "/metrics");
    assert!(!metrics.contains("CANCELLED_BY_CALLER"), "nobody went away: {metrics}");
    for told in [&read, &write, &list] {
        assert_eq!((told.code(), told.reason().as_str()), (Code::Unavailable, "EXCHANGE_LOG_UNAVAILABLE"));
        assert!(told.messages.is_empty(), "nothing leaves unlogged");
    }
    std::fs::rename(&away, &journal).unwrap();
    actor.call(ENTERPRISE, code(&stage)).await.ok();
    let dossier =
        actor.call("/ndxp.publicservice.v1.PublicServiceService/GetDossier", json!({ "dossierNumber": number }));
    assert_eq!(dossier.await.reason(), "RECORD_NOT_FOUND", "a write went out without its intent in the log");
    stage.verify();
}
