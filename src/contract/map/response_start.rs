//! The beginning of the contract's message in a source's response: behind the wrappers that the contract names.

use super::values::{is_absent, only};
use serde_json::Value;

/// The beginning of a response's message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Start<'v> {
    /// Here.
    At(&'v Value),
    /// The path to it ends in an empty value whose name is present.
    Empty,
    /// The path to it is not in the document: the source returned something else.
    Missing,
}

/// Follows the wrappers to the beginning of the response's message: by the first path that exists in the document.
pub fn start<'v>(document: &'v Value, response_root: &[Vec<String>]) -> Start<'v> {
    let all = response_root.iter().map(|way| start_by(document, way));
    all.fold(Start::Missing, |best, one| match (best, one) {
        (Start::At(_), _) => best,
        (Start::Empty, Start::At(_)) | (Start::Missing, _) => one,
        (Start::Empty, _) => best,
    })
}

fn start_by<'v>(document: &'v Value, way: &[String]) -> Start<'v> {
    let mut here = document;
    for (depth, part) in way.iter().enumerate() {
        match only(here).get(part) {
            Some(next) => here = next,
            // Everything on the path must be present by name.
            None if depth > 0 && is_absent(here) => return Start::Empty,
            None => return Start::Missing,
        }
    }
    match here {
        // The document itself: an empty list is a list, an empty structure or text is nothing.
        Value::Array(items) if items.is_empty() => Start::Empty,
        here if way.is_empty() => Start::At(here),
        here if is_absent(here) => Start::Empty,
        here => Start::At(here),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_empty_answer_is_told_from_another_one() {
        let root = [vec!["Data".to_owned(), "Main".to_owned()], vec!["Rows".to_owned()]];
        assert_eq!(start(&json!({ "Data": { "Main": { "a": 1 } } }), &root), Start::At(&json!({ "a": 1 })));
        assert_eq!(start(&json!({ "Data": [{ "Main": [1] }] }), &root), Start::At(&json!([1])));
        assert_eq!(
            start(&json!({ "Data": null, "Rows": [1] }), &root),
            Start::At(&json!([1])),
            "by the way that leads there"
        );
        for empty in
            [json!({ "Data": null, "x": 1 }), json!({ "Data": "", "x": 1 }), json!({ "Data": { "Main": {} }, "x": 1 })]
        {
            assert_eq!(start(&empty, &root), Start::Empty, "{empty}");
        }
        for other in [json!({}), json!({ "x": 1 }), json!([1, 2]), json!("text"), json!({ "Data": { "x": 1 } })] {
            assert_eq!(start(&other, &root), Start::Missing, "{other}");
        }
    }
}
