//! Dates and times in the sources' notations.

use crate::contract::text;
use crate::time_zone::HO_CHI_MINH;
use jiff::civil;

/// The times that a protobuf timestamp holds: 0001-01-01T00:00:00Z to 9999-12-31T23:59:59Z.
const MIN_UNIX: i64 = -62_135_596_800;
const MAX_UNIX: i64 = 253_402_300_799;

/// The known parts of a date or time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DateParts {
    /// 1 to 9999.
    pub year: i16,
    /// 1 to 12; 0 is unknown.
    pub month: i8,
    /// 1 to 31; 0 is unknown.
    pub day: i8,
    /// Time of day, if the notation has one.
    pub time: Option<(i8, i8, i8)>,
    /// Nanoseconds of it.
    pub nanos: i32,
    /// Seconds east of UTC, if the source states it; Ho Chi Minh City's otherwise.
    pub offset: Option<i32>,
}

/// The precision of a notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Precision {
    /// Year only.
    Year,
    /// Year and month.
    Month,
    /// A full date.
    Day,
    /// Date and time of day.
    Time,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Number {
        part: DatePart,
        width: usize,
    },
    Literal(String),
    /// One to nine digits of a second.
    Fraction,
    /// `Z`, or hours and minutes east of it.
    Zone,
    /// Read where it is present, never written.
    Optional(Vec<Token>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DatePart {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
}

/// One notation, made from a contract's `DateNotation`.
#[derive(Debug, Clone)]
pub struct Notation {
    tokens: Vec<Token>,
    /// The precision of the notation.
    pub precision: Precision,
    /// Its path at the source, if it is not the field's own.
    pub name: Option<super::WirePath>,
    /// The field that selects the notation, and its value for this one.
    pub marker: Option<(super::WirePath, String)>,
    /// The precision that counts when reading, if it is less than the pattern's; such a notation is never written.
    pub read_precision: Option<Precision>,
    /// Paths of year, month and day, if each has a path of its own.
    pub in_parts: Option<[Option<super::WirePath>; 3]>,
}

impl Notation {
    /// Reads a pattern such as `dd/MM/yyyy` or `yyyy'0101'`.
    ///
    /// # Errors
    /// The pattern has an unknown letter, or a quote or bracket that does not close; the text names it.
    pub fn parse(pattern: &str) -> Result<Self, String> {
        // XML Schema Part 2, sections 3.3.7 and 3.3.9.
        let pattern = match pattern {
            "xsd:dateTime" => "yyyy-MM-dd'T'HH:mm:ss[.f][z]",
            "xsd:date" => "yyyy-MM-dd[z]",
            other => other,
        };
        let mut tokens = Vec::new();
        // The tokens before an open bracket.
        let mut outer: Option<Vec<Token>> = None;
        let mut rest = pattern;
        while let Some(first) = rest.chars().next() {
            if first == '\'' {
                let end = rest[1..].find('\'').ok_or_else(|| format!("the quote in {pattern:?} is not closed"))?;
                tokens.push(Token::Literal(rest[1..=end].to_owned()));
                rest = &rest[end + 2..];
                continue;
            }
            match (first, outer.is_some()) {
                ('[', false) => outer = Some(std::mem::take(&mut tokens)),
                (']', true) => {
                    let inner = std::mem::replace(&mut tokens, outer.take().unwrap_or_default());
                    tokens.push(Token::Optional(inner));
                }
                ('[' | ']', _) => return Err(format!("the brackets in {pattern:?} do not fit")),
                ('f', _) => tokens.push(Token::Fraction),
                ('z', _) => tokens.push(Token::Zone),
                _ => {}
            }
            if matches!(first, '[' | ']' | 'f' | 'z') {
                rest = &rest[1..];
                continue;
            }
            let run = rest.chars().take_while(|c| *c == first).count();
            let part = match (first, run) {
                ('y', 4) => Some(DatePart::Year),
                ('M', 2) => Some(DatePart::Month),
                ('d', 2) => Some(DatePart::Day),
                ('H', 2) => Some(DatePart::Hour),
                ('m', 2) => Some(DatePart::Minute),
                ('s', 2) => Some(DatePart::Second),
                (letter, _) if letter.is_ascii_alphabetic() => {
                    return Err(format!("{pattern:?}: use yyyy, MM, dd, HH, mm, ss, f, z, or quote the letters"));
                }
                _ => None,
            };
            match part {
                Some(part) => tokens.push(Token::Number { part, width: run }),
                None => tokens.push(Token::Literal(rest[..first.len_utf8()].to_owned())),
            }
            rest = &rest[part.map_or(first.len_utf8(), |_| run)..];
        }
        if outer.is_some() {
            return Err(format!("a bracket in {pattern:?} is not closed"));
        }
        let has = |wanted: DatePart| tokens.iter().any(|t| matches!(t, Token::Number { part, .. } if *part == wanted));
        let precision = match (has(DatePart::Year), has(DatePart::Month), has(DatePart::Day), has(DatePart::Hour)) {
            (true, true, true, true) => Precision::Time,
            (true, true, true, false) => Precision::Day,
            (true, true, false, false) => Precision::Month,
            (true, false, false, false) => Precision::Year,
            _ => return Err(format!("{pattern:?} must have yyyy, then MM, then dd, then HH as it grows more precise")),
        };
        Ok(Notation { tokens, precision, name: None, marker: None, read_precision: None, in_parts: None })
    }

    /// Returns the notation of a date whose parts have paths of their own; an empty name is a part that is never known.
    pub fn in_parts(year: &str, month: &str, day: &str) -> Self {
        let place = |name: &str| (!name.is_empty()).then(|| super::WirePath::parse(name));
        let in_parts = Some([place(year), place(month), place(day)]);
        Notation {
            tokens: Vec::new(),
            precision: Precision::Day,
            name: None,
            marker: None,
            read_precision: None,
            in_parts,
        }
    }

    /// Returns every location at the source that this notation reads, beside the field's own.
    pub fn paths(&self) -> Vec<&super::WirePath> {
        let parts = self.in_parts.iter().flatten().flatten();
        self.name.iter().chain(self.marker.iter().map(|(marker, _)| marker)).chain(parts).collect()
    }

    /// Writes the known parts; the caller has selected the notation by precision.
    pub fn write(&self, parts: &DateParts) -> String {
        let mut out = String::with_capacity(16);
        let (hour, minute, second) = parts.time.unwrap_or_default();
        for token in &self.tokens {
            match token {
                Token::Literal(text) => out.push_str(text),
                Token::Number { part, width } => {
                    let number = match part {
                        DatePart::Year => parts.year,
                        DatePart::Month => i16::from(parts.month),
                        DatePart::Day => i16::from(parts.day),
                        DatePart::Hour => i16::from(hour),
                        DatePart::Minute => i16::from(minute),
                        DatePart::Second => i16::from(second),
                    };
                    out.push_str(&format!("{number:0width$}"));
                }
                Token::Fraction => out.push_str(&format!("{:09}", parts.nanos)),
                // Times are written in the zone of Ho Chi Minh City.
                Token::Zone => out.push_str("+07:00"),
                Token::Optional(_) => {}
            }
        }
        out
    }

    /// Reads a text in this notation; `None` if it is another notation or not a date of the calendar.
    pub fn read(&self, text: &str) -> Option<DateParts> {
        let mut parts = DateParts::default();
        let mut time = (0, 0, 0);
        if !read_tokens(&self.tokens, text, &mut parts, &mut time)?.is_empty() {
            return None;
        }
        if self.precision == Precision::Time {
            // The end of a day is the beginning of the next (XML Schema Part 2, section 3.3.7).
            if time == (24, 0, 0) && parts.nanos == 0 {
                let next = civil::Date::new(parts.year, parts.month, parts.day).ok()?.tomorrow().ok()?;
                (parts.year, parts.month, parts.day) = (next.year(), next.month(), next.day());
                time = (0, 0, 0);
            }
            parts.time = Some(time);
        }
        match self.read_precision {
            Some(Precision::Year) => (parts.month, parts.day) = (0, 0),
            Some(Precision::Month) => parts.day = 0,
            Some(Precision::Day | Precision::Time) | None => {}
        }
        parts.is_valid(self.read_precision.unwrap_or(self.precision)).then_some(parts)
    }
}

/// Parses the tokens, and returns the rest of the text.
fn read_tokens<'t>(tokens: &[Token], text: &'t str, parts: &mut DateParts, time: &mut (i8, i8, i8)) -> Option<&'t str> {
    let mut rest = text;
    for token in tokens {
        match token {
            Token::Literal(literal) => rest = rest.strip_prefix(literal.as_str())?,
            Token::Number { part, width } => {
                let digits = rest.get(..*width).filter(|d| d.bytes().all(|b| b.is_ascii_digit()))?;
                let number: i16 = digits.parse().ok()?;
                let small = i8::try_from(number);
                match part {
                    DatePart::Year => parts.year = number,
                    DatePart::Month => parts.month = small.ok()?,
                    DatePart::Day => parts.day = small.ok()?,
                    DatePart::Hour => time.0 = small.ok()?,
                    DatePart::Minute => time.1 = small.ok()?,
                    DatePart::Second => time.2 = small.ok()?,
                }
                rest = &rest[*width..];
            }
            Token::Fraction => {
                let length = rest.bytes().take_while(u8::is_ascii_digit).count();
                // Digits beyond nanoseconds are dropped.
                let digits = rest.get(..length.min(9)).filter(|digits| !digits.is_empty())?;
                parts.nanos = format!("{digits:0<9}").parse().ok()?;
                rest = &rest[length..];
            }
            Token::Zone => {
                let (offset, after) = read_zone(rest)?;
                parts.offset = Some(offset);
                rest = after;
            }
            Token::Optional(inner) => rest = read_tokens(inner, rest, parts, time).unwrap_or(rest),
        }
    }
    Some(rest)
}

/// `Z`, `+07:00` or `-05:30`: at most 14 hours (XML Schema Part 2, section 3.3.7), in seconds east of UTC.
fn read_zone(text: &str) -> Option<(i32, &str)> {
    if let Some(rest) = text.strip_prefix('Z') {
        return Some((0, rest));
    }
    let zone = text.get(..6)?;
    let sign = match zone.as_bytes()[0] {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let two = |at: usize| {
        zone.get(at..at + 2)?.bytes().all(|b| b.is_ascii_digit()).then(|| zone[at..at + 2].parse::<i32>().ok())?
    };
    let (hours, minutes) = (two(1)?, two(4)?);
    let valid = zone.as_bytes()[3] == b':' && minutes < 60 && hours * 60 + minutes <= 14 * 60;
    valid.then(|| (sign * (hours * 60 + minutes) * 60, &text[6..]))
}

impl DateParts {
    /// Returns the precision of the known parts.
    pub fn precision(&self) -> Precision {
        match (self.month, self.day, self.time) {
            (0, _, _) => Precision::Year,
            (_, 0, _) => Precision::Month,
            (_, _, None) => Precision::Day,
            (_, _, Some(_)) => Precision::Time,
        }
    }

    /// Returns whether such a date is in the calendar, given the required precision.
    pub fn is_valid(&self, precision: Precision) -> bool {
        let (month, day) = match precision {
            Precision::Year => (1, 1),
            Precision::Month => (self.month, 1),
            Precision::Day | Precision::Time => (self.month, self.day),
        };
        let (hour, minute, second) = self.time.unwrap_or_default();
        (1..=9999).contains(&self.year)
            && civil::Date::new(self.year, month, day).is_ok()
            && civil::Time::new(hour, minute, second, 0).is_ok()
    }

    /// Returns the local time in Ho Chi Minh City of a Unix time in seconds; `None` outside the years 1 to 9999.
    pub fn from_unix(seconds: i64) -> Option<Self> {
        let local = HO_CHI_MINH.to_datetime(jiff::Timestamp::from_second(seconds).ok()?);
        let parts = DateParts {
            year: local.year(),
            month: local.month(),
            day: local.day(),
            time: Some((local.hour(), local.minute(), local.second())),
            ..DateParts::default()
        };
        parts.is_valid(Precision::Time).then_some(parts)
    }

    /// Returns the Unix time in seconds of this local time; `None` if that is outside the years 1 to 9999, the range of
    /// protobuf's timestamps.
    pub fn to_unix(self) -> Option<i64> {
        let (hour, minute, second) = self.time.unwrap_or_default();
        let date = civil::Date::new(self.year, self.month, self.day).ok()?;
        let days = date.duration_since(civil::date(1970, 1, 1)).as_secs() / 86_400;
        let of_day = i64::from(hour) * 3_600 + i64::from(minute) * 60 + i64::from(second);
        let seconds = days * 86_400 + of_day - i64::from(self.offset.unwrap_or(HO_CHI_MINH.seconds()));
        (MIN_UNIX..=MAX_UNIX).contains(&seconds).then_some(seconds)
    }

    /// Returns whether it is one of the dates that systems write for no date: the first or the last day or year that
    /// they support, in the source's zone or, if the time was written in another, in Ho Chi Minh City's
    /// (`9999-12-30T17:00:00Z`).
    pub fn is_sentinel(&self) -> bool {
        let stands_for_none = |parts: &DateParts| {
            matches!((parts.year, parts.month, parts.day), (1, 1, 1) | (9999, 12, 31) | (1 | 9999, 0, _))
        };
        let local = || self.offset.and_then(|_| DateParts::from_unix(self.to_unix()?));
        stands_for_none(self) || local().is_some_and(|local| stands_for_none(&local))
    }

    /// Reads a date from separate parts; an empty text or 0 is unknown. `None` if no part is known.
    pub fn of_texts(parts: [Option<String>; 3]) -> Option<Result<Self, ()>> {
        let number = |part: &Option<String>| match part.as_deref().map(str::trim) {
            None | Some("") => Some(0),
            Some(text) => text::integer(text).and_then(|number| i16::try_from(number).ok()),
        };
        let [Some(year), Some(month), Some(day)] = [number(&parts[0]), number(&parts[1]), number(&parts[2])] else {
            return Some(Err(()));
        };
        if (year, month, day) == (0, 0, 0) {
            return None;
        }
        let (Ok(month), Ok(day)) = (i8::try_from(month), i8::try_from(day)) else { return Some(Err(())) };
        let parts = DateParts { year, month, day, ..DateParts::default() };
        // A day without its month has no meaning.
        let known = (month != 0 || day == 0) && parts.is_valid(parts.precision());
        Some(if known { Ok(parts) } else { Err(()) })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_quoted_notation_reads_only_what_it_writes() {
        let year = Notation::parse("yyyy'0101'").unwrap();
        assert_eq!(year.precision, Precision::Year);
        assert_eq!(year.write(&DateParts { year: 1990, ..DateParts::default() }), "19900101");
        assert_eq!(year.read("19900101").unwrap().year, 1990);
        assert!(year.read("19900102").is_none());
    }

    #[test]
    fn dates_outside_the_calendar_are_refused() {
        let day = Notation::parse("dd/MM/yyyy").unwrap();
        for text in ["30/02/2024", "00/01/2024", "1/1/2024", "01/13/2024", "01/01/2024x", "", "٠١/01/2024"] {
            assert!(day.read(text).is_none(), "{text}");
        }
        assert!(Notation::parse("MM/dd").is_err());
        assert!(Notation::parse("yyyy'").is_err());
        assert!(Notation::parse("YYYY").is_err());
    }

    #[test]
    fn u7_times_of_xml_schema_are_read_with_their_fraction_and_zone() {
        let notation = Notation::parse("xsd:dateTime").unwrap();
        for (text, unix, nanos) in [
            ("2026-11-03T08:15:00", 1_793_668_500, 0),
            ("2026-11-03T08:15:00+07:00", 1_793_668_500, 0),
            ("2026-11-03T01:15:00Z", 1_793_668_500, 0),
            ("2026-11-03T01:15:00.5Z", 1_793_668_500, 500_000_000),
            ("2026-11-02T20:15:00.123456789123-05:00", 1_793_668_500, 123_456_789),
            ("2026-11-03T24:00:00", 1_793_725_200, 0),
        ] {
            let parts = notation.read(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((parts.to_unix(), parts.nanos), (Some(unix), nanos), "{text}");
        }
        for wrong in [
            "2026-11-03",
            "2026-11-03T08:15",
            "2026-11-03T08:15:00+7",
            "2026-11-03T08:15:00.",
            "2026-11-03T08:15:00+15:00",
            "2026-11-03T24:00:01",
            "2026-11-03 08:15:00",
            "-2026-11-03T08:15:00",
            "2026-11-03T08:15:60",
        ] {
            assert!(notation.read(wrong).is_none(), "{wrong}");
        }
        let parts = DateParts::from_unix(1_793_668_500).unwrap();
        assert_eq!(notation.write(&parts), "2026-11-03T08:15:00");
        assert_eq!(Notation::parse("yyyy-MM-dd'T'HH:mm:ssz").unwrap().write(&parts), "2026-11-03T08:15:00+07:00");
        let date = Notation::parse("xsd:date").unwrap();
        assert_eq!(date.read("2026-11-03+07:00").map(|parts| parts.day), Some(3));
        assert_eq!(date.read("2026-11-03").map(|parts| parts.day), Some(3));
        for wrong in ["yyyy[", "yyyy]", "yyyy[[f]]"] {
            assert!(Notation::parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn zones_and_fractions_come_back(seconds in -62_000_000_000i64..250_000_000_000, nanos in 0i32..1_000_000_000) {
            let notation = Notation::parse("yyyy-MM-dd'T'HH:mm:ss.fz").unwrap();
            let parts = DateParts { nanos, ..DateParts::from_unix(seconds).unwrap() };
            for notation in [&notation, &Notation::parse("xsd:dateTime").unwrap()] {
                let read = notation.read(&Notation::parse("yyyy-MM-dd'T'HH:mm:ss.fz").unwrap().write(&parts)).unwrap();
                prop_assert_eq!((read.to_unix(), read.nanos), (Some(seconds), nanos));
            }
        }

        #[test]
        fn every_second_survives_a_round_trip(seconds in -62_000_000_000i64..250_000_000_000) {
            let notation = Notation::parse("yyyyMMddHHmmss").unwrap();
            let parts = DateParts::from_unix(seconds).unwrap();
            let read = notation.read(&notation.write(&parts)).unwrap();
            prop_assert_eq!(read.to_unix(), Some(seconds));
        }

        #[test]
        fn reading_never_panics(text in ".{0,24}") {
            let _ = Notation::parse("dd/MM/yyyy").unwrap().read(&text);
            let _ = Notation::parse(&text);
        }
    }
}
