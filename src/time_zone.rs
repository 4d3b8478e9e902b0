//! The time zone of everything for people: Asia/Ho_Chi_Minh, UTC+7 without summer time since 1975, so no time-zone
//! database is needed.

use jiff::tz::Offset;

/// Hours east of UTC.
const HOURS: i8 = 7;
/// Asia/Ho_Chi_Minh.
pub const HO_CHI_MINH: Offset = Offset::constant(HOURS);
/// A day in seconds.
pub const DAY_S: i64 = 86_400;

/// Formats a Unix time as RFC 3339 has it, in Ho Chi Minh City: `2026-11-28T12:10:07+07:00`. A number that is no time of the years until 9999 stays
/// a number.
pub fn timestamp_text(unix_s: i64) -> String {
    match jiff::Timestamp::from_second(unix_s) {
        Ok(time) => format!("{}+07:00", HO_CHI_MINH.to_datetime(time).strftime("%Y-%m-%dT%H:%M:%S")),
        Err(_) => unix_s.to_string(),
    }
}

/// Serializes a Unix time as RFC 3339.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: serde::Serializer>(unix_s: &i64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&timestamp_text(*unix_s))
}

/// Days since 1970 in Ho Chi Minh City, of a Unix time in seconds.
pub fn day(unix_s: i64) -> i64 {
    unix_s.saturating_add(i64::from(HO_CHI_MINH.seconds())).div_euclid(DAY_S)
}

/// When a day in Ho Chi Minh City begins, Unix time in seconds.
pub fn day_begins(day: i64) -> i64 {
    day.saturating_mul(DAY_S).saturating_sub(i64::from(HO_CHI_MINH.seconds()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_day_begins_at_17_o_clock_utc() {
        // 2026-11-26T17:00:00Z.
        let begins = 1_795_712_400;
        assert_eq!(super::day(begins - 1) + 1, super::day(begins));
        assert_eq!(super::day_begins(super::day(begins + 86_399)), begins);
        assert_eq!((super::day(-25_201), super::day(-25_200)), (-1, 0));
    }
}
