//! JSON responses (RFC 8259), as far as the sources need it: numbers keep their own text, duplicate names in one object
//! are refused, a byte order mark is skipped. Bounded in depth; the reader of the body bounds the size.

mod event_reader;
mod message;
mod serde_reader;

pub use message::{JsonMessageError, read_message, write_message};

use serde_json::Value;

/// Maximum nesting, the same as for XML.
const MAX_DEPTH: usize = 64;

/// The reason that a document was not read. Never contains its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not well-formed, or not UTF-8.
    #[error("the JSON is not well-formed")]
    Malformed,
    /// A name occurs twice in one object: readers differ in which value counts (RFC 8259, section 4).
    #[error("the JSON has a name twice in one object")]
    Duplicate,
    /// Nested deeper than 64.
    #[error("the JSON is nested too deeply")]
    Limit,
}

/// Reads a document. A number that a 64-bit integer holds is a number, any other is its own text.
///
/// # Errors
/// The document is not well-formed, has a duplicate name in one object, or is nested more than 64 deep.
pub fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    serde_reader::parse(bytes).map_or_else(|| event_reader::parse(bytes), Ok)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn u3_numbers_keep_their_text() {
        let document =
            parse(b"\xef\xbb\xbf{\"a\": 0.10, \"b\": 12345678901234567890123, \"c\": 5, \"d\": 1.5E9, \"e\": -0}")
                .unwrap();
        assert_eq!(document, json!({ "a": "0.10", "b": "12345678901234567890123", "c": 5, "d": "1.5E9", "e": "-0" }));
    }

    #[test]
    fn what_sources_write_is_of_the_serde_reader_and_what_no_float_holds_is_read_all_the_same() {
        for text in [
            r#"{"a": [0.10, -0, 1e5, {"b": 18446744073709551615, "c": 18446744073709551616}], "\"1.5": "\\", "d": -1.50}"#,
            "9223372036854775807",
            "[9223372036854775808, -9223372036854775808, -9223372036854775809]",
        ] {
            assert_eq!(serde_reader::parse(text.as_bytes()), event_reader::parse(text.as_bytes()).ok(), "{text}");
        }
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(serde_reader::parse(nested(MAX_DEPTH).as_bytes()).is_some());
        assert_eq!(parse(nested(MAX_DEPTH + 1).as_bytes()), Err(JsonError::Limit));
        for text in [format!("1{}", "0".repeat(400)), "1e999".to_owned()] {
            assert_eq!((serde_reader::parse(text.as_bytes()), parse(text.as_bytes())), (None, Ok(json!(text))));
        }
    }

    #[test]
    fn u8_documents_that_readers_understand_differently_are_refused() {
        let deep = "[".repeat(100) + &"]".repeat(100);
        for (text, error) in [
            (r#"{"a": 1, "a": 2}"#, JsonError::Duplicate),
            (r#"{"x": {"a": null, "b": 1, "a": null}}"#, JsonError::Duplicate),
            ("{\"a\": 1,}", JsonError::Malformed),
            ("[1 2]", JsonError::Malformed),
            ("01", JsonError::Malformed),
            ("{} {}", JsonError::Malformed),
            ("", JsonError::Malformed),
            ("<html>", JsonError::Malformed),
            ("{'a': 1}", JsonError::Malformed),
            ("NaN", JsonError::Malformed),
            ("\"\\ud800\"", JsonError::Malformed),
            ("{\"a\": 1", JsonError::Malformed),
            (deep.as_str(), JsonError::Limit),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err(), error, "{text}");
        }
        assert_eq!(parse(b"\"\xff\"").unwrap_err(), JsonError::Malformed);
        // The same name in two objects is no duplicate.
        assert_eq!(parse(br#"[{"a": 1}, {"a": 2}]"#).unwrap(), json!([{ "a": 1 }, { "a": 2 }]));
    }

    proptest! {
        #[test]
        fn what_serde_writes_is_read_as_serde_reads_it(texts in prop::collection::hash_map(".{0,8}", ".{0,12}", 0..6), numbers in prop::collection::vec(any::<i64>(), 0..6)) {
            let value = json!({ "texts": texts, "numbers": numbers, "more": [null, true, false, {}, []] });
            prop_assert_eq!(parse(value.to_string().as_bytes()).unwrap(), value.clone());
            prop_assert_eq!(parse(serde_json::to_string_pretty(&value).unwrap().as_bytes()).unwrap(), value);
        }

        #[test]
        fn what_is_read_is_json_to_others_as_well(text in "[\\[\\]{}\",:0-9a-z\\\\.eE+ -]{0,24}") {
            if parse(text.as_bytes()).is_ok() {
                prop_assert!(serde_json::from_str::<Value>(&text).is_ok() || text.contains(['e', 'E']), "{}", text);
            }
        }

        /// The reader of the common form accepts less, and never returns another result.
        #[test]
        fn both_readers_read_the_same(text in "(\\{\"a\": |\\[)?[\\[\\]{}\",:0-9a-z\\\\.eE+ -]{0,30}[\\]}]?", numbers in "-?[0-9]{1,22}(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,3})?") {
            for text in [text.clone(), format!("[{numbers}, \"\\\\\\\"1.5\", {{\"b\": {numbers}}}]"), format!("{{\"a\":{numbers},\"b\":[{text}]}}")] {
                if let Some(value) = serde_reader::parse(text.as_bytes()) {
                    prop_assert_eq!(event_reader::parse(text.as_bytes()), Ok(value), "{}", text);
                }
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
