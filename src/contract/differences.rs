//! Differences between two messages of a contract, by field path: never by value.

use prost_reflect::{DynamicMessage, ReflectMessage, Value};
use std::collections::BTreeSet;

/// Adds the path of every field in which the messages differ; `above` is the path of the messages themselves. Lists are
/// compared item by item; a longer list differs as a whole, and in the items that both have.
pub fn differences(one: &DynamicMessage, other: &DynamicMessage, above: &str, found: &mut BTreeSet<String>) {
    for field in one.descriptor().fields() {
        let path = if above.is_empty() { field.name().to_owned() } else { format!("{above}.{}", field.name()) };
        if one.has_field(&field) != other.has_field(&field) {
            found.insert(path);
            continue;
        }
        compare(&one.get_field(&field), &other.get_field(&field), &path, found);
    }
}

fn compare(one: &Value, other: &Value, path: &str, found: &mut BTreeSet<String>) {
    match (one, other) {
        (Value::Message(one), Value::Message(other)) => differences(one, other, path, found),
        (Value::List(one), Value::List(other)) => {
            if one.len() != other.len() {
                found.insert(path.to_owned());
            }
            one.iter().zip(other).for_each(|(one, other)| compare(one, other, path, found));
        }
        (one, other) if one != other => drop(found.insert(path.to_owned())),
        _ => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::contract::ContractSet;
    use serde_json::json;

    #[test]
    fn fields_that_differ_are_told_by_path_at_every_depth() {
        let contracts = ContractSet::embedded().unwrap();
        let operation = contracts.operation("/ndxp.population.v1.PopulationService/GetCitizen").unwrap();
        let message = |value| DynamicMessage::deserialize(operation.response.message.clone(), value).unwrap();
        let one = json!({ "citizenId": "022055356620", "name": { "given": "An" }, "gender": "MALE" });
        let differing = |other| {
            let mut found = BTreeSet::new();
            differences(&message(one.clone()), &message(other), "", &mut found);
            found.into_iter().collect::<Vec<_>>()
        };
        assert!(differing(one.clone()).is_empty());
        let other = json!({ "citizenId": "022055356621", "name": { "given": "Bình" }, "bloodType": "A" });
        let found = differing(other);
        assert!(
            ["citizen_id", "gender", "name.given"].iter().all(|path| found.contains(&(*path).to_owned())),
            "{found:?}"
        );
        assert!(!found.iter().any(|path| path.contains("An") || path.contains("022")));
    }
}
