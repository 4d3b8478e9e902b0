//! The registry's file as a replica of the registry of several gateways: what a change would do is read from a transaction
//! that is rolled back, and what counts everywhere is applied in one that is not.

use super::super::replication::{CellValue, ChangeDraft, Replica, ReplicaPosition, RowChange, RowKey};
use super::super::{AdminEvent, RegistryError, TokenRecord};
use super::{SqliteStore, admin_events, all, issued, schema};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, OptionalExtension, ToSql, TransactionBehavior, params, params_from_iter};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The tables that all gateways share, each with its primary key. Events, changes and issued tokens are not among them:
/// events enter the exchange log with their change, and each file numbers its own changes.
const TABLES: [(&str, &str); 8] = [
    ("clients", "id"),
    ("identities", "name"),
    ("grants", "id"),
    ("staff", "id"),
    ("revocations", "token"),
    ("keys", "kid"),
    ("notices", "source"),
    ("pending", "id"),
];

fn failed(reason: String) -> RegistryError {
    RegistryError::Store(reason)
}

/// Has this connection note which rows its transactions change. The triggers are the connection's own (`TEMP`): no other
/// sees them, and they are not in the file.
pub(super) fn watch_rows(connection: &Connection) -> Result<(), RegistryError> {
    connection.execute_batch("CREATE TEMP TABLE IF NOT EXISTS captured (kind TEXT NOT NULL, id TEXT NOT NULL);")?;
    for (table, key) in TABLES {
        for (event, rows) in [("INSERT", &["NEW"][..]), ("UPDATE", &["OLD", "NEW"]), ("DELETE", &["OLD"])] {
            let note = |row: &&str| format!("INSERT INTO captured VALUES ('{table}', {row}.{key});");
            let body: String = rows.iter().map(note).collect();
            connection.execute_batch(&format!(
                "CREATE TEMP TRIGGER IF NOT EXISTS captured_{table}_{event} AFTER {event} ON main.{table} BEGIN {body} END;"
            ))?;
        }
    }
    Ok(())
}

/// Reads what a transaction has changed, before it is rolled back.
pub(super) fn draft(
    whole: &Connection,
    base: ReplicaPosition,
    touched: Vec<(String, String)>,
    events: Vec<AdminEvent>,
) -> Result<ChangeDraft, RegistryError> {
    let sql = "SELECT DISTINCT kind, id FROM captured ORDER BY kind, id";
    let keys = all(whole, sql, [], |row| Ok(RowKey { table: row.get(0)?, id: row.get(1)? }))?;
    let rows = keys.into_iter().map(|key| Ok(RowChange { cells: cells(whole, &key)?, key }));
    let rows = rows.collect::<Result<_, RegistryError>>()?;
    Ok(ChangeDraft { base, id: *uuid::Uuid::new_v4().as_bytes(), rows, touched, events })
}

fn primary_key(table: &str) -> Result<&'static str, RegistryError> {
    let found = TABLES.iter().find(|(name, _)| *name == table);
    found.map(|(_, key)| *key).ok_or_else(|| failed(format!("the table {table:?} is not one that gateways share")))
}

/// Returns rows of the tables that gateways share, in the order of their names, after one of them; at most so many. What an
/// engine is filled with from the registry of a single gateway.
pub(super) fn rows_after(
    connection: &Connection,
    after: Option<&RowKey>,
    max: usize,
) -> Result<Vec<RowChange>, RegistryError> {
    let mut rows = Vec::new();
    for (table, key) in TABLES {
        let from = match after {
            Some(after) if after.table == table => after.id.as_str(),
            Some(after) if is_before(table, &after.table) => continue,
            _ => "",
        };
        let left = i64::try_from(max - rows.len()).unwrap_or(i64::MAX);
        let sql = format!("SELECT {key} FROM {table} WHERE {key} > ?1 ORDER BY {key} LIMIT ?2");
        let ids = all(connection, &sql, params![from, left], |row| row.get::<_, String>(0))?;
        for id in ids {
            let key = RowKey { table: table.to_owned(), id };
            rows.push(RowChange { cells: cells(connection, &key)?, key });
        }
    }
    Ok(rows)
}

/// Whether a table comes before another one.
fn is_before(table: &str, other: &str) -> bool {
    let place = |name: &str| TABLES.iter().position(|(table, _)| *table == name);
    place(table) < place(other)
}

/// Reads a row; `None` if there is none.
fn cells(connection: &Connection, key: &RowKey) -> Result<Option<Vec<(String, CellValue)>>, RegistryError> {
    let sql = format!("SELECT * FROM {} WHERE {} = ?1", key.table, primary_key(&key.table)?);
    let mut statement = connection.prepare_cached(&sql)?;
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let read = |row: &rusqlite::Row<'_>| {
        let cell = |(at, name): (usize, &String)| Ok((name.clone(), row.get_ref(at).map(cell)?));
        names.iter().enumerate().map(cell).collect::<rusqlite::Result<Vec<_>>>()
    };
    let found = statement.query_row([&key.id], read).optional()?;
    found.map(|cells| cells.into_iter().map(|(name, cell)| Ok((name, cell?))).collect()).transpose()
}

fn cell(value: ValueRef<'_>) -> Result<CellValue, RegistryError> {
    Ok(match value {
        ValueRef::Null => CellValue::Null,
        ValueRef::Integer(number) => CellValue::Integer(number),
        ValueRef::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => CellValue::Text(text.to_owned()),
            Err(_) => return Err(failed("a text of the registry's file is not UTF-8".into())),
        },
        ValueRef::Blob(bytes) => CellValue::Blob(bytes.to_vec()),
        ValueRef::Real(_) => return Err(failed("the registry's file has a number with a fraction".into())),
    })
}

impl ToSql for CellValue {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            CellValue::Null => ValueRef::Null,
            CellValue::Integer(number) => ValueRef::Integer(*number),
            CellValue::Text(text) => ValueRef::Text(text.as_bytes()),
            CellValue::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// Puts rows into tables of this prefix, or deletes them. Rows of one table with the same columns, one after the other, take
/// one statement: a complete read has a million of them.
fn put_rows(connection: &Connection, prefix: &str, rows: &[RowChange]) -> Result<(), RegistryError> {
    let mut last: Option<(&RowChange, CachedStatement<'_>)> = None;
    for row in rows {
        let (table, key) = (&row.key.table, primary_key(&row.key.table)?);
        let Some(cells) = &row.cells else {
            let sql = format!("DELETE FROM {prefix}{table} WHERE {key} = ?1");
            connection.prepare_cached(&sql)?.execute([&row.key.id])?;
            continue;
        };
        let (_, statement) = match &mut last {
            Some(there) if has_same_columns(there.0, row) => there,
            other => other.insert((row, connection.prepare_cached(&insert(prefix, table, key, cells)?)?)),
        };
        statement.execute(params_from_iter(cells.iter().map(|(_, cell)| cell)))?;
    }
    Ok(())
}

fn has_same_columns(one: &RowChange, other: &RowChange) -> bool {
    let names = |row: &RowChange| row.cells.iter().flatten().count();
    let all = one.cells.iter().flatten().zip(other.cells.iter().flatten());
    one.key.table == other.key.table && names(one) == names(other) && all.into_iter().all(|((a, _), (b, _))| a == b)
}

/// Returns the statement that puts a row with these columns.
fn insert(prefix: &str, table: &str, key: &str, cells: &[(String, CellValue)]) -> Result<String, RegistryError> {
    let is_plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if let Some((name, _)) = cells.iter().find(|(name, _)| !is_plain(name)) {
        return Err(failed(format!("{name:?} is not the name of a column")));
    }
    let names: Vec<&str> = cells.iter().map(|(name, _)| name.as_str()).collect();
    let places: Vec<String> = (1..=names.len()).map(|at| format!("?{at}")).collect();
    let updates: Vec<String> = names.iter().map(|name| format!("{name} = excluded.{name}")).collect();
    Ok(format!(
        "INSERT INTO {prefix}{table} ({}) VALUES ({}) ON CONFLICT ({key}) DO UPDATE SET {}",
        names.join(", "),
        places.join(", "),
        updates.join(", ")
    ))
}

/// Returns the position of a replica; `None` for a file that was never filled, or is none.
pub(super) fn position(connection: &Connection) -> Result<Option<ReplicaPosition>, RegistryError> {
    let sql = "SELECT number, events, state FROM replica";
    let read = |row: &rusqlite::Row<'_>| {
        let number = |at| row.get::<_, i64>(at).map(i64::unsigned_abs);
        Ok(ReplicaPosition { number: number(0)?, events: number(1)?, state: row.get(2)? })
    };
    Ok(connection.prepare_cached(sql)?.query_row([], read).optional()?)
}

/// Refuses a file that a single gateway has filled: its registry would be lost.
fn must_be_empty(whole: &Connection) -> Result<(), RegistryError> {
    for (table, _) in TABLES {
        if whole.query_row(&format!("SELECT EXISTS (SELECT 1 FROM main.{table})"), [], |row| row.get(0))? {
            return Err(failed(format!(
                "the file has {table} of its own: it is not a replica, and is not replaced by one"
            )));
        }
    }
    Ok(())
}

/// Refuses to change a replica without the engine that all gateways share: the other gateways would not know of it.
pub(super) fn must_be_none(whole: &Connection) -> Result<(), RegistryError> {
    match position_in(whole)? {
        Some(_) => Err(failed(
            "this file is a replica of the registry of several gateways: change it through one of them".into(),
        )),
        None => Ok(()),
    }
}

/// Returns the position of a file that may be no replica: `None`.
pub(super) fn position_in(connection: &Connection) -> Result<Option<ReplicaPosition>, RegistryError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = 'replica')";
    match connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, bool>(0))? {
        true => position(connection),
        false => Ok(None),
    }
}

pub(super) fn store_position(whole: &Connection, position: &ReplicaPosition) -> Result<(), RegistryError> {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let sql = "INSERT INTO replica (one, number, events, state) VALUES (1, ?1, ?2, ?3)
               ON CONFLICT (one) DO UPDATE SET number = ?1, events = ?2, state = ?3";
    let row = params![number(position.number), number(position.events), position.state];
    whole.prepare_cached(sql)?.execute(row)?;
    admin_events::note_after(whole, position.events)
}

/// The registry's file as a replica, with connections of its own.
pub struct SqliteReplica {
    registry: Mutex<Connection>,
    /// Issued tokens are in a separate file.
    issued: Mutex<Connection>,
}

impl SqliteReplica {
    /// Opens the file of a store as a replica.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn open(store: &SqliteStore) -> Result<Self, RegistryError> {
        let connection = schema::registry(&store.path, &store.key)?;
        connection.execute_batch(schema::REPLICA)?;
        // Rows come in any order, and all of them were judged where they were changed.
        connection.execute_batch("PRAGMA foreign_keys = OFF;")?;
        connection.set_prepared_statement_cache_capacity(64);
        let issued = Mutex::new(schema::issued(&store.path)?);
        Ok(SqliteReplica { registry: Mutex::new(connection), issued })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Replica for SqliteReplica {
    fn position(&self) -> Result<Option<ReplicaPosition>, RegistryError> {
        position(&self.connection())
    }

    fn apply(
        &self,
        rows: &[RowChange],
        touched: &[(String, String)],
        next: &ReplicaPosition,
    ) -> Result<(), RegistryError> {
        let mut connection = self.connection();
        let whole = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        match position(&whole)? {
            Some(there) if there.number >= next.number => return Ok(()),
            Some(there) if there.number + 1 == next.number => {}
            there => {
                let number = there.map_or(0, |there| there.number);
                return Err(failed(format!("change {} cannot follow change {number}", next.number)));
            }
        }
        put_rows(&whole, "main.", rows)?;
        schema::note_touched(&whole, touched)?;
        store_position(&whole, next)?;
        whole.commit()?;
        Ok(())
    }

    fn stage(&self, rows: &[RowChange], are_first: bool) -> Result<(), RegistryError> {
        let mut connection = self.connection();
        let whole = connection.transaction()?;
        if are_first {
            for (table, _) in TABLES {
                let sql = "SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND name = ?1";
                let made: String = whole.query_row(sql, [table], |row| row.get(0))?;
                let columns = made.find('(').map(|at| &made[at..]);
                let columns = columns.ok_or_else(|| failed(format!("the table {table} has no columns")))?;
                whole.execute_batch(&format!(
                    "DROP TABLE IF EXISTS temp.staged_{table}; CREATE TEMP TABLE staged_{table} {columns};"
                ))?;
            }
        }
        put_rows(&whole, "temp.staged_", rows)?;
        whole.commit()?;
        Ok(())
    }

    fn install(&self, next: &ReplicaPosition) -> Result<(), RegistryError> {
        let mut connection = self.connection();
        let whole = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        match position(&whole)? {
            Some(there) if there.number >= next.number => return Ok(()),
            Some(_) => {}
            None => must_be_empty(&whole)?,
        }
        for (table, _) in TABLES {
            whole.execute_batch(&format!(
                "DELETE FROM main.{table}; INSERT INTO main.{table} SELECT * FROM temp.staged_{table};
                 DROP TABLE temp.staged_{table};"
            ))?;
        }
        // A change that is missing: whoever follows reads everything.
        whole.execute_batch("INSERT INTO changes (kind, id) VALUES ('staff', ''); DELETE FROM changes;")?;
        store_position(&whole, next)?;
        whole.commit()?;
        Ok(())
    }

    fn add_tokens(&self, tokens: &[TokenRecord]) -> Result<(), RegistryError> {
        issued::add_known(&mut self.issued.lock().unwrap_or_else(PoisonError::into_inner), tokens)
    }
}
