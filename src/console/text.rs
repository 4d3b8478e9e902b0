//! The console's texts in Vietnamese and English (Fluent, `locales/`), and the formats of times and numbers in both.

use crate::time_zone::HO_CHI_MINH;
use fluent_templates::{LanguageIdentifier, Loader, langid, static_loader};
use http::HeaderMap;
use std::borrow::Cow;
use std::collections::HashMap;

static_loader! {
    static TEXTS = {
        locales: "./src/console/locales",
        fallback_language: "vi",
        // No direction marks around arguments: neither language needs them, and they would end up in copied ids.
        customise: |bundle| bundle.set_use_isolating(false),
    };
}

static VIETNAMESE: LanguageIdentifier = langid!("vi");
static ENGLISH: LanguageIdentifier = langid!("en");

/// The cookie with the chosen language.
pub const LANGUAGE_COOKIE: &str = "ndxp-language";

/// The language of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locale {
    Vietnamese,
    English,
}

impl Locale {
    /// Both, each with its own name for itself.
    pub const ALL: [(Locale, &str); 2] = [(Locale::Vietnamese, "Tiếng Việt"), (Locale::English, "English")];

    /// Returns the code, as in `lang` and in the cookie.
    pub fn code(self) -> &'static str {
        match self {
            Locale::Vietnamese => "vi",
            Locale::English => "en",
        }
    }

    /// Finds a language by its code.
    pub fn of_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().map(|(locale, _)| locale).find(|locale| locale.code() == code)
    }

    /// Returns the chosen language; otherwise the first supported one of `Accept-Language` (RFC 9110, section 12.5.4); otherwise
    /// Vietnamese.
    pub fn of(headers: &HeaderMap) -> Self {
        let chosen = super::headers::cookie(headers, LANGUAGE_COOKIE).and_then(Self::of_code);
        let accepted = || {
            let text = headers.get(http::header::ACCEPT_LANGUAGE)?.to_str().ok()?;
            text.split(',').find_map(|one| Self::of_code(one.trim().get(..2)?))
        };
        chosen.or_else(accepted).unwrap_or(Locale::Vietnamese)
    }

    fn id(self) -> &'static LanguageIdentifier {
        match self {
            Locale::Vietnamese => &VIETNAMESE,
            Locale::English => &ENGLISH,
        }
    }

    /// Returns a text by its key.
    pub fn text(self, key: &str) -> String {
        TEXTS.try_lookup(self.id(), key).unwrap_or_else(|| key.to_owned())
    }

    /// Returns a text with one argument.
    pub fn with(self, key: &str, name: &'static str, value: impl Into<String>) -> String {
        let filled = HashMap::from([(Cow::Borrowed(name), value.into().into())]);
        TEXTS.try_lookup_with_args(self.id(), key, &filled).unwrap_or_else(|| key.to_owned())
    }

    /// Formats an instant (Unix time in seconds) in Vietnam time, with the zone; empty for 0.
    pub fn timestamp(self, unix_s: i64) -> String {
        let format = match self {
            Locale::Vietnamese => "%d/%m/%Y %H:%M:%S (UTC+7)",
            Locale::English => "%Y-%m-%d %H:%M:%S (UTC+7)",
        };
        match jiff::Timestamp::from_second(unix_s) {
            Ok(at) if unix_s != 0 => HO_CHI_MINH.to_datetime(at).strftime(format).to_string(),
            _ => String::new(),
        }
    }

    /// A moment, Unix time in microseconds, to the millisecond; empty for 0.
    pub fn precise(self, unix_us: i64) -> String {
        let seconds = self.timestamp(unix_us.div_euclid(1_000_000));
        let mark = if self == Locale::Vietnamese { ',' } else { '.' };
        let millis = unix_us.rem_euclid(1_000_000) / 1_000;
        seconds.replacen(" (", &format!("{mark}{millis:03} ("), 1)
    }

    /// The day of a moment, Unix time in seconds, in Vietnam.
    pub fn date(self, unix_s: i64) -> String {
        let format = if self == Locale::Vietnamese { "%d/%m/%Y" } else { "%Y-%m-%d" };
        let at = jiff::Timestamp::from_second(unix_s);
        at.map_or_else(|_| String::new(), |at| HO_CHI_MINH.to_datetime(at).strftime(format).to_string())
    }

    /// Formats a duration in microseconds as milliseconds with three decimals and the language's decimal mark.
    pub fn milliseconds(self, us: u64) -> String {
        let mark = if self == Locale::Vietnamese { ',' } else { '.' };
        format!("{}{mark}{:03} ms", self.number(us / 1_000), us % 1_000)
    }

    /// Formats a whole number in groups of three digits.
    pub fn number(self, number: u64) -> String {
        let digits = number.to_string();
        let mark = if self == Locale::Vietnamese { '.' } else { ',' };
        let mut out = String::with_capacity(digits.len() + digits.len() / 3);
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                out.push(mark);
            }
            out.push(digit);
        }
        out
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use http::header::{ACCEPT_LANGUAGE, COOKIE};
    use std::collections::BTreeSet;

    fn keys(locale: &str) -> BTreeSet<String> {
        let folder = std::fs::read_dir(format!("src/console/locales/{locale}")).unwrap();
        let text: String = folder.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
        let key = |line: &str| Some(line.split_once(" =")?.0.to_owned()).filter(|key| !key.starts_with([' ', '#']));
        let all: Vec<String> = text.lines().filter_map(key).collect();
        let keys: BTreeSet<String> = all.iter().cloned().collect();
        assert_eq!(all.len(), keys.len(), "a key is there twice in {locale}");
        keys
    }

    #[test]
    fn both_languages_have_every_text_that_the_pages_use() {
        let (vietnamese, english) = (keys("vi"), keys("en"));
        assert_eq!(vietnamese.symmetric_difference(&english).collect::<Vec<_>>(), Vec::<&String>::new());
        let folders = ["src/console", "src/console/auditor", "src/console/developer", "src/console/operator"];
        let files = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
        for file in files.map(|file| file.unwrap().path()) {
            if file.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let source = std::fs::read_to_string(&file).unwrap();
            // Every literal that looks like a key: its first word is the first word of a key.
            let like_a_key = |text: &&str| {
                let first = text.split('-').next().unwrap_or_default();
                text.contains('-')
                    && !text.ends_with('-')
                    && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
                    && vietnamese.iter().any(|key| key.split('-').next() == Some(first))
            };
            for named in source.split('"').skip(1).step_by(2).filter(like_a_key) {
                assert!(vietnamese.contains(named), "{named} in {}", file.display());
            }
        }
    }

    #[test]
    fn the_language_is_chosen_or_accepted_or_vietnamese() {
        let of = |pairs: &[(http::HeaderName, &str)]| {
            Locale::of(&pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect())
        };
        assert_eq!(of(&[]), Locale::Vietnamese);
        assert_eq!(of(&[(ACCEPT_LANGUAGE, "fr, en-GB;q=0.8, vi;q=0.2")]), Locale::English);
        assert_eq!(of(&[(ACCEPT_LANGUAGE, "en"), (COOKIE, "a=b; ndxp-language=vi")]), Locale::Vietnamese);
        assert_eq!(of(&[(ACCEPT_LANGUAGE, "é,"), (COOKIE, "ndxp-language=xx")]), Locale::Vietnamese);
    }

    #[test]
    fn times_and_numbers_follow_the_language() {
        assert_eq!(Locale::Vietnamese.timestamp(1_795_712_400), "27/11/2026 00:00:00 (UTC+7)");
        assert_eq!(Locale::English.timestamp(1_795_712_400), "2026-11-27 00:00:00 (UTC+7)");
        assert_eq!((Locale::English.timestamp(0), Locale::English.number(0)), (String::new(), "0".to_owned()));
        assert_eq!(Locale::Vietnamese.number(1_234_567), "1.234.567");
        assert_eq!(Locale::English.number(999), "999");
        assert_eq!(Locale::Vietnamese.milliseconds(1_234_056), "1.234,056 ms");
        assert_eq!(Locale::Vietnamese.precise(1_795_712_400_007_000), "27/11/2026 00:00:00,007 (UTC+7)");
        assert_eq!(Locale::English.milliseconds(1_234_056), "1,234.056 ms");
    }
}
