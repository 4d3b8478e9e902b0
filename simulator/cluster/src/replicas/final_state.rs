//! What is in etcd and in the files at the end, and whether it keeps the rules of the registry.

use crate::cluster::ClusterError;
use crate::cluster::batch::{self, WriterBatch};
use crate::cluster::member::{KeyValue, RangePage, RangeRead};
use crate::cluster::registry::RegistryHead;
use crate::cluster::registry::change::{ROWS, VERSION, decode_row, row_key};
use crate::registry::replication::{CellValue, RowKey};
use crate::registry::sqlite::SqliteStore;
use crate::registry::{Role, Store, admin_event::canonical_json};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// All rows, by the keys that they have in etcd.
pub type Rows = BTreeMap<Vec<u8>, Vec<(String, CellValue)>>;

const TABLES: [(&str, &str); 8] = [
    ("clients", "id"),
    ("grants", "id"),
    ("identities", "name"),
    ("keys", "kid"),
    ("notices", "source"),
    ("pending", "id"),
    ("revocations", "token"),
    ("staff", "id"),
];

/// An event as it is in the log.
struct Event {
    tag: String,
    approved_by: String,
    /// Object, record before and after.
    changes: Vec<[String; 3]>,
}

/// Everything of the registry that is in etcd.
pub struct Contents {
    head: RegistryHead,
    rows: Vec<KeyValue>,
    batches: Vec<KeyValue>,
}

impl Contents {
    /// Reads everything, page by page; nothing changes meanwhile.
    pub fn read(range: impl Fn(&RangeRead) -> Result<RangePage, ClusterError>) -> Result<Self, String> {
        let all = |mut read: RangeRead| {
            let mut found = Vec::new();
            loop {
                let page = range(&read).map_err(|error| error.to_string())?;
                found.extend(page.entries);
                let Some(last) = found.last().filter(|_| page.has_more) else { return Ok::<_, String>(found) };
                read.from = [last.key.as_slice(), &[0]].concat();
            }
        };
        let head = all(RangeRead::key(VERSION))?;
        let head = RegistryHead::decode(&head.first().ok_or("the head is gone")?.value);
        let head = head.map_err(|error| error.to_string())?;
        let prefix = |prefix: &[u8]| RangeRead { limit: 100, ..RangeRead::prefix(prefix) };
        let batches = all(prefix(format!("log/{}/", head.writer).as_bytes()))?;
        Ok(Contents { head, rows: all(prefix(ROWS))?, batches })
    }

    /// The rows.
    pub fn rows(&self) -> Result<Rows, String> {
        let row = |entry: &KeyValue| {
            let row = decode_row(&entry.key, &entry.value).map_err(|error| error.to_string())?;
            Ok((entry.key.clone(), row.cells.unwrap_or_default()))
        };
        self.rows.iter().map(row).collect()
    }
}

/// The rows in a file, read without the gateway's own source.
pub fn rows_in_file(path: &Path) -> Result<Rows, String> {
    let read = || -> rusqlite::Result<Rows> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let mut rows = Rows::new();
        for (table, key) in TABLES {
            let mut statement = connection.prepare(&format!("SELECT {key} AS row_id, * FROM {table}"))?;
            let names: Vec<String> = statement.column_names().into_iter().skip(1).map(str::to_owned).collect();
            let mut found = statement.query([])?;
            while let Some(row) = found.next()? {
                let id = RowKey { table: table.into(), id: row.get(0)? };
                let cell = |(at, name): (usize, &String)| {
                    let value = match row.get::<_, rusqlite::types::Value>(at + 1)? {
                        rusqlite::types::Value::Integer(number) => CellValue::Integer(number),
                        rusqlite::types::Value::Text(text) => CellValue::Text(text),
                        rusqlite::types::Value::Blob(bytes) => CellValue::Blob(bytes),
                        _ => CellValue::Null,
                    };
                    Ok((name.clone(), value))
                };
                let cells = names.iter().enumerate().map(cell).collect::<rusqlite::Result<Vec<_>>>()?;
                rows.insert(row_key(&id), cells);
            }
        }
        Ok(rows)
    };
    read().map_err(|error| error.to_string())
}

/// A token that was handed out and that a gateway does not list.
pub fn missing_token(registry: &Path, issued: &BTreeSet<String>) -> Result<Option<String>, String> {
    let read = || -> rusqlite::Result<BTreeSet<String>> {
        let path = registry.with_file_name("issued.sqlite");
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.prepare("SELECT id FROM tokens")?.query_map([], |row| row.get(0))?.collect()
    };
    let there = read().map_err(|error| error.to_string())?;
    Ok(issued.difference(&there).next().cloned())
}

/// The entries of the events in their order: one batch for each change, each naming the one before it.
pub fn batched_entries(contents: &Contents) -> Result<Vec<Vec<u8>>, String> {
    let RegistryHead { writer, number, .. } = &contents.head;
    let (mut before, mut entries) = (batch::BatchHash::default(), Vec::new());
    for (at, entry) in contents.batches.iter().enumerate() {
        let read = WriterBatch::decode(&entry.value, writer, at as u64 + 1).map_err(|error| error.to_string())?;
        if read.before != before {
            return Err(format!("the batch of change {} does not follow the one before it", at + 1));
        }
        before = batch::hash(&entry.value);
        entries.extend(read.entries);
    }
    match contents.batches.len() as u64 == *number {
        true => Ok(entries),
        false => Err(format!("{} changes have events, {number} were made", contents.batches.len())),
    }
}

/// Reads the events from their entries: their numbers have no gap.
fn events(entries: &[Vec<u8>], before: u64) -> Result<Vec<Event>, String> {
    let read = |(at, entry): (usize, &Vec<u8>)| {
        let value: Value = serde_json::from_slice(entry).map_err(|error| error.to_string())?;
        let number = before + at as u64 + 1;
        if value["sequence"] != number {
            return Err(format!("event {} is in the place of event {number}", value["sequence"]));
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let changes = value["changes"].as_array().into_iter().flatten();
        Ok(Event {
            tag: text(&value["tag"]),
            approved_by: text(&value["approved_by"]),
            changes: changes.map(|one| [0, 1, 2].map(|at| text(&one[at]))).collect(),
        })
    };
    entries.iter().enumerate().map(read).collect()
}

/// Checks the rules in the entries of all events and in a store of the final state; returns the tags of the changes that count.
/// `before` is the number of the last event before them.
pub fn check(
    contents: &Contents,
    entries: &[Vec<u8>],
    before: u64,
    store: &SqliteStore,
) -> Result<Vec<String>, String> {
    let events = events(entries, before)?;
    let mut records: BTreeMap<&str, &str> = BTreeMap::new();
    for event in &events {
        let approves_change = event.changes.iter().any(|[object, ..]| object.starts_with("change:"));
        for [object, was, after] in &event.changes {
            // Of a change that was asked for, whoever has asked for it counts, not who has once asked for its object.
            if !approves_change || object.starts_with("change:") {
                is_another_person(event, was)?;
            }
            // A token that is shown has no record before.
            if !object.starts_with("token:") {
                let there = records.insert(object, after).unwrap_or("null");
                if there != was {
                    return Err(format!("{}: {object} was {there} and not {was}", event.tag));
                }
            }
        }
    }
    same_records(&records, store)?;
    one_holder_each(store)?;
    // A change may have several events, one after the other.
    let mut made: Vec<String> = events.into_iter().map(|event| event.tag).collect();
    made.dedup();
    match made.len() as u64 == contents.head.number {
        true => Ok(made),
        false => Err(format!("{} changes are in the log, {} were made", made.len(), contents.head.number)),
    }
}

/// Whoever has approved something has not asked for it.
fn is_another_person(event: &Event, before: &str) -> Result<(), String> {
    let before: Value = serde_json::from_str(before).map_err(|error| error.to_string())?;
    let asked = before["requested_by"].as_str().unwrap_or_default();
    match !event.approved_by.is_empty() && asked == event.approved_by {
        true => Err(format!("{}: {asked} has approved what they asked for", event.tag)),
        false => Ok(()),
    }
}

/// The registry can be recomputed from the log alone.
fn same_records(records: &BTreeMap<&str, &str>, store: &SqliteStore) -> Result<(), String> {
    let staff = store.staff().map_err(|error| error.to_string())?;
    for (object, after) in records {
        let Some((kind, id)) = object.split_once(':') else { continue };
        let there = match kind {
            "client" => store.client(id).ok().and_then(|one| serde_json::to_value(one).ok()),
            "grant" => store.grant(id).ok().and_then(|one| serde_json::to_value(one).ok()),
            "staff" => staff.iter().find(|one| one.id == id).and_then(|one| serde_json::to_value(one).ok()),
            _ => continue,
        };
        let there = canonical_json(&there.unwrap_or(Value::Null));
        if there != **after {
            return Err(format!("{object} is {there}, and {after} by the log"));
        }
    }
    for role in [Role::Administrator, Role::Approver] {
        if !staff.is_empty() && !staff.iter().any(|person| person.roles.contains(&role)) {
            return Err(format!("no {role:?} is left"));
        }
    }
    Ok(())
}

/// Each certificate name has the one owner who lists it.
fn one_holder_each(store: &SqliteStore) -> Result<(), String> {
    let failed = |error: crate::registry::RegistryError| error.to_string();
    let clients = store.clients(crate::registry::Page { max: 1000, ..crate::registry::Page::ALL }).map_err(failed)?;
    let clients = clients.iter().map(|client| (format!("client:{}", client.id), client.names.clone()));
    let staff = store.staff().map_err(failed)?;
    let staff = staff.iter().map(|person| (format!("staff:{}", person.id), person.names.clone()));
    for (owner, names) in clients.chain(staff) {
        for name in names {
            let owners = store.owners(std::slice::from_ref(&name)).map_err(failed)?;
            if owners != [owner.as_str()] {
                return Err(format!("{name} is {owner}'s, and belongs to {owners:?}"));
            }
        }
    }
    Ok(())
}
