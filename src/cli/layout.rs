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

/// How far the words of a table are divided to keep its columns, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Division {
    /// Every word is whole.
    None,
    /// Words of more than 32 characters, outside the first column, lose their ends.
    LongIds,
    /// Names end lines at their joints, too: after `_`, and before a capital letter (`TOKEN_NOT_`, `BOUND`).
    Names,
}

impl Division {
    /// The parts of a text between which a line may end.
    fn pieces(self, text: &str) -> Vec<&str> {
        pieces(text, self == Self::Names)
    }

    /// Width of a column's longest piece, in characters.
    fn width<'a>(self, at: usize, cells: impl Iterator<Item = &'a str>) -> usize {
        let (max_word, left) = MAX_WORD;
        let cuts = self >= Self::LongIds && at > 0;
        let pieces = cells.flat_map(|text| self.pieces(text)).map(|piece| length(piece.trim_end()));
        pieces.map(|piece| if cuts && piece > max_word { left } else { piece }).max().unwrap_or(0)
    }
}

/// Fits a table into a width, in characters. What is given up, in this order: the columns `optional`; ends of words of more than 32 characters,
/// except in the first column; names in one line; the other columns from the right. A table whose first column alone is wider is as wide as that.
pub fn fit(header: &[&str], rows: &[Vec<String>], optional: &[&str], width: usize) -> Layout {
    let cells = |at: usize| rows.iter().filter_map(move |row| row.get(at)).map(String::as_str);
    let all = |at: usize| cells(at).chain(header.get(at).copied());
    // Below its least width, a column's words are cut; beyond its whole width, nothing is gained.
    let whole: Vec<usize> =
        (0..header.len()).map(|at| all(at).flat_map(str::lines).map(length).max().unwrap_or(0)).collect();
    let whole = |at: usize| whole.get(at).copied().unwrap_or(0);
    let least = [Division::None, Division::LongIds, Division::Names]
        .map(|division| (division, (0..header.len()).map(|at| division.width(at, all(at))).collect::<Vec<_>>()));
    let framed = |shown: &[usize], least: &[usize]| {
        shown.iter().filter_map(|at| least.get(*at)).map(|width| width + FRAME.0).sum::<usize>() + FRAME.1
    };
    let [(_, undivided), _, (_, last)] = &least;
    let is_optional = |at: &&usize| header.get(**at).is_some_and(|name| optional.contains(name));
    let mut shown: Vec<usize> = (0..header.len()).collect();
    while framed(&shown, undivided) > width
        && let Some(gone) = shown.iter().skip(1).rev().find(is_optional).copied()
    {
        shown.retain(|at| *at != gone);
    }
    while shown.len() > 1 && framed(&shown, last) > width {
        shown.pop();
    }
    let fitting = least.iter().find(|(_, least)| framed(&shown, least) <= width);
    let (division, least) = fitting.map_or((Division::Names, last), |(division, least)| (*division, least));
    let mut widths: Vec<usize> = shown.iter().filter_map(|at| least.get(*at).copied()).collect();
    for _ in framed(&shown, least)..width {
        let lacking =
            |(nth, at): (usize, &usize)| (whole(*at).saturating_sub(widths.get(nth).copied().unwrap_or(0)), nth);
        // The rightmost of those that lack most: ids and names, which come first, are short.
        match shown.iter().enumerate().map(lacking).max() {
            Some((1.., nth)) => widths.iter_mut().skip(nth).take(1).for_each(|width| *width += 1),
            _ => break,
        }
    }
    let row = |cell: &dyn Fn(usize) -> String| -> Vec<String> {
        shown.iter().zip(&widths).map(|(at, width)| wrapped(&cell(*at), *width, division)).collect()
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
/// follows (a time stays whole). With `joints` also after `_`, and before a capital letter that follows a small one.
fn pieces(text: &str, joints: bool) -> Vec<&str> {
    let mut found = Vec::new();
    let mut from = 0;
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        let next = letters.peek().map(|(_, next)| *next);
        let ends = match letter {
            '/' | ',' | ':' => next.is_some_and(|next| !next.is_ascii_digit() && next != '/'),
            '_' => joints,
            letter if joints && letter.is_lowercase() => next.is_some_and(char::is_uppercase),
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
fn wrapped(text: &str, width: usize, division: Division) -> String {
    let mut lines: Vec<String> = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in pieces(paragraph, false) {
            // A name that has to be divided begins a line of its own.
            let parts = if length(word.trim_end()) > width { division.pieces(word) } else { vec![word] };
            for (at, part) in parts.iter().enumerate() {
                let is_divided = at == 0 && parts.len() > 1;
                if !line.is_empty() && (is_divided || length(&line) + length(part.trim_end()) > width) {
                    lines.push(std::mem::take(&mut line).trim_end().to_owned());
                }
                line.push_str(&cut(part, width));
            }
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
            wrapped("spiffe://ndxp.quangninh.gov.vn/client/one-stop-shop", 31, Division::None),
            "spiffe://ndxp.quangninh.gov.vn/\nclient/one-stop-shop"
        );
        assert_eq!(wrapped("PopulationService/VerifyCitizen", 18, Division::None), "PopulationService/\nVerifyCitizen");
        let many: Vec<String> = (0..10).map(|number| format!("scope{number}:read")).collect();
        assert_eq!(wrapped(&many.join(" "), 12, Division::None).lines().count(), MAX_LINES);
        assert!(wrapped(&many.join("\n"), 12, Division::None).ends_with("… 5 more"));
        assert!(wrapped(&many.join("\n"), 7, Division::None).ends_with("\n…"));
    }

    #[test]
    fn names_end_lines_at_their_joints_before_a_column_is_left_out() {
        let action = "ResidenceService/ListRegistrationsOfToday";
        let rows = [texts(&["1024", "2026-11-28 04:51:30", "one-stop-shop", action, "TOKEN_NOT_BOUND_TO_CERTIFICATE"])];
        let layout = fit(&["entry", "time", "actor", "action", "outcome"], &rows, &[], 80);
        assert_eq!(layout.hidden, texts(&[]));
        assert_eq!(layout.lines[1][3], "ResidenceService/\nListRegistrationsOf\nToday");
        assert_eq!(layout.lines[1][4], "TOKEN_NOT_\nBOUND_TO_\nCERTIFICATE");
    }

    proptest! {
        #[test]
        fn a_table_is_never_wider_than_its_terminal_unless_one_word_is(
            rows in proptest::collection::vec(proptest::collection::vec("[a-zA-Bđ:/,_ 0-9-]{0,40}", 4), 1..6),
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
