//! `xsd:time` and `xsd:duration` (XML Schema 1.1, part 2, sections 3.3.8 and 3.3.6), each in one form: that of their
//! canonical mappings. A time keeps its zone, since without a date a change of zone could change the day.

/// Longest text that is accepted.
const MAX_LENGTH: usize = 64;
/// Maximum zone offset from UTC in minutes.
const MAX_ZONE: u32 = 14 * 60;

/// Normalizes a time of day: `HH:mm:ss`, a fraction without trailing zeros, `Z` or the original zone; `24:00:00` is
/// `00:00:00`. `None` for anything else.
pub fn time(text: &str) -> Option<String> {
    if text.len() > MAX_LENGTH || !text.is_ascii() {
        return None;
    }
    let (clock, rest) = text.split_at_checked(8)?;
    let [hour, minute, second] = clock.split(':').map(two).collect::<Option<Vec<_>>>()?.try_into().ok()?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            (Some(&rest[..end]).filter(|digits| !digits.is_empty())?, &rest[end..])
        }
        None => ("", rest),
    };
    let fraction = fraction.trim_end_matches('0');
    let hour = match (hour, minute, second, fraction) {
        (24, 0, 0, "") => 0,
        (0..24, 0..60, 0..60, _) => hour,
        _ => return None,
    };
    let point = if fraction.is_empty() { "" } else { "." };
    Some(format!("{hour:02}:{minute:02}:{second:02}{point}{fraction}{}", self::zone(zone)?))
}

fn two(digits: &str) -> Option<u32> {
    (digits.len() == 2).then(|| number(digits))?.and_then(|number| u32::try_from(number).ok())
}

fn zone(text: &str) -> Option<&str> {
    if matches!(text, "" | "Z") {
        return Some(text);
    }
    let (hours, minutes) = text.strip_prefix(['+', '-'])?.split_once(':')?;
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    let offset = hours * 60 + minutes;
    let valid = minutes < 60 && offset <= MAX_ZONE;
    valid.then_some(if offset == 0 { "Z" } else { text })
}

/// Digits alone.
fn number(digits: &str) -> Option<u64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Normalizes a duration: years and months, then days, hours, minutes and seconds, each below the next larger unit's
/// size, zero parts omitted (`P1Y14M` is `P2Y2M`, `PT36H` is `P1DT12H`, an empty one is `PT0S`). Months and days are
/// never converted to each other. `None` for anything else, and beyond 64 bits.
pub fn duration(text: &str) -> Option<String> {
    if text.len() > MAX_LENGTH {
        return None;
    }
    let (minus, rest) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let rest = rest.strip_prefix('P')?;
    let (date, clock) = match rest.split_once('T') {
        Some((_, "")) => return None,
        Some((date, clock)) => (date, clock),
        None if rest.is_empty() => return None,
        None => (rest, ""),
    };
    let [years, months, days] = parts(date, ['Y', 'M', 'D'])?;
    let (clock, fraction) = seconds_fraction(clock)?;
    let [hours, minutes, seconds] = parts(&clock, ['H', 'M', 'S'])?;
    let months = years.checked_mul(12)?.checked_add(months)?;
    let sum = |total: u64, (count, size): (u64, u64)| total.checked_add(count.checked_mul(size)?);
    let seconds = [(days, 86_400), (hours, 3_600), (minutes, 60)].into_iter().try_fold(seconds, sum)?;
    Some(written(minus, months, seconds, fraction))
}

/// Numbers before their letters, in this order, each at most once.
fn parts(mut text: &str, letters: [char; 3]) -> Option<[u64; 3]> {
    let mut found = [0; 3];
    for (place, letter) in letters.into_iter().enumerate() {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        if let Some(rest) = text[end..].strip_prefix(letter) {
            found[place] = number(&text[..end]).filter(|_| end > 0)?;
            text = rest;
        }
    }
    text.is_empty().then_some(found)
}

/// Returns the time part without the fraction of its seconds, and the fraction without trailing zeros.
fn seconds_fraction(clock: &str) -> Option<(String, &str)> {
    let Some((before, after)) = clock.split_once('.') else { return Some((clock.to_owned(), "")) };
    let digits = after.strip_suffix('S').filter(|digits| !digits.is_empty())?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((format!("{before}S"), digits.trim_end_matches('0')))
}

fn written(minus: &str, months: u64, seconds: u64, fraction: &str) -> String {
    if (months, seconds, fraction) == (0, 0, "") {
        return "PT0S".to_owned();
    }
    let part = |number: u64, letter: char| if number > 0 { format!("{number}{letter}") } else { String::new() };
    let of_day = seconds % 86_400;
    let date = [part(months / 12, 'Y'), part(months % 12, 'M'), part(seconds / 86_400, 'D')].concat();
    let second = match fraction {
        "" => part(of_day % 60, 'S'),
        fraction => format!("{}.{fraction}S", of_day % 60),
    };
    let clock = [part(of_day / 3_600, 'H'), part(of_day / 60 % 60, 'M'), second].concat();
    let mark = if clock.is_empty() { "" } else { "T" };
    format!("{minus}P{date}{mark}{clock}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn u11_times_have_one_form() {
        for (text, form) in [
            ("08:30:00", "08:30:00"),
            ("08:30:00.500", "08:30:00.5"),
            ("08:30:00.000", "08:30:00"),
            ("08:30:00+07:00", "08:30:00+07:00"),
            ("01:30:00Z", "01:30:00Z"),
            ("01:30:00+00:00", "01:30:00Z"),
            ("01:30:00-00:00", "01:30:00Z"),
            ("23:59:59.999999999999-14:00", "23:59:59.999999999999-14:00"),
            ("24:00:00", "00:00:00"),
            ("24:00:00.0Z", "00:00:00Z"),
        ] {
            assert_eq!(time(text).as_deref(), Some(form), "{text}");
        }
        for wrong in [
            "08:30",
            "8:30:00",
            "08:30:60",
            "08:60:00",
            "24:00:01",
            "24:00:00.5",
            "25:00:00",
            "08:30:00.",
            "08:30:00.5.5",
            "08:30:00+7",
            "08:30:00+14:01",
            "08:30:00+07:60",
            "08:30:00z",
            "08:30:00 ",
            "2026-11-03T08:30:00",
            "08:30:+0",
            "0８:30:00",
            "",
        ] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn u11_durations_have_one_form() {
        for (text, form) in [
            ("P1Y2M3DT4H5M6S", "P1Y2M3DT4H5M6S"),
            ("P1Y14M", "P2Y2M"),
            ("PT36H", "P1DT12H"),
            ("P40D", "P40D"),
            ("PT90M", "PT1H30M"),
            ("PT86400S", "P1D"),
            ("PT1.50S", "PT1.5S"),
            ("PT0.5S", "PT0.5S"),
            ("P0D", "PT0S"),
            ("-P0Y", "PT0S"),
            ("-P30D", "-P30D"),
            ("P0Y0M5DT0H", "P5D"),
        ] {
            assert_eq!(duration(text).as_deref(), Some(form), "{text}");
        }
        for wrong in [
            "P",
            "PT",
            "P1DT",
            "1D",
            "P1",
            "P1S",
            "PT1D",
            "P1M1Y",
            "P1D1D",
            "P-1D",
            "P1.5D",
            "PT1.5H",
            "PT.5S",
            "PT1.S",
            "p1d",
            "P1D ",
            "P1W",
            "PT1S1M",
            "P99999999999999999999D",
            "P9999999999999999999Y",
            "+P1D",
            "PTS",
            "PY",
            "",
        ] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    /// Months and seconds of a normalized text, parsed independently.
    fn size(form: &str) -> (u64, u64) {
        let mut sizes = (0, 0);
        let (mut digits, mut clock) = (String::new(), false);
        for c in form.chars().filter(|c| !"-P".contains(*c)) {
            match c {
                'T' => clock = true,
                c if c.is_ascii_digit() => digits.push(c),
                c => {
                    let number = std::mem::take(&mut digits).parse::<u64>().unwrap();
                    match (c, clock) {
                        ('Y', _) => sizes.0 += number * 12,
                        ('M', false) => sizes.0 += number,
                        ('D', _) => sizes.1 += number * 86_400,
                        ('H', _) => sizes.1 += number * 3_600,
                        ('M', true) => sizes.1 += number * 60,
                        _ => sizes.1 += number,
                    }
                }
            }
        }
        sizes
    }

    proptest! {
        #[test]
        fn a_duration_keeps_its_length_and_its_form_is_its_own(
            parts in prop::array::uniform6(prop::option::of(0u64..100_000)), minus: bool,
        ) {
            let one = |at: usize, letter: char| parts[at].map_or(String::new(), |number| format!("{number}{letter}"));
            let clock = [one(3, 'H'), one(4, 'M'), one(5, 'S')].concat();
            let clock = if clock.is_empty() { clock } else { format!("T{clock}") };
            let text = [if minus { "-P" } else { "P" }, &one(0, 'Y'), &one(1, 'M'), &one(2, 'D'), &clock].concat();
            match duration(&text) {
                None => prop_assert!(parts.iter().all(Option::is_none), "{}", text),
                Some(form) => {
                    let at = |place: usize| parts[place].unwrap_or(0);
                    let seconds = at(2) * 86_400 + at(3) * 3_600 + at(4) * 60 + at(5);
                    prop_assert_eq!(size(&form), (at(0) * 12 + at(1), seconds), "{}", text);
                    prop_assert_eq!(duration(&form), Some(form));
                }
            }
        }

        #[test]
        fn a_time_keeps_what_it_tells(hour in 0u32..24, minute in 0u32..60, second in 0u32..60, fraction in "[0-9]{0,12}",
            zone in prop::option::of((-840i32..=840).prop_filter("a zone", |minutes| *minutes != 0)),
        ) {
            let point = if fraction.is_empty() { "" } else { "." };
            let zone = zone.map_or(String::new(), |minutes| {
                format!("{}{:02}:{:02}", if minutes < 0 { '-' } else { '+' }, minutes.abs() / 60, minutes.abs() % 60)
            });
            let form = time(&format!("{hour:02}:{minute:02}:{second:02}{point}{fraction}{zone}")).unwrap();
            let kept = fraction.trim_end_matches('0');
            let point = if kept.is_empty() { "" } else { "." };
            prop_assert_eq!(&form, &format!("{hour:02}:{minute:02}:{second:02}{point}{kept}{zone}"));
            prop_assert_eq!(time(&form), Some(form));
        }

        #[test]
        fn no_text_panics_and_every_form_is_its_own(text in ".{0,30}", near in "-?P?[0-9YMDTHS.]{0,16}", clock in "[0-9:.+Z-]{0,20}") {
            for text in [text, near, clock] {
                for form in [time(&text), duration(&text)].into_iter().flatten() {
                    prop_assert!(time(&form).or_else(|| duration(&form)) == Some(form));
                }
            }
        }
    }
}
