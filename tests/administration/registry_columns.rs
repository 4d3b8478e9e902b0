//! Every column of every table of the registry's file is compared with the log: whatever is altered, added or removed, `audit verify
//! --registry` names a difference.

use crate::registry_log::{bootstrap, differences, logged, person};
use crate::support::Stage;
use ndxp_gateway::audit::replay::{RegistryDifference, Replay};
use ndxp_gateway::registry::{Client, MaintenanceNotice, Page, Role, Staff, Store, now};
use ndxp_gateway::server::registry_path;
use rusqlite::Connection;
use rusqlite::types::Value;
use std::path::Path;
use std::time::Duration;

/// Tables that are not compared, and why.
const NOT_COMPARED: [(&str, &str); 2] = [
    (
        "changes",
        "says what a gateway that runs is to read again; what it reads is compared, and a gap makes it read everything",
    ),
    ("sqlite_sequence", "numbers to be given next; a start takes that of acts from the log"),
];

/// A data folder of a stopped gateway, with rows in each table.
fn folder() -> Stage {
    let mut stage = Stage::start();
    for id in ["one", "two"] {
        stage.client(id);
    }
    stage.grant("one", &["budgetunit:read"], |grant| grant.fields = vec!["name".into()]);
    stage.grant("two", &["budgetunit:read"], |grant| grant.daily_quota = 7);
    bootstrap(&stage.store);
    let approver = stage.store.acting_as(person("minh"));
    let staff = |id: &str| Staff { id: id.into(), roles: vec![Role::Auditor], names: vec![format!("{id}.example")] };
    for id in ["hoa", "gone"] {
        approver.approve_change(&stage.store.add_staff(&staff(id)).unwrap().id).unwrap();
    }
    stage.store.remove_staff("gone").unwrap();
    stage.store.add_staff(&staff("linh")).unwrap();
    stage.token("one", Duration::from_secs(3_600), Duration::ZERO);
    let token = stage.store.tokens(None, Page::ALL).unwrap()[0].id.clone();
    stage.store.revoke_token(&token).unwrap();
    let (starts, text_vi) = (now(), "Bảo trì".to_owned());
    let notice =
        MaintenanceNotice { source: "land".into(), starts, ends: starts + 3_600, text_vi, text_en: "x".into() };
    stage.store.set_notice(&notice).unwrap();
    logged(&stage);
    tokio::task::block_in_place(|| stage.gateway.take().unwrap().stop());
    // This one waits for the log.
    stage.store.change_client(&Client { contact: "x".into(), ..stage.store.client("two").unwrap() }).unwrap();
    stage
}

/// Other values in place of one, of its own type.
fn others(value: &Value) -> Vec<Value> {
    match value {
        Value::Null => vec![Value::Text("x".into())],
        // A flag becomes the other value, and an invalid one.
        Value::Integer(number) => vec![Value::Integer(i64::from(*number == 0)), Value::Integer(number + 7)],
        Value::Real(number) => vec![Value::Real(number + 1.0)],
        Value::Blob(bytes) => {
            let others = [[bytes.as_slice(), &[0]].concat(), Vec::new()];
            others.into_iter().filter(|other| other != bytes).map(Value::Blob).collect()
        }
        Value::Text(text) => {
            let mut others = vec![format!("{text}x"), String::new(), "null".to_owned()];
            if let Ok(mut list) = serde_json::from_str::<Vec<String>>(text) {
                list.push("x".into());
                others.push(serde_json::to_string(&list).unwrap());
            }
            // The only other value that the table of names accepts.
            others.extend((text == "client").then(|| "staff".to_owned()));
            others.into_iter().filter(|other| other != text).map(Value::Text).collect()
        }
    }
}

struct Copy<'c> {
    data: &'c Path,
    whole: Vec<u8>,
}

impl Copy<'_> {
    fn connection(&self) -> Connection {
        let connection = Connection::open(registry_path(self.data)).unwrap();
        connection.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA journal_mode = DELETE").unwrap();
        connection
    }

    /// The differences after a statement; `None` if the table rejects it.
    fn after(&self, sql: &str, params: &[Value]) -> Option<Vec<RegistryDifference>> {
        std::fs::write(registry_path(self.data), &self.whole).unwrap();
        let connection = self.connection();
        let done = connection.execute(sql, rusqlite::params_from_iter(params)).ok()?;
        assert!(done > 0, "{sql}");
        drop(connection);
        let found = Replay::default().differences(self.data, &registry_path(self.data));
        Some(found.unwrap_or_else(|error| {
            vec![RegistryDifference {
                object: error.to_string(),
                field: String::new(),
                in_log: String::new(),
                in_file: String::new(),
            }]
        }))
    }
}

fn texts(connection: &Connection, sql: &str) -> Vec<String> {
    let mut rows = connection.prepare(sql).unwrap();
    rows.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_every_column_of_every_table_is_compared_with_the_log() {
    let stage = folder();
    assert_eq!(differences(&stage.data()), []);
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    assert!(std::process::Command::new("cp").arg("-r").arg(stage.data()).arg(&data).status().unwrap().success());
    // One file, without SQLite's other files.
    std::fs::remove_file(registry_path(&data)).unwrap();
    for beside in ["registry.sqlite-wal", "registry.sqlite-shm"] {
        let _ = std::fs::remove_file(data.join(beside));
    }
    let sql = Connection::open(registry_path(&stage.data())).unwrap();
    sql.execute("VACUUM INTO ?1", [registry_path(&data).to_str().unwrap()]).unwrap();
    let whole = std::fs::read(registry_path(&data)).unwrap();
    let copy = Copy { data: &data, whole };
    assert_eq!(differences(&data), []);
    let tables = texts(&sql, "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name");
    let compared: Vec<&String> = tables
        .iter()
        .filter(|table| !NOT_COMPARED.iter().any(|(other, why)| other == table && !why.is_empty()))
        .collect();
    assert_eq!(compared.len(), tables.len() - NOT_COMPARED.len());
    let (mut altered, mut missed) = (0, Vec::new());
    for table in compared {
        let columns = texts(&sql, &format!("SELECT name FROM pragma_table_info('{table}')"));
        let all = format!("SELECT rowid, {} FROM {table}", columns.join(", "));
        let mut rows = sql.prepare(&all).unwrap();
        let read = |row: &rusqlite::Row<'_>| (0..=columns.len()).map(|at| row.get::<_, Value>(at)).collect();
        let rows: Vec<Vec<Value>> = rows.query_map([], read).unwrap().collect::<Result<_, _>>().unwrap();
        assert!(!rows.is_empty(), "nothing is in {table}");
        let mut try_it = |what: String, sql: &str, params: &[Value]| {
            let Some(found) = copy.after(sql, params) else { return false };
            altered += 1;
            if found.is_empty() {
                missed.push(what);
            }
            true
        };
        for (number, row) in rows.iter().enumerate() {
            let id = &row[0];
            // Each column once: all rows of a table are read in the same way.
            for (column, value) in columns.iter().zip(&row[1..]).filter(|_| number == 0) {
                let mut taken = 0;
                for other in others(value) {
                    let what = format!("{table}.{column}: {value:?} became {other:?}");
                    let sql = format!("UPDATE {table} SET {column} = ?1 WHERE rowid = ?2");
                    taken += usize::from(try_it(what, &sql, &[other, id.clone()]));
                }
                assert!(taken > 0, "{table}.{column} takes no other value");
            }
            let sql = format!("DELETE FROM {table} WHERE rowid = ?1");
            assert!(try_it(format!("{table}: without the row of {:?}", row[1]), &sql, std::slice::from_ref(id)));
            // The same under another key, and under another id of an admin event.
            let key = match &row[1] {
                Value::Integer(number) => Value::Integer(number + 900),
                _ => Value::Text("another".into()),
            };
            let rest: Vec<&str> = columns[1..].iter().map(String::as_str).collect();
            let values = rest.join(", ").replacen("id", if table == "acts" { "randomblob(16)" } else { "id" }, 1);
            let sql = format!(
                "INSERT INTO {table} ({}, {}) SELECT ?1, {values} FROM {table} WHERE rowid = ?2",
                columns[0],
                rest.join(", ")
            );
            assert!(try_it(format!("{table}: another row like {:?}", row[1]), &sql, &[key, id.clone()]));
        }
    }
    assert!(altered > 150, "{altered}");
    assert_eq!(missed, Vec::<String>::new());

    // The tables themselves; a trigger could undo a suspension before any gateway reads it.
    for edit in [
        "CREATE TABLE more (x)",
        "CREATE TRIGGER undo AFTER INSERT ON changes BEGIN DELETE FROM changes WHERE seq = NEW.seq; END",
        "CREATE VIEW seen AS SELECT * FROM clients",
        "ALTER TABLE grants ADD COLUMN more TEXT",
        "DROP INDEX grants_client",
        "PRAGMA user_version = 99",
    ] {
        std::fs::write(registry_path(&data), &copy.whole).unwrap();
        copy.connection().execute_batch(edit).unwrap();
        let found = Replay::default().differences(&data, &registry_path(&data)).unwrap();
        assert!(found.iter().any(|one| one.object == "registry.sqlite"), "{edit}: {found:?}");
    }
    std::fs::write(registry_path(&data), &copy.whole).unwrap();
    assert_eq!(differences(&data), [], "as it was");
}
