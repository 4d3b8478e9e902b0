//! The tables, and the upgrade of older files.

use super::super::{AdminEventKey, RegistryError};
use super::list::{ISSUED_INDEXES, REGISTRY_INDEXES};
use super::{admin_events, adopt, all, identities};
use rusqlite::Connection;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Number of changes that are remembered: a gateway that is further behind reads everything.
pub(super) const REMEMBERED: i64 = 100_000;

/// Records what a change has touched, kind and id: gateways read it again.
pub(super) fn note_touched(whole: &Connection, touched: &[(String, String)]) -> Result<(), RegistryError> {
    for (kind, id) in touched {
        whole.prepare_cached("INSERT INTO changes (kind, id) VALUES (?1, ?2)")?.execute([kind, id])?;
    }
    if !touched.is_empty() {
        whole.execute("DELETE FROM changes WHERE seq <= ?1", [whole.last_insert_rowid() - REMEMBERED])?;
    }
    Ok(())
}
/// Version of the tables below: a file of a later one is refused rather than misread.
pub(super) const VERSION: i64 = 7;
/// From this version on, events hold all their changes: older files are restated completely.
const COMPLETE_EVENTS: i64 = 4;
/// From this version on, events have a code.
const CODED_EVENTS: i64 = 5;

const REGISTRY: &str = "
    CREATE TABLE IF NOT EXISTS clients (
        id TEXT PRIMARY KEY, agency TEXT NOT NULL, contact TEXT NOT NULL, names TEXT NOT NULL,
        suspended INTEGER NOT NULL, created INTEGER NOT NULL, retired INTEGER NOT NULL DEFAULT 0,
        tokens_from INTEGER NOT NULL DEFAULT 0) STRICT;
    CREATE TABLE IF NOT EXISTS identities (
        name TEXT PRIMARY KEY, kind TEXT NOT NULL CHECK (kind IN ('client', 'staff')), id TEXT NOT NULL) STRICT;
    CREATE INDEX IF NOT EXISTS identities_of ON identities(kind, id);
    CREATE TABLE IF NOT EXISTS grants (
        id TEXT PRIMARY KEY, client TEXT NOT NULL REFERENCES clients(id), scopes TEXT NOT NULL, purposes TEXT NOT NULL,
        fields TEXT NOT NULL, rate INTEGER NOT NULL, burst INTEGER NOT NULL, daily_quota INTEGER NOT NULL,
        not_before INTEGER NOT NULL, not_after INTEGER NOT NULL, legal_basis TEXT NOT NULL, networks TEXT NOT NULL,
        requested_by TEXT NOT NULL, approved_by TEXT, needs_approval INTEGER NOT NULL,
        withdrawn INTEGER NOT NULL, requester TEXT NOT NULL DEFAULT '') STRICT;
    CREATE TABLE IF NOT EXISTS staff (id TEXT PRIMARY KEY, roles TEXT NOT NULL, names TEXT NOT NULL) STRICT;
    CREATE INDEX IF NOT EXISTS grants_client ON grants(client);
    CREATE TABLE IF NOT EXISTS revocations (token TEXT PRIMARY KEY, expires INTEGER NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS keys (
        kid TEXT PRIMARY KEY, algorithm TEXT NOT NULL, public_pem TEXT NOT NULL, created INTEGER NOT NULL,
        believed_until INTEGER NOT NULL, signs_from INTEGER NOT NULL DEFAULT 0) STRICT;
    CREATE TABLE IF NOT EXISTS notices (
        source TEXT PRIMARY KEY, starts INTEGER NOT NULL, ends INTEGER NOT NULL, text_vi TEXT NOT NULL,
        text_en TEXT NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS acts (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, time_us INTEGER NOT NULL, actor TEXT NOT NULL,
        act TEXT NOT NULL, object TEXT NOT NULL, certificate BLOB NOT NULL DEFAULT x'',
        address TEXT NOT NULL DEFAULT '', approved_by TEXT NOT NULL DEFAULT '', justification TEXT NOT NULL DEFAULT '',
        changes TEXT NOT NULL DEFAULT '[]', code BLOB NOT NULL DEFAULT x'',
        identity_provider TEXT NOT NULL DEFAULT '') STRICT;
    CREATE TABLE IF NOT EXISTS pending (
        id TEXT PRIMARY KEY, act TEXT NOT NULL, object TEXT NOT NULL, before TEXT NOT NULL, after TEXT NOT NULL,
        requested_by TEXT NOT NULL, requester TEXT NOT NULL, justification TEXT NOT NULL, requested INTEGER NOT NULL,
        ends INTEGER NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS changes (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, id TEXT NOT NULL) STRICT;";

/// Only in a file that is a replica: how far it has applied the changes of all gateways.
pub(super) const REPLICA: &str = "
    CREATE TABLE IF NOT EXISTS replica (
        one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL, events INTEGER NOT NULL,
        state BLOB NOT NULL) STRICT;";

/// Columns that older versions lack: table, column, definition.
const COLUMNS: [(&str, &str, &str); 10] = [
    ("keys", "signs_from", "INTEGER NOT NULL DEFAULT 0"),
    ("clients", "retired", "INTEGER NOT NULL DEFAULT 0"),
    ("clients", "tokens_from", "INTEGER NOT NULL DEFAULT 0"),
    ("grants", "requester", "TEXT NOT NULL DEFAULT ''"),
    ("acts", "certificate", "BLOB NOT NULL DEFAULT x''"),
    ("acts", "address", "TEXT NOT NULL DEFAULT ''"),
    ("acts", "identity_provider", "TEXT NOT NULL DEFAULT ''"),
    ("acts", "approved_by", "TEXT NOT NULL DEFAULT ''"),
    ("acts", "justification", "TEXT NOT NULL DEFAULT ''"),
    ("acts", "changes", "TEXT NOT NULL DEFAULT '[]'"),
];

/// Returns whether the table exists without this column.
fn lacks(connection: &Connection, table: &str, column: &str) -> Result<bool, RegistryError> {
    let sql = "SELECT COUNT(*), COALESCE(SUM(name = ?2), 0) FROM pragma_table_info(?1)";
    let found = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
    Ok(matches!(connection.query_row(sql, [table, column], found)?, (1.., 0)))
}

/// Events of versions before 5 have no number in a sequence.
const NUMBER_EVENTS: &str = "
    INSERT INTO acts (id, time_us, actor, act, object, certificate, address, approved_by, justification, changes)
        SELECT id, time_us, actor, act, object, certificate, address, approved_by, justification, changes
        FROM acts_before ORDER BY rowid;
    DROP TABLE acts_before;";

/// Upgrades older tables to those above.
///
/// What is restated or adopted here goes into the exchange log only if the log has no data of this registry yet
/// (`server/control/admin_events.rs`): a number in the file does not prove its age.
fn upgrade(connection: &Connection, path: &Path, version: i64, key: &AdminEventKey) -> Result<(), RegistryError> {
    for (table, column, what) in COLUMNS {
        if lacks(connection, table, column)? {
            connection.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {column} {what};"))?;
        }
    }
    if lacks(connection, "acts", "seq")? {
        connection.execute_batch("ALTER TABLE acts RENAME TO acts_before;")?;
        connection.execute_batch(REGISTRY)?;
        connection.execute_batch(NUMBER_EVENTS)?;
        admin_events::adopt(connection, key)?;
    }
    // Of version 2, in which only clients had names: without the table, a gateway of that version that still runs
    // cannot register anybody beside the new one.
    connection.execute_batch("DROP TABLE IF EXISTS names;")?;
    connection.execute_batch(REGISTRY)?;
    if version >= COMPLETE_EVENTS {
        return Ok(());
    }
    identities::adopt(connection)?;
    adopt::restate(connection, &issued_path(path), key)
}

/// Issued tokens are in a separate file: clients fetch them all the time.
const ISSUED: &str = "
    CREATE TABLE IF NOT EXISTS tokens (
        id TEXT PRIMARY KEY, client TEXT NOT NULL, scopes TEXT NOT NULL, certificate TEXT NOT NULL,
        issued INTEGER NOT NULL, starts INTEGER NOT NULL, expires INTEGER NOT NULL) STRICT;";

/// Returns whether there is a registry's file of a version whose events have codes.
pub(super) fn is_made(path: &Path) -> Result<bool, RegistryError> {
    if !path.exists() {
        return Ok(false);
    }
    let there = Connection::open(path)?;
    there.busy_timeout(Duration::from_secs(5))?;
    Ok(there.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))? >= CODED_EVENTS)
}

pub(super) fn registry(path: &Path, key: &AdminEventKey) -> Result<Connection, RegistryError> {
    open(path, REGISTRY, REGISTRY_INDEXES, |connection, version| upgrade(connection, path, version, key))
}

/// Returns the path of the file of issued tokens beside a registry.
pub(super) fn issued_path(registry: &Path) -> PathBuf {
    registry.with_file_name("issued.sqlite")
}

pub(super) fn issued(registry: &Path) -> Result<Connection, RegistryError> {
    open(&issued_path(registry), ISSUED, ISSUED_INDEXES, |_, _| Ok(()))
}

/// Returns the schema of a registry's file: tables with their columns, indexes, triggers, views. SQLite's internal
/// objects are excluded.
fn shape(connection: &Connection) -> Result<BTreeSet<String>, RegistryError> {
    let objects = "SELECT type || ' ' || name || ' of ' || tbl_name FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
    let columns = "SELECT 'column ' || tables.name || '.' || columns.name || ' ' || columns.type || ' ' || columns.\"notnull\" || ' ' || columns.pk
        FROM sqlite_schema AS tables, pragma_table_info(tables.name) AS columns
        WHERE tables.type = 'table' AND tables.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
    let mut shape: BTreeSet<String> = all(connection, objects, [], |row| row.get(0))?.into_iter().collect();
    shape.extend(all(connection, columns, [], |row| row.get::<_, String>(0))?);
    Ok(shape)
}

/// Returns the differences of a registry's file from the schema that a gateway creates: what is missing, and what
/// should not exist. A trigger could change data unnoticed. Returns nothing for a file that an older version made: a
/// start upgrades it.
pub(super) fn deviations(connection: &Connection) -> Result<(Vec<String>, Vec<String>), RegistryError> {
    deviations_from(connection, &format!("{REGISTRY} {REGISTRY_INDEXES}"))
}

/// The same for the file of issued tokens.
pub(super) fn issued_deviations(connection: &Connection) -> Result<(Vec<String>, Vec<String>), RegistryError> {
    deviations_from(connection, &format!("{ISSUED} {ISSUED_INDEXES}"))
}

fn deviations_from(connection: &Connection, schema: &str) -> Result<(Vec<String>, Vec<String>), RegistryError> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version < VERSION {
        return Ok(Default::default());
    }
    let fresh = Connection::open_in_memory()?;
    fresh.execute_batch(schema)?;
    let (wanted, there) = (shape(&fresh)?, shape(connection)?);
    fresh.execute_batch(REPLICA)?;
    let permitted = shape(&fresh)?;
    let mut strange: Vec<String> = there.difference(&permitted).cloned().collect();
    strange.extend((version != VERSION).then(|| format!("version {version}")));
    Ok((wanted.difference(&there).cloned().collect(), strange))
}

/// Opens a file and upgrades it to this version in one transaction.
fn open(
    path: &Path,
    schema: &str,
    indexes: &str,
    upgrade: impl FnOnce(&Connection, i64) -> Result<(), RegistryError>,
) -> Result<Connection, RegistryError> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    // FULL: an acknowledged change survives a power cut.
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")?;
    let version = |connection: &Connection| connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
    if version(&connection)? != VERSION {
        let whole = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        match version(&whole)? {
            0 | VERSION => {}
            older @ 1..VERSION => upgrade(&whole, older)?,
            other => {
                let reason = format!("{} was made by a later version of the gateway (schema {other})", path.display());
                return Err(RegistryError::Store(reason));
            }
        }
        whole.execute_batch(schema)?;
        whole.pragma_update(None, "user_version", VERSION)?;
        whole.commit()?;
    }
    // If they exist already, this writes nothing.
    connection.execute_batch(indexes)?;
    Ok(connection)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::super::Store;
    use super::super::SqliteStore;
    use super::*;

    #[test]
    fn a_file_of_version_1_is_brought_up_and_a_later_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.sqlite");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(
            "CREATE TABLE clients (id TEXT PRIMARY KEY, agency TEXT NOT NULL, contact TEXT NOT NULL, names TEXT NOT NULL,
                 suspended INTEGER NOT NULL, created INTEGER NOT NULL) STRICT;
             INSERT INTO clients VALUES ('shop', 'H49.12', '', '[\"A.Example.\"]', 1, 7);
             PRAGMA user_version = 1;",
        )
        .unwrap();
        let store = SqliteStore::open(&path).unwrap();
        let client = store.client("shop").unwrap();
        assert!(client.suspended && !client.retired && client.names == ["a.example"]);
        let holder: String =
            old.query_row("SELECT id FROM identities WHERE name = 'a.example'", [], |row| row.get(0)).unwrap();
        assert_eq!(holder, "shop");
        old.pragma_update(None, "user_version", VERSION + 1).unwrap();
        assert!(SqliteStore::open(&path).is_err());
    }

    #[test]
    fn t2_an_older_file_with_a_name_of_two_holders_is_refused_and_says_whose() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.sqlite");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(&format!(
            "{REGISTRY} DROP TABLE identities; CREATE TABLE names (name TEXT PRIMARY KEY, client TEXT NOT NULL) STRICT;
             INSERT INTO clients VALUES ('shop', 'H49.12', '', '[\"spiffe://a.vn/x\"]', 0, 7, 1, 0);
             INSERT INTO staff VALUES ('lan', '[\"administrator\"]', '[\"spiffe://A.VN/x\"]');
             INSERT INTO grants VALUES ('g-1', 'shop', '[\"a:b\"]', '[]', '[]', 1, 1, 0, 0, 9, '', '[]', 'cli:x', NULL, 0, 0, '');
             INSERT INTO revocations VALUES ('t-1', 99);
             PRAGMA user_version = 2;"
        ))
        .unwrap();
        let refused = SqliteStore::open(&path).err().unwrap().to_string();
        assert!(refused.contains("client:shop") && refused.contains("staff:lan"), "{refused}");
        let version: i64 = old.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        assert_eq!(version, 2, "a refused file stays as it was");
        old.execute("UPDATE staff SET names = '[\"spiffe://a.vn/y\"]'", []).unwrap();
        let store = SqliteStore::open(&path).unwrap();
        assert_eq!(store.staff().unwrap()[0].names, ["spiffe://a.vn/y"]);
        // T4: from here on the log alone can rebuild it.
        let admin_events = store.admin_events().unwrap();
        assert!(admin_events.iter().all(|event| event.actor == "system" && event.event == "registry.adopt"));
        let changes: Vec<_> = admin_events.iter().flat_map(|event| &event.changes).collect();
        let objects: Vec<&str> = changes.iter().map(|change| change.object.as_str()).collect();
        assert_eq!(objects, ["client:shop", "grant:g-1", "staff:lan", "token:t-1"]);
        assert!(changes.iter().all(|change| change.before == "null" && change.after.starts_with('{')));
        assert!(SqliteStore::open(&path).unwrap().admin_events().unwrap().len() == admin_events.len(), "once only");
    }
}
