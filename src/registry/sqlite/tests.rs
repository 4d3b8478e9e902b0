//! The store, as the gateway and the command line use it concurrently.

use super::super::{AdminEvent, Digest, Role, Snapshot};
use super::*;

#[test]
fn changes_of_another_process_are_noticed_and_constraints_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.sqlite");
    let (gateway, cli) = (SqliteStore::open(&path).unwrap(), SqliteStore::open(&path).unwrap());
    let before = gateway.revision().unwrap();
    let client = client("one-stop-shop");
    cli.add_client(&client).unwrap();
    assert_ne!(gateway.revision().unwrap(), before);
    assert_eq!(*gateway.clients(Page::ALL).unwrap(), *std::slice::from_ref(&client));
    assert!(matches!(cli.add_client(&client), Err(RegistryError::Exists(..))));
    let other = Client { id: "other".into(), ..client.clone() };
    assert!(matches!(cli.add_client(&other), Err(RegistryError::NameTaken { .. })));
    assert!(matches!(cli.revoke_token("x"), Err(RegistryError::Unknown("token", _))));
    let lan = Actor::Local { uid: 7, user: "lan".into() };
    // A change that was made is recorded with its event; a change that failed is not.
    cli.acting_as(lan.clone()).suspend_client("one-stop-shop", true).unwrap();
    let admin_events = gateway.admin_events().unwrap();
    let noted: Vec<(&str, &str)> =
        admin_events.iter().map(|event| (event.actor.as_str(), event.event.as_str())).collect();
    assert_eq!(noted, [(Actor::local().to_string().as_str(), "client.add"), ("local:lan(7)", "client.suspend")]);
    admin_events.iter().for_each(|event| gateway.forget_event(&event.id).unwrap());
    assert!(cli.admin_events().unwrap().is_empty());
}

/// A person with a certificate of their own.
fn staff(id: &str) -> Actor {
    let digest = |salt: &str| {
        let mut bytes = [0; 32];
        bytes[..id.len()].copy_from_slice(id.as_bytes());
        bytes[31] = salt.len() as u8;
        Digest(bytes)
    };
    let names = vec![format!("{id}.example")];
    Actor::Staff { id: id.into(), thumbprint: digest("a"), key: digest("bc"), names, address: "192.0.2.1:443".into() }
}

/// Registers lan, an administrator, and minh, an approver.
fn bootstrap(store: &SqliteStore) {
    let person = |id: &str| Staff { id: id.into(), roles: vec![], names: vec![format!("{id}.example")] };
    store.bootstrap(&person("lan"), &person("minh")).unwrap();
}

fn client(id: &str) -> Client {
    Client {
        id: id.into(),
        agency: "H49.12".into(),
        names: vec![format!("{id}.example")],
        created: 1,
        ..Client::default()
    }
}

#[test]
fn what_changed_is_followed_and_equals_what_is_read_anew() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("registry.sqlite")).unwrap();
    let grant = |id: &str, client: &str| Grant {
        id: id.into(),
        client: client.into(),
        scopes: vec!["population:read".into()],
        not_after: i64::MAX,
        ..Grant::default()
    };
    bootstrap(&store);
    let change = |client: &Client| store.change_client(client).map(drop);
    let mut followed = Snapshot::read(&store).unwrap();
    type Step<'s> = &'s dyn Fn() -> Result<(), RegistryError>;
    let steps: &[Step<'_>] = &[
        &|| store.add_client(&client("one")),
        &|| store.add_client(&client("two")),
        &|| store.add_grant(&grant("g1", "one")),
        &|| store.add_grant(&grant("g2", "one")),
        &|| store.add_grant(&Grant { needs_approval: true, ..grant("g3", "two") }),
        &|| store.acting_as(staff("minh")).approve_grant("g3"),
        &|| change(&Client { names: vec!["new.example".into()], ..client("one") }),
        &|| store.suspend_client("two", true),
        &|| store.withdraw_grant("g1"),
        &|| store.revoke_client_tokens("one").map(drop),
        &|| store.retire_client("two"),
    ];
    let contents = |snapshot: &Snapshot| {
        let one = |id: &str| {
            snapshot.client(id).map(|view| {
                let grants: Vec<&str> = view.grants.iter().map(|grant| &*grant.id).collect();
                format!("{:?} {grants:?}", view.client)
            })
        };
        let named = |name: &str| snapshot.client_of(&[name.to_owned()]).map(|view| view.client.id.clone());
        (one("one"), one("two"), named("one.example"), named("new.example"), named("two.example"))
    };
    for (number, step) in steps.iter().enumerate() {
        step().unwrap();
        followed = followed.follow(&store).unwrap().unwrap();
        assert!(followed.follow(&store).unwrap().is_none());
        assert_eq!(contents(&followed), contents(&Snapshot::read(&store).unwrap()), "step {number}");
    }
    let (one, two, old, new, _) = contents(&followed);
    assert!(one.unwrap().ends_with("[\"g2\"]") && two.is_none() && old.is_none() && new.as_deref() == Some("one"));
    assert!(matches!(store.add_grant(&grant("g4", "two")), Err(RegistryError::Unknown("client", _))));
    let again = Client { id: "three".into(), ..client("two") };
    assert!(matches!(store.add_client(&again), Err(RegistryError::NameTaken { .. })), "a retired client's name");
}

#[test]
fn a_name_that_passed_from_one_client_to_another_is_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("registry.sqlite")).unwrap();
    // Both changes are followed at once, in whichever order the map returns them.
    for number in 0..16 {
        let (old, new) = (client(&format!("old-{number}")), client(&format!("new-{number}")));
        store.add_client(&old).unwrap();
        store.add_client(&new).unwrap();
        let before = Snapshot::read(&store).unwrap();
        let name = old.names[0].clone();
        store.change_client(&Client { names: vec![format!("other-{number}.example")], ..old }).unwrap();
        store.change_client(&Client { names: vec![name.clone()], ..new.clone() }).unwrap();
        let after = before.follow(&store).unwrap().unwrap();
        assert_eq!(after.client_of(&[name]).unwrap().client.id, new.id);
    }
}

#[test]
fn who_is_too_far_behind_learns_of_retired_clients_too() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("registry.sqlite")).unwrap();
    store.add_client(&client("one")).unwrap();
    let before = Snapshot::read(&store).unwrap();
    store.retire_client("one").unwrap();
    let far = "INSERT INTO changes (seq, kind, id) VALUES (?1, 'staff', '')";
    store.connection().execute(far, [2 * REMEMBERED]).unwrap();
    assert!(before.follow(&store).unwrap().unwrap().client("one").is_none());
}

/// Every record after the events, by object.
fn replayed(admin_events: &[AdminEvent]) -> std::collections::BTreeMap<String, String> {
    let mut records = std::collections::BTreeMap::new();
    for change in admin_events.iter().flat_map(|event| &event.changes) {
        let before = records.remove(&change.object).unwrap_or_else(|| "null".to_owned());
        assert_eq!(before, change.before, "{}", change.object);
        if change.after != "null" {
            records.insert(change.object.clone(), change.after.clone());
        }
    }
    records
}

#[test]
fn t4_the_registry_can_be_recomputed_from_its_acts() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("registry.sqlite")).unwrap().acting_as(staff("lan"));
    let grant = |id: &str, client: &str, needs_approval| Grant {
        id: id.into(),
        client: client.into(),
        scopes: vec!["population:read".into()],
        networks: vec![super::super::Network::parse("10.0.0.0/8").unwrap()],
        not_after: i64::MAX,
        needs_approval,
        ..Grant::default()
    };
    let key = |kid: &str| SigningKey {
        kid: kid.into(),
        algorithm: "ES256".into(),
        public_pem: "pem".into(),
        created: 1,
        signs_from: 0,
        trusted_until: 0,
    };
    let token = TokenRecord { id: "t-1".into(), client: "one".into(), expires: i64::MAX, ..TokenRecord::default() };
    bootstrap(&store);
    for id in ["one", "two"] {
        store.add_client(&client(id)).unwrap();
    }
    store.change_client(&Client { names: vec!["New.example".into()], contact: "a".into(), ..client("one") }).unwrap();
    store.suspend_client("one", true).unwrap();
    store.suspend_client("one", false).unwrap();
    for number in 0..300 {
        store.add_grant(&grant(&format!("g-{number}"), "two", false)).unwrap();
    }
    store.add_grant(&grant("g-x", "one", true)).unwrap();
    // Pending, approved, rejected: changes too.
    let minh = store.acting_as(staff("minh"));
    let names = Client { names: vec!["newer.example".into()], ..store.client("one").unwrap() };
    for rejected in [true, false] {
        let ChangeOutcome::PendingApproval(waits) = store.change_client(&names).unwrap() else {
            panic!("a name does not wait")
        };
        if rejected {
            minh.reject_change(&waits.id).unwrap()
        } else {
            minh.approve_change(&waits.id).unwrap()
        };
    }
    let wider = Grant { rate: 7, ..store.grant("g-x").unwrap() };
    let ChangeOutcome::PendingApproval(waits) = store.change_grant(&wider).unwrap() else {
        panic!("a rate does not wait")
    };
    minh.approve_change(&waits.id).unwrap();
    let person = Staff { id: "hoa".into(), roles: vec![Role::Auditor], names: vec!["hoa.example".into()] };
    minh.approve_change(&store.add_staff(&person).unwrap().id).unwrap();
    let more = Staff { roles: vec![Role::Auditor, Role::Operator], ..person.clone() };
    let ChangeOutcome::PendingApproval(waits) = store.change_staff(&more).unwrap() else {
        panic!("a role does not wait")
    };
    minh.approve_change(&waits.id).unwrap();
    store.change_staff(&person).unwrap();
    let left = Staff { id: "gone".into(), names: vec!["gone.example".into()], ..person.clone() };
    minh.approve_change(&store.add_staff(&left).unwrap().id).unwrap();
    store.remove_staff("gone").unwrap();
    store.add_staff(&Staff { id: "later".into(), names: vec!["later.example".into()], ..person }).unwrap();
    store.acting_as(staff("minh")).because("Công văn 7").unwrap().approve_grant("g-x").unwrap();
    store.withdraw_grant("g-7").unwrap();
    store.add_key(&key("k-1"), 0).unwrap();
    store.add_key(&key("k-2"), 99).unwrap();
    store.retire_key("k-1").unwrap();
    store.add_token(&token).unwrap();
    store.revoke_token("t-1").unwrap();
    store.revoke_client_tokens("one").unwrap();
    store.retire_client("two").unwrap();
    let mut admin_events = Vec::new();
    loop {
        let some = store.admin_events().unwrap();
        some.iter().for_each(|event| store.forget_event(&event.id).unwrap());
        if some.is_empty() {
            break;
        }
        admin_events.extend(some);
    }
    let records = replayed(&admin_events);
    let canonical = |value: serde_json::Value| crate::registry::admin_event::canonical_json(&value);
    let mut expected = std::collections::BTreeMap::new();
    for client in store.clients(Page::ALL).unwrap() {
        expected.insert(format!("client:{}", client.id), canonical(serde_json::to_value(&client).unwrap()));
    }
    for grant in store.grants(None, Page::ALL).unwrap() {
        expected.insert(format!("grant:{}", grant.id), canonical(serde_json::to_value(&grant).unwrap()));
    }
    for key in store.keys().unwrap() {
        expected.insert(format!("key:{}", key.kid), canonical(serde_json::to_value(&key).unwrap()));
    }
    for person in store.staff().unwrap() {
        expected.insert(format!("staff:{}", person.id), canonical(serde_json::to_value(&person).unwrap()));
    }
    for pending in store.pending_changes("", 9).unwrap() {
        expected.insert(format!("change:{}", pending.id), canonical(serde_json::to_value(&pending).unwrap()));
    }
    expected.insert("token:t-1".into(), canonical(serde_json::to_value(store.token("t-1").unwrap()).unwrap()));
    assert_eq!(records, expected);
    // Actor, certificate, address, approver, justification; and no event larger than an entry.
    let approved = admin_events.iter().find(|event| event.event == "grant.approve").unwrap();
    assert_eq!((approved.actor.as_str(), approved.approved_by.as_str()), ("staff:minh", "staff:minh"));
    assert_eq!((approved.address.as_str(), approved.justification.as_str()), ("192.0.2.1:443", "Công văn 7"));
    assert_eq!(approved.certificate, staff("minh").thumbprint());
    assert!(
        admin_events.iter().filter(|event| event.event == "client.retire").count() > 1,
        "301 changes are several entries"
    );
    let size = |event: &AdminEvent| event.changes.iter().map(|one| one.before.len() + one.after.len()).sum::<usize>();
    assert!(admin_events.iter().all(|event| size(event) < 48_000));
}

#[test]
fn a_change_that_was_removed_or_a_file_that_went_back_is_read_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("registry.sqlite")).unwrap();
    ["one", "two"].iter().for_each(|id| store.add_client(&client(id)).unwrap());
    let suspended = |followed: &Snapshot, id: &str| followed.client(id).unwrap().client.suspended;
    let edit = |sql: &str| assert!(store.connection().execute(sql, []).unwrap() > 0, "{sql}");
    // The last change, and one among others.
    let mut followed = Snapshot::read(&store).unwrap();
    store.suspend_client("one", true).unwrap();
    edit("DELETE FROM changes WHERE seq = (SELECT MAX(seq) FROM changes)");
    followed = followed.follow(&store).unwrap().unwrap();
    assert!(suspended(&followed, "one") && !suspended(&followed, "two"));
    store.suspend_client("two", true).unwrap();
    store.suspend_client("one", false).unwrap();
    edit("DELETE FROM changes WHERE seq = (SELECT MAX(seq) - 1 FROM changes)");
    followed = followed.follow(&store).unwrap().unwrap();
    assert!(!suspended(&followed, "one") && suspended(&followed, "two"));
    // An older file that is put back counts fewer changes.
    edit("UPDATE clients SET suspended = 0 WHERE id = 'two'");
    edit("DELETE FROM changes");
    edit("UPDATE sqlite_sequence SET seq = 1 WHERE name = 'changes'");
    followed = followed.follow(&store).unwrap().unwrap();
    assert!(!suspended(&followed, "two"));
    assert!(followed.follow(&store).unwrap().is_none(), "nothing changed");
    // Existing changes are followed one by one.
    store.suspend_client("two", true).unwrap();
    edit("UPDATE clients SET suspended = 1 WHERE id = 'one'");
    let next = followed.follow(&store).unwrap().unwrap();
    assert!(suspended(&next, "two") && !suspended(&next, "one"));
}
