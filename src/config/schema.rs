//! JSON Schema (draft 2020-12) of the gateway's file, for editors. The reader itself makes it: what it asks a file for is
//! what the schema has. Descriptions are those of docs/configuration.md.

use super::reader::Document;
use super::recorder::RecordedKey;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

const DESCRIPTIONS: &str = include_str!("../../docs/configuration.md");

/// A key's row in docs/configuration.md.
struct KeyRow {
    default: String,
    meaning: String,
}

/// The rows of the table under a heading, by key. `.name` has the table of the key before it.
fn rows(heading: &str) -> BTreeMap<String, KeyRow> {
    let section = DESCRIPTIONS.split("\n## ").find(|section| section.starts_with(heading)).unwrap_or_default();
    let mut all = BTreeMap::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let mut cells = line.trim_matches('|').split(" | ").map(str::trim);
        let (keys, default) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
        let meaning = cells.collect::<Vec<_>>().join(" | ").replace('`', "");
        let mut table = "";
        for key in keys.split(", ").map(|key| key.trim_matches('`')) {
            let full = if key.starts_with('.') { format!("{table}{key}") } else { key.to_owned() };
            table = if key.starts_with('.') { table } else { key.rsplit_once('.').map_or("", |(table, _)| table) };
            all.insert(full, KeyRow { default: default.replace('`', ""), meaning: meaning.clone() });
        }
    }
    all
}

/// Adds its description, and leaves out a default that depends on the machine or on other keys.
fn described(schema: &mut Value, row: Option<&KeyRow>) {
    let (Some(row), Value::Object(schema)) = (row, schema) else { return };
    let digits = |text: &str| text.replace(',', "").parse::<u64>().ok();
    let given =
        schema.get("default").is_some_and(|default| default.is_boolean() || default.as_u64() == digits(&row.default));
    let mut description = row.meaning.clone();
    if !given {
        schema.remove("default");
        if !row.default.is_empty() {
            description = format!("{description}. Default: {}", row.default);
        }
    }
    schema.insert("description".into(), description.into());
}

/// Puts a key into the object of its table.
fn put(root: &mut Map<String, Value>, key: &str, recorded: &RecordedKey) {
    let (table, name) = key.rsplit_once('.').map_or((None, key), |(table, name)| (Some(table), name));
    let mut object = root;
    for part in table.into_iter().flat_map(|table| table.split('.')) {
        let Some(below) = object
            .entry("properties")
            .or_insert_with(|| json!({}))
            .as_object_mut()
            .and_then(|properties| properties.entry(part).or_insert_with(|| json!({})).as_object_mut())
        else {
            return;
        };
        object = below;
    }
    if let Some(properties) = object.entry("properties").or_insert_with(|| json!({})).as_object_mut() {
        properties.entry(name).or_insert_with(|| recorded.schema.clone());
    }
    if let Some(required) =
        object.entry("required").or_insert_with(|| json!([])).as_array_mut().filter(|_| recorded.needed)
    {
        required.push(name.into());
    }
}

/// Returns the schema of gateway.toml.
pub fn gateway() -> Value {
    let mut keys = Document::recorded(Path::new("gateway.toml"), super::read);
    let rows = rows("gateway.toml");
    for (key, recorded) in &mut keys {
        described(&mut recorded.schema, rows.get(key));
    }
    let mut root = Map::new();
    root.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    root.insert("title".into(), "gateway.toml of the NDXP gateway".into());
    root.insert("type".into(), "object".into());
    root.insert("additionalProperties".into(), false.into());
    // Tables before the keys in them, as names are sorted.
    for (key, recorded) in &keys {
        put(&mut root, key, recorded);
    }
    root.into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_key_that_is_read_is_documented_and_no_other() {
        let keys = Document::recorded(Path::new("gateway.toml"), super::super::read);
        let is_table = |key: &RecordedKey| key.schema["type"] == "object";
        let read: Vec<&String> = keys.iter().filter(|(_, key)| !is_table(key)).map(|(name, _)| name).collect();
        let rows = rows("gateway.toml");
        assert_eq!(read, rows.keys().collect::<Vec<_>>());
        // A default of the document is that of the program.
        for (name, key) in keys.iter().filter(|(_, key)| key.schema["default"].is_u64()) {
            if let Ok(written) = rows[name].default.replace(',', "").parse::<u64>() {
                assert_eq!(key.schema["default"], written, "{name}");
            }
        }
    }

    #[test]
    fn a_schema_has_types_bounds_and_what_must_be_given() {
        let schema = gateway();
        let listen = &schema["properties"]["listen"];
        assert_eq!(schema["required"], json!(["data", "hubs_dir", "node", "sources_dir"]));
        assert_eq!((&listen["type"], &listen["additionalProperties"]), (&json!("object"), &json!(false)));
        let streams = &listen["properties"]["max_streams_per_connection"];
        assert_eq!(
            (&streams["minimum"], &streams["maximum"], &streams["default"]),
            (&json!(1), &json!(10_000), &json!(256))
        );
        assert!(listen["properties"]["workers"]["description"].as_str().unwrap().ends_with("Default: one a core"));
        assert!(listen["properties"]["workers"]["default"].is_null());
        let pin = &schema["properties"]["keys"]["properties"]["pkcs11"]["properties"]["pin"];
        assert!(pin["oneOf"].is_array() && pin.get("type").is_none(), "{pin}");
    }
}
