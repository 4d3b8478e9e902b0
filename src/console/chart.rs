//! Charts as inline SVG: no script, no style attribute, colours from the style sheet (so that they follow the light and dark schemes), and
//! below each chart a table with the same numbers. It is plain markup, because chart libraries put colours and font sizes into the drawing,
//! where neither the dark scheme nor a small screen can change them.

use super::table::table;
use super::text::Locale;
use maud::{Markup, html};

/// Width of every drawing, in its own units: about the width of a phone, so that text stays readable there.
const WIDTH: f64 = 360.0;
/// Height of a row of bars: a line of text and the bar below it.
const ROW: f64 = 31.0;
/// Height of the plot area of columns and lines.
const HEIGHT: f64 = 120.0;
/// Maximum of drawn bars; the table has all values.
const MAX_BARS: usize = 12;
/// Maximum length of the text beside a bar, in characters.
const MAX_LABEL: usize = 46;
/// Maximum of labels below the columns.
const MAX_TICKS: usize = 6;
/// Line colours that the style sheet defines.
const COLOURS: usize = 6;

/// One value with its name.
pub type Value = (String, u64);

fn shortened(text: &str) -> String {
    if text.chars().count() <= MAX_LABEL {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(MAX_LABEL - 1).collect();
    short.push('…');
    short
}

/// A length in the drawing, with one decimal.
fn length(value: f64) -> String {
    format!("{value:.1}")
}

fn share(value: u64, max: u64, of: f64) -> f64 {
    value as f64 / max.max(1) as f64 * of
}

/// A drawing with its title, and its table below.
fn figure(locale: Locale, title: &str, drawing: &Markup, headings: &[&str], rows: &[Vec<Markup>]) -> Markup {
    html! {
        figure.chart {
            figcaption { (title) }
            (drawing)
            details { summary { (locale.text("chart-table")) } (table(locale, title, headings, rows)) }
        }
    }
}

fn rows_of(locale: Locale, values: &[Value]) -> Vec<Vec<Markup>> {
    values.iter().map(|(name, value)| vec![html! { (name) }, html! { (locale.number(*value)) }]).collect()
}

/// Draws horizontal bars, one per name, in the given order; only the first twelve. `headings` are the table's: name, value.
pub fn bars(locale: Locale, title: &str, headings: [&str; 2], values: &[Value]) -> Markup {
    if values.is_empty() {
        return figure(locale, title, &html! {}, &headings, &[]);
    }
    let max = values.iter().map(|(_, value)| *value).max().unwrap_or(0);
    let drawn = &values[..values.len().min(MAX_BARS)];
    let height = drawn.len() as f64 * ROW;
    let drawing = html! {
        svg viewBox={ "0 0 " (WIDTH) " " (length(height)) } role="img" aria-label=(title) {
            @for (at, (name, value)) in drawn.iter().enumerate() {
                @let top = at as f64 * ROW;
                g {
                    title { (name) ": " (locale.number(*value)) }
                    text x="0" y=(length(top + 12.0)) { (shortened(name)) }
                    text x=(WIDTH) y=(length(top + 12.0)) text-anchor="end" { (locale.number(*value)) }
                    rect.track x="0" y=(length(top + 17.0)) width=(WIDTH) height="8" rx="2" {}
                    rect.bar x="0" y=(length(top + 17.0)) width=(length(share(*value, max, WIDTH).max(1.0))) height="8" rx="2" {}
                }
            }
        }
        @if values.len() > MAX_BARS {
            p.hint { (locale.with("and-more", "count", locale.number((values.len() - MAX_BARS) as u64))) }
        }
    };
    figure(locale, title, &drawing, &headings, &rows_of(locale, values))
}

/// The frame of columns and lines: the largest value above, some names below.
fn frame<'n>(
    locale: Locale,
    title: &str,
    max: u64,
    names: impl ExactSizeIterator<Item = &'n str>,
    inner: &Markup,
) -> Markup {
    let count = names.len();
    let (step, every) = (WIDTH / count.max(1) as f64, count.div_ceil(MAX_TICKS).max(1));
    html! {
        svg viewBox={ "0 0 " (WIDTH) " " (length(HEIGHT + 34.0)) } role="img" aria-label=(title) {
            text x="0" y="11" { (locale.number(max)) }
            line.axis x1="0" y1="16" x2=(WIDTH) y2="16" {}
            line.axis x1="0" y1=(length(HEIGHT + 16.0)) x2=(WIDTH) y2=(length(HEIGHT + 16.0)) {}
            (inner)
            @for (at, name) in names.enumerate().step_by(every) {
                @let end = at > 0 && at + every >= count;
                @let x = if at == 0 { 0.0 } else if end { WIDTH } else { (at as f64 + 0.5) * step };
                text x=(length(x)) y=(length(HEIGHT + 30.0)) text-anchor=(if at == 0 { "start" } else if end { "end" } else { "middle" }) { (name) }
            }
        }
    }
}

/// Draws columns side by side, in the given order: hours, days.
pub fn columns(locale: Locale, title: &str, headings: [&str; 2], values: &[Value]) -> Markup {
    let max = values.iter().map(|(_, value)| *value).max().unwrap_or(0);
    let step = WIDTH / values.len().max(1) as f64;
    let inner = html! {
        @for (at, (name, value)) in values.iter().enumerate() {
            @let height = share(*value, max, HEIGHT);
            rect.bar x=(length(at as f64 * step + step * 0.1)) y=(length(16.0 + HEIGHT - height))
                width=(length(step * 0.8)) height=(length(height)) {
                title { (name) ": " (locale.number(*value)) }
            }
        }
    };
    let names = values.iter().map(|(name, _)| name.as_str());
    let drawing = html! { @if !values.is_empty() { (frame(locale, title, max, names, &inner)) } };
    figure(locale, title, &drawing, &headings, &rows_of(locale, values))
}

/// Draws lines over the same names: each with its own name and one value for each of `names`; a missing value is 0. `heading` is the
/// table's heading for the names.
pub fn lines(locale: Locale, title: &str, heading: &str, names: &[String], series: &[(String, Vec<u64>)]) -> Markup {
    let value = |values: &[u64], at: usize| values.get(at).copied().unwrap_or(0);
    let max = series.iter().flat_map(|(_, values)| values.iter().copied()).max().unwrap_or(0);
    let step = WIDTH / names.len().max(1) as f64;
    let points = |values: &[u64]| -> String {
        let point = |at: usize| {
            let y = 16.0 + HEIGHT - share(value(values, at), max, HEIGHT);
            format!("{},{}", length((at as f64 + 0.5) * step), length(y))
        };
        (0..names.len()).map(point).collect::<Vec<_>>().join(" ")
    };
    let inner = html! {
        @for (at, (name, values)) in series.iter().enumerate() {
            polyline class={ "line c" (at % COLOURS) } points=(points(values)) { title { (name) } }
        }
    };
    let drawing = html! {
        @if !names.is_empty() { (frame(locale, title, max, names.iter().map(String::as_str), &inner)) }
        @if series.len() > 1 {
            ul.legend { @for (at, (name, _)) in series.iter().enumerate() { li class={ "c" (at % COLOURS) } { (name) } } }
        }
    };
    let headings: Vec<&str> = std::iter::once(heading).chain(series.iter().map(|(name, _)| name.as_str())).collect();
    let row = |(at, name): (usize, &String)| {
        let values = series.iter().map(|(_, values)| html! { (locale.number(value(values, at))) });
        std::iter::once(html! { (name) }).chain(values).collect()
    };
    let rows: Vec<Vec<Markup>> = names.iter().enumerate().map(row).collect();
    figure(locale, title, &drawing, &headings, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_its_numbers_in_a_table_and_escapes_names() {
        let values = [("<script>".to_owned(), 1_500), ("b".to_owned(), 0)];
        let bars = bars(Locale::English, "By client", ["column-client", "Exchanges"], &values).into_string();
        assert!(bars.contains("1,500") && bars.contains("<th scope=\"col\">Client</th>"), "{bars}");
        assert!(bars.contains("&lt;script&gt;") && !bars.contains("<script") && !bars.contains("style="), "{bars}");
        let columns = columns(Locale::Vietnamese, "Giờ", ["a", "b"], &values).into_string();
        assert!(columns.contains("1.500") && columns.contains("height=\"120.0\""), "{columns}");
    }

    #[test]
    fn no_value_zero_and_many_values_are_drawn_with_valid_numbers() {
        let many: Vec<Value> = (0..400).map(|at| (format!("day {at}"), 0)).collect();
        for values in [&many[..], &many[..1], &[]] {
            let drawn = [
                bars(Locale::English, "x", ["a", "b"], values).into_string(),
                columns(Locale::English, "x", ["a", "b"], values).into_string(),
                lines(Locale::English, "x", "a", &[], &[]).into_string(),
            ]
            .concat();
            assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
        }
        let drawn = bars(Locale::English, "x", ["a", "b"], &many).into_string();
        assert_eq!(drawn.matches("<rect class=\"bar\"").count(), MAX_BARS);
        assert_eq!(drawn.matches("<tr>").count(), 401);
    }

    #[test]
    fn a_line_has_a_point_for_each_name_also_where_values_are_missing() {
        let names = ["1", "2", "3"].map(str::to_owned);
        let drawn = lines(Locale::English, "x", "hour", &names, &[("p99".into(), vec![4, 8]), ("p50".into(), vec![])]);
        let drawn = drawn.into_string();
        assert!(drawn.contains("points=\"60.0,76.0 180.0,16.0 300.0,136.0\""), "{drawn}");
        assert!(drawn.contains("<th scope=\"col\">p99</th>") && drawn.contains("class=\"legend\""), "{drawn}");
    }
}
