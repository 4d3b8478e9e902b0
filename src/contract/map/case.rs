//! The case that a source requires for texts.

use crate::contract::options::Case;
use crate::contract::text::nfc;
use unicode_normalization::char::{decompose_canonical, is_combining_mark};

/// Returns the case with this name in a connection entry.
pub fn case_named(name: &str) -> Option<Case> {
    match name {
        "as-given" => Some(Case::AsGiven),
        "upper" => Some(Case::Upper),
        "folded" => Some(Case::Folded),
        _ => None,
    }
}

/// Returns the text in the case that the source expects, always in normalization form C: sources compare texts as they
/// are stored.
pub(super) fn in_case(case: Case, text: &str) -> String {
    match case {
        Case::AsGiven => nfc(text).into_owned(),
        Case::Upper => nfc(&text.to_uppercase()).into_owned(),
        Case::Folded => folded(text),
    }
}

/// Upper case, without diacritics and blanks; Đ, which has no decomposition, becomes D.
pub fn folded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii() {
            if !character.is_whitespace() {
                out.push(character.to_ascii_uppercase());
            }
            continue;
        }
        // Each character alone: canonical order moves only marks, and those are omitted.
        decompose_canonical(character, |part| match part {
            'đ' | 'Đ' => out.push('D'),
            part if part.is_ascii() => out.push(part.to_ascii_uppercase()),
            part if is_combining_mark(part) || part.is_whitespace() => {}
            part => out.extend(part.to_uppercase()),
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use unicode_normalization::UnicodeNormalization;

    #[test]
    fn a_name_is_folded_as_clients_of_the_population_database_do() {
        for (name, wanted) in [
            ("Vũ Quang Thắng", "VUQUANGTHANG"),
            ("Đỗ Văn Sơn", "DOVANSON"),
            ("đặng thị ái", "DANGTHIAI"),
            // Decomposed letters, and another kind of blank.
            ("Vu\u{303} Quang\u{a0}Tha\u{306}\u{301}ng", "VUQUANGTHANG"),
            ("Y'Hoa", "Y'HOA"),
        ] {
            assert_eq!(folded(name), wanted);
        }
        assert_eq!(in_case(Case::Upper, "Đỗ Sơn"), "ĐỖ SƠN");
        assert_eq!(in_case(Case::AsGiven, "Đỗ Sơn"), "Đỗ Sơn");
    }

    proptest! {
        /// Character by character gives the same result as UAX #15 on the complete text, marks and blanks omitted.
        #[test]
        fn folding_is_decomposing_without_marks(text in "[\\u{0}-\\u{1fff}\\u{ac00}-\\u{ac20}\\u{fb00}-\\u{fb4f}]{0,20}") {
            let plain = text.nfd().filter(|c| !is_combining_mark(*c) && !c.is_whitespace());
            let whole: String = plain.flat_map(char::to_uppercase).map(|c| if c == 'Đ' { 'D' } else { c }).collect();
            prop_assert_eq!(folded(&text), whole);
        }
    }
}
