//! The contracts' own Vietnamese words for their fields: the comment above a field begins with them.

use prost_reflect::{FieldDescriptor, MessageDescriptor};

/// Longest comment that is read, in bytes: its first words are wanted.
const MAX_COMMENT: usize = 2_000;

/// The Vietnamese words of a response's field, by the name of the field (of a path: its first part); `None` where the contract has none.
pub fn vietnamese(message: &MessageDescriptor, path: &str) -> Option<String> {
    let name = path.split('.').next()?;
    words(&comment(&message.get_field_by_name(name)?)?)
}

fn comment(field: &FieldDescriptor) -> Option<String> {
    let file = field.parent_file();
    let info = file.file_descriptor_proto().source_code_info.as_ref()?;
    let location = info.location.iter().find(|location| location.path == field.path())?;
    location.leading_comments.clone().filter(|text| text.len() <= MAX_COMMENT)
}

/// The first words, up to where English begins: a Vietnamese phrase has a letter that English does not, or is two words at most.
fn words(comment: &str) -> Option<String> {
    let text = comment.trim();
    let end = text.find(['.', ',', ';', ':', '(', '\n']).unwrap_or(text.len());
    let phrase = text.get(..end)?.trim();
    let vietnamese = !phrase.is_ascii() || phrase.split_whitespace().count() <= 2;
    (vietnamese && !phrase.is_empty()).then(|| phrase.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::contract::ContractSet;

    #[test]
    fn a_field_s_words_are_those_before_the_english_ones() {
        assert_eq!(words(" Dân tộc, by code (01 Kinh).\n").as_deref(), Some("Dân tộc"));
        assert_eq!(words(" Cha.\n").as_deref(), Some("Cha"));
        assert_eq!(words(" Số chứng minh nhân dân (9 digits)").as_deref(), Some("Số chứng minh nhân dân"));
        assert_eq!((words(" The source's code of the sex, where it is none."), words("")), (None, None));
    }

    #[test]
    fn the_embedded_contracts_have_words_for_what_citizens_are_informed_of() {
        let contracts = ContractSet::embedded().unwrap();
        let operation = contracts.operation("/ndxp.population.v1.PopulationService/GetCitizen").unwrap();
        let output = operation.method.output();
        assert_eq!(vietnamese(&output, "religion_code").as_deref(), Some("Tôn giáo"));
        assert_eq!(vietnamese(&output, "permanent_address.detail").as_deref(), Some("Thường trú"));
        assert_eq!((vietnamese(&output, "gender_text"), vietnamese(&output, "none")), (None, None));
    }
}
