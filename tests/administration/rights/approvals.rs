//! What the store itself holds to: who the first two people are, who approves what, and how long a change waits.

use super::*;

/// A store with lan and minh in it, in lan's name and in minh's.
fn two_people(folder: &std::path::Path) -> (SqliteStore, SqliteStore) {
    let store = SqliteStore::open(&folder.join("registry.sqlite")).unwrap();
    store.bootstrap(&staff("lan", &[]), &staff("minh", &[])).unwrap();
    (store.acting_as(actor("lan")), store.acting_as(actor("minh")))
}

#[test]
fn t2_the_first_two_people_are_two_and_registered_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("registry.sqlite")).unwrap();
    assert!(matches!(store.bootstrap(&staff("lan", &[]), &staff("lan", &[])), Err(RegistryError::Forbidden(_))));
    let same = Staff { id: "x".into(), ..staff("lan", &[]) };
    assert!(matches!(store.bootstrap(&staff("lan", &[]), &same), Err(RegistryError::NameTaken { .. })));
    assert!(store.staff().unwrap().is_empty(), "nothing is left of what was refused");
    store.bootstrap(&staff("lan", &[Role::Approver]), &staff("minh", &[])).unwrap();
    let people = store.staff().unwrap();
    assert_eq!(people, [staff("lan", &[Role::Administrator]), staff("minh", &[Role::Approver])]);
    assert!(matches!(store.bootstrap(&staff("a", &[]), &staff("b", &[])), Err(RegistryError::Forbidden(_))));
    // The last of each stays: nothing could be given again.
    for last in ["lan", "minh"] {
        assert!(matches!(store.remove_staff(last), Err(RegistryError::Forbidden(_))), "{last}");
    }
    let less = Staff { roles: vec![Role::Auditor], ..staff("minh", &[]) };
    let (lan, minh) = (store.acting_as(actor("lan")), store.acting_as(actor("minh")));
    let waiting = waits(lan.change_staff(&less).unwrap());
    assert!(matches!(minh.approve_change(&waiting), Err(RegistryError::Forbidden(_))));
    // With another approver, minh may go; the name stays taken.
    minh.approve_change(&lan.add_staff(&staff("hoa", &[Role::Approver])).unwrap().id).unwrap();
    store.remove_staff("minh").unwrap();
    let taken = store.add_client(&named("shop", &[&staff_uri("minh")]));
    assert!(matches!(taken, Err(RegistryError::NameTaken { .. })));
}

#[test]
fn t2_only_another_person_with_a_certificate_and_the_role_approves() {
    let folder = tempfile::tempdir().unwrap();
    let (lan, minh) = two_people(folder.path());
    let asked = lan.add_staff(&staff("hoa", &[Role::Auditor])).unwrap().id;
    let RegistryActor::Staff { thumbprint, key, .. } = actor("lan") else { unreachable!() };
    let other = |thumbprint, key, names| RegistryActor::Staff {
        id: "minh".into(),
        thumbprint,
        key,
        names,
        address: "192.0.2.9:1".into(),
    };
    let zero = Digest([0; 32]);
    for same in [
        other(thumbprint, zero, vec![]),
        other(zero, key, vec![]),
        other(zero, zero, vec![staff_uri("lan")]),
        actor("lan"),
        actor("hoa"),
        RegistryActor::local(),
        RegistryActor::System,
    ] {
        let refused = lan.acting_as(same.clone()).approve_change(&asked);
        assert!(matches!(refused, Err(RegistryError::Forbidden(_))), "{same:?}");
    }
    // Locally one asks and takes back.
    let local = lan.acting_as(RegistryActor::local());
    let other = local.add_staff(&staff("dung", &[Role::Operator])).unwrap().id;
    local.reject_change(&other).unwrap();
    assert!(matches!(lan.acting_as(actor("dung")).reject_change(&asked), Err(RegistryError::Forbidden(_))));
    minh.approve_change(&asked).unwrap();
    assert_eq!(lan.staff().unwrap().len(), 3);
}

#[test]
fn t3_an_approval_is_bound_to_the_requested_state_and_counts_once() {
    let folder = tempfile::tempdir().unwrap();
    let (lan, minh) = two_people(folder.path());
    let grant = Grant {
        id: "g-1".into(),
        client: "shop".into(),
        needs_approval: true,
        not_after: i64::MAX,
        ..Grant::default()
    };
    lan.add_client(&named("shop", &["shop.vn"])).unwrap();
    lan.add_grant(&grant).unwrap();
    let asked = waits(lan.change_client(&named("shop", &["shop.vn", "new.vn"])).unwrap());
    lan.suspend_client("shop", true).unwrap();
    assert!(matches!(minh.approve_change(&asked), Err(RegistryError::Outdated)));
    lan.suspend_client("shop", false).unwrap();
    // A name that was taken meanwhile is not given twice.
    lan.add_client(&named("other", &["new.vn"])).unwrap();
    assert!(matches!(minh.approve_change(&asked), Err(RegistryError::NameTaken { .. })));
    lan.change_client(&named("other", &["other.vn"])).unwrap();
    // Two approvals at once, from two connections: one is made.
    let path = folder.path().join("registry.sqlite");
    let made: usize = std::thread::scope(|scope| {
        let approve = || SqliteStore::open(&path).unwrap().acting_as(actor("minh")).approve_change(&asked).is_ok();
        let all: Vec<_> = (0..4).map(|_| scope.spawn(approve)).collect();
        all.into_iter().filter(|_| true).map(|one| usize::from(one.join().unwrap())).sum()
    });
    assert_eq!((made, lan.client("shop").unwrap().names.len()), (1, 2));
}

#[test]
fn t2_pending_changes_are_bounded_and_expire() {
    let folder = tempfile::tempdir().unwrap();
    let (lan, minh) = two_people(folder.path());
    let ask = |store: &SqliteStore, number: usize| store.add_staff(&staff(&format!("p-{number}"), &[Role::Auditor]));
    for number in 0..50 {
        ask(&lan, number).unwrap();
    }
    assert!(matches!(ask(&lan, 50), Err(RegistryError::Full(_))), "of one person");
    let first = lan.pending_changes("", 1).unwrap().remove(0);
    minh.reject_change(&first.id).unwrap();
    ask(&lan, 50).unwrap();
    // Of others too, up to the bound in all.
    let others = (0..19).flat_map(|other| (0..50).map(move |number| (other, 100 + 50 * other + number)));
    for (other, number) in others {
        ask(&lan.acting_as(actor(&format!("o-{other}"))), number).unwrap();
    }
    assert!(matches!(ask(&minh, 9_999), Err(RegistryError::Full(_))), "in all");
    // Time passes.
    let file = rusqlite::Connection::open(folder.path().join("registry.sqlite")).unwrap();
    file.execute("UPDATE pending SET ends = ?1", [now()]).unwrap();
    let next = lan.pending_changes("", usize::MAX).unwrap();
    assert!(next.is_empty());
    assert!(matches!(minh.approve_change(&first.id), Err(RegistryError::Unknown(..))));
    let admin_events = |store: &SqliteStore| {
        let mut found = Vec::new();
        loop {
            let some = store.admin_events().unwrap();
            some.iter().for_each(|event| store.forget_event(&event.id).unwrap());
            if some.is_empty() {
                return found;
            }
            found.extend(some);
        }
    };
    admin_events(&lan);
    assert_eq!((lan.end_pending_changes().unwrap(), lan.end_pending_changes().unwrap()), (1_000, 0));
    let ended = admin_events(&lan);
    assert!(ended.iter().all(|event| event.event == "change.end" && event.actor == "system"));
    assert_eq!(ended.iter().map(|event| event.changes.len()).sum::<usize>(), 1_000);
    ask(&lan, 1).unwrap();
}
