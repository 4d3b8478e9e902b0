//! XML, as far as the sources need it: elements, text, namespaces. No DTD, no external entity, bounded in depth, size
//! and number of elements (OWASP XML External Entity Prevention).

mod write;

use encoding_rs::Encoding;
use quick_xml::NsReader;
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::ResolveResult;
use serde_json::map::Entry;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::sync::Arc;
pub use write::{escape_into, write_content, write_element, write_root};

/// The declaration that documents begin with.
pub const DECLARATION: &str = r#"<?xml version="1.0" encoding="UTF-8"?>"#;
/// Maximum nesting: envelopes and the deepest known record need fewer than 20.
const MAX_DEPTH: usize = 64;
/// Maximum number of elements in a document: a list of some thousand records of some tens of fields.
const MAX_ELEMENTS: usize = 1_000_000;

/// The reason that a document was not read. Never contains its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum XmlError {
    /// Not well-formed, or not UTF-8.
    #[error("the XML is not well-formed")]
    Malformed,
    /// In an unknown encoding, or not in the one that it declares.
    #[error("the XML is not in the encoding that it says")]
    Encoding,
    /// A character that XML 1.0 forbids, literally or by reference.
    #[error("the XML has a character that XML forbids")]
    Character,
    /// A document type declaration.
    #[error("the XML has a document type declaration")]
    Doctype,
    /// An entity other than the five predefined ones.
    #[error("the XML refers to an entity")]
    Entity,
    /// Nested deeper than 64, or more than a million elements.
    #[error("the XML is nested too deeply or has too many elements")]
    Limit,
}

/// An element. Attributes are kept for the few places that need them (X-Road's object types).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Element {
    /// Local name.
    pub name: String,
    /// Namespace, or empty. Consecutive elements share it.
    pub namespace: Arc<str>,
    /// Attributes by local name, without namespace declarations.
    pub attributes: Vec<(String, String)>,
    /// Child elements.
    pub children: Vec<Element>,
    /// Text, without that of the children, and without white space that only precedes a child.
    pub text: String,
}

impl Element {
    /// Returns whether it is the element of this local name and namespace.
    pub fn is(&self, namespace: &str, name: &str) -> bool {
        self.name == name && *self.namespace == *namespace
    }

    /// Returns the first child of this local name.
    pub fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// Returns the text of the first child of this local name.
    pub fn child_text(&self, name: &str) -> Option<&str> {
        self.child(name).map(|child| child.text.trim())
    }

    /// Returns whether any element has an attribute that carries data.
    pub fn has_attributes(&self) -> bool {
        self.own_attributes().next().is_some() || self.children.iter().any(Element::has_attributes)
    }

    /// Returns the names of the attributes that do not belong to SOAP, XML or XML Schema.
    pub fn own_attributes(&self) -> impl Iterator<Item = &str> {
        let names = self.attributes.iter().map(|(name, _)| name.as_str());
        names.filter(|name| !OF_THE_FORM.contains(name))
    }

    /// An element without text or children is not empty if its attributes carry data: no contract reads them, and their
    /// data must not pass for nothing.
    fn says_in_attributes(&self) -> Option<Value> {
        let says =
            |(name, value): &&(String, String)| !OF_THE_FORM.contains(&name.as_str()) && !value.trim().is_empty();
        let blank = self.text.trim().is_empty();
        let object: Map<String, Value> = self
            .attributes
            .iter()
            .filter(|_| blank)
            .filter(says)
            .map(|(name, value)| (format!("@{name}"), Value::from(value.as_str())))
            .collect();
        (!object.is_empty()).then_some(Value::Object(object))
    }

    /// Converts it to a document for the mapping: see [`crate::contract::map`].
    pub fn into_value(self) -> Value {
        if self.attributes.iter().any(|(name, value)| name == "nil" && matches!(value.as_str(), "true" | "1")) {
            return Value::Null;
        }
        if self.children.is_empty() {
            return match self.says_in_attributes() {
                Some(attributes) => attributes,
                None => Value::String(self.text),
            };
        }
        let mut object = Map::with_capacity(self.children.len());
        // Text between elements is not lost: an element with both is neither a text nor absent.
        if !self.text.trim().is_empty() {
            object.insert(TEXT.to_owned(), Value::String(self.text));
        }
        for mut child in self.children {
            let name = std::mem::take(&mut child.name);
            let value = child.into_value();
            match object.entry(name) {
                Entry::Occupied(mut earlier) => match earlier.get_mut() {
                    Value::Array(items) => items.push(value),
                    first => *first = Value::Array(vec![first.take(), value]),
                },
                Entry::Vacant(free) => {
                    free.insert(value);
                }
            }
        }
        Value::Object(object)
    }
}

/// The key of the text beside an element's children; no element can have this name.
const TEXT: &str = "#text";

/// Attributes of SOAP, XML and XML Schema, which carry no data of a record.
const OF_THE_FORM: [&str; 14] = [
    "type",
    "nil",
    "id",
    "href",
    "ref",
    "root",
    "lang",
    "space",
    "encodingStyle",
    "arrayType",
    "offset",
    "position",
    "schemaLocation",
    "noNamespaceSchemaLocation",
];

/// Reads a document that states its own encoding.
///
/// # Errors
/// As for [`parse_in`].
pub fn parse(bytes: &[u8]) -> Result<Element, XmlError> {
    parse_in(bytes, None)
}

/// Reads a document. Its encoding is that of the byte order mark, else `charset` (of the media type), else that of its declaration,
/// else UTF-8 (RFC 7303, section 3; XML 1.0, appendix F).
///
/// # Errors
/// The document is malformed, has a document type or an entity, exceeds a bound, or has an unknown encoding.
pub fn parse_in(bytes: &[u8], charset: Option<&str>) -> Result<Element, XmlError> {
    let text = decode(bytes, charset)?;
    if has_forbidden(&text) {
        return Err(XmlError::Character);
    }
    let mut reader = NsReader::from_str(&text);
    reader.config_mut().expand_empty_elements = true;
    let mut tree = Tree::default();
    loop {
        let (namespace, event) = reader.read_resolved_event().map_err(|_| XmlError::Malformed)?;
        match event {
            Event::Start(start) => tree.start(namespace, &start)?,
            Event::End(_) => tree.end()?,
            Event::Text(text) => tree.text(text.xml10_content())?,
            Event::CData(data) => tree.inside()?.text.push_str(&data.xml10_content()),
            Event::GeneralRef(reference) => {
                let element = tree.inside()?;
                match reference.resolve_char_ref().map_err(|_| XmlError::Entity)? {
                    Some(character) if !is_allowed(character) => return Err(XmlError::Character),
                    Some(character) => element.text.push(character),
                    None => {
                        let name = reference.into_inner();
                        let known = quick_xml::escape::resolve_predefined_entity(&name).ok_or(XmlError::Entity)?;
                        element.text.push_str(known);
                    }
                }
            }
            Event::DocType(_) => return Err(XmlError::Doctype),
            Event::Eof => return tree.root(),
            Event::Decl(_) | Event::Comment(_) | Event::PI(_) => {}
            Event::Empty(_) => return Err(XmlError::Malformed),
        }
    }
}

/// The elements of a document that have been read so far.
#[derive(Default)]
struct Tree<'t> {
    open: Vec<Element>,
    root: Option<Element>,
    count: usize,
    /// White space that may be the text of the innermost open element, or only precede its first child.
    space: Option<Cow<'t, str>>,
    /// Of the last element.
    namespace: Arc<str>,
}

impl<'t> Tree<'t> {
    fn start(&mut self, namespace: ResolveResult<'_>, start: &BytesStart<'_>) -> Result<(), XmlError> {
        self.count += 1;
        if self.open.len() >= MAX_DEPTH || self.count > MAX_ELEMENTS {
            return Err(XmlError::Limit);
        }
        let namespace = match namespace {
            ResolveResult::Bound(bound) => bound.0,
            ResolveResult::Unbound => "",
            ResolveResult::Unknown(_) => return Err(XmlError::Malformed),
        };
        if *self.namespace != *namespace {
            self.namespace = namespace.into();
        }
        let (name, namespace) = (start.local_name().as_ref().to_owned(), self.namespace.clone());
        let mut element = Element { name, namespace, ..Element::default() };
        for attribute in start.attributes() {
            let attribute = attribute.map_err(|_| XmlError::Malformed)?;
            let key = attribute.key;
            if key.as_ref() != "xmlns" && !key.as_ref().starts_with("xmlns:") {
                let value = quick_xml::escape::unescape(&attribute.value).map_err(|_| XmlError::Entity)?;
                element.attributes.push((key.local_name().as_ref().to_owned(), value.into_owned()));
            }
        }
        self.space = None;
        self.open.push(element);
        Ok(())
    }

    fn end(&mut self) -> Result<(), XmlError> {
        let mut closed = self.open.pop().ok_or(XmlError::Malformed)?;
        if let Some(space) = self.space.take().filter(|_| closed.children.is_empty()) {
            closed.text.push_str(&space);
        }
        match self.open.last_mut() {
            Some(parent) => parent.children.push(closed),
            None if self.root.is_none() => self.root = Some(closed),
            None => return Err(XmlError::Malformed),
        }
        Ok(())
    }

    fn text(&mut self, text: Cow<'t, str>) -> Result<(), XmlError> {
        let only_space = text.trim().is_empty();
        match self.open.last() {
            None if only_space => {}
            None => return Err(XmlError::Malformed),
            Some(element) if only_space && element.text.is_empty() && self.space.is_none() => self.space = Some(text),
            Some(_) => self.inside()?.text.push_str(&text),
        }
        Ok(())
    }

    /// Returns the innermost open element, to which the text belongs.
    fn inside(&mut self) -> Result<&mut Element, XmlError> {
        let element = self.open.last_mut().ok_or(XmlError::Malformed)?;
        if let Some(space) = self.space.take() {
            element.text.push_str(&space);
        }
        Ok(element)
    }

    fn root(self) -> Result<Element, XmlError> {
        self.root.filter(|_| self.open.is_empty()).ok_or(XmlError::Malformed)
    }
}

/// Decodes the document.
fn decode<'b>(bytes: &'b [u8], charset: Option<&str>) -> Result<Cow<'b, str>, XmlError> {
    let named = |label: &str| Encoding::for_label(label.trim().as_bytes()).ok_or(XmlError::Encoding);
    let (encoding, rest) = match (Encoding::for_bom(bytes), charset, declared(bytes)) {
        (Some((encoding, mark)), _, _) => (encoding, &bytes[mark..]),
        (None, Some(charset), _) => (named(charset)?, bytes),
        (None, None, Declared::As(label)) => (named(&label)?, bytes),
        (None, None, Declared::Wide(encoding)) => (encoding, bytes),
        (None, None, Declared::Nothing) => (encoding_rs::UTF_8, bytes),
    };
    if encoding == encoding_rs::UTF_8 {
        return std::str::from_utf8(rest).map(Cow::Borrowed).map_err(|_| XmlError::Encoding);
    }
    let text = encoding.decode_without_bom_handling_and_without_replacement(rest).ok_or(XmlError::Encoding)?;
    // windows-1258 writes Vietnamese in letters and marks.
    Ok(Cow::Owned(super::text::nfc(&text).into_owned()))
}

/// Returns the encoding that the beginning of a document without a mark shows.
enum Declared {
    Nothing,
    As(String),
    /// Two bytes a character.
    Wide(&'static Encoding),
}

/// Longest declaration, in bytes.
const MAX_DECLARATION: usize = 200;

fn declared(bytes: &[u8]) -> Declared {
    // Some scripts write blank lines before it.
    let bytes = bytes.trim_ascii_start();
    match bytes {
        [b'<', 0, b'?', 0, ..] => return Declared::Wide(encoding_rs::UTF_16LE),
        [0, b'<', 0, b'?', ..] => return Declared::Wide(encoding_rs::UTF_16BE),
        _ if !bytes.starts_with(b"<?xml") => return Declared::Nothing,
        _ => {}
    }
    let head = &bytes[..bytes.len().min(MAX_DECLARATION)];
    let head: String = head.iter().take_while(|byte| **byte != b'>').map(|byte| char::from(*byte)).collect();
    let Some((_, after)) = head.split_once("encoding") else { return Declared::Nothing };
    let after = after.trim_start().strip_prefix('=').map(str::trim_start).unwrap_or("");
    let quote = after.chars().next().filter(|quote| matches!(quote, '"' | '\''));
    match quote.and_then(|quote| after[1..].split_once(quote)) {
        // A declaration that can be read as ASCII is not in UTF-16, whatever it states.
        Some((label, _)) if label.to_ascii_lowercase().starts_with("utf-16") => Declared::Nothing,
        Some((label, _)) => Declared::As(label.to_owned()),
        None => Declared::Nothing,
    }
}

/// Returns whether a text has a character that XML 1.0 forbids: one of one byte, or one of the two that begin with 0xEF
/// in UTF-8.
fn has_forbidden(text: &str) -> bool {
    let control = |byte: u8| byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r');
    text.bytes().any(control) || (text.as_bytes().contains(&0xef) && !text.chars().all(is_allowed))
}

/// Returns whether XML 1.0 allows a character (section 2.2).
pub fn is_allowed(character: char) -> bool {
    !matches!(character, '\u{0}'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostile_documents_are_refused() {
        let deep = "<a>".repeat(100) + &"</a>".repeat(100);
        let cases: &[(&str, XmlError)] = &[
            ("<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>", XmlError::Doctype),
            ("<a>&xxe;</a>", XmlError::Entity),
            ("<a><b></a>", XmlError::Malformed),
            ("<a/><b/>", XmlError::Malformed),
            ("", XmlError::Malformed),
            ("<p:a/>", XmlError::Malformed),
            (&deep, XmlError::Limit),
        ];
        for (text, error) in cases {
            assert_eq!(parse(text.as_bytes()).unwrap_err(), *error, "{text}");
        }
        assert_eq!(parse(&[b'<', 0xff, b'>']).unwrap_err(), XmlError::Encoding);
        for forbidden in
            ["<a>\u{0}</a>", "<a>\u{1f}</a>", "<a>\u{ffff}</a>", "<a>&#1;</a>", "<a>&#xFFFE;</a>", "<a>&#0;</a>"]
        {
            let error = parse(forbidden.as_bytes()).unwrap_err();
            assert!(matches!(error, XmlError::Character | XmlError::Entity), "{forbidden:?}: {error}");
        }
    }

    #[test]
    fn u8_encodings_are_those_of_mark_header_and_declaration_in_this_order() {
        let text = "<a>Hồng Gai, Đông</a>";
        let utf16 = |big: bool, mark: bool, text: &str| -> Vec<u8> {
            let units = mark.then_some(0xfeff).into_iter().chain(text.encode_utf16());
            units.flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
        };
        let declared = |label: &str, text: &str| format!("<?xml version='1.0' encoding='{label}'?>{text}");
        let is = |bytes: &[u8], charset: Option<&str>, expected: &str| {
            assert_eq!(parse_in(bytes, charset).unwrap().text, expected, "{charset:?} {bytes:?}");
        };
        for big in [true, false] {
            is(&utf16(big, true, text), None, "Hồng Gai, Đông");
            is(&utf16(big, true, text), Some("utf-8"), "Hồng Gai, Đông");
            is(&utf16(big, false, &declared("UTF-16", text)), None, "Hồng Gai, Đông");
        }
        is(b"<?xml version='1.0' encoding='ISO-8859-1'?><a>caf\xe9</a>", None, "café");
        // The header overrides the declaration, and the mark overrides both.
        is(b"<?xml version='1.0' encoding='UTF-8'?><a>caf\xe9</a>", Some("iso-8859-1"), "café");
        is("\u{feff}<?xml version='1.0' encoding='ISO-8859-1'?><a>café</a>".as_bytes(), Some("iso-8859-1"), "café");
        is(declared("UTF-16", text).as_bytes(), None, "Hồng Gai, Đông");
        for (bytes, charset) in [
            (&b"<a>caf\xe9</a>"[..], None),
            (b"<?xml version='1.0' encoding='nobody-8'?><a/>", None),
            (b"<a/>", Some("nobody-8")),
        ] {
            assert_eq!(parse_in(bytes, charset).unwrap_err(), XmlError::Encoding);
        }
    }

    #[test]
    fn lists_namespaces_and_nil_are_read() {
        let text = r#"<s:a xmlns:s="urn:x" xmlns:i="http://www.w3.org/2001/XMLSchema-instance">
            <b>1</b><b>&lt;2&#33;</b><c i:nil="true"/><d><![CDATA[<x>]]></d></s:a>"#;
        let element = parse(text.as_bytes()).unwrap();
        assert_eq!((element.name.as_str(), &*element.namespace), ("a", "urn:x"));
        assert_eq!(element.into_value(), serde_json::json!({"b": ["1", "<2!"], "c": null, "d": "<x>"}));
    }

    #[test]
    fn white_space_is_text_where_there_is_nothing_else() {
        for (text, value) in [
            ("<a> \n </a>", serde_json::json!(" \n ")),
            ("<a> <!-- x --> </a>", serde_json::json!("  ")),
            ("<a> <![CDATA[ ]]></a>", serde_json::json!("  ")),
            ("<a> &#32;x</a>", serde_json::json!("  x")),
            ("<a> x </a>", serde_json::json!(" x ")),
            ("<a>\n <b> </b>\n</a>\n", serde_json::json!({ "b": " " })),
            ("<a> <b/> <c> 1</c> <d/>\u{a0}</a>", serde_json::json!({ "b": "", "c": " 1", "d": "" })),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap().into_value(), value, "{text}");
        }
        assert_eq!(parse(b"<a>x <b/> y</a>").unwrap().text, "x  y");
    }

    proptest! {
        #[test]
        fn any_text_survives_writing_and_reading(text in "[^\u{0}-\u{8}\u{b}\u{c}\u{e}-\u{1f}\u{fffe}\u{ffff}]{0,40}") {
            let mut out = String::new();
            write_root(&mut out, "a", None, &serde_json::json!({"b": text, "c": "x"}));
            let read = parse(out.as_bytes()).unwrap();
            prop_assert_eq!(&read.child("b").unwrap().text, &text);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
