//! The registry matches the exchange log: it is recomputed from the log alone, and an edited file is found.

use crate::support::{Stage, UNIT, ops_text, show, until};
use ndxp_gateway::audit::replay::{RegistryDifference, Replay};
use ndxp_gateway::audit::retention;
use ndxp_gateway::config::Config;
use ndxp_gateway::exchange_log::pruned::PRUNE_EVENT;
use ndxp_gateway::issuer::{Issuer, KeyAlgorithm};
use ndxp_gateway::registry::sqlite::SqliteStore;
use ndxp_gateway::registry::{Actor, Client, Digest, Grant, Page, Role, Staff, Store, TokenRecord, now};
use ndxp_gateway::server::{Gateway, registry_path};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

fn config(stage: &Stage) -> Config {
    Config::load(&stage.folder.gateway_config()).map_err(show).unwrap()
}

/// Waits until all changes are in the log.
pub(super) fn logged(stage: &Stage) {
    until("the acts are in the log", || stage.store.admin_events().unwrap().is_empty());
}

pub(super) fn differences(data: &Path) -> Vec<RegistryDifference> {
    let pause = || std::thread::sleep(Duration::from_millis(500));
    Replay::default().confirmed_differences(data, &registry_path(data), pause).unwrap()
}

/// Writes enough entries for pruning: a bundle of 256 entries is pruned as a whole, and only if it is sealed.
pub(super) fn something_to_prune(stage: &Stage) -> retention::Plan {
    for number in 0..300 {
        stage.store.note("test.note", format!("number:{number}")).unwrap();
    }
    logged(stage);
    let later = jiff::Timestamp::now().as_microsecond() + 1;
    let plan = || retention::plan(&stage.data(), later, |_, _| {}).unwrap();
    until("there is something to prune", || plan().bundles() >= 1);
    plan()
}

/// A copy of a data folder, as an auditor takes it.
fn copy(from: &Path, to: &Path) -> PathBuf {
    let status = Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap();
    assert!(status.success());
    to.to_owned()
}

pub(super) fn person(id: &str) -> Actor {
    let digest = |number: u8| Digest([id.len() as u8 ^ id.as_bytes()[0] ^ number; 32]);
    let names = vec![format!("spiffe://example/staff/{id}")];
    Actor::Staff { id: id.into(), thumbprint: digest(1), key: digest(2), names, address: "192.0.2.1:5".into() }
}

/// The first two people: an administrator and an approver.
pub(super) fn bootstrap(store: &SqliteStore) {
    let staff = |id: &str| Staff { id: id.into(), roles: vec![], names: vec![format!("spiffe://example/staff/{id}")] };
    store.bootstrap(&staff("lan"), &staff("minh")).unwrap();
}

/// Makes a random change in a person's name. A refused one changes nothing, which is right as well.
fn act_at_random(store: &SqliteStore, config: &Config, random: &mut fastrand::Rng) {
    let store = store.acting_as(person(["lan", "minh", "hoa"][random.usize(..3)]));
    let store = &store;
    let id = format!("client-{}", random.u32(..12));
    let grants = store.grants(Some(&id), Page::ALL).unwrap();
    let grant = grants.get(random.usize(..grants.len().max(1))).map(|grant| grant.id.clone()).unwrap_or_default();
    let tokens = store.tokens(Some(&id), Page::ALL).unwrap();
    let token = tokens.get(random.usize(..tokens.len().max(1))).map(|token| token.id.clone()).unwrap_or_default();
    let names: Vec<String> = (0..random.u32(1..3)).map(|_| format!("host-{}.example", random.u32(..40))).collect();
    let staff = format!("staff-{}", random.u32(..5));
    let client =
        Client { id: id.clone(), agency: "H49.12".into(), names: names.clone(), created: 7, ..Client::default() };
    let pending = store.pending_changes("", 100).unwrap();
    let waiting = pending.get(random.usize(..pending.len().max(1))).map(|one| one.id.clone()).unwrap_or_default();
    let _ = match random.u32(..20) {
        0..=2 => store.add_client(&client),
        3 => store.change_client(&Client { contact: format!("0{}", random.u32(..)), ..client }).map(drop),
        4 => store.suspend_client(&id, random.bool()),
        5 if random.u32(..4) == 0 => store.retire_client(&id),
        5..=7 => store.add_grant(&Grant {
            id: format!("g-{}", uuid::Uuid::now_v7().simple()),
            client: id,
            scopes: vec!["population:read".into()],
            purposes: vec!["*".into()],
            fields: vec![format!("field_{}", random.u32(..9))],
            rate: random.u32(1..100),
            not_after: now() + 9_999,
            legal_basis: "Nghị định 278/2025/NĐ-CP".into(),
            networks: vec![ndxp_gateway::registry::Network::parse("10.0.0.0/8").unwrap()],
            needs_approval: random.bool(),
            ..Grant::default()
        }),
        8 => store.approve_grant(&grant),
        9 => store.withdraw_grant(&grant),
        10 => {
            let issued = now();
            let expires = issued + i64::from(random.u32(1..100));
            let id = uuid::Uuid::now_v7().to_string();
            store.add_token(&TokenRecord {
                id,
                client: id_of(random),
                issued,
                starts: issued,
                expires,
                ..Default::default()
            })
        }
        11 => store.revoke_token(&token),
        12 => store.revoke_client_tokens(&id).map(drop),
        13 => store.add_staff(&Staff { id: staff, roles: vec![Role::Auditor], names }).map(drop),
        15 | 16 => store.approve_change(&waiting).map(drop),
        17 => store.reject_change(&waiting).map(drop),
        18 => store.change_staff(&Staff { id: staff, roles: vec![Role::Operator, Role::Auditor], names }).map(drop),
        19 => store.grant(&grant).and_then(|grant| {
            let fields = vec!["name".into(), format!("field_{}", random.u32(..9))];
            store.change_grant(&Grant { fields, rate: random.u32(1..200), ..grant }).map(drop)
        }),
        14 => store.remove_staff(&staff),
        _ => match random.bool() {
            true => Issuer::new(store, config.issuer_settings())
                .rotate(KeyAlgorithm::Eddsa)
                .map(drop)
                .map_err(|_| unreachable()),
            false => {
                let keys = store.keys().unwrap();
                store.retire_key(&keys[random.usize(..keys.len())].kid)
            }
        },
    };
}

fn id_of(random: &mut fastrand::Rng) -> String {
    format!("client-{}", random.u32(..12))
}

fn unreachable() -> ndxp_gateway::registry::RegistryError {
    panic!("a key is made")
}

fn run(stage: &Stage, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ndxp-gateway"))
        .args(args)
        .current_dir(&stage.folder.path)
        .env_remove("NDXP_CONFIG")
        .env("NDXP_LOG", "error")
        .output()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_after_random_changes_the_registry_matches_the_log_also_after_pruning() {
    let stage = Stage::start();
    let config = config(&stage);
    bootstrap(&stage.store);
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..4 {
        for _ in 0..150 {
            act_at_random(&stage.store, &config, &mut random);
        }
        // In between: changes that are not in the log yet are in the file.
        assert_eq!(differences(&stage.data()), [], "seed {seed}");
    }
    logged(&stage);
    assert_eq!(differences(&stage.data()), [], "seed {seed}");
    let verified = run(&stage, &["audit", "verify", "--registry"]);
    let text = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(verified.status.success() && text.contains("the registry is what the log says"), "{verified:?}");

    // Everything that can be pruned is pruned: the registry's basis is restated before.
    let (data, archive) = (stage.data(), stage.folder.path.join("archive"));
    let plan = something_to_prune(&stage);
    assert!(!retention::is_restated(&data, &plan).unwrap(), "the registry rests on these entries");
    retention::archive(&data, &plan, &archive, |_| {}).unwrap();
    assert!(retention::restate(&data, &plan, &stage.store).unwrap() > 0);
    until("the log has it", || retention::is_restated(&data, &plan).unwrap());
    plan.objects().for_each(|object| stage.store.note(PRUNE_EVENT, object).unwrap());
    until("the log states it", || retention::is_logged(&data, &plan).unwrap());
    retention::prune(&data, &plan, &Default::default()).unwrap();
    assert_eq!(differences(&data), [], "seed {seed}");
    for _ in 0..50 {
        act_at_random(&stage.store, &config, &mut random);
    }
    assert_eq!(differences(&data), [], "seed {seed}");
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_an_edited_registry_is_found_by_object_and_field() {
    let mut stage = Stage::start();
    for id in ["one", "two"] {
        stage.client(id);
    }
    let grant = stage.grant("one", &["budgetunit:read"], |grant| grant.fields = vec!["name".into()]);
    let auditor = Staff { id: "hoa".into(), roles: vec![Role::Auditor], names: vec!["hoa.example".into()] };
    bootstrap(&stage.store);
    let asked = stage.store.add_staff(&auditor).unwrap();
    stage.store.acting_as(person("minh")).approve_change(&asked.id).unwrap();
    // This one waits.
    let waits =
        stage.store.add_staff(&Staff { id: "linh".into(), names: vec!["linh.example".into()], ..auditor }).unwrap();
    stage.token("one", Duration::from_secs(3_600), Duration::ZERO);
    let token = stage.store.tokens(None, Page::ALL).unwrap()[0].id.clone();
    stage.store.revoke_token(&token).unwrap();
    logged(&stage);
    tokio::task::block_in_place(|| stage.gateway.take().unwrap().stop());
    assert_eq!(differences(&stage.data()), []);

    let kid = stage.store.keys().unwrap()[0].kid.clone();
    let key = "INSERT INTO keys (kid, algorithm, public_pem, created, believed_until)
               SELECT 'mine', algorithm, public_pem, created, 0 FROM keys";
    let names = "[\"spiffe://example/mine\"]";
    let edits = [
        (format!("UPDATE grants SET fields = '[\"*\"]' WHERE id = '{grant}'"), format!("grant:{grant}"), "fields", ""),
        (format!("UPDATE clients SET names = '{names}' WHERE id = 'two'"), "client:two".into(), "names", "mine"),
        ("DELETE FROM revocations".into(), format!("token:{token}"), "", "null"),
        ("INSERT INTO staff VALUES ('me', '[\"administrator\"]', '[]')".into(), "staff:me".into(), "", "administrator"),
        (key.into(), "key:mine".into(), "", "mine"),
        // Further cases of the kind.
        ("UPDATE clients SET suspended = 1 WHERE id = 'one'".into(), "client:one".into(), "suspended", "true"),
        (format!("DELETE FROM grants WHERE id = '{grant}'"), format!("grant:{grant}"), "", "null"),
        (
            format!("UPDATE keys SET believed_until = 99 WHERE kid = '{kid}'"),
            format!("key:{kid}"),
            "believed_until",
            "99",
        ),
        ("UPDATE staff SET roles = '[\"approver\"]' WHERE id = 'hoa'".into(), "staff:hoa".into(), "roles", "approver"),
        ("INSERT INTO revocations VALUES ('x', 9)".into(), "token:x".into(), "", "revoked"),
        ("UPDATE pending SET justification = 'mine'".into(), format!("change:{}", waits.id), "justification", "mine"),
        ("DELETE FROM pending".into(), format!("change:{}", waits.id), "", "null"),
        ("UPDATE revocations SET expires = 5".into(), format!("token:{token}"), "expires", "5"),
        ("UPDATE clients SET tokens_from = 77 WHERE id = 'one'".into(), "client:one".into(), "tokens_from", "77"),
        (
            "UPDATE identities SET id = 'two' WHERE id = 'one'".into(),
            "client:one".into(),
            "the certificate name spiffe://ndxp.quangninh.gov.vn/client/one",
            "client:two",
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let data = copy(&stage.data(), &folder.path().join("data"));
    for (sql, object, field, in_file) in &edits {
        // Only the registry is restored: the log is the same for all.
        let (from, to) = (registry_path(&stage.data()), registry_path(&data));
        for ending in ["", "-wal", "-shm"] {
            let named = |path: &Path| PathBuf::from(format!("{}{ending}", path.display()));
            match named(&from).exists() {
                true => drop(std::fs::copy(named(&from), named(&to)).unwrap()),
                false => drop(std::fs::remove_file(named(&to))),
            }
        }
        rusqlite::Connection::open(registry_path(&data)).unwrap().execute_batch(sql).unwrap();
        // Nothing is pending for a log that is not written.
        let found = Replay::default().confirmed_differences(&data, &registry_path(&data), || {}).unwrap();
        let hit = found.iter().find(|one| one.object == *object && one.field == *field);
        let hit = hit.unwrap_or_else(|| panic!("{sql}: {found:?}"));
        assert!(hit.in_file.contains(in_file) && hit.in_log != hit.in_file, "{sql}: {hit}");
    }
    // By the command, on the folder itself; and the gateway that starts on it raises the alarm, until it is resolved.
    let sql = rusqlite::Connection::open(registry_path(&stage.data())).unwrap();
    sql.execute("UPDATE grants SET fields = '[\"*\"]' WHERE id = ?1", [&grant]).unwrap();
    let refused = run(&stage, &["audit", "verify", "--registry"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(text.contains(&format!("grant:{grant} fields: in the log [\"name\"], in the file [\"*\"]")), "{text}");
    stage.gateway = Some(Gateway::start(config(&stage)).unwrap());
    let alarm = |line: &str| {
        let text = ops_text(&stage, "/metrics");
        text.lines().any(|one| one == line)
    };
    until("the alarm is raised", || alarm("ndxp_registry_differences 1"));
    let ready = ops_text(&stage, "/readyz");
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains(&format!("grant:{grant}")), "{ready}");
    sql.execute("UPDATE grants SET fields = '[\"name\"]' WHERE id = ?1", [&grant]).unwrap();
    until("the alarm is over", || alarm("ndxp_registry_differences 0"));
    assert!(!ops_text(&stage, "/readyz").contains("grant:"));
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_an_unreadable_row_stops_no_suspension_and_is_reported() {
    let stage = Stage::start();
    let clerk = stage.system("clerk");
    let ask = json!({ "unitCode": "1057000" });
    clerk.call(UNIT, ask.clone()).await.ok();
    let sql = rusqlite::Connection::open(registry_path(&stage.data())).unwrap();
    // Before the suspension: a reader of single changes stops here.
    sql.execute("INSERT INTO changes (kind, id) VALUES ('nonsense', 'x')", []).unwrap();
    stage.store.suspend_client("clerk", true).unwrap();
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while clerk.call(UNIT, ask.clone()).await.reason() != "CLIENT_SUSPENDED" {
        assert!(std::time::Instant::now() < end, "a suspension does not come into force");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // An unreadable row among the admin events is nobody's: it is reported, and blocks no other one.
    assert!(ops_text(&stage, "/readyz").starts_with("HTTP/1.1 200"));
    let event =
        "INSERT INTO acts (id, time_us, actor, act, object, changes) VALUES (x'00', 0, 'x', 'x', 'x', 'no list')";
    sql.execute(event, []).unwrap();
    let ready = |status: &str, says: &str| {
        let told = ops_text(&stage, "/readyz");
        told.starts_with(&format!("HTTP/1.1 {status}")) && told.contains(says)
    };
    until("it says so", || ready("200", "1 admin events that this gateway did not record"));
    assert!(ops_text(&stage, "/metrics").lines().any(|line| line == "ndxp_admin_events_refused 1"));
    stage.store.suspend_client("clerk", false).unwrap();
    until("the next act is in the log", || stage.store.admin_events().unwrap().is_empty());
    sql.execute("DELETE FROM acts WHERE id = x'00'", []).unwrap();
    until("it is in order again", || !ready("200", "did not note"));
}
