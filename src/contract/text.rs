//! Texts in the form in which they are compared and sent: Unicode's normalization form C (UAX #15), which sources use
//! for Vietnamese.

use std::borrow::Cow;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// Returns a text in normalization form C. It copies nothing if the text is already in that form.
pub fn nfc(text: &str) -> Cow<'_, str> {
    if text.is_ascii() || is_nfc_quick(text.chars()) == IsNormalized::Yes {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.nfc().collect())
}

/// Returns whether a text has more than `max` characters.
pub fn is_longer(text: &str, most: usize) -> bool {
    // A text has at least as many bytes as characters.
    text.len() > most && text.chars().nth(most).is_some()
}

/// Returns a code in the form for comparison: without surrounding white space, in form C.
pub fn code(text: &str) -> Cow<'_, str> {
    nfc(text.trim())
}

/// Parses a decimal number with an integer value: `5`, `-7`, `5.0`, `1.5E9`. `None` for every other text, and beyond 38
/// digits.
pub fn integer(text: &str) -> Option<i128> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match rest.find(['e', 'E']) {
        Some(at) => (&rest[..at], rest[at + 1..].parse::<i32>().ok().filter(|e| (-1_000..=1_000).contains(e))?),
        None => (rest, 0),
    };
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if before.is_empty() || (mantissa.contains('.') && after.is_empty()) {
        return None;
    }
    if !before.bytes().chain(after.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Trailing zeros are not digits of the fraction.
    let digits = format!("{before}{after}");
    let kept = digits.trim_end_matches('0');
    let zeros = i32::try_from(digits.len() - kept.len()).ok()?;
    let scale = exponent.checked_sub(i32::try_from(after.len()).ok()?)?.checked_add(zeros)?;
    let kept = kept.trim_start_matches('0');
    if kept.is_empty() {
        return Some(0);
    }
    let power = 10i128.checked_pow(u32::try_from(scale).ok()?)?;
    let value = kept.parse::<i128>().ok()?.checked_mul(power)?;
    Some(if negative { -value } else { value })
}

/// Returns a code of `width` digits that may have become a number on its way: `6673` and `6673.0` are `06673`. Other
/// texts stay.
pub fn digits(text: &str, width: usize) -> Cow<'_, str> {
    if text.len() >= width && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Cow::Borrowed(text);
    }
    match integer(text) {
        Some(number) if number >= 0 => Cow::Owned(format!("{number:0width$}")),
        _ => Cow::Borrowed(text),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn u3_whole_numbers_are_whole_however_they_are_written() {
        for (text, number) in [
            ("5", 5),
            ("-7", -7),
            ("5.0", 5),
            ("1000.000", 1_000),
            ("1.5E9", 1_500_000_000),
            ("1.5e+9", 1_500_000_000),
            ("20000000000.000", 20_000_000_000),
            ("120e-1", 12),
            ("0", 0),
            ("0.00e7", 0),
            ("007", 7),
        ] {
            assert_eq!(integer(text), Some(number), "{text}");
        }
        for text in ["", "-", "5.5", "1e-1", ".5", "5.", "0x10", "1e", "1e99999", "1,000", "٣", " 5", "NaN", "1e40"] {
            assert_eq!(integer(text), None, "{text}");
        }
    }

    #[test]
    fn codes_that_became_numbers_have_their_zeros_again_and_other_texts_stay() {
        for (text, width, code) in [
            ("6673", 5, "06673"),
            ("6673.0", 5, "06673"),
            ("06673", 5, "06673"),
            ("99.0", 1, "99"),
            ("0099", 1, "0099"),
            ("DC-12", 1, "DC-12"),
            ("99.5", 1, "99.5"),
            ("-3", 3, "-3"),
        ] {
            assert_eq!(digits(text, width), code, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_integer_is_read_back(number in any::<i64>(), zeros in 0usize..6) {
            prop_assert_eq!(integer(&number.to_string()), Some(i128::from(number)));
            let fraction = "0".repeat(zeros + 1);
            prop_assert_eq!(integer(&format!("{number}.{fraction}")), Some(i128::from(number)));
            prop_assert_eq!(integer(&format!("{number}{}e-{zeros}", "0".repeat(zeros))), Some(i128::from(number)));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            let (_, _) = (integer(&text), digits(&text, 5));
            prop_assert!(is_nfc_quick(nfc(&text).chars()) != IsNormalized::No);
        }
    }
}
