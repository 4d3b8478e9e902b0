//! Holders of rights: one person or system, through certificate names that belong to nobody else; nobody can grant a right to
//! themselves.

mod approvals;

use crate::support::{Actor, Stage, UNIT, files};
use ndxp_gateway::admin::api;
use ndxp_gateway::caller::{CallerFiles, GatewayClient};
use ndxp_gateway::pki::{client_uri, staff_uri};
use ndxp_gateway::registry::sqlite::SqliteStore;
use ndxp_gateway::registry::{
    Actor as RegistryActor, ChangeOutcome, Client, Digest, Grant, Page, RegistryError, Role, Staff, Store, now,
};
use ndxp_gateway::server::registry_path;
use prost::Message;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, SanType};
use serde_json::json;
use std::time::{Duration, Instant, SystemTime};

/// Somebody who works through `ndxp.admin.v1` with a certificate of their own.
struct Person {
    caller: GatewayClient,
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
    Person { caller: GatewayClient::new(&stage.base(), &certificate(stage, file, names)).unwrap() }
}

/// Registers lan, who administers, and minh, who approves; both with certificates.
fn appoint(stage: &Stage) -> (Person, Person) {
    stage.store.bootstrap(&staff("lan", &[]), &staff("minh", &[])).unwrap();
    stage.settle();
    (person(stage, "lan", &[staff_uri("lan")]), person(stage, "minh", &[staff_uri("minh")]))
}

fn staff(id: &str, roles: &[Role]) -> Staff {
    Staff { id: id.into(), roles: roles.to_vec(), names: vec![staff_uri(id)] }
}

/// A person with a certificate that nobody else has, as the store sees them.
fn actor(id: &str) -> RegistryActor {
    let mut bytes = [7; 32];
    bytes[..id.len()].copy_from_slice(id.as_bytes());
    let (thumbprint, key) = (Digest(bytes), Digest(bytes.map(|byte| byte ^ 1)));
    RegistryActor::Staff { id: id.into(), thumbprint, key, names: vec![staff_uri(id)], address: "192.0.2.1:1".into() }
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
        Err(RegistryError::NameTaken { owner, .. }) => assert_eq!(owner, whose),
        other => panic!("{other:?}"),
    };
    let super_staff = staff("y", &[]);
    for name in ["shop.example.vn", "SHOP.example.VN", "shop.example.vn.", "SPIFFE://a.VN/client/shop"] {
        taken(store.add_client(&named("other", &["other.vn", name])), "client:shop");
        let staff = Staff { id: "x".into(), roles: vec![Role::Approver], names: vec![name.into()] };
        taken(store.add_staff(&staff).map(drop), "client:shop");
        taken(store.bootstrap(&staff, &super_staff), "client:shop");
    }
    // What was refused has left nothing behind; a path is another in other letters, and a free name may be had.
    store.add_client(&named("other", &["other.vn", "spiffe://a.vn/client/SHOP"])).unwrap();
    let x = Staff { id: "x".into(), roles: vec![], names: vec!["x.vn".into()] };
    store.bootstrap(&x, &super_staff).unwrap();
    taken(store.change_client(&named("other", &["x.vn"])).map(drop), "staff:x");
    assert_eq!(store.client("other").unwrap().names, ["other.vn", "spiffe://a.vn/client/SHOP"]);
    // Who changes names gives the old ones up; who is retired keeps them, so that nobody can pass for it.
    store.change_client(&named("shop", &["new.vn"])).unwrap();
    store.change_client(&named("other", &["shop.example.vn"])).unwrap();
    store.retire_client("other").unwrap();
    taken(store.change_client(&named("shop", &["shop.example.vn"])).map(drop), "client:other");
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
async fn t3_a_certificate_with_several_identities_is_refused_and_a_person_s_cannot_call() {
    let stage = Stage::start();
    let clerk = stage.system("clerk");
    stage.client("gone");
    stage.store.retire_client("gone").unwrap();
    let (lan, _) = appoint(&stage);
    let ask = json!({ "unitCode": "1057000" });
    let caller = |file: &str, names: &[String]| Actor {
        caller: GatewayClient::new(&stage.base(), &certificate(&stage, file, names)).unwrap(),
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
        // T8: nor is a token issued that no call could use.
        let pem = std::fs::read_to_string(files(&stage.folder, &file).certificate).unwrap();
        let hand =
            api::IssueTokenRequest { client: "clerk".into(), certificate: pem, lifetime_s: 60, ..Default::default() };
        let refused = lan.ask::<api::IssueTokenResponse>("IssueToken", hand).await.err().unwrap();
        let why = ["nobody issues a token for their own certificate", "it names client:gone, too"][number];
        assert!(refused.contains(why), "{refused}");
    }
    // A person's certificate administers and calls nothing; a client's calls and administers nothing.
    assert_eq!(lan.ask::<api::ListClientsResponse>("ListClients", list()).await.unwrap().clients.len(), 2);
    assert_eq!(
        Actor { caller: lan.caller.clone(), ..clerk.clone() }.call(UNIT, ask.clone()).await.reason(),
        "CLIENT_UNKNOWN"
    );
    let refused = Person { caller: clerk.caller.clone() }.ask::<api::ListClientsResponse>("ListClients", list()).await;
    assert!(refused.unwrap_err().starts_with("STAFF_UNKNOWN"));
    clerk.call(UNIT, ask).await.ok();
    stage.verify();
}

#[test]
fn t2_another_process_cannot_take_a_name_either() {
    let (_dir, folder) = crate::support::lay(&|_| {});
    let config = ndxp_gateway::config::Config::load(&folder.gateway_config()).map_err(crate::support::show).unwrap();
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

fn waits(outcome: ChangeOutcome) -> String {
    match outcome {
        ChangeOutcome::PendingApproval(pending) => pending.id,
        ChangeOutcome::Done => panic!("it was made at once"),
    }
}

/// A grant that needs a second person.
fn sensitive(client: &str) -> api::AddGrantRequest {
    api::AddGrantRequest {
        client: client.into(),
        scopes: vec!["civilstatus:record".into()],
        purposes: vec!["*".into()],
        fields: vec!["*".into()],
        legal_basis: "test".into(),
        ..Default::default()
    }
}

fn id(id: &str) -> api::ApproveChangeRequest {
    api::ApproveChangeRequest { id: id.into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn t2_one_administrator_with_one_certificate_cannot_be_the_second_person() {
    let stage = Stage::start();
    let (lan, minh) = appoint(&stage);
    stage.client("shop");
    // The attack: staff x, an approver, with lan's own name. A name has one holder.
    let approver = api::Role::Approver.into();
    let x = |names: &[String]| api::AddStaffRequest { id: "x".into(), roles: vec![approver], names: names.to_vec() };
    let refused = lan.ask::<api::Staff>("AddStaff", x(&[staff_uri("lan")])).await.unwrap_err();
    assert!(refused.contains("OBJECT_EXISTS") && refused.contains("staff:lan"), "{refused}");
    // With a name that is free, x waits; and lan approves neither that nor the own grant.
    let asked: api::Staff = lan.ask("AddStaff", x(&[])).await.unwrap();
    assert!(asked.pending_change.starts_with("c-"), "{asked:?}");
    let more = api::ChangeStaffRequest { id: "lan".into(), roles: vec![1, 2], names: vec![] };
    let own: api::Staff = lan.ask("ChangeStaff", more).await.unwrap();
    assert_eq!((own.roles.len(), own.pending_change.is_empty()), (1, false), "a role waits");
    let grant: api::Grant = lan.ask("AddGrant", sensitive("shop")).await.unwrap();
    for change in [&asked.pending_change, &own.pending_change, &grant.id] {
        let refused = lan.ask::<api::ApproveChangeResponse>("ApproveChange", id(change)).await.unwrap_err();
        assert!(refused.starts_with("ROLE_MISSING"), "{refused}");
    }
    // The approver sees the whole change: what, who asked, with which certificate, from where.
    let listed: api::ListPendingChangesResponse =
        minh.ask("ListPendingChanges", api::ListPendingChangesRequest::default()).await.unwrap();
    assert_eq!(listed.changes.len(), 3);
    let seen = &listed.changes[0];
    assert_eq!((seen.event.as_str(), seen.object.as_str(), seen.before.as_str()), ("staff.add", "staff:x", "null"));
    assert!(seen.after.contains(&staff_uri("x")) && seen.requested_by == "staff:lan", "{seen:?}");
    assert!(seen.requester_certificate.len() == 64 && seen.requester_address.starts_with("127.0.0.1:"), "{seen:?}");
    assert_eq!(listed.changes[2].client.as_ref().unwrap().names, [client_uri("shop")]);
    // Both roles at last, approved by minh: still nobody approves what they asked for, with a new certificate neither.
    minh.ask::<api::ApproveChangeResponse>("ApproveChange", id(&own.pending_change)).await.unwrap();
    stage.settle();
    let renewed = person(&stage, "lan-renewed", &[staff_uri("lan")]);
    for lan in [&lan, &renewed] {
        for change in [&asked.pending_change, &grant.id] {
            let refused = lan.ask::<api::ApproveChangeResponse>("ApproveChange", id(change)).await.unwrap_err();
            assert!(refused.contains("another person"), "{refused}");
        }
    }
    // The opposite: another person approves, with a renewed certificate too.
    let renewed = person(&stage, "minh-renewed", &[staff_uri("minh")]);
    renewed.ask::<api::ApproveChangeResponse>("ApproveChange", id(&grant.id)).await.unwrap();
    minh.ask::<api::ApproveChangeResponse>("ApproveChange", id(&asked.pending_change)).await.unwrap();
    let people: api::ListStaffResponse = lan.ask("ListStaff", api::ListStaffRequest {}).await.unwrap();
    assert_eq!(people.staff.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["lan", "minh", "x"]);
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn t3_who_holds_a_clients_names_is_part_of_what_was_approved() {
    let stage = Stage::start();
    let (lan, minh) = appoint(&stage);
    let names = |id: &str, names: &[String]| api::ChangeClientRequest {
        id: id.into(),
        names: names.to_vec(),
        ..Default::default()
    };
    for client in ["approved", "pending", "plain", "retired"] {
        stage.client(client);
    }
    let grant: api::Grant = lan.ask("AddGrant", sensitive("approved")).await.unwrap();
    minh.ask::<api::Grant>("ApproveGrant", api::GrantId { id: grant.id }).await.unwrap();
    lan.ask::<api::Grant>("AddGrant", sensitive("pending")).await.unwrap();
    stage.store.retire_client("retired").unwrap();
    // The attack: the own name into a client; and the name of one that is retired.
    for client in ["approved", "pending", "plain"] {
        for (name, holder) in [(staff_uri("lan"), "staff:lan"), (client_uri("retired"), "client:retired")] {
            let told = lan.ask::<api::Client>("ChangeClient", names(client, &[name])).await.unwrap_err();
            assert!(told.contains(holder), "{told}");
        }
    }
    // A certificate that nobody knows yet, into a client with a sensitive grant, approved or pending: it waits.
    let mine = "laptop.lan.vn".to_owned();
    for client in ["approved", "pending"] {
        let all = [client_uri(client), format!("{client}.{mine}")];
        let told: api::Client = lan.ask("ChangeClient", names(client, &all)).await.unwrap();
        assert_eq!((told.names, told.pending_change.is_empty()), (vec![client_uri(client)], false));
        let refused = lan.ask::<api::ApproveChangeResponse>("ApproveChange", id(&told.pending_change)).await;
        assert!(refused.unwrap_err().starts_with("ROLE_MISSING"));
        minh.ask::<api::ApproveChangeResponse>("ApproveChange", id(&told.pending_change)).await.unwrap();
        assert_eq!(stage.store.client(client).unwrap().names, all);
        // What is taken away is taken at once, and what is no name too.
        let told: api::Client = lan.ask("ChangeClient", names(client, &all[..1])).await.unwrap();
        assert_eq!((told.names.as_slice(), told.pending_change.as_str()), (&all[..1], ""));
        let contact = api::ChangeClientRequest { id: client.into(), contact: "0203".into(), ..Default::default() };
        assert_eq!(lan.ask::<api::Client>("ChangeClient", contact).await.unwrap().contact, "0203");
    }
    // A client without sensitive grants changes at once.
    let told: api::Client = lan.ask("ChangeClient", names("plain", std::slice::from_ref(&mine))).await.unwrap();
    assert_eq!((told.names, told.pending_change.as_str()), (vec![mine], ""));
    // Nobody issues a token for their own certificate.
    let certificate = std::fs::read_to_string(files(&stage.folder, "lan").certificate).unwrap();
    let issue = api::IssueTokenRequest { client: "approved".into(), certificate, ..Default::default() };
    assert!(lan.ask::<api::IssueTokenResponse>("IssueToken", issue).await.is_err());
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn t3_who_holds_the_names_is_fixed_while_an_ordinary_grant_waits_to_become_sensitive() {
    let stage = Stage::start();
    let (lan, minh) = appoint(&stage);
    stage.client("shop");
    let ordinary =
        api::AddGrantRequest { scopes: vec!["budgetunit:read".into()], purposes: Vec::new(), ..sensitive("shop") };
    let grant: api::Grant = lan.ask("AddGrant", ordinary).await.unwrap();
    assert!(!grant.needs_approval);
    let change = |name: &str| api::ChangeClientRequest {
        id: "shop".into(),
        names: vec![client_uri("shop"), name.into()],
        ..Default::default()
    };
    // Before anything waits, a name is changed at once: the approver will see it.
    let told: api::Client = lan.ask("ChangeClient", change("one.shop.vn")).await.unwrap();
    assert!(told.pending_change.is_empty());
    let wider = sensitive("shop");
    let wider = api::ChangeGrantRequest {
        id: grant.id,
        scopes: wider.scopes,
        purposes: wider.purposes,
        fields: wider.fields,
        ..Default::default()
    };
    let told: api::Grant = lan.ask("ChangeGrant", wider).await.unwrap();
    assert!(!told.pending_change.is_empty());
    // Now it is part of what is looked at.
    let told: api::Client = lan.ask("ChangeClient", change("laptop.lan.vn")).await.unwrap();
    assert!(!told.pending_change.is_empty());
    assert_eq!(told.names, [client_uri("shop"), "one.shop.vn".to_owned()]);
    let agency = api::ChangeClientRequest { id: "shop".into(), agency: "H49.13".into(), ..Default::default() };
    let told: api::Client = lan.ask("ChangeClient", agency).await.unwrap();
    assert_eq!((told.agency.as_str(), told.pending_change.is_empty()), ("H49.12", false), "nor another agency");
    minh.ask::<api::ApproveChangeResponse>("ApproveChange", id(&told.pending_change)).await.unwrap();
    assert_eq!(stage.store.client("shop").unwrap().agency, "H49.13");
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn t3_a_grant_whose_networks_cannot_be_read_is_not_in_force() {
    let stage = Stage::start();
    let clerk = stage.system("clerk");
    let ask = json!({ "unitCode": "1057000" });
    clerk.call(UNIT, ask.clone()).await.ok();
    let file = rusqlite::Connection::open(stage.data().join("registry.sqlite")).unwrap();
    for networks in ["x", "[\"10.0.0.0/8 \"]", "[]x"] {
        file.execute("UPDATE grants SET networks = ?1", [networks]).unwrap();
        file.execute("INSERT INTO changes (kind, id) VALUES ('client', 'clerk')", []).unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while clerk.call(UNIT, ask.clone()).await.reason() != "SCOPE_NOT_GRANTED" {
            assert!(Instant::now() < end, "{networks} means every network");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        file.execute("UPDATE grants SET networks = '[]'", []).unwrap();
        file.execute("INSERT INTO changes (kind, id) VALUES ('client', 'clerk')", []).unwrap();
        while clerk.call(UNIT, ask.clone()).await.reason() != "" {
            assert!(Instant::now() < end, "it does not come back");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t3_a_wider_grant_waits_and_a_narrower_one_does_not() {
    let stage = Stage::start();
    let (lan, minh) = appoint(&stage);
    stage.client("shop");
    let grant: api::Grant = lan.ask("AddGrant", sensitive("shop")).await.unwrap();
    let grant: api::Grant = minh.ask("ApproveGrant", api::GrantId { id: grant.id }).await.unwrap();
    let change = || api::ChangeGrantRequest { id: grant.id.clone(), ..Default::default() };
    let networks = api::ChangeGrantRequest { networks: vec!["10.0.0.0/8".into()], ..change() };
    let told: api::Grant = lan.ask("ChangeGrant", networks).await.unwrap();
    assert_eq!((told.networks.len(), told.pending_change.as_str(), told.approved_by.as_str()), (1, "", "staff:minh"));
    let wider = api::ChangeGrantRequest { any_network: true, rate: Some(51), ..change() };
    let told: api::Grant = lan.ask("ChangeGrant", wider.clone()).await.unwrap();
    assert!(told.networks.len() == 1 && told.rate == 50 && !told.pending_change.is_empty(), "{told:?}");
    minh.ask::<api::ApproveChangeResponse>("ApproveChange", id(&told.pending_change)).await.unwrap();
    let told: api::Grant = lan.ask("GetGrant", api::GrantId { id: grant.id.clone() }).await.unwrap();
    assert_eq!((told.networks.len(), told.rate, told.approved_by.as_str()), (0, 51, "staff:minh"));
    // A plain grant becomes a sensitive one only so, too; as long as it is plain it changes at once.
    let plain = api::AddGrantRequest { scopes: vec!["budgetunit:read".into()], ..sensitive("shop") };
    let plain: api::Grant = lan.ask("AddGrant", plain).await.unwrap();
    let change = api::ChangeGrantRequest { id: plain.id.clone(), rate: Some(70), ..Default::default() };
    assert_eq!(lan.ask::<api::Grant>("ChangeGrant", change.clone()).await.unwrap().rate, 70);
    let more = api::ChangeGrantRequest { scopes: vec!["civilstatus:record".into()], rate: None, ..change };
    let told: api::Grant = lan.ask("ChangeGrant", more).await.unwrap();
    assert!(!told.needs_approval && !told.pending_change.is_empty(), "{told:?}");
    // Rejected: nothing is made, and nobody can approve it any more.
    let reject = api::RejectChangeRequest { id: told.pending_change.clone() };
    minh.ask::<api::RejectChangeResponse>("RejectChange", reject).await.unwrap();
    let refused = minh.ask::<api::ApproveChangeResponse>("ApproveChange", id(&told.pending_change)).await;
    assert!(refused.unwrap_err().starts_with("OBJECT_UNKNOWN"));
    // T4: the entry of the approval holds all of it.
    crate::support::until("the acts are in the log", || stage.store.admin_events().unwrap().is_empty());
    let entries = stage.entries();
    let approved = entries.iter().find(|one| one.entry.event == "change.approve").unwrap();
    let entry = &approved.entry;
    assert_eq!((entry.actor.as_str(), entry.approved_by.as_str()), ("staff:minh", "staff:minh"));
    assert!(entry.certificate.len() == 32 && entry.peer.starts_with("127.0.0.1:"));
    let objects: Vec<&str> = entry.changes.iter().map(|one| one.object.split(':').next().unwrap()).collect();
    assert_eq!(objects, ["grant", "change"]);
    assert!(entry.changes[0].before.contains("\"rate\":50") && entry.changes[0].after.contains("\"rate\":51"));
    stage.verify();
}
