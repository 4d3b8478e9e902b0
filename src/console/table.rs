//! Lists: a table that a narrow screen shows as cards, a text if it is empty, and the link to the next page.

use super::text::Locale;
use maud::{Markup, html};

/// Shows a table with this name; each row has one cell per heading.
pub fn table(locale: Locale, name: &str, headings: &[&str], rows: &[Vec<Markup>]) -> Markup {
    if rows.is_empty() {
        return html! { p.empty { (locale.text("nothing-here")) } };
    }
    let headings: Vec<String> = headings.iter().map(|key| locale.text(key)).collect();
    html! {
        div.scroll tabindex="0" role="region" aria-label=(locale.text(name)) {
            table {
                thead { tr { @for heading in &headings { th scope="col" { (heading) } } } }
                tbody {
                    @for row in rows {
                        tr { @for (cell, heading) in row.iter().zip(&headings) { td data-label=(heading) { div { (cell) } } } }
                    }
                }
            }
        }
    }
}

/// Shows the properties of one record.
pub fn properties(locale: Locale, all: &[(&str, Markup)]) -> Markup {
    html! {
        dl.facts {
            @for (key, value) in all { div { dt { (locale.text(key)) } dd { (value) } } }
        }
    }
}

/// Shows the filter of a list by client, and by one state or all.
pub fn client_filter(locale: Locale, path: &str, client: &str, (state, only, key): (&str, &str, &str)) -> Markup {
    html! {
        form.filter method="get" action=(path) {
            label { (locale.text("column-client")) input name="client" value=(client); }
            label { (locale.text("column-state"))
                select name="state" {
                    option value="" { (locale.text("state-any")) }
                    option value=(only) selected[state == only] { (locale.text(key)) }
                }
            }
            button type="submit" { (locale.text("filter")) }
        }
    }
}

/// Links to the next page of a list, with its filters; empty on the last page.
pub fn next(locale: Locale, path: &str, filters: &[(&str, &str)], token: &str) -> Markup {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(filters.iter().filter(|(_, value)| !value.is_empty())).append_pair("page", token);
    html! {
        @if !token.is_empty() { p.pages { a href={ (path) "?" (query.finish()) } { (locale.text("next-page")) } } }
    }
}

/// Shows texts one below the other.
pub fn lines(all: &[String]) -> Markup {
    html! { @for (at, one) in all.iter().enumerate() { @if at > 0 { br; } (one) } }
}

/// Texts that a cell shows at once; the others are folded.
const SHOWN: usize = 4;

/// The same in a table cell: those beyond the first few are folded.
pub fn folded(locale: Locale, all: &[String]) -> Markup {
    let (first, more) = all.split_at(all.len().min(if all.len() > SHOWN + 1 { SHOWN } else { SHOWN + 1 }));
    html! {
        (lines(first))
        @if !more.is_empty() {
            details { summary { (locale.with("and-more", "count", locale.number(more.len() as u64))) } (lines(more)) }
        }
    }
}
