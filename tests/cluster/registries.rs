//! The contract of the registry's storage ([`ndxp_gateway::registry::Store`]): the same suite over one file that two processes
//! share, and over etcd with two gateways that each have a replica. Every change is tried from both sides, and races are decided.

use crate::etcd::{EtcdCluster, LIMIT};
use crate::support::until;
use ndxp_gateway::cluster::etcd::EtcdChannel;
use ndxp_gateway::cluster::registry::{
    BlockingCommits, ClusterRegistry, IssuedTokens, RegistrySettings, import::begin_registry,
};
use ndxp_gateway::cluster::timers::RuntimeTimers;
use ndxp_gateway::cluster::{EtcdMembers, GatewayName, Incarnation};
use ndxp_gateway::registry::sqlite::{SqliteReplica, SqliteStore};
use ndxp_gateway::registry::{
    Actor, ChangeOutcome, Client, Digest, Grant, Item, Page, RegistryError, Role, SigningKey, Staff, Store,
    TokenRecord, now,
};
use std::path::Path;
use std::sync::{Arc, Barrier};
use tokio::runtime::Runtime;

/// Two sides of one registry.
type Sides = [Arc<dyn Store>; 2];

fn client(id: &str, name: &str) -> Client {
    Client { id: id.into(), agency: "H49.12".into(), names: vec![name.into()], created: 1, ..Client::default() }
}

fn grant(id: &str, client: &str) -> Grant {
    let scopes = vec!["population:read".into()];
    Grant { id: id.into(), client: client.into(), scopes, not_after: 1 << 40, needs_approval: true, ..Grant::default() }
}

fn person(id: &str, roles: &[Role]) -> Staff {
    Staff { id: id.into(), roles: roles.to_vec(), names: vec![format!("{id}.example")] }
}

/// The store in a person's name.
fn by(store: &dyn Store, id: &str) -> Box<dyn Store> {
    let digest = |salt: u8| Digest(std::array::from_fn(|at| id.as_bytes().get(at).copied().unwrap_or(salt)));
    let (names, address) = (vec![format!("{id}.example")], "192.0.2.1:443".into());
    let actor = Actor::Staff { id: id.into(), thumbprint: digest(1), key: digest(2), names, address };
    store.named(actor, "a test").unwrap()
}

/// Does the same thing at both sides at once, several times each; returns what has become of each attempt.
fn race<T: Send>(
    sides: &Sides,
    act: impl Fn(&dyn Store, usize) -> Result<T, RegistryError> + Sync,
) -> Vec<Result<T, RegistryError>> {
    const RACERS: usize = 6;
    let start = Barrier::new(RACERS);
    std::thread::scope(|scope| {
        let racer = |number: usize| {
            let (act, start) = (&act, &start);
            scope.spawn(move || {
                start.wait();
                act(&*sides[number % 2], number)
            })
        };
        let racers: Vec<_> = (0..RACERS).map(racer).collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).collect()
    })
}

/// Clients and revoked tokens, as a gateway reads them after a revision.
fn read(store: &dyn Store, after: Option<u64>) -> (Vec<String>, u64) {
    let mut found = Vec::new();
    let revision = store.read(after, &mut |item| match item {
        Item::Client(client) => found.push(client.id),
        Item::Revoked(token, _) => found.push(token),
        _ => {}
    });
    found.sort();
    (found, revision.unwrap())
}

/// What holds of every registry. It is empty before.
fn conforms(sides: &Sides) {
    let [one, other] = sides.each_ref().map(|side| &**side);
    first_people_are_two(one);
    until("the other side knows the first people", || other.staff().unwrap().len() == 2);
    names_and_ids_have_one_owner(sides);
    a_second_person_decides_once(sides);
    one_approver_stays(sides);
    changes_are_followed(one, other);
    tokens_are_recorded_and_revoked(one, other);
}

fn first_people_are_two(store: &dyn Store) {
    let (lan, minh) = (person("lan", &[]), person("minh", &[]));
    assert!(matches!(store.bootstrap(&lan, &lan), Err(RegistryError::Forbidden(_) | RegistryError::NameTaken { .. })));
    assert!(store.staff().unwrap().is_empty(), "a change that was refused leaves nothing");
    store.bootstrap(&lan, &minh).unwrap();
    assert!(matches!(store.bootstrap(&person("an", &[]), &person("binh", &[])), Err(RegistryError::Forbidden(_))));
}

fn names_and_ids_have_one_owner(sides: &Sides) {
    let ids = race(sides, |store, number| store.add_client(&client("shop", &format!("shop{number}.example"))));
    assert_eq!(ids.iter().filter(|tried| tried.is_ok()).count(), 1, "{ids:?}");
    assert!(ids.iter().flat_map(|tried| tried.as_ref().err()).all(|error| matches!(error, RegistryError::Exists(..))));
    let names = race(sides, |store, number| store.add_client(&client(&format!("c{number}"), "one.example")));
    assert_eq!(names.iter().filter(|tried| tried.is_ok()).count(), 1, "{names:?}");
    assert!(
        names
            .iter()
            .flat_map(|tried| tried.as_ref().err())
            .all(|error| matches!(error, RegistryError::NameTaken { .. }))
    );
    for side in sides {
        until("both sides know both clients", || side.clients(Page::ALL).unwrap().len() == 2);
        assert_eq!(side.owners(&["one.example".into()]).unwrap().len(), 1);
    }
    assert!(matches!(sides[1].client("nobody"), Err(RegistryError::Unknown("client", _))));
}

fn a_second_person_decides_once(sides: &Sides) {
    by(&*sides[0], "lan").add_grant(&grant("g-1", "shop")).unwrap();
    until("the other side knows the grant", || sides[1].grant("g-1").is_ok());
    for side in sides {
        let own = by(&**side, "lan").approve_grant("g-1");
        assert!(matches!(own, Err(RegistryError::Forbidden(_))), "{own:?}");
    }
    assert!(sides[0].view("shop").unwrap().grant("g-1").is_none(), "it is not in force");
    let approved = race(sides, |store, _| by(store, "minh").approve_grant("g-1"));
    assert_eq!(approved.iter().filter(|tried| tried.is_ok()).count(), 1, "{approved:?}");
    until("it is in force at both sides", || {
        sides.iter().all(|side| side.view("shop").unwrap().grant("g-1").is_some())
    });
    assert_eq!(sides[1].grant("g-1").unwrap().approved_by.as_deref(), Some("staff:minh"));
    // More rights wait again, for whoever did not want them.
    let more = Grant { scopes: vec!["population:read".into(), "population:verify".into()], ..grant("g-1", "shop") };
    let ChangeOutcome::PendingApproval(waits) = by(&*sides[1], "minh").change_grant(&more).unwrap() else {
        panic!("new rights do not wait")
    };
    until("the other side knows what waits", || sides[0].pending_changes("", 9).unwrap().len() == 1);
    assert!(matches!(by(&*sides[0], "minh").approve_change(&waits.id), Err(RegistryError::Forbidden(_))));
    by(&*sides[0], "lan").reject_change(&waits.id).unwrap_err();
    by(&*sides[0], "minh").reject_change(&waits.id).unwrap();
    until("nothing waits", || sides.iter().all(|side| side.count_pending().unwrap() == 0));
}

/// Two approvers each remove the other one, at the same time.
fn one_approver_stays(sides: &Sides) {
    let waits = by(&*sides[0], "lan").add_staff(&person("hoa", &[Role::Approver])).unwrap();
    until("the other side knows what waits", || sides[1].count_pending().unwrap() == 1);
    by(&*sides[1], "minh").approve_change(&waits.id).unwrap();
    until("there are three", || sides.iter().all(|side| side.staff().unwrap().len() == 3));
    let removed = race(sides, |store, number| {
        let (actor, gone) = if number % 2 == 0 { ("hoa", "minh") } else { ("minh", "hoa") };
        by(store, actor).remove_staff(gone)
    });
    assert_eq!(removed.iter().filter(|tried| tried.is_ok()).count(), 1, "{removed:?}");
    let approvers = |side: &Arc<dyn Store>| {
        side.staff().unwrap().iter().filter(|person| person.roles.contains(&Role::Approver)).count()
    };
    until("one is left", || sides.iter().all(|side| approvers(side) == 1));
}

fn changes_are_followed(one: &dyn Store, other: &dyn Store) {
    let (all, revision) = read(other, None);
    assert_eq!((all.len(), read(other, Some(revision)).0.len()), (2, 0));
    one.suspend_client("shop", true).unwrap();
    until("the revision grows at the other side", || other.revision().unwrap() > revision);
    assert_eq!(read(other, Some(revision)).0, ["shop"]);
    assert!(other.client("shop").unwrap().suspended);
    // What was refused changes nothing.
    let before = one.revision().unwrap();
    assert!(one.suspend_client("nobody", true).is_err() && one.withdraw_grant("g-9").is_err());
    assert!(matches!(one.named(Actor::System, &"x".repeat(10_000)).err(), Some(RegistryError::Invalid(_))));
    assert_eq!(one.revision().unwrap(), before);
    let ChangeOutcome::PendingApproval(waits) = by(one, "lan").resume_client("shop").unwrap() else {
        panic!("a client with an approved grant calls again by one person's word")
    };
    by(one, "lan").approve_change(&waits.id).unwrap_err();
    let key = |kid: &str| SigningKey {
        kid: kid.into(),
        algorithm: "ES256".into(),
        public_pem: "pem".into(),
        created: 1,
        signs_from: 1,
        trusted_until: 0,
    };
    one.add_key(&key("k-1"), 0).unwrap();
    assert!(matches!(one.add_key(&key("k-1"), 0), Err(RegistryError::Exists(..))));
    until("keys are known", || other.keys().unwrap().len() == 1);
}

fn tokens_are_recorded_and_revoked(one: &dyn Store, other: &dyn Store) {
    let expires = now() + 3600;
    let token = |id: &str| TokenRecord {
        id: id.into(),
        client: "shop".into(),
        issued: now(),
        expires,
        ..TokenRecord::default()
    };
    one.add_token(&token("t-1")).unwrap();
    one.add_tokens(&[token("t-2"), token("t-3")]).unwrap();
    let again = one.add_token(&token("t-1"));
    assert!(matches!(again, Err(RegistryError::Exists(..))), "{again:?}");
    let some = one.add_tokens(&[token("t-4"), token("t-2")]);
    assert!(matches!(some, Err(RegistryError::Exists(..))) && one.token("t-4").is_err(), "{some:?}");
    one.revoke_token("t-1").unwrap();
    assert!(matches!(one.revoke_token("t-9"), Err(RegistryError::Unknown("token", _))));
    // One whose record is not here, by its own claims.
    one.revoke_shown_token(&token("t-5")).unwrap();
    until("the other side does not accept them", || {
        let revoked = read(other, None).0;
        revoked.contains(&"t-1".to_owned()) && revoked.contains(&"t-5".to_owned())
    });
    assert!(one.revoke_client_tokens("shop").unwrap() >= 2);
    until("all are revoked at the other side", || other.client("shop").unwrap().tokens_from > 0);
}

#[test]
fn two_processes_with_one_file_keep_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registry.sqlite");
    let open = || Arc::new(SqliteStore::open(&file).unwrap()) as Arc<dyn Store>;
    conforms(&[open(), open()]);
    // Durable: whoever comes later finds it.
    let later = open();
    assert_eq!((later.clients(Page::ALL).unwrap().len(), later.keys().unwrap().len()), (2, 1));
    assert_eq!(later.staff().unwrap().len(), 2);
}

/// A gateway's side: its replica follows as long as the runtime runs.
fn gateway(etcd: &EtcdCluster, at: usize, folder: &Path, runtime: &Runtime) -> Arc<dyn Store> {
    type Registry = ClusterRegistry<EtcdChannel, RuntimeTimers, SqliteReplica>;
    let _here = runtime.enter();
    let members = Arc::new(EtcdMembers::new(etcd.access(at).channels(), RuntimeTimers::default(), None));
    let store = SqliteStore::open(&folder.join(format!("{at}/registry.sqlite"))).unwrap();
    let replica = SqliteReplica::open(&store).unwrap();
    let entry = Arc::new(|event: &ndxp_gateway::registry::AdminEvent| event.id.to_vec());
    let settings = RegistrySettings { max_age: LIMIT, ..RegistrySettings::default() };
    let registry = Arc::new(Registry::new(members.clone(), replica, entry, settings));
    let holder = Incarnation { gateway: GatewayName::parse(&format!("dc{at}")).unwrap(), number: 7 };
    let issued = Arc::new(IssuedTokens::new(members, holder));
    runtime.block_on(registry.refresh()).unwrap();
    let follows = registry.clone();
    runtime.spawn(async move { follows.run(|_| ()).await });
    let commits = BlockingCommits::new(registry, issued, runtime.handle().clone());
    Arc::new(store.replicated(Arc::new(commits)).unwrap())
}

#[test]
fn two_gateways_over_etcd_keep_the_contract() {
    let Some(etcd) = EtcdCluster::start() else { return };
    let (folder, runtime) = (tempfile::tempdir().unwrap(), Runtime::new().unwrap());
    let members = {
        let _here = runtime.enter();
        EtcdMembers::new(etcd.access(0).channels(), RuntimeTimers::default(), None)
    };
    assert!(runtime.block_on(begin_registry(&members, 0xbb, 0)).unwrap());
    conforms(&[gateway(&etcd, 0, folder.path(), &runtime), gateway(&etcd, 1, folder.path(), &runtime)]);
    // Durable: a gateway that comes later finds it.
    let later = gateway(&etcd, 2, folder.path(), &runtime);
    assert_eq!((later.clients(Page::ALL).unwrap().len(), later.keys().unwrap().len()), (2, 1));
    assert_eq!(later.staff().unwrap().len(), 2);
}
