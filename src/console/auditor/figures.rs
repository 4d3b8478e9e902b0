//! The statistics of a period, as charts with their tables: for the console's page, and for the single file of `audit report --html`.

use crate::audit::service::api::{Complete, Count, PurposeCount};
use crate::console::chart::{Value, bars, columns, lines};
use crate::console::table::properties;
use crate::console::text::Locale;
use crate::console::{exchanges, headers};
use crate::time_zone::HO_CHI_MINH;
use maud::{DOCTYPE, Markup, html};
use std::collections::BTreeMap;

/// The counts of a period.
#[derive(Debug, Default)]
pub struct Figures {
    /// Counts by bucket, client, operation and outcome.
    pub counts: Vec<Count>,
    /// Whether the buckets are hours; otherwise days.
    pub hours: bool,
    /// Counts by purpose, if the entries themselves were counted.
    pub purposes: Vec<PurposeCount>,
    /// Exchanges with a purpose beyond those listed.
    pub other_purposes: u64,
    /// Pruned entries, which were not counted.
    pub not_counted: u64,
    /// The checkpoint up to which the counts are complete.
    pub complete: Option<Complete>,
}

/// Names with their sums, largest first.
fn ranked(sums: BTreeMap<String, u64>) -> Vec<Value> {
    let mut all: Vec<Value> = sums.into_iter().collect();
    all.sort_by_key(|one| std::cmp::Reverse(one.1));
    all
}

impl Figures {
    fn sums(&self, name: impl Fn(&Count) -> String) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for count in &self.counts {
            *sums.entry(name(count)).or_default() += count.exchanges;
        }
        sums
    }

    fn hours_of_day(&self) -> Vec<Value> {
        let mut all: Vec<Value> = (0..24).map(|hour| (format!("{hour:02}"), 0)).collect();
        for count in &self.counts {
            let hour = count.from.saturating_add(i64::from(HO_CHI_MINH.seconds())).div_euclid(3_600).rem_euclid(24);
            if let Some((_, sum)) = usize::try_from(hour).ok().and_then(|hour| all.get_mut(hour)) {
                *sum += count.exchanges;
            }
        }
        all
    }

    /// Every day from the first to the last, also those without an exchange; at most ten years.
    fn days(&self, locale: Locale) -> Vec<Value> {
        let mut sums: BTreeMap<i64, u64> = BTreeMap::new();
        for count in &self.counts {
            *sums.entry(crate::time_zone::day(count.from)).or_default() += count.exchanges;
        }
        let (Some((first, _)), Some((last, _))) = (sums.first_key_value(), sums.last_key_value()) else {
            return Vec::new();
        };
        let name = |day: i64| locale.date(crate::time_zone::day_begins(day));
        let last = (*last).min(first.saturating_add(3_660));
        (*first..=last).map(|day| (name(day), sums.get(&day).copied().unwrap_or(0))).collect()
    }

    /// The busiest sources by day: at most six lines.
    fn sources_by_day(&self, locale: Locale, days: &[Value]) -> Markup {
        let mut sums: BTreeMap<(&str, String), u64> = BTreeMap::new();
        for count in &self.counts {
            *sums.entry((&count.source, locale.date(count.from))).or_default() += count.exchanges;
        }
        let names: Vec<String> = days.iter().map(|(day, _)| day.clone()).collect();
        let of = |source: &str, day: &String| sums.get(&(source, day.clone())).copied().unwrap_or(0);
        let series: Vec<(String, Vec<u64>)> = ranked(self.sums(|count| count.source.clone()))
            .into_iter()
            .take(6)
            .map(|(source, _)| {
                let values = names.iter().map(|day| of(&source, day)).collect();
                (source, values)
            })
            .collect();
        let (title, heading) = (locale.text("figures-sources-by-day"), locale.text("figures-day"));
        lines(locale, &title, &heading, &names, &series)
    }

    fn summary(&self, locale: Locale) -> Markup {
        let sum = |of: fn(&Count) -> u64| self.counts.iter().map(of).sum::<u64>();
        let good = |count: &Count| if count.outcome == "OK" { count.exchanges } else { 0 };
        let (all, good) = (sum(|count| count.exchanges), self.counts.iter().map(good).sum::<u64>());
        let number = |number: u64| html! { (locale.number(number)) };
        let mut rows = vec![
            ("figures-exchanges", number(all)),
            ("figures-answered", number(good)),
            ("figures-not-answered", number(all - good)),
        ];
        if let Some(mean) = sum(|count| count.total_us).checked_div(all) {
            rows.push(("figures-mean", html! { (locale.milliseconds(mean)) }));
        }
        rows.push(("figures-bytes", number(sum(|count| count.response_bytes))));
        properties(locale, &rows)
    }

    /// Shows the summary, the charts, and what they do not count.
    pub fn body(&self, locale: Locale) -> Markup {
        let number = locale.text("figures-exchanges");
        let chart = |title: &str, heading: &str, values: &[Value]| {
            bars(locale, &locale.text(title), [&locale.text(heading), &number], values)
        };
        let purposes: Vec<Value> = self
            .purposes
            .iter()
            .map(|one| match one.purpose.is_empty() {
                true => (locale.text("figures-no-purpose"), one.exchanges),
                false => (one.purpose.clone(), one.exchanges),
            })
            .collect();
        let days = self.days(locale);
        html! {
            (self.summary(locale))
            @if self.counts.is_empty() { p.empty { (locale.text("nothing-here")) } }
            @else {
                div.charts {
                    (columns(locale, &locale.text("figures-by-day"), [&locale.text("figures-day"), &number], &days))
                    @if days.len() > 1 { (self.sources_by_day(locale, &days)) }
                    @if self.hours {
                        (columns(locale, &locale.text("figures-by-hour"), [&locale.text("figures-hour"), &number], &self.hours_of_day()))
                    }
                    (chart("figures-by-source", "column-source", &ranked(self.sums(|count| count.source.clone()))))
                    (chart("figures-by-client", "column-client", &ranked(self.sums(|count| count.client.clone()))))
                    (chart("figures-by-operation", "column-operation", &ranked(self.sums(|count| {
                        count.operation.rsplit('.').next().unwrap_or_default().to_owned()
                    }))))
                    (chart("figures-by-outcome", "column-outcome", &ranked(self.sums(|count| count.outcome.clone()))))
                    @if !purposes.is_empty() { (chart("figures-by-purpose", "column-purpose", &purposes)) }
                }
                @if self.other_purposes > 0 {
                    p.hint { (locale.with("figures-other-purposes", "count", locale.number(self.other_purposes))) }
                }
            }
            @if self.not_counted > 0 {
                div.notice.wrong { p { (locale.with("figures-not-counted", "count", locale.number(self.not_counted))) } }
            }
            (exchanges::complete(locale, self.complete.as_ref()))
        }
    }

    /// Returns a single HTML file: no script, no other file. `period` and `findings` (rule, client, explanation, entries) are escaped.
    pub fn file(&self, locale: Locale, period: &str, findings: &[[String; 4]]) -> String {
        let title = locale.text("figures-title");
        let rows: Vec<Vec<Markup>> =
            findings.iter().map(|row| row.iter().map(|cell| html! { (cell) }).collect()).collect();
        let headings = ["finding-rule", "column-client", "finding-explanation", "finding-entries"];
        html! {
            (DOCTYPE)
            html lang=(locale.code()) {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                    title { (title) " · NDXP" }
                    style { (maud::PreEscaped(headers::STYLE)) }
                }
                body {
                    main {
                        h1 { (title) }
                        p { (period) }
                        p.hint { (locale.with("figures-made", "time", locale.timestamp(crate::registry::now()))) }
                        (self.body(locale))
                        h2 { (locale.text("menu-findings")) }
                        (crate::console::table::table(locale, "menu-findings", &headings, &rows))
                    }
                    footer { "ndxp-gateway " (env!("CARGO_PKG_VERSION")) }
                }
            }
        }
        .into_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(from: i64, client: &str, outcome: &str, exchanges: u64) -> Count {
        Count {
            from,
            client: client.into(),
            outcome: outcome.into(),
            exchanges,
            total_us: exchanges * 2_500,
            ..Count::default()
        }
    }

    #[test]
    fn days_without_an_exchange_are_shown_and_hours_are_in_vietnam_time() {
        // 27/11/2026 00:00 and 29/11/2026 08:00 in Vietnam.
        let counts = vec![count(1_795_712_400, "a", "OK", 3), count(1_795_914_000, "b", "TOKEN_EXPIRED", 4)];
        let figures = Figures { counts, hours: true, ..Figures::default() };
        let days = figures.days(Locale::Vietnamese);
        assert_eq!(days, [("27/11/2026".into(), 3), ("28/11/2026".into(), 0), ("29/11/2026".into(), 4)]);
        let hours = figures.hours_of_day();
        assert_eq!((hours.len(), hours[0].1, hours[8].1, hours[7].1), (24, 3, 4, 0));
        assert_eq!(ranked(figures.sums(|count| count.client.clone())), [("b".to_owned(), 4), ("a".to_owned(), 3)]);
        let page = figures.body(Locale::English).into_string();
        assert!(page.contains("<dd>7</dd>") && page.contains("2.500 ms"), "{page}");
    }

    #[test]
    fn a_file_needs_no_other_and_escapes_its_values() {
        let counts = vec![count(1_795_712_400, "<img src=x onerror=alert(1)>", "OK", 1)];
        let finding = ["UNUSUAL_HOUR", "<b>", "</style><script>", "1"].map(str::to_owned);
        let file = Figures { counts, ..Figures::default() }.file(Locale::Vietnamese, "<script>", &[finding]);
        assert!(!file.contains("<script") && !file.contains("<img") && !file.contains("<b>"), "{file}");
        assert!(
            !file.contains("href=") && !file.contains("src=\"") && !file.contains("url("),
            "a reference to another file"
        );
        assert_eq!(file.matches("</style>").count(), 1);
    }
}
