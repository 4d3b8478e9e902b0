//! An edit of the registry's file with an SQLite tool never becomes an event in anybody's name, and never gets into the log.

use crate::registry_log::{differences, logged, something_to_prune};
use crate::support::{Stage, add_auditor, entries, ops_text, show, until};
use ndxp_gateway::audit::retention;
use ndxp_gateway::config::Config;
use ndxp_gateway::exchange_log::Entry;
use ndxp_gateway::keyfile::Vault;
use ndxp_gateway::registry::sqlite::SqliteStore;
use ndxp_gateway::registry::{Client, Store};
use ndxp_gateway::server::{Gateway, registry_path};
use std::path::Path;
use std::process::Command;

fn objects(data: &Path) -> Vec<String> {
    let mut objects: Vec<String> = differences(data).into_iter().map(|one| one.object).collect();
    objects.dedup();
    objects
}

fn sqlite(stage: &Stage) -> rusqlite::Connection {
    rusqlite::Connection::open(registry_path(&stage.data())).unwrap()
}

fn stop(stage: &mut Stage) {
    tokio::task::block_in_place(|| stage.gateway.take().unwrap().stop());
}

fn start(stage: &mut Stage) {
    let config = Config::load(&stage.folder.gateway_config()).map_err(show).unwrap();
    stage.gateway = Some(Gateway::start(config).unwrap());
}

/// The entries of admin events, without the gateway's own about its files, whose order is not fixed.
fn admin_events(stage: &Stage) -> Vec<Entry> {
    let is_act = |entry: &Entry| !entry.event.is_empty() && entry.event != "log.file";
    entries(&stage.data()).into_iter().map(|found| found.entry).filter(is_act).collect()
}

fn has_line(stage: &Stage, line: &str) -> bool {
    ops_text(stage, "/metrics").lines().any(|one| one == line)
}

/// A client whose admin event is in the log.
fn registered(id: &str) -> Stage {
    let stage = Stage::start();
    stage.client(id);
    stage.grant(id, &["budgetunit:read"], |grant| grant.fields = vec!["name".into()]);
    logged(&stage);
    stage
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_a_file_with_an_older_version_number_launders_nothing() {
    let mut stage = registered("shop");
    stop(&mut stage);
    let before = admin_events(&stage).len();
    for version in [3, 1, 4] {
        let edit = format!(
            "PRAGMA user_version = {version}; UPDATE grants SET fields = '[\"*\"]';
             INSERT OR IGNORE INTO clients (id, agency, contact, names, suspended, created) VALUES ('mine', 'H49', '', '[]', 0, 1);"
        );
        sqlite(&stage).execute_batch(&edit).unwrap();
        // Also by the command line, which migrates the file.
        drop(SqliteStore::open(&registry_path(&stage.data())).unwrap());
        let found = objects(&stage.data());
        assert!(
            found.contains(&"client:mine".into()) && found.iter().any(|one| one.starts_with("grant:")),
            "{found:?}"
        );
        start(&mut stage);
        until("both are found", || has_line(&stage, "ndxp_registry_differences 2"));
        let ready = ops_text(&stage, "/readyz");
        assert_eq!(ready.contains("says that an older version made it"), version < 4, "{ready}");
        assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("client:mine"), "{ready}");
        stop(&mut stage);
        assert_eq!(admin_events(&stage).len(), before, "nothing of it is in the log");
    }
    // The number alone changes nothing.
    let undo =
        "PRAGMA user_version = 2; UPDATE grants SET fields = '[\"name\"]'; DELETE FROM clients WHERE id = 'mine'";
    sqlite(&stage).execute_batch(undo).unwrap();
    start(&mut stage);
    until("nothing differs", || differences(&stage.data()).is_empty());
}

/// The registry as written by build 1d63a09, whose entries did not have the changes of an admin event.
const OLD: &str = "
    CREATE TABLE clients (id TEXT PRIMARY KEY, agency TEXT NOT NULL, contact TEXT NOT NULL, names TEXT NOT NULL,
        suspended INTEGER NOT NULL, created INTEGER NOT NULL, retired INTEGER NOT NULL DEFAULT 0,
        tokens_from INTEGER NOT NULL DEFAULT 0) STRICT;
    CREATE TABLE names (name TEXT PRIMARY KEY, client TEXT NOT NULL) STRICT;
    CREATE TABLE grants (id TEXT PRIMARY KEY, client TEXT NOT NULL REFERENCES clients(id), scopes TEXT NOT NULL,
        purposes TEXT NOT NULL, fields TEXT NOT NULL, rate INTEGER NOT NULL, burst INTEGER NOT NULL,
        daily_quota INTEGER NOT NULL, not_before INTEGER NOT NULL, not_after INTEGER NOT NULL, legal_basis TEXT NOT NULL,
        networks TEXT NOT NULL, requested_by TEXT NOT NULL, approved_by TEXT, needs_approval INTEGER NOT NULL,
        withdrawn INTEGER NOT NULL) STRICT;
    CREATE TABLE staff (id TEXT PRIMARY KEY, roles TEXT NOT NULL, names TEXT NOT NULL) STRICT;
    CREATE TABLE revocations (token TEXT PRIMARY KEY, expires INTEGER NOT NULL) STRICT;
    CREATE TABLE keys (kid TEXT PRIMARY KEY, algorithm TEXT NOT NULL, public_pem TEXT NOT NULL, created INTEGER NOT NULL,
        believed_until INTEGER NOT NULL) STRICT;
    CREATE TABLE acts (id BLOB PRIMARY KEY, time_us INTEGER NOT NULL, actor TEXT NOT NULL, act TEXT NOT NULL,
        object TEXT NOT NULL) STRICT;
    CREATE TABLE changes (seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, id TEXT NOT NULL) STRICT;
    INSERT INTO clients VALUES ('shop', 'H49.12', '', '[\"shop.example\"]', 0, 7, 0, 0);
    INSERT INTO names VALUES ('shop.example', 'shop');
    INSERT INTO grants VALUES ('g-1', 'shop', '[\"budgetunit:read\"]', '[\"*\"]', '[\"*\"]', 9, 9, 0, 0, 4000000000, 'x', '[]',
        'cli:lan', NULL, 0, 0);
    INSERT INTO staff VALUES ('lan', '[\"administrator\"]', '[\"lan.example\"]');
    INSERT INTO revocations VALUES ('t-1', 4000000000);
    INSERT INTO acts VALUES (x'0123456789abcdef0123456789abcdef', 5, 'cli:lan', 'client.add', 'client:shop');
    PRAGMA user_version = 2;";

#[tokio::test(flavor = "multi_thread")]
async fn t4_the_file_of_an_older_build_is_migrated_once() {
    let mut stage = Stage::prepared(&|folder| {
        std::fs::create_dir_all(folder.path.join("data")).unwrap();
        let old = rusqlite::Connection::open(registry_path(&folder.path.join("data"))).unwrap();
        old.execute_batch(OLD).unwrap();
    });
    logged(&stage);
    assert_eq!(differences(&stage.data()), []);
    let adopted = |stage: &Stage| admin_events(stage).iter().filter(|entry| entry.event == "registry.adopt").count();
    let noted = |stage: &Stage| admin_events(stage).iter().filter(|entry| entry.actor == "cli:lan").count();
    assert_eq!((adopted(&stage), noted(&stage)), (1, 1), "also what waited for the log");
    stage.store.suspend_client("shop", true).unwrap();
    logged(&stage);
    stop(&mut stage);
    start(&mut stage);
    assert_eq!(differences(&stage.data()), []);
    assert_eq!((adopted(&stage), noted(&stage)), (1, 1));
    until("it was compared", || has_line(&stage, "ndxp_registry_differences 0"));
    assert!(!ops_text(&stage, "/readyz").contains("older version"));
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_an_invented_admin_event_is_rejected_and_blocks_no_other() {
    let mut stage = registered("shop");
    let sql = sqlite(&stage);
    let invent = "INSERT INTO acts (id, time_us, actor, act, object, changes, code) VALUES
        (randomblob(16), 5, 'staff:minh', 'client.resume', 'client:shop', '[]', randomblob(32))";
    sql.execute(invent, []).unwrap();
    until("it is reported", || {
        ops_text(&stage, "/readyz").contains("has 1 admin events that this gateway did not record")
    });
    assert!(has_line(&stage, "ndxp_admin_events_refused 1"));
    stage.store.note("test.note", "number:1".into()).unwrap();
    logged(&stage);
    assert!(admin_events(&stage).iter().any(|entry| entry.event == "test.note"));
    assert!(!admin_events(&stage).iter().any(|entry| entry.actor == "staff:minh"));
    let output = Command::new(env!("CARGO_BIN_EXE_ndxp-gateway"))
        .args(["audit", "verify", "--registry"])
        .current_dir(&stage.folder.path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("act:") && text.contains("client.resume of client:shop by staff:minh"), "{text}");
    // It stays so after a restart, until somebody has investigated it.
    stop(&mut stage);
    start(&mut stage);
    until("it is reported again", || has_line(&stage, "ndxp_admin_events_refused 1"));
    sql.execute("DELETE FROM acts WHERE actor = 'staff:minh'", []).unwrap();
    until("it is gone", || has_line(&stage, "ndxp_admin_events_refused 0"));
    assert!(!ops_text(&stage, "/readyz").contains("did not note"));
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_an_admin_event_changed_replayed_or_removed_before_it_is_logged_is_detected() {
    let mut stage = registered("shop");
    stop(&mut stage);
    // Recorded while no gateway runs: its author cannot be changed.
    stage.store.suspend_client("shop", true).unwrap();
    let sql = sqlite(&stage);
    sql.execute_batch("CREATE TEMP TABLE stolen AS SELECT * FROM acts; UPDATE acts SET actor = 'staff:minh'").unwrap();
    start(&mut stage);
    until("it is refused", || has_line(&stage, "ndxp_admin_events_refused 1"));
    until("its effect is found", || objects(&stage.data()).contains(&"client:shop".into()));
    stop(&mut stage);
    sql.execute_batch("DELETE FROM acts; INSERT INTO acts SELECT * FROM stolen").unwrap();
    start(&mut stage);
    until("as it was, it is logged", || stage.store.admin_events().unwrap().is_empty());
    let suspended = |stage: &Stage| admin_events(stage).iter().filter(|entry| entry.event == "client.suspend").count();
    assert_eq!((suspended(&stage), differences(&stage.data()).len()), (1, 0));
    // Replayed, with its state, after another admin event.
    stage.store.suspend_client("shop", false).unwrap();
    logged(&stage);
    for restart in [false, true] {
        if restart {
            stop(&mut stage);
        }
        sql.execute_batch(
            "INSERT OR IGNORE INTO acts SELECT * FROM stolen; UPDATE clients SET suspended = 1 WHERE id = 'shop'",
        )
        .unwrap();
        if restart {
            // Also if the gateway must search the complete log for its last admin event.
            std::fs::remove_file(stage.data().join("state/acts.json")).unwrap();
            start(&mut stage);
        }
        until("it is refused", || has_line(&stage, "ndxp_admin_events_refused 1"));
        assert_eq!(suspended(&stage), 1);
        assert!(objects(&stage.data()).contains(&"client:shop".into()));
    }
    sql.execute_batch("DELETE FROM acts; UPDATE clients SET suspended = 0 WHERE id = 'shop'").unwrap();
    // Removed before it was logged: a gap in the sequence, and its effect is a difference.
    stop(&mut stage);
    stage.store.change_client(&Client { contact: "x".into(), ..stage.store.client("shop").unwrap() }).unwrap();
    sql.execute_batch("DELETE FROM acts").unwrap();
    start(&mut stage);
    stage.store.note("test.note", "number:1".into()).unwrap();
    until("the gap is noticed", || has_line(&stage, "ndxp_admin_events_missing_total 1"));
    until("readiness says so", || ops_text(&stage, "/readyz").contains("1 admin events were removed"));
    assert_eq!(objects(&stage.data()), ["client:shop"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_an_edit_while_the_gateway_runs_is_detected_and_blocks_pruning_until_it_is_undone() {
    let stage = registered("shop");
    until("it was compared", || has_line(&stage, "ndxp_registry_differences 0"));
    for number in 0..300 {
        stage.store.note("test.note", format!("number:{number}")).unwrap();
    }
    logged(&stage);
    let (data, later) = (stage.data(), jiff::Timestamp::now().as_microsecond() + 1);
    until("there is something to prune", || retention::plan(&data, later, |_, _| {}).unwrap().bundles() >= 1);
    let sql = sqlite(&stage);
    sql.execute("UPDATE grants SET fields = '[\"*\"]'", []).unwrap();
    // In a file that nobody else changes.
    until("the edit is found", || has_line(&stage, "ndxp_registry_differences 1"));
    assert!(ops_text(&stage, "/readyz").contains("grant:"));
    let plan = retention::plan(&data, later, |_, _| {}).unwrap();
    let refused = retention::restate(&data, &plan, &stage.store).unwrap_err().to_string();
    assert!(refused.contains("grant:") && refused.contains("nothing is pruned"), "{refused}");
    let run = |args: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_ndxp-gateway")).args(args).current_dir(&stage.folder.path).output();
        let output = output.unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (code, text) = run(&["audit", "prune", "--keep", "0d", "--archive", "archive"]);
    assert!(code == Some(1) && text.contains("nothing is pruned"), "{code:?} {text}");
    // Undone: the restated records are those of the log.
    sql.execute("UPDATE grants SET fields = '[\"name\"]'", []).unwrap();
    until("the alarm is over", || has_line(&stage, "ndxp_registry_differences 0"));
    assert!(retention::restate(&data, &plan, &stage.store).unwrap() > 0);
    logged(&stage);
    let restated = admin_events(&stage);
    let restated = restated.iter().filter(|entry| entry.event == "registry.restate").flat_map(|entry| &entry.changes);
    let grant = restated.into_iter().find(|change| change.object.starts_with("grant:")).unwrap();
    assert!(grant.after.contains("\"fields\":[\"name\"]"), "{}", grant.after);
    assert_eq!(differences(&data), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_a_certificate_name_of_an_unknown_person_is_detected_and_one_of_a_removed_person_is_not() {
    let stage = registered("shop");
    add_auditor(&stage.store, "hoa");
    stage.store.remove_staff("hoa").unwrap();
    logged(&stage);
    let data = stage.data();
    assert_eq!(differences(&data), [], "who was removed keeps the names");
    let sql = sqlite(&stage);
    let invented =
        "INSERT INTO identities (name, kind, id) VALUES ('bank.vn', 'staff', 'ghost'), ('more.vn', 'staff', 'hoa')";
    sql.execute(invented, []).unwrap();
    let found = differences(&data);
    let fields: Vec<(&str, &str)> = found.iter().map(|one| (one.object.as_str(), one.field.as_str())).collect();
    assert_eq!(
        fields,
        [("staff:ghost", "the certificate name bank.vn"), ("staff:hoa", "the certificate name more.vn")]
    );
    sql.execute("DELETE FROM identities WHERE name IN ('bank.vn', 'more.vn')", []).unwrap();
    assert_eq!(differences(&data), []);
    // The record of the removal is restated before it is pruned.
    let plan = something_to_prune(&stage);
    retention::restate(&data, &plan, &stage.store).unwrap();
    logged(&stage);
    until("it is restated", || retention::is_restated(&data, &plan).unwrap());
    retention::archive(&data, &plan, &stage.folder.path.join("archive"), |_| {}).unwrap();
    retention::prune(&data, &plan, &Vault::default()).unwrap();
    assert_eq!(differences(&data), []);
}
