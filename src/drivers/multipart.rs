//! SOAP responses in several parts (RFC 2046, section 5.1; RFC 2387; MTOM and XOP; X-Road PR-MESS, section 2.4), and
//! elements that are elsewhere in the body (SOAP 1.1, section 5). Bounded in parts, in expanded size, and in depth.

use super::SourceError;
use super::http::HttpResponse;
use crate::contract::xml::Element;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header;
use std::collections::HashMap;

/// Maximum number of parts of a response.
const MAX_PARTS: usize = 100;
/// Maximum number of elements after references are expanded, and maximum depth: the same as for a document.
const MAX_EXPANDED: usize = 100_000;
const MAX_DEPTH: usize = 64;
/// Namespace of `xop:Include`.
const XOP: &str = "http://www.w3.org/2004/08/xop/include";

/// The parts of a response by content id, without the root.
pub(super) type Parts<'a> = HashMap<String, MultipartPart<'a>>;

/// One part.
pub(super) struct MultipartPart<'a> {
    body: &'a [u8],
    base64: bool,
}

/// The root document of a response, its charset, and its other parts.
pub(super) struct OpenedMultipart<'a> {
    pub root: &'a [u8],
    pub charset: Option<String>,
    pub parts: Parts<'a>,
}

fn wrong(what: &str) -> SourceError {
    SourceError::protocol(format!("the multipart response {what}"))
}

/// Splits a response into its parts, if it has several.
pub(super) fn open(answer: &HttpResponse) -> Result<OpenedMultipart<'_>, SourceError> {
    let kind = answer.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let Some(kind) = kind.and_then(media_type) else {
        return Ok(OpenedMultipart { root: &answer.body, charset: None, parts: HashMap::new() });
    };
    if kind.type_() != mime::MULTIPART {
        return Ok(OpenedMultipart { root: &answer.body, charset: charset(&kind), parts: HashMap::new() });
    }
    let boundary = kind.get_param(mime::BOUNDARY).ok_or_else(|| wrong("has no boundary"))?;
    let start = kind.get_param("start").map(|start| start.as_str().to_owned());
    let mut root = None;
    let mut parts = HashMap::new();
    for part in split(&answer.body, boundary.as_str().as_bytes())? {
        let (head, body) = head_and_body(part).ok_or_else(|| wrong("has a part without a head"))?;
        let head = std::str::from_utf8(head).map_err(|_| wrong("has a head that is no text"))?;
        let id = field(head, "content-id").unwrap_or_default();
        let id = bare(&id);
        let is_root = match &start {
            Some(start) => id == bare(start),
            None => root.is_none(),
        };
        let base64 = match field(head, "content-transfer-encoding").unwrap_or_default().to_ascii_lowercase().as_str() {
            "" | "binary" | "8bit" | "7bit" => false,
            "base64" => true,
            _ => return Err(wrong("has a transfer encoding that is not read")),
        };
        if is_root && root.is_none() {
            if base64 {
                return Err(wrong("has a root in base64"));
            }
            let kind = field(head, "content-type").and_then(|kind| media_type(&kind));
            root = Some((body, kind.as_ref().and_then(charset)));
        } else if parts.insert(id.to_owned(), MultipartPart { body, base64 }).is_some() && !id.is_empty() {
            return Err(wrong("has two parts of one id"));
        }
    }
    let (root, charset) = root.ok_or_else(|| wrong("has no root"))?;
    Ok(OpenedMultipart { root, charset, parts })
}

/// A media type; some stacks end it with a semicolon.
fn media_type(text: &str) -> Option<mime::Mime> {
    text.trim_end_matches([' ', ';']).parse().ok()
}

fn charset(kind: &mime::Mime) -> Option<String> {
    kind.get_param(mime::CHARSET).map(|charset| charset.as_str().to_owned())
}

/// A content id without its angle brackets.
fn bare(id: &str) -> &str {
    id.trim().trim_start_matches('<').trim_end_matches('>')
}

fn cut<'a>(bytes: &'a [u8], at: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let found = bytes.windows(at.len()).position(|window| window == at)?;
    Some((&bytes[..found], &bytes[found + at.len()..]))
}

/// A header field of a part, with its continuation lines (RFC 5322, section 2.2.3): Axis2 writes content ids in this
/// way.
fn field(head: &str, name: &str) -> Option<String> {
    let mut lines = head.lines();
    let first = lines.find_map(|line| {
        let (known, value) = line.split_once(':')?;
        known.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })?;
    let further = lines.take_while(|line| line.starts_with([' ', '\t'])).map(str::trim);
    let words: Vec<&str> = std::iter::once(first).chain(further).filter(|words| !words.is_empty()).collect();
    Some(words.join(" "))
}

/// A part's head and body; a part may begin with its body (RFC 2046, section 5.1).
fn head_and_body(part: &[u8]) -> Option<(&[u8], &[u8])> {
    match part {
        [b'\r', b'\n', body @ ..] | [b'\n', body @ ..] => Some((&[], body)),
        part => cut(part, b"\r\n\r\n").or_else(|| cut(part, b"\n\n")),
    }
}

/// The parts between the boundary's lines. A longer boundary with the same beginning does not match.
fn split<'a>(body: &'a [u8], boundary: &[u8]) -> Result<Vec<&'a [u8]>, SourceError> {
    let line = [b"--", boundary].concat();
    let mut parts = Vec::new();
    let mut start = None;
    let mut at = 0;
    while let Some(found) = body[at..].windows(line.len()).position(|window| window == line) {
        let begin = at + found;
        at = begin + line.len();
        let rest = &body[at..];
        // What follows the boundary on its line is padding.
        let padding = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r')).count();
        let (last, next) = (rest.starts_with(b"--"), rest.get(padding) == Some(&b'\n'));
        if !(last || next) || (begin > 0 && body[begin - 1] != b'\n') {
            continue;
        }
        if let Some(start) = start {
            if parts.len() >= MAX_PARTS {
                return Err(wrong("has too many parts"));
            }
            let part: &[u8] = body.get(start..begin - 1).unwrap_or_default();
            parts.push(part.strip_suffix(b"\r").unwrap_or(part));
        }
        if last {
            return Ok(parts);
        }
        at += padding + 1;
        start = Some(at);
    }
    Err(wrong(if start.is_some() { "does not end" } else { "does not begin" }))
}

/// Replaces `xop:Include` by its part, as base64.
pub(super) fn include(element: &mut Element, parts: &mut Parts<'_>) -> Result<(), SourceError> {
    if let [only] = element.children.as_slice()
        && only.is(XOP, "Include")
    {
        let href = attribute(only, "href")
            .and_then(|href| href.strip_prefix("cid:"))
            .ok_or_else(|| wrong("includes nothing"))?;
        let id = crate::percent::decode(href);
        // Each part only once, so that no response grows beyond what was received.
        let part = parts.remove(bare(&id)).ok_or_else(|| wrong("includes a part that is not there"))?;
        element.text = match part.base64 {
            true => String::from_utf8_lossy(part.body).into_owned(),
            false => STANDARD.encode(part.body),
        };
        element.children.clear();
        return Ok(());
    }
    element.children.iter_mut().try_for_each(|child| include(child, parts))
}

fn attribute<'e>(element: &'e Element, name: &str) -> Option<&'e str> {
    element.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// Replaces references (`href="#id"`, in SOAP 1.2 `ref="id"`) by the elements of the body that they refer to.
pub(super) fn resolve(children: Vec<Element>) -> Result<Option<Element>, SourceError> {
    let mut children = children.into_iter();
    let Some(mut first) = children.next() else { return Ok(None) };
    let mut others = HashMap::new();
    for child in children {
        // A second element without a possible reference is a second response, or a fault beside it.
        let id = attribute(&child, "id").map(str::to_owned);
        let id = id.ok_or_else(|| SourceError::protocol("the envelope's body has more than one element"))?;
        others.insert(id, child);
    }
    if !others.is_empty() {
        expand(&mut first, &others, 0, &mut 0)?;
    } else if refers(&first) {
        return Err(SourceError::protocol(NOWHERE));
    }
    Ok(Some(first))
}

const NOWHERE: &str = "the response refers to a missing element";

/// Returns whether an element is nothing but a reference into the body, or contains one.
fn refers(element: &Element) -> bool {
    let alone = element.children.is_empty() && element.text.trim().is_empty();
    (alone && attribute(element, "href").is_some_and(|href| href.starts_with('#')))
        || element.children.iter().any(refers)
}

fn expand(
    element: &mut Element,
    others: &HashMap<String, Element>,
    depth: usize,
    count: &mut usize,
) -> Result<(), SourceError> {
    *count += 1;
    if depth > MAX_DEPTH || *count > MAX_EXPANDED {
        return Err(SourceError::protocol("the response's references are too deep"));
    }
    let href = attribute(element, "href").and_then(|href| href.strip_prefix('#')).or_else(|| attribute(element, "ref"));
    if let Some(other) = href.and_then(|id| others.get(id)) {
        element.children = other.children.clone();
        element.text.clone_from(&other.text);
        element.attributes.clone_from(&other.attributes);
    } else if href.is_some() && element.children.is_empty() {
        return Err(SourceError::protocol(NOWHERE));
    }
    element.children.iter_mut().try_for_each(|child| expand(child, others, depth + 1, count))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue, StatusCode};

    #[test]
    fn an_answer_has_a_hundred_parts_at_most() {
        let answer = |count: usize| {
            let part = |number: usize| format!("--b\r\nContent-Id: <{number}>\r\n\r\nx\r\n");
            let body: String = (0..count).map(part).chain(["--b--\r\n".to_owned()]).collect();
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("multipart/related; boundary=b"));
            HttpResponse { status: StatusCode::OK, headers, body: body.into() }
        };
        assert_eq!(open(&answer(MAX_PARTS)).unwrap().parts.len(), MAX_PARTS - 1, "and the root");
        let refused = answer(MAX_PARTS + 1);
        let error = open(&refused).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("too many parts"), "{error}");
    }

    #[test]
    fn references_lead_neither_deep_nor_to_more_than_a_document_may_have() {
        let resolved = |body: &str| {
            let body = crate::contract::xml::parse(format!("<Body>{body}</Body>").as_bytes()).unwrap();
            resolve(body.children).map(|_| ()).map_err(|error| error.to_string())
        };
        let chain = |length: usize| {
            let next = |at: usize| format!("<m id=\"i{at}\"><a href=\"#i{}\"/></m>", at + 1);
            let rest: String = (0..length).map(next).collect();
            format!("<Answer><a href=\"#i0\"/></Answer>{rest}<m id=\"i{length}\">x</m>")
        };
        assert_eq!(resolved(&chain(40)), Ok(()));
        assert!(resolved(&chain(80)).unwrap_err().contains("too deep"));
        // Each is contained twice in the one before: a million of the last.
        let double = |levels: usize| {
            let next = |at: usize| format!("<m id=\"i{at}\"><a href=\"#i{0}\"/><a href=\"#i{0}\"/></m>", at + 1);
            let rest: String = (0..levels).map(next).collect();
            format!("<Answer><a href=\"#i0\"/></Answer>{rest}<m id=\"i{levels}\">x</m>")
        };
        assert_eq!(resolved(&double(10)), Ok(()));
        assert!(resolved(&double(20)).unwrap_err().contains("too deep"));
    }
}
