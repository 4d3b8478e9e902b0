//! Lays a table out for a terminal: no cell is wrapped within a word, and a column for which there is no room is left out by name.

use std::borrow::Cow;

/// Most lines of a cell.
const MAX_LINES: usize = 6;
/// Width of a table's lines beside its cells: three characters a column and one at its end.
const FRAME: (usize, usize) = (3, 1);

/// A table that fits.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    /// The header and then the rows, of the columns that are shown; each cell with its line ends.
    pub lines: Vec<Vec<String>>,
    /// The headings of the columns that are not.
    pub hidden: Vec<String>,
}

/// Longest word that is kept whole at the cost of another column, in characters: reasons and names are shorter, ids and digests longer. Of those
/// so much is left.
const MAX_WORD: (usize, usize) = (32, 14);

/// Fits a table into a width, in characters. What is left out, in this order: the columns `optional`; ends of words of more than 32 characters,
/// except in the first column; the other columns from the right. A table whose first column alone is wider is as wide as that.
pub fn fit(header: &[&str], rows: &[Vec<String>], optional: &[&str], width: usize) -> Layout {
    let cells = |at: usize| rows.iter().filter_map(move |row| row.get(at)).map(String::as_str);
    let all = |at: usize| cells(at).chain(header.get(at).copied());
    let widest_piece = |at| all(at).flat_map(pieces).map(|piece| length(piece.trim_end())).max().unwrap_or(0);
    let widest_line = |at| all(at).flat_map(str::lines).map(length).max().unwrap_or(0);
    // Of each column: below its least, a word is cut; beyond its whole, nothing is gained.
    let columns: Vec<(usize, usize)> = (0..header.len()).map(|at| (widest_piece(at), widest_line(at))).collect();
    let whole = |at: usize| columns.get(at).map_or(0, |one| one.1);
    let longest = |at: usize| columns.get(at).map_or(0, |one| one.0);
    let is_optional = |at: &&usize| header.get(**at).is_some_and(|name| optional.contains(name));
    let (max_word, left) = MAX_WORD;
    // The longest word of a column that has none of more than 32 characters.
    let short = |at: usize| {
        let words = all(at).flat_map(pieces).map(|piece| length(piece.trim_end()));
        words.map(|word| if word > max_word { left } else { word }).max().unwrap_or(0)
    };
    let least = |at: usize, cuts: bool| if cuts && at > 0 { short(at) } else { longest(at) };
    let framed = |shown: &[usize], cuts| shown.iter().map(|at| least(*at, cuts) + FRAME.0).sum::<usize>() + FRAME.1;
    let mut shown: Vec<usize> = (0..header.len()).collect();
    while framed(&shown, false) > width
        && let Some(gone) = shown.iter().skip(1).rev().find(is_optional).copied()
    {
        shown.retain(|at| *at != gone);
    }
    let cuts = framed(&shown, false) > width;
    while shown.len() > 1 && framed(&shown, cuts) > width {
        shown.pop();
    }
    let least = |at: usize| least(at, cuts);
    let mut widths: Vec<usize> = shown.iter().map(|at| least(*at)).collect();
    for _ in framed(&shown, cuts)..width {
        let lacking =
            |(nth, at): (usize, &usize)| (whole(*at).saturating_sub(widths.get(nth).copied().unwrap_or(0)), nth);
        // The rightmost of those that lack most: ids and names, which come first, are short.
        match shown.iter().enumerate().map(lacking).max() {
            Some((1.., nth)) => widths.iter_mut().skip(nth).take(1).for_each(|width| *width += 1),
            _ => break,
        }
    }
    let row = |cell: &dyn Fn(usize) -> String| -> Vec<String> {
        shown.iter().zip(&widths).map(|(at, width)| wrapped(&cell(*at), *width)).collect()
    };
    let head = row(&|at| header.get(at).copied().unwrap_or_default().to_owned());
    let body = rows.iter().map(|cells| row(&|at| cells.get(at).cloned().unwrap_or_default()));
    let hidden = header.iter().enumerate().filter(|(at, _)| !shown.contains(at)).map(|(_, name)| (*name).to_owned());
    Layout { lines: std::iter::once(head).chain(body).collect(), hidden: hidden.collect() }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// The parts of a text between which a line may end: after spaces, and after `/`, `,` and `:` within an address or a list, where no digit
/// follows (a time stays whole).
fn pieces(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut from = 0;
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        let next = letters.peek().map(|(_, next)| *next);
        let ends = match letter {
            '/' | ',' | ':' => next.is_some_and(|next| !next.is_ascii_digit() && next != '/'),
            letter => letter.is_whitespace(),
        };
        if ends {
            let end = at + letter.len_utf8();
            found.extend(text.get(from..end));
            from = end;
        }
    }
    found.extend(text.get(from..).filter(|rest| !rest.is_empty()));
    found
}

/// A piece within a width; what is cut off is an ellipsis.
fn cut(piece: &str, width: usize) -> Cow<'_, str> {
    if length(piece.trim_end()) <= width {
        return piece.into();
    }
    let kept: String = piece.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…").into()
}

/// A cell in lines of a width, six at most: the last one says how many more there are.
fn wrapped(text: &str, width: usize) -> String {
    let mut lines: Vec<String> = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for piece in pieces(paragraph) {
            if !line.is_empty() && length(&line) + length(piece.trim_end()) > width {
                lines.push(std::mem::take(&mut line).trim_end().to_owned());
            }
            line.push_str(&cut(piece, width));
        }
        lines.push(line.trim_end().to_owned());
    }
    if lines.len() > MAX_LINES {
        let more = lines.len() - MAX_LINES + 1;
        lines.truncate(MAX_LINES - 1);
        let said = format!("… {more} more");
        lines.push(if length(&said) <= width { said } else { "…".to_owned() });
    }
    lines.join("\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(row: &[&str]) -> Vec<String> {
        row.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_column_without_room_is_left_out_and_named() {
        let rows =
            [texts(&["01a21ec7-0c15-758d-9bce-60ba7a2bdafa", "one-stop-shop", "2026-11-28 04:51:30", "in force"])];
        let header = ["token", "client", "expires", "state"];
        assert_eq!(fit(&header, &rows, &[], 200).hidden, texts(&[]));
        let eighty = fit(&header, &rows, &[], 80);
        assert_eq!((eighty.hidden, eighty.lines[1][2].as_str()), (texts(&[]), "2026-11-28\n04:51:30"));
        let narrow = fit(&header, &rows, &["client"], 70);
        assert_eq!((narrow.hidden, narrow.lines[0].join(" ").as_str()), (texts(&["client"]), "token expires state"));
        assert_eq!(fit(&header, &rows, &[], 10).hidden, texts(&["client", "expires", "state"]));
    }

    #[test]
    fn addresses_and_lists_end_lines_at_their_joints_and_long_cells_say_what_is_missing() {
        assert_eq!(
            wrapped("spiffe://ndxp.quangninh.gov.vn/client/one-stop-shop", 31),
            "spiffe://ndxp.quangninh.gov.vn/\nclient/one-stop-shop"
        );
        assert_eq!(wrapped("PopulationService/VerifyCitizen", 18), "PopulationService/\nVerifyCitizen");
        let many: Vec<String> = (0..10).map(|number| format!("scope{number}:read")).collect();
        assert_eq!(wrapped(&many.join(" "), 12).lines().count(), MAX_LINES);
        assert!(wrapped(&many.join("\n"), 12).ends_with("… 5 more"));
        assert!(wrapped(&many.join("\n"), 7).ends_with("\n…"));
    }

    proptest! {
        #[test]
        fn a_table_is_never_wider_than_its_terminal_unless_one_word_is(
            rows in proptest::collection::vec(proptest::collection::vec("[a-zđ:/, 0-9-]{0,40}", 4), 1..6),
            width in 20usize..160,
        ) {
            let layout = fit(&["one", "two", "three", "four"], &rows, &["two"], width);
            let columns = layout.lines[0].len();
            let widest = |at: usize| layout.lines.iter().flat_map(|row| row[at].lines()).map(length).max().unwrap_or(0);
            let total = (0..columns).map(|at| widest(at) + FRAME.0).sum::<usize>() + FRAME.1;
            prop_assert!(total <= width || columns == 1, "{total} of {width}: {layout:?}");
        }
    }
}
