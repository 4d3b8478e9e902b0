//! Who holds a right: one person or system, through certificate names that are nobody else's, and nobody gives it to
//! themselves.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use ndxp_gateway::admin::api;
use ndxp_gateway::caller::{Caller, CallerFiles};
use ndxp_gateway::pki::{client_uri, staff_uri};
use ndxp_gateway::registry::sqlite::SqliteStore;
use ndxp_gateway::registry::{Client, Page, RegistryError, Role, Staff, Store};
use ndxp_gateway::server::registry_path;
use prost::Message;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, SanType};
use serde_json::json;
use std::time::{Duration, SystemTime};
use support::{Actor, Stage, UNIT, files};

/// Somebody who works through `ndxp.admin.v1` with a certificate of their own.
struct Person {
    caller: Caller,
}

impl Person {
    async fn ask<A: Message + Default>(&self, method: &str, request: impl Message) -> Result<A, String> {
        let path = format!("/ndxp.admin.v1.AdminService/{method}");
        let answered = self.caller.call(&path, &[], vec![request.encode_to_vec().into()]).await.unwrap();
        match answered.messages.first() {
            Some(message) if answered.status.code() == tonic::Code::Ok => Ok(A::decode(message.clone()).unwrap()),
            _ => Err(format!("{} {}", answered.reason(), answered.status.message())),
        }
    }
}

/// A certificate of the stage's CA with these names.
fn certificate(stage: &Stage, file: &str, names: &[String]) -> CallerFiles {
    let pem = std::fs::read_to_string(stage.folder.path.join("pki/ca.key")).unwrap();
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "NDXP gateway development CA");
    let ca = Issuer::new(ca, KeyPair::from_pem(&pem).unwrap());
    let san = |name: &String| match name.contains(':') {
        true => SanType::URI(name.as_str().try_into().unwrap()),
        false => SanType::DnsName(name.as_str().try_into().unwrap()),
    };
    let mut params = CertificateParams::default();
    params.subject_alt_names = names.iter().map(san).collect();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.not_before = (SystemTime::now() - Duration::from_secs(300)).into();
    params.not_after = (SystemTime::now() + Duration::from_secs(86_400)).into();
    let pair = KeyPair::generate().unwrap();
    let place = files(&stage.folder, file);
    std::fs::write(&place.certificate, params.signed_by(&pair, &ca).unwrap().pem()).unwrap();
    std::fs::write(&place.key, pair.serialize_pem()).unwrap();
    place
}

fn person(stage: &Stage, file: &str, names: &[String]) -> Person {
    Person { caller: Caller::new(&stage.base(), &certificate(stage, file, names)).unwrap() }
}

fn register(stage: &Stage, id: &str, roles: &[Role]) {
    stage.store.add_staff(&Staff { id: id.into(), roles: roles.to_vec(), names: vec![staff_uri(id)] }).unwrap();
}

fn named(id: &str, names: &[&str]) -> Client {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    Client { id: id.into(), agency: "H49.12".into(), names, created: 1, ..Client::default() }
}

#[test]
fn t2_a_certificate_name_has_one_holder_however_it_is_spelled() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("registry.sqlite")).unwrap();
    store.add_client(&named("shop", &["Shop.Example.vn.", "spiffe://A.vn/client/shop"])).unwrap();
    assert_eq!(store.client("shop").unwrap().names, ["shop.example.vn", "spiffe://a.vn/client/shop"]);
    let taken = |result: Result<(), RegistryError>, whose: &str| match result {
        Err(RegistryError::NameTaken { holder, .. }) => assert_eq!(holder, whose),
        other => panic!("{other:?}"),
    };
    for name in ["shop.example.vn", "SHOP.example.VN", "shop.example.vn.", "SPIFFE://a.VN/client/shop"] {
        taken(store.add_client(&named("other", &["other.vn", name])), "client:shop");
        let staff = Staff { id: "x".into(), roles: vec![Role::Approver], names: vec![name.into()] };
        taken(store.add_staff(&staff), "client:shop");
    }
    // What was refused has left nothing behind; a path is another in other letters, and a free name may be had.
    store.add_client(&named("other", &["other.vn", "spiffe://a.vn/client/SHOP"])).unwrap();
    store.add_staff(&Staff { id: "x".into(), roles: vec![Role::Approver], names: vec!["x.vn".into()] }).unwrap();
    taken(store.change_client(&named("other", &["x.vn"])), "staff:x");
    assert_eq!(store.client("other").unwrap().names, ["other.vn", "spiffe://a.vn/client/SHOP"]);
    // Who changes names gives the old ones up; who is retired keeps them, so that nobody can pass for it.
    store.change_client(&named("shop", &["new.vn"])).unwrap();
    store.change_client(&named("other", &["shop.example.vn"])).unwrap();
    store.retire_client("other").unwrap();
    taken(store.change_client(&named("shop", &["shop.example.vn"])), "client:other");
}

#[test]
fn t2_writers_that_race_for_a_name_from_two_connections_leave_it_one_holder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.sqlite");
    SqliteStore::open(&path).unwrap();
    let won: Vec<u32> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let path = &path;
                scope.spawn(move || {
                    // A connection of its own, as another process has it.
                    let store = SqliteStore::open(path).unwrap();
                    let mut won = 0;
                    for number in 0..20 {
                        let (id, name) = (format!("c{writer}-{number}"), format!("name-{number}.vn"));
                        match store.add_client(&named(&id, &[&name])) {
                            Ok(()) => won += 1,
                            Err(RegistryError::NameTaken { .. }) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                    won
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    assert_eq!(won.iter().sum::<u32>(), 20, "{won:?}");
    let clients = SqliteStore::open(&path).unwrap().clients(Page::ALL).unwrap();
    let names: std::collections::HashSet<_> = clients.iter().map(|client| client.names[0].clone()).collect();
    assert_eq!((clients.len(), names.len()), (20, 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn t3_a_certificate_of_several_identities_is_nobody_and_one_of_a_person_calls_nothing() {
    let stage = Stage::start();
    let clerk = stage.system("clerk");
    stage.client("gone");
    stage.store.retire_client("gone").unwrap();
    register(&stage, "lan", &[Role::Administrator, Role::Auditor]);
    stage.settle();
    let ask = json!({ "unitCode": "1057000" });
    let caller = |file: &str, names: &[String]| Actor {
        caller: Caller::new(&stage.base(), &certificate(&stage, file, names)).unwrap(),
        ..clerk.clone()
    };
    let list = || api::ListClientsRequest::default();
    // Names that nobody holds do not count, nor does a second spelling.
    let spelled = client_uri("clerk").replace("ndxp.", "NDXP.");
    let own = caller("own", &[client_uri("clerk"), spelled, "host-7.example".into()]);
    assert_eq!(own.call(UNIT, ask.clone()).await.reason(), "TOKEN_NOT_BOUND_TO_CERTIFICATE", "it is the clerk's");
    for (number, other) in [staff_uri("lan"), client_uri("gone")].into_iter().enumerate() {
        let (file, names) = (format!("both-{number}"), [client_uri("clerk"), other]);
        let told = caller(&file, &names).call(UNIT, ask.clone()).await;
        assert_eq!(told.reason(), "CERTIFICATE_AMBIGUOUS");
        assert_eq!(stage.entry(&told.exchange()).entry.reason, "CERTIFICATE_AMBIGUOUS");
        let refused = person(&stage, &file, &names).ask::<api::ListClientsResponse>("ListClients", list()).await;
        assert!(refused.unwrap_err().starts_with("CERTIFICATE_AMBIGUOUS"));
    }
    // A person's certificate administers and calls nothing; a client's calls and administers nothing.
    let names = [staff_uri("lan")];
    let lan = person(&stage, "lan", &names);
    assert_eq!(lan.ask::<api::ListClientsResponse>("ListClients", list()).await.unwrap().clients.len(), 2);
    assert_eq!(caller("lan", &names).call(UNIT, ask.clone()).await.reason(), "CLIENT_UNKNOWN");
    let refused = Person { caller: clerk.caller.clone() }.ask::<api::ListClientsResponse>("ListClients", list()).await;
    assert!(refused.unwrap_err().starts_with("STAFF_UNKNOWN"));
    clerk.call(UNIT, ask).await.ok();
    stage.verify();
}

#[test]
fn t2_another_process_cannot_take_a_name_either() {
    let (_dir, folder) = support::lay(&|_| {});
    let config = ndxp_gateway::config::Config::load(&folder.gateway_config()).map_err(support::show).unwrap();
    let store = SqliteStore::open(&registry_path(&config.data)).unwrap();
    store.add_client(&named("shop", &["shop.vn"])).unwrap();
    let run = |id: &str, name: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ndxp-gateway"));
        command.args(["client", "add", id, "--agency", "H49.12", "--name", name, "--config"]);
        let done = command.arg(folder.gateway_config()).env("NDXP_LOG", "warn").output().unwrap();
        (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let (passed, told) = run("other", "SHOP.vn.");
    assert!(!passed && told.contains("client:shop"), "{told}");
    assert!(run("other", "other.vn").0);
    assert!(matches!(store.add_client(&named("third", &["other.vn"])), Err(RegistryError::NameTaken { .. })));
}
