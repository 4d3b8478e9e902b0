//! What contracts say of their own declarations in comments: the Vietnamese and English words for people.

use prost_reflect::{FieldDescriptor, FileDescriptor, MethodDescriptor};

/// The comment above a method, on one line; empty where there is none.
pub fn of_method(method: &MethodDescriptor) -> String {
    above(&method.parent_file(), method.path())
}

/// The comment above a field, on one line; empty where there is none.
pub fn of_field(field: &FieldDescriptor) -> String {
    above(&field.parent_file(), field.path())
}

fn above(file: &FileDescriptor, path: &[i32]) -> String {
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let found = info.and_then(|info| info.location.iter().find(|location| location.path == path));
    let text = found.map(|location| location.leading_comments()).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::contract::ContractSet;

    #[test]
    fn the_words_of_a_contract_are_those_above_its_declarations() {
        let contracts = ContractSet::embedded().unwrap();
        let operation = contracts.operation("/ndxp.population.v1.PopulationService/VerifyCitizen").unwrap();
        assert!(of_method(&operation.method).contains("xác thực thông tin công dân"));
        let words = |name: &str| of_field(&operation.request.field(name).unwrap().field);
        assert_eq!(
            (words("citizen_id").as_str(), words("full_name").as_str()),
            ("Số định danh cá nhân.", "Họ và tên.")
        );
        // Every field of every operation has its words.
        for operation in contracts.operations() {
            for field in operation.request.fields.iter().chain(&operation.response.fields) {
                assert!(!of_field(&field.field).is_empty(), "{} of {}", field.name, operation.full_name);
            }
        }
    }
}
