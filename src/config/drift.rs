//! `[drift]` of a connection entry: what becomes of answers that have drifted from their contract, for all of a source's operations and
//! for each.

use super::reader::Table;
use crate::contract::Operation;
use crate::contract::drift::DriftPolicy;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The policies of a connection entry. It may only tighten what a contract says.
#[derive(Debug, Clone, Default)]
pub struct DriftPolicies {
    all: Option<DriftPolicy>,
    own: BTreeMap<String, DriftPolicy>,
}

impl DriftPolicies {
    /// The policy of an operation: the entry's own for it, else the entry's for all, else the contract's, else to warn; but never a
    /// looser one than the contract's.
    pub fn of(&self, operation: &Operation) -> DriftPolicy {
        let said = self.own.get(&operation.name).copied().or(self.all);
        match (said, operation.drift) {
            (Some(said), Some(contract)) => said.max(contract),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => DriftPolicy::default(),
        }
    }
}

/// Reads `[drift]`: `all`, and a line for each operation that has its own (`GetParcel = "refuse"`).
pub(super) fn read(table: &Table<'_>, operations: &[&Arc<Operation>]) -> DriftPolicies {
    let policy = |table: &Table<'_>, name: &str| {
        let text = table.text(name)?;
        let policy = DriftPolicy::named(&text);
        if policy.is_none() {
            table.fault(name, "must be \"pass\", \"warn\" or \"refuse\"");
        }
        policy
    };
    let looser = |table: &Table<'_>, name: &str, policy: DriftPolicy, operation: &Operation| {
        if let Some(contract) = operation.drift.filter(|contract| policy < *contract) {
            let (name_of, contract) = (&operation.name, contract.as_str());
            table.fault(name, format!("the contract of {name_of} says {contract}: an entry cannot loosen it"));
        }
    };
    table.section("drift", |table| {
        let all = policy(table, "all");
        let mut own = BTreeMap::new();
        for operation in operations {
            if let Some(policy) = policy(table, &operation.name) {
                looser(table, &operation.name, policy, operation);
                own.insert(operation.name.clone(), policy);
            }
        }
        DriftPolicies { all, own }
    })
}
