//! A registry's file as a replica, with an engine of one gateway in place of the one that all gateways share.

use super::super::replication::{ChangeDraft, CommitOutcome, Replica, ReplicaPosition, Replication, RowChange, RowKey};
use super::super::*;
use super::replica::SqliteReplica;
use super::schema;
use super::{SqliteStore, all};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// An engine that applies each change at once, or not.
struct Alone {
    replica: SqliteReplica,
    drafts: Mutex<Vec<ChangeDraft>>,
    superseded: AtomicUsize,
}

fn position(number: u64, events: u64) -> ReplicaPosition {
    ReplicaPosition { number, events, state: Vec::new() }
}

impl Replication for Alone {
    fn commit(&self, draft: ChangeDraft) -> Result<CommitOutcome, RegistryError> {
        self.drafts.lock().unwrap().push(draft.clone());
        if self.superseded.load(Ordering::Relaxed) > 0 {
            self.superseded.fetch_sub(1, Ordering::Relaxed);
            return Ok(CommitOutcome::Superseded);
        }
        let next = position(draft.base.number + 1, draft.events.last().unwrap().sequence);
        self.replica.apply(&draft.rows, &draft.touched, &next)?;
        Ok(CommitOutcome::Applied)
    }

    fn add_tokens(&self, _: &[TokenRecord]) -> Result<(), RegistryError> {
        Ok(())
    }
}

struct Stage {
    _folder: tempfile::TempDir,
    path: PathBuf,
    engine: Arc<Alone>,
    store: SqliteStore,
}

/// A replica of a registry without changes.
fn replica() -> Stage {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.sqlite");
    let store = SqliteStore::open(&path).unwrap();
    let replica = SqliteReplica::open(&store).unwrap();
    replica.stage(&[], true).unwrap();
    replica.install(&position(0, 0)).unwrap();
    let engine = Arc::new(Alone { replica, drafts: Mutex::default(), superseded: AtomicUsize::new(0) });
    let store = store.replicated(engine.clone()).unwrap();
    Stage { _folder: folder, path, engine, store }
}

fn client(id: &str, name: &str) -> Client {
    Client { id: id.into(), agency: "H49".into(), names: vec![name.into()], created: 7, ..Client::default() }
}

fn grant(id: &str, needs_approval: bool) -> Grant {
    let scopes = vec!["population:read".into()];
    Grant { id: id.into(), client: "shop".into(), scopes, not_after: 1 << 40, needs_approval, ..Grant::default() }
}

/// Some changes of each kind.
fn change(store: &dyn Store) {
    let person = |id: &str| Staff { id: id.into(), roles: Vec::new(), names: vec![format!("spiffe://a.vn/{id}")] };
    store.bootstrap(&person("lan"), &person("minh")).unwrap();
    store.add_client(&client("shop", "a.example")).unwrap();
    store.add_client(&client("other", "b.example")).unwrap();
    store.change_client(&client("other", "c.example")).unwrap();
    store.add_grant(&grant("g-1", false)).unwrap();
    store.add_grant(&grant("g-2", true)).unwrap();
    store.withdraw_grant("g-1").unwrap();
    let key = |kid: &str| SigningKey {
        kid: kid.into(),
        algorithm: "ES256".into(),
        public_pem: "pem".into(),
        created: 1,
        signs_from: 1,
        trusted_until: 0,
    };
    store.add_key(&key("k-1"), 0).unwrap();
    store.add_key(&key("k-2"), 9).unwrap();
    store.revoke_shown_token(&TokenRecord { id: "t-1".into(), expires: 1 << 40, ..TokenRecord::default() }).unwrap();
    let notice = |text: &str| MaintenanceNotice {
        source: "land".into(),
        starts: 1,
        ends: 1 << 40,
        text_vi: text.into(),
        text_en: text.into(),
    };
    store.set_notice(&notice("one")).unwrap();
    store.set_notice(&notice("two")).unwrap();
    store.suspend_client("shop", true).unwrap();
    store.retire_client("other").unwrap();
}

/// All rows that gateways share, as text.
fn rows(path: &Path) -> Vec<String> {
    let connection = Connection::open(path).unwrap();
    let mut found = Vec::new();
    for table in ["clients", "identities", "grants", "staff", "revocations", "keys", "notices", "pending"] {
        let mut statement = connection.prepare(&format!("SELECT * FROM {table} ORDER BY 1")).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let values = (0..columns).map(|at| format!("{:?}", row.get_ref(at).unwrap()));
            found.push(format!("{table} {}", values.collect::<Vec<_>>().join(" ")));
        }
    }
    found
}

#[test]
fn changes_through_an_engine_have_the_effect_that_they_have_without() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.sqlite");
    let embedded = SqliteStore::open(&path).unwrap();
    change(&embedded);
    let stage = replica();
    change(&stage.store);
    assert_eq!(rows(&stage.path), rows(&path));
    assert!(rows(&path).len() > 10);
    // Their events are the engine's to log, with the same numbers.
    assert!(stage.store.admin_events().unwrap().is_empty());
    let numbers: Vec<u64> = stage
        .engine
        .drafts
        .lock()
        .unwrap()
        .iter()
        .flat_map(|draft| &draft.events)
        .map(|event| event.sequence)
        .collect();
    let embedded: Vec<u64> = embedded.admin_events().unwrap().iter().map(|event| event.sequence).collect();
    assert_eq!(numbers, embedded);
}

#[test]
fn a_gateway_follows_what_is_applied_and_reads_everything_after_a_complete_read() {
    let stage = replica();
    let seen = |after: Option<u64>| {
        let mut clients = Vec::new();
        let take = &mut |item: Item<'_>| {
            if let Item::Client(client) = item {
                clients.push(client.id);
            }
        };
        let revision = stage.store.read(after, take).unwrap();
        clients.sort();
        (clients, revision)
    };
    stage.store.add_client(&client("shop", "a.example")).unwrap();
    let (all, revision) = seen(None);
    assert_eq!(all, ["shop"]);
    stage.store.add_client(&client("other", "b.example")).unwrap();
    let (new, revision) = {
        let (new, next) = seen(Some(revision));
        assert_eq!(new, ["other"]);
        (new, next)
    };
    assert_eq!(new.len(), 1);
    let row = |id: &str| {
        let draft = &stage.engine.drafts.lock().unwrap()[0];
        let mut row = draft.rows.iter().find(|row| row.key.table == "clients").unwrap().clone();
        row.key.id = id.into();
        row.cells.as_mut().unwrap().iter_mut().filter(|(name, _)| name == "id").for_each(|(_, cell)| {
            *cell = replication::CellValue::Text(id.into());
        });
        row
    };
    stage.engine.replica.stage(&[row("third")], true).unwrap();
    stage.engine.replica.stage(&[row("fourth")], false).unwrap();
    stage.engine.replica.install(&position(50, 60)).unwrap();
    assert_eq!(seen(Some(revision)).0, ["fourth", "third"]);
    // What is older is ignored, and a change that does not follow is refused.
    stage.engine.replica.stage(&[], true).unwrap();
    stage.engine.replica.install(&position(49, 60)).unwrap();
    stage.engine.replica.apply(&[], &[], &position(50, 60)).unwrap();
    assert!(stage.engine.replica.apply(&[], &[], &position(52, 60)).is_err());
    assert_eq!(seen(None).0.len(), 2);
    stage.store.add_client(&client("shop", "a.example")).unwrap();
    assert_eq!(stage.engine.drafts.lock().unwrap().last().unwrap().events[0].sequence, 61);
}

#[test]
fn a_superseded_change_is_judged_again_and_a_refused_one_leaves_nothing() {
    let stage = replica();
    stage.engine.superseded.store(3, Ordering::Relaxed);
    stage.store.add_client(&client("shop", "a.example")).unwrap();
    assert_eq!(stage.engine.drafts.lock().unwrap().len(), 4);
    let before = rows(&stage.path);
    let taken = stage.store.add_client(&client("other", "a.example"));
    assert!(matches!(taken, Err(RegistryError::NameTaken { .. })), "{taken:?}");
    // Others come first without end.
    stage.engine.superseded.store(usize::MAX, Ordering::Relaxed);
    assert!(stage.store.add_client(&client("third", "c.example")).is_err());
    assert_eq!(rows(&stage.path), before);
    assert_eq!(stage.engine.replica.position().unwrap().unwrap(), position(1, 1));
}

#[test]
fn a_registry_of_its_own_is_not_replaced_and_a_replica_is_not_changed_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.sqlite");
    let store = SqliteStore::open(&path).unwrap();
    store.add_client(&client("shop", "a.example")).unwrap();
    let own = SqliteReplica::open(&store).unwrap();
    own.stage(&[], true).unwrap();
    assert!(own.install(&position(0, 0)).unwrap_err().to_string().contains("not a replica"));
    // Nor is it refused as a replica, since it is none.
    store.add_client(&client("other", "b.example")).unwrap();
    let stage = replica();
    let alone = SqliteStore::open(&stage.path).unwrap().add_client(&client("shop", "a.example"));
    assert!(alone.unwrap_err().to_string().contains("replica"));
}

#[test]
fn no_other_table_and_no_odd_column_is_written() {
    let stage = replica();
    let row = |table: &str, name: &str| RowChange {
        key: RowKey { table: table.into(), id: "x".into() },
        cells: Some(vec![(name.into(), replication::CellValue::Text("x".into()))]),
    };
    for (table, name) in
        [("acts", "id"), ("sqlite_schema", "name"), ("clients", "id) VALUES (1); --"), ("clients", "nix")]
    {
        assert!(stage.engine.replica.apply(&[row(table, name)], &[], &position(1, 1)).is_err(), "{table} {name}");
    }
    assert_eq!(stage.engine.replica.position().unwrap().unwrap(), position(0, 0));
}

#[test]
fn the_position_s_table_is_expected_and_a_trigger_on_it_is_not() {
    let stage = replica();
    let connection = Connection::open(&stage.path).unwrap();
    assert_eq!(schema::deviations(&connection).unwrap(), (Vec::new(), Vec::new()));
    connection.execute_batch("CREATE TRIGGER t AFTER UPDATE ON replica BEGIN DELETE FROM revocations; END;").unwrap();
    assert_eq!(schema::deviations(&connection).unwrap().1, ["trigger t of replica"]);
    let there: Vec<String> =
        all(&connection, "SELECT name FROM sqlite_schema WHERE name = 'replica'", [], |row| row.get(0)).unwrap();
    assert_eq!(there.len(), 1);
}

#[test]
fn a_client_with_many_grants_is_retired_in_parts() {
    let stage = replica();
    stage.store.add_client(&client("shop", "a.example")).unwrap();
    (0..130).for_each(|at| stage.store.add_grant(&grant(&format!("g-{at:03}"), false)).unwrap());
    stage.engine.drafts.lock().unwrap().clear();
    stage.store.retire_client("shop").unwrap();
    let sizes: Vec<usize> = stage.engine.drafts.lock().unwrap().iter().map(|draft| draft.rows.len()).collect();
    assert_eq!(sizes, [50, 50, 31]);
    assert!(stage.store.client("shop").unwrap().retired && stage.store.grant("g-129").unwrap().withdrawn);
}
