//! Operations as people name them: in full, without the package, or by the method alone where only one has it.

use super::{CliError, suggestion};
use crate::contract::{ContractSet, Operation};
use std::sync::Arc;

/// Returns the operation of this name.
///
/// # Errors
/// None has it, which names the nearest one; or several have it.
pub fn find(contracts: &ContractSet, name: &str) -> Result<Arc<Operation>, CliError> {
    let exact = contracts.named(name);
    let by_method = || contracts.operations().into_iter().filter(|one| one.name == name).collect();
    let found: Vec<&Arc<Operation>> = if exact.is_empty() { by_method() } else { exact };
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(unknown(contracts, name)),
        several => {
            let names: Vec<&str> = several.iter().map(|one| one.full_name.as_str()).collect();
            Err(CliError::Usage(format!("{name:?} is not unique: {}", names.join(", "))))
        }
    }
}

/// The error for a name that no contract has, with the nearest one there is: of an operation, or of a source.
pub fn unknown(contracts: &ContractSet, name: &str) -> CliError {
    let mut known: Vec<String> = contracts.sources().iter().map(|source| source.id.clone()).collect();
    for operation in contracts.operations() {
        known.push(operation.name.clone());
        known.push(operation.full_name.rsplit('.').next().unwrap_or_default().to_owned());
    }
    let hint = match suggestion::nearest(known.iter().map(String::as_str), name) {
        Some(near) => format!("did you mean {near}?"),
        None => "`ndxp-gateway contract list` lists them".to_owned(),
    };
    CliError::Usage(format!("no contract has {name:?}: {hint}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_where_it_is_unique_and_else_the_nearest_is_named() {
        let contracts = ContractSet::embedded().unwrap();
        let found =
            |name: &str| find(&contracts, name).map(|one| one.full_name.clone()).map_err(|error| error.to_string());
        let full = "ndxp.budgetunit.v1.BudgetUnitService/GetUnit";
        for name in [full, "BudgetUnitService/GetUnit", "GetUnit"] {
            assert_eq!(found(name).as_deref(), Ok(full), "{name}");
        }
        for (wrong, near) in [
            ("GetUnt", "GetUnit"),
            ("BudgetUnitService/GetUnt", "BudgetUnitService/GetUnit"),
            ("popolation", "population"),
        ] {
            assert_eq!(found(wrong).unwrap_err(), format!("no contract has {wrong:?}: did you mean {near}?"));
        }
        assert!(found("nothing like it").unwrap_err().ends_with("contract list` lists them"));
    }
}
