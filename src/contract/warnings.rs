//! What a contract does not state, so that the gateway cannot distinguish two cases: not a fault, but a reason to check
//! again.

use super::map::outcome::OutcomeRules;
use super::plan::{FieldKind, FieldPlan};
use super::{Binding, CallShape, Operation};

/// A warning for the author of a contract; its `Display` is English.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContractWarning {
    /// No response of the source means that there is no such record.
    NoAbsence,
    /// A field by this name is false where it is absent.
    AbsentVerdict(String),
    /// Nothing in a response shows that it is one.
    AnyResponse,
}

impl std::fmt::Display for ContractWarning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ContractWarning::NoAbsence => f.write_str(
                "no sign tells that there is no such record: name one (a code, no_record, empty_is_not_found), or it is a protocol error",
            ),
            ContractWarning::AbsentVerdict(name) => {
                write!(f, "an absent {name:?} reads as false: say `required: true`, or make it `optional`")
            }
            ContractWarning::AnyResponse => {
                f.write_str("its response has no field, and no code indicates success: any JSON document is accepted")
            }
        }
    }
}

impl ContractWarning {
    /// Returns it in Vietnamese.
    pub fn vietnamese(&self) -> String {
        match self {
            ContractWarning::NoAbsence => {
                "không có dấu hiệu nào cho biết bản ghi không tồn tại: hãy khai báo một dấu hiệu (mã, \
                 no_record, empty_is_not_found), nếu không sẽ bị coi là lỗi giao thức"
                    .to_owned()
            }
            ContractWarning::AbsentVerdict(name) => {
                format!("thiếu trường {name:?} thì bị đọc là sai: hãy ghi `required: true`, hoặc đặt là `optional`")
            }
            ContractWarning::AnyResponse => {
                "câu trả lời không có trường nào và không có mã báo thành công: JSON nào cũng được chấp nhận".to_owned()
            }
        }
    }
}

/// Returns what an operation cannot distinguish.
pub fn warnings(operation: &Operation) -> Vec<ContractWarning> {
    // A gRPC source states it by its status.
    if matches!(operation.binding, Binding::Grpc(_)) {
        return Vec::new();
    }
    let mut found = Vec::new();
    let rules: &OutcomeRules = &operation.outcome;
    let one_record = !operation.writes && operation.shape == CallShape::Unary && !only_lists(operation);
    if one_record && !rules.knows_absence() {
        found.push(ContractWarning::NoAbsence);
    }
    for field in operation.response.fields.iter().filter(|field| is_verdict(field)) {
        found.push(ContractWarning::AbsentVerdict(field.name.clone()));
    }
    if operation.response.fields.is_empty() && !rules.has_code() && !matches!(operation.binding, Binding::Soap(_)) {
        found.push(ContractWarning::AnyResponse);
    }
    found
}

/// Returns whether the response consists of lists only: an empty one is a response.
fn only_lists(operation: &Operation) -> bool {
    !operation.response.fields.is_empty()
        && operation.response.fields.iter().all(|field| field.list || field.raw_text_of.is_some())
}

fn is_verdict(field: &FieldPlan) -> bool {
    matches!(field.kind, FieldKind::Bool { .. }) && !field.list && !field.required && !field.field.supports_presence()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::contract::ContractSet;

    #[test]
    fn u1_check_warns_of_what_an_operation_cannot_tell_apart() {
        let operation = |name: &str, answer: &str, more: &str| {
            format!(
                "rpc {name}(M) returns ({answer}) {{ option idempotency_level = NO_SIDE_EFFECTS;\n option (ndxp.contract.v1.operation) = {{ scope: \"w:read\" data_class: OPEN rest: {{ get: \"/{name}\" }} {more} }}; }}\n"
            )
        };
        let text = [
            "syntax = \"proto3\";\npackage w.v1;\nimport \"ndxp/contract/v1/contract.proto\";\nservice W {\n option (ndxp.contract.v1.source) = { id: \"w\" };\n".to_owned(),
            operation("Blind", "R", ""),
            operation("Sees", "R", "outcome: { no_record: { path: \"/x\" } }"),
            operation("Codes", "R", "outcome: { code: \"/c\" success: \"0\" failure: { codes: [\"1\"] meaning: NOT_FOUND } }"),
            operation("Lists", "L", ""),
            operation("Judges", "V", "outcome: { empty_is_not_found: true }"),
            operation("Sure", "W2", "outcome: { empty_is_not_found: true }"),
            operation("Silent", "M", "outcome: { empty_is_not_found: true }"),
            "}\nmessage M {}\nmessage R { string a = 1; }\nmessage L { repeated string a = 1; }\nmessage V { bool a = 1; }\nmessage W2 { bool a = 1 [(ndxp.contract.v1.field).required = true]; optional bool b = 2; }\n".to_owned(),
        ]
        .concat();
        let set = ContractSet::with_text(&text).unwrap();
        let count = |name: &str| warnings(set.operation(&format!("/w.v1.W/{name}")).unwrap()).len();
        let counts = ["Blind", "Sees", "Codes", "Lists", "Judges", "Sure", "Silent"].map(count);
        assert_eq!(counts, [1, 0, 0, 0, 1, 0, 1]);
    }
}
