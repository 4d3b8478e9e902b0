//! Maintenance notices of sources (thông báo bảo trì): what callers of a source learn before and while it is out of service.

use crate::time_zone::HO_CHI_MINH;
use serde::{Deserialize, Serialize};

/// Longest text of a notice, in bytes: it travels in the details of a status.
pub const MAX_NOTICE_TEXT: usize = 300;
/// Longest maintenance, in seconds: a month.
pub const MAX_MAINTENANCE_S: i64 = 31 * 86_400;
/// Time before a maintenance from which callers are told of it, in seconds: a day.
const ANNOUNCED_S: i64 = 86_400;
/// Maximum number of notices: one for each source, and more sources than there are.
pub(super) const MAX_NOTICES: usize = 1_000;

/// A planned maintenance of a source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaintenanceNotice {
    /// The source's id; a source has at most one notice.
    pub source: String,
    /// When the maintenance starts, Unix time in seconds.
    pub starts: i64,
    /// When it ends.
    pub ends: i64,
    /// What callers read, in Vietnamese.
    pub text_vi: String,
    /// The same in English; may be empty.
    pub text_en: String,
}

impl MaintenanceNotice {
    /// Returns whether callers are told of it: from a day before its start to its end.
    pub fn is_announced(&self, now: i64) -> bool {
        self.starts.saturating_sub(ANNOUNCED_S) <= now && now < self.ends
    }

    /// Returns whether the maintenance goes on now.
    pub fn is_active(&self, now: i64) -> bool {
        self.starts <= now && now < self.ends
    }

    /// Returns its time as an interval of RFC 3339 times (ISO 8601-1, 5.5.2), with the zone of Ho Chi Minh City.
    pub fn interval(&self) -> String {
        let time = |unix_s: i64| {
            let at = jiff::Timestamp::from_second(unix_s).unwrap_or_default();
            at.display_with_offset(HO_CHI_MINH).to_string()
        };
        format!("{}/{}", time(self.starts), time(self.ends))
    }

    /// Checks its times and texts.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self, now: i64) -> Result<(), NoticeFault> {
        let text = |text: &str| text.len() <= MAX_NOTICE_TEXT && !text.chars().any(char::is_control);
        if self.ends <= self.starts {
            Err(NoticeFault::EndsBeforeStart)
        } else if self.ends <= now {
            Err(NoticeFault::Over)
        } else if self.ends.saturating_sub(self.starts) > MAX_MAINTENANCE_S {
            Err(NoticeFault::TooLong)
        } else if self.text_vi.trim().is_empty() {
            Err(NoticeFault::NoText)
        } else if !text(&self.text_vi) || !text(&self.text_en) {
            Err(NoticeFault::Text)
        } else {
            Ok(())
        }
    }
}

/// The rule that a notice breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoticeFault {
    /// It ends before its start.
    #[error("a maintenance ends after its start")]
    EndsBeforeStart,
    /// It is over.
    #[error("the maintenance is over already")]
    Over,
    /// It takes longer than [`MAX_MAINTENANCE_S`].
    #[error("a maintenance takes 31 days at most")]
    TooLong,
    /// It has no Vietnamese text.
    #[error("a notice has a Vietnamese text")]
    NoText,
    /// A text is longer than [`MAX_NOTICE_TEXT`], or has control characters.
    #[error("a notice's text is one line of at most 300 bytes")]
    Text,
}

impl NoticeFault {
    /// The same in Vietnamese.
    pub fn vietnamese(self) -> &'static str {
        match self {
            NoticeFault::EndsBeforeStart => "thời điểm kết thúc phải sau thời điểm bắt đầu",
            NoticeFault::Over => "thời gian bảo trì đã qua",
            NoticeFault::TooLong => "bảo trì kéo dài tối đa 31 ngày",
            NoticeFault::NoText => "cần nội dung tiếng Việt",
            NoticeFault::Text => "nội dung là một dòng, tối đa 300 byte (khoảng 200 chữ có dấu)",
        }
    }

    /// The field that is wrong.
    pub fn field(self) -> &'static str {
        match self {
            NoticeFault::EndsBeforeStart | NoticeFault::Over | NoticeFault::TooLong => "ends",
            NoticeFault::NoText | NoticeFault::Text => "text_vi",
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn notice() -> MaintenanceNotice {
        let (starts, ends) = (1_795_712_400, 1_795_716_000);
        MaintenanceNotice { source: "land".into(), starts, ends, text_vi: "Bảo trì".into(), text_en: String::new() }
    }

    #[test]
    fn it_is_announced_a_day_before_and_ends_by_itself() {
        let notice = notice();
        let (from, starts, ends) = (notice.starts - 86_400, notice.starts, notice.ends);
        let at = |now| (notice.is_announced(now), notice.is_active(now));
        assert_eq!([at(from - 1), at(from), at(starts - 1)], [(false, false), (true, false), (true, false)]);
        assert_eq!([at(starts), at(ends - 1), at(ends)], [(true, true), (true, true), (false, false)]);
        assert_eq!(notice.interval(), "2026-11-27T00:00:00+07:00/2026-11-27T01:00:00+07:00");
    }

    #[test]
    fn each_rule_refuses_its_own() {
        let good = notice();
        let now = good.starts - 10;
        good.check(now).unwrap();
        let long = "ệ".repeat(101);
        let wrong = [
            (MaintenanceNotice { ends: good.starts, ..notice() }, now, NoticeFault::EndsBeforeStart),
            (notice(), good.ends, NoticeFault::Over),
            (MaintenanceNotice { ends: good.starts + MAX_MAINTENANCE_S + 1, ..notice() }, now, NoticeFault::TooLong),
            (MaintenanceNotice { starts: i64::MIN, ends: i64::MAX, ..notice() }, now, NoticeFault::TooLong),
            (MaintenanceNotice { text_vi: "  ".into(), ..notice() }, now, NoticeFault::NoText),
            (MaintenanceNotice { text_vi: long.clone(), ..notice() }, now, NoticeFault::Text),
            (MaintenanceNotice { text_en: long, ..notice() }, now, NoticeFault::Text),
            (MaintenanceNotice { text_vi: "a\nb".into(), ..notice() }, now, NoticeFault::Text),
        ];
        for (notice, now, rule) in wrong {
            assert_eq!(notice.check(now), Err(rule));
        }
    }
}
