//! The store, as the gateway and the command line use it side by side.

use super::super::Snapshot;
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
    assert_eq!(gateway.clients(Page::ALL).unwrap(), std::slice::from_ref(&client));
    assert!(matches!(cli.add_client(&client), Err(RegistryError::Exists(..))));
    let other = Client { id: "other".into(), ..client.clone() };
    assert!(matches!(cli.add_client(&other), Err(RegistryError::NameTaken { .. })));
    assert!(matches!(cli.revoke_token("x"), Err(RegistryError::Unknown("token", _))));
    // What was done is noted with it, what was not is not.
    cli.acting_as("cli:lan").suspend_client("one-stop-shop", true).unwrap();
    let acts = gateway.acts().unwrap();
    let noted: Vec<(&str, &str)> = acts.iter().map(|act| (act.actor.as_str(), act.act.as_str())).collect();
    assert_eq!(noted, [("unnamed", "client.add"), ("cli:lan", "client.suspend")]);
    acts.iter().for_each(|act| gateway.forget_act(&act.id).unwrap());
    assert!(cli.acts().unwrap().is_empty());
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
    let mut followed = Snapshot::read(&store).unwrap();
    type Step<'s> = &'s dyn Fn() -> Result<(), RegistryError>;
    let steps: &[Step<'_>] = &[
        &|| store.add_client(&client("one")),
        &|| store.add_client(&client("two")),
        &|| store.add_grant(&grant("g1", "one")),
        &|| store.add_grant(&grant("g2", "one")),
        &|| store.add_grant(&Grant { needs_approval: true, ..grant("g3", "two") }),
        &|| store.acting_as("another").approve_grant("g3"),
        &|| store.change_client(&Client { names: vec!["new.example".into()], ..client("one") }),
        &|| store.suspend_client("two", true),
        &|| store.withdraw_grant("g1"),
        &|| store.revoke_client_tokens("one").map(drop),
        &|| store.retire_client("two"),
    ];
    let told = |snapshot: &Snapshot| {
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
        assert_eq!(told(&followed), told(&Snapshot::read(&store).unwrap()), "step {number}");
    }
    let (one, two, old, new, _) = told(&followed);
    assert!(one.unwrap().ends_with("[\"g2\"]") && two.is_none() && old.is_none() && new.as_deref() == Some("one"));
    assert!(matches!(store.add_grant(&grant("g4", "two")), Err(RegistryError::Unknown("client", _))));
    let again = Client { id: "three".into(), ..client("two") };
    assert!(matches!(store.add_client(&again), Err(RegistryError::NameTaken { .. })), "a retired client's name");
}

#[test]
fn a_name_that_passed_from_one_client_to_another_is_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("registry.sqlite")).unwrap();
    // Both changes are followed at once, in whichever order they come out of the map.
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
