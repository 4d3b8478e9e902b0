//! JSON answers (RFC 8259), as far as the sources need it: numbers keep their own text, names that stand twice in one object are
//! refused, a byte order mark is passed over. Bounded in depth; in size by who reads the body.

use json_event_parser::{JsonEvent, SliceJsonParser};
use serde_json::{Map, Value};

/// Deepest nesting that is read, as of XML.
const MAX_DEPTH: usize = 64;

/// Why a document was not read. Never tells its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not well-formed, or not UTF-8.
    #[error("the JSON is not well-formed")]
    Malformed,
    /// A name stands twice in one object: readers differ in which value counts (RFC 8259, section 4).
    #[error("the JSON has a name twice in one object")]
    Duplicate,
    /// Nested deeper than 64.
    #[error("the JSON is nested too deeply")]
    Limit,
}

/// Something that is open: an array, or an object with the name whose value comes next.
enum OpenContainer {
    Array(Vec<Value>),
    Object(Map<String, Value>, Option<String>),
}

/// Reads a document. A number that a 64-bit integer holds is a number, any other is its own text.
pub fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut parser = SliceJsonParser::new(bytes);
    let mut open: Vec<OpenContainer> = Vec::new();
    let mut root = None;
    loop {
        let value = match parser.parse_next().map_err(|_| JsonError::Malformed)? {
            JsonEvent::String(text) => Value::String(text.into_owned()),
            JsonEvent::Number(text) => number(&text),
            JsonEvent::Boolean(flag) => Value::Bool(flag),
            JsonEvent::Null => Value::Null,
            JsonEvent::StartArray | JsonEvent::StartObject if open.len() >= MAX_DEPTH => return Err(JsonError::Limit),
            JsonEvent::StartArray => {
                open.push(OpenContainer::Array(Vec::new()));
                continue;
            }
            JsonEvent::StartObject => {
                open.push(OpenContainer::Object(Map::new(), None));
                continue;
            }
            JsonEvent::ObjectKey(key) => match open.last_mut() {
                Some(OpenContainer::Object(object, name)) if !object.contains_key(key.as_ref()) => {
                    *name = Some(key.into_owned());
                    continue;
                }
                Some(OpenContainer::Object(..)) => return Err(JsonError::Duplicate),
                _ => return Err(JsonError::Malformed),
            },
            JsonEvent::EndArray => match open.pop() {
                Some(OpenContainer::Array(items)) => Value::Array(items),
                _ => return Err(JsonError::Malformed),
            },
            JsonEvent::EndObject => match open.pop() {
                Some(OpenContainer::Object(object, None)) => Value::Object(object),
                _ => return Err(JsonError::Malformed),
            },
            JsonEvent::Eof => return root.filter(|_| open.is_empty()).ok_or(JsonError::Malformed),
        };
        match open.last_mut() {
            Some(OpenContainer::Array(items)) => items.push(value),
            Some(OpenContainer::Object(object, name)) => {
                object.insert(name.take().ok_or(JsonError::Malformed)?, value);
            }
            None if root.is_none() => root = Some(value),
            None => return Err(JsonError::Malformed),
        }
    }
}

/// A number whose text a 64-bit integer gives back is one; every other is its own text, for no float to change it.
fn number(text: &str) -> Value {
    if text.len() <= 20
        && let Ok(number) = text.parse::<i64>()
        && text != "-0"
    {
        return Value::from(number);
    }
    Value::String(text.to_owned())
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

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
