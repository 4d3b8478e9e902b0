//! `[drift]` of a connection entry: the policy for responses with drift, for all of a source's operations and for each.

use super::reader::Table;
use crate::contract::Operation;
use crate::contract::drift::DriftPolicy;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The policies of a connection entry. It may only tighten the contract's policy.
#[derive(Debug, Clone, Default)]
pub struct DriftPolicies {
    all: Option<DriftPolicy>,
    own: BTreeMap<String, DriftPolicy>,
}

impl DriftPolicies {
    /// Returns the policy of an operation: the entry's for this operation, else the entry's for all, else the
    /// contract's, else to warn; but never a looser one than the contract's.
    pub fn of(&self, operation: &Operation) -> DriftPolicy {
        let said = self.own.get(&operation.name).copied().or(self.all);
        match (said, operation.drift) {
            (Some(said), Some(contract)) => said.max(contract),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => DriftPolicy::default(),
        }
    }
}

/// Reads `[drift]`: `all`, and a line for each operation with a separate policy (`GetParcel = "refuse"`).
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::contract::ContractSet;

    #[test]
    fn an_entry_tightens_what_a_contract_says_and_never_loosens_it() {
        let contract = |drift: &str| {
            format!(
                "syntax = \"proto3\";\npackage p.v1;\nimport \"ndxp/contract/v1/contract.proto\";\nservice P {{\n option (ndxp.contract.v1.source) = {{ id: \"p\" }};\n rpc Get(M) returns (M) {{ option (ndxp.contract.v1.operation) = {{ scope: \"p:read\" data_class: OPEN rest: {{ get: \"/a\" }} {drift} }}; }}\n}}\nmessage M {{ string a = 1; }}\n"
            )
        };
        let operation =
            |drift: &str| ContractSet::with_text(&contract(drift)).unwrap().operation("/p.v1.P/Get").unwrap().clone();
        let entry = |all: Option<DriftPolicy>, own: Option<DriftPolicy>| DriftPolicies {
            all,
            own: own.map(|policy| ("Get".to_owned(), policy)).into_iter().collect(),
        };
        use DriftPolicy::{Pass, Refuse, Warn};
        let (silent, refusing) = (operation(""), operation("drift: REFUSE"));
        for (all, own, of_silent, of_refusing) in [
            (None, None, Warn, Refuse),
            (Some(Pass), None, Pass, Refuse),
            (Some(Refuse), None, Refuse, Refuse),
            (Some(Refuse), Some(Pass), Pass, Refuse),
            (Some(Pass), Some(Refuse), Refuse, Refuse),
        ] {
            let policies = entry(all, own);
            assert_eq!((policies.of(&silent), policies.of(&refusing)), (of_silent, of_refusing), "{all:?} {own:?}");
        }
    }
}
